//! Ticks: `fire` is one step on any number of nodes.

use jobservice_core::job::{Kind, Signal, Status};
use jobservice_core::policy::{Overlap, PolicyEvent, Tick};
use jobservice_core::store::{Fired, NewJob, Query};
use jobservice_core::{JobId, Time};

use crate::bench::{Bench, lease, one, seconds};

use super::notices::next_signal;
use super::policies::get;

super::cases! { $ fire:
    due_tick_fires_and_moves_the_due_time,
    tick_fires_once_however_often_it_is_asked_for,
    tick_is_never_early,
    tick_of_a_changed_policy_is_stale,
    tick_planned_from_another_version_is_stale,
    tick_of_an_unknown_policy_is_stale,
    policy_without_a_further_time_fires_its_last,
    overlap_allow_fires_beside_the_earlier,
    overlap_skip_counts_and_passes,
    overlap_skip_fires_once_the_earlier_is_final,
    overlap_queue_waits_for_the_earlier,
    overlap_replace_stops_the_earlier,
    missed_ticks_are_counted,
    missed_ticks_that_are_all_skipped_make_no_execution,
    several_executions_of_one_step_are_inserted_together,
    unique_execution_that_waits_already_is_skipped,
    execution_is_a_job_like_any_other,
    dead_execution_does_not_stop_the_policy,
}

async fn due_tick_fires_and_moves_the_due_time(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(63));
    let job = execution(t, &id);
    let execution_id = job.job.id.clone();

    let fired = t.store.fire(&id, &tick(due, Some(due + seconds(60))), vec![job], t.now()).await.unwrap();

    assert_eq!(fired, Fired::Fired(vec![execution_id.clone()]));
    let state = get(t, &id).await.state;
    assert_eq!((state.next_due, state.last_fired), (Some(due + seconds(60)), Some(due)));
    assert_eq!((state.fired, state.skipped, state.version, state.updated_at), (1, 0, 2, t.now()));
    assert_eq!(t.list(Query { upstream: Some(id), ..Query::default() }).await, [execution_id]);
}

async fn tick_fires_once_however_often_it_is_asked_for(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(60));
    let tick = tick(due, Some(due + seconds(60)));
    t.store.fire(&id, &tick, vec![execution(t, &id)], t.now()).await.unwrap();
    let before = t.store.dump().await.unwrap();

    for _ in 0..3 {
        assert_eq!(t.store.fire(&id, &tick, vec![execution(t, &id)], t.now()).await.unwrap(), Fired::Stale);
    }

    assert_eq!(t.store.dump().await.unwrap(), before);
}

async fn tick_is_never_early(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(59));

    let fired = t.store.fire(&id, &tick(due, None), vec![execution(t, &id)], t.now()).await.unwrap();

    assert_eq!(fired, Fired::Stale);
    assert_eq!(get(t, &id).await.state.next_due, Some(due));
}

async fn tick_of_a_changed_policy_is_stale(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    let due = t.now() + seconds(60);
    t.policy("copy").key("nightly").cron("30 2 * * *").next_due(Some(due + seconds(1))).try_put().await;
    t.advance(seconds(70));

    let fired = t.store.fire(&id, &tick(due, None), vec![execution(t, &id)], t.now()).await.unwrap();

    assert_eq!(fired, Fired::Stale);
}

/// Goal: executions are made of what a policy is, not of what it was when somebody read it.
async fn tick_planned_from_another_version_is_stale(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(60));
    let seen = get(t, &id).await.state.version;
    let failed = PolicyEvent::FireFailed("anything that changes it".into());
    t.store.change_policy(&id, &failed, t.now()).await.unwrap();

    let of = |version| Tick { version: Some(version), ..tick(due, Some(due + seconds(60))) };
    let stale = t.store.fire(&id, &of(seen), vec![execution(t, &id)], t.now()).await.unwrap();
    let fired = t.store.fire(&id, &of(seen + 1), vec![execution(t, &id)], t.now()).await.unwrap();

    assert_eq!(stale, Fired::Stale);
    assert!(matches!(fired, Fired::Fired(_)));
}

async fn tick_of_an_unknown_policy_is_stale(t: &Bench) {
    let job = t.job("copy").insert().await;
    for id in [t.id(), job] {
        let fired = t.store.fire(&id, &tick(t.now(), None), vec![execution(t, &id)], t.now()).await.unwrap();
        assert_eq!(fired, Fired::Stale);
    }
}

async fn policy_without_a_further_time_fires_its_last(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(60));

    let fired = t.store.fire(&id, &tick(due, None), vec![execution(t, &id)], t.now()).await.unwrap();

    assert!(matches!(fired, Fired::Fired(_)));
    assert_eq!(get(t, &id).await.state.next_due, None);
}

async fn overlap_allow_fires_beside_the_earlier(t: &Bench) {
    let id = t.policy("copy").overlap(Overlap::Allow).put().await;
    t.advance(seconds(60));
    let first = fire_one(t, &id).await;
    t.claim_one("copy").await;
    t.advance(seconds(60));

    let second = fire_one(t, &id).await;

    assert_eq!([t.status(&first).await, t.status(&second).await], [Status::Running, Status::Pending]);
}

async fn overlap_skip_counts_and_passes(t: &Bench) {
    let id = t.policy("copy").overlap(Overlap::Skip).put().await;
    t.advance(seconds(60));
    fire_one(t, &id).await;
    t.advance(seconds(60));
    let due = t.now();

    let fired =
        t.store.fire(&id, &tick(due, Some(due + seconds(60))), vec![execution(t, &id)], t.now()).await.unwrap();

    assert_eq!(fired, Fired::Skipped);
    let state = get(t, &id).await.state;
    assert_eq!((state.fired, state.skipped), (1, 1));
    assert_eq!((state.next_due, state.last_fired), (Some(due + seconds(60)), Some(due - seconds(60))));
    assert_eq!(t.list(Query::default()).await.len(), 1);
}

/// Not final is what overlaps: waiting, running, and waiting for its next try.
async fn overlap_skip_fires_once_the_earlier_is_final(t: &Bench) {
    let id = t.policy("copy").overlap(Overlap::Skip).put().await;
    t.advance(seconds(60));
    fire_one(t, &id).await;
    let lease = t.run_one("copy").await;
    t.advance(seconds(60));
    assert_eq!(fire_next(t, &id).await, Fired::Skipped, "while it runs");
    t.finish_failed(&lease).await;
    t.advance(seconds(60));
    assert_eq!(fire_next(t, &id).await, Fired::Skipped, "while it waits for its next try");
    t.stop(&lease.id).await;
    t.advance(seconds(60));

    assert!(matches!(fire_next(t, &id).await, Fired::Fired(_)));
}

async fn overlap_queue_waits_for_the_earlier(t: &Bench) {
    let id = t.policy("copy").overlap(Overlap::Queue).put().await;
    t.advance(seconds(60));
    fire_one(t, &id).await;
    t.advance(seconds(60));
    let before = t.store.dump().await.unwrap();

    assert_eq!(fire_next(t, &id).await, Fired::Waiting);
    assert_eq!(t.store.dump().await.unwrap(), before, "the due time stands");

    t.finish_ok(&t.run_one("copy").await).await;
    assert!(matches!(fire_next(t, &id).await, Fired::Fired(_)));
}

async fn overlap_replace_stops_the_earlier(t: &Bench) {
    let id = t.policy("copy").overlap(Overlap::Replace).put().await;
    t.advance(seconds(60));
    let running = fire_one(t, &id).await;
    let held = lease(&t.claim_one("copy").await);
    let waiting = t.job("copy").upstream(&id).insert().await;
    let stranger = t.job("move").insert().await;
    let mut signals = t.store.notices().signals();
    t.advance(seconds(60));

    let new = fire_one(t, &id).await;

    assert_eq!(t.get(&running).await.state.signal.map(|signal| signal.signal), Some(Signal::Stop));
    assert_eq!(next_signal(&mut signals).await.lease, held, "its pool is told");
    assert_eq!(t.status(&waiting).await, Status::Stopped);
    assert_eq!([t.status(&new).await, t.status(&stranger).await], [Status::Pending; 2]);
}

async fn missed_ticks_are_counted(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(60 * 10));
    let tick = Tick { skipped: 9, ..tick(due, Some(t.now() + seconds(60))) };

    t.store.fire(&id, &tick, vec![execution(t, &id)], t.now()).await.unwrap();

    let state = get(t, &id).await.state;
    assert_eq!((state.fired, state.skipped, state.next_due), (1, 9, Some(t.now() + seconds(60))));
}

async fn missed_ticks_that_are_all_skipped_make_no_execution(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(60 * 10));
    let tick = Tick { executions: 0, skipped: 10, ..tick(due, Some(t.now() + seconds(60))) };

    assert_eq!(t.store.fire(&id, &tick, Vec::new(), t.now()).await.unwrap(), Fired::Skipped);

    let state = get(t, &id).await.state;
    assert_eq!((state.fired, state.skipped, state.last_fired), (0, 10, None));
    assert_eq!(state.next_due, Some(t.now() + seconds(60)));
}

async fn several_executions_of_one_step_are_inserted_together(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(60 * 3));
    let tick = Tick { executions: 3, ..tick(due, Some(t.now() + seconds(60))) };
    let jobs: Vec<NewJob> = (0..3).map(|_| execution(t, &id)).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.job.id.clone()).collect();

    assert_eq!(t.store.fire(&id, &tick, jobs, t.now()).await.unwrap(), Fired::Fired(ids.clone()));

    assert_eq!(t.ask(&["copy"]).slots(9).ids().await, ids);
    assert_eq!(get(t, &id).await.state.fired, 3);
}

async fn execution_is_a_job_like_any_other(t: &Bench) {
    let id = t.policy("copy").put().await;
    t.advance(seconds(60));

    let job = t.get(&fire_one(t, &id).await).await;

    assert_eq!((job.spec.kind, &job.spec.upstream), (Kind::Scheduled, &Some(id)));
    let held = t.run_one("copy").await;
    t.finish_failed(&held).await;
    t.advance(seconds(60));
    t.promote().await;
    t.finish_ok(&t.run_one("copy").await).await;
    assert_eq!(t.status(&job.id).await, Status::Success);
}

async fn dead_execution_does_not_stop_the_policy(t: &Bench) {
    for overlap in [Overlap::Allow, Overlap::Skip, Overlap::Queue, Overlap::Replace] {
        let id = t.policy("copy").overlap(overlap).put().await;
        for _ in 0..3 {
            t.advance(seconds(60));
            let fired = fire_one(t, &id).await;
            t.finish(&t.run_one("copy").await, crate::bench::fatal("broken")).await;
            assert_eq!(t.status(&fired).await, Status::Error);
        }
        assert_eq!(get(t, &id).await.state.fired, 3, "{overlap:?}");
    }
}

async fn unique_execution_that_waits_already_is_skipped(t: &Bench) {
    let id = t.policy("copy").put().await;
    let holder = t.job("copy").unique(1).insert().await;
    let due = t.now() + seconds(60);
    t.advance(seconds(120));
    let duplicate = NewJob::from(t.job("copy").unique(1).upstream(&id).build());
    let refused = duplicate.job.id.clone();
    let free = execution(t, &id);
    let inserted = free.job.id.clone();
    let tick = Tick { executions: 2, ..tick(due, Some(due + seconds(120))) };

    let fired = t.store.fire(&id, &tick, vec![duplicate, free], t.now()).await.unwrap();

    assert_eq!(fired, Fired::Fired(vec![inserted]));
    let state = get(t, &id).await.state;
    assert_eq!((state.fired, state.skipped, state.next_due), (1, 1, Some(due + seconds(120))));
    assert_eq!(t.find(&refused).await, None);
    assert_eq!(t.status(&holder).await, Status::Pending);
}

/// A tick that fires one execution.
pub(super) fn tick(expected_due: Time, next_due: Option<Time>) -> Tick {
    Tick { expected_due, version: None, next_due, executions: 1, skipped: 0 }
}

/// An execution of a policy, named "copy", as it would come with a tick now.
pub(super) fn execution(t: &Bench, policy: &JobId) -> NewJob {
    t.job("copy").after(seconds(0)).upstream(policy).new_job()
}

/// Fires the tick that is due, with one execution, and the next a minute later; answers with the execution.
pub(super) async fn fire_one(t: &Bench, policy: &JobId) -> JobId {
    match fire_next(t, policy).await {
        Fired::Fired(ids) => one(ids),
        other => panic!("the tick fires: {other:?}"),
    }
}

/// Fires the tick that is due, with one execution, and the next a minute from now.
async fn fire_next(t: &Bench, policy: &JobId) -> Fired {
    let due = get(t, policy).await.state.next_due.expect("it has a due time");
    let tick = tick(due, Some(t.now() + seconds(60)));
    t.store.fire(policy, &tick, vec![execution(t, policy)], t.now()).await.unwrap()
}
