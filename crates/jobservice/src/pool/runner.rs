//! Runners: tasks on the runtime of the jobs that take runs from the board and poll them.
//!
//! A runner polls its run at once. If that ends it (much work is that short) the next run follows in the same task, so a
//! batch of short jobs costs one wake-up, not one each. If the run has to wait for something, the runner stays with it as
//! its task and a fresh runner takes over the rest of the board.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::env::Env;
use crate::run::attempt::Attempt;

/// Starts `count` runners, which the board already counts.
pub(crate) fn spawn(jobs: &tokio::runtime::Handle, env: &Arc<Env>, count: usize) {
    for _ in 0..count {
        jobs.spawn(run(Arc::clone(env)));
    }
}

/// Boxed: a runner spawns its successor, and a type cannot contain itself.
fn run(env: Arc<Env>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        while let Some(run) = env.board.next() {
            let mut attempt = Attempt::new(run);
            if once(&mut attempt).await.is_pending() {
                if env.board.stay() {
                    tokio::spawn(self::run(Arc::clone(&env)));
                }
                attempt.await;
                env.board.back();
            }
        }
    })
}

/// Polls `future` once with the wake-up of the caller's task, which may go on to wait for it.
pub(crate) async fn once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
