//! What is asked for when a job is submitted, and how the answer may look.

use std::fmt;
use std::time::Duration;

use jobservice_core::job::{self, Kind};
use jobservice_core::policy::{Misfire, Overlap, Policy};
use jobservice_core::unique::Scope;
use jobservice_core::{JobId, StoreError, Time};
use serde_json::value::RawValue;

/// A job to submit. What is not given comes from the job's code, or is the default.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Which code runs it.
    pub name: String,
    /// When: as soon as possible, later, or again and again.
    pub kind: Kind,
    /// The input, JSON text kept byte for byte; none is the same as `{}`.
    pub parameters: Option<Box<RawValue>>,
    /// Run it this long after now. Only Scheduled jobs.
    pub delay: Option<Duration>,
    /// Run it at this time, instead of after a delay. Only Scheduled jobs.
    pub run_at: Option<Time>,
    /// When it runs again and again: see [`jobservice_core::cron`]. Only Periodic jobs.
    pub cron: Option<String>,
    /// The IANA time zone of the cron text; UTC by default. Only Periodic jobs.
    pub timezone: Option<String>,
    /// What becomes of a tick while an earlier execution is not final. Only Periodic jobs.
    pub overlap: Option<Overlap>,
    /// What becomes of ticks that were missed. Only Periodic jobs.
    pub misfire: Option<Misfire>,
    /// Makes a second submission an update of the first. Only Periodic jobs.
    pub schedule_key: Option<String>,
    /// Refuse it if another with the same name and parameters (or `unique_key`) waits or runs.
    pub unique: bool,
    /// What makes it the same as another instead of the parameters.
    pub unique_key: Option<String>,
    /// For how long it keeps others out.
    pub unique_scope: Option<Scope>,
    /// Where status changes are reported to.
    pub hook: Option<String>,
    /// 0 to 9, higher first.
    pub priority: Option<u8>,
    /// How long one run may take.
    pub timeout: Option<Duration>,
    /// How many runs may fail; 0 means the default.
    pub max_fails: Option<u32>,
    /// How long it is kept once it is final.
    pub retention_seconds: Option<u32>,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// A second submission of the same name with this key gives the job of the first. Kept for a day.
    pub idempotency_key: Option<String>,
    /// The job that launches it.
    pub upstream: Option<JobId>,
}

impl Submission {
    /// A job of this name that runs as soon as possible, with everything else left open.
    pub fn new(name: impl Into<String>) -> Submission {
        Submission {
            name: name.into(),
            kind: Kind::Generic,
            parameters: None,
            delay: None,
            run_at: None,
            cron: None,
            timezone: None,
            overlap: None,
            misfire: None,
            schedule_key: None,
            unique: false,
            unique_key: None,
            unique_scope: None,
            hook: None,
            priority: None,
            timeout: None,
            max_fails: None,
            retention_seconds: None,
            tags: Vec::new(),
            idempotency_key: None,
            upstream: None,
        }
    }
}

/// A job that was submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// Its record. It is durable.
    pub job: job::Job,
    /// Whether it was submitted before with the same idempotency key: this is the record of then, as it is now.
    pub repeated: bool,
    /// The policy behind a Periodic job, whose record above is only how it looks among jobs.
    pub policy: Option<PutPolicy>,
    /// What may not be meant as it was written, each as a sentence.
    pub warnings: Vec<String>,
}

/// A policy that was submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct PutPolicy {
    /// It, as it is now.
    pub policy: Policy,
    /// What the submission did to it.
    pub put: Put,
}

/// What a submission with a `schedule_key` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// There was no policy with that key: it is new.
    Created,
    /// The policy with that key was changed. It keeps its id, and its next due time unless its times changed.
    Updated,
    /// The policy with that key is the same already.
    Unchanged,
}

impl Put {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Put::Created => "created",
            Put::Updated => "updated",
            Put::Unchanged => "unchanged",
        }
    }
}

impl Submitted {
    /// The id of the job.
    pub fn id(&self) -> &JobId {
        &self.job.id
    }
}

/// Something wrong with a field of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Which field, as it is called on the wire: `metadata.schedule_delay`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.field, self.problem, self.remedy)
    }
}

/// Why a job was not submitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Fields are wrong: all of them are listed.
    #[error("the job is not valid: {}", join(.0))]
    Invalid(Vec<FieldError>),
    /// No code of this name is known here.
    #[error("there is no job named {name:?}{}", hint(.suggestion.as_deref(), .known))]
    UnknownName {
        /// The name that was asked for.
        name: String,
        /// The names that are known.
        known: Vec<String>,
        /// The one that may have been meant.
        suggestion: Option<String>,
    },
    /// It is unique, and another job holds its key.
    #[error("job {holder} is the same and not done yet")]
    Duplicate {
        /// That job.
        holder: JobId,
    },
    /// A job launches one of its own name, which would launch one of its own name, ...
    #[error(
        "a job named {name:?} launches another of its name: allow it with allow_own_name() if that comes to an end"
    )]
    Loop {
        /// Its name.
        name: String,
    },
    /// The run that launches it has lost its lease: the job may run elsewhere, and nothing that this run does counts.
    #[error("the run that launches it has lost its lease")]
    LeaseLost,
    /// An execution beside the ticks is asked of a policy that has ended.
    #[error("the schedule has ended: retry it first")]
    PolicyEnded,
    /// Its id belongs to another job already. Cannot happen to generated ids.
    #[error("the id is taken")]
    IdTaken,
    /// The store could not take it: see [`StoreError`] for whether to repeat.
    #[error("cannot store the job")]
    Store(#[from] StoreError),
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn hint(suggestion: Option<&str>, known: &[String]) -> String {
    if let Some(suggestion) = suggestion {
        return format!("; did you mean {suggestion:?}?");
    }
    if known.is_empty() { "; no jobs are registered".to_owned() } else { format!("; known are {}", known.join(", ")) }
}
