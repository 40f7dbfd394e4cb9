//! What the tests of the service share: a service on a store in memory and a clock that only the test moves.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test speaks")]

use std::sync::Arc;
use std::time::Duration;

use jobservice::core::job::{Job as Record, Status};
use jobservice::core::limits::{EXTEND_EVERY, LEASE};
use jobservice::core::store::Query;
use jobservice::core::{Clock, JobId, ManualClock, Store};
use jobservice::prelude::*;
use jobservice::testing::MemoryStore;
use jobservice::{PoolStats, ServiceBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

/// No wait of a test takes this long unless it is lost.
pub const CAP: Duration = Duration::from_secs(20);

/// A service under test.
pub struct Bench {
    pub service: Service,
    pub store: Arc<dyn Store>,
    pub clock: Arc<ManualClock>,
}

impl Bench {
    /// A service on a store in memory with what `build` adds.
    pub async fn start(build: impl FnOnce(ServiceBuilder) -> ServiceBuilder) -> Bench {
        Bench::on(Arc::new(MemoryStore::new()), Arc::new(ManualClock::default()), build).await
    }

    /// A service on this store and clock.
    pub async fn on(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        build: impl FnOnce(ServiceBuilder) -> ServiceBuilder,
    ) -> Bench {
        let builder = Service::builder().store(Arc::clone(&store)).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let service = build(builder).start().await.expect("the service starts");
        Bench { service, store, clock }
    }

    /// Lets time pass, as it does for a pool that lives: in steps that leave it the time to extend its leases.
    pub async fn pass(&self, by: Duration) {
        let end = self.clock.now() + by;
        while self.clock.now() < end {
            let now = self.clock.advance(end.since(self.clock.now()).min(EXTEND_EVERY));
            let query = Query { status: Some(Status::Running), limit: 100, ..Query::default() };
            let began = tokio::time::Instant::now();
            loop {
                let running = self.store.list(&query).await.expect("the store answers").jobs;
                let leases = running.iter().filter_map(|job| job.state.lease.as_ref());
                if leases.clone().all(|lease| lease.until.since(now) > LEASE / 3) {
                    break;
                }
                assert!(began.elapsed() < CAP, "leases are not extended: {running:?}");
                tick().await;
            }
        }
    }

    /// Lets time pass until a job tells something.
    pub async fn pass_until_told(&self, script: &mut Script) -> String {
        for _ in 0..1000 {
            if let Ok(heard) = script.heard.try_recv() {
                return heard;
            }
            self.pass(EXTEND_EVERY).await;
            tick().await;
        }
        panic!("no job tells anything");
    }

    /// Waits until the job's record satisfies `is`.
    pub async fn until(&self, id: &JobId, what: &str, is: impl Fn(&Record) -> bool) -> Record {
        let watch = self.store.notices().watch(id);
        let reached = async {
            loop {
                let changed = watch.changed();
                let job = self.store.get(id).await.expect("the store answers").expect("the job is there");
                if is(&job) {
                    return job;
                }
                // Not every change is a change of status.
                drop(tokio::time::timeout(Duration::from_millis(20), changed).await); // bounded poll
            }
        };
        if let Ok(job) = tokio::time::timeout(CAP, reached).await {
            return job;
        }
        panic!("job {id} never became {what}: {}", self.store.dump().await.expect("the store answers"))
    }

    /// Waits until the job has this status.
    pub async fn until_status(&self, id: &JobId, status: Status) -> Record {
        self.until(id, status.as_str(), |job| job.state.status == status).await
    }

    /// Waits until the job is final.
    pub async fn until_final(&self, id: &JobId) -> Record {
        self.until(id, "final", |job| job.state.status.is_final()).await
    }

    /// Waits until the numbers of the pool satisfy `are`.
    pub async fn until_stats(&self, what: &str, are: impl Fn(&PoolStats) -> bool) -> PoolStats {
        eventually(what, || {
            let stats = self.service.stats().expect("there is a pool");
            if are(&stats) { Ok(stats) } else { Err(format!("{stats:?}")) }
        })
        .await
    }

    /// Ends the service and checks that the store is sound.
    pub async fn end(self) {
        let shutdown = tokio::time::timeout(CAP, self.service.shutdown());
        assert!(shutdown.await.is_ok(), "the service does not end");
        let found = self.store.audit().await.expect("the store answers");
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Waits until `look` finds what it looks for.
pub async fn eventually<T>(what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(began.elapsed() < CAP, "never {what}: {seen}"),
        }
        tick().await;
    }
}

/// The pause of a bounded poll.
#[expect(clippy::disallowed_methods, reason = "the one pause of bounded polls")]
pub async fn tick() {
    tokio::time::sleep(Duration::from_millis(2)).await; // bounded poll
}

/// What a job under test tells, and what lets it go on.
pub struct Stage {
    told: mpsc::UnboundedSender<String>,
    go: watch::Sender<bool>,
}

/// The test's end of a [`Stage`].
pub struct Script {
    pub heard: mpsc::UnboundedReceiver<String>,
    go: watch::Sender<bool>,
}

/// A stage for jobs to tell on, with its script.
pub fn stage() -> (Arc<Stage>, Script) {
    let (told, heard) = mpsc::unbounded_channel();
    let go = watch::Sender::new(false);
    (Arc::new(Stage { told, go: go.clone() }), Script { heard, go })
}

impl Stage {
    /// Tells the test something.
    pub fn tell(&self, what: impl Into<String>) {
        self.told.send(what.into()).ok();
    }

    /// Waits until the test lets the jobs go.
    pub async fn wait(&self) {
        let mut go = self.go.subscribe();
        go.wait_for(|go| *go).await.expect("the stage lives");
    }

    /// Whether the test let the jobs go.
    pub fn may_go(&self) -> bool {
        *self.go.borrow()
    }
}

impl Script {
    /// Waits for the next thing that a job tells.
    pub async fn next(&mut self) -> String {
        let next = tokio::time::timeout(CAP, self.heard.recv()).await;
        next.expect("a job tells something").expect("the stage lives")
    }

    /// Lets all jobs go on.
    pub fn go(&self) {
        self.go.send_replace(true);
    }
}

/// Counts itself; does nothing else.
#[derive(Serialize, Deserialize)]
pub struct Noop {
    pub n: usize,
}

impl Job for Noop {
    const NAME: &'static str = "noop";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        if let Some(stage) = ctx.state::<Arc<Stage>>() {
            stage.tell(format!("noop {} attempt {}", self.n, ctx.attempt()));
        }
        Ok(())
    }
}

/// Tells that it began, then waits until the test lets it go or it is interrupted.
#[derive(Serialize, Deserialize)]
pub struct Wait {}

impl Job for Wait {
    const NAME: &'static str = "wait";
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
        stage.tell(format!("began {}", ctx.attempt()));
        tokio::select! {
            () = stage.wait() => Ok(()),
            why = ctx.signalled() => {
                stage.tell(format!("{why:?} {:?}", ctx.op_command()));
                Err(Failure::interrupted())
            }
        }
    }
}

/// As [`Wait`], but hears no signal. At its `await` it can be dropped.
#[derive(Serialize, Deserialize)]
pub struct Deaf {}

impl Job for Deaf {
    const NAME: &'static str = "deaf";
    const MAX_FAILS: u32 = 1;
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
        let dropped = TellDrop(Arc::clone(stage));
        stage.tell(format!("began {}", ctx.attempt()));
        stage.wait().await;
        stage.tell("went on");
        std::mem::forget(dropped);
        Ok(())
    }
}

struct TellDrop(Arc<Stage>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.tell("dropped");
    }
}

/// Blocks its thread until the test lets it go; neither yields nor listens.
#[derive(Serialize, Deserialize)]
pub struct Spin {}

impl Job for Spin {
    const NAME: &'static str = "spin";
    const MAX_FAILS: u32 = 1;
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        spin(&ctx)
    }
}

/// As [`Spin`], on a thread of its own.
#[derive(Serialize, Deserialize)]
pub struct SpinBlocking {}

impl BlockingJob for SpinBlocking {
    const NAME: &'static str = "spin-blocking";
    const MAX_FAILS: u32 = 1;
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));

    fn run(self, ctx: Context) -> Result<(), Failure> {
        spin(&ctx)
    }
}

fn spin(ctx: &Context) -> Result<(), Failure> {
    let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
    stage.tell(format!("began {}", ctx.attempt()));
    while !stage.may_go() {
        std::thread::yield_now();
    }
    stage.tell("went on");
    Ok(())
}

/// Looks for a command now and then, on a thread of its own.
#[derive(Serialize, Deserialize)]
pub struct Polite {}

impl BlockingJob for Polite {
    const NAME: &'static str = "polite";

    fn run(self, ctx: Context) -> Result<(), Failure> {
        let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
        ctx.check_in_blocking("looking")?;
        stage.tell("began");
        loop {
            if let Some(command) = ctx.op_command() {
                stage.tell(format!("{command:?}"));
            }
            ctx.check_interrupt()?;
            std::thread::yield_now();
        }
    }
}
