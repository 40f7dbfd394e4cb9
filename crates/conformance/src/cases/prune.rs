//! What is past its time goes: `prune`. Jobs, hook events, idempotency keys; nodes are in the group `nodes`.

use std::time::Duration;

use jobservice_core::job::Status;
use jobservice_core::limits::HOOK_DEADLINE;
use jobservice_core::store::{Query, Settled};

use crate::bench::{Bench, one, seconds};

super::cases! { $ prune:
    final_job_is_pruned_at_its_expiry,
    job_is_kept_until_its_expiry,
    each_end_has_its_own_retention,
    jobs_that_are_not_final_are_never_pruned,
    prune_tells_what_it_removed,
    prune_keeps_to_its_limit_and_says_that_there_is_more,
    job_with_undelivered_events_is_kept,
    job_is_pruned_once_its_events_are_delivered,
    jobs_kept_for_their_events_do_not_hide_those_behind_them,
    events_past_their_deadline_go_and_then_their_job,
    events_before_their_deadline_stay,
    pruned_job_leaves_nothing_behind,
    retried_job_is_no_longer_pruned,
    kept_for_no_time_is_pruned_at_once,
}

async fn final_job_is_pruned_at_its_expiry(t: &Bench) {
    let id = t.bring(t.job("copy").retention(100), Status::Success).await;
    t.advance(seconds(100));

    let swept = t.prune().await;

    assert_eq!((swept.moved, swept.more, swept.removed), (1, false, vec![id.clone()]));
    assert_eq!(t.find(&id).await, None);
    assert_eq!(t.prune().await.moved, 0, "again");
}

async fn job_is_kept_until_its_expiry(t: &Bench) {
    let id = t.bring(t.job("copy").retention(100), Status::Success).await;
    t.advance(seconds(100) - Duration::from_millis(1));

    assert_eq!(t.prune().await.moved, 0);
    assert_eq!(t.status(&id).await, Status::Success);
}

async fn each_end_has_its_own_retention(t: &Bench) {
    const DAY: u64 = 24 * 3600;
    let mut jobs = Vec::new();
    for (status, days) in [(Status::Success, 3), (Status::Stopped, 7), (Status::Cancelled, 7), (Status::Error, 30)] {
        let id = t.with_status(status, "copy").await;
        assert_eq!(t.get(&id).await.state.expires_at, Some(t.now() + seconds(days * DAY)));
        jobs.push(id);
    }
    for (days, left) in [(3, 3), (4, 1), (23, 0)] {
        t.advance(seconds(days * DAY));
        t.prune().await;
        assert_eq!(t.list(Query::default()).await.len(), left);
    }
}

async fn jobs_that_are_not_final_are_never_pruned(t: &Bench) {
    let mut jobs = Vec::new();
    for status in [Status::Scheduled, Status::Running, Status::Pending] {
        jobs.push(t.bring(t.job("copy").retention(0), status).await);
    }
    t.advance(seconds(10 * 366 * 24 * 3600));

    assert_eq!(t.prune().await.removed, []);
    for id in jobs {
        t.get(&id).await;
    }
}

async fn prune_tells_what_it_removed(t: &Bench) {
    let mut gone = Vec::new();
    for status in [Status::Success, Status::Error, Status::Stopped, Status::Cancelled] {
        gone.push(t.bring(t.job("copy").retention(10), status).await);
    }
    t.bring(t.job("copy").retention(11), Status::Success).await;
    t.advance(seconds(10));

    let mut removed = t.prune().await.removed;

    removed.sort();
    assert_eq!(removed, gone, "their logs can go too");
}

async fn prune_keeps_to_its_limit_and_says_that_there_is_more(t: &Bench) {
    for _ in 0..5 {
        t.bring(t.job("copy").retention(10), Status::Success).await;
    }
    t.advance(seconds(10));
    let mut removed = Vec::new();
    for _ in 0..10 {
        let swept = t.store.prune(2, t.now()).await.unwrap();
        assert!(swept.removed.len() <= 2, "{swept:?}");
        removed.extend(swept.removed);
        if !swept.more {
            break;
        }
    }

    assert_eq!(removed.len(), 5);
    assert_eq!(t.list(Query::default()).await, []);
}

async fn job_with_undelivered_events_is_kept(t: &Bench) {
    let id = t.bring(t.job("copy").hook().retention(0), Status::Success).await;
    t.advance(HOOK_DEADLINE - seconds(1));

    assert_eq!(t.prune().await.removed, [], "its hook would be told of nothing");
    t.get(&id).await;
}

async fn job_is_pruned_once_its_events_are_delivered(t: &Bench) {
    let id = t.bring(t.job("copy").hook().retention(10), Status::Success).await;
    t.advance(seconds(20));
    let events = one(t.take_events().await).events;
    assert_eq!(t.prune().await.removed, [], "taken is not delivered");

    t.delivered(&id, events.last().unwrap().seq).await;

    assert_eq!(t.prune().await.removed, [id]);
}

/// Goal: a sweep gets to the end. Method: more jobs that must stay than its limit, all of them before one that must go.
async fn jobs_kept_for_their_events_do_not_hide_those_behind_them(t: &Bench) {
    for _ in 0..5 {
        t.bring(t.job("copy").hook().retention(1), Status::Success).await;
    }
    let last = t.bring(t.job("copy").retention(2), Status::Success).await;
    t.advance(seconds(10));

    let swept = t.store.prune(2, t.now()).await.unwrap();

    assert_eq!((swept.removed, swept.more), (vec![last], false));
}

async fn events_past_their_deadline_go_and_then_their_job(t: &Bench) {
    let id = t.bring(t.job("copy").hook().retention(10), Status::Success).await;
    t.advance(HOOK_DEADLINE);
    for _ in 0..3 {
        t.prune().await;
    }

    assert_eq!(t.find(&id).await, None, "an endpoint that is gone for good keeps nothing for ever");
    assert_eq!(t.take_events().await, []);
}

async fn events_before_their_deadline_stay(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.advance(HOOK_DEADLINE - seconds(1));
    t.finish_ok(&lease).await;
    t.advance(seconds(1));
    t.prune().await;

    let events = one(t.take_events().await).events;

    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2], "each has a deadline of its own");
}

async fn pruned_job_leaves_nothing_behind(t: &Bench) {
    let empty = t.store.dump().await.unwrap();
    let parent = t.id();
    let job = t.job("copy").tag("x").unique(1).upstream(&parent).idempotency_key("k").hook().retention(10);
    let id = t.bring(job, Status::Error).await;
    let events = one(t.take_events().await).events;
    let settled = Settled::Retry { at: t.now() + seconds(1), error: "503".into() };
    t.store.settle_event(&id, events[0].seq, settled, t.now()).await.unwrap();
    t.advance(HOOK_DEADLINE + seconds(100));

    for _ in 0..5 {
        t.prune().await;
    }

    assert_eq!(t.store.dump().await.unwrap(), empty);
    assert_eq!(t.list(Query { upstream: Some(parent), ..Query::default() }).await, []);
}

async fn retried_job_is_no_longer_pruned(t: &Bench) {
    let id = t.bring(t.job("copy").retention(10), Status::Error).await;
    t.retry(&id).await;
    t.advance(seconds(100));
    assert_eq!(t.prune().await.removed, []);

    t.finish_ok(&t.run_one("copy").await).await;
    t.advance(seconds(5));
    assert_eq!(t.prune().await.removed, [], "its time begins anew");
    t.advance(seconds(5));
    assert_eq!(t.prune().await.removed, [id]);
}

async fn kept_for_no_time_is_pruned_at_once(t: &Bench) {
    let id = t.bring(t.job("copy").retention(0), Status::Success).await;

    assert_eq!(t.prune().await.removed, [id]);
}
