//! Nodes tell each other what matters, agree on the time, and notice when their Redis is not what it was.

mod common;

use std::time::Duration;

use common::{Node, until, within};
use jobservice_conformance::redis_server::RedisServer;
use jobservice_core::job::Signal;
use jobservice_core::store::{Action, Controlled};
use jobservice_core::{Clock as _, Store as _, limits};

const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn job_that_becomes_ready_wakes_the_other_nodes() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    let woken = two.store.notices().ready();
    one.submit("a").await.unwrap();
    within(SOON, "the hint", woken).await;
    assert_eq!(two.claim("a", 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn stop_reaches_a_run_on_another_node() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    let id = one.submit("a").await.unwrap();
    let mut signals = two.store.notices().signals();
    let jobs = two.claim("a", 1).await.unwrap();

    let answer = one.store.control(&id, Action::Stop(Duration::from_secs(30)), one.now()).await.unwrap();

    assert_eq!(answer, Controlled::Signalled);
    let notice = within(SOON, "the signal", signals.recv()).await.unwrap();
    assert_eq!(
        (notice.pool, notice.lease, notice.signal),
        (two.pool.clone(), jobs[0].lease_key().unwrap(), Signal::Stop)
    );
}

#[tokio::test]
async fn end_of_a_run_wakes_others_only_if_its_name_has_a_limit() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    one.submit("free").await.unwrap();
    one.submit("limited").await.unwrap();
    let free = one.claim("free", 1).await.unwrap();
    let limited = one.claim_below("limited", 1, Some(1)).await.unwrap();
    // What the submissions have told is over when this is heard.
    let heard = two.store.notices().executions();
    server.cli(&["PUBLISH", "{jobservice:0}:wake", "test x"]);
    within(SOON, "the hint", heard).await;

    let (woken, heard) = (two.store.notices().ready(), two.store.notices().executions());
    tokio::pin!(woken);
    one.finish(&free).await.unwrap();
    server.cli(&["PUBLISH", "{jobservice:0}:wake", "test x"]);
    tokio::select! {
        biased;
        () = &mut woken => panic!("nobody needs to know"),
        () = within(SOON, "the hint", heard) => {}
    }
    one.finish(&limited).await.unwrap();
    within(SOON, "the room", woken).await;
}

#[tokio::test]
async fn watched_job_is_told_of_from_any_node() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    let id = one.submit("a").await.unwrap();
    let watch = two.store.notices().watch(&id);
    // The other node has heard of the watch when it tells of the claim.
    until(Duration::from_secs(5), "the watch is heard of", async || {
        let changed = watch.changed();
        if let Some(job) = one.claim("a", 1).await.unwrap().first() {
            one.store.release(vec![job.lease_key().unwrap()], 0, one.now()).await.unwrap();
        }
        tokio::time::timeout(Duration::from_millis(100), changed).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn hints_are_heard_again_after_the_connection_was_cut() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    let everything = (two.store.notices().ready(), two.store.notices().events(), two.store.notices().policies());

    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);

    // What may have been missed meanwhile is looked for.
    within(SOON * 3, "a look", async { tokio::join!(everything.0, everything.1, everything.2) }).await;
    let woken = two.store.notices().ready();
    one.submit("a").await.unwrap();
    within(SOON, "the hint", woken).await;
}

#[tokio::test]
async fn nodes_agree_on_the_time_and_follow_redis() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    let (a, b, wall) = (one.now(), two.now(), one.clock.wall());
    let apart = a.as_millis().abs_diff(b.as_millis()).max(a.as_millis().abs_diff(wall.as_millis()));
    assert!(apart <= 20, "{a} {b} {wall}");

    // The correction beside TIME: as if the store had come from a machine five minutes ahead.
    server.cli(&["HSET", "{jobservice:0}:epoch", "ahead", "300000000"]);
    let ahead = wall + Duration::from_secs(299);
    until(SOON * 5, "both follow", async || one.now() > ahead && two.now() > ahead).await;
    assert!(one.clock.jumped_at(Duration::from_secs(60)).is_some());
    assert_eq!(one.clock.jumped_at(Duration::from_secs(400)), None);
    // Back: the time of the store does not, as it remembers the last that it told.
    server.cli(&["HSET", "{jobservice:0}:epoch", "ahead", "0"]);
    let three = Node::open(&server.url()).await;
    assert!(three.now() > ahead && three.clock.wall() < ahead);
}

#[tokio::test]
async fn node_warns_while_the_store_has_another_layout() {
    let server = RedisServer::start();
    let node = Node::open(&server.url()).await;
    let warns = || node.store.warnings().iter().any(|text| text.contains("layout 7"));
    assert!(!warns());

    server.cli(&["HSET", "{jobservice:0}:epoch", "layout", "7"]);
    until(SOON * 3, "it is noticed", async || warns()).await;
    server.cli(&["HSET", "{jobservice:0}:epoch", "layout", "1"]);
    until(SOON * 3, "it is over", async || !warns()).await;
}

#[tokio::test]
async fn emptied_redis_is_noticed_and_used_again() {
    let server = RedisServer::start();
    let node = Node::open(&server.url()).await;
    server.cli(&["HSET", "{jobservice:0}:epoch", "ahead", "300000000"]);
    let before = node.clock.wall() + Duration::from_secs(299);
    until(SOON * 5, "the clock follows", async || node.now() > before).await;
    let id = node.submit("a").await.unwrap();
    let jobs = node.claim("a", 1).await.unwrap();
    let lost = || node.store.warnings().iter().any(|text| text.contains("FLUSHALL"));
    assert!(!lost());

    server.cli(&["FLUSHALL"]);

    until(SOON * 3, "the loss is noticed", async || lost()).await;
    assert_eq!(node.finish(&jobs).await.unwrap(), [jobservice_core::store::Finished::LeaseLost]);
    assert_eq!(node.store.get(&id).await.unwrap(), None);
    node.is_well().await;
    // Also the time goes on where it was, on nodes that come new to it.
    let fresh = async || Node::open(&server.url()).await.now() > before;
    until(SOON * 3, "the time goes on", fresh).await;
}

/// Goal: who was told of what is lacking notices, whatever other nodes have done since, and at no other time. Method: what
/// the shard has counted for one node is set back by one.
#[tokio::test]
async fn older_state_is_noticed_by_who_was_told_of_what_is_lacking() {
    let server = RedisServer::start();
    let lost = |node: &Node| node.store.warnings().iter().any(|text| text.contains("older state"));
    let one = Node::open(&server.url()).await;
    one.is_well().await;
    let steps = server.cli(&["KEYS", "{jobservice:0}:steps:*"]).trim().to_owned();
    assert_eq!(steps.lines().count(), 1, "{steps}");
    let ttl: i64 = server.cli(&["TTL", &steps]).trim().parse().unwrap();
    assert!((86_000..=86_400).contains(&ttl), "{ttl}");
    let two = Node::open(&server.url()).await;
    two.is_well().await;
    assert!(!lost(&one) && !lost(&two));

    server.cli(&["DECR", &steps]);

    two.is_well().await;
    // A step of the node that comes before its pulse hides nothing from it.
    one.submit("a").await.unwrap();
    until(SOON * 3, "the loss is noticed", async || lost(&one)).await;
    assert!(!lost(&two), "{:?}", two.store.warnings());
    assert_eq!(one.claim("a", 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn nodes_stay_together_when_the_time_of_redis_falls_behind() {
    let server = RedisServer::start();
    let (one, two) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    let before = one.now();
    // As if another server had taken over whose clock is behind, and that never heard of the time.
    server.cli(&["HSET", "{jobservice:0}:epoch", "ahead", "-30000000", "last", "0"]);
    let ahead = || server.cli(&["HGET", "{jobservice:0}:epoch", "ahead"]).trim().parse::<i64>().unwrap();
    until(SOON * 3, "redis is told the time", async || ahead() > -1_000_000).await;
    let three = Node::open(&server.url()).await;
    let (a, b, c) = (one.now(), two.now(), three.now());
    let apart = a.as_millis().abs_diff(b.as_millis()).max(a.as_millis().abs_diff(c.as_millis()));
    assert!(apart <= 50 && a >= before, "{a} {b} {c}");
    assert!(!one.store.warnings().iter().any(|text| text.contains("clock")), "{:?}", one.store.warnings());
}

#[tokio::test]
async fn node_that_starts_after_an_outage_waits_with_reaping_as_the_others_do() {
    let server = RedisServer::start();
    let least = limits::LEASE / 3;
    let one = Node::open(&server.url()).await;
    assert_eq!(one.clock.jumped_at(least), None);
    server.cli(&["HINCRBY", "{jobservice:0}:epoch", "last", "-20000000"]);
    // One of them finds it out, and the others hear of it.
    let (two, three) = (Node::open(&server.url()).await, Node::open(&server.url()).await);
    for node in [&two, &three] {
        let at = node.clock.jumped_at(least).unwrap();
        assert!(node.now().since(at) < SOON * 5, "{at} {}", node.now());
    }
    until(SOON * 3, "who was there hears of it", async || one.clock.jumped_at(least).is_some()).await;
    // A lease later it is over.
    server.cli(&["HINCRBY", "{jobservice:0}:epoch", "resumed_at", "-11000000"]);
    assert_eq!(Node::open(&server.url()).await.clock.jumped_at(least), None);
}
