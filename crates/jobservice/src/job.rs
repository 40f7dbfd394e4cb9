//! What a user writes: a job is a type. Its fields are the parameters, its `run` is the work.

use std::future::Future;
use std::time::Duration;

use jobservice_core::limits;
use serde::de::DeserializeOwned;

use crate::{Context, Failure};

/// A kind of work, written as a type whose fields are its parameters.
///
/// Only [`Job::NAME`] and [`Job::run`] must be given. Code that blocks a thread (files, C libraries, long computing) is a
/// [`BlockingJob`] instead.
///
/// A job may run more than once: its worker can die after the work was done and before that was noted. Write `run` so
/// that a second run does no harm, or look at [`Context::attempt`].
///
/// ```
/// use jobservice::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Resize {
///     image: String,
///     width: u32,
/// }
///
/// impl Job for Resize {
///     const NAME: &'static str = "resize";
///     const MAX_FAILS: u32 = 3;
///
///     fn validate(&self) -> Result<(), String> {
///         if self.width == 0 { Err("width must be at least 1".into()) } else { Ok(()) }
///     }
///
///     async fn run(self, ctx: Context) -> Result<(), Failure> {
///         ctx.check_in("50%").await?;
///         Ok(())
///     }
/// }
/// ```
pub trait Job: DeserializeOwned + Send + 'static {
    /// What the job is called: 1 to 128 letters, digits, `_`, `.`, `:` or `-`. Jobs in the store are found by it, so it
    /// must not change while any wait.
    const NAME: &'static str;

    /// How many runs may fail before the job is dead; 0 means 4.
    const MAX_FAILS: u32 = 0;

    /// The priority of its jobs, 0 to 9, higher first, unless the submission says otherwise.
    const PRIORITY: u8 = 0;

    /// Its share of the workers compared with other names, 1 to 10,000.
    const WEIGHT: u32 = limits::WEIGHT_DEFAULT;

    /// How many may run at once over all nodes; none for no limit.
    const MAX_CONCURRENCY: Option<u32> = None;

    /// How long one run may take; then it is signalled and, after a grace, ended. None: as long as it likes.
    const TIMEOUT: Option<Duration> = None;

    /// Looks at the parameters when the job is submitted; an error refuses the submission with that text.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether a retryable failure is worth another try. `self` is read anew from the parameters.
    fn should_retry(&self, failure: &Failure) -> bool {
        failure.is_retryable()
    }

    /// The pause after the `fails`-th failed run; none for the default (16 to 74 s after the first, growing).
    fn backoff(fails: u32) -> Option<Duration> {
        let _ = fails;
        None
    }

    /// Does the work. A panic is a retryable failure.
    fn run(self, ctx: Context) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// As [`Job`], for code that blocks its thread. Each run has a thread of its own.
///
/// Nobody can end such code from outside: look at [`Context::op_command`] or [`Context::interrupt`] now and then.
pub trait BlockingJob: DeserializeOwned + Send + 'static {
    /// As [`Job::NAME`].
    const NAME: &'static str;

    /// As [`Job::MAX_FAILS`].
    const MAX_FAILS: u32 = 0;

    /// As [`Job::PRIORITY`].
    const PRIORITY: u8 = 0;

    /// As [`Job::WEIGHT`].
    const WEIGHT: u32 = limits::WEIGHT_DEFAULT;

    /// As [`Job::MAX_CONCURRENCY`].
    const MAX_CONCURRENCY: Option<u32> = None;

    /// As [`Job::TIMEOUT`].
    const TIMEOUT: Option<Duration> = None;

    /// As [`Job::validate`].
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    /// As [`Job::should_retry`].
    fn should_retry(&self, failure: &Failure) -> bool {
        failure.is_retryable()
    }

    /// As [`Job::backoff`].
    fn backoff(fails: u32) -> Option<Duration> {
        let _ = fails;
        None
    }

    /// Does the work. A panic is a retryable failure.
    fn run(self, ctx: Context) -> Result<(), Failure>;
}
