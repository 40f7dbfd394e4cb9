//! Redis goes away, hangs, is full: callers hear of it in time, nothing that was acknowledged is lost, and all is well as
//! soon as it is back.

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Node, now, until};
use jobservice_conformance::redis_server::{APPEND_ONLY, RedisServer};
use jobservice_core::store::{CheckedIn, Finished};
use jobservice_core::{Clock as _, Store as _, StoreError};
use jobservice_redis::{Durability, Options};
use parking_lot::Mutex;

/// What a call may take while Redis is away: its time-out and the patience with a lost connection.
const AWAY: Duration = Duration::from_millis(3500);

const BACK: Duration = Duration::from_secs(3);

/// Goal: what was acknowledged is there after Redis was killed, again and again, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_jobs_survive_kills_of_redis() {
    let mut server = RedisServer::with(&APPEND_ONLY);
    let node = Arc::new(Node::open(&server.url()).await);
    let (acknowledged, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let submitters: Vec<_> = (0..8)
        .map(|_| {
            let (node, acknowledged, is_over) = (Arc::clone(&node), Arc::clone(&acknowledged), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut worst = Duration::ZERO;
                while !is_over.load(Ordering::Relaxed) {
                    let began = now();
                    match node.submit("load").await {
                        Ok(id) => acknowledged.lock().push(id),
                        Err(StoreError::Unavailable { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    worst = worst.max(began.elapsed());
                }
                worst
            })
        })
        .collect();
    for _ in 0..5 {
        let before = acknowledged.lock().len();
        until(BACK, "submissions go on", async || acknowledged.lock().len() > before + 200).await;
        server.kill();
        server.run();
        let before = acknowledged.lock().len();
        let back = until(BACK, "submissions are taken again", async || acknowledged.lock().len() > before).await;
        println!("back after {back:?}");
    }
    is_over.store(true, Ordering::Relaxed);
    for submitter in submitters {
        let worst = submitter.await.unwrap();
        assert!(worst < AWAY, "{worst:?}");
    }

    let mut found = HashSet::new();
    loop {
        let jobs = node.claim("load", 500).await.unwrap();
        if jobs.is_empty() {
            break;
        }
        found.extend(jobs.into_iter().map(|job| job.id));
    }
    let acknowledged = acknowledged.lock();
    let lost = acknowledged.iter().filter(|id| !found.contains(*id)).count();
    println!("{} acknowledged, {} found", acknowledged.len(), found.len());
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn calls_fail_in_time_while_redis_is_away_and_work_soon_after() {
    let mut server = RedisServer::with(&APPEND_ONLY);
    let node = Node::open(&server.url()).await;
    node.submit("a").await.unwrap();
    let jobs = node.claim("a", 1).await.unwrap();
    server.kill();

    let began = now();
    let error = node.submit("a").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(began.elapsed() < AWAY, "{:?}", began.elapsed());
    // When the patience is over they fail at once, and cost nothing.
    until(AWAY, "they fail at once", async || {
        let began = now();
        node.submit("a").await.is_err() && began.elapsed() < Duration::from_millis(20)
    })
    .await;

    server.run();
    let back = until(BACK, "it is back", async || node.submit("a").await.is_ok()).await;
    println!("back after {back:?}");
    assert!(matches!(node.finish(&jobs).await.unwrap().as_slice(), [Finished::Applied(_)]));
    assert!(!node.store.warnings().iter().any(|text| text.contains("emptied")), "{:?}", node.store.warnings());
}

/// Goal: a Redis that lacks a single acknowledged step is found out as soon as it is back.
#[tokio::test]
async fn lost_submission_is_noticed_at_once() {
    // It keeps only what it is told to save, as one without an append-only file.
    let mut server = RedisServer::start();
    let node = Node::with(Options { shards: 3, url: server.url(), ..Options::default() }).await;
    let kept = node.submit("a").await.unwrap();
    assert_eq!(server.cli(&["SAVE"]).trim(), "OK");
    let lost = || node.store.warnings().iter().any(|text| text.contains("older state"));
    let gone = node.submit("a").await.unwrap();
    assert!(!lost());

    server.kill();
    server.run();

    until(BACK, "the loss is noticed", async || lost()).await;
    let jobs = node.claim("a", 9).await.unwrap();
    assert_eq!(jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&kept]);
    assert_eq!(node.store.get(&gone).await.unwrap(), None);
    node.is_well().await;
}

/// Goal: the same if another node makes more steps than were lost before the first one is back.
#[tokio::test]
async fn lost_submission_is_noticed_although_others_go_on() {
    let mut server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    assert_eq!(server.cli(&["SAVE"]).trim(), "OK");
    let gone = one.submit("a").await.unwrap();
    let lost = |node: &Node| node.store.warnings().iter().any(|text| text.contains("older state"));
    server.kill();
    server.run();
    until(BACK, "submissions are taken again", async || two.submit("b").await.is_ok()).await;
    for _ in 0..50 {
        two.submit("b").await.unwrap();
    }
    until(BACK, "the loss is noticed", async || lost(&one)).await;
    assert_eq!(one.store.get(&gone).await.unwrap(), None);
    one.is_well().await;
}

#[tokio::test]
async fn redis_that_hangs_is_away_too() {
    let server = RedisServer::start();
    let options = Options { response_timeout: Duration::from_millis(500), url: server.url(), ..Options::default() };
    let node = Node::with(options).await;
    server.pause();
    let began = now();
    assert!(matches!(node.submit("a").await, Err(StoreError::Unavailable { .. })));
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    // Many at once wait no longer than one.
    let began = now();
    let many = (0..200).map(|_| node.submit("a"));
    let answers = futures_util::future::join_all(many).await;
    assert!(answers.iter().all(Result::is_err));
    assert!(began.elapsed() < AWAY, "{:?}", began.elapsed());

    server.resume();
    let back = until(BACK, "it is back", async || node.submit("a").await.is_ok()).await;
    println!("back after {back:?}");
    // The time went on meanwhile, and no node thinks that it jumped.
    assert_eq!(node.clock.jumped_at(Duration::from_secs(1)), None);
}

#[tokio::test]
async fn full_redis_refuses_intake_and_lets_the_queue_drain() {
    let server = RedisServer::start();
    let node = Node::open(&server.url()).await;
    for _ in 0..20 {
        node.submit("a").await.unwrap();
    }
    assert_eq!(server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]).trim(), "OK");

    assert!(matches!(node.submit("a").await, Err(StoreError::Full)));
    let jobs = node.claim("a", 20).await.unwrap();
    assert_eq!(jobs.len(), 20);
    let lease = jobs[0].lease_key().unwrap();
    match node.store.check_in(&lease, "half".into(), node.now()).await {
        Ok(CheckedIn::Noted(_)) | Err(StoreError::Full) => {}
        other => panic!("{other:?}"),
    }
    let leases: Vec<_> = jobs.iter().filter_map(jobservice_core::Job::lease_key).collect();
    let until = node.now() + Duration::from_secs(20);
    assert!(node.store.extend(&node.pool, &leases, until, node.now()).await.is_ok());
    let finished = node.finish(&jobs).await.unwrap();
    assert!(finished.iter().all(|answer| matches!(answer, Finished::Applied(_))), "{finished:?}");

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    node.is_well().await;
}

#[tokio::test]
async fn submission_waits_for_a_replica_if_it_must() {
    let primary = RedisServer::on_a_port(&APPEND_ONLY);
    let durability = Durability::Replica { timeout: Duration::from_millis(300) };
    let url = format!("redis://127.0.0.1:{}", primary.port());
    let node = Node::with(Options { url, durability, ..Options::default() }).await;
    let alone = node.submit("a").await.unwrap_err();
    let source = std::error::Error::source(&alone).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("outcome unknown") && source.contains("the same key"), "{source}");

    let replica = RedisServer::replica_of(&primary, &["--save", ""]);
    until(BACK, "the replica confirms", async || node.submit("a").await.is_ok()).await;
    // Only what takes jobs in waits: one batch, one WAIT.
    let waits = || {
        primary
            .cli(&["INFO", "commandstats"])
            .lines()
            .filter(|line| line.starts_with("cmdstat_wait"))
            .collect::<String>()
    };
    let before = waits();
    let jobs = node.claim("a", 10).await.unwrap();
    node.finish(&jobs).await.unwrap();
    assert_eq!(before.split(',').next(), waits().split(',').next());

    replica.pause();
    let began = now();
    assert!(node.submit("a").await.is_err());
    assert!(began.elapsed() < AWAY);
    replica.resume();
}

#[tokio::test]
async fn another_primary_is_found_when_the_first_one_dies() {
    let mut primary = RedisServer::on_a_port(&["--save", ""]);
    let replica = RedisServer::replica_of(&primary, &["--save", "", "--replica-priority", "1"]);
    let sentinel = RedisServer::sentinel_of(&primary);
    jobservice_conformance::redis_server::wait_until("the sentinel knows the replica", || {
        sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains("flags")
    });
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port());
    let node = Node::with(Options { url, durability: Durability::Local, ..Options::default() }).await;
    let id = node.submit("a").await.unwrap();
    jobservice_conformance::redis_server::wait_until("the replica has the job", || {
        replica.cli(&["KEYS", "*"]).contains(id.as_str())
    });
    primary.kill();
    let back = until(Duration::from_secs(20), "the other takes over", async || node.submit("b").await.is_ok()).await;
    println!("back after {back:?}");
    assert_eq!(node.claim("a", 1).await.unwrap().first().map(|job| &job.id), Some(&id));
}
