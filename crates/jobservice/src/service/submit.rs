//! `service.submit(job).after(90.seconds()).unique().await?`

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use jobservice_core::job::Kind;
use jobservice_core::unique::Scope;
use jobservice_core::{JobId, Time};
use serde::Serialize;

use crate::Controller;
use crate::controller::{FieldError, Submission, SubmitError, Submitted};

/// A job that is about to be submitted: say more of it, then await it.
#[must_use = "a job is submitted when this is awaited"]
#[derive(Debug)]
pub struct Submit {
    controller: Controller,
    submission: Submission,
    bad: Option<FieldError>,
}

impl Submit {
    pub(crate) fn new(controller: Controller, name: &str, job: &impl Serialize) -> Submit {
        let mut submission = Submission::new(name);
        let mut bad = None;
        match serde_json::value::to_raw_value(job) {
            Ok(parameters) => submission.parameters = Some(parameters),
            Err(error) => {
                bad = Some(FieldError {
                    field: "parameters".to_owned(),
                    problem: error.to_string(),
                    remedy: "the job must be serializable as JSON".to_owned(),
                });
            }
        }
        Submit { controller, submission, bad }
    }

    /// Runs it this long after now, instead of as soon as possible.
    pub fn after(mut self, delay: Duration) -> Submit {
        self.submission.kind = Kind::Scheduled;
        self.submission.delay = Some(delay);
        self.submission.run_at = None;
        self
    }

    /// Runs it at this time, instead of as soon as possible.
    pub fn at(mut self, time: Time) -> Submit {
        self.submission.kind = Kind::Scheduled;
        self.submission.run_at = Some(time);
        self.submission.delay = None;
        self
    }

    /// Refuses it if the same job (name and parameters) waits or runs.
    pub fn unique(mut self) -> Submit {
        self.submission.unique = true;
        self
    }

    /// Refuses it if another job of this name with this key waits or runs, whatever the parameters.
    pub fn unique_key(mut self, key: impl Into<String>) -> Submit {
        self.submission.unique = true;
        self.submission.unique_key = Some(key.into());
        self
    }

    /// Says for how long a unique job keeps others out: until it is final (the default), or until it starts.
    pub fn unique_until(mut self, scope: Scope) -> Submit {
        self.submission.unique = true;
        self.submission.unique_scope = Some(scope);
        self
    }

    /// 0 to 9, higher first.
    pub fn priority(mut self, priority: u8) -> Submit {
        self.submission.priority = Some(priority);
        self
    }

    /// How long one run may take.
    pub fn timeout(mut self, timeout: Duration) -> Submit {
        self.submission.timeout = Some(timeout);
        self
    }

    /// How many runs may fail; 0 for the default.
    pub fn max_fails(mut self, max_fails: u32) -> Submit {
        self.submission.max_fails = Some(max_fails);
        self
    }

    /// How long the record is kept after the job became final.
    pub fn keep(mut self, retention: Duration) -> Submit {
        self.submission.retention_seconds = Some(u32::try_from(retention.as_secs()).unwrap_or(u32::MAX));
        self
    }

    /// Adds a label to find it by.
    pub fn tag(mut self, tag: impl Into<String>) -> Submit {
        self.submission.tags.push(tag.into());
        self
    }

    /// Makes the submission safe to repeat for a day: the same key gives the same job.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Submit {
        self.submission.idempotency_key = Some(key.into());
        self
    }

    /// Reports its status changes and check-ins to this URL.
    pub fn hook(mut self, url: impl Into<String>) -> Submit {
        self.submission.hook = Some(url.into());
        self
    }

    /// Notes which job launched it.
    pub fn upstream(mut self, id: JobId) -> Submit {
        self.submission.upstream = Some(id);
        self
    }

    async fn submit(self) -> Result<Submitted, SubmitError> {
        if let Some(bad) = self.bad {
            return Err(SubmitError::Invalid(vec![bad]));
        }
        self.controller.submit(self.submission).await
    }
}

impl IntoFuture for Submit {
    type Output = Result<Submitted, SubmitError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.submit())
    }
}
