//! Jobs for each cell of the table, brought there by the rules themselves.

use std::sync::Arc;
use std::time::Duration;

use crate::job::{Job, Kind, LeaseKey, Retention, Signal, Spec, Status};
use crate::lifecycle::table::EventKind;
use crate::lifecycle::{Event, Outcome, decide};
use crate::unique::{Scope, Unique};
use crate::{JobId, Name, PoolId, Time, limits};

/// A job, an event, and when it happens.
pub(super) type Case = (Job, Event, Time);

/// 2026-01-05T12:00:00Z: when the jobs of the examples are submitted.
const SUBMITTED: Time = Time::from_seconds(1_767_614_400);

/// How long a job of the examples may run.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a snoozing job of the examples waits.
const SNOOZE: Duration = Duration::from_secs(100);

/// Not a multiple of the 30 s of spread, so that the pause before a retry shows its random part.
const JITTER: u32 = 7;

/// A job on its way, and the time that has passed.
#[derive(Clone)]
struct Life {
    job: Job,
    now: Time,
    claims: u64,
}

impl Life {
    /// A job that uses everything there is (hook, unique key, timeout), submitted and Pending. None only if the fixed
    /// identifiers were not valid.
    fn begin() -> Option<Life> {
        let spec = Spec {
            name: Name::new("resize").ok()?,
            kind: Kind::Generic,
            parameters: "{}".into(),
            priority: 0,
            unique: Some(Unique { digest: [1; 32], scope: Scope::UntilFinal }),
            max_fails: limits::MAX_FAILS_DEFAULT,
            timeout: Some(TIMEOUT),
            hook: Some("https://example.com/hook".into()),
            upstream: None,
            tags: Vec::new(),
            retention: Retention::default(),
            enqueued_at: SUBMITTED,
        };
        let id = JobId::new("01980000-0000-7000-8000-000000000001").ok()?;
        Some(Life { job: Job::submitted(id, spec, None, SUBMITTED), now: SUBMITTED, claims: 0 })
    }

    /// Something happens a second later.
    fn then(self, event: &Event) -> Option<Life> {
        self.after(Duration::from_secs(1), event)
    }

    fn after(mut self, pause: Duration, event: &Event) -> Option<Life> {
        self.now = self.now + pause;
        self.job.state = decide(&self.job, event, self.now).ok()?.state?;
        Some(self)
    }

    fn claim(mut self) -> Option<Life> {
        self.claims += 1;
        let claim = Event::Claim {
            pool: PoolId::incarnation("node", 1).ok()?,
            nonce: self.claims,
            until: self.now + Duration::from_secs(1) + limits::LEASE,
            grace: limits::GRACE,
        };
        self.then(&claim)
    }

    fn finish(self, outcome: Outcome) -> Option<Life> {
        let event = Event::Finish { lease: self.lease(), outcome };
        self.then(&event)
    }

    fn release(self) -> Option<Life> {
        let event = Event::Release { lease: self.lease(), jitter: JITTER };
        self.then(&event)
    }

    fn signal(self, signal: Signal, grace: Duration) -> Option<Life> {
        let event = match signal {
            Signal::Stop => Event::Stop { grace },
            Signal::Cancel => Event::Cancel { grace },
        };
        self.then(&event)
    }

    /// The current lease, or, without one, a lease that never was.
    fn lease(&self) -> LeaseKey {
        self.job.lease_key().unwrap_or_else(|| self.other_lease())
    }

    fn other_lease(&self) -> LeaseKey {
        LeaseKey { id: self.job.id.clone(), attempt: self.job.state.attempt, nonce: u64::MAX }
    }

    /// A Pending job goes the straight way to a status.
    fn to(self, status: Status) -> Option<Life> {
        let grace = limits::GRACE;
        match status {
            Status::Pending => Some(self),
            Status::Running => self.claim(),
            Status::Stopped => self.then(&Event::Stop { grace }),
            Status::Cancelled => self.then(&Event::Cancel { grace }),
            Status::Scheduled | Status::Error | Status::Success => self.claim()?.report(status),
        }
    }

    /// A running job reports what leads to a status.
    fn report(self, status: Status) -> Option<Life> {
        let until = self.now + SNOOZE;
        let event = match status {
            Status::Pending | Status::Running => return self.release(),
            Status::Scheduled => Outcome::Snooze { until },
            Status::Error => failed(false),
            Status::Success => ok(),
            Status::Stopped => Outcome::Stopped,
            Status::Cancelled => Outcome::Cancelled,
        };
        self.finish(event)
    }

    /// A Pending job loses its worker so often, and is Pending again.
    fn crashed(mut self, times: u32) -> Option<Life> {
        for _ in 0..times {
            self = self.claim()?.then(&Event::LeaseExpired { proven: true })?;
            if self.job.state.status == Status::Scheduled {
                self = self.after(limits::CRASH_DELAY, &Event::Due)?;
            }
        }
        Some(self)
    }

    /// A Pending job is given back so often.
    fn released(mut self, times: u32) -> Option<Life> {
        for _ in 0..times {
            self = self.claim()?.release()?;
        }
        Some(self)
    }

    /// The job has no try left after this one.
    fn on_last_try(mut self) -> Life {
        let spec = Spec { max_fails: 1, ..(*self.job.spec).clone() };
        self.job.spec = Arc::new(spec);
        self
    }

    /// Until it is time for the event.
    fn wait(mut self, pause: Duration) -> Life {
        self.now = self.now + pause;
        self
    }

    fn case(self, event: Event) -> Case {
        (self.job, event, self.now + Duration::from_secs(1))
    }
}

fn ok() -> Outcome {
    Outcome::Ok { result: Some("{\"width\":64}".into()) }
}

fn failed(retryable: bool) -> Outcome {
    Outcome::Failed { error: "no such image".into(), retryable, retry_after: None, jitter: JITTER }
}

/// Examples for one cell; none if it cannot be reached.
pub(super) fn examples(status: Status, kind: EventKind) -> Vec<Case> {
    let cases = if status == Status::Running { running(kind) } else { waiting(status, kind).map(|case| vec![case]) };
    cases.unwrap_or_default()
}

/// A job that is not Running: one example suffices, for there is one effect in each such cell.
fn waiting(status: Status, kind: EventKind) -> Option<Case> {
    let life = Life::begin()?;
    let grace = limits::GRACE;
    let report = |life: Option<Life>, outcome: Outcome| {
        let life = life?;
        let lease = life.other_lease();
        Some(life.case(Event::Finish { lease, outcome }))
    };
    let event = |life: Option<Life>, event: Event| Some(life?.case(event));
    let expired = Duration::from_secs(31 * 24 * 3600);
    match kind {
        EventKind::Due => event(life.to(status).map(|life| life.wait(SNOOZE)), Event::Due),
        EventKind::Claim => event(life.to(status), claim_event(SUBMITTED)?),
        EventKind::FinishOk => report(life.to(status), ok()),
        EventKind::FinishFailedRetried => report(life.to(status), failed(true)),
        EventKind::FinishFailedDead => report(life.to(status), failed(false)),
        EventKind::FinishStopped => report(life.to(status), Outcome::Stopped),
        EventKind::FinishCancelled => report(life.to(status), Outcome::Cancelled),
        EventKind::Snooze => report(life.to(status), Outcome::Snooze { until: SUBMITTED }),
        EventKind::Release | EventKind::ReleasePastLimit => {
            let times = if kind == EventKind::Release { 0 } else { limits::RELEASES_MAX };
            let life = life.released(times)?.to(status)?;
            let lease = life.other_lease();
            Some(life.case(Event::Release { lease, jitter: JITTER }))
        }
        EventKind::CheckIn => {
            let life = life.to(status)?;
            let lease = life.other_lease();
            Some(life.case(Event::CheckIn { lease, message: "50%".into() }))
        }
        EventKind::Extend => {
            let life = life.to(status)?;
            let (lease, until) = (life.other_lease(), life.now + limits::LEASE);
            Some(life.case(Event::Extend { lease, until }))
        }
        EventKind::RepeatedReport => {
            let life = life.claim()?;
            let lease = life.lease();
            let life = life.report(status)?;
            let again = match status {
                Status::Pending | Status::Running => Event::Release { lease, jitter: JITTER },
                _ => Event::Finish { lease, outcome: ok() },
            };
            Some(life.case(again))
        }
        EventKind::TimedOut => event(life.to(status), Event::TimedOut { jitter: JITTER }),
        EventKind::GraceExpired => event(life.to(status), Event::GraceExpired),
        EventKind::LeaseExpiredFirst => event(life.to(status), Event::LeaseExpired { proven: false }),
        EventKind::LeaseExpiredSecond => event(life.crashed(1)?.to(status), Event::LeaseExpired { proven: false }),
        EventKind::LeaseExpiredThird => event(life.crashed(2)?.to(status), Event::LeaseExpired { proven: false }),
        EventKind::Stop => event(life.to(status), Event::Stop { grace }),
        EventKind::Cancel => event(life.to(status), Event::Cancel { grace }),
        EventKind::Retry => event(life.to(status), Event::Retry),
        EventKind::Delete => event(life.to(status), Event::Delete),
        EventKind::Prune => event(life.to(status).map(|life| life.wait(expired)), Event::Prune),
        EventKind::TooEarly => match status {
            Status::Pending | Status::Running => None,
            Status::Scheduled => event(life.to(status), Event::Due),
            Status::Error | Status::Success | Status::Stopped | Status::Cancelled => {
                event(life.to(status), Event::Prune)
            }
        },
        // Only a running job has a lease or a signal.
        EventKind::FinishSignalled
        | EventKind::ExtendShorter
        | EventKind::LateReport
        | EventKind::TimedOutSignalled
        | EventKind::LeaseExpiredSignalled
        | EventKind::SignalAgain => None,
    }
}

fn claim_event(now: Time) -> Option<Event> {
    Some(Event::Claim {
        pool: PoolId::incarnation("node", 1).ok()?,
        nonce: 9,
        until: now + limits::LEASE,
        grace: limits::GRACE,
    })
}

/// A Running job: as many examples as the cell has effects.
fn running(kind: EventKind) -> Option<Vec<Case>> {
    let pending = Life::begin()?;
    let life = pending.clone().claim()?;
    let lease = life.lease();
    let (grace, long) = (limits::GRACE, TIMEOUT * 10);
    let finish = |outcome: Outcome| Event::Finish { lease: lease.clone(), outcome };
    let release = Event::Release { lease: lease.clone(), jitter: JITTER };
    let later = life.now + Duration::from_secs(200);
    let timed_out = Event::TimedOut { jitter: JITTER };
    let expired = Event::LeaseExpired { proven: false };
    let (stopping, cancelling) =
        (life.clone().signal(Signal::Stop, grace)?, life.clone().signal(Signal::Cancel, grace)?);
    let cases = match kind {
        EventKind::Due => vec![life.case(Event::Due)],
        EventKind::Claim => vec![life.case(claim_event(SUBMITTED)?)],
        EventKind::FinishOk => vec![life.case(finish(ok())), stopping.case(finish(ok()))],
        EventKind::FinishFailedRetried => vec![life.case(finish(failed(true)))],
        EventKind::FinishFailedDead => {
            vec![life.clone().on_last_try().case(finish(failed(true))), life.case(finish(failed(false)))]
        }
        EventKind::FinishSignalled => [finish(failed(true)), finish(Outcome::Snooze { until: later }), release]
            .into_iter()
            .flat_map(|event| [stopping.clone().case(event.clone()), cancelling.clone().case(event)])
            .collect(),
        EventKind::FinishStopped => {
            vec![life.case(finish(Outcome::Stopped)), cancelling.case(finish(Outcome::Stopped))]
        }
        EventKind::FinishCancelled => {
            vec![life.case(finish(Outcome::Cancelled)), stopping.case(finish(Outcome::Cancelled))]
        }
        EventKind::Snooze => vec![life.case(finish(Outcome::Snooze { until: later }))],
        EventKind::Release => vec![life.case(release)],
        EventKind::ReleasePastLimit => {
            let life = pending.released(limits::RELEASES_MAX)?.claim()?;
            let event = Event::Release { lease: life.lease(), jitter: JITTER };
            vec![life.clone().case(event.clone()), life.on_last_try().case(event)]
        }
        EventKind::CheckIn => vec![life.case(Event::CheckIn { lease, message: "50%".into() })],
        EventKind::Extend => {
            let until = life.now + limits::LEASE * 2;
            vec![life.case(Event::Extend { lease, until })]
        }
        EventKind::ExtendShorter => {
            let until = life.now;
            vec![life.case(Event::Extend { lease, until })]
        }
        EventKind::LateReport => {
            let other = life.other_lease();
            vec![
                life.clone().case(Event::Finish { lease: other.clone(), outcome: ok() }),
                life.clone().case(Event::Release { lease: other.clone(), jitter: JITTER }),
                life.clone().case(Event::CheckIn { lease: other.clone(), message: "50%".into() }),
                life.clone().case(Event::Extend { lease: other, until: later }),
            ]
        }
        EventKind::RepeatedReport => vec![life.release()?.claim()?.case(release)],
        EventKind::TimedOut => {
            let life = life.wait(TIMEOUT + grace);
            vec![life.clone().case(timed_out.clone()), life.on_last_try().case(timed_out)]
        }
        EventKind::TimedOutSignalled => {
            let case = |signal| Some(life.clone().signal(signal, long)?.wait(TIMEOUT + grace).case(timed_out.clone()));
            vec![case(Signal::Stop)?, case(Signal::Cancel)?]
        }
        EventKind::GraceExpired => {
            vec![stopping.wait(grace).case(Event::GraceExpired), cancelling.wait(grace).case(Event::GraceExpired)]
        }
        EventKind::LeaseExpiredFirst => vec![life.wait(limits::LEASE).case(expired)],
        EventKind::LeaseExpiredSecond => vec![pending.crashed(1)?.claim()?.wait(limits::LEASE).case(expired)],
        EventKind::LeaseExpiredThird => vec![pending.crashed(2)?.claim()?.wait(limits::LEASE).case(expired)],
        EventKind::LeaseExpiredSignalled => {
            vec![stopping.wait(limits::LEASE).case(expired.clone()), cancelling.wait(limits::LEASE).case(expired)]
        }
        EventKind::Stop => vec![life.case(Event::Stop { grace }), cancelling.case(Event::Stop { grace })],
        EventKind::Cancel => vec![life.case(Event::Cancel { grace })],
        EventKind::SignalAgain => vec![
            stopping.clone().case(Event::Stop { grace }),
            stopping.case(Event::Cancel { grace }),
            cancelling.case(Event::Cancel { grace }),
        ],
        EventKind::Retry => vec![life.case(Event::Retry)],
        EventKind::Delete => vec![life.case(Event::Delete)],
        EventKind::Prune => vec![life.case(Event::Prune)],
        EventKind::TooEarly => {
            vec![life.clone().case(expired), life.case(timed_out), stopping.case(Event::GraceExpired)]
        }
    };
    Some(cases)
}
