//! What is damaged by hand is found by the audit, and blocks nobody.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is over")]

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_conformance::bench::seconds;
use jobservice_conformance::redis_server::RedisServer;
use jobservice_conformance::{Bench, Factory};
use jobservice_core::job::{Lease, Status};
use jobservice_core::store::Query;
use jobservice_core::{JobId, Store, limits};
use jobservice_redis::{Options, RedisStore};

/// The prefix of the only shard.
const PREFIX: &str = "{js:0}:";

#[derive(Clone)]
struct One(Arc<RedisServer>);

impl One {
    async fn bench() -> (One, Bench) {
        let one = One(Arc::new(RedisServer::start()));
        let bench = Bench::new(Arc::new(one.clone())).await;
        (one, bench)
    }

    /// Sends a command behind the store's back; `@` begins a key of the store.
    async fn send(&self, words: &str) -> redis::Value {
        let client = redis::Client::open(self.0.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let words: Vec<String> = words.split(' ').map(|word| word.replace('@', PREFIX)).collect();
        let (name, arguments) = words.split_first().unwrap();
        redis::cmd(name).arg(arguments).query_async(&mut connection).await.unwrap()
    }

    async fn count(&self, words: &str) -> i64 {
        match self.send(words).await {
            redis::Value::Int(number) => number,
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[async_trait]
impl Factory for One {
    async fn open(&self) -> Arc<dyn Store> {
        let options = Options { url: self.0.url(), namespace: "js".to_owned(), ..Options::default() };
        RedisStore::connect(&options).await.unwrap()
    }
}

/// Goal: the audit sees every kind of damage. Method: a sound store with something of everything; each damage is done,
/// found, and made good again by a copy of the key.
#[tokio::test]
async fn audit_finds_each_damage() {
    let (one, t) = One::bench().await;
    let pending = t.job("wait").priority(3).tag("eu").unique(1).idempotency_key("k").insert().await;
    let suspect = t.job("crash").insert().await;
    t.claim_one("crash").await;
    t.lose_worker().await;
    let lease = t.running("run").await;
    let due = t.job("later").after(seconds(60)).upstream(&pending).insert().await;
    let done = t.with_status(Status::Success, "done").await;
    let hooked = t.hooked_run("hook").await.id;
    let policy = t.policy("nightly").key("key").put().await;
    let lone = t.with_status(Status::Error, "dead").await;
    assert_eq!(t.store.audit().await.unwrap(), Vec::<String>::new());

    let digest = "01".repeat(32);
    let Lease { nonce, pool, .. } = t.get(&lease.id).await.state.lease.unwrap();
    let nonce = format!("{nonce:016x}");
    let damages: Vec<(&str, String, String)> = vec![
        ("ready:wait", format!("ZREM @ready:wait {pending}"), format!("{pending} is not in ready:wait")),
        (
            "ready:wait",
            format!("ZADD @ready:wait 7 {pending}"),
            format!("{pending} is in ready:wait at Some(7) instead"),
        ),
        ("ready:wait", format!("ZADD @ready:wait 7 {done}"), format!("{done} is in ready:wait, where")),
        ("ready:wait", "DEL @ready:wait".to_owned(), format!("{pending} is not in ready:wait")),
        ("suspects:crash", format!("ZREM @suspects:crash {suspect}"), format!("{suspect} is not in suspects:crash")),
        ("due", "ZADD @due 1 no-such-job".to_owned(), "no-such-job is in due, where".to_owned()),
        ("due:later", format!("ZREM @due:later {due}"), format!("{due} is not in due:later")),
        ("running:run", format!("ZINCRBY @running:run 1 {}", lease.id), format!("{} is in running:run at", lease.id)),
        ("final:success", format!("ZREM @final:success {done}"), format!("{done} is not in final:success")),
        ("by_name:done", format!("ZREM @by_name:done {done}"), format!("{done} is not in by_name:done")),
        ("by_tag:eu", format!("ZREM @by_tag:eu {pending}"), format!("{pending} is not in by_tag:eu")),
        ("by_tag:us", format!("ZADD @by_tag:us 1 {pending}"), format!("{pending} is in by_tag:us, where")),
        ("live:x", format!("SADD @live:x {due}"), format!("{due} is in live:x, where")),
        ("executions:x", format!("ZADD @executions:x 1 {due}"), format!("{due} is in executions:x, where")),
        ("held:x", format!("ZADD @held:{pool} 1 0000"), format!("0000 is in held:{pool}, where")),
        ("held:x", format!("ZINCRBY @held:{pool} 1 {nonce}"), format!("{nonce} is in held:{pool} at")),
        ("held:x", format!("ZREM @held:{pool} {nonce}"), format!("{nonce} is not in held:{pool}")),
        ("known", "SREM @known later".to_owned(), "name later, but it is not in known".to_owned()),
        ("work", "SREM @work wait".to_owned(), "name wait, but it is not in work".to_owned()),
        ("busy", "SREM @busy run".to_owned(), "name run, but it is not in busy".to_owned()),
        ("unique", format!("DEL @unique:{digest}"), format!("job {pending} holds unique key")),
        ("unique", format!("SET @unique:{} {done}", "02".repeat(32)), format!("held by job {done}, which does not")),
        ("idem", "DEL @idem_due".to_owned(), "wait k is not in idem_due".to_owned()),
        ("idem", "HDEL @idem x".to_owned(), String::new()),
        ("outbox", "ZADD @outbox 1 no-such-job".to_owned(), "no-such-job is in outbox, where".to_owned()),
        ("outbox_since", "DEL @outbox_since".to_owned(), format!("{hooked} is not in outbox_since")),
        ("outbox:", format!("HSET @outbox:{hooked} 1 ?"), format!("outbox of job {hooked}")),
        ("outbox:", format!("HDEL @outbox:{hooked} v"), format!("outbox of job {hooked} has no version")),
        ("outbox:", "HSET @outbox:no-such-job v 1".to_owned(), "no-such-job, which does not exist".to_owned()),
        ("policies", "DEL @policies".to_owned(), format!("{policy} is not in policies")),
        ("policies_due", "DEL @policies_due".to_owned(), format!("{policy} is not in policies_due")),
        ("schedules", "HSET @schedules key other".to_owned(), "schedule key \"key\" is that of policy".to_owned()),
        ("schedules", "HSET @schedules other gone".to_owned(), "schedule key \"other\" names policy gone".to_owned()),
        ("policy:", format!("SET @policy:{policy} ?"), format!("policy {policy}: ")),
        ("minutes", "DEL @minutes".to_owned(), "are not among the known hours".to_owned()),
        ("nodes", "HSET @nodes pool ?".to_owned(), "node pool cannot be read".to_owned()),
        ("names", "HSET @names wait ?".to_owned(), "the options \"?\" of name \"wait\"".to_owned()),
        ("job:", format!("HSET @job:{lone} h ?"), format!("the record of job {lone} cannot be read")),
        ("job:", format!("DEL @job:{lone}"), format!("{lone} is in final:error, where")),
        ("broken", "SADD @broken a-job-id".to_owned(), "job a-job-id was set aside".to_owned()),
        ("type", "SET @work x".to_owned(), "key \"work\" is a string instead of a set".to_owned()),
    ];
    // Everything as it was is kept beside, in another database.
    let keys = all_keys(&one).await;
    for key in &keys {
        one.send(&format!("COPY {key} {key} DB 1")).await;
    }
    for (_, damage, wanted) in damages {
        one.send(&damage).await;
        let wrong = t.store.audit().await.unwrap();
        let is_found =
            if wanted.is_empty() { wrong.is_empty() } else { wrong.iter().any(|wrong| wrong.contains(&wanted)) };
        assert!(is_found, "{damage}: {wanted:?} is not in {wrong:#?}");
        for key in all_keys(&one).await {
            one.send(&format!("DEL {key}")).await;
        }
        one.send("SWAPDB 0 1").await;
        for key in &keys {
            one.send(&format!("COPY {key} {key} DB 1 REPLACE")).await;
        }
    }
    assert_eq!(t.store.audit().await.unwrap(), Vec::<String>::new());
}

async fn all_keys(one: &One) -> BTreeSet<String> {
    let redis::Value::Array(keys) = one.send("KEYS *").await else { panic!("KEYS answers with an array") };
    let text = |key| match key {
        redis::Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    keys.into_iter().map(text).collect()
}

/// Damages a record in one of three ways: a header that is none, a body that is none, no record at all.
async fn damage(one: &One, id: &JobId, way: usize) {
    match way {
        0 => one.send(&format!("HSET @job:{id} h ?")).await,
        1 => one.send(&format!("HSET @job:{id} b ?")).await,
        _ => one.send(&format!("DEL @job:{id}")).await,
    };
}

/// Goal: a record that cannot be read blocks neither claim nor promote nor reap nor prune nor list. Method: three damaged
/// ones before a sound one, and limits of one; a few calls must get to the sound one.
#[tokio::test]
async fn records_that_cannot_be_read_block_nobody() {
    let (one, t) = One::bench().await;
    let mut sound = Vec::new();
    for (status, name) in [
        (Status::Pending, "claim"),
        (Status::Scheduled, "promote"),
        (Status::Running, "reap"),
        (Status::Success, "prune"),
    ] {
        for way in 0..4 {
            let id = t.bring(t.job(name).retention(10), status).await;
            t.advance(std::time::Duration::from_millis(1));
            if way < 3 {
                damage(&one, &id, way).await;
            } else {
                sound.push(id);
            }
        }
    }
    let [claimed, promoted, reaped, pruned] = sound.as_slice() else { unreachable!("there are four") };

    let listed = t.list(Query { limit: 1, ..Query::default() }).await;
    assert_eq!(listed, [pruned.clone(), reaped.clone(), promoted.clone(), claimed.clone()]);
    for status in [Status::Pending, Status::Scheduled, Status::Running, Status::Success] {
        assert_eq!(t.list(Query { status: Some(status), limit: 1, ..Query::default() }).await.len(), 1, "{status}");
    }

    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.extend(t.ask(&["claim"]).slots(1).ids().await);
    }
    assert_eq!(taken, std::slice::from_ref(claimed));

    t.advance(limits::LEASE.max(seconds(10_000)));
    for _ in 0..8 {
        t.store.promote(1, t.now()).await.unwrap();
        t.store.reap(1, 0, t.now()).await.unwrap();
        t.store.prune(1, t.now()).await.unwrap();
    }
    assert_eq!(t.status(promoted).await, Status::Pending);
    assert_eq!(t.status(reaped).await, Status::Pending);
    assert_eq!(t.find(pruned).await, None);
    assert!(one.count("SCARD @broken").await >= 8, "those that are there are set aside");
    // Nothing is left to look at.
    assert_eq!(t.store.promote(1, t.now()).await.unwrap().next_at, None);
    let wrong = t.store.audit().await.unwrap();
    assert!(wrong.iter().any(|wrong| wrong.contains("was set aside")), "{wrong:#?}");
}

/// Goal: a job that is in a set by mistake, or too early, is put right by the sweep that finds it there.
#[tokio::test]
async fn sweeps_put_right_what_is_in_the_wrong_place() {
    let (one, t) = One::bench().await;
    let later = t.job("copy").after(seconds(60)).insert().await;
    let done = t.bring(t.job("copy"), Status::Success).await;
    let lease = t.running("copy").await;
    one.send(&format!("ZADD @due 1 {later} 1 {done}")).await;
    one.send(&format!("ZADD @running:copy 1 {} 1 {done}", lease.id)).await;
    one.send(&format!("ZADD @final:error 1 {done} 1 {later}")).await;
    one.send(&format!("ZADD @final:success 1 {done}")).await;

    for _ in 0..4 {
        assert_eq!(t.store.promote(1, t.now()).await.unwrap().moved, 0);
        assert_eq!(t.store.reap(1, 0, t.now()).await.unwrap().moved, 0);
        assert_eq!(t.store.prune(1, t.now()).await.unwrap().moved, 0);
    }

    t.audit().await;
}

/// Goal: paging goes on rightly among any number of jobs of one instant, also when the job of the cursor is gone.
#[tokio::test]
async fn pages_go_on_within_one_instant() {
    let (_one, t) = One::bench().await;
    let jobs: Vec<_> = (0..2000).map(|_| t.job("copy").build()).collect();
    let mut newest_first: Vec<JobId> = jobs.iter().rev().map(|job| job.id.clone()).collect();
    t.insert(jobs).await;
    for id in newest_first.iter().step_by(3) {
        t.stop(id).await;
    }

    let mut found = Vec::new();
    let mut query = Query { limit: 130, ..Query::default() };
    loop {
        let page = t.store.list(&query).await.unwrap();
        found.extend(page.jobs.iter().map(|job| job.id.clone()));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
        if let Some(last) = page.jobs.iter().rfind(|job| job.state.status.is_final()) {
            t.delete(&last.id).await;
        }
    }

    newest_first.retain(|id| found.contains(id));
    assert_eq!(found.len(), 2000);
    assert_eq!(found, newest_first);
}
