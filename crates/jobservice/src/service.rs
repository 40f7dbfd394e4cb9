//! The service as a Rust user embeds it: a store, the sweeps, and a worker pool in this process.

mod builder;
mod embedded;
mod submit;

use std::sync::Arc;
use std::time::Duration;

use jobservice_sqlite::SqliteStore;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::hooks::Hooks;
use crate::logger::JobLogs;
use crate::maintenance::Upkeep;
use crate::pool::{Pool, PoolStats};
use crate::{BlockingJob, Controller, Job};

pub use builder::{ServiceBuilder, StartError};
pub use submit::Submit;

/// A running service.
///
/// ```no_run
/// # use jobservice::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Resize { image: String, width: u32 }
/// # impl Job for Resize {
/// #     const NAME: &'static str = "resize";
/// #     async fn run(self, _ctx: Context) -> Result<(), Failure> { Ok(()) }
/// # }
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder().sqlite("jobs.db").register::<Resize>().start().await?;
/// let job = service.submit(Resize { image: "cat.png".into(), width: 80 }).after(90.seconds()).unique().await?;
/// println!("{}", job.id());
/// service.shutdown().await;
/// # Ok(()) }
/// ```
///
/// End it with [`Service::shutdown`]. A service that is dropped instead ends as well, but gives its running jobs no time:
/// they go back to the queue.
pub struct Service {
    controller: Controller,
    pool: Option<Pool>,
    upkeep: Upkeep,
    hooks: Option<Hooks>,
    logs: JobLogs,
    sqlite: Option<Arc<SqliteStore>>,
    shutdown_grace: Duration,
    fatal: watch::Receiver<Option<Arc<str>>>,
    /// Held by the first shutdown until it is through.
    ended: Mutex<bool>,
}

impl Service {
    /// Begins to build a service.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::default()
    }

    /// Submits a job; await the answer. See [`Submit`] for what can be said of it before.
    pub fn submit<J: Job + Serialize>(&self, job: J) -> Submit {
        Submit::new(self.controller.clone(), J::NAME, &job)
    }

    /// Submits a blocking job; await the answer.
    pub fn submit_blocking<J: BlockingJob + Serialize>(&self, job: J) -> Submit {
        Submit::new(self.controller.clone(), J::NAME, &job)
    }

    /// What submits by name, controls and reads jobs.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Numbers of the worker pool; none if the service has no workers.
    pub fn stats(&self) -> Option<PoolStats> {
        self.pool.as_ref().map(Pool::stats)
    }

    /// Resolves when the service can do no more work, with the reason: a write of the store failed in a way that only a
    /// restart of the process can mend. Until then it never resolves.
    pub async fn failed(&self) -> Arc<str> {
        let mut fatal = self.fatal.clone();
        let pool = async {
            match fatal.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
                Ok(Some(reason)) => reason,
                // The pool is gone, or there is none: it cannot fail any more.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let store = async {
            match &self.sqlite {
                Some(sqlite) => sqlite.poisoned().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = pool => reason,
            () = store => jobservice_core::StoreError::Poisoned.to_string().into(),
        }
    }

    /// Ends the service: no more jobs are claimed, running ones are told and have the shutdown's grace to end, what does
    /// not end is given back without counting as a failure, all ends and logs are written. Safe to call again, and from
    /// several places: all wait for the end.
    pub async fn shutdown(&self) {
        let mut ended = self.ended.lock().await;
        if *ended {
            return;
        }
        if let Some(pool) = &self.pool {
            pool.shutdown(self.shutdown_grace).await;
        }
        // After the pool: the ends of its jobs are told as well, as far as that takes no time.
        if let Some(hooks) = &self.hooks {
            hooks.stop().await;
        }
        self.upkeep.stop().await;
        self.logs.shutdown().await;
        *ended = true;
    }
}
