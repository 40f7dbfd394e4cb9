//! Unique jobs however they come about: at once, after a delay, by a schedule, by a retry. At most one holds its key, who
//! is refused learns which, and the key is free when the holder is final (or has started, in that scope).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, CAP, Noop, Wait, stage, tick};
use jobservice::core::job::Status;
use jobservice::core::store::{Controlled, ExecutionsQuery};
use jobservice::core::unique::Scope;
use jobservice::core::{Clock as _, JobId};
use jobservice::prelude::*;
use jobservice::{Command, Submit, Submitted};
use serde::{Deserialize, Serialize};

/// Fails for good.
#[derive(Serialize, Deserialize)]
struct Broken {}

impl Job for Broken {
    const NAME: &'static str = "broken";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Err(Failure::permanent("broken"))
    }
}

/// Nothing runs: what waits goes on waiting.
async fn idle() -> Bench {
    Bench::start(|builder| builder.register::<Noop>().register::<Broken>().workers(0)).await
}

fn unique(bench: &Bench) -> Submit {
    bench.service.submit(Noop { n: 1 }).unique()
}

fn holder(refused: Result<Submitted, SubmitError>) -> JobId {
    match refused {
        Err(SubmitError::Duplicate { holder }) => holder,
        other => panic!("it is refused as a duplicate: {other:?}"),
    }
}

/// The executions of a policy, newest first, and how many of its ticks were passed over, once it has met this many.
async fn after_ticks(bench: &Bench, policy: &JobId, ticks: u64) -> (Vec<JobId>, u64) {
    let began = tokio::time::Instant::now();
    loop {
        let state = bench.service.controller().policy(policy).await.unwrap().unwrap().state;
        if state.fired + state.skipped >= ticks {
            let query = ExecutionsQuery { upstream: policy.clone(), live: false, offset: 0, limit: 100 };
            let executions = bench.service.controller().executions(&query).await.unwrap().jobs;
            return (executions.into_iter().map(|job| job.id).collect(), state.skipped);
        }
        assert!(began.elapsed() < CAP, "never {ticks} ticks: {state:?}");
        tick().await;
    }
}

#[tokio::test]
async fn each_way_in_is_refused_while_another_holds_the_key() {
    for after in [None, Some(Duration::from_secs(600))] {
        let bench = idle().await;
        let with_delay = |submit: Submit| match after {
            None => submit,
            Some(after) => submit.after(after),
        };
        let first = with_delay(unique(&bench)).await.unwrap();

        assert_eq!(holder(unique(&bench).await), *first.id());
        assert_eq!(holder(unique(&bench).after(Duration::from_secs(60)).await), *first.id());
        let policy = unique(&bench).cron("@every 10s").await.unwrap();
        bench.clock.advance(Duration::from_secs(10));
        assert_eq!(after_ticks(&bench, policy.id(), 1).await, (Vec::new(), 1), "a tick is passed over");
        let policy = bench.service.controller().schedule(policy.id().as_str()).await.unwrap().unwrap();
        assert_eq!(holder(bench.service.controller().run_now(&policy).await), *first.id());
        let other = bench.service.submit(Noop { n: 2 }).unique().await;
        assert!(other.is_ok(), "other parameters are another job");

        bench.service.controller().control(first.id(), Command::Cancel).await.unwrap();
        let second = unique(&bench).await.unwrap();
        let refused = bench.service.controller().control(first.id(), Command::Retry).await.unwrap();
        assert_eq!(refused, Controlled::Duplicate(second.id().clone()), "a retry is refused like a submit");

        bench.service.controller().control(second.id(), Command::Stop).await.unwrap();
        let retried = bench.service.controller().control(first.id(), Command::Retry).await.unwrap();
        assert_eq!(retried, Controlled::Done(Status::Pending));
        assert_eq!(holder(unique(&bench).await), *first.id(), "who is retried holds it again");
        bench.end().await;
    }
}

#[tokio::test]
async fn an_execution_holds_the_key_like_any_job() {
    for own_key in [false, true] {
        let bench = idle().await;
        let keyed = |submit: Submit| if own_key { submit.unique_key("k") } else { submit.unique() };
        let submit = || keyed(bench.service.submit(Noop { n: 1 }));
        let policy = submit().cron("@every 10s").await.unwrap();
        bench.clock.advance(Duration::from_secs(10));
        let (executions, _) = after_ticks(&bench, policy.id(), 1).await;

        assert_eq!(holder(submit().await), executions[0]);
        bench.clock.advance(Duration::from_secs(10));
        assert_eq!(after_ticks(&bench, policy.id(), 2).await, (executions.clone(), 1));
        bench.service.controller().control(&executions[0], Command::Stop).await.unwrap();
        bench.clock.advance(Duration::from_secs(10));
        let (executions, skipped) = after_ticks(&bench, policy.id(), 3).await;
        assert_eq!((executions.len(), skipped), (2, 1));
        bench.service.controller().control(policy.id(), Command::Stop).await.unwrap();
        assert!(submit().await.is_ok(), "a schedule that ends gives the key of its executions back");
        bench.end().await;
    }
}

#[tokio::test]
async fn the_key_is_free_once_the_holder_has_ended_however_it_ends() {
    let bench = Bench::start(|builder| builder.register::<Noop>().register::<Broken>()).await;
    let done = unique(&bench).await.unwrap();
    bench.until_status(done.id(), Status::Success).await;
    let again = unique(&bench).await.unwrap();
    bench.until_status(again.id(), Status::Success).await;

    let broken = || bench.service.submit(Broken {}).unique();
    let dead = broken().await.unwrap();
    bench.until_status(dead.id(), Status::Error).await;
    let later = broken().after(Duration::from_secs(60)).await.unwrap();
    let refused = bench.service.controller().control(dead.id(), Command::Retry).await.unwrap();
    assert_eq!(refused, Controlled::Duplicate(later.id().clone()));
    bench.end().await;
}

#[tokio::test]
async fn in_the_scope_until_start_one_may_wait_while_another_runs() {
    let (on_stage, mut script) = stage();
    let bench = Bench::start(|builder| builder.register::<Wait>().with(Arc::clone(&on_stage)).workers(1)).await;
    let submit = || bench.service.submit(Wait {}).unique_until(Scope::UntilStart);
    let policy = submit().cron("@every 10s").await.unwrap();
    bench.pass(Duration::from_secs(10)).await;
    assert_eq!(script.next().await, "began 1");

    let waits = submit().await.unwrap();
    assert_eq!(holder(submit().await), *waits.id());
    assert_eq!(holder(submit().after(Duration::from_secs(60)).await), *waits.id());
    bench.pass(Duration::from_secs(10)).await;
    assert_eq!(after_ticks(&bench, policy.id(), 2).await.1, 1, "the next tick is passed over, for one waits already");

    bench.service.controller().control(policy.id(), Command::Cancel).await.unwrap();
    script.go();
    bench.until_final(waits.id()).await;
    assert!(bench.clock.now() > bench.until_final(waits.id()).await.spec.enqueued_at);
    bench.end().await;
}
