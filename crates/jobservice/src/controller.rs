//! The service as clients see it: submit, control, look. Every way in (REST, CLI, [`crate::Service`]) goes through here.
//!
//! The controller checks what is asked for and hands it to the store; it keeps nothing. Any number of nodes may have one.

mod bulk;
mod check;
mod queues;
mod schedules;
mod submission;

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{self, LeaseKey, Status};
use jobservice_core::store::{
    Action, Controlled, Deleted, Inserted, Minute, NameAsk, NameOptions, NameStats, Node, OptionsChange, OutboxEntry,
    Page, Query, Resent, Result, Waiting,
};
use jobservice_core::{Clock, JobId, Name, Store, Time, limits};

use crate::hooks::AddressPolicy;
use crate::logger::JobLogs;
use crate::retention::RetentionRules;
use crate::{Registry, wait};

use check::{New, Rules};

pub use bulk::{Bulk, BulkBounds, BulkDone};
pub use queues::{CodeOptions, QueueInfo};
pub use schedules::Found;
pub use submission::{FieldError, Put, PutPolicy, Submission, SubmitError, Submitted};

/// How often who waits for a job looks at it although nothing told of a change: notices may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a person or program may do to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End it for good.
    Stop,
    /// End it; it may be retried later.
    Cancel,
    /// Run it again, dead or cancelled.
    Retry,
}

impl Command {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Command::Stop => "stop",
            Command::Cancel => "cancel",
            Command::Retry => "retry",
        }
    }

    /// Reads the word, in any case.
    pub fn parse(text: &str) -> Option<Command> {
        [Command::Stop, Command::Cancel, Command::Retry]
            .into_iter()
            .find(|command| command.as_str().eq_ignore_ascii_case(text))
    }
}

/// Submits, controls and reads jobs. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    logs: JobLogs,
    registry: Arc<Registry>,
    /// What the registry says of names, as the store wants it.
    asks: Arc<[NameAsk]>,
    grace: Duration,
    retention: RetentionRules,
    /// Where hooks may go; none if they are off.
    hooks: Option<Arc<AddressPolicy>>,
}

impl Inner {
    fn rules(&self) -> Rules<'_> {
        Rules {
            registry: &self.registry,
            retention: &self.retention,
            hooks: self.hooks.as_deref(),
            wall: self.clock.wall(),
            store: &*self.store,
        }
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("registry", &self.inner.registry).finish_non_exhaustive()
    }
}

impl Controller {
    /// A controller over a store. `grace` is how long a running job may take to obey a stop or cancel, `retention` for how
    /// long jobs are kept that do not say it themselves.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        logs: JobLogs,
        registry: Arc<Registry>,
        grace: Duration,
        retention: RetentionRules,
    ) -> Controller {
        let asks = registry.asks();
        let hooks = Some(Arc::default());
        Controller { inner: Arc::new(Inner { store, clock, logs, registry, asks, grace, retention, hooks }) }
    }

    /// The same with other rules of where hooks may go; with none, jobs that have one are refused.
    pub fn with_hooks(self, hooks: Option<Arc<AddressPolicy>>) -> Controller {
        Controller { inner: Arc::new(Inner { hooks, ..(*self.inner).clone() }) }
    }

    /// Submits a job. Once it is answered the job is durable.
    ///
    /// Repeating a submission whose answer was lost makes a second job, unless it has an idempotency key or is unique.
    ///
    /// # Errors
    /// See [`SubmitError`]. Nothing was stored, except that after [`SubmitError::Store`] with
    /// [`jobservice_core::StoreError::Unavailable`] it is not known.
    pub async fn submit(&self, submission: Submission) -> std::result::Result<Submitted, SubmitError> {
        self.submit_under(submission, None).await
    }

    /// Submits a job on behalf of a run, as long as that holds its lease.
    pub(crate) async fn submit_under(
        &self,
        submission: Submission,
        launched_by: Option<LeaseKey>,
    ) -> std::result::Result<Submitted, SubmitError> {
        let now = self.inner.clock.now();
        let mut new = match check::new(submission, &self.inner.rules(), now)? {
            New::Job(new) => *new,
            New::Policy(policy, warnings) => return self.put_policy(*policy, warnings).await,
        };
        new.launched_by = launched_by;
        let job = new.job.clone();
        let inserted = self.inner.store.insert(vec![new], now).await?.pop();
        self.submitted(job, inserted).await
    }

    /// Submits many jobs, each answered on its own, in order: what is wrong with one does not hold up the others. They go
    /// to the store [`limits::BATCH_INSERT_MAX`] at a time, so that others get their turn in between; Periodic ones go one
    /// by one.
    pub async fn submit_all(&self, submissions: Vec<Submission>) -> Vec<std::result::Result<Submitted, SubmitError>> {
        let now = self.inner.clock.now();
        let rules = self.inner.rules();
        let checked: Vec<_> = submissions.into_iter().map(|submission| check::new(submission, &rules, now)).collect();
        let mut answers = Vec::with_capacity(checked.len());
        let mut checked = checked.into_iter().peekable();
        while checked.peek().is_some() {
            let part: Vec<_> = checked.by_ref().take(limits::BATCH_INSERT_MAX).collect();
            let jobs = part.iter().filter_map(|new| match new {
                Ok(New::Job(new)) => Some((**new).clone()),
                Ok(New::Policy(..)) | Err(_) => None,
            });
            let jobs: Vec<_> = jobs.collect();
            let inserted = if jobs.is_empty() { Ok(Vec::new()) } else { self.inner.store.insert(jobs, now).await };
            let mut inserted = match inserted {
                Ok(inserted) => Ok(inserted.into_iter()),
                Err(error) => Err(Arc::new(error)),
            };
            for new in part {
                answers.push(match (new, &mut inserted) {
                    (Err(error), _) => Err(error),
                    (Ok(New::Policy(policy, warnings)), _) => self.put_policy(*policy, warnings).await,
                    (Ok(New::Job(new)), Ok(inserted)) => {
                        let inserted = inserted.next();
                        self.submitted(new.job, inserted).await
                    }
                    (Ok(New::Job(_)), Err(error)) => Err(SubmitError::Store(same(error))),
                });
            }
        }
        answers
    }

    async fn submitted(
        &self,
        job: job::Job,
        inserted: Option<Inserted>,
    ) -> std::result::Result<Submitted, SubmitError> {
        match inserted {
            Some(Inserted::Created) => Ok(Submitted { job, repeated: false, policy: None, warnings: Vec::new() }),
            Some(Inserted::Duplicate(holder)) => Err(SubmitError::Duplicate { holder }),
            // The record of then may be pruned by now; what was submitted still answers for its id.
            Some(Inserted::Repeated(id)) => {
                let found = self.inner.store.get(&id).await?;
                let job = found.unwrap_or(job::Job { id, ..job });
                Ok(Submitted { job, repeated: true, policy: None, warnings: Vec::new() })
            }
            Some(Inserted::IdTaken) => Err(SubmitError::IdTaken),
            Some(Inserted::LeaseLost) => Err(SubmitError::LeaseLost),
            None => Err(SubmitError::Store(jobservice_core::StoreError::Damaged {
                what: "an insert was answered for fewer jobs than were given".to_owned(),
            })),
        }
    }

    /// Waits until a job is final, at most for `timeout`, and answers with its record as it is then; none if there is no
    /// such job.
    pub async fn wait_final(&self, id: &JobId, timeout: Duration) -> Result<Option<job::Job>> {
        // Register before looking: a change between the look and the wait would be slept through.
        let watch = self.inner.store.notices().watch(id);
        let timeout = wait::pause(timeout);
        tokio::pin!(timeout);
        loop {
            let changed = watch.changed();
            let job = self.get(id).await?;
            if job.as_ref().is_none_or(|job| job.state.status.is_final()) {
                return Ok(job);
            }
            tokio::select! {
                () = changed => {}
                () = wait::pause(LOOK_EVERY) => {}
                () = &mut timeout => return Ok(job),
            }
        }
    }

    /// Stops, cancels or retries a job or a policy. Safe to repeat.
    pub async fn control(&self, id: &JobId, command: Command) -> Result<Controlled> {
        let action = match command {
            // Of a policy it must be known when it goes on.
            Command::Retry => Action::Retry { next_due: self.next_due_of(id).await? },
            Command::Stop | Command::Cancel => self.action(command),
        };
        self.inner.store.control(id, action, self.inner.clock.now()).await
    }

    fn action(&self, command: Command) -> Action {
        match command {
            Command::Stop => Action::Stop(self.inner.grace),
            Command::Cancel => Action::Cancel(self.inner.grace),
            Command::Retry => Action::Retry { next_due: None },
        }
    }

    /// Removes a final job with all that belongs to it, its log too; or a policy that has ended, whose executions stay.
    /// Safe to repeat.
    pub async fn delete(&self, id: &JobId) -> Result<Deleted> {
        let deleted = self.inner.store.delete(id, self.inner.clock.now()).await?;
        if deleted == Deleted::Gone {
            self.remove_logs(std::slice::from_ref(id)).await;
        }
        Ok(deleted)
    }

    /// Crash before this: the logs stay without their jobs until the sweeper of the logs removes them by age.
    async fn remove_logs(&self, gone: &[JobId]) {
        if !gone.is_empty()
            && let Err(error) = self.inner.logs.remove(gone).await
        {
            let jobs = gone.len();
            tracing::warn!(jobs, error = %error, "the logs of {jobs} deleted jobs could not be removed");
        }
    }

    /// A page of jobs.
    pub async fn list(&self, query: &Query) -> Result<Page> {
        self.inner.store.list(query).await
    }

    /// How many jobs there are in each status.
    pub async fn counts(&self) -> Result<Vec<(Status, u64)>> {
        self.inner.store.counts().await
    }

    /// Each name that has options or jobs that are not final, with numbers.
    pub async fn names(&self) -> Result<Vec<NameStats>> {
        self.inner.store.names().await
    }

    /// Pauses or resumes a name, sets or clears its limit and weight.
    pub async fn set_options(&self, name: &Name, change: OptionsChange) -> Result<NameOptions> {
        self.inner.store.set_options(name, change, self.inner.clock.now()).await
    }

    /// All worker pools, dead ones included for a while.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        self.inner.store.beat(None, self.inner.clock.now()).await
    }

    /// Why a job waits; none if it does not wait or does not exist.
    pub async fn explain(&self, id: &JobId) -> Result<Option<Waiting>> {
        self.inner.store.explain(id, &self.inner.asks, self.inner.clock.now()).await
    }

    /// What happened in each minute from that of `from` on, to the jobs of one name or of all together.
    pub async fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>> {
        self.inner.store.minutes(name, from).await
    }

    /// The hook events of a job that wait or are kept, in order.
    pub async fn events(&self, id: &JobId) -> Result<Vec<OutboxEntry>> {
        self.inner.store.events(id).await
    }

    /// Sends a hook event again. Safe to repeat.
    pub async fn resend_event(&self, id: &JobId, seq: u32) -> Result<Resent> {
        self.inner.store.resend_event(id, seq, self.inner.clock.now()).await
    }

    /// The job logs.
    pub fn logs(&self) -> &JobLogs {
        &self.inner.logs
    }

    /// The jobs that can be submitted.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The clock of the service.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// How long a running job may take to obey a stop or cancel.
    pub fn grace(&self) -> Duration {
        self.inner.grace
    }
}

/// The error of a call that stands for many jobs, once more.
fn same(error: &Arc<jobservice_core::StoreError>) -> jobservice_core::StoreError {
    use jobservice_core::StoreError;
    match &**error {
        StoreError::Full => StoreError::Full,
        StoreError::Poisoned => StoreError::Poisoned,
        StoreError::Damaged { what } => StoreError::Damaged { what: what.clone() },
        StoreError::Contended { id, tries } => StoreError::Contended { id: id.clone(), tries: *tries },
        StoreError::Invalid(what) => StoreError::Invalid(what.clone()),
        _ => StoreError::Unavailable { during: "insert", source: Box::new(Arc::clone(error)) },
    }
}
