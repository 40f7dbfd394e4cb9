//! Code around each run: logging, metrics, authorization of the user's own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::registry::Work;
use crate::{Context, Failure};

/// The future of a middleware.
pub type Around = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Code that runs around the jobs of a service. It may look at the context, refuse the run by not calling [`Next::run`],
/// and look at or change how it ended.
///
/// Any function of a [`Context`] and a [`Next`] is one:
///
/// ```no_run
/// use jobservice::prelude::*;
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Service::builder().sqlite("jobs.db").middleware(|ctx: Context, next: Next| async move {
///     tracing::info!("attempt {} begins", ctx.attempt());
///     let ended = next.run(ctx).await;
///     tracing::info!("it ended: {ended:?}");
///     ended
/// });
/// # Ok(()) }
/// ```
///
/// The first that is given is the outermost. A panic of the job reaches a middleware as a failure. At a lost lease and
/// when a grace has passed the whole future is dropped, wherever it stands.
pub trait Middleware: Send + Sync + 'static {
    /// Runs around one run.
    fn around(&self, ctx: Context, next: Next) -> Around;
}

impl<F, Fut> Middleware for F
where
    F: Fn(Context, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    fn around(&self, ctx: Context, next: Next) -> Around {
        Box::pin(self(ctx, next))
    }
}

/// What a middleware is around of: the next one, and at last the job.
#[derive(Clone)]
pub struct Next {
    chain: Arc<[Arc<dyn Middleware>]>,
    at: usize,
}

impl Next {
    /// Goes on with the run.
    pub async fn run(self, ctx: Context) -> Result<(), Failure> {
        self.start(ctx).await
    }

    pub(crate) fn first(chain: &Arc<[Arc<dyn Middleware>]>) -> Next {
        Next { chain: Arc::clone(chain), at: 0 }
    }

    pub(crate) fn start(mut self, ctx: Context) -> Work {
        match self.chain.get(self.at).cloned() {
            Some(middleware) => {
                self.at += 1;
                middleware.around(ctx, self)
            }
            None => ctx.run().entry().start(ctx.clone()),
        }
    }
}
