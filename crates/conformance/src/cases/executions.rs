//! Executions and sub jobs: launched only under a lease, paged by number, seen from their parent. And what the sweep that
//! fires them needs to know: which policy has a key, when the next is due, when to look again.

use jobservice_core::policy::Overlap;
use jobservice_core::store::{Executions, ExecutionsQuery, Inserted, PolicyQuery};
use jobservice_core::{JobId, Time};

use crate::bench::{Bench, one, seconds};

use super::fire::fire_one;
use super::notices::told;

super::cases! { $ executions:
    run_that_holds_its_lease_launches_a_sub_job,
    run_that_lost_its_lease_launches_nothing,
    run_that_ended_launches_nothing,
    repeated_launch_is_told_the_same_id_while_the_lease_holds,
    lost_lease_comes_before_a_known_idempotency_key,
    executions_are_paged_by_number_newest_first,
    live_executions_are_those_that_are_not_final,
    parents_are_told_from_jobs_without_executions,
    policy_is_found_by_its_key,
    next_due_time_is_the_earliest_after_the_one_given,
    put_retried_and_resumed_policies_wake_who_fires,
    end_of_an_execution_wakes_who_fires,
    overlap_counts_only_executions_that_are_not_final,
}

async fn run_that_holds_its_lease_launches_a_sub_job(t: &Bench) {
    let caller = t.running("copy").await;

    let sub = t.job("move").launched_by(&caller).new_job();
    let id = sub.job.id.clone();
    assert_eq!(one(t.store.insert(vec![sub], t.now()).await.unwrap()), Inserted::Created);

    assert_eq!(t.get(&id).await.spec.upstream.as_ref(), Some(&caller.id));
    t.finish_ok(&t.run_one("move").await).await;
    t.finish_ok(&caller).await;
}

async fn run_that_lost_its_lease_launches_nothing(t: &Bench) {
    let lost = t.running("copy").await;
    t.advance(seconds(60));
    t.store.reap(10, 0, t.now()).await.unwrap();
    let again = t.run_one("copy").await;
    assert_ne!(lost.attempt, again.attempt);

    let late = t.job("move").launched_by(&lost).new_job();
    let fresh = t.job("move").launched_by(&again).new_job();
    let (late_id, fresh_id) = (late.job.id.clone(), fresh.job.id.clone());
    let answers = t.store.insert(vec![late, fresh], t.now()).await.unwrap();

    assert_eq!(answers, [Inserted::LeaseLost, Inserted::Created]);
    assert_eq!(t.find(&late_id).await, None);
    assert!(t.find(&fresh_id).await.is_some());
}

async fn run_that_ended_launches_nothing(t: &Bench) {
    let ended = t.running("copy").await;
    t.finish_ok(&ended).await;

    let late = t.job("move").launched_by(&ended).new_job();

    assert_eq!(one(t.store.insert(vec![late], t.now()).await.unwrap()), Inserted::LeaseLost);
}

async fn repeated_launch_is_told_the_same_id_while_the_lease_holds(t: &Bench) {
    let caller = t.running("copy").await;
    let first = t.job("move").launched_by(&caller).idempotency_key("part-1").new_job();
    let id = first.job.id.clone();
    assert_eq!(one(t.store.insert(vec![first], t.now()).await.unwrap()), Inserted::Created);

    let again = t.job("move").launched_by(&caller).idempotency_key("part-1").new_job();

    assert_eq!(one(t.store.insert(vec![again], t.now()).await.unwrap()), Inserted::Repeated(id));
}

async fn lost_lease_comes_before_a_known_idempotency_key(t: &Bench) {
    let caller = t.running("copy").await;
    let first = t.job("move").launched_by(&caller).idempotency_key("part-1").new_job();
    t.store.insert(vec![first], t.now()).await.unwrap();
    t.finish_ok(&caller).await;

    let again = t.job("move").launched_by(&caller).idempotency_key("part-1").new_job();

    assert_eq!(one(t.store.insert(vec![again], t.now()).await.unwrap()), Inserted::LeaseLost);
}

async fn executions_are_paged_by_number_newest_first(t: &Bench) {
    let policy = t.policy("copy").put().await;
    let mut newest_first = Vec::new();
    for _ in 0..5 {
        t.advance(seconds(60));
        newest_first.insert(0, fire_one(t, &policy).await);
    }

    let pages = [(0, 2, &newest_first[..2]), (2, 2, &newest_first[2..4]), (4, 2, &newest_first[4..]), (6, 2, &[])];
    for (offset, limit, expected) in pages {
        let (ids, total) = page(t, &policy, false, offset, limit).await;
        assert_eq!((ids.as_slice(), total), (expected, 5), "from {offset} on");
    }
    let nobody = JobId::new("nobody-here").unwrap();
    assert_eq!(page(t, &nobody, false, 0, 10).await, (Vec::new(), 0));
}

async fn live_executions_are_those_that_are_not_final(t: &Bench) {
    let policy = t.policy("copy").put().await;
    t.advance(seconds(60));
    let ended = fire_one(t, &policy).await;
    t.finish_ok(&t.run_one("copy").await).await;
    t.advance(seconds(60));
    let waits = fire_one(t, &policy).await;

    assert_eq!(page(t, &policy, true, 0, 10).await, (vec![waits.clone()], 1));
    assert_eq!(page(t, &policy, false, 0, 10).await, (vec![waits, ended], 2));
}

async fn parents_are_told_from_jobs_without_executions(t: &Bench) {
    let policy = t.policy("copy").put().await;
    let alone = t.job("copy").insert().await;
    let caller = t.running("move").await;
    let sub = t.job("copy").launched_by(&caller).new_job();
    t.store.insert(vec![sub], t.now()).await.unwrap();

    let have = t.store.have_executions(&[policy.clone(), alone, caller.id]).await.unwrap();
    assert_eq!(have, [false, false, true]);

    t.advance(seconds(60));
    fire_one(t, &policy).await;
    assert_eq!(t.store.have_executions(&[policy]).await.unwrap(), [true]);
    assert_eq!(t.store.have_executions(&[]).await.unwrap(), Vec::<bool>::new());
}

async fn policy_is_found_by_its_key(t: &Bench) {
    t.policy("copy").put().await;
    let nightly = t.policy("copy").key("nightly").put().await;
    t.policy("copy").key("weekly").put().await;

    let found = |key: &str| {
        let query = PolicyQuery { schedule_key: Some(key.into()), limit: 10, ..PolicyQuery::default() };
        async move { t.store.policies(&query).await.unwrap().into_iter().map(|policy| policy.id).collect::<Vec<_>>() }
    };

    assert_eq!(found("nightly").await, [nightly]);
    assert_eq!(found("hourly").await, Vec::<JobId>::new());
}

async fn next_due_time_is_the_earliest_after_the_one_given(t: &Bench) {
    let due = |at| Some(t.now() + seconds(at));
    assert_eq!(t.store.next_due(Time::from_seconds(0)).await.unwrap(), None);
    t.policy("copy").next_due(due(90)).put().await;
    let first = t.policy("copy").next_due(due(30)).put().await;
    t.policy("copy").next_due(None).put().await;

    assert_eq!(t.store.next_due(t.now()).await.unwrap(), due(30));
    assert_eq!(t.store.next_due(t.now() + seconds(30)).await.unwrap(), due(90), "only what is due after it counts");

    t.stop(&first).await;
    assert_eq!(t.store.next_due(t.now()).await.unwrap(), due(90), "who has ended is not due");
}

async fn put_retried_and_resumed_policies_wake_who_fires(t: &Bench) {
    use jobservice_core::policy::PolicyEvent;
    use jobservice_core::store::Action;
    let notices = t.store.notices();
    let next_due = Some(t.now() + seconds(5));

    let put = notices.policies();
    let id = t.policy("copy").put().await;
    told(put).await;

    t.stop(&id).await;
    let retried = notices.policies();
    t.store.control(&id, Action::Retry { next_due }, t.now()).await.unwrap();
    told(retried).await;

    let pause = PolicyEvent::Pause { paused: true, next_due };
    t.store.change_policy(&id, &pause, t.now()).await.unwrap();
    let resumed = notices.policies();
    let resume = PolicyEvent::Pause { paused: false, next_due };
    t.store.change_policy(&id, &resume, t.now()).await.unwrap();
    told(resumed).await;
}

async fn end_of_an_execution_wakes_who_fires(t: &Bench) {
    let policy = t.policy("copy").put().await;
    t.advance(seconds(60));
    fire_one(t, &policy).await;
    let run = t.run_one("copy").await;
    let ended = t.store.notices().executions();

    t.finish_ok(&run).await;

    told(ended).await;
}

async fn overlap_counts_only_executions_that_are_not_final(t: &Bench) {
    for overlap in [Overlap::Skip, Overlap::Queue, Overlap::Replace] {
        let policy = t.policy("copy").overlap(overlap).put().await;
        for _ in 0..2 {
            t.advance(seconds(60));
            fire_one(t, &policy).await;
            t.finish_ok(&t.run_one("copy").await).await;
        }
        assert_eq!(page(t, &policy, true, 0, 10).await.1, 0, "{overlap:?}");
    }
}

/// A page of executions as their ids, and their count.
async fn page(t: &Bench, upstream: &JobId, live: bool, offset: usize, limit: usize) -> (Vec<JobId>, usize) {
    let query = ExecutionsQuery { upstream: upstream.clone(), live, offset, limit };
    let Executions { jobs, total } = t.store.executions(&query).await.unwrap();
    (jobs.into_iter().map(|job| job.id).collect(), total)
}
