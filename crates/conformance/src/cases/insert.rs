//! Jobs come in: `insert`.

use jobservice_core::JobId;
use jobservice_core::job::{Retention, Status};
use jobservice_core::limits::IDEMPOTENCY_KEPT;
use jobservice_core::store::{Inserted, NewJob, Query};
use jobservice_core::unique::Scope;

use crate::bench::{Bench, fatal, seconds};

super::cases! { $ insert:
    inserted_job_is_kept_as_it_was_given,
    longest_and_shortest_identifiers_are_kept,
    batch_is_answered_one_by_one_in_order,
    empty_batch_is_answered_with_nothing,
    thousand_jobs_go_in_one_call,
    delayed_job_is_scheduled_and_others_are_pending,
    taken_id_changes_nothing,
    id_of_a_policy_is_taken,
    id_given_twice_in_a_batch_is_taken_the_second_time,
    duplicate_is_told_who_holds_the_key,
    earlier_job_of_a_batch_wins_the_key,
    key_is_held_while_waiting_running_and_retrying,
    key_is_free_after_each_final_status,
    key_until_start_is_free_once_claimed,
    key_until_start_is_not_held_again_by_its_retry,
    keys_of_different_scopes_are_the_same_key,
    refused_duplicate_leaves_nothing_behind,
    repeated_submission_is_told_the_first_id,
    repeated_submission_in_one_batch_is_told_the_first_id,
    idempotency_key_counts_by_name,
    idempotency_key_outlives_the_end_of_its_job,
    idempotency_key_is_forgotten_after_a_day,
    idempotency_key_of_a_refused_job_is_not_kept,
    insert_repeated_after_a_lost_answer_changes_nothing,
    sub_job_is_found_by_its_parent,
    submission_sends_no_event,
}

async fn inserted_job_is_kept_as_it_was_given(t: &Bench) {
    let parent = t.job("parent").insert().await;
    let full = t
        .job("copy")
        .parameters("{ \"b\" : 1.50,\n\t\"a\":\"ä\\u0000\\ud83d\\ude00\", \"a\": 1e400 }")
        .priority(7)
        .unique_for(1, Scope::UntilStart)
        .max_fails(9)
        .timeout(seconds(90))
        .hook()
        .upstream(&parent)
        .tag("nightly")
        .tag("Größe")
        .retention(77)
        .after(seconds(5))
        .build();
    let bare = t.job("copy").build();
    let mut apart = t.job("copy").build();
    let mut spec = (*apart.spec).clone();
    spec.retention = Retention { success_seconds: 1, stopped_seconds: 2, error_seconds: 3 };
    apart.spec = spec.into();

    t.insert(vec![full.clone(), bare.clone(), apart.clone()]).await;

    assert_eq!(t.get(&full.id).await, full);
    assert_eq!(t.get(&bare.id).await, bare);
    assert_eq!(t.get(&apart.id).await, apart);
    assert_eq!(t.find(&t.id()).await, None);
}

async fn longest_and_shortest_identifiers_are_kept(t: &Bench) {
    for (id, name) in [("a-B_0000", "x".to_owned()), (&"z".repeat(64), "A:_.-9".repeat(21) + "zz")] {
        let id = JobId::new(id).unwrap();
        t.job(&name).id(&id).insert().await;

        assert_eq!(t.get(&id).await.spec.name.as_str(), name);
        assert_eq!(t.ask(&[&name]).ids().await, [id]);
    }
}

async fn batch_is_answered_one_by_one_in_order(t: &Bench) {
    let holder = t.job("copy").unique(1).insert().await;
    let taken = t.job("copy").insert().await;

    let batch = vec![
        t.job("copy").new_job(),
        t.job("copy").unique(1).new_job(),
        t.job("copy").id(&taken).new_job(),
        t.job("copy").new_job(),
    ];
    let answers = t.store.insert(batch, t.now()).await.unwrap();

    assert_eq!(answers, [Inserted::Created, Inserted::Duplicate(holder), Inserted::IdTaken, Inserted::Created]);
}

async fn empty_batch_is_answered_with_nothing(t: &Bench) {
    assert_eq!(t.store.insert(Vec::new(), t.now()).await.unwrap(), []);
    assert_eq!(t.list(Query::default()).await, []);
}

async fn thousand_jobs_go_in_one_call(t: &Bench) {
    let jobs: Vec<_> = (0..1000).map(|_| t.job("copy").build()).collect();
    let newest = jobs[999].id.clone();

    t.insert(jobs).await;

    let listed = t.list(Query::default()).await;
    assert_eq!((listed.len(), &listed[0]), (1000, &newest));
}

async fn delayed_job_is_scheduled_and_others_are_pending(t: &Bench) {
    let now = t.job("copy").insert().await;
    let at_once = t.job("copy").after(seconds(0)).insert().await;
    let later = t.job("copy").after(seconds(1)).insert().await;

    assert_eq!(t.status(&now).await, Status::Pending);
    assert_eq!(t.status(&at_once).await, Status::Pending);
    assert_eq!(t.status(&later).await, Status::Scheduled);
    assert_eq!(t.get(&later).await.state.run_at, Some(t.now() + seconds(1)));
}

async fn taken_id_changes_nothing(t: &Bench) {
    let id = t.job("copy").parameters("1").insert().await;
    let before = t.get(&id).await;

    assert_eq!(t.job("other").id(&id).parameters("2").try_insert().await, Inserted::IdTaken);

    assert_eq!(t.get(&id).await, before);
}

async fn id_of_a_policy_is_taken(t: &Bench) {
    let policy = t.policy("copy").put().await;

    assert_eq!(t.job("copy").id(&policy).try_insert().await, Inserted::IdTaken);
    assert_eq!(t.find(&policy).await, None, "a policy is not a job");
}

async fn id_given_twice_in_a_batch_is_taken_the_second_time(t: &Bench) {
    let id = t.id();
    let batch = vec![t.job("first").id(&id).new_job(), t.job("second").id(&id).new_job()];

    assert_eq!(t.store.insert(batch, t.now()).await.unwrap(), [Inserted::Created, Inserted::IdTaken]);
    assert_eq!(t.get(&id).await.spec.name.as_str(), "first");
}

async fn duplicate_is_told_who_holds_the_key(t: &Bench) {
    let holder = t.job("copy").unique(1).insert().await;

    assert_eq!(t.job("copy").unique(1).try_insert().await, Inserted::Duplicate(holder.clone()));
    assert_eq!(t.job("copy").unique(2).try_insert().await, Inserted::Created);
    assert_eq!(t.job("copy").try_insert().await, Inserted::Created);
    assert_eq!(t.job("copy").unique(1).try_insert().await, Inserted::Duplicate(holder));
}

async fn earlier_job_of_a_batch_wins_the_key(t: &Bench) {
    let first = t.job("copy").unique(1).new_job();
    let winner = first.job.id.clone();
    let batch = vec![first, t.job("copy").unique(1).new_job(), t.job("copy").unique(1).new_job()];

    let answers = t.store.insert(batch, t.now()).await.unwrap();

    assert_eq!(
        answers,
        [Inserted::Created, Inserted::Duplicate(winner.clone()), Inserted::Duplicate(winner.clone())]
    );
    assert_eq!(t.list(Query::default()).await, [winner]);
}

async fn key_is_held_while_waiting_running_and_retrying(t: &Bench) {
    let holder = t.job("copy").unique(1).after(seconds(5)).insert().await;
    let duplicate = Inserted::Duplicate(holder.clone());
    assert_eq!(t.job("copy").unique(1).try_insert().await, duplicate, "while Scheduled");

    t.advance(seconds(5));
    t.promote().await;
    assert_eq!(t.job("copy").unique(1).try_insert().await, duplicate, "while Pending");

    let lease = t.run_one("copy").await;
    assert_eq!(t.job("copy").unique(1).try_insert().await, duplicate, "while Running");

    t.finish_failed(&lease).await;
    assert_eq!(t.job("copy").unique(1).try_insert().await, duplicate, "while it waits for its next try");
}

async fn key_is_free_after_each_final_status(t: &Bench) {
    for (key, status) in [(1, Status::Success), (2, Status::Error), (3, Status::Stopped), (4, Status::Cancelled)] {
        let first = t.bring(t.job("copy").unique(key), status).await;
        assert!(!t.get(&first).await.state.holds_key);

        let second = t.job("copy").unique(key).insert().await;

        assert_eq!(t.job("copy").unique(key).try_insert().await, Inserted::Duplicate(second.clone()), "after {status}");
        t.stop(&second).await;
    }
}

async fn key_until_start_is_free_once_claimed(t: &Bench) {
    let first = t.job("copy").unique_for(1, Scope::UntilStart).insert().await;
    assert_eq!(t.job("copy").unique_for(1, Scope::UntilStart).try_insert().await, Inserted::Duplicate(first));

    t.claim_one("copy").await;
    let second = t.job("copy").unique_for(1, Scope::UntilStart).insert().await;

    let third = t.job("copy").unique_for(1, Scope::UntilStart).try_insert().await;
    assert_eq!(third, Inserted::Duplicate(second), "one runs, one waits, the third is refused");
}

/// A job that fails goes back to the queue without its key: taking it again could be refused, and the job be lost.
async fn key_until_start_is_not_held_again_by_its_retry(t: &Bench) {
    let first = t.job("copy").unique_for(1, Scope::UntilStart).insert().await;
    let lease = t.run_one("copy").await;
    let second = t.job("copy").unique_for(1, Scope::UntilStart).insert().await;

    t.finish_failed(&lease).await;

    assert_eq!(t.status(&first).await, Status::Scheduled);
    assert!(!t.get(&first).await.state.holds_key);
    assert!(t.get(&second).await.state.holds_key);
}

async fn keys_of_different_scopes_are_the_same_key(t: &Bench) {
    let holder = t.job("copy").unique_for(1, Scope::UntilStart).insert().await;

    assert_eq!(t.job("copy").unique_for(1, Scope::UntilFinal).try_insert().await, Inserted::Duplicate(holder));
}

async fn refused_duplicate_leaves_nothing_behind(t: &Bench) {
    t.job("copy").unique(1).insert().await;
    let before = t.store.dump().await.unwrap();

    let refused = t.job("copy").unique(1).hook().tag("x").idempotency_key("k").new_job();
    let id = refused.job.id.clone();
    t.store.insert(vec![refused], t.now()).await.unwrap();

    assert_eq!(t.find(&id).await, None);
    assert_eq!(t.store.dump().await.unwrap(), before);
}

async fn repeated_submission_is_told_the_first_id(t: &Bench) {
    let first = t.job("copy").idempotency_key("order-1").insert().await;

    t.advance(seconds(3600));
    let again = t.job("copy").idempotency_key("order-1").try_insert().await;
    let other = t.job("copy").idempotency_key("order-2").try_insert().await;

    assert_eq!((again, other), (Inserted::Repeated(first), Inserted::Created));
}

async fn repeated_submission_in_one_batch_is_told_the_first_id(t: &Bench) {
    let first = t.job("copy").idempotency_key("order-1").new_job();
    let id = first.job.id.clone();
    let batch = vec![first, t.job("copy").idempotency_key("order-1").new_job()];

    assert_eq!(t.store.insert(batch, t.now()).await.unwrap(), [Inserted::Created, Inserted::Repeated(id)]);
}

async fn idempotency_key_counts_by_name(t: &Bench) {
    t.job("copy").idempotency_key("order-1").insert().await;

    assert_eq!(t.job("move").idempotency_key("order-1").try_insert().await, Inserted::Created);
}

async fn idempotency_key_outlives_the_end_of_its_job(t: &Bench) {
    let first = t.job("copy").idempotency_key("order-1").unique(1).insert().await;
    t.finish_ok(&t.run_one("copy").await).await;

    let again = t.job("copy").idempotency_key("order-1").unique(1).try_insert().await;

    assert_eq!(again, Inserted::Repeated(first), "the same submission, not a new one");
}

async fn idempotency_key_is_forgotten_after_a_day(t: &Bench) {
    let first = t.job("copy").idempotency_key("order-1").insert().await;

    t.advance(IDEMPOTENCY_KEPT - seconds(1));
    t.prune().await;
    let again = t.job("copy").idempotency_key("order-1").try_insert().await;
    assert_eq!(again, Inserted::Repeated(first), "not a moment before");

    t.advance(seconds(1));
    assert_eq!(t.job("copy").idempotency_key("order-1").try_insert().await, Inserted::Created, "no sweep is needed");
}

async fn idempotency_key_of_a_refused_job_is_not_kept(t: &Bench) {
    let holder = t.job("copy").unique(1).insert().await;
    let refused = t.job("copy").unique(1).idempotency_key("order-1").try_insert().await;
    assert_eq!(refused, Inserted::Duplicate(holder.clone()));

    t.stop(&holder).await;

    let again = t.job("copy").unique(1).idempotency_key("order-1").try_insert().await;
    assert_eq!(again, Inserted::Created, "nothing was stored the first time");
}

async fn insert_repeated_after_a_lost_answer_changes_nothing(t: &Bench) {
    let jobs: Vec<NewJob> =
        vec![t.job("copy").new_job(), t.job("copy").unique(1).new_job(), t.job("copy").idempotency_key("k").new_job()];
    let keyed = jobs[2].job.id.clone();
    t.store.insert(jobs.clone(), t.now()).await.unwrap();
    let before = t.store.dump().await.unwrap();

    let answers = t.store.insert(jobs, t.now()).await.unwrap();

    assert_eq!(answers, [Inserted::IdTaken, Inserted::IdTaken, Inserted::Repeated(keyed)]);
    assert_eq!(t.store.dump().await.unwrap(), before);
}

async fn sub_job_is_found_by_its_parent(t: &Bench) {
    let parent = t.job("parent").insert().await;
    let first = t.job("child").upstream(&parent).insert().await;
    t.job("child").insert().await;
    let second = t.job("child").upstream(&parent).insert().await;

    let executions = t.list(Query { upstream: Some(parent.clone()), ..Query::default() }).await;

    assert_eq!(executions, [second, first.clone()]);
    assert_eq!(t.get(&first).await.spec.upstream, Some(parent));
}

async fn submission_sends_no_event(t: &Bench) {
    let id = t.job("copy").hook().insert().await;

    assert_eq!(t.take_events().await, []);
    t.finish(&t.run_one("copy").await, fatal("broken")).await;

    let events = crate::bench::one(t.take_events().await);
    assert_eq!(events.job.id, id);
    assert_eq!(events.events[0].seq, 1, "the claim is the first thing to be reported");
}
