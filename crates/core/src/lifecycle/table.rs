//! The table of the lifecycle: which kinds of events there are, and what each does in each status.
//!
//! Nothing here is a second writing of the rules. [`cells`] asks [`decide`] about jobs that were brought to where they
//! are by [`decide`] itself, and [`render`] puts the answers on paper. What is written twice, on purpose, is the
//! expectation in the tests of [`crate::lifecycle`].
//!
//! [`kind`] sorts any (job, event) pair into a row, so that a model test can count which cells it reached and compare
//! with [`cells`] which ones can be reached.

mod example;
mod render;

use crate::job::{EndedHow, Job, LeaseKey, Signal, Status};
use crate::lifecycle::{Change, Event, Outcome, Refusal, decide};
use crate::{Time, limits};

pub use render::render;

/// A row of the table: an [`Event`] together with what of the job decides about its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// Its time has come.
    Due,
    /// A pool takes it.
    Claim,
    /// The run succeeded, signalled or not.
    FinishOk,
    /// The run failed, and there is a try left.
    FinishFailedRetried,
    /// The run failed, and there is no try left or another makes no sense.
    FinishFailedDead,
    /// The run failed, snoozed or was given back, and the job had been signalled.
    FinishSignalled,
    /// The run says that it stopped.
    FinishStopped,
    /// The run says that it was cancelled.
    FinishCancelled,
    /// The run wants to go on later.
    Snooze,
    /// The run was given back at shutdown, for one of the first [`limits::RELEASES_MAX`] times.
    Release,
    /// The run was given back at shutdown once more.
    ReleasePastLimit,
    /// Progress.
    CheckIn,
    /// Its worker is alive: the lease gets longer.
    Extend,
    /// Its worker is alive, but the lease ends later already.
    ExtendShorter,
    /// A report of any sort from a run that is no longer the job's, while another run is.
    LateReport,
    /// The report that ended the last lease comes again.
    RepeatedReport,
    /// It ran over its timeout and grace.
    TimedOut,
    /// It ran over its timeout and grace, and had been signalled.
    TimedOutSignalled,
    /// It did not obey a signal within the grace.
    GraceExpired,
    /// Its worker was lost, for the first time.
    LeaseExpiredFirst,
    /// Its worker was lost, for the second time.
    LeaseExpiredSecond,
    /// Its worker was lost, for the third time.
    LeaseExpiredThird,
    /// Its worker was lost, and it had been signalled.
    LeaseExpiredSignalled,
    /// Somebody ends it for good. A running job may have been signalled to cancel.
    Stop,
    /// Somebody ends it. A running job has not been signalled.
    Cancel,
    /// A signal that the running job has already, or a weaker one.
    SignalAgain,
    /// Somebody wants it to run again.
    Retry,
    /// Somebody removes it.
    Delete,
    /// Its time to be kept is over.
    Prune,
    /// Any of the service's own events before its time.
    TooEarly,
}

impl EventKind {
    /// All of them, in the order of the table.
    pub const ALL: [EventKind; 30] = [
        EventKind::Due,
        EventKind::Claim,
        EventKind::FinishOk,
        EventKind::FinishFailedRetried,
        EventKind::FinishFailedDead,
        EventKind::FinishSignalled,
        EventKind::FinishStopped,
        EventKind::FinishCancelled,
        EventKind::Snooze,
        EventKind::Release,
        EventKind::ReleasePastLimit,
        EventKind::CheckIn,
        EventKind::Extend,
        EventKind::ExtendShorter,
        EventKind::LateReport,
        EventKind::RepeatedReport,
        EventKind::TimedOut,
        EventKind::TimedOutSignalled,
        EventKind::GraceExpired,
        EventKind::LeaseExpiredFirst,
        EventKind::LeaseExpiredSecond,
        EventKind::LeaseExpiredThird,
        EventKind::LeaseExpiredSignalled,
        EventKind::Stop,
        EventKind::Cancel,
        EventKind::SignalAgain,
        EventKind::Retry,
        EventKind::Delete,
        EventKind::Prune,
        EventKind::TooEarly,
    ];

    /// What the row is called in the table.
    pub const fn label(self) -> &'static str {
        match self {
            EventKind::Due => "Due",
            EventKind::Claim => "Claim",
            EventKind::FinishOk => "Finish(Ok) *",
            EventKind::FinishFailedRetried => "Finish(Failed) *, a try left",
            EventKind::FinishFailedDead => "Finish(Failed) *, none left or not retryable",
            EventKind::FinishSignalled => "Finish(Failed), Snooze or Release *, signalled",
            EventKind::FinishStopped => "Finish(Stopped) *",
            EventKind::FinishCancelled => "Finish(Cancelled) *",
            EventKind::Snooze => "Snooze *",
            EventKind::Release => "Release *",
            EventKind::ReleasePastLimit => "Release *, past the limit",
            EventKind::CheckIn => "CheckIn *",
            EventKind::Extend => "Extend *",
            EventKind::ExtendShorter => "Extend *, not beyond the present end",
            EventKind::LateReport => "any report under another lease",
            EventKind::RepeatedReport => "Finish or Release repeated",
            EventKind::TimedOut => "TimedOut",
            EventKind::TimedOutSignalled => "TimedOut, signalled",
            EventKind::GraceExpired => "GraceExpired",
            EventKind::LeaseExpiredFirst => "LeaseExpired, 1st time",
            EventKind::LeaseExpiredSecond => "LeaseExpired, 2nd time",
            EventKind::LeaseExpiredThird => "LeaseExpired, 3rd time",
            EventKind::LeaseExpiredSignalled => "LeaseExpired, signalled",
            EventKind::Stop => "Stop",
            EventKind::Cancel => "Cancel",
            EventKind::SignalAgain => "Stop or Cancel, signalled at least so before",
            EventKind::Retry => "Retry",
            EventKind::Delete => "Delete",
            EventKind::Prune => "Prune",
            EventKind::TooEarly => "Due, TimedOut, GraceExpired, LeaseExpired, Prune before their time",
        }
    }
}

/// The row that `event` belongs to when it happens to `job` at `now`.
pub fn kind(job: &Job, event: &Event, now: Time) -> EventKind {
    if is_early(job, event, now) {
        return EventKind::TooEarly;
    }
    let state = &job.state;
    let signal = state.signal.map(|signal| signal.signal);
    match event {
        Event::Due => EventKind::Due,
        Event::Claim { .. } => EventKind::Claim,
        Event::Finish { lease, outcome } => {
            unheld(job, lease, Some(EndedHow::Finished)).unwrap_or_else(|| finish_kind(job, outcome))
        }
        Event::Release { lease, .. } => {
            unheld(job, lease, Some(EndedHow::Released)).unwrap_or_else(|| release_kind(job))
        }
        Event::CheckIn { lease, .. } => unheld(job, lease, None).unwrap_or(EventKind::CheckIn),
        Event::Extend { lease, until } => unheld(job, lease, None).unwrap_or_else(|| match &state.lease {
            Some(lease) if lease.until >= *until => EventKind::ExtendShorter,
            _ => EventKind::Extend,
        }),
        Event::TimedOut { .. } if signal.is_some() => EventKind::TimedOutSignalled,
        Event::TimedOut { .. } => EventKind::TimedOut,
        Event::GraceExpired => EventKind::GraceExpired,
        Event::LeaseExpired { .. } if signal.is_some() => EventKind::LeaseExpiredSignalled,
        Event::LeaseExpired { .. } => match state.crashes {
            0 => EventKind::LeaseExpiredFirst,
            1 => EventKind::LeaseExpiredSecond,
            _ => EventKind::LeaseExpiredThird,
        },
        Event::Stop { .. } if signal == Some(Signal::Stop) => EventKind::SignalAgain,
        Event::Stop { .. } => EventKind::Stop,
        Event::Cancel { .. } if signal.is_some() => EventKind::SignalAgain,
        Event::Cancel { .. } => EventKind::Cancel,
        Event::Retry => EventKind::Retry,
        Event::Delete => EventKind::Delete,
        Event::Prune => EventKind::Prune,
    }
}

/// Whether one of the service's own events comes before its time to a job that it could happen to.
fn is_early(job: &Job, event: &Event, now: Time) -> bool {
    let state = &job.state;
    match (event, &state.lease) {
        (Event::Due, _) => state.status == Status::Scheduled && state.run_at.is_some_and(|at| at > now),
        (Event::TimedOut { .. }, Some(lease)) => lease.abort_at.is_none_or(|at| at > now),
        (Event::GraceExpired, Some(_)) => state.signal.is_none_or(|signal| signal.until > now),
        (Event::LeaseExpired { proven }, Some(lease)) => lease.until > now && !proven,
        (Event::Prune, _) => state.status.is_final() && state.expires_at.is_none_or(|at| at > now),
        _ => false,
    }
}

/// The row of a report that does not come from the current run; none if it does, or if there is no current run, so that
/// the report belongs to the row of what it says.
fn unheld(job: &Job, lease: &LeaseKey, how: Option<EndedHow>) -> Option<EventKind> {
    if job.is_held_by(lease) {
        return None;
    }
    let repeated =
        job.state.ended.as_ref().is_some_and(|ended| {
            ended.attempt == lease.attempt && ended.nonce == lease.nonce && Some(ended.how) == how
        });
    if repeated {
        return Some(EventKind::RepeatedReport);
    }
    (job.state.status == Status::Running).then_some(EventKind::LateReport)
}

fn finish_kind(job: &Job, outcome: &Outcome) -> EventKind {
    let signalled = job.state.signal.is_some();
    match outcome {
        Outcome::Ok { .. } => EventKind::FinishOk,
        Outcome::Stopped => EventKind::FinishStopped,
        Outcome::Cancelled => EventKind::FinishCancelled,
        Outcome::Failed { .. } | Outcome::Snooze { .. } if signalled => EventKind::FinishSignalled,
        Outcome::Failed { retryable: true, .. } if job.state.fails + 1 < job.spec.max_fails => {
            EventKind::FinishFailedRetried
        }
        Outcome::Failed { .. } => EventKind::FinishFailedDead,
        Outcome::Snooze { .. } => EventKind::Snooze,
    }
}

fn release_kind(job: &Job) -> EventKind {
    if job.state.signal.is_some() {
        return EventKind::FinishSignalled;
    }
    if job.state.releases < limits::RELEASES_MAX { EventKind::Release } else { EventKind::ReleasePastLimit }
}

/// One cell of the table.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its column.
    pub status: Status,
    /// Its row.
    pub kind: EventKind,
    /// Jobs of this status to which events of this kind happen, at least one for each different effect. Empty if the
    /// cell cannot be reached: only running jobs are signalled, for instance.
    pub examples: Vec<Example>,
}

/// A job, something that happens to it, and what [`decide`] says.
#[derive(Clone, Debug)]
pub struct Example {
    /// The job, as a sequence of decisions made it.
    pub job: Job,
    /// What happens to it.
    pub event: Event,
    /// When.
    pub now: Time,
    /// The decision.
    pub answer: Result<Change, Refusal>,
}

/// What an event does to a job, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Its status becomes this one.
    Becomes(Status),
    /// Its record changes, its status does not.
    Changes,
    /// It is removed.
    Gone,
    /// Nothing: the reporter is told that its lease is lost.
    Lost,
    /// Nothing: the reporter is given the answer of the first time.
    Repeated,
    /// Nothing: it is as asked already.
    Unchanged,
    /// Nothing yet: it is too early.
    NotYet,
    /// Nothing: its status does not allow it.
    Refused,
}

impl Effect {
    /// What the answer of [`decide`] about a job of this status comes down to.
    pub fn of(status: Status, answer: &Result<Change, Refusal>) -> Effect {
        match answer {
            Ok(Change { state: None, .. }) => Effect::Gone,
            Ok(Change { state: Some(state), .. }) if state.status == status => Effect::Changes,
            Ok(Change { state: Some(state), .. }) => Effect::Becomes(state.status),
            Err(Refusal::LeaseLost) => Effect::Lost,
            Err(Refusal::Repeated(_)) => Effect::Repeated,
            Err(Refusal::Unchanged) => Effect::Unchanged,
            Err(Refusal::NotYet(_)) => Effect::NotYet,
            Err(Refusal::Illegal { .. }) => Effect::Refused,
        }
    }
}

impl Cell {
    /// Whether a job can get there.
    pub fn is_reachable(&self) -> bool {
        !self.examples.is_empty()
    }

    /// The different effects of the examples, in their order; empty if the cell cannot be reached.
    pub fn effects(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for example in &self.examples {
            let effect = Effect::of(self.status, &example.answer);
            if !effects.contains(&effect) {
                effects.push(effect);
            }
        }
        effects
    }
}

/// The whole table, row by row.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::with_capacity(EventKind::ALL.len() * Status::ALL.len());
    for kind in EventKind::ALL {
        for status in Status::ALL {
            let examples = example::examples(status, kind)
                .into_iter()
                .map(|(job, event, now)| {
                    let answer = decide(&job, &event, now);
                    Example { job, event, now, answer }
                })
                .collect();
            cells.push(Cell { status, kind, examples });
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_stands_in_the_cell_that_it_is_an_example_of() {
        for cell in cells() {
            for example in &cell.examples {
                assert_eq!(example.job.state.status, cell.status, "{cell:?}");
                assert_eq!(kind(&example.job, &example.event, example.now), cell.kind, "{cell:?}");
            }
        }
    }

    #[test]
    fn only_cells_that_need_a_signal_or_a_lease_cannot_be_reached() {
        let running_only = [
            EventKind::FinishSignalled,
            EventKind::ExtendShorter,
            EventKind::LateReport,
            EventKind::TimedOutSignalled,
            EventKind::LeaseExpiredSignalled,
            EventKind::SignalAgain,
        ];
        for cell in cells() {
            let reachable = match cell.kind {
                EventKind::TooEarly => cell.status != Status::Pending,
                kind if running_only.contains(&kind) => cell.status == Status::Running,
                _ => true,
            };
            assert_eq!(cell.is_reachable(), reachable, "{:?} of {}", cell.kind, cell.status);
        }
    }

    #[test]
    fn lifecycle_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/LIFECYCLE.md");
        let written = std::fs::read_to_string(path).expect("docs/LIFECYCLE.md");
        assert!(written == render(), "docs/LIFECYCLE.md differs from the code: run `cargo xtask docs`");
    }
}
