//! Several nodes share policies and hook events, on one shard and on several.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on is over")]

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_conformance::bench::{one, run, seconds};
use jobservice_conformance::redis_server::RedisServer;
use jobservice_conformance::{Bench, Factory};
use jobservice_core::job::Status;
use jobservice_core::policy::{Overlap, Tick};
use jobservice_core::store::{Controlled, Fired, NewJob, PolicyPut, PolicyQuery};
use jobservice_core::{JobId, Store, Time};
use jobservice_redis::{Options, RedisStore};

/// Nodes that share one namespace.
#[derive(Clone)]
struct Shared {
    server: Arc<RedisServer>,
    shards: usize,
}

impl Shared {
    fn new(shards: usize) -> Shared {
        Shared { server: Arc::new(RedisServer::start()), shards }
    }

    async fn node(&self) -> Arc<dyn Store> {
        let options =
            Options { url: self.server.url(), namespace: "js".to_owned(), shards: self.shards, ..Options::default() };
        RedisStore::connect(&options).await.expect("the store opens")
    }

    async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(self.node().await);
        }
        nodes
    }

    /// Sends a command behind the store's back.
    async fn send(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let (name, arguments) = words.split_first().unwrap();
        redis::cmd(name).arg(arguments).query_async(&mut connection).await.unwrap()
    }
}

#[async_trait]
impl Factory for Shared {
    async fn open(&self) -> Arc<dyn Store> {
        self.node().await
    }
}

fn execution(t: &Bench, policy: &JobId, name: &str) -> NewJob {
    t.job(name).after(seconds(0)).upstream(policy).new_job()
}

fn tick(due: Time, next_due: Time) -> Tick {
    Tick { expected_due: due, version: None, next_due: Some(next_due), executions: 1, skipped: 0 }
}

async fn fire(t: &Bench, policy: &JobId, name: &str) -> Fired {
    let query = PolicyQuery { id: Some(policy.clone()), limit: 1, ..PolicyQuery::default() };
    let due = one(t.store.policies(&query).await.unwrap()).state.next_due.expect("it has a due time");
    t.store.fire(policy, &tick(due, t.now()), vec![execution(t, policy, name)], t.now()).await.unwrap()
}

async fn all_policies(t: &Bench) -> Vec<JobId> {
    let query = PolicyQuery { limit: 100, ..PolicyQuery::default() };
    t.store.policies(&query).await.unwrap().into_iter().map(|policy| policy.id).collect()
}

#[test]
fn tick_fires_once_on_many_nodes() {
    for (overlap, shards) in [(Overlap::Allow, 1), (Overlap::Replace, 1), (Overlap::Replace, 3)] {
        let shared = Shared::new(shards);
        run(shared.clone(), 2, async |t| {
            let nodes = shared.nodes(5).await;
            let policy = t.policy("copy").overlap(overlap).put().await;
            let mut due = t.now() + seconds(60);
            for _ in 0..20 {
                t.advance(seconds(60));
                let (now, next) = (t.now(), due + seconds(60));
                let fires = nodes.iter().map(|node| {
                    let (node, policy, new) = (Arc::clone(node), policy.clone(), execution(t, &policy, "copy"));
                    tokio::spawn(async move { node.fire(&policy, &tick(due, next), vec![new], now).await.unwrap() })
                });
                let fires: Vec<_> = fires.collect();
                let mut fired = 0;
                for fire in fires {
                    fired += usize::from(matches!(fire.await.unwrap(), Fired::Fired(_)));
                }
                assert_eq!(fired, 1, "{overlap:?} on {shards} shards");
                due = next;
            }
        });
    }
}

/// Goal: whoever stops a policy while it fires and its executions begin leaves none of them going on.
#[test]
fn execution_does_not_outlive_the_end_of_its_policy() {
    let shared = Shared::new(1);
    run(shared.clone(), 2, async |t| {
        let nodes = shared.nodes(3).await;
        let [firing, claiming, stopping] = nodes.as_slice() else { unreachable!("three were made") };
        for round in 0..30 {
            let policy = t.policy("copy").put().await;
            let due = t.now() + seconds(60);
            let now = t.advance(seconds(60));
            let news: Vec<NewJob> = (0..6).map(|_| execution(t, &policy, "copy")).collect();
            let ids: Vec<JobId> = news.iter().map(|new| new.job.id.clone()).collect();
            let (node, of) = (Arc::clone(firing), policy.clone());
            let fires = tokio::spawn(async move {
                for new in news {
                    // The due time stands, so that it can fire at once again.
                    node.fire(&of, &tick(due, due), vec![new], now).await.unwrap();
                }
            });
            let (node, ask) = (Arc::clone(claiming), t.ask(&["copy"]).slots(2).build());
            let claims = tokio::spawn(async move {
                for _ in 0..3 {
                    node.promote(10, now).await.unwrap();
                    node.claim(&ask, now).await.unwrap();
                }
            });
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            let stop = jobservice_core::store::Action::Stop(seconds(30));
            let stopped = stopping.control(&policy, stop, now).await.unwrap();
            fires.await.unwrap();
            claims.await.unwrap();

            assert_eq!(stopped, Controlled::Done(Status::Stopped));
            for id in ids {
                let Some(job) = t.find(&id).await else { continue };
                let state = &job.state;
                assert!(state.status.is_final() || state.signal.is_some(), "{id} goes on: {state:?}");
            }
        }
    });
}

#[test]
fn policy_keeps_its_id_whatever_shard_its_name_is_of() {
    let shared = Shared::new(4);
    run(shared, 0, async |t| {
        let id = t.policy("copy").key("nightly").put().await;
        let mut executions = Vec::new();
        for number in 0..12 {
            let name = format!("copy-{number}");
            assert_eq!(t.policy(&name).key("nightly").try_put().await, PolicyPut::Updated(id.clone()));
            assert_eq!(t.policy(&name).key("nightly").try_put().await, PolicyPut::Unchanged(id.clone()));
            assert_eq!(all_policies(t).await, std::slice::from_ref(&id));
            t.advance(seconds(60));
            let Fired::Fired(fired) = fire(t, &id, &name).await else { panic!("it fires as {name}") };
            executions.push(one(fired));
            t.audit().await;
        }

        assert_eq!(t.stop(&id).await, Controlled::Done(Status::Stopped));

        for execution in executions {
            assert_eq!(t.status(&execution).await, Status::Stopped);
        }
        t.delete(&id).await;
        assert_eq!(all_policies(t).await, []);
        assert_eq!(t.policy("copy").id(&id).key("nightly").try_put().await, PolicyPut::Created);
    });
}

#[test]
fn executions_under_an_earlier_name_overlap() {
    let shared = Shared::new(4);
    run(shared, 0, async |t| {
        let id = t.policy("copy").key("nightly").overlap(Overlap::Queue).put().await;
        t.advance(seconds(60));
        let Fired::Fired(first) = fire(t, &id, "copy").await else { panic!("it fires") };
        for number in 0..12 {
            let name = format!("copy-{number}");
            t.policy(&name).key("nightly").overlap(Overlap::Queue).try_put().await;
            assert_eq!(fire(t, &id, &name).await, Fired::Waiting);
        }

        t.policy("copy-12").key("nightly").overlap(Overlap::Replace).try_put().await;

        assert!(matches!(fire(t, &id, "copy-12").await, Fired::Fired(_)));
        assert_eq!(t.status(&one(first)).await, Status::Stopped);
    });
}

#[test]
fn event_is_taken_once_on_many_nodes() {
    for shards in [1, 3] {
        let shared = Shared::new(shards);
        run(shared.clone(), 2, async |t| {
            let nodes = shared.nodes(6).await;
            let mut ids = BTreeSet::new();
            for number in 0..60 {
                ids.insert(t.hooked_run(&format!("copy-{}", number % 5)).await.id);
            }
            let (now, until) = (t.now(), t.now() + seconds(60));
            let takers: Vec<_> = nodes
                .iter()
                .map(|node| {
                    let node = Arc::clone(node);
                    tokio::spawn(async move { node.take_events(10, until, now).await.unwrap() })
                })
                .collect();
            let mut taken = Vec::new();
            for taker in takers {
                taken.extend(taker.await.unwrap().into_iter().map(|taken| taken.job.id));
            }
            // Who met too many others got less; that is still there.
            while let Some(events) = t.store.take_events(1, until, now).await.unwrap().pop() {
                taken.push(events.job.id);
            }

            assert_eq!(taken.len(), ids.len());
            assert_eq!(BTreeSet::from_iter(taken), ids);
        });
    }
}

/// Goal: what cannot be sent is taken once and blocks nobody, however small the limit. Method: three kinds of damage by
/// hand, each before the event that is sound.
#[tokio::test]
async fn events_that_cannot_be_sent_block_nobody() {
    let shared = Shared::new(1);
    let t = Bench::new(Arc::new(shared.clone())).await;
    let unreadable = t.hooked_run("copy").await.id;
    let orphan = t.hooked_run("copy").await.id;
    let broken = t.hooked_run("copy").await.id;
    t.advance(seconds(1));
    let sound = t.hooked_run("copy").await.id;
    shared.send(&["HSET", &format!("{{js:0}}:outbox:{unreadable}"), "1", "?"]).await;
    shared.send(&["DEL", &format!("{{js:0}}:job:{orphan}")]).await;
    shared.send(&["HSET", &format!("{{js:0}}:job:{broken}"), "h", "?"]).await;
    shared.send(&["ZADD", "{js:0}:outbox", "1", "?"]).await;
    shared.send(&["ZADD", "{js:0}:outbox", "2", "nothing-waits-for-this"]).await;

    let mut taken = Vec::new();
    for _ in 0..5 {
        let events = t.store.take_events(1, t.now() + seconds(60), t.now()).await.unwrap();
        taken.extend(events.into_iter().map(|events| events.job.id));
    }

    assert_eq!(taken, [sound]);
    let aside = shared.send(&["SCARD", "{js:0}:broken"]).await;
    assert_eq!(aside, redis::Value::Int(3));
    let turns = shared.send(&["ZCARD", "{js:0}:outbox"]).await;
    assert_eq!(turns, redis::Value::Int(1));
}

/// Goal: a policy that cannot be read holds up no other, and is an error to who asks for it.
#[tokio::test]
async fn policy_that_cannot_be_read_holds_up_no_other() {
    let shared = Shared::new(1);
    let t = Bench::new(Arc::new(shared.clone())).await;
    let bad = t.policy("copy").put().await;
    let good = t.policy("copy").put().await;
    shared.send(&["SET", &format!("{{js:0}}:policy:{bad}"), "{}"]).await;
    let due_by = Some(t.advance(seconds(60)));

    let due = t.store.policies(&PolicyQuery { due_by, limit: 1, ..PolicyQuery::default() }).await.unwrap();

    assert_eq!(one(due).id, good);
    assert!(t.store.policies(&PolicyQuery { id: Some(bad), limit: 1, ..PolicyQuery::default() }).await.is_err());
    assert!(matches!(fire(&t, &good, "copy").await, Fired::Fired(_)));
}

/// Goal: a schedule key that is left over without its policy does not refuse the key for good.
#[tokio::test]
async fn schedule_key_without_its_policy_is_free() {
    let shared = Shared::new(1);
    let t = Bench::new(Arc::new(shared.clone())).await;
    shared.send(&["HSET", "{js:0}:schedules", "nightly", "gone-long-ago"]).await;

    assert_eq!(t.policy("copy").key("nightly").try_put().await, PolicyPut::Created);
    t.audit().await;
}
