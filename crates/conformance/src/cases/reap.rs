//! Runs are taken back: `reap`. Lost workers, runs over their timeout, runs that did not obey.

use jobservice_core::job::{AttemptOutcome, EndedHow, Status};
use jobservice_core::limits::{CRASH_DELAY, CRASHES_MAX, GRACE, LEASE};
use jobservice_core::retry;
use jobservice_core::store::Finished;

use crate::bench::{Bench, HELD, lease, seconds};

super::cases! { $ reap:
    job_of_a_lost_worker_waits_again_at_once,
    lease_is_not_reaped_before_its_end,
    second_crash_waits_ten_seconds,
    third_crash_is_the_end,
    crash_uses_up_no_try,
    lost_worker_keeps_the_place_of_its_job,
    lost_worker_of_a_signalled_job_ends_it,
    job_that_does_not_obey_is_closed_after_its_grace,
    grace_is_no_longer_than_was_said,
    run_over_its_timeout_and_grace_fails,
    run_over_its_timeout_may_still_finish_in_its_grace,
    timed_out_job_with_no_try_left_is_dead,
    timed_out_job_with_a_signal_ends_as_signalled,
    passed_grace_comes_before_a_lost_lease,
    reports_of_an_aborted_run_are_lost,
    reap_twice_moves_each_job_once,
    soonest_goes_first_within_the_limit,
    reap_tells_when_it_has_to_look_again,
    reaped_jobs_need_no_living_node,
    reaped_job_wakes_the_pools,
}

async fn job_of_a_lost_worker_waits_again_at_once(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE);

    let swept = t.reap().await;

    assert_eq!((swept.moved, swept.more, swept.removed.len()), (1, false, 0));
    let state = t.get(&lease.id).await.state;
    assert_eq!((state.status, state.lease), (Status::Pending, None));
    assert_eq!((state.crashes, state.fails, state.releases, state.attempt), (1, 0, 0, 1));
    assert_eq!(state.ended.unwrap().how, EndedHow::Reaped);
    assert_eq!(state.attempts[0].outcome, AttemptOutcome::WorkerLost);
    assert_eq!(state.error.as_deref(), Some("worker lost"));
}

async fn lease_is_not_reaped_before_its_end(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE - std::time::Duration::from_millis(1));

    assert_eq!(t.reap().await.moved, 0);
    assert_eq!(t.extend(&lease).await, HELD);
}

async fn second_crash_waits_ten_seconds(t: &Bench) {
    let id = crashed_twice(t).await;

    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.crashes), (Status::Scheduled, 2));
    assert_eq!(state.run_at, Some(t.now() + CRASH_DELAY));
    t.advance(CRASH_DELAY);
    t.promote().await;
    assert_eq!(t.ask(&["copy"]).ids().await, [id]);
}

async fn third_crash_is_the_end(t: &Bench) {
    let id = crashed_twice(t).await;
    t.advance(CRASH_DELAY);
    t.promote().await;
    t.claim_one("copy").await;

    t.lose_worker().await;

    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.crashes, state.fails), (Status::Error, CRASHES_MAX, 0));
    assert_eq!((state.die_at, state.error.as_deref()), (Some(t.now()), Some("worker lost 3 times")));
}

async fn crash_uses_up_no_try(t: &Bench) {
    let id = t.job("copy").max_fails(1).insert().await;
    t.claim_one("copy").await;

    t.lose_worker().await;

    assert_eq!(t.status(&id).await, Status::Pending);
    assert_eq!(t.finish_ok(&t.run_one("copy").await).await, Finished::Applied(Status::Success));
}

async fn lost_worker_keeps_the_place_of_its_job(t: &Bench) {
    let first = t.running("copy").await;
    let ready_at = t.get(&first.id).await.state.ready_at;
    t.advance(seconds(1));

    t.lose_worker().await;

    assert_eq!(t.get(&first.id).await.state.ready_at, ready_at);
}

async fn lost_worker_of_a_signalled_job_ends_it(t: &Bench) {
    let stopped = t.running("copy").await;
    let cancelled = t.running("copy").await;
    t.stop(&stopped.id).await;
    t.cancel(&cancelled.id).await;

    t.lose_worker().await;

    let state = t.get(&stopped.id).await.state;
    assert_eq!((state.status, state.signal, state.crashes), (Status::Stopped, None, 0));
    assert_eq!(state.ended.unwrap().how, EndedHow::Reaped);
    assert_eq!(t.status(&cancelled.id).await, Status::Cancelled);
}

async fn job_that_does_not_obey_is_closed_after_its_grace(t: &Bench) {
    let stopped = t.running("copy").await;
    let cancelled = t.running("copy").await;
    t.stop(&stopped.id).await;
    t.cancel(&cancelled.id).await;
    for _ in 0..6 {
        t.advance(seconds(5));
        t.extend_all(crate::bench::POOL, &[stopped.clone(), cancelled.clone()]).await;
    }

    assert_eq!(t.reap().await.moved, 2);

    let state = t.get(&stopped.id).await.state;
    assert_eq!((state.status, state.lease, state.signal), (Status::Stopped, None, None));
    assert_eq!((state.ended.unwrap().how, state.fails), (EndedHow::Aborted, 0));
    assert_eq!(t.status(&cancelled.id).await, Status::Cancelled);
}

async fn grace_is_no_longer_than_was_said(t: &Bench) {
    let lease = t.running("copy").await;
    let action = jobservice_core::store::Action::Stop(seconds(2));
    t.store.control(&lease.id, action, t.now()).await.unwrap();
    t.advance(seconds(2) - std::time::Duration::from_millis(1));
    assert_eq!(t.reap().await.moved, 0);

    t.advance(std::time::Duration::from_millis(1));

    assert_eq!(t.reap().await.moved, 1, "long before the lease ends");
    assert_eq!(t.status(&lease.id).await, Status::Stopped);
}

async fn run_over_its_timeout_and_grace_fails(t: &Bench) {
    let id = t.job("copy").timeout(seconds(90)).insert().await;
    let lease = lease(&t.ask(&["copy"]).lease(seconds(1000)).claim().await[0]);
    t.advance(seconds(90) + GRACE);

    let swept = t.store.reap(10, 3, t.now()).await.unwrap();

    assert_eq!(swept.moved, 1);
    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.fails, state.crashes), (Status::Scheduled, 1, 0));
    assert_eq!(state.error.as_deref(), Some("timed out after 90 s"));
    assert_eq!(state.run_at, Some(t.now() + retry::backoff(1, 3)));
    assert_eq!(state.attempts[0].outcome, AttemptOutcome::TimedOut);
    assert_eq!(state.ended.unwrap().how, EndedHow::Aborted);
    assert_eq!(t.finish_ok(&lease).await, Finished::LeaseLost);
}

async fn run_over_its_timeout_may_still_finish_in_its_grace(t: &Bench) {
    t.job("copy").timeout(seconds(90)).insert().await;
    let lease = lease(&t.ask(&["copy"]).lease(seconds(1000)).claim().await[0]);
    t.advance(seconds(90) + GRACE - seconds(1));

    assert_eq!(t.reap().await.moved, 0);
    assert_eq!(t.finish_ok(&lease).await, Finished::Applied(Status::Success));
}

async fn timed_out_job_with_no_try_left_is_dead(t: &Bench) {
    let id = t.job("copy").timeout(seconds(1)).max_fails(1).insert().await;
    t.ask(&["copy"]).lease(seconds(1000)).claim().await;
    t.advance(seconds(60));

    t.reap().await;

    assert_eq!(t.status(&id).await, Status::Error);
}

async fn timed_out_job_with_a_signal_ends_as_signalled(t: &Bench) {
    let id = t.job("copy").timeout(seconds(1)).insert().await;
    t.ask(&["copy"]).lease(seconds(1000)).claim().await;
    t.advance(GRACE);
    t.cancel(&id).await;
    t.advance(seconds(1));

    assert_eq!(t.reap().await.moved, 1, "its timeout and grace are over, that of the signal is not");

    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.fails), (Status::Cancelled, 0));
}

async fn passed_grace_comes_before_a_lost_lease(t: &Bench) {
    let lease = t.running("copy").await;
    t.stop(&lease.id).await;
    t.advance(seconds(3600));

    t.reap().await;

    let state = t.get(&lease.id).await.state;
    assert_eq!((state.status, state.ended.unwrap().how), (Status::Stopped, EndedHow::Aborted));
}

async fn reports_of_an_aborted_run_are_lost(t: &Bench) {
    let lease = t.running("copy").await;
    t.stop(&lease.id).await;
    t.advance(GRACE);
    t.reap().await;

    assert_eq!(t.finish_ok(&lease).await, Finished::LeaseLost);
    assert_eq!(t.release(&lease).await, Finished::LeaseLost);
    assert_eq!(t.status(&lease.id).await, Status::Stopped);
}

async fn reap_twice_moves_each_job_once(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE * 3);
    t.reap().await;
    let before = t.get(&lease.id).await;

    assert_eq!(t.reap().await.moved, 0);
    assert_eq!(t.get(&lease.id).await, before);
}

async fn soonest_goes_first_within_the_limit(t: &Bench) {
    for _ in 0..3 {
        t.job("copy").insert().await;
    }
    let third = t.ask(&["copy"]).lease(seconds(30)).claim().await[0].id.clone();
    let first = t.ask(&["copy"]).lease(seconds(10)).claim().await[0].id.clone();
    let second = t.ask(&["copy"]).lease(seconds(20)).claim().await[0].id.clone();
    t.advance(seconds(60));

    let swept = t.store.reap(2, 0, t.now()).await.unwrap();

    assert_eq!((swept.moved, swept.more), (2, true));
    let running = [t.status(&first).await, t.status(&second).await, t.status(&third).await];
    assert_eq!(running, [Status::Pending, Status::Pending, Status::Running]);
    assert_eq!(t.store.reap(2, 0, t.now()).await.unwrap().moved, 1);
    assert_eq!(t.store.reap(2, 0, t.now()).await.unwrap().moved, 0);
}

async fn reap_tells_when_it_has_to_look_again(t: &Bench) {
    let lease = t.running("copy").await;
    let end = t.now() + LEASE;
    let hint = t.reap().await.next_at;
    assert!(hint.is_none_or(|at| at == end), "{hint:?}");

    let action = jobservice_core::store::Action::Stop(seconds(2));
    t.store.control(&lease.id, action, t.now()).await.unwrap();
    let hint = t.reap().await.next_at;
    assert!(hint.is_none_or(|at| at == t.now() + seconds(2)), "a signal's grace ends sooner: {hint:?}");

    t.finish_ok(&lease).await;
    assert_eq!(t.reap().await.next_at, None, "nothing runs");
}

/// Goal: no job is orphaned because its node's own record is gone (or never was). Nodes only beat for people to see.
async fn reaped_jobs_need_no_living_node(t: &Bench) {
    t.job("copy").insert().await;
    let lost = t.ask(&["copy"]).pool("never-beat/01").ids().await;
    t.advance(jobservice_core::limits::NODE_FORGOTTEN_AFTER * 2);
    t.prune().await;

    t.reap().await;

    assert_eq!(t.ask(&["copy"]).ids().await, lost);
}

async fn reaped_job_wakes_the_pools(t: &Bench) {
    t.running("copy").await;
    t.advance(LEASE);
    let ready = t.store.notices().ready();

    t.reap().await;

    super::notices::told(ready).await;
}

async fn crashed_twice(t: &Bench) -> jobservice_core::JobId {
    let lease = t.running("copy").await;
    t.lose_worker().await;
    t.claim_one("copy").await;
    t.lose_worker().await;
    lease.id
}
