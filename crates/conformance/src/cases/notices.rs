//! Hints: who waits for work, for events, for a job's end, is woken by what the store commits.
//!
//! A notice is a hint and may be missing; but a store that never gave one would make everybody wait for the next poll.
//! So each is demanded here, for calls on the store's own process.

use std::future::Future;

use jobservice_core::notices::SignalNotice;
use jobservice_core::store::{Act, Action, Query};
use tokio::sync::broadcast;

use crate::bench::{Bench, seconds};

super::cases! { $ notices:
    insert_wakes_the_pools,
    release_wakes_the_pools,
    retry_wakes_the_pools,
    act_on_many_wakes_the_pools_and_tells_of_signals,
    resumed_name_wakes_the_pools,
    end_of_a_run_at_its_limit_wakes_the_pools,
    fired_execution_wakes_the_pools,
    event_wakes_hook_delivery,
    each_change_of_a_watched_job_wakes_its_watcher,
    waiter_registered_before_the_change_does_not_sleep_through_it,
}

/// Waits until a notice came. It is given at the latest when the call is answered, or by a thread of the store just
/// after; the minute is only there so that a missing one is a failure and not an endless test.
pub(super) async fn told(notice: impl Future<Output = ()>) {
    // bounded poll
    tokio::time::timeout(seconds(60), notice).await.expect("the store gives notice of what it committed");
}

/// Waits until a pool was told of a signal.
pub(super) async fn next_signal(signals: &mut broadcast::Receiver<SignalNotice>) -> SignalNotice {
    // bounded poll
    let signal = tokio::time::timeout(seconds(60), signals.recv()).await.expect("the store tells the pool of a signal");
    signal.expect("the store lives, and its notices are not too many")
}

async fn insert_wakes_the_pools(t: &Bench) {
    let ready = t.store.notices().ready();

    t.job("copy").insert().await;

    told(ready).await;
}

async fn release_wakes_the_pools(t: &Bench) {
    let lease = t.running("copy").await;
    let ready = t.store.notices().ready();

    t.release(&lease).await;

    told(ready).await;
}

async fn retry_wakes_the_pools(t: &Bench) {
    let id = t.with_status(jobservice_core::Status::Error, "copy").await;
    let ready = t.store.notices().ready();

    t.retry(&id).await;

    told(ready).await;
}

async fn act_on_many_wakes_the_pools_and_tells_of_signals(t: &Bench) {
    let dead = t.with_status(jobservice_core::Status::Error, "copy").await;
    let lease = t.running("move").await;
    let ready = t.store.notices().ready();
    let mut signals = t.store.notices().signals();
    let act = async |id, action| t.store.act(&[id], &Query::default(), Act::Control(action), t.now()).await.unwrap();

    act(dead, Action::Retry { next_due: None }).await;
    act(lease.id.clone(), Action::Stop(seconds(5))).await;

    told(ready).await;
    assert_eq!(next_signal(&mut signals).await.lease, lease);
}

async fn resumed_name_wakes_the_pools(t: &Bench) {
    use jobservice_core::store::OptionsChange;
    let name = crate::bench::name("copy");
    let pause = OptionsChange { paused: Some(true), ..OptionsChange::default() };
    t.store.set_options(&name, pause, t.now()).await.unwrap();
    t.job("copy").insert().await;
    let ready = t.store.notices().ready();

    let resume = OptionsChange { paused: Some(false), ..OptionsChange::default() };
    t.store.set_options(&name, resume, t.now()).await.unwrap();

    told(ready).await;
}

/// A pool on another thread may have been turned away by the limit; only the end of the run makes room.
async fn end_of_a_run_at_its_limit_wakes_the_pools(t: &Bench) {
    use jobservice_core::store::OptionsChange;
    let limit = OptionsChange { max_concurrency: Some(Some(1)), ..OptionsChange::default() };
    t.store.set_options(&crate::bench::name("copy"), limit, t.now()).await.unwrap();
    let lease = t.running("copy").await;
    t.job("copy").insert().await;
    assert_eq!(t.ask(&["copy"]).claim().await, []);
    let ready = t.store.notices().ready();

    t.finish_ok(&lease).await;

    told(ready).await;
}

async fn fired_execution_wakes_the_pools(t: &Bench) {
    let policy = t.policy("copy").put().await;
    t.advance(seconds(60));
    let ready = t.store.notices().ready();

    super::fire::fire_one(t, &policy).await;

    told(ready).await;
}

async fn event_wakes_hook_delivery(t: &Bench) {
    t.job("copy").hook().insert().await;
    let events = t.store.notices().events();

    t.claim_one("copy").await;

    told(events).await;
}

async fn each_change_of_a_watched_job_wakes_its_watcher(t: &Bench) {
    let id = t.job("copy").insert().await;
    let watch = t.store.notices().watch(&id);

    let changed = watch.changed();
    let lease = t.run_one("copy").await;
    told(changed).await;

    let changed = watch.changed();
    t.finish_failed(&lease).await;
    told(changed).await;

    t.advance(seconds(60));
    let changed = watch.changed();
    t.promote().await;
    told(changed).await;

    let changed = watch.changed();
    t.store.control(&id, Action::Cancel(seconds(1)), t.now()).await.unwrap();
    told(changed).await;

    let changed = watch.changed();
    t.retry(&id).await;
    told(changed).await;

    t.claim_one("copy").await;
    t.advance(seconds(10));
    let changed = watch.changed();
    t.reap().await;
    told(changed).await;
}

/// Goal: the order "register, look, wait" misses nothing. Method: the change comes between the look and the wait.
async fn waiter_registered_before_the_change_does_not_sleep_through_it(t: &Bench) {
    for _ in 0..20 {
        let ready = t.store.notices().ready();
        assert_eq!(t.ask(&["copy"]).claim().await, []);

        t.job("copy").insert().await;

        told(ready).await;
        let lease = t.run_one("copy").await;
        t.finish_ok(&lease).await;
    }
}
