//! What a running job sees of the service.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::Signal;
use jobservice_core::store::CheckedIn;
use jobservice_core::{JobId, Name, StoreError, Time, limits};
use serde::Serialize;

use crate::logger::JobLog;
use crate::run::{Interrupt, Run};
use crate::wait;
use crate::{BlockingJob, Failure, Job, Submission, Submit};

/// How often a check-in is tried while the store is away before it is left out.
const CHECK_IN_TRIES: u32 = 4;

/// What a running job sees of the service. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    run: Arc<Run>,
}

impl Context {
    pub(crate) fn new(run: Arc<Run>) -> Context {
        Context { run }
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.run.job().id
    }

    /// The job's name.
    pub fn name(&self) -> &Name {
        &self.run.job().spec.name
    }

    /// The job's parameters, the JSON text as it was given.
    pub fn parameters(&self) -> &str {
        &self.run.job().spec.parameters
    }

    /// Which run of the job this is, from 1. A number is never used twice: with the id it names what this run does
    /// elsewhere, so that a repeated run can find it.
    pub fn attempt(&self) -> u32 {
        self.run.job().state.attempt
    }

    /// How many runs failed before this one.
    pub fn fails(&self) -> u32 {
        self.run.job().state.fails
    }

    /// When this run must be over: its timeout, or the end of the grace once it was interrupted. None if nothing ends it.
    pub fn deadline(&self) -> Option<Time> {
        [self.run.timeout_at(), self.run.grace_until()].into_iter().flatten().min()
    }

    /// The job's log. `tracing` events inside the job go there as well.
    pub fn logger(&self) -> &JobLog {
        self.run.log()
    }

    /// The state of type `T` that the service was built with ([`crate::ServiceBuilder::with`]).
    pub fn state<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.run.env().state.get()
    }

    /// A property of the system: from the service's own properties, then its sources, the environment, and what the
    /// service falls back to (the server: the file's `context`, the environment, what `core_server` says).
    pub fn get(&self, property: &str) -> Option<String> {
        self.run.env().properties.get(property)
    }

    /// The progress message of an earlier run (or of this one at its claim): where to resume.
    pub fn last_check_in(&self) -> Option<&str> {
        self.run.job().state.check_in.as_ref().map(|check_in| &*check_in.message)
    }

    /// Tells how far the job is. The text (cut to 4 KiB) is shown with the job, sent to its hook, and kept for later runs.
    ///
    /// Progress is a message, not a promise: while the store is away or full it is tried for about a second and then left
    /// out, with a line in the job's log; the work goes on.
    ///
    /// # Errors
    /// [`Failure::interrupted`] if the lease is lost: the run must end, nothing that it does counts any more.
    pub async fn check_in(&self, message: impl AsRef<str>) -> Result<(), Failure> {
        let env = self.run.env();
        let message: Arc<str> = limits::cut(message.as_ref(), limits::CHECK_IN_BYTES_MAX).as_ref().into();
        let mut pause = wait::Backoff::default();
        for tries_left in (0..CHECK_IN_TRIES).rev() {
            if self.run.was_asked(Interrupt::LeaseLost) {
                return Err(Failure::interrupted());
            }
            match env.store.check_in(self.run.lease(), Arc::clone(&message), env.clock.now()).await {
                Ok(CheckedIn::Noted(signal)) => {
                    if let Some(signal) = signal {
                        self.run.ask_to_end(signal.into(), env.clock.now() + env.grace);
                    }
                    return Ok(());
                }
                Ok(CheckedIn::LeaseLost) => {
                    self.run.revoke();
                    return Err(Failure::interrupted());
                }
                Err(StoreError::Unavailable { .. } | StoreError::Contended { .. }) if tries_left > 0 => {
                    pause.wait().await;
                }
                Err(error) => {
                    tracing::warn!(job.id = %self.id(), error = %error, "a check-in was left out");
                    self.logger().warning(format!("check-in {message:?} was left out: {error}"));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Launches a job from this one: an execution (sub job) of this, which lives on by itself. Await the answer, or call
    /// [`Submit::blocking`] in a [`crate::BlockingJob`].
    ///
    /// When that is answered the sub job is durable. A run that is repeated launches again what it launched before: give
    /// an idempotency key made of [`Context::id`] to have each only once. A run that has lost its lease launches nothing.
    /// Launching a job of one's own name is refused as a loop, unless [`Submit::allow_own_name`] is called.
    ///
    /// ```no_run
    /// # use jobservice::prelude::*;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Part { number: u32 }
    /// # impl Job for Part {
    /// #     const NAME: &'static str = "part";
    /// #     async fn run(self, _ctx: Context) -> Result<(), Failure> { Ok(()) }
    /// # }
    /// # async fn run(ctx: Context) -> Result<(), Failure> {
    /// for number in 0..3 {
    ///     ctx.launch(Part { number }).idempotency_key(format!("{}-{number}", ctx.id())).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn launch<J: Job + Serialize>(&self, job: J) -> Submit {
        Submit::launched(&self.run, J::NAME, &job)
    }

    /// As [`Context::launch`], for a sub job that is a [`crate::BlockingJob`].
    pub fn launch_blocking<J: BlockingJob + Serialize>(&self, job: J) -> Submit {
        Submit::launched(&self.run, J::NAME, &job)
    }

    /// As [`Context::launch`], by the name of the job.
    pub fn launch_by_name(&self, submission: Submission) -> Submit {
        Submit::launched_by_name(&self.run, submission)
    }

    /// As [`Context::check_in`], for a [`crate::BlockingJob`]. Must not be called from async code.
    pub fn check_in_blocking(&self, message: impl AsRef<str>) -> Result<(), Failure> {
        tokio::runtime::Handle::current().block_on(self.check_in(message))
    }

    /// Whether somebody stopped or cancelled the job.
    pub fn op_command(&self) -> Option<Signal> {
        if self.run.was_asked(Interrupt::Stop) {
            return Some(Signal::Stop);
        }
        self.run.was_asked(Interrupt::Cancel).then_some(Signal::Cancel)
    }

    /// Why this run should end now, if it should: a stop or cancel, its timeout, a shutdown, a lost lease.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.run.interrupt()
    }

    /// An error once this run should end; for loops: `ctx.check_interrupt()?`.
    ///
    /// # Errors
    /// [`Failure::interrupted`], which ends the job as the interrupt demands.
    pub fn check_interrupt(&self) -> Result<(), Failure> {
        if self.interrupt().is_some() { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Resolves once this run should end. Return [`Failure::interrupted`] then, or finish quickly: what the job gives
    /// back counts, as long as it comes before [`Context::deadline`].
    ///
    /// ```no_run
    /// # use jobservice::prelude::*;
    /// # async fn copy() -> Result<(), Failure> { Ok(()) }
    /// # async fn run(ctx: Context) -> Result<(), Failure> {
    /// tokio::select! {
    ///     done = copy() => done,
    ///     _why = ctx.signalled() => Err(Failure::interrupted()),
    /// }
    /// # }
    /// ```
    pub async fn signalled(&self) -> Interrupt {
        self.run.interrupted().await
    }

    /// Sets what the job gives back if it succeeds: any JSON, at most 64 KiB as text.
    ///
    /// # Errors
    /// A permanent failure if `result` cannot be written as JSON or is too large.
    pub fn set_result(&self, result: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(result)
            .map_err(|error| Failure::permanent(format!("the result is not JSON: {error}")))?;
        if text.len() > limits::RESULT_BYTES_MAX {
            let message = format!("the result has {} bytes, at most {} are kept", text.len(), limits::RESULT_BYTES_MAX);
            return Err(Failure::permanent(message));
        }
        self.run.set_result(text.into());
        Ok(())
    }

    /// How much time is left until [`Context::deadline`].
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.deadline()?.since(self.run.env().clock.now()))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("id", self.id()).field("attempt", &self.attempt()).finish_non_exhaustive()
    }
}
