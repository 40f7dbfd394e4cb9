//! The same to many jobs: `act`.

use jobservice_core::JobId;
use jobservice_core::job::Status;
use jobservice_core::limits::GRACE;
use jobservice_core::store::{Act, Acted, Action, Controlled, Deleted, Query};

use crate::bench::{Bench, name};

super::cases! { $ act:
    each_job_is_answered_as_if_alone,
    job_that_is_no_longer_meant_is_passed_over,
    jobs_that_are_gone_and_policies_are_passed_over,
    final_jobs_are_deleted_and_others_refused,
    retry_of_many_gives_a_key_to_one,
    running_jobs_are_signalled,
    repeated_act_does_nothing_more,
    act_on_nobody_does_nothing,
}

const STOP: Act = Act::Control(Action::Stop(GRACE));
const RETRY: Act = Act::Control(Action::Retry { next_due: None });

async fn each_job_is_answered_as_if_alone(t: &Bench) {
    let mut ids = Vec::new();
    for status in [Status::Pending, Status::Scheduled, Status::Success, Status::Error] {
        ids.push(t.with_status(status, &format!("name-{status}")).await);
    }

    let acted = act(t, &ids, &Query::default(), STOP).await;

    let stopped = || Acted::Controlled(Controlled::Done(Status::Stopped));
    let unchanged = |status| Acted::Controlled(Controlled::Unchanged(status));
    assert_eq!(acted, [stopped(), stopped(), unchanged(Status::Success), unchanged(Status::Error)]);
    assert_eq!((t.status(&ids[0]).await, t.status(&ids[2]).await), (Status::Stopped, Status::Success));
}

async fn job_that_is_no_longer_meant_is_passed_over(t: &Bench) {
    let began = t.job("copy").insert().await;
    let waits = t.job("move").insert().await;
    let other = t.job("mend").insert().await;
    t.claim_one("copy").await;

    let filter = Query { status: Some(Status::Pending), ..Query::default() };
    let acted = act(t, &[began.clone(), waits], &filter, STOP).await;
    assert_eq!(acted, [Acted::Passed, Acted::Controlled(Controlled::Done(Status::Stopped))]);
    assert_eq!(t.get(&began).await.state.signal, None, "it began to run meanwhile");

    let filter = Query { name: Some(name("copy")), ..Query::default() };
    assert_eq!(act(t, &[other], &filter, STOP).await, [Acted::Passed]);
}

async fn jobs_that_are_gone_and_policies_are_passed_over(t: &Bench) {
    let gone = t.with_status(Status::Success, "copy").await;
    t.delete(&gone).await;
    let policy = t.policy("copy").put().await;

    for what in [STOP, RETRY, Act::Delete] {
        assert_eq!(act(t, &[gone.clone(), policy.clone()], &Query::default(), what).await, [Acted::Passed, Acted::Passed]);
    }
}

async fn final_jobs_are_deleted_and_others_refused(t: &Bench) {
    let done = t.with_status(Status::Success, "copy").await;
    let waits = t.with_status(Status::Pending, "copy").await;
    let runs = t.with_status(Status::Running, "move").await;

    let acted = act(t, &[done.clone(), waits, runs], &Query::default(), Act::Delete).await;

    let refused = |status| Acted::Deleted(Deleted::Refused(status));
    assert_eq!(acted, [Acted::Deleted(Deleted::Gone), refused(Status::Pending), refused(Status::Running)]);
    assert_eq!(t.find(&done).await, None);
}

async fn retry_of_many_gives_a_key_to_one(t: &Bench) {
    let mut dead = Vec::new();
    for _ in 0..2 {
        dead.push(t.bring(t.job("copy").unique(1), Status::Error).await);
    }

    let acted = act(t, &dead, &Query { status: Some(Status::Error), ..Query::default() }, RETRY).await;

    let duplicate = Acted::Controlled(Controlled::Duplicate(dead[0].clone()));
    assert_eq!(acted, [Acted::Controlled(Controlled::Done(Status::Pending)), duplicate]);
}

async fn running_jobs_are_signalled(t: &Bench) {
    let lease = t.running("copy").await;

    assert_eq!(act(t, &[lease.id.clone()], &Query::default(), STOP).await, [Acted::Controlled(Controlled::Signalled)]);
    t.finish_failed(&lease).await;

    assert_eq!(t.status(&lease.id).await, Status::Stopped);
}

async fn repeated_act_does_nothing_more(t: &Bench) {
    let ids = [t.job("copy").insert().await, t.job("copy").insert().await];
    act(t, &ids, &Query::default(), STOP).await;
    let before = t.store.dump().await.unwrap();

    let again = act(t, &ids, &Query::default(), STOP).await;

    assert_eq!(again, vec![Acted::Controlled(Controlled::Unchanged(Status::Stopped)); 2]);
    let meant = Query { status: Some(Status::Pending), ..Query::default() };
    assert_eq!(act(t, &ids, &meant, STOP).await, [Acted::Passed, Acted::Passed]);
    assert_eq!(t.store.dump().await.unwrap(), before);
}

async fn act_on_nobody_does_nothing(t: &Bench) {
    t.job("copy").insert().await;

    assert_eq!(act(t, &[], &Query::default(), Act::Delete).await, []);
}

async fn act(t: &Bench, ids: &[JobId], filter: &Query, act: Act) -> Vec<Acted> {
    t.store.act(ids, filter, act, t.now()).await.unwrap()
}
