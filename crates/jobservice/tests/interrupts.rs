//! Stop, cancel, timeout and shutdown reach running jobs; those that do not listen are given up.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test speaks")]

mod common;

use std::time::Duration;

use common::{Bench, Deaf, Noop, Polite, Spin, SpinBlocking, Wait, stage};
use jobservice::core::job::{AttemptOutcome, Status};
use jobservice::core::lifecycle;
use jobservice::core::limits::{GRACE, SHUTDOWN_GRACE};
use jobservice::core::store::Controlled;
use jobservice::{Command, ServiceBuilder};

fn jobs(builder: ServiceBuilder) -> ServiceBuilder {
    builder
        .register::<Wait>()
        .register::<Deaf>()
        .register::<Spin>()
        .register::<Noop>()
        .register_blocking::<SpinBlocking>()
        .register_blocking::<Polite>()
}

#[tokio::test]
async fn stop_reaches_a_running_async_job_at_once() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage)).await;
    let submitted = t.service.submit(Wait {}).await.unwrap();
    assert_eq!(script.next().await, "began 1");

    let controlled = t.service.controller().control(submitted.id(), Command::Stop).await.unwrap();

    assert_eq!(controlled, Controlled::Signalled);
    assert_eq!(script.next().await, "Stop Some(Stop)");
    let job = t.until_final(submitted.id()).await;
    assert_eq!((job.state.status, job.state.fails), (Status::Stopped, 0));
    t.end().await;
}

#[tokio::test]
async fn cancel_reaches_a_running_blocking_job_at_once() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage)).await;
    let submitted = t.service.submit_blocking(Polite {}).await.unwrap();
    assert_eq!(script.next().await, "began");

    t.service.controller().control(submitted.id(), Command::Cancel).await.unwrap();

    assert_eq!(script.next().await, "Cancel");
    let job = t.until_final(submitted.id()).await;
    assert_eq!(job.state.status, Status::Cancelled);
    assert_eq!(job.state.check_in.map(|check_in| check_in.message.to_string()).as_deref(), Some("looking"));
    t.end().await;
}

#[tokio::test]
async fn job_that_obeys_its_timeout_has_failed_with_it() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage)).await;
    let submitted = t.service.submit(Wait {}).max_fails(1).await.unwrap();
    assert_eq!(script.next().await, "began 1");

    t.pass(Duration::from_secs(60)).await;

    assert_eq!(script.next().await, "Timeout None");
    let job = t.until_final(submitted.id()).await;
    assert_eq!(job.state.status, Status::Error);
    assert_eq!(job.state.error, Some(lifecycle::timeout_error(Duration::from_secs(60))));
    t.end().await;
}

#[tokio::test]
async fn deaf_async_job_is_dropped_when_the_grace_of_its_timeout_is_over() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage)).await;
    let submitted = t.service.submit(Deaf {}).await.unwrap();
    assert_eq!(script.next().await, "began 1");

    t.pass(Duration::from_secs(60) + GRACE).await;

    assert_eq!(script.next().await, "dropped");
    let job = t.until_final(submitted.id()).await;
    assert_eq!(job.state.status, Status::Error);
    assert_eq!(job.state.error, Some(lifecycle::timeout_error(Duration::from_secs(60))));
    t.until_stats("free", |stats| stats.running == 0 && stats.stuck == 0).await;
    t.end().await;
}

#[tokio::test]
async fn deaf_async_job_that_was_stopped_is_dropped_after_the_grace_and_is_stopped() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage)).await;
    let submitted = t.service.submit(Deaf {}).timeout(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(script.next().await, "began 1");
    t.service.controller().control(submitted.id(), Command::Stop).await.unwrap();
    t.until(submitted.id(), "signalled", |job| job.state.signal.is_some()).await;

    t.pass(GRACE).await;

    let job = t.until_final(submitted.id()).await;
    assert_eq!((job.state.status, job.state.fails), (Status::Stopped, 0));
    // The pool counts from when it heard of the stop, and learns from its next extend what the service did before.
    assert_eq!(t.pass_until_told(&mut script).await, "dropped");
    t.end().await;
}

/// Goal: code that neither yields nor ends costs its thread and nothing else. Method: one worker; its job spins on.
async fn deaf_code_loses_its_slot(blocking: bool) {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage).workers(1)).await;
    let submitted = if blocking {
        t.service.submit_blocking(SpinBlocking {}).await.unwrap()
    } else {
        t.service.submit(Spin {}).await.unwrap()
    };
    assert_eq!(script.next().await, "began 1");

    t.pass(Duration::from_secs(60) + GRACE).await;
    let job = t.until_final(submitted.id()).await;
    assert_eq!(job.state.status, Status::Error);
    // The pool and the reaper notice at the same moment; who is first says how.
    let outcome = job.state.attempts.last().map(|attempt| attempt.outcome);
    assert!(matches!(outcome, Some(AttemptOutcome::Failed | AttemptOutcome::TimedOut)), "{outcome:?}");
    let stats = t.until_stats("stuck", |stats| stats.stuck == 1).await;
    assert!(!stats.is_healthy(), "{stats:?}");

    let noop = t.service.submit(Noop { n: 1 }).await.unwrap();
    t.until_final(noop.id()).await;
    assert_eq!(script.next().await, "noop 1 attempt 1");
    let before = t.store.get(submitted.id()).await.unwrap();
    script.go();
    assert_eq!(script.next().await, "went on");
    t.until_stats("free again", |stats| stats.stuck == 0 && stats.is_healthy()).await;
    assert_eq!(t.store.get(submitted.id()).await.unwrap(), before, "the late end changed the job");
    t.end().await;
}

#[tokio::test]
async fn deaf_async_code_loses_its_slot_and_its_late_end_is_ignored() {
    deaf_code_loses_its_slot(false).await;
}

#[tokio::test]
async fn deaf_blocking_code_loses_its_slot_and_its_late_end_is_ignored() {
    deaf_code_loses_its_slot(true).await;
}

#[tokio::test]
async fn slot_of_a_stuck_job_runs_others_while_it_is_stuck() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage).workers(2)).await;
    let stuck = t.service.submit(Spin {}).await.unwrap();
    assert_eq!(script.next().await, "began 1");
    t.pass(Duration::from_secs(60) + GRACE).await;
    t.until_final(stuck.id()).await;
    t.until_stats("stuck", |stats| stats.stuck == 1).await;

    for _ in 0..2 {
        t.service.submit(Wait {}).await.unwrap();
        assert_eq!(script.next().await, "began 1");
    }

    t.until_stats("both slots in use", |stats| stats.running == 2).await;
    script.go();
    t.until_stats("through", |stats| stats.leased == 0 && stats.stuck == 0).await;
    t.end().await;
}

#[tokio::test]
async fn spinning_job_holds_up_neither_its_neighbours_nor_their_reports() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage).workers(4)).await;
    // Claimed together: they wait for the pool behind a paused name.
    let paused = |paused| jobservice::core::store::OptionsChange { paused: Some(paused), ..Default::default() };
    let name = |name: &str| jobservice::core::Name::new(name).unwrap();
    for name in [name("spin"), name("noop")] {
        t.service.controller().set_options(&name, paused(true)).await.unwrap();
    }
    let spin = t.service.submit(Spin {}).await.unwrap();
    let noops = [
        t.service.submit(Noop { n: 1 }).await.unwrap(),
        t.service.submit(Noop { n: 2 }).await.unwrap(),
        t.service.submit(Noop { n: 3 }).await.unwrap(),
    ];
    for name in [name("spin"), name("noop")] {
        t.service.controller().set_options(&name, paused(false)).await.unwrap();
    }

    for noop in &noops {
        t.until_final(noop.id()).await;
    }

    let spinning = t.until_status(spin.id(), Status::Running).await;
    assert_eq!(spinning.state.attempt, 1);
    script.go();
    t.until_final(spin.id()).await;
    while let Ok(heard) = script.heard.try_recv() {
        assert!(["began 1", "went on"].contains(&&*heard) || heard.starts_with("noop"), "{heard}");
    }
    t.end().await;
}

#[tokio::test]
async fn shutdown_gives_back_what_does_not_end_and_counts_nothing() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage)).await;
    let (polite, deaf) = (t.service.submit(Wait {}).await.unwrap(), t.service.submit(Deaf {}).await.unwrap());
    assert_eq!((script.next().await.as_str(), script.next().await.as_str()), ("began 1", "began 1"));

    tokio::join!(t.service.shutdown(), async {
        assert_eq!(script.next().await, "Shutdown None");
        t.pass(SHUTDOWN_GRACE).await;
    });

    for submitted in [polite, deaf] {
        let job = t.store.get(submitted.id()).await.unwrap().unwrap();
        assert_eq!((job.state.status, job.state.attempt), (Status::Pending, 1));
        assert_eq!((job.state.fails, job.state.crashes, job.state.releases), (0, 0, 1));
    }
    assert_eq!(script.next().await, "dropped");
    t.end().await;
}

#[tokio::test]
async fn stop_of_a_job_that_is_fetched_ahead_ends_it_before_it_begins() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| jobs(builder).with(stage).workers(1).prefetch(1)).await;
    t.service.submit(Wait {}).await.unwrap();
    assert_eq!(script.next().await, "began 1");
    let waiting = t.service.submit(Wait {}).await.unwrap();
    t.until_stats("fetched ahead", |stats| stats.waiting == 1).await;

    t.service.controller().control(waiting.id(), Command::Stop).await.unwrap();

    let job = t.until_final(waiting.id()).await;
    assert_eq!((job.state.status, job.state.attempt), (Status::Stopped, 1));
    script.go();
    t.until_stats("through", |stats| stats.leased == 0).await;
    assert!(script.heard.try_recv().is_err(), "the stopped job began");
    t.end().await;
}
