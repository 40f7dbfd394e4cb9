//! What is this store's own, and what is easiest to see here; the promises of all stores are in the conformance suite.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::job::{Kind, Retention, Spec};
use crate::lifecycle::Outcome;
use crate::limits::{GRACE, HOOK_DEADLINE, LEASE, WEIGHT_DEFAULT};
use crate::policy::{Misfire, Overlap, PolicySpec};
use crate::store::{NameAsk, StoreError};
use crate::unique::{Scope, Unique};

const START: Time = Time::from_seconds(1_767_614_400);

fn at(seconds: u64) -> Time {
    START + Duration::from_secs(seconds)
}

fn id(text: &str) -> JobId {
    JobId::new(format!("job-{text:0>6}")).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn pool() -> PoolId {
    PoolId::new("pool/1").unwrap()
}

fn spec(of: &str) -> Spec {
    Spec {
        name: name(of),
        kind: Kind::Generic,
        parameters: "{}".into(),
        priority: 0,
        unique: None,
        max_fails: 4,
        timeout: None,
        hook: None,
        upstream: None,
        tags: Vec::new(),
        retention: Retention::default(),
        enqueued_at: START,
    }
}

fn with_key(spec: Spec) -> Spec {
    Spec { unique: Some(Unique { digest: [1; 32], scope: Scope::UntilFinal }), ..spec }
}

fn ask(names: &[&str], slots: u32) -> Claim {
    let ask = |of: &&str| NameAsk { name: name(of), weight: WEIGHT_DEFAULT, max_concurrency: None };
    Claim {
        pool: pool(),
        names: names.iter().map(ask).collect(),
        slots,
        suspects: true,
        nonce: 7,
        seed: 1,
        until: at(3600),
        grace: GRACE,
    }
}

async fn store_with(specs: impl IntoIterator<Item = (&str, Spec)>) -> MemoryStore {
    let store = MemoryStore::new();
    let jobs = specs.into_iter().map(|(of, spec)| Job::submitted(id(of), spec, None, START).into()).collect();
    store.insert(jobs, START).await.unwrap();
    store
}

async fn claim(store: &MemoryStore, ask: &Claim) -> Vec<LeaseKey> {
    store.claim(ask, at(1)).await.unwrap().iter().filter_map(Job::lease_key).collect()
}

async fn finish(store: &MemoryStore, lease: &LeaseKey, outcome: Outcome, now: Time) {
    let answers = store.finish(vec![Report { lease: lease.clone(), outcome }], now).await.unwrap();
    assert!(matches!(answers[..], [Finished::Applied(_)]), "{answers:?}");
}

fn fatal() -> Outcome {
    Outcome::Failed { error: "broken".into(), retryable: false, retry_after: None, jitter: 0 }
}

async fn audit(store: &MemoryStore) {
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
}

/// Whether a notice was given. Looks once: a notice that is there is there at once.
fn told(notice: impl Future<Output = ()>) -> bool {
    let mut notice = std::pin::pin!(notice);
    notice.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

async fn events(store: &MemoryStore, now: Time) -> Vec<(u32, u32)> {
    let taken = store.take_events(10, now + Duration::from_secs(60), now).await.unwrap();
    taken.iter().flat_map(|job| job.events.iter().map(|event| (event.seq, job.tries))).collect()
}

#[tokio::test]
async fn two_rounds_give_each_name_its_share_and_then_what_is_left() {
    let many = (0..20).map(|n| (n.to_string(), spec(if n < 18 { "bulk" } else { "tiny" }))).collect::<Vec<_>>();
    let store = store_with(many.iter().map(|(of, spec)| (&**of, spec.clone()))).await;

    let jobs = store.claim(&ask(&["bulk", "tiny", "idle"], 9), at(1)).await.unwrap();

    let tiny = jobs.iter().filter(|job| job.spec.name == name("tiny")).count();
    assert_eq!((jobs.len(), tiny), (9, 2));
    audit(&store).await;
}

#[tokio::test]
async fn operators_limit_beats_the_codes_and_counts_all_pools() {
    let store = store_with([("1", spec("copy")), ("2", spec("copy")), ("3", spec("copy"))]).await;
    let mut mine = ask(&["copy"], 10);
    mine.names = [NameAsk { name: name("copy"), weight: 1, max_concurrency: Some(1) }].into();
    assert_eq!(claim(&store, &mine).await.len(), 1, "the limit in the code");

    let raised = OptionsChange { max_concurrency: Some(Some(2)), ..OptionsChange::default() };
    store.set_options(&name("copy"), raised, at(1)).await.unwrap();
    let theirs = Claim { pool: PoolId::new("pool/2").unwrap(), ..mine };

    assert_eq!(claim(&store, &theirs).await.len(), 1, "one of the two runs elsewhere");
}

#[tokio::test]
async fn claim_takes_at_most_one_suspect_and_passes_over_the_others() {
    let store = store_with([("1", spec("a")), ("2", spec("a")), ("3", spec("b"))]).await;
    let short = Claim { until: at(2), ..ask(&["a", "b"], 10) };
    assert_eq!(claim(&store, &short).await.len(), 3);
    assert_eq!(store.reap(10, 0, at(2)).await.unwrap().moved, 3);
    let fresh = Job::submitted(id("4"), Spec { priority: 1, ..spec("a") }, None, at(2));
    let late = Job::submitted(id("5"), spec("a"), None, at(3));
    store.insert(vec![fresh.into(), late.into()], at(3)).await.unwrap();

    let listed = store.list(&Query { status: Some(Status::Pending), limit: 10, ..Query::default() }).await.unwrap();
    let order: Vec<_> = listed.jobs.iter().map(|job| job.id.clone()).collect();
    assert_eq!(order, [id("4"), id("1"), id("2"), id("5"), id("3")], "suspects are listed among the others");

    let leases = claim(&store, &Claim { suspects: false, ..ask(&["a"], 1) }).await;
    assert_eq!(leases[0].id, id("4"));
    let jobs = store.claim(&ask(&["a", "b"], 10), at(4)).await.unwrap();
    assert_eq!(jobs.iter().filter(|job| job.state.crashes > 0).count(), 1);
    assert!(jobs.iter().any(|job| job.id == id("5")));
    audit(&store).await;
}

#[tokio::test]
async fn retry_is_told_who_took_the_key() {
    let store = store_with([("1", with_key(spec("copy")))]).await;
    let leases = claim(&store, &ask(&["copy"], 1)).await;
    finish(&store, &leases[0], fatal(), at(2)).await;
    let second = Job::submitted(id("2"), with_key(spec("copy")), None, at(3));
    assert_eq!(store.insert(vec![second.into()], at(3)).await.unwrap(), [Inserted::Created]);

    let retry = Action::Retry { next_due: None };
    assert_eq!(store.control(&id("1"), retry, at(4)).await.unwrap(), Controlled::Duplicate(id("2")));
    store.control(&id("2"), Action::Stop(GRACE), at(4)).await.unwrap();
    assert_eq!(store.control(&id("1"), retry, at(4)).await.unwrap(), Controlled::Done(Status::Pending));
    audit(&store).await;
}

#[tokio::test]
async fn event_that_joins_while_others_are_sent_has_its_turn_as_soon_as_they_are_settled() {
    let store = store_with([("1", Spec { hook: Some("http://hook".into()), ..spec("copy") })]).await;
    let leases = claim(&store, &ask(&["copy"], 1)).await;
    assert_eq!(events(&store, at(2)).await, [(1, 0)]);
    finish(&store, &leases[0], fatal(), at(3)).await;
    assert_eq!(events(&store, at(3)).await, [], "the first is on its way");

    let notice = store.notices().events();
    store.settle_event(&id("1"), 1, Settled::Done, at(4)).await.unwrap();

    assert!(told(notice));
    assert_eq!(events(&store, at(4)).await, [(2, 0)]);
    let retry = Settled::Retry { at: at(30), error: "503".into() };
    store.settle_event(&id("1"), 2, retry.clone(), at(5)).await.unwrap();
    store.settle_event(&id("1"), 1, retry, at(5)).await.unwrap();
    assert_eq!(events(&store, at(29)).await, []);
    assert_eq!(events(&store, at(30)).await, [(2, 1)], "a report about a settled event counts for nothing");
}

#[tokio::test]
async fn check_in_replaces_one_that_nobody_sends() {
    let store = store_with([("1", Spec { hook: Some("http://hook".into()), ..spec("copy") })]).await;
    let lease = claim(&store, &ask(&["copy"], 1)).await.remove(0);
    for percent in ["10%", "20%"] {
        store.check_in(&lease, percent.into(), at(2)).await.unwrap();
    }
    audit(&store).await;
    assert_eq!(events(&store, at(2)).await, [(1, 0), (3, 0)]);

    for percent in ["30%", "40%"] {
        store.check_in(&lease, percent.into(), at(3)).await.unwrap();
    }

    audit(&store).await;
    store.settle_event(&id("1"), 1, Settled::Done, at(4)).await.unwrap();
    assert_eq!(events(&store, at(4)).await, [], "the third is still on its way");
    store.settle_event(&id("1"), 3, Settled::Done, at(5)).await.unwrap();
    assert_eq!(events(&store, at(5)).await, [(5, 0)]);
}

#[tokio::test]
async fn job_with_undelivered_events_stays_until_their_deadline() {
    let hooked = Spec { hook: Some("http://hook".into()), retention: Retention::all(0), ..spec("copy") };
    let store = store_with([("1", hooked), ("2", Spec { retention: Retention::all(0), ..spec("copy") })]).await;
    for job in ["1", "2"] {
        store.control(&id(job), Action::Stop(GRACE), at(1)).await.unwrap();
    }

    let swept = store.prune(10, at(2)).await.unwrap();
    assert_eq!((swept.removed, swept.next_at), (vec![id("2")], Some(at(1) + HOOK_DEADLINE)));
    let swept = store.prune(10, at(1) + HOOK_DEADLINE).await.unwrap();

    assert_eq!((swept.removed, swept.moved, swept.next_at), (vec![id("1")], 2, None));
    assert_eq!(store.dump().await.unwrap(), "");
}

#[tokio::test]
async fn submission_repeated_after_its_job_was_deleted_is_told_the_same_id() {
    let store = MemoryStore::new();
    let new = |of: &str| NewJob {
        job: Job::submitted(id(of), spec("copy"), None, START),
        idempotency_key: Some("order-1".into()),
        launched_by: None,
    };
    store.insert(vec![new("1")], START).await.unwrap();
    store.control(&id("1"), Action::Stop(GRACE), at(1)).await.unwrap();
    store.delete(&id("1"), at(2)).await.unwrap();

    assert_eq!(store.insert(vec![new("2")], at(3)).await.unwrap(), [Inserted::Repeated(id("1"))]);
    let later = at(24 * 3600);
    assert_eq!(store.insert(vec![new("2")], later).await.unwrap(), [Inserted::Created]);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended_in_every_order() {
    let many: Vec<_> = (0..30).map(|n| (n.to_string(), spec(["a", "b", "c"][n % 3]))).collect();
    let store = store_with(many.iter().map(|(of, spec)| (&**of, spec.clone()))).await;
    let short = Claim { until: at(2), ..ask(&["a", "b"], 5) };
    claim(&store, &short).await;
    store.reap(3, 0, at(2)).await.unwrap();
    for job in ["29", "26", "23", "20"] {
        store.control(&id(job), Action::Stop(GRACE), at(3)).await.unwrap();
    }

    let queries = Status::ALL.map(|status| Query { status: Some(status), ..Query::default() });
    let by_name = Query { name: Some(name("a")), status: Some(Status::Pending), ..Query::default() };
    for query in queries.into_iter().chain([Query::default(), by_name]) {
        let whole = store.list(&Query { limit: 1000, ..query.clone() }).await.unwrap();
        assert_eq!(whole.next, None);
        let (mut paged, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.list(&Query { cursor, limit: 2, ..query.clone() }).await.unwrap();
            paged.extend(page.jobs);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole.jobs, "{query:?}");
    }
}

#[tokio::test]
async fn cursor_from_elsewhere_is_not_valid() {
    let store = store_with([("1", spec("a")), ("2", spec("a"))]).await;
    let newest = store.list(&Query { limit: 1, ..Query::default() }).await.unwrap().next;

    for (status, cursor) in [(Status::Pending, newest), (Status::Running, Some("x".to_owned()))] {
        let query = Query { status: Some(status), cursor, limit: 1, ..Query::default() };
        assert!(matches!(store.list(&query).await, Err(StoreError::Invalid(_))));
    }
}

fn policy(overlap: Overlap, scope: Option<Scope>) -> Policy {
    let spec = PolicySpec {
        schedule_key: None,
        name: name("report"),
        parameters: "{}".into(),
        cron: "* * * * *".into(),
        timezone: "UTC".into(),
        misfire: Misfire::Last,
        overlap,
        priority: 0,
        max_fails: 4,
        timeout: None,
        hook: None,
        unique: scope,
        unique_key: None,
        tags: Vec::new(),
        retention: Retention::default(),
    };
    Policy::submitted(id("policy"), spec, Some(at(60)), START)
}

async fn fire(store: &MemoryStore, of: &str, due: u64) -> Fired {
    let spec = with_key(Spec { upstream: Some(id("policy")), ..spec("report") });
    let executions = vec![Job::submitted(id(of), spec, None, at(due)).into()];
    let tick = Tick { expected_due: at(due), version: None, next_due: Some(at(due + 60)), executions: 1, skipped: 0 };
    store.fire(&id("policy"), &tick, executions, at(due)).await.unwrap()
}

#[tokio::test]
async fn tick_whose_execution_is_a_duplicate_counts_as_skipped() {
    let store = MemoryStore::new();
    store.put_policy(policy(Overlap::Allow, Some(Scope::UntilFinal)), START).await.unwrap();

    assert_eq!(fire(&store, "1", 60).await, Fired::Fired(vec![id("1")]));
    assert_eq!(fire(&store, "2", 60).await, Fired::Stale);
    assert_eq!(fire(&store, "2", 120).await, Fired::Skipped);

    let state = &store.policies(&PolicyQuery { limit: 1, ..PolicyQuery::default() }).await.unwrap()[0].state;
    assert_eq!((state.fired, state.skipped, state.last_fired), (1, 1, Some(at(60))));
    assert_eq!(state.next_due, Some(at(180)));
    audit(&store).await;
}

#[tokio::test]
async fn replaced_execution_that_waits_gives_its_key_to_the_next() {
    let store = MemoryStore::new();
    store.put_policy(policy(Overlap::Replace, Some(Scope::UntilFinal)), START).await.unwrap();
    fire(&store, "1", 60).await;

    assert_eq!(fire(&store, "2", 120).await, Fired::Fired(vec![id("2")]));

    assert_eq!(store.get(&id("1")).await.unwrap().unwrap().state.status, Status::Stopped);
    audit(&store).await;
}

#[tokio::test]
async fn ended_policy_takes_its_executions_along_and_can_be_deleted() {
    let store = MemoryStore::new();
    store.put_policy(policy(Overlap::Allow, None), START).await.unwrap();
    fire(&store, "1", 60).await;
    assert_eq!(store.delete(&id("policy"), at(61)).await.unwrap(), Deleted::Refused(Status::Scheduled));

    let cancel = Action::Cancel(GRACE);
    assert_eq!(store.control(&id("policy"), cancel, at(62)).await.unwrap(), Controlled::Done(Status::Cancelled));
    assert_eq!(store.control(&id("policy"), cancel, at(63)).await.unwrap(), Controlled::Unchanged(Status::Cancelled));

    assert_eq!(store.get(&id("1")).await.unwrap().unwrap().state.status, Status::Cancelled);
    let end = PolicyEvent::End(crate::job::Signal::Stop);
    assert!(matches!(store.change_policy(&id("policy"), &end, at(64)).await, Err(StoreError::Invalid(_))));
    assert_eq!(store.delete(&id("policy"), at(64)).await.unwrap(), Deleted::Gone);
    audit(&store).await;
}

#[tokio::test]
async fn end_of_a_run_and_resumed_name_tell_those_who_wait_for_work() {
    let store = store_with([("1", spec("copy")), ("2", spec("copy"))]).await;
    let leases = claim(&store, &ask(&["copy"], 1)).await;
    let notice = store.notices().ready();
    finish(&store, &leases[0], Outcome::Ok { result: None }, at(2)).await;
    assert!(told(notice), "there may be room below the limit now");

    let pause = |paused| OptionsChange { paused: Some(paused), ..OptionsChange::default() };
    store.set_options(&name("copy"), pause(true), at(3)).await.unwrap();
    assert_eq!(claim(&store, &ask(&["copy"], 1)).await, []);
    let notice = store.notices().ready();
    store.set_options(&name("copy"), pause(false), at(4)).await.unwrap();
    assert!(told(notice));
    assert_eq!(store.names().await.unwrap().len(), 1);
}

#[tokio::test]
async fn signal_reaches_the_pool_once_and_again_when_it_gets_stronger() {
    let store = store_with([("1", spec("copy"))]).await;
    let lease = claim(&store, &ask(&["copy"], 1)).await.remove(0);
    let mut signals = store.notices().signals();
    let watch = store.notices().watch(&id("1"));

    for action in [Action::Cancel(GRACE), Action::Cancel(GRACE), Action::Stop(GRACE)] {
        store.control(&id("1"), action, at(2)).await.unwrap();
    }

    let seen: Vec<_> =
        std::iter::from_fn(|| signals.try_recv().ok()).map(|notice| (notice.lease, notice.signal)).collect();
    assert_eq!(seen, [(lease.clone(), crate::job::Signal::Cancel), (lease.clone(), crate::job::Signal::Stop)]);
    let changed = watch.changed();
    finish(&store, &lease, Outcome::Stopped, at(3)).await;
    assert!(told(changed));
}

#[tokio::test]
async fn equal_states_give_equal_text_whatever_led_to_them() {
    let one = store_with([("1", spec("a")), ("2", spec("b"))]).await;
    let other = store_with([("2", spec("b")), ("1", spec("a"))]).await;
    let options = |paused| OptionsChange { paused: Some(paused), ..OptionsChange::default() };
    for paused in [true, false] {
        other.set_options(&name("a"), options(paused), at(1)).await.unwrap();
    }

    assert_eq!(one.dump().await.unwrap(), other.dump().await.unwrap());
    other.control(&id("1"), Action::Stop(GRACE), at(1)).await.unwrap();
    assert_ne!(one.dump().await.unwrap(), other.dump().await.unwrap());
}

#[tokio::test]
async fn audit_finds_what_must_not_be() {
    let store = store_with([("1", with_key(spec("a"))), ("2", spec("a"))]).await;
    {
        let mut inner = store.inner.lock();
        let job = inner.jobs.get_mut(&id("1")).unwrap();
        job.state.status = Status::Running;
        let twin = Job { id: id("3"), ..job.clone() };
        inner.jobs.insert(id("3"), twin);
    }

    let wrong = store.audit().await.unwrap().join("\n");

    for part in ["lease_iff_running", "hold the same unique key", "the indexes are not those of the records"] {
        assert!(wrong.contains(part), "{part} in {wrong}");
    }
}

#[tokio::test]
async fn lost_claim_is_unlisted_at_the_next_extend() {
    let store = store_with([("1", spec("copy")), ("2", spec("copy"))]).await;
    let leases = claim(&store, &ask(&["copy"], 2)).await;

    let extended = store.extend(&pool(), &leases[..1], at(4000) + LEASE, at(5)).await.unwrap();

    assert_eq!(extended, Extended { leases: vec![crate::store::Held::Held(None)], unlisted: vec![leases[1].clone()] });
    assert_eq!(store.reap(10, 0, at(3600)).await.unwrap().moved, 1, "only the unlisted one was not extended");
}
