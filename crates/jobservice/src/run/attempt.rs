//! The future that polls a run's code: catches panics, feeds the job's log, and drops the code once it was given up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Wake, Poll};

use super::panics::{Panic, caught};
use super::{Alive, Ending, Interrupt, Run};
use crate::middleware::Next;
use crate::registry::Work;
use crate::{Context, Failure, logger};

/// One attempt as a future: ready when the run is settled.
pub(crate) struct Attempt {
    run: Arc<Run>,
    /// None before the first poll.
    work: Option<Work>,
    /// Goes after the work.
    alive: Option<Alive>,
}

impl Attempt {
    pub(crate) fn new(run: Arc<Run>) -> Attempt {
        let alive = Some(Alive::of(&run));
        Attempt { run, work: None, alive }
    }

    /// Reports the ending once all lines of the log are written: who sees the end finds the whole log. The slot is free
    /// already; most runs have no line left to write and are reported at once.
    fn close(&self, ending: Ending, cx: &mut Wake<'_>) {
        let closed = std::pin::pin!(self.run.log().clone().close());
        if closed.poll(cx).is_ready() {
            self.run.report(ending);
            return;
        }
        let run = Arc::clone(&self.run);
        tokio::spawn(async move {
            run.log().clone().close().await;
            run.report(ending);
            run.env().board.wake();
        });
    }

    /// Drops the code. Its destructors are the user's and may panic.
    fn drop_work(&mut self) {
        let work = self.work.take();
        if let Err(panic) = caught(move || drop(work)) {
            tell(&self.run, &panic);
        }
        self.alive = None;
    }
}

impl Future for Attempt {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Wake<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.run.is_settled() {
            this.drop_work();
            return Poll::Ready(());
        }
        let (run, work) = (&this.run, &mut this.work);
        let polled = caught(|| {
            logger::scope_sync(run.log().clone(), || {
                let work =
                    work.get_or_insert_with(|| Next::first(&run.env().middleware).start(Context::new(Arc::clone(run))));
                work.as_mut().poll(cx)
            })
        });
        let said = match polled {
            Ok(Poll::Pending) => {
                this.run.waker.register(cx.waker());
                // It may have been given up between the look above and the registration.
                if this.run.is_settled() {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(said)) => {
                this.drop_work();
                said
            }
            Err(panic) => {
                this.drop_work();
                Err(tell(&this.run, &panic))
            }
        };
        if let Some(ending) = this.run.ended(said) {
            this.close(ending, cx);
        }
        Poll::Ready(())
    }
}

/// Makes a failure of a panic of `work`, inside all middleware, so that these see it.
pub(crate) async fn guarded(
    ctx: Context,
    work: impl Future<Output = Result<(), Failure>> + Send,
) -> Result<(), Failure> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |cx| match caught(|| work.as_mut().poll(cx)) {
        Ok(polled) => polled,
        Err(panic) => Poll::Ready(Err(tell(ctx.run(), &panic))),
    })
    .await
}

/// As [`guarded`], for code on a thread of its own.
pub(crate) fn guarded_sync(ctx: &Context, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    match caught(|| logger::scope_sync(ctx.run().log().clone(), work)) {
        Ok(said) => said,
        Err(panic) => Err(tell(ctx.run(), &panic)),
    }
}

/// Writes a panic to the job's log. The backtrace is for whoever reads the log; the record keeps message and place.
fn tell(run: &Run, panic: &Panic) -> Failure {
    if !run.was_asked(Interrupt::LeaseLost) {
        run.log().error(format!("{}\n{}", panic.message, panic.backtrace));
    }
    Failure::retryable(panic.message.clone())
}
