//! The flusher: one thread that takes the buffered lines of all runs, checks that they may be written, and writes them.
//!
//! A round:
//! 1. Each run with lines gives its buffer away (a flood only once a second, unless somebody waits for it).
//! 2. **Fence.** The store is asked for each job, and [`accepts_log`] says whether the run's lines belong to it. Lines of a
//!    lost lease are refused and counted. If the store does not answer, the lines are held for the next round.
//! 3. The lines go to all backends at once, to each in one batch. What a backend fails to write is counted and marked.
//! 4. Who waits is woken: closing runs, readers, followers.
//!
//! Between the fence and the write a lease may be lost; a line that slips through there is from before the loss was
//! known. For the same reason a lease that was seen to be held is trusted for [`FENCE_TRUST`], so a short run asks the
//! store not at all and a long one once a second.
//!
//! The thread has a runtime of its own: a job that spins on its runtime does not stop the logs of the others.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use jobservice_core::Time;
use jobservice_core::lifecycle::accepts_log;
use tokio::time::{Instant, timeout};

use super::buffer::Segment;
use super::core::Core;
use super::handle::{Batch, RunLog, SinkState, sure_until};
use super::sink::Sink;
use super::{Level, LogError, LogPiece, line};

/// How long a lease that was seen to be held is taken to be held: nothing but a signal with a shorter grace can end it
/// in that time (see [`sure_until`]).
pub(super) const FENCE_TRUST: Duration = Duration::from_secs(1);

/// How long the first line waits for others to be written with it.
const LINGER: Duration = Duration::from_millis(100);

/// The same while somebody follows a log.
const LINGER_FOLLOWED: Duration = Duration::from_millis(10);

/// How long lines that could not be checked are held before the store is asked again.
const HOLD: Duration = Duration::from_millis(500);

impl Core {
    /// What the thread does, until [`Core::close`].
    pub(super) async fn run(&self) {
        let mut next_at: Option<Instant> = None;
        loop {
            match next_at {
                // The time-out is the time of a flood or of held lines: whichever comes first, there is work.
                Some(at) => drop(tokio::time::timeout_at(at, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
            if !self.closing.load(Ordering::Acquire) {
                let linger = if self.watchers.any() { LINGER_FOLLOWED } else { LINGER };
                drop(timeout(linger, self.urgent.notified()).await);
            }
            // Read before the round: what was written before the end was asked for is in it.
            let is_last = self.closing.load(Ordering::Acquire);
            next_at = self.round().await;
            if is_last {
                break;
            }
        }
        self.give_up();
        join_all(self.sinks.iter().map(|sink| AssertUnwindSafe(sink.backend.shutdown()).catch_unwind())).await;
        self.closed.send_replace(true);
        // Who waits for a round waits no longer.
        self.rounds.send_modify(|ended| *ended += 1);
    }

    /// Takes no more lines, and counts those as lost that came after the last round or could not be checked in it.
    fn give_up(&self) {
        self.sealed.store(true, Ordering::Release);
        for run in self.dirty.lock().drain(..) {
            while let Some(batch) = run.take(true, Instant::now()) {
                self.counters.lost.fetch_add(batch.taken.lines(), Ordering::Relaxed);
                run.settle(batch);
            }
        }
    }

    /// One round. Answers when the next is due although nobody asks for it.
    async fn round(&self) -> Option<Instant> {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let is_closing = self.closing.load(Ordering::Acquire);
        let is_forced = self.all_wanted.swap(false, Ordering::AcqRel) || is_closing;
        let now = Instant::now();
        let runs: Vec<Arc<RunLog>> = self.dirty.lock().clone();
        let taken = runs.iter().filter_map(|run| Some((run, run.take(is_forced, now)?)));
        let accepted = self.fence(taken.collect()).await;
        self.write(&accepted).await;
        for (run, batch) in accepted {
            self.watchers.tell(&run.run.lease.id);
            run.settle(batch);
        }
        let next_at = self.forget_clean(now);
        self.rounds.send_replace(number);
        next_at
    }

    /// Takes the runs out of the list that have nothing left to write, and says when one of the others is due.
    fn forget_clean(&self, now: Instant) -> Option<Instant> {
        let mut next_at: Option<Instant> = None;
        self.dirty.lock().retain(|run| {
            if run.is_clean() {
                return false;
            }
            let flush = run.flush.lock();
            let at = if flush.held.is_some() { now + HOLD } else { flush.next_at.unwrap_or(now) };
            next_at = Some(next_at.map_or(at, |next_at| next_at.min(at)));
            true
        });
        next_at
    }

    /// The batches whose runs still hold their leases; the others are refused, or held if the store is away.
    async fn fence<'a>(&self, taken: Vec<(&'a Arc<RunLog>, Batch)>) -> Vec<(&'a Arc<RunLog>, Batch)> {
        let answers = join_all(taken.iter().map(|(run, batch)| self.accepts(run, batch))).await;
        let mut accepted = Vec::with_capacity(taken.len());
        for ((run, batch), answer) in taken.into_iter().zip(answers) {
            match answer {
                Fence::Accepted => accepted.push((run, batch)),
                Fence::Unknown => run.hold(batch),
                Fence::Refused => {
                    run.refuse_from_now_on();
                    let lines = batch.taken.lines();
                    self.counters.refused.fetch_add(lines, Ordering::Relaxed);
                    let id = &run.run.lease.id;
                    tracing::debug!(job.id = %id, lines, "job {id}: {lines} log lines refused, the lease is lost");
                    run.settle(batch);
                }
            }
        }
        accepted
    }

    async fn accepts(&self, run: &RunLog, batch: &Batch) -> Fence {
        let now = self.clock.now();
        let is_sure = run.flush.lock().sure_until.is_some_and(|until| now < until);
        if is_sure && batch.before_close && !run.is_revoked() {
            return Fence::Accepted;
        }
        let lease = &run.run.lease;
        match self.store.get(&lease.id).await {
            Ok(Some(job)) if accepts_log(&job, lease, now) => {
                let held = job.is_held_by(lease);
                run.flush.lock().sure_until = if held { sure_until(&job, now) } else { None };
                Fence::Accepted
            }
            Ok(_) => Fence::Refused,
            // The store tells of its illness itself, at the calls that matter.
            Err(error) => {
                tracing::debug!(job.id = %lease.id, error = %error, "log lines of job {} wait for the store", lease.id);
                Fence::Unknown
            }
        }
    }

    async fn write(&self, accepted: &[(&Arc<RunLog>, Batch)]) {
        if accepted.is_empty() {
            return;
        }
        let mut states: Vec<Vec<SinkState>> = accepted
            .iter()
            .map(|(run, _)| {
                let mut states = run.flush.lock().sinks.clone();
                states.resize(self.sinks.len(), SinkState::default());
                states
            })
            .collect();
        let now = self.clock.now();
        let mut batches: Vec<(Vec<usize>, Vec<LogPiece>)> = self.sinks.iter().map(|_| Default::default()).collect();
        for (member, ((run, batch), states)) in accepted.iter().zip(&states).enumerate() {
            // Backends with the same lines to write, the usual case, share the text.
            let mut last: Option<(u64, SinkState, Option<Bytes>)> = None;
            for ((sink, state), (members, pieces)) in self.sinks.iter().zip(states).zip(&mut batches) {
                let lines = kept_lines(batch, sink.level);
                let bytes = match &last {
                    Some((same_lines, same_state, bytes)) if (*same_lines, same_state) == (lines, state) => {
                        bytes.clone()
                    }
                    _ => compose(run, batch, sink.level, *state, now),
                };
                if let Some(bytes) = bytes.clone() {
                    members.push(member);
                    let (id, name) = (run.run.lease.id.clone(), run.run.name.clone());
                    pieces.push(LogPiece { id, name, attempt: run.run.lease.attempt, bytes, at: now });
                }
                last = Some((lines, *state, bytes));
            }
        }
        let (members, pieces): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
        let answers = join_all(self.sinks.iter().zip(pieces).map(|(sink, pieces)| append(sink, pieces))).await;

        for (index, (sink, (members, answers))) in self.sinks.iter().zip(members.into_iter().zip(answers)).enumerate() {
            let mut failed: Option<(u64, LogError)> = None;
            for (member, answer) in members.into_iter().zip(answers) {
                let Some((_, batch)) = accepted.get(member) else { continue };
                let Some(state) = states.get_mut(member).and_then(|states| states.get_mut(index)) else { continue };
                let lines = kept_lines(batch, sink.level);
                match answer {
                    Ok(()) => {
                        *state = SinkState { has_header: true, lost: 0 };
                        self.counters.written.fetch_add(lines, Ordering::Relaxed);
                    }
                    Err(error) => {
                        state.lost += lines;
                        self.counters.lost.fetch_add(lines, Ordering::Relaxed);
                        failed = Some((failed.map_or(0, |(lines, _)| lines) + lines, error));
                    }
                }
            }
            sink.report(failed, now);
        }
        for ((run, _), states) in accepted.iter().zip(states) {
            run.flush.lock().sinks = states;
        }
    }
}

enum Fence {
    Accepted,
    Refused,
    Unknown,
}

/// Appends to a backend, which may be a user's: one that panics fails its pieces, one that answers too little too.
async fn append(sink: &Sink, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
    let count = pieces.len();
    if count == 0 {
        return Vec::new();
    }
    let failed = |source: &str| LogError::Failed { during: "append", source: source.into() };
    let answers = AssertUnwindSafe(sink.backend.append(pieces)).catch_unwind().await;
    let mut answers = answers.unwrap_or_else(|_| vec![Err(failed("it panicked"))]);
    answers.truncate(count);
    answers.resize_with(count, || Err(failed("it did not answer for all pieces")));
    answers
}

/// The text of a batch for a backend with this threshold; none if no line passes.
fn compose(run: &RunLog, batch: &Batch, level: Level, state: SinkState, now: Time) -> Option<Bytes> {
    let lines = kept_lines(batch, level);
    let dropped = batch.dropped();
    if lines == 0 && (dropped.lines == 0 || !state.has_header) {
        return None;
    }
    let mut out = Vec::with_capacity(batch.taken.bytes + 256);
    if !state.has_header {
        out.extend_from_slice(line::header(&run.run, now).as_bytes());
    }
    if state.lost > 0 {
        out.extend_from_slice(line::lost_mark(state.lost).as_bytes());
    }
    for segment in &batch.taken.head {
        copy_lines(&mut out, segment, level);
    }
    if dropped.lines > 0 {
        out.extend_from_slice(line::dropped_mark(dropped.lines, dropped.bytes).as_bytes());
    }
    for segment in &batch.taken.tail {
        copy_lines(&mut out, segment, level);
    }
    Some(Bytes::from(out))
}

fn copy_lines(out: &mut Vec<u8>, segment: &Segment, level: Level) {
    let mut at = 0;
    for span in &segment.spans {
        if span.level >= level {
            out.extend_from_slice(segment.bytes.get(at..at + span.bytes).unwrap_or_default());
        }
        at += span.bytes;
    }
}

fn kept_lines(batch: &Batch, level: Level) -> u64 {
    let spans = batch.taken.head.iter().chain(&batch.taken.tail).flat_map(|segment| &segment.spans);
    spans.filter(|span| span.level >= level).map(|span| u64::from(span.lines)).sum()
}
