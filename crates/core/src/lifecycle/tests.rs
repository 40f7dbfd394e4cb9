//! The rules, checked: the whole table against a second writing of it, each rule by its behaviour, and random lives
//! against the invariants.

mod control;
mod random;
mod report;
mod service;
mod table;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::job::{Kind, Retention, Spec};
use crate::unique::Unique;
use crate::{JobId, Name};

const GRACE: Duration = limits::GRACE;
const LEASE: Duration = limits::LEASE;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 2026-01-05T12:00:00Z.
fn start() -> Time {
    Time::from_seconds(1_767_614_400)
}

fn spec() -> Spec {
    Spec {
        name: Name::new("copy").unwrap(),
        kind: Kind::Generic,
        parameters: "{}".into(),
        priority: 3,
        unique: None,
        max_fails: 4,
        timeout: None,
        hook: Some("https://example.com/hook".into()),
        upstream: None,
        tags: Vec::new(),
        retention: Retention::default(),
        enqueued_at: start(),
    }
}

fn unique(scope: Scope) -> Unique {
    Unique { digest: [7; 32], scope }
}

/// A job and the events that it has lived through. Time moves only when told to.
#[derive(Clone, Debug)]
struct Life {
    job: Job,
    now: Time,
    nonce: u64,
}

impl Life {
    fn begin(spec: Spec) -> Life {
        let id = JobId::new("01980000-0000-7000-8000-000000000001").unwrap();
        Life { job: Job::submitted(id, spec, None, start()), now: start(), nonce: 100 }
    }

    fn delayed(spec: Spec, delay: Duration) -> Life {
        let id = JobId::new("01980000-0000-7000-8000-000000000001").unwrap();
        Life { job: Job::submitted(id, spec, Some(start() + delay), start()), now: start(), nonce: 100 }
    }

    fn running(spec: Spec) -> Life {
        let mut life = Life::begin(spec);
        life.claim();
        life
    }

    fn pass(&mut self, duration: Duration) -> &mut Life {
        self.now = self.now + duration;
        self
    }

    fn try_step(&mut self, event: &Event) -> Result<Change, Refusal> {
        let change = decide(&self.job, event, self.now)?;
        if let Some(state) = &change.state {
            self.job.state = state.clone();
        }
        Ok(change)
    }

    #[track_caller]
    fn step(&mut self, event: Event) -> Change {
        match self.try_step(&event) {
            Ok(change) => change,
            Err(refusal) => panic!("{event:?} of {:?}: {refusal}", self.job),
        }
    }

    #[track_caller]
    fn refuse(&mut self, event: Event) -> Refusal {
        let before = self.job.clone();
        let refusal = self.try_step(&event).expect_err("a refusal");
        assert_eq!(self.job, before);
        refusal
    }

    #[track_caller]
    fn claim(&mut self) -> LeaseKey {
        self.nonce += 1;
        self.step(claim_event(self.nonce, self.now + LEASE));
        self.lease()
    }

    #[track_caller]
    fn finish(&mut self, outcome: Outcome) -> Change {
        let lease = self.lease();
        self.step(Event::Finish { lease, outcome })
    }

    #[track_caller]
    fn release(&mut self) -> Change {
        let lease = self.lease();
        self.step(Event::Release { lease, jitter: 0 })
    }

    /// The worker dies and the lease is reaped the moment it ends.
    #[track_caller]
    fn crash(&mut self) -> Change {
        self.now = self.job.state.lease.as_ref().expect("a lease").until;
        self.step(Event::LeaseExpired { proven: false })
    }

    /// A waiting job becomes due.
    #[track_caller]
    fn due(&mut self) -> Change {
        self.now = self.job.state.run_at.expect("a due time").max(self.now);
        self.step(Event::Due)
    }

    #[track_caller]
    fn lease(&self) -> LeaseKey {
        self.job.lease_key().expect("a lease")
    }

    fn status(&self) -> Status {
        self.job.state.status
    }

    fn last(&self) -> (AttemptOutcome, Option<&str>) {
        let attempt = self.job.state.attempts.last().expect("an attempt that ended");
        (attempt.outcome, attempt.error.as_deref())
    }
}

fn claim_event(nonce: u64, until: Time) -> Event {
    Event::Claim { pool: PoolId::incarnation("pool", 1).unwrap(), nonce, until, grace: GRACE }
}

fn ok() -> Outcome {
    Outcome::Ok { result: None }
}

fn failed(error: &str) -> Outcome {
    Outcome::Failed { error: error.into(), retryable: true, retry_after: None, jitter: 0 }
}

fn permanent(error: &str) -> Outcome {
    Outcome::Failed { error: error.into(), retryable: false, retry_after: None, jitter: 0 }
}

/// A report of each sort, under `lease`.
fn reports(lease: &LeaseKey, now: Time) -> Vec<Event> {
    let outcomes =
        [ok(), failed("no"), permanent("no"), Outcome::Stopped, Outcome::Cancelled, Outcome::Snooze { until: now }];
    let finishes = outcomes.into_iter().map(|outcome| Event::Finish { lease: lease.clone(), outcome });
    let mut reports: Vec<Event> = finishes.collect();
    reports.push(Event::Release { lease: lease.clone(), jitter: 0 });
    reports.push(Event::CheckIn { lease: lease.clone(), message: "50%".into() });
    reports.push(Event::Extend { lease: lease.clone(), until: now + LEASE });
    reports
}
