//! People steer: `control` and `delete` of jobs, in every status.

use jobservice_core::job::{Signal, SignalState, Status};
use jobservice_core::limits::GRACE;
use jobservice_core::store::{Action, Controlled, Deleted, Inserted, Query};
use jobservice_core::unique::Scope;

use crate::bench::{Bench, POOL, pool_id, seconds};

use super::notices::next_signal;

super::cases! { $ control:
    stop_and_cancel_end_a_waiting_job,
    stopped_job_is_never_claimed,
    retrying_job_can_be_stopped,
    stop_and_cancel_of_a_running_job_note_the_signal,
    signal_is_told_to_its_pool,
    stop_and_cancel_of_a_final_job_change_nothing,
    signal_given_again_changes_nothing,
    stop_overrules_cancel_and_its_grace_runs_on,
    cancel_never_weakens_stop,
    control_of_an_unknown_job_finds_nothing,
    dead_or_cancelled_job_can_be_retried,
    retry_begins_the_counts_anew,
    retry_of_any_other_status_is_refused,
    retry_sent_again_is_refused_with_the_status,
    retried_job_stands_behind_those_that_wait,
    retried_job_takes_its_key_again,
    retry_is_refused_while_another_holds_the_key,
    final_job_is_deleted_with_all_that_belongs_to_it,
    job_that_is_not_final_is_not_deleted,
    delete_of_an_unknown_job_finds_nothing,
    deleted_jobs_id_can_be_used_again,
}

async fn stop_and_cancel_end_a_waiting_job(t: &Bench) {
    for status in [Status::Pending, Status::Scheduled] {
        let stopped = t.bring(t.job("stopped").retention(100), status).await;
        let cancelled = t.bring(t.job("cancelled").retention(100), status).await;
        t.advance(seconds(1));

        assert_eq!(t.stop(&stopped).await, Controlled::Done(Status::Stopped), "of {status}");
        assert_eq!(t.cancel(&cancelled).await, Controlled::Done(Status::Cancelled), "of {status}");

        for (id, became) in [(&stopped, Status::Stopped), (&cancelled, Status::Cancelled)] {
            let state = t.get(id).await.state;
            assert_eq!((state.status, state.attempt, state.die_at), (became, 0, None));
            assert_eq!((state.finished_at, state.expires_at), (Some(t.now()), Some(t.now() + seconds(100))));
        }
    }
}

async fn stopped_job_is_never_claimed(t: &Bench) {
    let pending = t.job("copy").insert().await;
    let scheduled = t.job("copy").after(seconds(5)).insert().await;
    t.stop(&pending).await;
    t.cancel(&scheduled).await;
    t.advance(seconds(60));
    t.promote().await;

    assert_eq!(t.ask(&["copy"]).slots(9).claim().await, []);
}

async fn retrying_job_can_be_stopped(t: &Bench) {
    let lease = t.running("copy").await;
    t.finish_failed(&lease).await;

    assert_eq!(t.stop(&lease.id).await, Controlled::Done(Status::Stopped));

    t.advance(seconds(3600));
    t.promote().await;
    assert_eq!(t.status(&lease.id).await, Status::Stopped);
    let state = t.get(&lease.id).await.state;
    assert_eq!((state.fails, state.error.as_deref()), (1, Some("broken")), "why it waited stays to be seen");
}

async fn stop_and_cancel_of_a_running_job_note_the_signal(t: &Bench) {
    for (action, signal) in [(Action::Stop(seconds(7)), Signal::Stop), (Action::Cancel(seconds(7)), Signal::Cancel)] {
        let lease = t.running("copy").await;
        let before = t.get(&lease.id).await.state;
        t.advance(seconds(1));

        let answer = t.store.control(&lease.id, action, t.now()).await.unwrap();

        assert_eq!(answer, Controlled::Signalled);
        let after = t.get(&lease.id).await.state;
        assert_eq!(after.signal, Some(SignalState { signal, until: t.now() + seconds(7) }));
        assert_eq!((after.status, after.lease.clone()), (Status::Running, before.lease), "the lease stays as it was");
        assert_eq!(after.version, before.version + 1);
    }
}

async fn signal_is_told_to_its_pool(t: &Bench) {
    let mut signals = t.store.notices().signals();
    let lease = t.running("copy").await;

    t.cancel(&lease.id).await;
    let notice = next_signal(&mut signals).await;
    assert_eq!((notice.pool, notice.lease, notice.signal), (pool_id(POOL), lease.clone(), Signal::Cancel));

    t.stop(&lease.id).await;
    assert_eq!(next_signal(&mut signals).await.signal, Signal::Stop, "a stop after a cancel is news");
}

async fn stop_and_cancel_of_a_final_job_change_nothing(t: &Bench) {
    for status in [Status::Error, Status::Success, Status::Stopped, Status::Cancelled] {
        let id = t.with_status(status, "copy").await;
        let before = t.get(&id).await;
        t.advance(seconds(1));

        assert_eq!(t.stop(&id).await, Controlled::Unchanged(status));
        assert_eq!(t.cancel(&id).await, Controlled::Unchanged(status));
        assert_eq!(t.get(&id).await, before);
    }
}

async fn signal_given_again_changes_nothing(t: &Bench) {
    for stop in [true, false] {
        let lease = t.running("copy").await;
        let action = if stop { Action::Stop(GRACE) } else { Action::Cancel(GRACE) };
        t.store.control(&lease.id, action, t.now()).await.unwrap();
        let before = t.get(&lease.id).await;
        t.advance(seconds(5));

        let again = t.store.control(&lease.id, action, t.now()).await.unwrap();

        assert_eq!(again, Controlled::Unchanged(Status::Running));
        assert_eq!(t.get(&lease.id).await, before, "the grace does not begin anew");
    }
}

async fn stop_overrules_cancel_and_its_grace_runs_on(t: &Bench) {
    let lease = t.running("copy").await;
    t.cancel(&lease.id).await;
    let until = t.now() + GRACE;
    t.advance(seconds(5));

    assert_eq!(t.stop(&lease.id).await, Controlled::Signalled);

    assert_eq!(t.get(&lease.id).await.state.signal, Some(SignalState { signal: Signal::Stop, until }));
}

async fn cancel_never_weakens_stop(t: &Bench) {
    let lease = t.running("copy").await;
    t.stop(&lease.id).await;
    let before = t.get(&lease.id).await;

    assert_eq!(t.cancel(&lease.id).await, Controlled::Unchanged(Status::Running));
    assert_eq!(t.get(&lease.id).await, before);
}

async fn control_of_an_unknown_job_finds_nothing(t: &Bench) {
    let unknown = t.id();

    assert_eq!(t.stop(&unknown).await, Controlled::NotFound);
    assert_eq!(t.cancel(&unknown).await, Controlled::NotFound);
    assert_eq!(t.retry(&unknown).await, Controlled::NotFound);
}

async fn dead_or_cancelled_job_can_be_retried(t: &Bench) {
    for status in [Status::Error, Status::Cancelled] {
        let id = t.with_status(status, "copy").await;

        assert_eq!(t.retry(&id).await, Controlled::Done(Status::Pending));

        assert_eq!(t.ask(&["copy"]).ids().await, [id]);
    }
}

async fn retry_begins_the_counts_anew(t: &Bench) {
    let id = t.job("copy").max_fails(2).insert().await;
    t.release(&t.run_one("copy").await).await;
    t.claim_one("copy").await;
    t.lose_worker().await;
    for _ in 0..2 {
        t.finish_failed(&t.run_one("copy").await).await;
        t.advance(seconds(60));
        t.promote().await;
    }
    let dead = t.get(&id).await.state;
    assert_eq!((dead.status, dead.fails, dead.crashes, dead.releases), (Status::Error, 2, 1, 1));

    t.retry(&id).await;

    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.fails, state.crashes, state.releases), (Status::Pending, 0, 0, 0));
    assert_eq!((state.finished_at, state.die_at, state.expires_at, state.signal), (None, None, None, None));
    assert_eq!((state.attempt, state.ready_at), (4, t.now()));
    assert_eq!(t.prune().await.moved, 0);
    assert_eq!(t.ask(&["copy"]).no_suspects().ids().await, [id], "no longer a suspect");
}

async fn retry_of_any_other_status_is_refused(t: &Bench) {
    for status in [Status::Scheduled, Status::Pending, Status::Running, Status::Success, Status::Stopped] {
        let id = t.with_status(status, "copy").await;
        let before = t.get(&id).await;

        assert_eq!(t.retry(&id).await, Controlled::Refused(status));
        assert_eq!(t.get(&id).await, before);
        t.stop(&id).await;
    }
}

/// Who repeats a retry whose answer was lost is told where the job stands now.
async fn retry_sent_again_is_refused_with_the_status(t: &Bench) {
    let id = t.with_status(Status::Error, "copy").await;
    t.retry(&id).await;
    assert_eq!(t.retry(&id).await, Controlled::Refused(Status::Pending));
    t.claim_one("copy").await;

    assert_eq!(t.retry(&id).await, Controlled::Refused(Status::Running));
    assert_eq!(t.get(&id).await.state.attempt, 2);
}

async fn retried_job_stands_behind_those_that_wait(t: &Bench) {
    let dead = t.with_status(Status::Error, "copy").await;
    t.advance(seconds(1));
    let waiting = t.job("copy").insert().await;
    t.advance(seconds(1));

    t.retry(&dead).await;

    assert_eq!(t.ask(&["copy"]).slots(2).ids().await, [waiting, dead]);
}

async fn retried_job_takes_its_key_again(t: &Bench) {
    for (key, scope) in [(1, Scope::UntilFinal), (2, Scope::UntilStart)] {
        let dead = t.bring(t.job("copy").unique_for(key, scope), Status::Error).await;

        t.retry(&dead).await;

        assert!(t.get(&dead).await.state.holds_key);
        assert_eq!(t.job("copy").unique(key).try_insert().await, Inserted::Duplicate(dead.clone()));
        t.stop(&dead).await;
    }
}

async fn retry_is_refused_while_another_holds_the_key(t: &Bench) {
    let dead = t.bring(t.job("copy").unique(1), Status::Error).await;
    let cancelled = t.bring(t.job("copy").unique(1), Status::Cancelled).await;
    let holder = t.job("copy").unique(1).insert().await;
    let before = t.get(&dead).await;

    assert_eq!(t.retry(&dead).await, Controlled::Duplicate(holder.clone()));
    assert_eq!(t.retry(&cancelled).await, Controlled::Duplicate(holder.clone()));
    assert_eq!(t.get(&dead).await, before);

    t.stop(&holder).await;
    assert_eq!(t.retry(&dead).await, Controlled::Done(Status::Pending));
    assert_eq!(t.retry(&cancelled).await, Controlled::Duplicate(dead));
}

async fn final_job_is_deleted_with_all_that_belongs_to_it(t: &Bench) {
    for status in [Status::Error, Status::Success, Status::Stopped, Status::Cancelled] {
        let empty = t.store.dump().await.unwrap();
        let parent = t.id();
        let id = t.bring(t.job("copy").hook().tag("x").unique(1).upstream(&parent), status).await;

        assert_eq!(t.delete(&id).await, Deleted::Gone);

        assert_eq!(t.find(&id).await, None);
        assert_eq!(t.list(Query { tag: Some("x".into()), ..Query::default() }).await, []);
        assert_eq!(t.list(Query { upstream: Some(parent), ..Query::default() }).await, []);
        assert_eq!(t.take_events().await, []);
        assert_eq!(t.store.dump().await.unwrap(), empty, "after {status} nothing is left");
        assert_eq!(t.delete(&id).await, Deleted::NotFound, "again");
    }
}

async fn job_that_is_not_final_is_not_deleted(t: &Bench) {
    for status in [Status::Scheduled, Status::Pending, Status::Running] {
        let id = t.with_status(status, "copy").await;

        assert_eq!(t.delete(&id).await, Deleted::Refused(status));
        assert_eq!(t.status(&id).await, status);
        t.stop(&id).await;
    }
}

async fn delete_of_an_unknown_job_finds_nothing(t: &Bench) {
    assert_eq!(t.delete(&t.id()).await, Deleted::NotFound);
}

async fn deleted_jobs_id_can_be_used_again(t: &Bench) {
    let id = t.with_status(Status::Success, "copy").await;
    t.delete(&id).await;

    t.job("move").id(&id).insert().await;

    let job = t.get(&id).await;
    assert_eq!((job.spec.name.as_str(), job.state.attempt), ("move", 0));
    assert_eq!((job.state.ended, job.state.attempts), (None, Vec::new()), "another job, without a past");
}
