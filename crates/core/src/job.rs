//! The record: all that is known about one job, in two halves.
//!
//! [`Spec`] is what the client asked for; it never changes after submission and is shared by all copies of the record.
//! [`State`] is what a transition changes; only [`crate::lifecycle`] makes a new one. Who needs to know whether a job is
//! waiting, due, held or kept looks at [`State::index`]: a job is in exactly one set, given by its status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{JobId, Name, PoolId, Time, limits, unique::Unique};

/// One job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for; shared, never changes.
    pub spec: Arc<Spec>,
    /// What became of it so far.
    pub state: State,
}

/// How a job came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Runs as soon as a worker is free.
    Generic,
    /// Runs after a delay or at a time.
    Scheduled,
    /// A policy: the template of jobs that run on a cron schedule. Never the kind of a job that runs itself.
    Periodic,
}

impl Kind {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Generic => "Generic",
            Kind::Scheduled => "Scheduled",
            Kind::Periodic => "Periodic",
        }
    }

    /// Reads the word, in any case.
    pub fn parse(text: &str) -> Option<Kind> {
        [Kind::Generic, Kind::Scheduled, Kind::Periodic]
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

/// Where a job stands. The order of the variants is that of the columns of `docs/LIFECYCLE.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for its time: a delay, or the next try after a failure. Becomes Pending when due.
    Scheduled,
    /// Waits for a worker.
    Pending,
    /// A worker holds its lease.
    Running,
    /// Failed for good ("dead"): no tries left, not retryable, or its worker was lost too often. May be retried by hand.
    Error,
    /// Ran to its end.
    Success,
    /// Ended by a stop. Final for good.
    Stopped,
    /// Ended by a cancel. May be retried by hand.
    Cancelled,
}

impl Status {
    /// All of them, in the order of the table.
    pub const ALL: [Status; 7] = [
        Status::Scheduled,
        Status::Pending,
        Status::Running,
        Status::Error,
        Status::Success,
        Status::Stopped,
        Status::Cancelled,
    ];

    /// Whether no clock and no worker will change it any more; only an explicit retry may.
    pub const fn is_final(self) -> bool {
        matches!(self, Status::Error | Status::Success | Status::Stopped | Status::Cancelled)
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "scheduled",
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Error => "error",
            Status::Success => "success",
            Status::Stopped => "stopped",
            Status::Cancelled => "cancelled",
        }
    }

    /// Reads the word, in any case.
    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the client asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Which code runs it.
    pub name: Name,
    /// Generic or Scheduled.
    pub kind: Kind,
    /// The input: JSON text kept byte for byte as it was given. Readers must not parse it into a tree: see `limits`.
    pub parameters: Arc<str>,
    /// 0 to 9, higher first; 0 is the default.
    pub priority: u8,
    /// The key that only one job may hold, if the job is unique.
    pub unique: Option<Unique>,
    /// How many runs may fail, at least 1. Resolved at submission: from the request, the job's code, or the default.
    pub max_fails: u32,
    /// How long one run may take; none means as long as it likes.
    pub timeout: Option<Duration>,
    /// Where status changes are reported to.
    pub hook: Option<Arc<str>>,
    /// The job that launched it, or the policy it is an execution of.
    pub upstream: Option<JobId>,
    /// Free labels to find it by.
    pub tags: Vec<Arc<str>>,
    /// How long it is kept once it is final.
    pub retention: Retention,
    /// When it was submitted.
    pub enqueued_at: Time,
}

/// How long a record is kept after it became final, by how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Seconds a job that succeeded is kept. Default 3 days.
    pub success_seconds: u32,
    /// Seconds a stopped or cancelled job is kept. Default 7 days.
    pub stopped_seconds: u32,
    /// Seconds a dead job is kept. Default 30 days: somebody may want to retry it.
    pub error_seconds: u32,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u32 = 24 * 3600;
        Retention { success_seconds: 3 * DAY, stopped_seconds: 7 * DAY, error_seconds: 30 * DAY }
    }
}

impl Retention {
    /// The same time whatever the end.
    pub const fn all(seconds: u32) -> Retention {
        Retention { success_seconds: seconds, stopped_seconds: seconds, error_seconds: seconds }
    }

    /// How long a job that ended with `status` is kept; zero if that status is not final.
    pub fn of(&self, status: Status) -> Duration {
        let seconds = match status {
            Status::Success => self.success_seconds,
            Status::Stopped | Status::Cancelled => self.stopped_seconds,
            Status::Error => self.error_seconds,
            Status::Scheduled | Status::Pending | Status::Running => 0,
        };
        Duration::from_secs(u64::from(seconds))
    }
}

/// What transitions change. Built by [`crate::lifecycle`] only.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Where the job stands.
    pub status: Status,
    /// Rises with each change but [`crate::lifecycle::Event::Extend`].
    pub version: u64,
    /// How often it was claimed. Never falls, is never reset.
    pub attempt: u32,
    /// Present exactly while the job is Running.
    pub lease: Option<Lease>,
    /// How the last lease ended, so that a repeated report gets the answer of the first.
    pub ended: Option<Ended>,
    /// Failed runs since submission or the last retry by hand.
    pub fails: u32,
    /// Runs whose worker was lost, since submission or the last retry by hand.
    pub crashes: u32,
    /// Times it was given back at shutdown, since submission or the last retry by hand.
    pub releases: u32,
    /// The sequence number of the last hook event. Never falls.
    pub event_seq: u32,
    /// A stop or cancel that the running job has yet to obey. Only while Running.
    pub signal: Option<SignalState>,
    /// Whether it holds its unique key. False for jobs that are not unique.
    pub holds_key: bool,
    /// When it last became Pending: its place among jobs of equal priority.
    pub ready_at: Time,
    /// When it is due. Kept after that: the wire shows it.
    pub run_at: Option<Time>,
    /// When its last attempt was claimed.
    pub started_at: Option<Time>,
    /// When it became final.
    pub finished_at: Option<Time>,
    /// When it died (status Error).
    pub die_at: Option<Time>,
    /// When a final job may be pruned.
    pub expires_at: Option<Time>,
    /// When the record last changed.
    pub updated_at: Time,
    /// The last progress message. Kept over attempts: a resume point.
    pub check_in: Option<CheckIn>,
    /// Why the last failed attempt failed; cleared by success.
    pub error: Option<Arc<str>>,
    /// What the job gave back, as JSON text.
    pub result: Option<Arc<str>>,
    /// The attempts that ended, oldest first, at most [`limits::ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
}

/// The right to run a job: given by a claim, lost by a reap (or an abort), never by the clock alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Random number of the claim. With id and attempt it makes the lease unforgeable by a late worker.
    pub nonce: u64,
    /// The pool that holds it.
    pub pool: PoolId,
    /// From this instant on it may be reaped.
    pub until: Time,
    /// When the run is over its timeout and grace, if the job has a timeout.
    pub abort_at: Option<Time>,
}

/// What a worker shows to prove that it still holds a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The job.
    pub id: JobId,
    /// The attempt that was claimed.
    pub attempt: u32,
    /// The nonce of that claim.
    pub nonce: u64,
}

/// How the last lease of a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its attempt.
    pub attempt: u32,
    /// Its nonce.
    pub nonce: u64,
    /// By what.
    pub how: EndedHow,
    /// What the job became: the answer that a repeated report gets.
    pub status: Status,
    /// When. Log lines are accepted for a while after it.
    pub at: Time,
}

/// What ended a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedHow {
    /// The worker reported an outcome.
    Finished,
    /// The worker gave the job back.
    Released,
    /// The lease expired: the worker is taken for dead.
    Reaped,
    /// The service ended it: timeout or grace passed.
    Aborted,
}

/// A stop or cancel on its way to a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalState {
    /// Which of the two.
    pub signal: Signal,
    /// When the service stops waiting for the job to obey.
    pub until: Time,
}

/// What a running job is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// End; may be retried later.
    Cancel,
    /// End for good.
    Stop,
}

impl Signal {
    /// The status that obeying leads to.
    pub const fn status(self) -> Status {
        match self {
            Signal::Stop => Status::Stopped,
            Signal::Cancel => Status::Cancelled,
        }
    }
}

/// A progress message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckIn {
    /// The text, at most [`limits::CHECK_IN_BYTES_MAX`] bytes.
    pub message: Arc<str>,
    /// When it arrived.
    pub at: Time,
}

/// One attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// Where it ran.
    pub pool: PoolId,
    /// When it was claimed.
    pub started_at: Time,
    /// When it ended, as far as the service knows.
    pub ended_at: Time,
    /// How.
    pub outcome: AttemptOutcome,
    /// Why, if it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
}

/// How an attempt ended, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It succeeded.
    Success,
    /// It failed, and counted as a failure.
    Failed,
    /// It obeyed a stop, or was ended after one.
    Stopped,
    /// It obeyed a cancel, or was ended after one.
    Cancelled,
    /// It asked to run again later; nothing counted.
    Snoozed,
    /// It was given back at shutdown.
    Released,
    /// It ran over its timeout.
    TimedOut,
    /// Its worker was lost.
    WorkerLost,
}

/// The one set that a job is in, and where in it: what a store keeps sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Scheduled: by due time.
    Due {
        /// When it is due.
        run_at: Time,
    },
    /// Pending: by priority (higher first), then age, then id; apart from others of its name if it crashed before.
    Ready {
        /// 0 to 9.
        priority: u8,
        /// Since when it waits.
        ready_at: Time,
        /// Whether it may be a poison job: `crashes > 0`.
        suspect: bool,
    },
    /// Running: by the next instant at which the service must look at it ([`State::reap_at`]).
    Running {
        /// That instant.
        reap_at: Time,
    },
    /// Final: by expiry, apart for each status.
    Final {
        /// When it may be pruned.
        expires_at: Time,
    },
}

impl Job {
    /// A job as it is submitted at `now`: Pending, or Scheduled if it is due later.
    pub fn submitted(id: JobId, spec: Spec, run_at: Option<Time>, now: Time) -> Job {
        let waits = run_at.is_some_and(|run_at| run_at > now);
        let state = State {
            status: if waits { Status::Scheduled } else { Status::Pending },
            version: 1,
            attempt: 0,
            lease: None,
            ended: None,
            fails: 0,
            crashes: 0,
            releases: 0,
            event_seq: 0,
            signal: None,
            holds_key: spec.unique.is_some(),
            ready_at: now,
            run_at,
            started_at: None,
            finished_at: None,
            die_at: None,
            expires_at: None,
            updated_at: now,
            check_in: None,
            error: None,
            result: None,
            attempts: Vec::new(),
        };
        Job { id, spec: Arc::new(spec), state }
    }

    /// The lease of a Running job as its worker shows it.
    pub fn lease_key(&self) -> Option<LeaseKey> {
        let lease = self.state.lease.as_ref()?;
        Some(LeaseKey { id: self.id.clone(), attempt: self.state.attempt, nonce: lease.nonce })
    }

    /// Whether `key` is the current lease: Running, same attempt, same nonce, and nothing else.
    pub fn is_held_by(&self, key: &LeaseKey) -> bool {
        self.state.status == Status::Running
            && self.state.attempt == key.attempt
            && self.state.lease.as_ref().is_some_and(|lease| lease.nonce == key.nonce)
    }

    /// Whether the job waits for another try after a failure.
    pub fn is_retrying(&self) -> bool {
        self.state.status == Status::Scheduled && self.state.fails > 0
    }

    /// The set that the job is in.
    pub fn index(&self) -> Index {
        self.state.index(self.spec.priority)
    }
}

impl State {
    /// The set that a job with this state and `priority` is in.
    pub fn index(&self, priority: u8) -> Index {
        match self.status {
            Status::Scheduled => Index::Due { run_at: self.run_at.unwrap_or(self.ready_at) },
            Status::Pending => Index::Ready { priority, ready_at: self.ready_at, suspect: self.crashes > 0 },
            Status::Running => Index::Running { reap_at: self.reap_at().unwrap_or(self.updated_at) },
            Status::Error | Status::Success | Status::Stopped | Status::Cancelled => {
                Index::Final { expires_at: self.expires_at.unwrap_or(Time::MAX) }
            }
        }
    }

    /// When the service must next look at a Running job: its lease may be reaped, its signal's grace has passed, or its
    /// timeout and grace have. None unless Running.
    pub fn reap_at(&self) -> Option<Time> {
        let lease = self.lease.as_ref()?;
        let mut at = lease.until;
        if let Some(signal) = self.signal {
            at = at.min(signal.until);
        }
        if let Some(abort_at) = lease.abort_at {
            at = at.min(abort_at);
        }
        Some(at)
    }

    /// Remembers an attempt that ended, forgetting the oldest beyond the limit.
    pub(crate) fn remember(&mut self, attempt: Attempt) {
        if self.attempts.len() >= limits::ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}
