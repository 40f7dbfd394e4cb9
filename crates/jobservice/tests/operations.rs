//! What operators rely on: a bulk action harms nobody, a limit holds over nodes, the store keeps to its size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test speaks")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{CAP, tick};
use jobservice::core::job::Status;
use jobservice::core::store::Query;
use jobservice::core::{Kind, Name};
use jobservice::logger::ReadFrom;
use jobservice::prelude::*;
use jobservice::testing::MemoryStore;
use jobservice::{Bulk, BulkBounds, Command, RetentionRules, Submission};
use jobservice_conformance::counts::times;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Bulky {}

impl Job for Bulky {
    const NAME: &'static str = "bulky";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Small {}

impl Job for Small {
    const NAME: &'static str = "small";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        ctx.logger().info("a word of the job");
        Ok(())
    }
}

/// Must show (f) of the whole.
/// Goal: while very many waiting jobs are stopped, other calls are answered as if nothing were.
/// Method: submit, read, and run jobs of another name all the while; the figure is that of the whole call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "measures how long calls take")]
async fn stopping_very_many_jobs_holds_up_nobody() {
    let many = times(20_000, 1_000_000) as usize;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::builder()
        .sqlite(dir.path().join("jobs.db"))
        .retention(RetentionRules { bytes_max: None, ..RetentionRules::default() })
        .register::<Bulky>()
        .register::<Small>()
        .workers(4)
        .start()
        .await
        .unwrap();
    let controller = service.controller().clone();
    let paused = jobservice::core::store::OptionsChange { paused: Some(true), ..Default::default() };
    controller.set_options(&Name::new("bulky").unwrap(), paused).await.unwrap();
    for _ in 0..many / 1000 {
        let jobs = (0..1000).map(|_| Submission::new("bulky")).collect();
        assert!(controller.submit_all(jobs).await.iter().all(Result::is_ok));
    }
    let memory_before = memory();

    let ended = Arc::new(AtomicBool::new(false));
    let probe = tokio::spawn({
        let (controller, ended) = (controller.clone(), Arc::clone(&ended));
        async move {
            let mut samples = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let asked = std::time::Instant::now();
                let id = controller.submit(Submission::new("small")).await.unwrap().job.id;
                samples.push(asked.elapsed());
                let asked = std::time::Instant::now();
                controller.get(&id).await.unwrap().unwrap();
                samples.push(asked.elapsed());
                let asked = std::time::Instant::now();
                controller.wait_final(&id, CAP).await.unwrap();
                samples.push(asked.elapsed());
            }
            samples
        }
    });
    let began = std::time::Instant::now();
    let filter = Query { status: Some(Status::Pending), name: Name::new("bulky").ok(), ..Query::default() };
    let (mut cursor, mut stopped) = (None, 0);
    loop {
        let bounds = BulkBounds { jobs: 10_000, time: Duration::from_secs(5) };
        let from = Query { cursor, ..filter.clone() };
        let done = controller.act_on(&from, Bulk::Control(Command::Stop), bounds).await.unwrap();
        stopped += done.done;
        cursor = done.next;
        if cursor.is_none() {
            break;
        }
    }
    let took = began.elapsed();
    ended.store(true, Ordering::Relaxed);
    let mut samples = probe.await.unwrap();

    samples.sort_unstable();
    let p99 = samples[samples.len() * 99 / 100];
    println!(
        "stopped {stopped} in {took:?}; {} other calls: p50 {:?}, p99 {p99:?}, max {:?}; memory {} MiB, before {} MiB",
        samples.len(),
        samples[samples.len() / 2],
        samples[samples.len() - 1],
        memory() >> 20,
        memory_before >> 20
    );
    assert_eq!(stopped, many as u64);
    let counts = controller.counts().await.unwrap();
    assert!(counts.contains(&(Status::Stopped, many as u64)), "{counts:?}");
    if jobservice_conformance::counts::is_soak() {
        assert!(p99 < Duration::from_millis(50), "p99 {p99:?}");
        assert!(memory() < memory_before + (64 << 20), "memory grew");
    }
    service.shutdown().await;
    drop(service);
}

/// Resident memory of this process in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn bulk_action_does_a_part_and_says_where_to_go_on() {
    let service = Service::builder().store(Arc::new(MemoryStore::new())).register::<Bulky>().workers(0);
    let service = service.start().await.unwrap();
    let controller = service.controller();
    let later = || {
        let mut submission = Submission::new("bulky");
        (submission.kind, submission.delay) = (Kind::Scheduled, Some(Duration::from_secs(3600)));
        submission
    };
    assert!(controller.submit_all((0..25).map(|_| later()).collect()).await.iter().all(Result::is_ok));

    let bounds = BulkBounds { jobs: 10, time: Duration::from_secs(5) };
    let mut query = Query::default();
    let mut parts = Vec::new();
    loop {
        let done = controller.act_on(&query, Bulk::Control(Command::Cancel), bounds).await.unwrap();
        parts.push((done.matched, done.done, done.next.is_some()));
        query.cursor = done.next;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!(parts, [(10, 10, true), (10, 10, true), (5, 5, false)]);

    let no_time = BulkBounds { jobs: 10_000, time: Duration::ZERO };
    let once = controller.act_on(&Query::default(), Bulk::Delete, no_time).await.unwrap();
    assert_eq!((once.done, once.next), (25, None), "one step is always done");
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Serialize, Deserialize)]
struct Limited {}

impl Job for Limited {
    const NAME: &'static str = "limited";
    const MAX_CONCURRENCY: Option<u32> = Some(2);

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tick().await;
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_of_a_name_holds_over_all_nodes() {
    let store = Arc::new(MemoryStore::new());
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let builder = Service::builder().store(Arc::clone(&store) as Arc<_>).register::<Limited>().workers(5);
        nodes.push(builder.start().await.unwrap());
    }
    let controller = nodes[0].controller();
    let submitted = controller.submit_all((0..60).map(|_| Submission::new("limited")).collect()).await;

    for submitted in submitted {
        let job = controller.wait_final(submitted.unwrap().id(), CAP).await.unwrap().unwrap();
        assert_eq!(job.state.status, Status::Success);
    }

    assert_eq!(MOST.load(Ordering::SeqCst), 2, "as many as may, and no more");
    let queue = controller.queue(&Name::new("limited").unwrap()).await.unwrap();
    assert_eq!((queue.max_concurrency(), queue.pools), (Some(2), 3));
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn store_above_its_bound_loses_its_oldest_final_jobs_with_their_logs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let service = Service::builder().sqlite(&path).register::<Small>().register::<Bulky>().start().await.unwrap();
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(service.submit(Small {}).await.unwrap().job.id);
    }
    for id in &jobs {
        let job = service.controller().wait_final(id, CAP).await.unwrap().unwrap();
        assert_eq!(job.state.status, Status::Success);
    }
    let waits = service.submit(Bulky {}).after(Duration::from_secs(3600)).await.unwrap().job.id;
    assert!(service.controller().logs().read(&jobs[0], ReadFrom::Offset(0), 100).await.unwrap().is_some());
    service.shutdown().await;
    drop(service);

    let rules = RetentionRules { bytes_max: Some(0), ..RetentionRules::default() };
    let service = Service::builder().sqlite(&path).retention(rules).register::<Small>().register::<Bulky>();
    let service = service.start().await.unwrap();
    let controller = service.controller();
    let left = async || controller.list(&Query { limit: 100, ..Query::default() }).await.unwrap().jobs;
    let began = tokio::time::Instant::now();
    while left().await.len() > 1 {
        assert!(began.elapsed() < CAP, "final jobs stay");
        tick().await;
    }

    assert_eq!(left().await[0].id, waits, "what is not final stays, whatever the bound");
    while controller.logs().read(&jobs[0], ReadFrom::Offset(0), 100).await.unwrap().is_some() {
        assert!(began.elapsed() < CAP, "its log stays");
        tick().await;
    }
    service.shutdown().await;
}
