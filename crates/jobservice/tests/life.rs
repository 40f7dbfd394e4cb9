//! The life of a job in a service: success, failure, panic, retry, snooze.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test speaks")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Noop, Stage, stage};
use jobservice::core::job::{AttemptOutcome, Status};
use jobservice::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Add {
    a: i64,
    b: i64,
}

impl Job for Add {
    const NAME: &'static str = "add";
    const PRIORITY: u8 = 3;

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        ctx.check_in("adding").await?;
        ctx.set_result(&(self.a + self.b))
    }
}

/// Fails as often as it is told to.
#[derive(Serialize, Deserialize)]
struct Flaky {
    fails: u32,
    how: String,
}

impl Job for Flaky {
    const NAME: &'static str = "flaky";
    const MAX_FAILS: u32 = 3;

    fn should_retry(&self, failure: &Failure) -> bool {
        failure.is_retryable() && self.how != "hopeless"
    }

    fn backoff(fails: u32) -> Option<Duration> {
        Some(Duration::from_secs(100 * u64::from(fails)))
    }

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        if ctx.fails() >= self.fails {
            return Ok(());
        }
        match self.how.as_str() {
            "permanent" => Err(Failure::permanent("it can never be")),
            "panic" => panic!("went wrong with {}", self.how),
            "snooze" if ctx.attempt() == 1 => Err(Failure::snooze(50.seconds())),
            "snooze" => Ok(()),
            "stopped" => Err(Failure::stopped()),
            "cancelled" => Err(Failure::cancelled()),
            how => Err(format!("{how} of fail {}", ctx.fails() + 1))?,
        }
    }
}

impl Flaky {
    fn new(fails: u32, how: &str) -> Flaky {
        Flaky { fails, how: how.to_owned() }
    }
}

async fn bench() -> Bench {
    Bench::start(|builder| builder.register::<Add>().register::<Flaky>().register::<Noop>()).await
}

#[tokio::test]
async fn job_runs_to_success_and_its_check_in_and_result_are_kept() {
    let t = bench().await;

    let submitted = t.service.submit(Add { a: 2, b: 3 }).await.unwrap();
    let job = t.until_final(submitted.id()).await;

    assert_eq!(job.state.status, Status::Success);
    assert_eq!(job.state.result.as_deref(), Some("5"));
    assert_eq!(job.state.check_in.as_ref().map(|check_in| &*check_in.message), Some("adding"));
    assert_eq!((job.state.attempt, job.spec.priority, &*job.spec.parameters), (1, 3, r#"{"a":2,"b":3}"#));
    t.end().await;
}

#[tokio::test]
async fn failed_job_runs_again_after_the_backoff_of_its_code() {
    let t = bench().await;

    let submitted = t.service.submit(Flaky::new(1, "hiccup")).await.unwrap();
    let job = t.until_status(submitted.id(), Status::Scheduled).await;
    assert_eq!(job.state.error.as_deref(), Some("hiccup of fail 1"));
    assert_eq!(job.state.run_at.map(|at| at.since(job.state.updated_at)), Some(Duration::from_secs(100)));
    t.clock.advance(Duration::from_secs(100));
    let job = t.until_final(submitted.id()).await;

    assert_eq!((job.state.status, job.state.attempt, job.state.fails), (Status::Success, 2, 1));
    t.end().await;
}

#[tokio::test]
async fn job_is_dead_after_as_many_failures_as_its_code_allows() {
    let t = bench().await;

    let submitted = t.service.submit(Flaky::new(9, "trouble")).await.unwrap();
    for fails in 1..3 {
        t.until(submitted.id(), "failed", |job| job.state.fails == fails).await;
        t.clock.advance(Duration::from_secs(300));
    }
    let job = t.until_final(submitted.id()).await;

    assert_eq!((job.state.status, job.state.fails), (Status::Error, 3));
    assert_eq!(job.state.error.as_deref(), Some("trouble of fail 3"));
    t.end().await;
}

#[tokio::test]
async fn code_decides_how_a_job_ends() {
    let t = bench().await;
    let cases = [
        ("permanent", Status::Error, AttemptOutcome::Failed, 1),
        ("hopeless", Status::Error, AttemptOutcome::Failed, 1),
        ("panic", Status::Scheduled, AttemptOutcome::Failed, 1),
        ("snooze", Status::Scheduled, AttemptOutcome::Snoozed, 0),
        ("stopped", Status::Stopped, AttemptOutcome::Stopped, 0),
        ("cancelled", Status::Cancelled, AttemptOutcome::Cancelled, 0),
    ];
    for (how, status, outcome, fails) in cases {
        let submitted = t.service.submit(Flaky::new(1, how)).await.unwrap();
        let job = t.until(submitted.id(), "ended", |job| !job.state.attempts.is_empty()).await;
        let attempt = job.state.attempts.last().unwrap();
        assert_eq!((job.state.status, attempt.outcome, job.state.fails), (status, outcome, fails), "{how}");
    }
    t.end().await;
}

#[tokio::test]
async fn panic_is_a_failure_that_tells_where_it_happened() {
    let t = bench().await;

    let submitted = t.service.submit(Flaky::new(1, "panic")).await.unwrap();
    let job = t.until_status(submitted.id(), Status::Scheduled).await;

    let error = job.state.error.unwrap();
    assert!(error.starts_with("panicked at ") && error.contains("life.rs"), "{error}");
    assert!(error.ends_with("went wrong with panic"), "{error}");
    t.end().await;
}

#[tokio::test]
async fn snoozed_job_runs_again_when_it_said() {
    let t = bench().await;

    let submitted = t.service.submit(Flaky::new(1, "snooze")).await.unwrap();
    t.until_status(submitted.id(), Status::Scheduled).await;
    t.clock.advance(Duration::from_secs(50));
    let job = t.until_final(submitted.id()).await;

    assert_eq!((job.state.status, job.state.attempt, job.state.fails), (Status::Success, 2, 0));
    t.end().await;
}

#[tokio::test]
async fn delayed_job_runs_when_it_is_due_and_not_before() {
    let t = bench().await;

    let submitted = t.service.submit(Noop { n: 1 }).after(90.seconds()).await.unwrap();
    assert_eq!(submitted.job.state.status, Status::Scheduled);
    t.clock.advance(Duration::from_secs(89));
    let other = t.service.submit(Noop { n: 2 }).await.unwrap();
    t.until_final(other.id()).await;
    t.until_status(submitted.id(), Status::Scheduled).await;
    t.clock.advance(Duration::from_secs(1));

    let job = t.until_final(submitted.id()).await;
    assert_eq!(job.state.started_at, submitted.job.state.run_at);
    t.end().await;
}

#[tokio::test]
async fn middleware_runs_around_each_run_and_may_change_its_end() {
    let (stage, mut script) = stage();
    let (first, second): (Arc<Stage>, Arc<Stage>) = (Arc::clone(&stage), Arc::clone(&stage));
    let t = Bench::start(|builder| {
        builder
            .register::<Flaky>()
            .middleware(move |ctx: Context, next: Next| {
                let stage = Arc::clone(&first);
                async move {
                    stage.tell(format!("outer {}", ctx.name()));
                    let ended = next.run(ctx).await;
                    stage.tell(format!("outer saw {ended:?}"));
                    Err(Failure::permanent("the outer one says no"))
                }
            })
            .middleware(move |ctx: Context, next: Next| {
                second.tell("inner");
                next.run(ctx)
            })
    })
    .await;

    let submitted = t.service.submit(Flaky::new(1, "panic")).await.unwrap();
    let job = t.until_final(submitted.id()).await;

    assert_eq!(job.state.error.as_deref(), Some("the outer one says no"));
    assert_eq!(script.next().await, "outer flaky");
    assert_eq!(script.next().await, "inner");
    let saw = script.next().await;
    assert!(saw.starts_with("outer saw Err(Retryable(\"panicked at "), "{saw}");
    t.end().await;
}

#[tokio::test]
async fn many_jobs_each_run_once() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| builder.with(stage).register::<Noop>().workers(7)).await;

    let mut expected = Vec::new();
    for n in 0..500 {
        t.service.submit(Noop { n }).await.unwrap();
        expected.push(format!("noop {n} attempt 1"));
    }
    let mut heard = Vec::new();
    for _ in 0..500 {
        heard.push(script.next().await);
    }
    heard.sort();
    expected.sort();

    assert_eq!(heard, expected);
    let stats = t.until_stats("idle", |stats| stats.leased == 0).await;
    assert_eq!((stats.claimed, stats.finished, stats.lost, stats.running), (500, 500, 0, 0));
    t.end().await;
}

#[tokio::test]
async fn jobs_fetched_ahead_wait_for_a_slot() {
    let (stage, mut script) = stage();
    let build =
        |builder: jobservice::ServiceBuilder| builder.with(stage).register::<common::Wait>().workers(2).prefetch(3);
    let t = Bench::start(build).await;

    for _ in 0..6 {
        t.service.submit(common::Wait {}).await.unwrap();
    }
    let stats = t.until_stats("full", |stats| stats.running == 2 && stats.waiting == 3).await;
    assert_eq!(stats.leased, 5);
    script.go();

    t.until_stats("through", |stats| stats.finished == 6).await;
    for _ in 0..6 {
        assert_eq!(script.next().await, "began 1");
    }
    t.end().await;
}
