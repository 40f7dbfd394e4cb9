//! The rule book: every change of a job is one cell of one table.
//!
//! [`decide`] is given a job, an event and the time; it answers with the complete [`Change`] or with a [`Refusal`]. It
//! reads no clock and draws no random number (jitter and nonces come in with the event), so any interleaving can be
//! replayed. Stores apply the change as one atomic step and nobody else writes a status. The table is rendered to
//! `docs/LIFECYCLE.md` by [`table`](mod@table) and reached cell by cell by the model test.
//!
//! The life of a job that fails once:
//! 1. It is submitted: Pending, in the ready set of its name.
//! 2. `Claim`: Running; attempt 1, a lease with a fresh nonce. From here on only the holder of (id, attempt, nonce) may
//!    report about this run.
//! 3. `Finish(Failed)`: Scheduled, `fails` 1, due after the backoff. The lease is gone; `ended` remembers it, so the same
//!    report sent again gets the same answer.
//! 4. `Due`: Pending again. `Claim`: attempt 2, another nonce. `Finish(Ok)`: Success, with an expiry.
//!
//! If instead its worker dies at 2, nobody extends the lease; `LeaseExpired` gives the job back and counts a crash, not
//! a failure. A late report of the dead worker's run is `LeaseLost`, whatever it says.

pub mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::job::{
    Attempt, AttemptOutcome, CheckIn, Ended, EndedHow, Index, Job, Lease, LeaseKey, Signal, SignalState, State, Status,
};
use crate::{PoolId, Time, invariant, limits, retry, unique::Scope};

/// Something that happens to a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Its time has come.
    Due,
    /// A pool takes it to run it.
    Claim {
        /// Which pool.
        pool: PoolId,
        /// Eight random bytes, drawn for this claim.
        nonce: u64,
        /// Until when the lease lasts if it is not extended.
        until: Time,
        /// How long the job may take to obey its timeout.
        grace: Duration,
    },
    /// Its worker reports how the run ended.
    Finish {
        /// The lease of that run.
        lease: LeaseKey,
        /// How it ended.
        outcome: Outcome,
    },
    /// Its worker gives it back unfinished, at shutdown.
    Release {
        /// The lease of that run.
        lease: LeaseKey,
        /// Random number for the backoff, should this release count as a failure.
        jitter: u32,
    },
    /// Its worker reports progress.
    CheckIn {
        /// The lease of that run.
        lease: LeaseKey,
        /// The message.
        message: Arc<str>,
    },
    /// Its worker is alive.
    Extend {
        /// The lease of that run.
        lease: LeaseKey,
        /// The new end; an earlier one than now set changes nothing.
        until: Time,
    },
    /// It ran over its timeout and did not obey within the grace.
    TimedOut {
        /// Random number for the backoff.
        jitter: u32,
    },
    /// It did not obey a stop or cancel within the grace.
    GraceExpired,
    /// Nobody extended its lease: its worker is taken for dead.
    LeaseExpired {
        /// The worker is known to be dead (a file lock proves it): do not wait for the lease to end.
        proven: bool,
    },
    /// A person or program ends it for good.
    Stop {
        /// How long a running job may take to obey.
        grace: Duration,
    },
    /// A person or program ends it; it may be retried later.
    Cancel {
        /// How long a running job may take to obey.
        grace: Duration,
    },
    /// A person or program wants a dead job to run again.
    Retry,
    /// A person or program removes it.
    Delete,
    /// Its time to be kept is over.
    Prune,
}

/// How a run ended, as the code that ran it says.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It did what it was asked to.
    Ok {
        /// What it gives back, as JSON text.
        result: Option<Arc<str>>,
    },
    /// It failed.
    Failed {
        /// Why.
        error: Arc<str>,
        /// Whether another try makes sense.
        retryable: bool,
        /// The pause before it, if the job's code has a backoff of its own.
        retry_after: Option<Duration>,
        /// Random number for the default backoff.
        jitter: u32,
    },
    /// It obeyed a stop (or stopped by itself).
    Stopped,
    /// It obeyed a cancel (or cancelled itself).
    Cancelled,
    /// It wants to run again later; nothing is counted.
    Snooze {
        /// When.
        until: Time,
    },
}

/// What a store has to write, all of it in one atomic step.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The new state; none means that the record goes, with all that belongs to it.
    pub state: Option<State>,
    /// The place in the sets that the job leaves, if it moves.
    pub leave: Option<Index>,
    /// The place that it enters, if it moves.
    pub enter: Option<Index>,
    /// The event for its hook, if it has one and there is something to report.
    pub event: Option<HookEvent>,
    /// It claims its unique key anew: if another job holds that, the store must refuse the whole change.
    pub takes_key: bool,
}

/// One message to a job's hook. The body is composed when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEvent {
    /// Its number within the job, from 1.
    pub seq: u32,
    /// The status at that time.
    pub status: Status,
    /// The attempt at that time.
    pub attempt: u32,
    /// When it happened.
    pub at: Time,
    /// The message, if this is a check-in.
    pub check_in: Option<Arc<str>>,
    /// The error, if the change came from one.
    pub error: Option<Arc<str>>,
}

/// Why an event does not change a job. An answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The report comes from a run that is no longer the job's: another attempt has it, or the lease was taken away.
    #[error("the lease is lost")]
    LeaseLost,
    /// The same report was accepted before; the job became this then.
    #[error("already reported: the job became {0}")]
    Repeated(Status),
    /// There is nothing to do: the job is already as asked.
    #[error("nothing to change")]
    Unchanged,
    /// Too early.
    #[error("not before {0}")]
    NotYet(Time),
    /// The job's status does not allow it.
    #[error("a {status} job cannot be {action}")]
    Illegal {
        /// What it is.
        status: Status,
        /// What was asked: "retried", "deleted", ...
        action: &'static str,
    },
}

/// Decides what `event` does to `job` at `now`.
///
/// Total and pure: every (status, event) pair has its arm.
pub fn decide(job: &Job, event: &Event, now: Time) -> Result<Change, Refusal> {
    let decided = cell(job, event, now);
    if let Ok(change) = &decided {
        debug_assert_eq!(unsound(job, change), Vec::<String>::new(), "{event:?} made of {job:?}: {change:?}");
    }
    decided
}

/// Which invariants a change would break. A record that was not sound before is not this change's fault.
fn unsound(job: &Job, change: &Change) -> Vec<String> {
    match &change.state {
        Some(state) if invariant::check(job).is_empty() => {
            let after = Job { state: state.clone(), ..job.clone() };
            let mut wrong = invariant::check(&after);
            wrong.extend(invariant::transition(job, &after));
            wrong
        }
        _ => Vec::new(),
    }
}

/// The cell of the table.
fn cell(job: &Job, event: &Event, now: Time) -> Result<Change, Refusal> {
    use Status::{Cancelled, Error, Pending, Running, Scheduled, Stopped, Success};
    let state = &job.state;
    match (state.status, event) {
        (Scheduled, Event::Due) => due(job, now),
        (Pending | Running | Error | Success | Stopped | Cancelled, Event::Due) => illegal(state, "made due"),

        (Pending, Event::Claim { pool, nonce, until, grace }) => Ok(claim(job, pool, *nonce, *until, *grace, now)),
        (Scheduled | Running | Error | Success | Stopped | Cancelled, Event::Claim { .. }) => illegal(state, "claimed"),

        (Running, Event::Finish { lease, outcome }) => {
            holder(job, lease, EndedHow::Finished)?;
            Ok(finish(job, outcome, now))
        }
        (Scheduled | Pending | Error | Success | Stopped | Cancelled, Event::Finish { lease, .. }) => {
            Err(late(state, lease, EndedHow::Finished))
        }

        (Running, Event::Release { lease, jitter }) => {
            holder(job, lease, EndedHow::Released)?;
            Ok(release(job, *jitter, now))
        }
        (Scheduled | Pending | Error | Success | Stopped | Cancelled, Event::Release { lease, .. }) => {
            Err(late(state, lease, EndedHow::Released))
        }

        (Running, Event::CheckIn { lease, message }) if job.is_held_by(lease) => Ok(check_in(job, message, now)),
        (Running, Event::Extend { lease, until }) if job.is_held_by(lease) => extend(job, *until),
        (
            Scheduled | Pending | Running | Error | Success | Stopped | Cancelled,
            Event::CheckIn { .. } | Event::Extend { .. },
        ) => Err(Refusal::LeaseLost),

        (Running, Event::TimedOut { jitter }) => timed_out(job, *jitter, now),
        (Running, Event::GraceExpired) => grace_expired(job, now),
        (Running, Event::LeaseExpired { proven }) => lease_expired(job, *proven, now),
        (
            Scheduled | Pending | Error | Success | Stopped | Cancelled,
            Event::TimedOut { .. } | Event::GraceExpired | Event::LeaseExpired { .. },
        ) => illegal(state, "reaped"),

        (Scheduled | Pending, Event::Stop { .. }) => Ok(end(job, Stopped, now)),
        (Scheduled | Pending, Event::Cancel { .. }) => Ok(end(job, Cancelled, now)),
        (Running, Event::Stop { grace }) => signal(job, Signal::Stop, *grace, now),
        (Running, Event::Cancel { grace }) => signal(job, Signal::Cancel, *grace, now),
        (Error | Success | Stopped | Cancelled, Event::Stop { .. } | Event::Cancel { .. }) => Err(Refusal::Unchanged),

        (Error | Cancelled, Event::Retry) => Ok(retry_by_hand(job, now)),
        (Scheduled | Pending | Running | Success | Stopped, Event::Retry) => illegal(state, "retried"),

        (Error | Success | Stopped | Cancelled, Event::Delete) => Ok(gone(job)),
        (Scheduled | Pending | Running, Event::Delete) => illegal(state, "deleted"),

        (Error | Success | Stopped | Cancelled, Event::Prune) => match state.expires_at {
            Some(at) if at <= now => Ok(gone(job)),
            Some(at) => Err(Refusal::NotYet(at)),
            None => Err(Refusal::NotYet(Time::MAX)),
        },
        (Scheduled | Pending | Running, Event::Prune) => illegal(state, "pruned"),
    }
}

/// Which of the service's own events a Running job is due for at `now`, if any: what a reap applies.
///
/// A passed grace comes first: it closes the record with the status that somebody asked for.
pub fn overdue(job: &Job, jitter: u32, now: Time) -> Option<Event> {
    let lease = job.state.lease.as_ref()?;
    if job.state.signal.is_some_and(|signal| signal.until <= now) {
        return Some(Event::GraceExpired);
    }
    if lease.until <= now {
        return Some(Event::LeaseExpired { proven: false });
    }
    if lease.abort_at.is_some_and(|at| at <= now) {
        return Some(Event::TimedOut { jitter });
    }
    None
}

fn illegal(state: &State, action: &'static str) -> Result<Change, Refusal> {
    Err(Refusal::Illegal { status: state.status, action })
}

fn holder(job: &Job, lease: &LeaseKey, how: EndedHow) -> Result<(), Refusal> {
    if job.is_held_by(lease) { Ok(()) } else { Err(late(&job.state, lease, how)) }
}

/// The answer to a report about a run that is over: the first answer again if this is the same report, else lost.
fn late(state: &State, lease: &LeaseKey, how: EndedHow) -> Refusal {
    match &state.ended {
        Some(ended) if ended.attempt == lease.attempt && ended.nonce == lease.nonce && ended.how == how => {
            Refusal::Repeated(ended.status)
        }
        _ => Refusal::LeaseLost,
    }
}

fn due(job: &Job, now: Time) -> Result<Change, Refusal> {
    let run_at = job.state.run_at.unwrap_or(job.state.ready_at);
    if run_at > now {
        return Err(Refusal::NotYet(run_at));
    }
    let mut state = job.state.clone();
    state.status = Status::Pending;
    // Its place in the queue is the time it was due, not the time somebody looked: sweeps may be late or run in any order.
    state.ready_at = run_at;
    Ok(change(job, state, None, now))
}

fn claim(job: &Job, pool: &PoolId, nonce: u64, until: Time, grace: Duration, now: Time) -> Change {
    let mut state = job.state.clone();
    state.status = Status::Running;
    state.attempt += 1;
    state.started_at = Some(now);
    let abort_at = job.spec.timeout.map(|timeout| now + timeout + grace);
    state.lease = Some(Lease { nonce, pool: pool.clone(), until, abort_at });
    if job.spec.unique.is_some_and(|unique| unique.scope == Scope::UntilStart) {
        state.holds_key = false;
    }
    change(job, state, None, now)
}

fn finish(job: &Job, outcome: &Outcome, now: Time) -> Change {
    let signalled = job.state.signal.map(|signal| signal.signal.status());
    let how = EndedHow::Finished;
    match (outcome, signalled) {
        // Even if signalled: the work is done, and we report what happened.
        (Outcome::Ok { result }, _) => {
            let mut state = closed(job, how, AttemptOutcome::Success, None, now);
            state.error = None;
            state.result.clone_from(result);
            change(job, finalized(job, state, Status::Success, now), None, now)
        }
        (Outcome::Failed { error, .. }, Some(status)) => {
            obeyed(job, how, status, Some(&bounded(error, limits::ERROR_BYTES_MAX)), now)
        }
        (Outcome::Snooze { .. }, Some(status)) => obeyed(job, how, status, None, now),
        (Outcome::Stopped, _) => obeyed(job, how, Status::Stopped, None, now),
        (Outcome::Cancelled, _) => obeyed(job, how, Status::Cancelled, None, now),
        (Outcome::Failed { error, retryable, retry_after, jitter }, None) => {
            let failure = Failure { error, retryable: *retryable, retry_after: *retry_after, jitter: *jitter };
            failed(job, how, AttemptOutcome::Failed, failure, now)
        }
        (Outcome::Snooze { until }, None) => {
            let mut state = closed(job, how, AttemptOutcome::Snoozed, None, now);
            state.status = Status::Scheduled;
            state.run_at = Some(*until);
            change(job, state, None, now)
        }
    }
}

struct Failure<'a> {
    error: &'a Arc<str>,
    retryable: bool,
    retry_after: Option<Duration>,
    jitter: u32,
}

fn failed(job: &Job, how: EndedHow, outcome: AttemptOutcome, failure: Failure<'_>, now: Time) -> Change {
    let error = bounded(failure.error, limits::ERROR_BYTES_MAX);
    let mut state = closed(job, how, outcome, Some(&error), now);
    state.fails += 1;
    state.error = Some(Arc::clone(&error));
    if failure.retryable && state.fails < job.spec.max_fails {
        let wait = failure.retry_after.unwrap_or_else(|| retry::backoff(state.fails, failure.jitter));
        state.status = Status::Scheduled;
        state.run_at = Some(now + wait);
    } else {
        state = finalized(job, state, Status::Error, now);
    }
    change(job, state, Some(error), now)
}

/// A text from a worker within its bound: the record must not grow by what a job says, whoever forgot to cut it.
fn bounded(text: &Arc<str>, bytes_max: usize) -> Arc<str> {
    if text.len() <= bytes_max { Arc::clone(text) } else { limits::cut(text, bytes_max).into() }
}

/// The job ends as it was asked to, or as it says it was.
fn obeyed(job: &Job, how: EndedHow, status: Status, error: Option<&Arc<str>>, now: Time) -> Change {
    let outcome = if status == Status::Cancelled { AttemptOutcome::Cancelled } else { AttemptOutcome::Stopped };
    let state = closed(job, how, outcome, error, now);
    change(job, finalized(job, state, status, now), None, now)
}

fn release(job: &Job, jitter: u32, now: Time) -> Change {
    let how = EndedHow::Released;
    if let Some(signal) = job.state.signal {
        return obeyed(job, how, signal.signal.status(), None, now);
    }
    if job.state.releases >= limits::RELEASES_MAX {
        let error: Arc<str> = format!("given back at shutdown {} times", job.state.releases + 1).into();
        let failure = Failure { error: &error, retryable: true, retry_after: None, jitter };
        let mut change = failed(job, how, AttemptOutcome::Released, failure, now);
        if let Some(state) = &mut change.state {
            state.releases += 1;
        }
        return change;
    }
    let mut state = closed(job, how, AttemptOutcome::Released, None, now);
    state.releases += 1;
    // `ready_at` stays: the job goes back to where it stood, not behind those that came after it.
    state.status = Status::Pending;
    change(job, state, None, now)
}

fn check_in(job: &Job, message: &Arc<str>, now: Time) -> Change {
    let message = &bounded(message, limits::CHECK_IN_BYTES_MAX);
    let mut state = job.state.clone();
    state.check_in = Some(CheckIn { message: Arc::clone(message), at: now });
    let mut change = change(job, state, None, now);
    if let (Some(state), Some(_)) = (&mut change.state, &job.spec.hook) {
        state.event_seq += 1;
        change.event = Some(HookEvent {
            seq: state.event_seq,
            status: state.status,
            attempt: state.attempt,
            at: now,
            check_in: Some(Arc::clone(message)),
            error: None,
        });
    }
    change
}

fn extend(job: &Job, until: Time) -> Result<Change, Refusal> {
    let mut state = job.state.clone();
    match &mut state.lease {
        Some(lease) if lease.until < until => lease.until = until,
        // Never shortens: an answer that comes late must not take away what a later call gave.
        _ => return Err(Refusal::Unchanged),
    }
    let (leave, enter) = moves(job, &state);
    Ok(Change { state: Some(state), leave, enter, event: None, takes_key: false })
}

fn timed_out(job: &Job, jitter: u32, now: Time) -> Result<Change, Refusal> {
    let abort_at = job.state.lease.as_ref().and_then(|lease| lease.abort_at);
    match (abort_at, job.spec.timeout) {
        (Some(at), Some(timeout)) if at <= now => {
            let error = timeout_error(timeout);
            if let Some(signal) = job.state.signal {
                return Ok(obeyed(job, EndedHow::Aborted, signal.signal.status(), Some(&error), now));
            }
            let failure = Failure { error: &error, retryable: true, retry_after: None, jitter };
            Ok(failed(job, EndedHow::Aborted, AttemptOutcome::TimedOut, failure, now))
        }
        (at, _) => Err(Refusal::NotYet(at.unwrap_or(Time::MAX))),
    }
}

/// What a job that ran over its timeout failed with.
pub fn timeout_error(timeout: Duration) -> Arc<str> {
    format!("timed out after {} s", timeout.as_secs_f64()).into()
}

fn grace_expired(job: &Job, now: Time) -> Result<Change, Refusal> {
    match job.state.signal {
        Some(signal) if signal.until <= now => Ok(obeyed(job, EndedHow::Aborted, signal.signal.status(), None, now)),
        Some(signal) => Err(Refusal::NotYet(signal.until)),
        None => Err(Refusal::NotYet(Time::MAX)),
    }
}

fn lease_expired(job: &Job, proven: bool, now: Time) -> Result<Change, Refusal> {
    let until = job.state.lease.as_ref().map_or(now, |lease| lease.until);
    if until > now && !proven {
        return Err(Refusal::NotYet(until));
    }
    let how = EndedHow::Reaped;
    let lost: Arc<str> = "worker lost".into();
    if let Some(signal) = job.state.signal {
        // Somebody wanted it to end, and it has.
        return Ok(obeyed(job, how, signal.signal.status(), Some(&lost), now));
    }
    let mut state = closed(job, how, AttemptOutcome::WorkerLost, Some(&lost), now);
    state.crashes += 1;
    if state.crashes >= limits::CRASHES_MAX {
        let error: Arc<str> = format!("worker lost {} times", state.crashes).into();
        state.error = Some(Arc::clone(&error));
        return Ok(change(job, finalized(job, state, Status::Error, now), Some(error), now));
    }
    state.error = Some(Arc::clone(&lost));
    if state.crashes == 1 {
        // `ready_at` stays, as at a release.
        state.status = Status::Pending;
    } else {
        state.status = Status::Scheduled;
        state.run_at = Some(now + limits::CRASH_DELAY);
    }
    Ok(change(job, state, Some(lost), now))
}

fn signal(job: &Job, wanted: Signal, grace: Duration, now: Time) -> Result<Change, Refusal> {
    let mut state = job.state.clone();
    state.signal = match state.signal {
        None => Some(SignalState { signal: wanted, until: now + grace }),
        // A stop overrules a cancel; the job has been asked already, so its grace does not start again.
        Some(SignalState { signal: Signal::Cancel, until }) if wanted == Signal::Stop => {
            Some(SignalState { signal: Signal::Stop, until })
        }
        Some(_) => return Err(Refusal::Unchanged),
    };
    Ok(change(job, state, None, now))
}

/// A waiting job ends without having run.
fn end(job: &Job, status: Status, now: Time) -> Change {
    let state = finalized(job, job.state.clone(), status, now);
    change(job, state, None, now)
}

fn retry_by_hand(job: &Job, now: Time) -> Change {
    let mut state = job.state.clone();
    state.status = Status::Pending;
    state.ready_at = now;
    (state.fails, state.crashes, state.releases) = (0, 0, 0);
    (state.die_at, state.finished_at, state.expires_at, state.signal) = (None, None, None, None);
    state.holds_key = job.spec.unique.is_some();
    let takes_key = state.holds_key;
    Change { takes_key, ..change(job, state, None, now) }
}

fn gone(job: &Job) -> Change {
    Change { state: None, leave: Some(job.index()), enter: None, event: None, takes_key: false }
}

/// The state after its lease ended: lease and signal gone, the attempt remembered.
fn closed(job: &Job, how: EndedHow, outcome: AttemptOutcome, error: Option<&Arc<str>>, now: Time) -> State {
    let mut state = job.state.clone();
    if let Some(lease) = state.lease.take() {
        // `status` is set by `change`, once it is known what the job became.
        state.ended = Some(Ended { attempt: state.attempt, nonce: lease.nonce, how, status: Status::Running, at: now });
        state.remember(Attempt {
            attempt: state.attempt,
            pool: lease.pool,
            started_at: state.started_at.unwrap_or(now),
            ended_at: now,
            outcome,
            error: error.cloned(),
        });
    }
    state.signal = None;
    state
}

fn finalized(job: &Job, mut state: State, status: Status, now: Time) -> State {
    state.status = status;
    state.finished_at = Some(now);
    state.expires_at = Some(now + job.spec.retention.of(status));
    state.die_at = (status == Status::Error).then_some(now);
    state.holds_key = false;
    state
}

/// Completes a change from the state that it leads to: version, times, index moves, hook event.
fn change(job: &Job, mut state: State, error: Option<Arc<str>>, now: Time) -> Change {
    state.version += 1;
    state.updated_at = now;
    if job.state.lease.is_some() && state.lease.is_none() {
        let status = state.status;
        if let Some(ended) = &mut state.ended {
            ended.status = status;
        }
    }
    let moved = state.status != job.state.status;
    let mut event = None;
    if moved && job.spec.hook.is_some() {
        state.event_seq += 1;
        event = Some(HookEvent {
            seq: state.event_seq,
            status: state.status,
            attempt: state.attempt,
            at: now,
            check_in: None,
            error,
        });
    }
    let (leave, enter) = moves(job, &state);
    Change { state: Some(state), leave, enter, event, takes_key: false }
}

/// The places that the job leaves and enters; none if it stays where it is.
fn moves(job: &Job, state: &State) -> (Option<Index>, Option<Index>) {
    let (before, after) = (job.index(), state.index(job.spec.priority));
    if before == after { (None, None) } else { (Some(before), Some(after)) }
}

/// Whether log lines of the run `lease` belong to `job` at `now`: while it holds the lease, and for
/// [`limits::LATE_LOG`] after it reported its own end, as long as no newer attempt exists.
pub fn accepts_log(job: &Job, lease: &LeaseKey, now: Time) -> bool {
    if job.is_held_by(lease) {
        return true;
    }
    job.state.attempt == lease.attempt
        && job.state.ended.as_ref().is_some_and(|ended| {
            ended.attempt == lease.attempt
                && ended.nonce == lease.nonce
                && matches!(ended.how, EndedHow::Finished | EndedHow::Released)
                && now.since(ended.at) < limits::LATE_LOG
        })
}
