//! The handle that a run writes its log with.
//!
//! Writing is a plain call that never waits and never fails: the line is formatted, put into the run's bounded buffer,
//! and written by the flusher within a tenth of a second. A run that writes nothing costs one small allocation: it is
//! known to nobody until its first line.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jobservice_core::job::{Job, LeaseKey};
use jobservice_core::{Name, PoolId, Time};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::buffer::{Buffer, Dropped, Taken};
use super::core::Core;
use super::round::FENCE_TRUST;
use super::{Level, line};

/// How long [`JobLog::close`] waits at the most: a hung disk must not keep a job from reporting its end.
/// Shorter than a pool that ends waits for its last reports.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(2);

/// The run that a log is written for.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) lease: LeaseKey,
    pub(super) name: Name,
    pub(super) pool: PoolId,
    /// When it was claimed, if that is known.
    pub(super) started_at: Option<Time>,
    /// Until when nobody can have taken the lease away, if that is known: the store is not asked before that.
    pub(super) sure_until: Option<Time>,
}

impl Run {
    /// The run of a job as its claim gave it; none if the job is not Running.
    ///
    /// Whoever claims a job knows that it holds the lease for the next moments: until that expires, or a timeout or signal
    /// that the record tells of runs out, but at most for a second, since a signal can come that it does not tell of. So
    /// for the lines of a short run nobody asks the store.
    pub fn of(job: &Job) -> Option<Run> {
        let pool = job.state.lease.as_ref()?.pool.clone();
        let sure_until = job.state.started_at.and_then(|started_at| sure_until(job, started_at));
        let started_at = job.state.started_at;
        Some(Run { lease: job.lease_key()?, name: job.spec.name.clone(), pool, started_at, sure_until })
    }

    /// A run of which only the lease is known: the store is asked about it at the first line.
    pub fn new(lease: LeaseKey, name: Name, pool: PoolId) -> Run {
        Run { lease, name, pool, started_at: None, sure_until: None }
    }
}

/// Until when the lease of a job, read as held at `at`, cannot have been lost: nothing ends it before
/// [`jobservice_core::State::reap_at`] but a signal that is not in the record yet, and those leave a grace longer than
/// [`FENCE_TRUST`].
pub(super) fn sure_until(job: &Job, at: Time) -> Option<Time> {
    Some(job.state.reap_at()?.min(at + FENCE_TRUST))
}

/// The log of one run. Clones write to the same log.
#[derive(Clone)]
pub struct JobLog(Option<Arc<RunLog>>);

impl fmt::Debug for JobLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(run) => f.debug_tuple("JobLog").field(&run.run.lease).finish(),
            None => f.write_str("JobLog(disabled)"),
        }
    }
}

impl JobLog {
    pub(super) fn new(core: &Arc<Core>, run: Run) -> JobLog {
        let flush = FlushState { sure_until: run.sure_until, ..FlushState::default() };
        JobLog(Some(Arc::new(RunLog {
            run,
            core: Arc::clone(core),
            revoked: AtomicBool::new(false),
            state: Mutex::default(),
            flush: Mutex::new(flush),
        })))
    }

    /// A log that keeps nothing.
    pub const fn disabled() -> JobLog {
        JobLog(None)
    }

    /// Whether any backend keeps lines of this level: spares formatting what nobody keeps.
    pub fn is_enabled(&self, level: Level) -> bool {
        self.0.as_ref().is_some_and(|run| level >= run.core.level_min)
    }

    /// Writes a line. Never waits, never fails; see the module for what becomes of a flood.
    ///
    /// `text` may be anything that can be displayed: a `&str`, a `String`, `format_args!(..)`, an error. Text of several
    /// lines is kept together; past [`jobservice_core::limits::LOG_LINE_BYTES_MAX`] it is cut.
    pub fn line(&self, level: Level, text: impl fmt::Display) {
        if let Some(run) = &self.0
            && level >= run.core.level_min
        {
            run.line(level, &text);
        }
    }

    /// Writes a line for who looks for a mistake.
    pub fn debug(&self, text: impl fmt::Display) {
        self.line(Level::Debug, text);
    }

    /// Writes a line about what happens.
    pub fn info(&self, text: impl fmt::Display) {
        self.line(Level::Info, text);
    }

    /// Writes a line about something wrong that the job gets over.
    pub fn warning(&self, text: impl fmt::Display) {
        self.line(Level::Warning, text);
    }

    /// Writes a line about something that failed.
    pub fn error(&self, text: impl fmt::Display) {
        self.line(Level::Error, text);
    }

    /// Writes a line about why the job cannot go on.
    pub fn fatal(&self, text: impl fmt::Display) {
        self.line(Level::Fatal, text);
    }

    /// Says that the lease is lost: lines from now on are dropped and counted. Those written before are checked as always.
    pub fn revoke(&self) {
        if let Some(run) = &self.0 {
            run.revoked.store(true, Ordering::Release);
        }
    }

    /// Waits until the lines written so far are in the log. To be called when the run has ended and *before* its end is
    /// reported, so that who sees the job's end finds its whole log.
    ///
    /// Answers at once if there is nothing to write, and after five seconds in any case. Lines that clones write later
    /// are still accepted for [`jobservice_core::limits::LATE_LOG`] after the run's own end.
    pub async fn close(self) {
        if let Some(run) = &self.0 {
            run.close().await;
        }
    }
}

/// What a [`JobLog`] and the flusher share.
pub(super) struct RunLog {
    pub(super) run: Run,
    pub(super) core: Arc<Core>,
    revoked: AtomicBool,
    state: Mutex<State>,
    /// Touched by the flusher only, one round after the other.
    pub(super) flush: Mutex<FlushState>,
}

#[derive(Default)]
struct State {
    buffer: Buffer,
    /// Whether the run is in the flusher's list.
    dirty: bool,
    /// Somebody waits for the lines: the next round must not pass over this run.
    wanted: bool,
    /// Bytes of all lines so far.
    bytes: u64,
    /// Lines so far: dropped ones count, they are dealt with.
    pushed: u64,
    /// Of these, lines that are written, lost or refused.
    settled: u64,
    /// `pushed` when the run was closed: later lines come from somebody whose lease is perhaps gone.
    closed_at: Option<u64>,
}

#[derive(Default)]
pub(super) struct FlushState {
    /// Lines that could not be checked because the store was away, or not written yet; they go before what is buffered.
    pub(super) held: Option<Batch>,
    /// One for each backend.
    pub(super) sinks: Vec<SinkState>,
    pub(super) sure_until: Option<Time>,
    /// A flooding run is passed over until then.
    pub(super) next_at: Option<Instant>,
}

/// What one backend knows of a run.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SinkState {
    pub(super) has_header: bool,
    /// Lines that it failed to write and that no mark stands for yet.
    pub(super) lost: u64,
}

/// Lines taken out of a run's buffer.
pub(super) struct Batch {
    pub(super) taken: Taken,
    /// The run's `pushed` at that time.
    pub(super) upto: u64,
    /// Whether all were written before the run was closed.
    pub(super) before_close: bool,
}

impl RunLog {
    fn line(self: &Arc<Self>, level: Level, text: &dyn fmt::Display) {
        let core = &self.core;
        if self.is_revoked() {
            core.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        line::with_line(core.clock.now(), level, text, |line| self.push(level, line));
    }

    fn push(self: &Arc<Self>, level: Level, line: &[u8]) {
        let core = &self.core;
        let mut state = self.state.lock();
        // Under the lock, so that the flusher's last look at the buffer comes after the last line.
        if core.is_sealed() {
            core.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = state.buffer.bytes();
        let caps = core.limits.caps(state.bytes, core.buffered.load(Ordering::Relaxed));
        let dropped = state.buffer.push(line, level, caps);
        let after = state.buffer.bytes();
        state.bytes += line.len() as u64;
        state.pushed += 1;
        let is_flooding = core.limits.is_flooding(state.bytes);
        let is_new = !std::mem::replace(&mut state.dirty, true);
        // Under the lock: so that the flusher, which takes the buffer under it, never subtracts what was not yet added.
        core.account(before, after);
        drop(state);

        if dropped > 0 {
            core.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if is_new {
            core.add_dirty(Arc::clone(self));
        }
        let hurry_at = core.limits.hurry_bytes;
        if !is_flooding && before < hurry_at && after >= hurry_at {
            core.hurry();
        }
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// The lease is known to be lost: nothing that the run writes can be accepted any more.
    pub(super) fn refuse_from_now_on(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    async fn close(&self) {
        let target = {
            let mut state = self.state.lock();
            state.closed_at = Some(state.pushed);
            if state.settled >= state.pushed {
                return;
            }
            state.wanted = true;
            state.pushed
        };
        let mut rounds = self.core.rounds.subscribe();
        let settled = async {
            let mut hurries = 0;
            loop {
                rounds.borrow_and_update();
                if self.state.lock().settled >= target || self.core.is_closed() {
                    return;
                }
                // The round that runs now may have passed over this run, the next one does not: what is not settled then
                // waits for the store, which hurry does not help.
                if hurries < 2 {
                    hurries += 1;
                    self.core.hurry();
                }
                if rounds.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CLOSE_WAIT_MAX, settled).await.is_err() {
            tracing::warn!(job.id = %self.run.lease.id, "job {}: its log is not written yet, going on", self.run.lease.id);
        }
    }

    /// Asks that the next round does not pass over this run.
    pub(super) fn want(&self) {
        self.state.lock().wanted = true;
    }

    /// What the flusher has to write now; none if there is nothing, or it is a flood whose time has not come.
    pub(super) fn take(&self, is_forced: bool, now: Instant) -> Option<Batch> {
        let mut flush = self.flush.lock();
        if let Some(held) = flush.held.take() {
            return Some(held);
        }
        let mut state = self.state.lock();
        let is_wanted = std::mem::take(&mut state.wanted) || is_forced;
        if !is_wanted && flush.next_at.is_some_and(|at| now < at) {
            return None;
        }
        if state.buffer.is_empty() {
            return None;
        }
        if self.core.limits.is_flooding(state.bytes) {
            flush.next_at = Some(now + self.core.limits.flood_pause);
        }
        let before_close = state.closed_at.is_none_or(|closed_at| state.pushed <= closed_at);
        Some(Batch { taken: state.buffer.take(), upto: state.pushed, before_close })
    }

    /// The batch is dealt with: its bytes no longer count, who waits for it may go on.
    pub(super) fn settle(&self, batch: Batch) {
        self.core.account(batch.taken.bytes, 0);
        self.state.lock().settled = batch.upto;
    }

    /// The batch must be tried again.
    pub(super) fn hold(&self, batch: Batch) {
        self.flush.lock().held = Some(batch);
    }

    /// Whether the run can leave the flusher's list; if so its next line puts it in again.
    pub(super) fn is_clean(&self) -> bool {
        if self.flush.lock().held.is_some() {
            return false;
        }
        let mut state = self.state.lock();
        if state.buffer.is_empty() {
            state.dirty = false;
        }
        !state.dirty
    }
}

impl Batch {
    pub(super) fn dropped(&self) -> Dropped {
        self.taken.dropped
    }
}
