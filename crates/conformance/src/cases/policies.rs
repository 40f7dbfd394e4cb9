//! Periodic jobs: `put_policy`, `policies`, `change_policy`, and `control` and `delete` of policies.

use jobservice_core::job::{Kind, Signal, Status};
use jobservice_core::policy::{Overlap, Policy, PolicyEvent};
use jobservice_core::store::{Action, Controlled, Deleted, Fired, PolicyPut, PolicyQuery, Query};
use jobservice_core::JobId;

use crate::bench::{Bench, lease, seconds};

use super::fire::{execution, fire_one, tick};
use super::notices::next_signal;

super::cases! { $ policies:
    policy_is_kept_as_it_was_given,
    policy_is_not_a_job,
    policy_with_a_taken_id_is_refused,
    policies_without_a_key_are_apart,
    same_key_and_spec_change_nothing,
    same_key_changes_the_policy_and_keeps_its_id,
    change_of_the_times_moves_the_due_time,
    change_of_anything_else_keeps_the_due_time,
    ended_policy_becomes_active_by_its_key,
    policies_are_found_by_id_and_due_time,
    policies_come_in_the_order_of_their_ids_page_by_page,
    stop_ends_a_policy_and_its_executions,
    cancel_ends_a_policy_and_its_executions,
    second_stop_of_a_policy_changes_nothing,
    ended_policy_is_active_again_from_now_by_retry,
    retry_of_an_active_policy_is_refused,
    paused_policy_does_not_fire,
    resumed_policy_goes_on_at_the_time_given,
    failure_to_fire_is_shown_until_it_succeeds,
    change_of_an_unknown_policy_finds_nothing,
    active_policy_is_not_deleted,
    ended_policy_is_deleted_and_its_executions_stay,
}

async fn policy_is_kept_as_it_was_given(t: &Bench) {
    let mut policy = t.policy("copy").key("nightly-ä").cron("30 2 * * *").overlap(Overlap::Queue).build();
    let mut spec = (*policy.spec).clone();
    spec.parameters = "{ \"a\" : 1.0 }".into();
    spec.timezone = "Europe/Berlin".into();
    spec.timeout = Some(seconds(90));
    spec.hook = Some("http://hooks.example/jobs".into());
    spec.unique = Some(jobservice_core::unique::Scope::UntilStart);
    spec.tags = vec!["a".into(), "b".into()];
    policy.spec = spec.into();

    assert_eq!(t.store.put_policy(policy.clone(), t.now()).await.unwrap(), PolicyPut::Created);

    assert_eq!(get(t, &policy.id).await, policy);
    let never = t.policy("copy").next_due(None).put().await;
    assert_eq!(get(t, &never).await.state.next_due, None);
}

async fn policy_is_not_a_job(t: &Bench) {
    let id = t.policy("copy").put().await;

    assert_eq!(t.find(&id).await, None);
    assert_eq!(t.list(Query::default()).await, []);
    assert!(t.store.counts().await.unwrap().iter().all(|(_, count)| *count == 0));
    assert_eq!(t.ask(&["copy"]).claim().await, []);
    t.advance(seconds(3600));
    assert_eq!(t.promote().await.moved, 0);
}

async fn policy_with_a_taken_id_is_refused(t: &Bench) {
    let job = t.job("copy").insert().await;
    let policy = t.policy("copy").put().await;
    let before = get(t, &policy).await;

    assert_eq!(t.policy("move").id(&job).try_put().await, PolicyPut::IdTaken);
    assert_eq!(t.policy("move").id(&policy).try_put().await, PolicyPut::IdTaken);
    assert_eq!(t.policy("move").key("k").id(&job).try_put().await, PolicyPut::IdTaken);

    assert_eq!(get(t, &policy).await, before);
}

async fn policies_without_a_key_are_apart(t: &Bench) {
    let first = t.policy("copy").put().await;
    let second = t.policy("copy").put().await;

    assert_eq!(ids(t, PolicyQuery { limit: 10, ..PolicyQuery::default() }).await, [first, second]);
}

async fn same_key_and_spec_change_nothing(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    let before = get(t, &id).await;
    t.advance(seconds(30));

    assert_eq!(t.policy("copy").key("nightly").try_put().await, PolicyPut::Unchanged(id.clone()));

    assert_eq!(get(t, &id).await, before, "a restart that declares its schedules again moves nothing");
}

async fn same_key_changes_the_policy_and_keeps_its_id(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    let other = t.policy("copy").key("weekly").put().await;
    t.advance(seconds(30));

    let changed = t.policy("move").key("nightly").priority(5).build();
    let answer = t.store.put_policy(changed.clone(), t.now()).await.unwrap();

    assert_eq!(answer, PolicyPut::Updated(id.clone()));
    let policy = get(t, &id).await;
    assert_eq!((policy.spec, policy.state.version, policy.state.updated_at), (changed.spec, 2, t.now()));
    assert_eq!(ids(t, PolicyQuery { limit: 10, ..PolicyQuery::default() }).await, [id, other]);
}

async fn change_of_the_times_moves_the_due_time(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    let due = t.now() + seconds(500);

    t.policy("copy").key("nightly").cron("30 2 * * *").next_due(Some(due)).try_put().await;

    assert_eq!(get(t, &id).await.state.next_due, Some(due));
}

async fn change_of_anything_else_keeps_the_due_time(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    let due = get(t, &id).await.state.next_due;
    t.advance(seconds(30));

    t.policy("copy").key("nightly").priority(5).try_put().await;

    assert_eq!(get(t, &id).await.state.next_due, due, "a tick that is due is not lost by an edit");
}

async fn ended_policy_becomes_active_by_its_key(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    t.stop(&id).await;
    t.advance(seconds(3600));

    assert_eq!(t.policy("copy").key("nightly").try_put().await, PolicyPut::Updated(id.clone()));

    let policy = get(t, &id).await;
    assert!(policy.is_active());
    assert_eq!(policy.state.next_due, Some(t.now() + seconds(60)));
}

async fn policies_are_found_by_id_and_due_time(t: &Bench) {
    let soon = t.policy("copy").next_due(Some(t.now() + seconds(10))).put().await;
    let later = t.policy("copy").next_due(Some(t.now() + seconds(20))).put().await;
    let stopped = t.policy("copy").next_due(Some(t.now() + seconds(10))).put().await;
    t.stop(&stopped).await;
    let paused = t.policy("copy").next_due(Some(t.now() + seconds(10))).put().await;
    pause(t, &paused, true).await;
    t.policy("copy").next_due(None).put().await;

    let due_by = |at| PolicyQuery { due_by: Some(at), limit: 10, ..PolicyQuery::default() };
    assert_eq!(ids(t, due_by(t.now() + seconds(9))).await, []);
    assert_eq!(ids(t, due_by(t.now() + seconds(10))).await, [soon.clone()]);
    assert_eq!(ids(t, due_by(t.now() + seconds(99))).await, [soon, later.clone()]);
    assert_eq!(ids(t, PolicyQuery { id: Some(later.clone()), limit: 10, ..PolicyQuery::default() }).await, [later]);
    assert_eq!(ids(t, PolicyQuery { id: Some(t.id()), limit: 10, ..PolicyQuery::default() }).await, []);
}

async fn policies_come_in_the_order_of_their_ids_page_by_page(t: &Bench) {
    let mut ordered = Vec::new();
    for _ in 0..5 {
        ordered.push(t.id());
    }
    for at in [3, 0, 4, 1, 2] {
        t.policy("copy").id(&ordered[at]).put().await;
    }

    let mut after = None;
    let mut seen = Vec::new();
    for expected in [2, 2, 1, 0] {
        let page = ids(t, PolicyQuery { after: after.take(), limit: 2, ..PolicyQuery::default() }).await;
        assert_eq!(page.len(), expected);
        seen.extend(page);
        after = seen.last().cloned();
    }

    assert_eq!(seen, ordered);
}

async fn stop_ends_a_policy_and_its_executions(t: &Bench) {
    ends_with_its_executions(t, Signal::Stop).await;
}

async fn cancel_ends_a_policy_and_its_executions(t: &Bench) {
    ends_with_its_executions(t, Signal::Cancel).await;
}

async fn ends_with_its_executions(t: &Bench, signal: Signal) {
    let id = t.policy("copy").put().await;
    t.advance(seconds(60));
    let done = fire_one(t, &id).await;
    t.finish_ok(&t.run_one("copy").await).await;
    t.advance(seconds(60));
    let running = fire_one(t, &id).await;
    let held = lease(&t.claim_one("copy").await);
    let waiting = t.job("copy").upstream(&id).insert().await;
    let delayed = t.job("copy").upstream(&id).after(seconds(60)).insert().await;
    let stranger = t.job("copy").insert().await;
    let mut signals = t.store.notices().signals();

    let action = if signal == Signal::Stop { Action::Stop(seconds(7)) } else { Action::Cancel(seconds(7)) };
    let answer = t.store.control(&id, action, t.now()).await.unwrap();

    assert_eq!(answer, Controlled::Done(signal.status()));
    let policy = get(t, &id).await;
    assert_eq!((policy.status(), policy.state.next_due), (signal.status(), None));
    assert_eq!([t.status(&waiting).await, t.status(&delayed).await], [signal.status(); 2]);
    assert_eq!([t.status(&done).await, t.status(&stranger).await], [Status::Success, Status::Pending]);
    let noted = t.get(&running).await.state.signal.expect("the running one is signalled");
    assert_eq!((noted.signal, noted.until), (signal, t.now() + seconds(7)));
    assert_eq!(next_signal(&mut signals).await.lease, held, "its pool is told");
    t.advance(seconds(3600));
    assert_eq!(t.store.fire(&id, &tick(t.now(), None), vec![execution(t, &id)], t.now()).await.unwrap(), Fired::Stale);
}

async fn second_stop_of_a_policy_changes_nothing(t: &Bench) {
    let id = t.policy("copy").put().await;
    t.cancel(&id).await;
    let before = get(t, &id).await;
    let straggler = t.job("copy").upstream(&id).insert().await;
    t.advance(seconds(1));

    assert_eq!(t.stop(&id).await, Controlled::Unchanged(Status::Cancelled));
    assert_eq!(t.cancel(&id).await, Controlled::Unchanged(Status::Cancelled));

    assert_eq!(get(t, &id).await, before);
    assert_eq!(t.status(&straggler).await, Status::Pending);
}

async fn ended_policy_is_active_again_from_now_by_retry(t: &Bench) {
    for signal in [Signal::Stop, Signal::Cancel] {
        let id = t.policy("copy").put().await;
        match signal {
            Signal::Stop => t.stop(&id).await,
            Signal::Cancel => t.cancel(&id).await,
        };
        t.advance(seconds(3600));
        let next_due = Some(t.now() + seconds(60));

        let answer = t.store.control(&id, Action::Retry { next_due }, t.now()).await.unwrap();

        assert_eq!(answer, Controlled::Done(Status::Scheduled));
        let policy = get(t, &id).await;
        assert!(policy.is_active());
        assert_eq!((policy.state.next_due, policy.state.skipped), (next_due, 0), "what it missed is not made up for");
    }
}

async fn retry_of_an_active_policy_is_refused(t: &Bench) {
    let id = t.policy("copy").put().await;
    let before = get(t, &id).await;

    assert_eq!(t.retry(&id).await, Controlled::Refused(Status::Scheduled));
    assert_eq!(get(t, &id).await, before);
}

async fn paused_policy_does_not_fire(t: &Bench) {
    let id = t.policy("copy").put().await;
    let due = t.now() + seconds(60);
    assert!(pause(t, &id, true).await.state.paused);
    t.advance(seconds(60));

    let fired = t.store.fire(&id, &tick(due, None), vec![execution(t, &id)], t.now()).await.unwrap();

    assert_eq!(fired, Fired::Stale);
    assert_eq!(t.list(Query::default()).await, []);
    assert_eq!(get(t, &id).await.status(), Status::Scheduled, "it has not ended");
}

async fn resumed_policy_goes_on_at_the_time_given(t: &Bench) {
    let id = t.policy("copy").put().await;
    pause(t, &id, true).await;
    let version = get(t, &id).await.state.version;
    assert_eq!(pause(t, &id, true).await.state.version, version, "a second pause changes nothing");
    t.advance(seconds(600));

    let policy = pause(t, &id, false).await;

    assert!(policy.is_active());
    assert_eq!(policy.state.next_due, Some(t.now() + seconds(60)), "pauses are not made up for");
    assert_eq!(get(t, &id).await, policy);
}

async fn failure_to_fire_is_shown_until_it_succeeds(t: &Bench) {
    let id = t.policy("copy").put().await;
    t.advance(seconds(60));
    let failed = PolicyEvent::FireFailed("store is full".into());
    let policy = t.store.change_policy(&id, &failed, t.now()).await.unwrap().unwrap();
    assert_eq!(policy.state.error.as_deref(), Some("store is full"));
    assert_eq!(policy.state.next_due, Some(t.now()), "the tick stands");

    fire_one(t, &id).await;

    assert_eq!(get(t, &id).await.state.error, None);
}

async fn change_of_an_unknown_policy_finds_nothing(t: &Bench) {
    let job = t.job("copy").insert().await;
    let pause = PolicyEvent::Pause { paused: true, next_due: None };

    assert_eq!(t.store.change_policy(&t.id(), &pause, t.now()).await.unwrap(), None);
    assert_eq!(t.store.change_policy(&job, &pause, t.now()).await.unwrap(), None);
}

async fn active_policy_is_not_deleted(t: &Bench) {
    let id = t.policy("copy").put().await;

    assert_eq!(t.delete(&id).await, Deleted::Refused(Status::Scheduled));
    get(t, &id).await;
}

async fn ended_policy_is_deleted_and_its_executions_stay(t: &Bench) {
    let id = t.policy("copy").key("nightly").put().await;
    t.advance(seconds(60));
    let fired = fire_one(t, &id).await;
    t.stop(&id).await;

    assert_eq!(t.delete(&id).await, Deleted::Gone);

    assert_eq!(ids(t, PolicyQuery { id: Some(id.clone()), limit: 1, ..PolicyQuery::default() }).await, []);
    assert_eq!(t.delete(&id).await, Deleted::NotFound, "again");
    let job = t.get(&fired).await;
    assert_eq!((job.state.status, job.spec.kind, &job.spec.upstream), (Status::Stopped, Kind::Scheduled, &Some(id)));
    assert_eq!(t.policy("copy").key("nightly").try_put().await, PolicyPut::Created, "its key is free");
}

pub(super) async fn get(t: &Bench, id: &JobId) -> Policy {
    let query = PolicyQuery { id: Some(id.clone()), limit: 1, ..PolicyQuery::default() };
    t.store.policies(&query).await.unwrap().pop().unwrap_or_else(|| panic!("policy {id} exists"))
}

async fn ids(t: &Bench, query: PolicyQuery) -> Vec<JobId> {
    t.store.policies(&query).await.unwrap().into_iter().map(|policy| policy.id).collect()
}

/// Pauses, or resumes with the next tick in a minute.
async fn pause(t: &Bench, id: &JobId, paused: bool) -> Policy {
    let event = PolicyEvent::Pause { paused, next_due: Some(t.now() + seconds(60)) };
    t.store.change_policy(id, &event, t.now()).await.unwrap().expect("there is such a policy")
}
