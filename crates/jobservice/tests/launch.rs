//! Sub jobs: launched by a run, tracked as executions of its job.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Stage, stage};
use jobservice::Submission;
use jobservice::core::job::Status;
use jobservice::core::store::{ExecutionsQuery, Query};
use jobservice::core::{Clock as _, Store};
use jobservice::prelude::*;
use jobservice::testing::MemoryStore;
use jobservice_conformance::faulty::{Faulty, Rates};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Part {
    n: u32,
}

impl Job for Part {
    const NAME: &'static str = "part";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Launches its parts, fails its first run, and launches them again.
#[derive(Serialize, Deserialize)]
struct Whole {
    parts: u32,
}

impl Job for Whole {
    const NAME: &'static str = "whole";

    fn backoff(_fails: u32) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        for n in 0..self.parts {
            ctx.launch(Part { n }).idempotency_key(format!("{}-{n}", ctx.id())).await?;
        }
        if ctx.attempt() == 1 { Err("once more".into()) } else { Ok(()) }
    }
}

/// Launches one of its own name, as often as it is told.
#[derive(Serialize, Deserialize)]
struct Chain {
    left: u32,
    allowed: bool,
}

impl Job for Chain {
    const NAME: &'static str = "chain";
    const MAX_FAILS: u32 = 1;

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        if self.left == 0 {
            return Ok(());
        }
        let launch = ctx.launch(Chain { left: self.left - 1, allowed: self.allowed });
        if self.allowed {
            launch.allow_own_name().await?
        } else {
            launch.await?
        };
        Ok(())
    }
}

/// Waits until the test lets it go, and launches then.
#[derive(Serialize, Deserialize)]
struct Late {}

impl Job for Late {
    const NAME: &'static str = "late";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
        stage.tell(format!("began {}", ctx.attempt()));
        if ctx.attempt() > 1 {
            return Ok(());
        }
        stage.wait().await;
        let launched = ctx.launch(Part { n: 0 }).await;
        stage.tell(format!("{:?}", launched.map(|launched| launched.job.id)));
        Err(Failure::interrupted())
    }
}

/// Launches from a thread of its own, by name.
#[derive(Serialize, Deserialize)]
struct Blocking {}

impl BlockingJob for Blocking {
    const NAME: &'static str = "blocking";

    fn run(self, ctx: Context) -> Result<(), Failure> {
        let mut part = Submission::new("part");
        part.parameters = Some(serde_json::value::to_raw_value(&Part { n: 1 })?);
        let launched = ctx.launch_by_name(part).blocking()?;
        ctx.set_result(&launched.job.id.as_str())
    }
}

#[tokio::test]
async fn sub_jobs_are_executions_of_their_caller_each_once_over_its_retries() {
    let bench = Bench::start(|builder| builder.register::<Whole>().register::<Part>()).await;
    let whole = bench.service.submit(Whole { parts: 3 }).await.unwrap();
    bench.until(whole.id(), "retrying", |job| job.state.fails == 1).await;
    bench.clock.advance(Duration::from_secs(60));
    bench.until_status(whole.id(), Status::Success).await;

    let query = ExecutionsQuery { upstream: whole.id().clone(), live: false, offset: 0, limit: 10 };
    let parts = bench.service.controller().executions(&query).await.unwrap();

    assert_eq!(parts.total, 3);
    for part in parts.jobs {
        bench.until_status(&part.id, Status::Success).await;
        assert_eq!((part.spec.name.as_str(), part.spec.upstream.as_ref()), ("part", Some(whole.id())));
    }
    assert_eq!(bench.service.controller().have_executions(&[whole.id().clone()]).await.unwrap(), [true]);
    bench.end().await;
}

#[tokio::test]
async fn launching_ones_own_name_is_refused_unless_it_is_allowed() {
    let bench = Bench::start(jobservice::ServiceBuilder::register::<Chain>).await;

    let refused = bench.service.submit(Chain { left: 3, allowed: false }).await.unwrap();
    let refused = bench.until_final(refused.id()).await;
    let allowed = bench.service.submit(Chain { left: 3, allowed: true }).await.unwrap();
    let mut chain = vec![bench.until_final(allowed.id()).await];
    for _ in 0..3 {
        let query = Query { upstream: Some(chain.last().unwrap().id.clone()), limit: 10, ..Query::default() };
        let next = bench.store.list(&query).await.unwrap().jobs.pop().unwrap();
        chain.push(bench.until_final(&next.id).await);
    }

    assert_eq!(refused.state.status, Status::Error);
    assert!(refused.state.error.unwrap().contains("launches another of its name"));
    assert!(chain.iter().all(|job| job.state.status == Status::Success));
    bench.end().await;
}

#[tokio::test]
async fn a_run_that_lost_its_lease_launches_nothing() {
    let (on_stage, mut script) = stage();
    let store = Arc::new(Faulty::new(Arc::new(MemoryStore::new()), Rates::default(), 1));
    let bench = Bench::on(Arc::clone(&store) as Arc<dyn Store>, Arc::default(), |builder| {
        builder.register::<Late>().register::<Part>().with(on_stage)
    })
    .await;
    let late = bench.service.submit(Late {}).await.unwrap();
    assert_eq!(script.next().await, "began 1");

    // An extend would tell the first run before it could try.
    store.set_rates_of("extend", Rates { lost: 0, refused: 100, delayed: 0 });
    // Far beyond its lease in one step: it is reaped and runs again, while the first run does not know yet.
    bench.clock.advance(Duration::from_secs(3600));
    bench.store.reap(10, 0, bench.clock.now()).await.unwrap();
    script.go();
    let mut heard = vec![script.next().await, script.next().await];
    heard.sort();

    assert_eq!(heard, ["Err(LeaseLost)", "began 2"]);
    store.set_rates(Rates::default());
    bench.until_status(late.id(), Status::Success).await;
    let query = Query { upstream: Some(late.id().clone()), limit: 10, ..Query::default() };
    assert_eq!(bench.store.list(&query).await.unwrap().jobs, []);
    bench.end().await;
}

#[tokio::test]
async fn a_blocking_job_launches_by_name() {
    let bench = Bench::start(|builder| builder.register_blocking::<Blocking>().register::<Part>()).await;

    let caller = bench.service.submit_blocking(Blocking {}).await.unwrap();
    let caller = bench.until_status(caller.id(), Status::Success).await;

    let part: String = serde_json::from_str(caller.state.result.as_deref().unwrap()).unwrap();
    let part = bench.until_status(&part.parse().unwrap(), Status::Success).await;
    assert_eq!(part.spec.upstream, Some(caller.id));
    bench.end().await;
}
