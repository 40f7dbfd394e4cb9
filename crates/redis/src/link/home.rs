//! The thread that the connections live on.
//!
//! A runtime of its own, so that neither jobs that hold up a thread nor a runtime that ends takes the connection away from
//! those who extend leases. It ends with the store.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;

/// A runtime on a thread of its own; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl Home {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Home> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("jobs-redis".to_owned()).spawn(move || {
            // An error is what we wait for: the other end was dropped.
            runtime.block_on(ended).ok();
            // Not by dropping it: that would wait for look-ups of names that hang.
            runtime.shutdown_background();
        })?;
        Ok(Home { handle, _alive: alive })
    }

    /// Runs a task there. It must not keep the store alive: nobody would end it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Runs a future there and waits for what comes of it; none if the thread ended meanwhile.
    pub(crate) async fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.handle.spawn(task).await.ok()
    }

    /// What is spawned while this is held runs there.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }
}
