//! `service.submit(job).after(90.seconds()).unique().await?`

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::Kind;
use jobservice_core::policy::{Misfire, Overlap};
use jobservice_core::unique::Scope;
use jobservice_core::{JobId, Time};
use serde::Serialize;

use crate::Controller;
use crate::controller::{FieldError, Submission, SubmitError, Submitted};
use crate::run::{Interrupt, Run};

/// A job that is about to be submitted: say more of it, then await it.
#[must_use = "a job is submitted when this is awaited"]
#[derive(Debug)]
pub struct Submit {
    controller: Controller,
    submission: Submission,
    bad: Option<FieldError>,
    launch: Option<Launch>,
}

/// The run that launches a sub job.
struct Launch {
    run: Arc<Run>,
    allows_own_name: bool,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("by", &self.run.job().id).finish_non_exhaustive()
    }
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
        Submit { controller, submission, bad, launch: None }
    }

    /// A sub job that this run launches.
    pub(crate) fn launched(run: &Arc<Run>, name: &str, job: &impl Serialize) -> Submit {
        let launch = Some(Launch { run: Arc::clone(run), allows_own_name: false });
        Submit { launch, ..Submit::new(run.env().controller.clone(), name, job) }
    }

    /// A sub job that this run launches by its name.
    pub(crate) fn launched_by_name(run: &Arc<Run>, submission: Submission) -> Submit {
        let launch = Some(Launch { run: Arc::clone(run), allows_own_name: false });
        Submit { controller: run.env().controller.clone(), submission, bad: None, launch }
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

    /// Runs it again and again: it becomes a policy, whose ticks make executions. The text has six fields with the seconds
    /// first, or five, or is like `@daily` or `@every 90s`: see [`jobservice_core::cron`].
    pub fn cron(mut self, cron: impl Into<String>) -> Submit {
        self.submission.kind = Kind::Periodic;
        self.submission.cron = Some(cron.into());
        self
    }

    /// The time zone of the cron text, an IANA name like `Europe/Berlin`; UTC if not given.
    pub fn timezone(mut self, timezone: impl Into<String>) -> Submit {
        self.submission.timezone = Some(timezone.into());
        self
    }

    /// What becomes of a tick while an earlier execution is not final; by default it runs beside it.
    pub fn overlap(mut self, overlap: Overlap) -> Submit {
        self.submission.overlap = Some(overlap);
        self
    }

    /// What becomes of ticks that were missed while no service ran; by default one execution makes up for all.
    pub fn misfire(mut self, misfire: Misfire) -> Submit {
        self.submission.misfire = Some(misfire);
        self
    }

    /// Makes it safe to submit a policy at each start: the same key changes the policy of before, or nothing.
    pub fn schedule_key(mut self, key: impl Into<String>) -> Submit {
        self.submission.schedule_key = Some(key.into());
        self
    }

    /// Lets a job launch another of its own name. The chain must come to an end by itself: nothing else ends it.
    pub fn allow_own_name(mut self) -> Submit {
        if let Some(launch) = &mut self.launch {
            launch.allows_own_name = true;
        }
        self
    }

    /// As awaiting it, for a [`crate::BlockingJob`]. Must not be called from async code.
    ///
    /// # Errors
    /// As when it is awaited.
    pub fn blocking(self) -> Result<Submitted, SubmitError> {
        tokio::runtime::Handle::current().block_on(self.submit())
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

    async fn submit(mut self) -> Result<Submitted, SubmitError> {
        if let Some(bad) = self.bad {
            return Err(SubmitError::Invalid(vec![bad]));
        }
        let Some(Launch { run, allows_own_name }) = self.launch else {
            return self.controller.submit(self.submission).await;
        };
        if self.submission.name == run.job().spec.name.as_str() && !allows_own_name {
            return Err(SubmitError::Loop { name: self.submission.name });
        }
        if run.was_asked(Interrupt::LeaseLost) {
            return Err(SubmitError::LeaseLost);
        }
        self.submission.upstream = Some(run.job().id.clone());
        let launched = self.controller.submit_under(self.submission, Some(run.lease().clone())).await;
        if let Err(SubmitError::LeaseLost) = launched {
            run.revoke();
        }
        launched
    }
}

impl IntoFuture for Submit {
    type Output = Result<Submitted, SubmitError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.submit())
    }
}
