//! Hook events: one for each status change, in order per job, at least once, never in the way of the job.

use jobservice_core::job::Status;
use jobservice_core::lifecycle::HookEvent;
use jobservice_core::limits::LEASE;
use jobservice_core::store::{JobEvents, Settled};
use jobservice_core::{JobId, Time};

use crate::bench::{Bench, one, seconds};

super::cases! { $ outbox:
    each_status_change_has_one_event_in_order,
    job_without_a_hook_has_no_events,
    event_tells_what_happened_then_and_the_job_is_as_now,
    refused_and_repeated_reports_send_nothing,
    every_way_to_change_a_status_sends_an_event,
    check_in_sends_an_event,
    events_of_a_job_are_taken_as_a_whole_and_held,
    taken_events_come_again_after_the_hold,
    delivered_events_are_gone,
    events_after_the_delivered_one_stay,
    settling_twice_changes_nothing,
    settling_of_unknown_events_changes_nothing,
    failed_delivery_waits_and_is_counted,
    events_behind_a_failed_one_wait_with_it,
    event_that_joins_a_delivery_keeps_its_place,
    undelivered_check_in_is_replaced_by_a_newer_one,
    check_in_that_is_being_sent_is_not_replaced,
    check_in_never_replaces_a_status,
    oldest_event_goes_first_within_the_limit,
    two_takers_never_get_the_same_job,
    jobs_do_not_wait_for_each_other,
}

async fn each_status_change_has_one_event_in_order(t: &Bench) {
    let id = t.job("copy").hook().max_fails(2).insert().await;
    let lease = t.run_one("copy").await;
    t.advance(seconds(1));
    t.finish_failed(&lease).await;
    t.advance(seconds(60));
    t.promote().await;
    t.advance(seconds(1));
    let lease = t.run_one("copy").await;
    t.finish_failed(&lease).await;
    t.retry(&id).await;
    t.cancel(&id).await;

    let taken = one(t.take_events().await);

    let seen: Vec<(u32, Status, u32)> =
        taken.events.iter().map(|event| (event.seq, event.status, event.attempt)).collect();
    let expected = [
        (1, Status::Running, 1),
        (2, Status::Scheduled, 1),
        (3, Status::Pending, 1),
        (4, Status::Running, 2),
        (5, Status::Error, 2),
        (6, Status::Pending, 2),
        (7, Status::Cancelled, 2),
    ];
    assert_eq!(seen, expected);
    assert_eq!((taken.job.id, taken.tries), (id.clone(), 0));
    assert_eq!(t.get(&id).await.state.event_seq, 7);
}

async fn job_without_a_hook_has_no_events(t: &Bench) {
    let lease = t.running("copy").await;
    t.check_in(&lease, "50%").await;
    t.finish_ok(&lease).await;

    assert_eq!(t.take_events().await, []);
    assert_eq!(t.get(&lease.id).await.state.event_seq, 0);
}

async fn event_tells_what_happened_then_and_the_job_is_as_now(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.advance(seconds(1));
    t.finish(&lease, crate::bench::fatal("no disk")).await;
    let died_at = t.now();
    t.advance(seconds(1));
    t.retry(&lease.id).await;

    let taken = one(t.take_events().await);

    let death = HookEvent {
        seq: 2,
        status: Status::Error,
        attempt: 1,
        at: died_at,
        check_in: None,
        error: Some("no disk".into()),
    };
    assert_eq!(taken.events[1], death);
    assert_eq!(taken.job, t.get(&lease.id).await);
}

async fn refused_and_repeated_reports_send_nothing(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.stop(&lease.id).await;
    t.finish_ok(&lease).await;
    let before = seqs(&one(t.take_events().await));

    t.finish_ok(&lease).await;
    t.release(&lease).await;
    t.check_in(&lease, "late").await;
    t.extend(&lease).await;
    t.stop(&lease.id).await;
    t.retry(&lease.id).await;

    t.advance(seconds(60));
    assert_eq!(seqs(&one(t.take_events().await)), before, "and neither did the signal: no status changed");
    assert_eq!(before, [1, 2]);
}

/// Goal: no path forgets its event. Method: after each, the last event has the job's status and number.
async fn every_way_to_change_a_status_sends_an_event(t: &Bench) {
    let id = t.job("copy").hook().after(seconds(5)).insert().await;
    t.advance(seconds(5));
    t.promote().await;
    expect_last(t, &id, Status::Pending).await;
    let lease = t.run_one("copy").await;
    expect_last(t, &id, Status::Running).await;
    t.release(&lease).await;
    expect_last(t, &id, Status::Pending).await;
    t.claim_one("copy").await;
    t.advance(LEASE);
    t.reap().await;
    expect_last(t, &id, Status::Pending).await;
    t.stop(&id).await;
    expect_last(t, &id, Status::Stopped).await;

    let policy = t.policy("copy").put().await;
    let waiting = t.job("copy").hook().upstream(&policy).insert().await;
    t.stop(&policy).await;
    expect_last(t, &waiting, Status::Stopped).await;

    let policy = t.policy("copy").overlap(jobservice_core::policy::Overlap::Replace).put().await;
    let waiting = t.job("copy").hook().upstream(&policy).insert().await;
    t.advance(seconds(60));
    super::fire::fire_one(t, &policy).await;
    expect_last(t, &waiting, Status::Stopped).await;
}

async fn expect_last(t: &Bench, id: &JobId, status: Status) {
    let taken = t.take_events().await;
    let events = &taken.iter().find(|taken| taken.job.id == *id).unwrap_or_else(|| panic!("events of {id}")).events;
    let last = events.last().unwrap();
    assert_eq!((last.seq, last.status), (t.get(id).await.state.event_seq, status));
    t.delivered(id, last.seq).await;
}

async fn check_in_sends_an_event(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.advance(seconds(1));

    t.check_in(&lease, "50%").await;

    let events = one(t.take_events().await).events;
    let expected = HookEvent {
        seq: 2,
        status: Status::Running,
        attempt: 1,
        at: t.now(),
        check_in: Some("50%".into()),
        error: None,
    };
    assert_eq!(events[1], expected);
}

async fn events_of_a_job_are_taken_as_a_whole_and_held(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.finish_ok(&lease).await;

    assert_eq!(seqs(&one(t.take_events().await)), [1, 2]);
    t.advance(seconds(59));
    assert_eq!(t.take_events().await, [], "somebody is sending them");
}

async fn taken_events_come_again_after_the_hold(t: &Bench) {
    t.hooked_run("copy").await;
    let first = t.take_events().await;
    t.advance(seconds(60));

    assert_eq!(t.take_events().await, first, "who took them may have died; a hold that ended is no failed try");
}

async fn delivered_events_are_gone(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.finish_ok(&lease).await;
    t.take_events().await;

    t.delivered(&lease.id, 2).await;

    t.advance(seconds(600));
    assert_eq!(t.take_events().await, []);
}

async fn events_after_the_delivered_one_stay(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.finish_ok(&lease).await;
    t.take_events().await;

    t.delivered(&lease.id, 1).await;

    assert_eq!(t.take_events().await, [], "who took them goes on with the next");
    t.advance(seconds(60));
    assert_eq!(seqs(&one(t.take_events().await)), [2]);
}

async fn settling_twice_changes_nothing(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.take_events().await;
    t.delivered(&lease.id, 1).await;
    t.finish_ok(&lease).await;
    let before = t.store.dump().await.unwrap();

    t.delivered(&lease.id, 1).await;
    t.store.settle_event(&lease.id, 1, failed(t.now() + seconds(99)), t.now()).await.unwrap();

    assert_eq!(t.store.dump().await.unwrap(), before, "neither told done nor told failed again");
    assert_eq!(seqs(&one(t.take_events().await)), [2]);
}

async fn settling_of_unknown_events_changes_nothing(t: &Bench) {
    t.delivered(&t.id(), 1).await;
    let silent = t.job("copy").insert().await;
    t.delivered(&silent, 1).await;
    t.store.settle_event(&silent, 1, failed(t.now()), t.now()).await.unwrap();

    assert_eq!(t.take_events().await, []);
}

async fn failed_delivery_waits_and_is_counted(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    for tries in 0..3 {
        assert_eq!(one(t.take_events().await).tries, tries);
        t.store.settle_event(&lease.id, 1, failed(t.now() + seconds(10)), t.now()).await.unwrap();

        t.advance(seconds(9));
        assert_eq!(t.take_events().await, [], "not before its time");
        t.advance(seconds(1));
    }
    t.take_events().await;
    t.delivered(&lease.id, 1).await;
    t.finish_ok(&lease).await;

    assert_eq!(one(t.take_events().await).tries, 0, "the next event begins anew");
}

async fn events_behind_a_failed_one_wait_with_it(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.finish_ok(&lease).await;
    t.take_events().await;

    t.store.settle_event(&lease.id, 1, failed(t.now() + seconds(100)), t.now()).await.unwrap();

    t.advance(seconds(99));
    assert_eq!(t.take_events().await, []);
    t.advance(seconds(1));
    assert_eq!(seqs(&one(t.take_events().await)), [1, 2], "in their order");

    t.store.settle_event(&lease.id, 1, failed(t.now() + seconds(100)), t.now()).await.unwrap();
    t.delivered(&lease.id, 1).await;
    t.advance(seconds(99));
    assert_eq!(t.take_events().await, [], "also when the failed one has arrived after all");
    t.advance(seconds(1));
    assert_eq!(seqs(&one(t.take_events().await)), [2]);
}

async fn event_that_joins_a_delivery_keeps_its_place(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.take_events().await;
    t.finish_ok(&lease).await;
    assert_eq!(t.take_events().await, [], "it must not overtake the one on its way");

    t.delivered(&lease.id, 1).await;

    assert_eq!(seqs(&one(t.take_events().await)), [2], "and need not wait for the end of the hold");
}

async fn undelivered_check_in_is_replaced_by_a_newer_one(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    for percent in 0..100 {
        t.check_in(&lease, &format!("{percent}%")).await;
    }

    let events = one(t.take_events().await).events;

    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 101]);
    assert_eq!(events[1].check_in.as_deref(), Some("99%"));
}

async fn check_in_that_is_being_sent_is_not_replaced(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.check_in(&lease, "10%").await;
    t.take_events().await;
    t.check_in(&lease, "20%").await;
    t.check_in(&lease, "30%").await;
    t.advance(seconds(60));
    assert_eq!(seqs(&one(t.take_events().await)), [1, 2, 4], "who sent it may not have come to the end");

    t.delivered(&lease.id, 2).await;
    t.advance(seconds(60));
    assert_eq!(seqs(&one(t.take_events().await)), [4]);
}

async fn check_in_never_replaces_a_status(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.check_in(&lease, "10%").await;
    t.release(&lease).await;
    let lease = t.run_one("copy").await;
    t.check_in(&lease, "20%").await;

    let events = one(t.take_events().await).events;

    let statuses: Vec<Status> =
        events.iter().filter(|event| event.check_in.is_none()).map(|event| event.status).collect();
    assert_eq!(statuses, [Status::Running, Status::Pending, Status::Running]);
    assert_eq!(events.last().unwrap().check_in.as_deref(), Some("20%"));
    assert!(events.is_sorted_by_key(|event| event.seq));
}

async fn oldest_event_goes_first_within_the_limit(t: &Bench) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(t.hooked_run("copy").await.id);
        t.advance(seconds(1));
    }
    let take = async |limit| {
        let taken = t.store.take_events(limit, t.now() + seconds(60), t.now()).await.unwrap();
        taken.into_iter().map(|taken| taken.job.id).collect::<Vec<_>>()
    };

    assert_eq!(take(2).await, ids[..2]);
    assert_eq!(take(2).await, ids[2..]);
    assert_eq!(take(2).await, []);
}

async fn two_takers_never_get_the_same_job(t: &Bench) {
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(t.hooked_run("copy").await.id);
    }
    let (now, until) = (t.now(), t.now() + seconds(60));
    let (one, two) = tokio::join!(t.store.take_events(6, until, now), t.store.take_events(6, until, now));

    let mut taken: Vec<JobId> = one.unwrap().into_iter().chain(two.unwrap()).map(|taken| taken.job.id).collect();
    taken.sort();

    assert_eq!(taken, ids);
}

async fn jobs_do_not_wait_for_each_other(t: &Bench) {
    let slow = t.hooked_run("copy").await;
    t.take_events().await;
    t.store.settle_event(&slow.id, 1, failed(t.now() + seconds(3600)), t.now()).await.unwrap();

    let quick = t.hooked_run("copy").await;

    assert_eq!(one(t.take_events().await).job.id, quick.id);
}

fn failed(at: Time) -> Settled {
    Settled::Retry { at, error: "503".into() }
}

fn seqs(taken: &JobEvents) -> Vec<u32> {
    taken.events.iter().map(|event| event.seq).collect()
}
