//! What became of hook events: kept for a while, shown, and sent again.

use std::collections::BTreeSet;

use jobservice_core::lifecycle::HookEvent;
use jobservice_core::limits::{HOOK_DEADLINE, HOOK_EVENTS_KEPT};
use jobservice_core::store::{Delivery, JobEvents, OutboxEntry, Resent, Settled};
use jobservice_core::{JobId, Status};

use crate::bench::{Bench, one, seconds};

super::cases! { $ deliveries:
    waiting_events_are_shown_with_their_next_try,
    delivered_event_is_kept_with_its_time,
    event_past_its_deadline_is_kept_as_given_up,
    postponed_events_wait_and_count_no_try,
    postponing_what_is_settled_changes_nothing,
    receiver_that_is_gone_settles_all_that_wait,
    events_after_the_receiver_is_gone_say_so,
    sending_again_takes_the_receiver_for_willing,
    only_the_newest_settled_events_are_kept,
    delivered_event_is_sent_again,
    event_sent_again_goes_before_those_that_wait,
    event_sent_again_while_a_later_one_is_on_its_way_is_sent,
    event_sent_again_has_a_new_deadline,
    event_sent_again_is_not_replaced_by_a_check_in,
    waiting_event_that_is_sent_again_has_its_turn_now,
    sending_again_is_safe_to_repeat,
    sending_again_wakes_the_delivery,
    what_is_not_there_is_not_sent_again,
    events_go_with_their_job,
    job_with_an_event_sent_again_is_not_pruned,
    events_of_jobs_without_any_are_none,
}

async fn events(t: &Bench, id: &JobId) -> Vec<OutboxEntry> {
    t.store.events(id).await.unwrap()
}

async fn settle(t: &Bench, id: &JobId, seq: u32, settled: Settled) {
    t.store.settle_event(id, seq, settled, t.now()).await.unwrap();
}

async fn resend(t: &Bench, id: &JobId, seq: u32) -> Resent {
    t.store.resend_event(id, seq, t.now()).await.unwrap()
}

fn states(entries: &[OutboxEntry]) -> Vec<(u32, Delivery)> {
    entries.iter().map(|entry| (entry.event.seq, entry.delivery)).collect()
}

fn seqs(taken: &JobEvents) -> Vec<u32> {
    taken.events.iter().map(|event| event.seq).collect()
}

/// A job with a hook that ran to its end: events 1 (running) and 2 (success).
async fn succeeded(t: &Bench) -> JobId {
    let lease = t.hooked_run("copy").await;
    t.finish_ok(&lease).await;
    lease.id
}

async fn waiting_events_are_shown_with_their_next_try(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    let at = t.now() + seconds(15);

    settle(t, &id, 1, Settled::Retry { at, error: "503".into() }).await;

    let shown = events(t, &id).await;
    let first = HookEvent {
        seq: 1,
        status: Status::Running,
        attempt: 1,
        at: t.now(),
        check_in: None,
        error: None,
    };
    let expected = OutboxEntry { tries: 1, error: Some("503".into()), next_at: at, ..OutboxEntry::new(id.clone(), first) };
    assert_eq!(shown[0], expected);
    assert_eq!((shown[1].next_at, shown[1].tries, &shown[1].error), (at, 0, &None), "it was not tried itself");
}

async fn delivered_event_is_kept_with_its_time(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    settle(t, &id, 1, Settled::Retry { at: t.now(), error: "503".into() }).await;
    t.take_events().await;
    t.advance(seconds(7));

    t.delivered(&id, 1).await;

    let shown = events(t, &id).await;
    assert_eq!(states(&shown), [(1, Delivery::Delivered), (2, Delivery::Waiting)]);
    assert_eq!((shown[0].next_at, shown[0].tries), (t.now(), 1));
    assert_eq!(shown[0].error.as_deref(), Some("503"), "why the last failed try did");
    t.advance(seconds(1));
    let before = events(t, &id).await;
    t.delivered(&id, 1).await;
    assert_eq!(events(t, &id).await, before, "the first answer counts");
}

async fn event_past_its_deadline_is_kept_as_given_up(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.take_events().await;
    settle(t, &lease.id, 1, Settled::Retry { at: t.now() + seconds(1), error: "503".into() }).await;
    t.advance(HOOK_DEADLINE);

    t.prune().await;

    let shown = events(t, &lease.id).await;
    assert_eq!(states(&shown), [(1, Delivery::GivenUp)]);
    assert_eq!((shown[0].next_at, shown[0].error.as_deref()), (t.now(), Some("503")));
    assert_eq!(t.take_events().await, []);
}

async fn postponed_events_wait_and_count_no_try(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;

    settle(t, &id, 1, Settled::Later { at: t.now() + seconds(10) }).await;

    t.advance(seconds(9));
    assert_eq!(t.take_events().await, []);
    t.advance(seconds(1));
    let taken = one(t.take_events().await);
    assert_eq!((seqs(&taken), taken.tries), (vec![1, 2], 0));
    assert_eq!(events(t, &id).await[0].error, None);
}

async fn postponing_what_is_settled_changes_nothing(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    t.delivered(&id, 1).await;
    let before = t.store.dump().await.unwrap();

    settle(t, &id, 1, Settled::Later { at: t.now() + seconds(10) }).await;
    settle(t, &t.id(), 1, Settled::Later { at: t.now() }).await;

    assert_eq!(t.store.dump().await.unwrap(), before);
}

async fn receiver_that_is_gone_settles_all_that_wait(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.take_events().await;
    t.delivered(&lease.id, 1).await;
    t.check_in(&lease, "50%").await;
    t.take_events().await;
    t.finish_ok(&lease).await;

    settle(t, &lease.id, 2, Settled::Gone { error: "410".into() }).await;

    let shown = events(t, &lease.id).await;
    assert_eq!(states(&shown), [(1, Delivery::Delivered), (2, Delivery::Gone), (3, Delivery::Gone)]);
    assert_eq!(shown[2].error.as_deref(), Some("410"));
}

async fn events_after_the_receiver_is_gone_say_so(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    assert!(!one(t.take_events().await).gone);
    settle(t, &lease.id, 1, Settled::Gone { error: "410".into() }).await;
    t.finish_ok(&lease).await;

    let taken = one(t.take_events().await);

    assert_eq!((seqs(&taken), taken.gone), (vec![2], true), "whoever takes it need not ask the receiver again");
}

async fn sending_again_takes_the_receiver_for_willing(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    settle(t, &id, 2, Settled::Gone { error: "410".into() }).await;

    resend(t, &id, 2).await;

    let taken = one(t.take_events().await);
    assert_eq!((seqs(&taken), taken.gone), (vec![2], false));
    assert_eq!(states(&events(t, &id).await), [(1, Delivery::GivenUp), (2, Delivery::Waiting)]);
}

async fn only_the_newest_settled_events_are_kept(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    let most = u32::try_from(HOOK_EVENTS_KEPT).unwrap();
    for seq in 2..=most + 5 {
        t.check_in(&lease, "on").await;
        t.take_events().await;
        t.delivered(&lease.id, seq).await;
    }
    t.finish_ok(&lease).await;

    let shown = events(t, &lease.id).await;

    let kept: Vec<u32> = shown.iter().map(|entry| entry.event.seq).collect();
    assert_eq!(kept, (6..=most + 6).collect::<Vec<_>>(), "and one that waits");
    assert_eq!(resend(t, &lease.id, 5).await, Resent::NoEvent);
}

async fn delivered_event_is_sent_again(t: &Bench) {
    let id = succeeded(t).await;
    let taken = one(t.take_events().await);
    t.delivered(&id, 2).await;
    t.advance(seconds(100));

    assert_eq!(resend(t, &id, 1).await, Resent::Done);

    let again = one(t.take_events().await);
    assert_eq!(again.events, taken.events[..1], "the same event, at the time when it happened");
    t.delivered(&id, 1).await;
    assert_eq!(states(&events(t, &id).await), [(1, Delivery::Delivered), (2, Delivery::Delivered)]);
    t.advance(seconds(600));
    assert_eq!(t.take_events().await, [], "once");
}

/// What becomes of the later one is no news of the earlier one.
async fn event_sent_again_while_a_later_one_is_on_its_way_is_sent(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.take_events().await;
    t.delivered(&lease.id, 1).await;
    t.finish_ok(&lease).await;
    assert_eq!(seqs(&one(t.take_events().await)), [2]);
    assert_eq!(resend(t, &lease.id, 1).await, Resent::Done);

    settle(t, &lease.id, 2, Settled::Retry { at: t.now(), error: "503".into() }).await;

    let tries: Vec<u32> = events(t, &lease.id).await.iter().map(|entry| entry.tries).collect();
    assert_eq!(tries, [0, 1]);

    settle(t, &lease.id, 2, Settled::Done).await;

    assert_eq!(states(&events(t, &lease.id).await), [(1, Delivery::Waiting), (2, Delivery::Delivered)]);
    assert_eq!(seqs(&one(t.take_events().await)), [1]);
}

async fn event_sent_again_goes_before_those_that_wait(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.take_events().await;
    t.delivered(&lease.id, 1).await;
    t.finish_ok(&lease).await;
    t.take_events().await;
    settle(t, &lease.id, 2, Settled::Retry { at: t.now() + seconds(300), error: "503".into() }).await;

    resend(t, &lease.id, 1).await;

    let taken = one(t.take_events().await);
    assert_eq!((seqs(&taken), taken.tries), (vec![1, 2], 0));
}

async fn event_sent_again_has_a_new_deadline(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    t.delivered(&id, 2).await;
    t.advance(HOOK_DEADLINE);
    resend(t, &id, 2).await;
    t.advance(HOOK_DEADLINE - seconds(1));
    t.prune().await;
    assert_eq!(seqs(&one(t.take_events().await)), [2]);

    t.advance(seconds(1));
    t.prune().await;

    assert_eq!(events(t, &id).await[1].delivery, Delivery::GivenUp);
}

async fn event_sent_again_is_not_replaced_by_a_check_in(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.check_in(&lease, "10%").await;
    t.take_events().await;
    t.delivered(&lease.id, 2).await;

    resend(t, &lease.id, 2).await;
    t.check_in(&lease, "20%").await;

    assert_eq!(seqs(&one(t.take_events().await)), [2, 3], "somebody asked for it");
}

async fn waiting_event_that_is_sent_again_has_its_turn_now(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    settle(t, &id, 1, Settled::Retry { at: t.now() + seconds(7200), error: "503".into() }).await;

    assert_eq!(resend(t, &id, 2).await, Resent::Done);

    let taken = one(t.take_events().await);
    assert_eq!((seqs(&taken), taken.tries), (vec![1, 2], 1), "in its order, so the one before it too");
}

async fn sending_again_is_safe_to_repeat(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    t.delivered(&id, 2).await;
    resend(t, &id, 1).await;
    let before = t.store.dump().await.unwrap();

    assert_eq!(resend(t, &id, 1).await, Resent::Done);

    assert_eq!(t.store.dump().await.unwrap(), before);
}

async fn sending_again_wakes_the_delivery(t: &Bench) {
    let id = succeeded(t).await;
    t.take_events().await;
    t.delivered(&id, 2).await;
    let woken = t.store.notices().events();

    resend(t, &id, 1).await;

    tokio::time::timeout(seconds(5), woken).await.unwrap();
}

async fn what_is_not_there_is_not_sent_again(t: &Bench) {
    let id = succeeded(t).await;
    let silent = t.job("copy").insert().await;

    assert_eq!(resend(t, &id, 3).await, Resent::NoEvent);
    assert_eq!(resend(t, &silent, 1).await, Resent::NoEvent);
    assert_eq!(resend(t, &t.id(), 1).await, Resent::NoJob);
}

async fn events_go_with_their_job(t: &Bench) {
    let empty = t.store.dump().await.unwrap();
    let id = succeeded(t).await;
    t.take_events().await;
    t.delivered(&id, 1).await;

    t.delete(&id).await;

    assert_eq!(events(t, &id).await, []);
    assert_eq!(t.store.dump().await.unwrap(), empty);
}

async fn job_with_an_event_sent_again_is_not_pruned(t: &Bench) {
    let id = t.bring(t.job("copy").hook().retention(10), Status::Success).await;
    t.take_events().await;
    t.delivered(&id, 2).await;
    resend(t, &id, 1).await;
    t.advance(seconds(20));
    assert_eq!(t.prune().await.removed, []);

    t.delivered(&id, 1).await;

    assert_eq!(t.prune().await.removed, [id]);
}

async fn events_of_jobs_without_any_are_none(t: &Bench) {
    let lease = t.running("copy").await;
    t.finish_ok(&lease).await;

    assert_eq!(events(t, &lease.id).await, []);
    assert_eq!(events(t, &t.id()).await, []);
    let known: BTreeSet<&str> = Delivery::ALL.iter().map(|delivery| delivery.as_str()).collect();
    assert_eq!(known.len(), Delivery::ALL.len(), "each has a word of its own");
}
