//! Durable background jobs: write a job as a type, run it now, later, or again after a failure.
//!
//! ```no_run
//! use jobservice::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Resize {
//!     image: String,
//!     width: u32,
//! }
//!
//! impl Job for Resize {
//!     const NAME: &'static str = "resize";
//!
//!     async fn run(self, ctx: Context) -> Result<(), Failure> {
//!         ctx.check_in("50%").await?;
//!         tracing::info!("resized {} to {}", self.image, self.width); // goes to the job's log
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let service = Service::builder().sqlite("jobs.db").register::<Resize>().start().await?;
//!     service.submit(Resize { image: "cat.png".into(), width: 80 }).after(90.seconds()).unique().await?;
//!     service.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! Where to look:
//! * [`Job`], [`BlockingJob`], [`Context`], [`Failure`]: what a job is made of.
//! * [`Service`], [`ServiceBuilder`], [`Submit`]: a service in this process.
//! * [`Controller`]: submit by name, control, read; what the REST server stands on.
//! * [`hooks`]: status changes told to a URL. [`logger`]: the logs of jobs. [`core`]: records, statuses, the store trait.
//! * [`testing`]: run one job on a store in memory and a clock that stands still.
#![deny(missing_docs)]

mod context;
mod controller;
mod env;
mod failure;
pub mod hooks;
mod job;
pub mod logger;
mod maintenance;
mod middleware;
mod pool;
mod registry;
mod retention;
mod run;
mod service;
pub mod testing;
mod units;
mod wait;
mod watchdog;

pub use jobservice_core as core;

pub use context::Context;
pub use controller::{
    Bulk, BulkBounds, BulkDone, CodeOptions, Command, Controller, FieldError, Found, Put, PutPolicy, QueueInfo,
    Submission, SubmitError, Submitted,
};
pub use env::PropertySource;
pub use failure::Failure;
pub use job::{BlockingJob, Job};
pub use middleware::{Around, Middleware, Next};
pub use pool::PoolStats;
pub use registry::{JobInfo, Registry};
pub use retention::RetentionRules;
pub use run::Interrupt;
pub use service::{Service, ServiceBuilder, StartError, Submit};
pub use units::Units;

/// What most users need: `use jobservice::prelude::*;`
pub mod prelude {
    pub use jobservice_core::policy::{Misfire, Overlap};

    pub use crate::{
        BlockingJob, Context, Failure, Interrupt, Job, Next, Registry, Service, SubmitError, Submitted, Units,
    };
}

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
