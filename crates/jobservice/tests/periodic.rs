//! Periodic jobs through a whole service: every tick once, whatever happens to the nodes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, CAP, Noop, Wait, stage, tick};
use jobservice::core::job::{Kind, Status};
use jobservice::core::policy::Policy;
use jobservice::core::store::{Controlled, Deleted, ExecutionsQuery, PolicyQuery, Query};
use jobservice::core::{Clock, JobId, ManualClock, Store, Time, cron::Schedule};
use jobservice::prelude::*;
use jobservice::testing::MemoryStore;
use jobservice::{Command, Put};
use jobservice_sqlite::{Options, SqliteStore};

/// Waits until the policy satisfies `is`.
async fn until_policy(store: &Arc<dyn Store>, id: &JobId, what: &str, is: impl Fn(&Policy) -> bool) -> Policy {
    let began = tokio::time::Instant::now();
    loop {
        let query = PolicyQuery { id: Some(id.clone()), limit: 1, ..PolicyQuery::default() };
        let policy = store.policies(&query).await.unwrap().pop().expect("the policy is there");
        if is(&policy) {
            return policy;
        }
        assert!(began.elapsed() < CAP, "never {what}: {policy:?}");
        tick().await;
    }
}

/// The due times of all executions, in order, and how often each came.
async fn ticks(store: &Arc<dyn Store>, policy: &JobId) -> BTreeMap<Time, usize> {
    let mut ticks = BTreeMap::new();
    let mut query = Query { upstream: Some(policy.clone()), limit: 1000, ..Query::default() };
    loop {
        let page = store.list(&query).await.unwrap();
        for job in page.jobs {
            *ticks.entry(job.state.run_at.expect("an execution has its tick's time")).or_insert(0) += 1;
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return ticks,
        }
    }
}

fn random(below: u64) -> u64 {
    getrandom::u64().unwrap() % below
}

/// Goal: under `misfire: all` no tick is missed and none doubled, whatever restarts. Method: two hundred ticks over a
/// virtual day on SQLite, the clock moved in steps at random; between them the service is ended or dropped, down for some
/// ticks, and started again. Then the ticks are compared with those of the schedule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_ticks_with_restarts_are_neither_missed_nor_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let clock = Arc::new(ManualClock::default());
    let start = clock.now();
    let open = || -> Arc<dyn Store> { Arc::new(SqliteStore::open(&path, Options::default()).unwrap()) };
    // Without workers: a run that is lost with its service is due again later, and would hide the time of its tick.
    let build = |builder: jobservice::ServiceBuilder| builder.register::<Noop>().workers(0);
    let mut bench = Bench::on(open(), Arc::clone(&clock), build).await;
    let text = "@every 432s";
    let submitted =
        bench.service.submit(Noop { n: 0 }).cron(text).misfire(Misfire::All).schedule_key("day").await.unwrap();
    let id = submitted.id().clone();

    let end = start + Duration::from_secs(200 * 432);
    let (mut restarts, mut dropped) = (0, 0);
    while clock.now() < end {
        // Up to six ticks at once, so that several are due together now and then.
        let step = Duration::from_secs(30 + random(6 * 432)).min(end.since(clock.now()));
        let is_down = random(3) == 0;
        if is_down {
            restarts += 1;
            if random(2) == 0 {
                bench.service.shutdown().await;
            } else {
                dropped += 1;
            }
            let Bench { service, store, .. } = bench;
            drop(service);
            let store = tokio::task::spawn_blocking(move || drop(store));
            store.await.unwrap();
            clock.advance(step);
            bench = Bench::on(reopen(&open).await, Arc::clone(&clock), build).await;
        } else {
            clock.advance(step);
        }
        // Now and then the next restart comes while the ticks are being fired.
        if random(3) > 0 {
            let now = clock.now();
            until_policy(&bench.store, &id, "fired", |policy| policy.state.next_due.is_some_and(|due| due > now)).await;
        }
    }
    let policy = until_policy(&bench.store, &id, "fired", |policy| policy.state.next_due > Some(end)).await;

    println!("{restarts} restarts, {dropped} of them without a shutdown");
    let schedule = Schedule::parse(text, "").unwrap();
    let expected: BTreeMap<Time, usize> =
        schedule.upcoming(start).take_while(|at| *at <= end).map(|at| (at, 1)).collect();
    assert_eq!(expected.len(), 200);
    let found = ticks(&bench.store, &id).await;
    let missed: Vec<_> = expected.keys().filter(|at| !found.contains_key(at)).collect();
    let beside: Vec<_> = found.iter().filter(|(at, times)| expected.get(at) != Some(times)).collect();
    assert!(missed.is_empty() && beside.is_empty(), "missed {missed:?}, doubled or out of turn {beside:?}");
    assert_eq!((policy.state.fired, policy.state.skipped), (200, 0));
    bench.end().await;
}

/// The file of a service that was dropped is free when its threads have ended.
async fn reopen(open: &impl Fn() -> Arc<dyn Store>) -> Arc<dyn Store> {
    let began = tokio::time::Instant::now();
    loop {
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open));
        match opened {
            Ok(store) => return store,
            Err(_) => assert!(began.elapsed() < CAP, "the store is never free"),
        }
        tick().await;
    }
}

#[tokio::test]
async fn a_tick_fires_once_on_any_number_of_nodes() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(
            Bench::on(Arc::clone(&store), Arc::clone(&clock), jobservice::ServiceBuilder::register::<Noop>).await,
        );
    }
    let id = nodes[0].service.submit(Noop { n: 0 }).cron("* * * * * *").await.unwrap().id().clone();

    for second in 1..=50 {
        let now = clock.advance(Duration::from_secs(1));
        let state = until_policy(&store, &id, "fired", |policy| policy.state.next_due > Some(now)).await.state;
        assert_eq!((state.fired, state.skipped), (second, 0));
    }

    let ticks = ticks(&store, &id).await;
    assert_eq!((ticks.len(), ticks.values().max()), (50, Some(&1)));
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn a_policy_looks_like_a_periodic_job_with_executions() {
    let bench = Bench::start(jobservice::ServiceBuilder::register::<Noop>).await;
    let controller = bench.service.controller();
    let submitted = bench
        .service
        .submit(Noop { n: 7 })
        .cron("0 0 3 * * *")
        .timezone("Europe/Berlin")
        .priority(4)
        .tag("nightly")
        .await
        .unwrap();
    let id = submitted.id().clone();
    assert_eq!(submitted.policy.as_ref().unwrap().put, Put::Created);

    let job = controller.get(&id).await.unwrap().unwrap();
    assert_eq!(
        (job.spec.kind, job.state.status, job.state.run_at),
        (Kind::Periodic, Status::Scheduled, submitted.job.state.run_at)
    );
    let due = job.state.run_at.unwrap();
    bench.clock.advance(due.since(bench.clock.now()));
    let after = bench.clock.now();
    until_policy(&bench.store, &id, "fired", |policy| policy.state.next_due > Some(after)).await;

    let query = ExecutionsQuery { upstream: id.clone(), live: false, offset: 0, limit: 10 };
    let executions = controller.executions(&query).await.unwrap();
    assert_eq!(executions.total, 1);
    let execution = bench.until_final(&executions.jobs[0].id).await;
    assert_eq!((execution.spec.kind, execution.spec.upstream.as_ref()), (Kind::Scheduled, Some(&id)));
    assert_eq!(
        (execution.spec.priority, &*execution.spec.parameters, execution.state.run_at),
        (4, r#"{"n":7}"#, Some(due))
    );
    assert_eq!(execution.spec.tags, [std::sync::Arc::<str>::from("nightly")]);

    assert!(matches!(controller.control(&id, Command::Retry).await.unwrap(), Controlled::Refused(_)));
    assert_eq!(controller.control(&id, Command::Cancel).await.unwrap(), Controlled::Done(Status::Cancelled));
    assert_eq!(controller.get(&id).await.unwrap().unwrap().state.status, Status::Cancelled);
    assert_eq!(controller.control(&id, Command::Retry).await.unwrap(), Controlled::Done(Status::Scheduled));
    let again = controller.get(&id).await.unwrap().unwrap();
    assert!(again.state.run_at > Some(bench.clock.now()), "active again from now on");
    assert_eq!(controller.delete(&id).await.unwrap(), Deleted::Refused(Status::Scheduled));
    controller.control(&id, Command::Stop).await.unwrap();
    assert_eq!(controller.delete(&id).await.unwrap(), Deleted::Gone);
    assert_eq!(controller.get(&id).await.unwrap(), None);
    bench.end().await;
}

#[tokio::test]
async fn the_same_schedule_key_updates_and_says_what_it_did() {
    let bench = Bench::start(jobservice::ServiceBuilder::register::<Noop>).await;
    let put = |n, cron: &str| bench.service.submit(Noop { n }).cron(cron).schedule_key("nightly");
    let first = put(1, "0 0 3 * * *").await.unwrap();
    let same = put(1, "0 0 3 * * *").await.unwrap();
    let changed = put(2, "0 0 4 * * *").await.unwrap();

    let puts = [&first, &same, &changed].map(|submitted| submitted.policy.as_ref().unwrap().put);
    assert_eq!(puts, [Put::Created, Put::Unchanged, Put::Updated]);
    assert!(first.id() == same.id() && first.id() == changed.id());
    assert_eq!(&*changed.job.spec.parameters, r#"{"n":2}"#);
    assert_eq!(changed.job.state.run_at, first.job.state.run_at.map(|at| at + Duration::from_secs(3600)));
    bench.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_named() {
    let bench = Bench::start(jobservice::ServiceBuilder::register::<Noop>).await;
    let submit = || bench.service.submit(Noop { n: 0 });
    let wrong = [
        (submit().cron("0 0 33 * * *"), "metadata.cron_spec"),
        (submit().cron("0 0 3 30 2 *"), "metadata.cron_spec"),
        (submit().cron("0 0 3 * * *").timezone("Mars/Phobos"), "metadata.timezone"),
        (submit().timezone("UTC"), "metadata.timezone"),
        (submit().schedule_key("k"), "metadata.schedule_key"),
        (submit().cron("@daily").schedule_key(""), "metadata.schedule_key"),
        (submit().cron("@daily").idempotency_key("k"), "metadata.idempotency_key"),
    ];
    for (submit, field) in wrong {
        let error = submit.await.unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
    bench.end().await;
}

#[tokio::test]
async fn overlap_queue_fires_when_the_execution_before_has_ended() {
    let (on_stage, mut script) = stage();
    let bench = Bench::start(|builder| builder.register::<Wait>().with(on_stage)).await;
    let id = bench.service.submit(Wait {}).cron("@every 10s").overlap(Overlap::Queue).await.unwrap().id().clone();
    bench.pass(Duration::from_secs(10)).await;
    assert_eq!(script.next().await, "began 1");
    bench.pass(Duration::from_secs(11)).await;
    assert_eq!(until_policy(&bench.store, &id, "due", |_| true).await.state.fired, 1);

    script.go();

    assert_eq!(script.next().await, "began 1", "its tick waited and then fired");
    assert_eq!(until_policy(&bench.store, &id, "fired", |policy| policy.state.fired == 2).await.state.skipped, 0);
    bench.end().await;
}

#[tokio::test]
async fn a_policy_that_cannot_fire_says_why_and_holds_up_no_other() {
    let bench = Bench::start(jobservice::ServiceBuilder::register::<Noop>).await;
    let submitted = bench.service.submit(Noop { n: 0 }).cron("@every 10s").await.unwrap();
    // As if the time zone had gone from the system's tables.
    let mut bad = submitted.policy.unwrap().policy;
    let good = bad.id.clone();
    bad.id = JobId::generate();
    Arc::make_mut(&mut bad.spec).timezone = "Mars/Phobos".into();
    let id = bad.id.clone();
    bench.store.put_policy(bad, bench.clock.now()).await.unwrap();

    for fired in 1..=3 {
        bench.clock.advance(Duration::from_secs(10));
        until_policy(&bench.store, &good, "fired", |policy| policy.state.fired == fired).await;
    }

    let bad = until_policy(&bench.store, &id, "failed", |policy| policy.state.error.is_some()).await;
    assert!(bad.state.error.as_ref().unwrap().contains("Mars/Phobos"), "{:?}", bad.state);
    assert_eq!((bad.state.fired, bad.is_active()), (0, true));
    bench.end().await;
}

#[tokio::test]
async fn a_paused_policy_runs_by_hand_and_goes_on_from_now() {
    let bench = Bench::start(jobservice::ServiceBuilder::register::<Noop>).await;
    let controller = bench.service.controller();
    let id = bench.service.submit(Noop { n: 0 }).cron("@every 10s").schedule_key("k").await.unwrap().id().clone();
    controller.pause(&id, true).await.unwrap();
    bench.clock.advance(Duration::from_secs(60));

    let policy = controller.schedule("k").await.unwrap().unwrap();
    assert_eq!(controller.schedule(id.as_str()).await.unwrap(), Some(policy.clone()));
    let by_hand = controller.run_now(&policy).await.unwrap();

    assert_eq!(bench.until_final(by_hand.id()).await.spec.upstream, Some(id.clone()));
    let resumed = controller.pause(&id, false).await.unwrap().unwrap();
    assert_eq!((resumed.state.fired, resumed.state.next_due), (0, Some(bench.clock.now() + Duration::from_secs(10))));
    controller.control(&id, Command::Stop).await.unwrap();
    let ended = controller.policy(&id).await.unwrap().unwrap();
    assert!(matches!(controller.run_now(&ended).await, Err(SubmitError::PolicyEnded)));
    bench.end().await;
}
