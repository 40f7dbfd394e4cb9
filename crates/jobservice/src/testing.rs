//! For the tests of people who write jobs: run one job, on a store in memory and a clock that stands still, and look at
//! what became of it.
//!
//! ```
//! use jobservice::prelude::*;
//! use jobservice::testing::Bench;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Double {
//!     number: i64,
//! }
//!
//! impl Job for Double {
//!     const NAME: &'static str = "double";
//!
//!     async fn run(self, ctx: Context) -> Result<(), Failure> {
//!         let doubled = self.number.checked_mul(2).ok_or_else(|| Failure::permanent("too large"))?;
//!         tracing::info!("{} doubled is {doubled}", self.number);
//!         ctx.set_result(&doubled)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let bench = Bench::new();
//!
//! let ended = bench.run(Double { number: 21 }).await;
//! ended.assert_success();
//! assert_eq!(ended.result::<i64>(), Some(42));
//! assert!(ended.log().contains("21 doubled is 42"));
//!
//! let ended = bench.run(Double { number: i64::MAX }).await;
//! ended.assert_dead("too large");
//! # }
//! ```
//!
//! A bench runs a job the way a pool does: the same checks at submission, the same lifecycle, the same log. What it leaves
//! out is everything around: queues, other jobs, retries by themselves ([`Bench::again`] runs the next attempt).
//!
//! For tests of a whole service give [`crate::ServiceBuilder::store`] a [`MemoryStore`] and
//! [`crate::ServiceBuilder::clock`] a [`ManualClock`].
#![allow(clippy::panic, clippy::expect_used, reason = "a panic is how a test fails, and this is for nothing but tests")]

mod log;

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{Job as Record, Kind, Status};
use jobservice_core::store::{Claim, Report, Store};
use jobservice_core::{Clock, JobId, PoolId, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing_subscriber::layer::SubscriberExt;

pub use jobservice_core::ManualClock;
pub use jobservice_core::memory::MemoryStore;

use crate::controller::{Command, Submission};
use crate::env::{Env, Properties, States};
use crate::logger::{self, JobLogs};
use crate::middleware::Middleware;
use crate::pool::board::Board;
use crate::run::attempt::Attempt;
use crate::run::{Ending, Interrupt, Run};
use crate::{BlockingJob, Controller, Job, Registry, RetentionRules};

use self::log::TestLogs;

/// Where one job at a time runs. See the [module](self).
pub struct Bench {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    logs: JobLogs,
    text: Arc<TestLogs>,
    states: Arc<States>,
    properties: Arc<Properties>,
    middleware: Arc<[Arc<dyn Middleware>]>,
    pool: PoolId,
    /// What jobs may launch.
    launched: Registry,
}

impl Default for Bench {
    fn default() -> Self {
        Bench::new()
    }
}

impl Bench {
    /// A bench with an empty store.
    pub fn new() -> Bench {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::default());
        let text = Arc::new(TestLogs::default());
        let logs = JobLogs::builder()
            .backend(Arc::clone(&text) as Arc<dyn logger::LogBackend>)
            .level(logger::Level::Debug)
            .build(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&clock) as Arc<dyn Clock>)
            .expect("the job logs start");
        Bench {
            store,
            clock,
            logs,
            text,
            states: Arc::default(),
            properties: Arc::default(),
            middleware: Arc::new([]),
            pool: PoolId::incarnation("bench", 1).expect("a valid pool id"),
            launched: Registry::new(),
        }
    }

    /// Gives the jobs a value that they reach by its type, as [`crate::ServiceBuilder::with`] does.
    ///
    /// # Panics
    /// If a job of this bench is running.
    pub fn with<T: Any + Send + Sync>(mut self, state: T) -> Bench {
        Arc::get_mut(&mut self.states).expect("no job is running").insert(state);
        self
    }

    /// Lets jobs launch this one ([`crate::Context::launch`]). It does not run by itself.
    pub fn launches<J: Job>(mut self) -> Bench {
        self.launched = self.launched.register::<J>();
        self
    }

    /// Sets a property that jobs read with [`crate::Context::get`].
    ///
    /// # Panics
    /// If a job of this bench is running.
    pub fn property(mut self, property: impl Into<String>, value: impl Into<String>) -> Bench {
        let properties = Arc::get_mut(&mut self.properties).expect("no job is running");
        properties.own.insert(property.into(), value.into());
        self
    }

    /// Runs this around each run, inside of what was added before.
    pub fn middleware(mut self, middleware: impl Middleware) -> Bench {
        let added: Arc<dyn Middleware> = Arc::new(middleware);
        self.middleware = self.middleware.iter().cloned().chain([added]).collect();
        self
    }

    /// The store.
    pub fn store(&self) -> &Arc<MemoryStore> {
        &self.store
    }

    /// The clock, which only the test moves.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// Submits a job and runs its first attempt to its end.
    ///
    /// # Panics
    /// If the submission is refused.
    pub async fn run<J: Job + Serialize>(&self, job: J) -> Ended {
        self.start(job).await.ended().await
    }

    /// As [`Bench::run`], for a blocking job.
    ///
    /// # Panics
    /// If the submission is refused.
    pub async fn run_blocking<J: BlockingJob + Serialize>(&self, job: J) -> Ended {
        let registry = Registry::new().register_blocking::<J>();
        let id = self.submit(J::NAME, &job, &registry).await;
        self.attempt(&id, registry).await.ended().await
    }

    /// Submits a job and begins its first attempt.
    ///
    /// # Panics
    /// If the submission is refused.
    pub async fn start<J: Job + Serialize>(&self, job: J) -> Started<'_> {
        let registry = Registry::new().register::<J>();
        let id = self.submit(J::NAME, &job, &registry).await;
        self.attempt(&id, registry).await
    }

    /// Runs the next attempt of a job that failed and is to be tried again, at the time when it is due.
    ///
    /// # Panics
    /// If the job does not wait to be tried again.
    pub async fn again<J: Job>(&self, ended: &Ended) -> Ended {
        let registry = Registry::new().register::<J>();
        self.attempt(&ended.job.id, registry).await.ended().await
    }

    fn controller(&self, registry: Registry) -> Controller {
        assert!(registry.problems().is_empty(), "the job is not valid: {}", registry.problems().join("; "));
        Controller::new(
            Arc::clone(&self.store) as Arc<dyn Store>,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            self.logs.clone(),
            Arc::new(registry),
            limits::GRACE,
            RetentionRules::default(),
        )
    }

    async fn submit(&self, name: &str, job: &impl Serialize, registry: &Registry) -> JobId {
        let mut submission = Submission::new(name);
        submission.kind = Kind::Generic;
        let parameters = serde_json::value::to_raw_value(job).expect("the job can be written as JSON");
        submission.parameters = Some(parameters);
        match self.controller(registry.clone()).submit(submission).await {
            Ok(submitted) => submitted.job.id,
            Err(error) => panic!("{name} was not submitted: {error}"),
        }
    }

    /// Claims the job and begins to run it.
    async fn attempt(&self, id: &JobId, registry: Registry) -> Started<'_> {
        crate::run::panics::install_hook();
        let due = self.record(id).await.state.run_at.unwrap_or_else(|| self.clock.now());
        let now = self.clock.advance(due.since(self.clock.now()));
        self.store.promote(1, now).await.expect("the store in memory answers");
        let claim = Claim {
            pool: self.pool.clone(),
            names: registry.asks(),
            slots: 1,
            suspects: true,
            nonce: getrandom::u64().unwrap_or(1),
            seed: 0,
            until: now + limits::LEASE,
            grace: limits::GRACE,
        };
        let claimed = self.store.claim(&claim, now).await.expect("the store in memory answers");
        let Some(job) = claimed.into_iter().find(|job| job.id == *id) else {
            panic!("job {id} does not wait to be run: it is {}", self.record(id).await.state.status);
        };
        let env = Arc::new(Env {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            logs: self.logs.clone(),
            state: Arc::clone(&self.states),
            properties: Arc::clone(&self.properties),
            middleware: Arc::clone(&self.middleware),
            pool: self.pool.clone(),
            grace: limits::GRACE,
            board: Board::new(1),
            controller: self.controller(self.launched.clone()),
        });
        let entry = registry.entry(&job.spec.name).cloned().expect("it was registered");
        let run = Run::new(job, entry, Arc::clone(&env)).expect("it is Running");
        env.board.add([Arc::clone(&run)], 1);
        let run = env.board.next().expect("it was added");
        let task = tokio::spawn(with_log(Attempt::new(Arc::clone(&run))));
        Started { bench: self, run, task }
    }

    async fn record(&self, id: &JobId) -> Record {
        let found = self.store.get(id).await.expect("the store in memory answers");
        found.unwrap_or_else(|| panic!("job {id} is gone"))
    }
}

/// Polls the attempt with a `tracing` subscriber that writes to the job's log, unless the test has one of its own.
async fn with_log(mut attempt: Attempt) {
    let subscriber = tracing_subscriber::registry().with(logger::layer());
    let dispatch = tracing::Dispatch::new(subscriber);
    poll_fn(|cx| {
        if tracing::dispatcher::has_been_set() {
            return Pin::new(&mut attempt).poll(cx);
        }
        tracing::dispatcher::with_default(&dispatch, || Pin::new(&mut attempt).poll(cx))
    })
    .await;
}

/// An attempt that has begun.
#[must_use = "see how it ended"]
pub struct Started<'a> {
    bench: &'a Bench,
    run: Arc<Run>,
    task: tokio::task::JoinHandle<()>,
}

impl Started<'_> {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.run.job().id
    }

    /// Stops the job.
    pub async fn stop(&self) {
        self.control(Command::Stop, Interrupt::Stop).await;
    }

    /// Cancels the job.
    pub async fn cancel(&self) {
        self.control(Command::Cancel, Interrupt::Cancel).await;
    }

    /// Moves the clock to the job's timeout and interrupts it. A job without a timeout is interrupted all the same.
    pub fn time_out(&self) {
        let now = self.bench.clock.now();
        let at = self.run.timeout_at().unwrap_or(now);
        let now = self.bench.clock.advance(at.since(now));
        self.run.ask_to_end(Interrupt::Timeout, now + limits::GRACE);
    }

    /// Tells the job that the service shuts down.
    pub fn shut_down(&self) {
        self.run.ask_to_end(Interrupt::Shutdown, self.bench.clock.now() + limits::SHUTDOWN_GRACE);
    }

    /// Moves the clock by the grace of an interrupt and gives the job up: what it did not do by now it never does.
    pub fn give_up(&self) {
        let until = self.run.grace_until().unwrap_or_else(|| self.bench.clock.now() + Duration::ZERO);
        self.bench.clock.advance(until.since(self.bench.clock.now()));
        self.run.give_up();
    }

    /// Waits until the attempt has ended and stores how.
    ///
    /// # Panics
    /// If the job has not ended within a minute.
    pub async fn ended(self) -> Ended {
        let Started { bench, run, task } = self;
        let env = run.env();
        let mut ended = Vec::new();
        let settled = async {
            task.await.expect("a panic of a job is caught");
            loop {
                env.board.take_ended(&mut ended);
                if !ended.is_empty() {
                    return;
                }
                env.board.news().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), settled).await;
        assert!(in_time.is_ok(), "the job {} has not ended within a minute", run.job().spec.name);
        let now = bench.clock.now();
        for ended in ended {
            let lease = run.lease().clone();
            let stored = match ended.ending {
                Ending::Report(outcome) => bench.store.finish(vec![Report { lease, outcome }], now).await,
                Ending::Release => bench.store.release(vec![lease], 0, now).await,
                Ending::Nothing => Ok(Vec::new()),
            };
            stored.expect("the store in memory answers");
        }
        bench.logs.flush().await;
        let job = bench.record(&run.job().id).await;
        Ended { log: bench.text.of(&job.id), job }
    }

    async fn control(&self, command: Command, interrupt: Interrupt) {
        let controller = self.bench.controller(Registry::new());
        controller.control(self.id(), command).await.expect("the store in memory answers");
        self.run.ask_to_end(interrupt, self.bench.clock.now() + limits::GRACE);
    }
}

/// What became of a job after an attempt.
#[derive(Clone, Debug)]
pub struct Ended {
    job: Record,
    log: String,
}

impl Ended {
    /// The record.
    pub fn job(&self) -> &Record {
        &self.job
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.job.state.status
    }

    /// Why the attempt failed, if it did.
    pub fn error(&self) -> Option<&str> {
        self.job.state.error.as_deref()
    }

    /// The last progress message.
    pub fn check_in(&self) -> Option<&str> {
        self.job.state.check_in.as_ref().map(|check_in| &*check_in.message)
    }

    /// What the job gave back; none if it gave nothing back.
    ///
    /// # Panics
    /// If that is not a `T`.
    pub fn result<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.job.state.result.as_deref()?;
        match serde_json::from_str(text) {
            Ok(result) => Some(result),
            Err(error) => panic!("the result {text} is of another type: {error}"),
        }
    }

    /// The job's log, of all attempts so far.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Asserts that the job succeeded.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_success(&self) {
        self.assert_status(Status::Success);
    }

    /// Asserts that the attempt failed with an error that contains `text`, and that the job will be tried again.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_retrying(&self, text: &str) {
        self.assert_status(Status::Scheduled);
        self.assert_error(text);
    }

    /// Asserts that the job failed for good with an error that contains `text`.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_dead(&self, text: &str) {
        self.assert_status(Status::Error);
        self.assert_error(text);
    }

    /// Asserts that the job has this status.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_status(&self, status: Status) {
        let is = self.status();
        assert!(is == status, "the job is {is}, not {status}; error: {:?}; log:\n{}", self.error(), self.log);
    }

    #[track_caller]
    fn assert_error(&self, text: &str) {
        let error = self.error().unwrap_or_default();
        assert!(error.contains(text), "the error is {error:?}, without {text:?}; log:\n{}", self.log);
    }
}
