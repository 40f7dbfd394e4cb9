//! Threads meet: who comes first is open, that both are told the same story is not.
//!
//! Each case lets two or more calls loose at once, over several threads, and looks at whether their answers and the
//! record fit one order of the calls. Repeated 100 times, 1,000 times in a soak.

use std::sync::Arc;

use jobservice_core::job::Status;
use jobservice_core::limits::{GRACE, LEASE};
use jobservice_core::store::{Action, Controlled, Finished, Held, Inserted, Report, Store};
use jobservice_core::{JobId, Time};
use tokio::sync::Barrier;

use crate::bench::{Bench, POOL, failed, ok, one, pool_id};
use crate::counts::times;

super::cases! { $ race on 4 threads:
    stop_and_claim,
    cancel_and_claim,
    stop_and_success,
    cancel_and_success,
    stop_and_failure,
    stop_and_release,
    finish_and_reap,
    extend_and_reap,
    same_report_sent_twice,
    two_reports_of_one_run,
    retry_and_submission_of_one_unique_key,
}

/// Runs `count` calls at once, each on a task of its own, released by a barrier; answers in their order.
pub(super) async fn together<T, F>(count: usize, call: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (barrier, call) = (Arc::clone(&barrier), call(number));
            tokio::spawn(async move {
                barrier.wait().await;
                call.await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(count);
    for task in tasks {
        answers.push(task.await.expect("a racing call does not panic"));
    }
    answers
}

/// Runs two different calls at once.
async fn both<A, B>(
    a: impl Future<Output = A> + Send + 'static,
    b: impl Future<Output = B> + Send + 'static,
) -> (A, B)
where
    A: Send + 'static,
    B: Send + 'static,
{
    let barrier = Arc::new(Barrier::new(2));
    let other = Arc::clone(&barrier);
    let first = tokio::spawn(async move {
        barrier.wait().await;
        a.await
    });
    let second = tokio::spawn(async move {
        other.wait().await;
        b.await
    });
    (first.await.expect("a racing call does not panic"), second.await.expect("a racing call does not panic"))
}

pub(super) fn store(t: &Bench) -> (Arc<dyn Store>, Time) {
    (Arc::clone(&t.store), t.now())
}

async fn control(store: Arc<dyn Store>, id: JobId, action: Action, now: Time) -> Controlled {
    store.control(&id, action, now).await.unwrap()
}

pub(super) async fn finish(store: Arc<dyn Store>, report: Report, now: Time) -> Finished {
    one(store.finish(vec![report], now).await.unwrap())
}

async fn stop_and_claim(t: &Bench) {
    ended_or_claimed(t, Action::Stop(GRACE), Status::Stopped).await;
}

async fn cancel_and_claim(t: &Bench) {
    ended_or_claimed(t, Action::Cancel(GRACE), Status::Cancelled).await;
}

/// Goal: once a stop is answered no worker gets the job; if a worker was faster it is signalled.
async fn ended_or_claimed(t: &Bench, action: Action, status: Status) {
    for round in 0..times(100, 1000) {
        let id = t.job("copy").insert().await;
        let ask = t.ask(&["copy"]).build();
        let ((claiming, now), (ending, _)) = (store(t), store(t));

        let (claimed, ended) =
            both(async move { claiming.claim(&ask, now).await.unwrap() }, control(ending, id.clone(), action, now))
                .await;

        if let [job] = claimed.as_slice() {
            assert_eq!((&job.id, ended), (&id, Controlled::Signalled), "round {round}");
            let answer = t.finish_failed(&crate::bench::lease(job)).await;
            assert_eq!(answer, Finished::Applied(status));
        } else {
            assert_eq!((claimed.len(), ended), (0, Controlled::Done(status)), "round {round}");
            assert_eq!(t.ask(&["copy"]).claim().await, [], "no claim after the answer");
        }
        assert_eq!(t.status(&id).await, status);
    }
}

async fn stop_and_success(t: &Bench) {
    succeeds_all_the_same(t, Action::Stop(GRACE)).await;
}

async fn cancel_and_success(t: &Bench) {
    succeeds_all_the_same(t, Action::Cancel(GRACE)).await;
}

/// Goal: exactly one final status, Success: signalled before it or too late after it.
async fn succeeds_all_the_same(t: &Bench, action: Action) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        let report = Report { lease: lease.clone(), outcome: ok() };
        let ((ending, now), (finishing, _)) = (store(t), store(t));

        let (finished, ended) =
            both(finish(finishing, report, now), control(ending, lease.id.clone(), action, now)).await;

        assert_eq!(finished, Finished::Applied(Status::Success), "round {round}");
        assert!(
            matches!(ended, Controlled::Signalled | Controlled::Unchanged(Status::Success)),
            "round {round}: {ended:?}"
        );
        assert_eq!(t.status(&lease.id).await, Status::Success);
    }
}

/// Goal: a stop that meets a failure ends the job, whether the failure would have been tried again or not.
async fn stop_and_failure(t: &Bench) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        let report = Report { lease: lease.clone(), outcome: failed("broken") };
        let ((ending, now), (finishing, _)) = (store(t), store(t));

        let (finished, ended) =
            both(finish(finishing, report, now), control(ending, lease.id.clone(), Action::Stop(GRACE), now)).await;

        let story = (finished, ended);
        let signalled_first = (Finished::Applied(Status::Stopped), Controlled::Signalled);
        let failed_first = (Finished::Applied(Status::Scheduled), Controlled::Done(Status::Stopped));
        assert!(story == signalled_first || story == failed_first, "round {round}: {story:?}");
        assert_eq!(t.status(&lease.id).await, Status::Stopped);
    }
}

async fn stop_and_release(t: &Bench) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        let ((ending, now), (releasing, _)) = (store(t), store(t));
        let given = lease.clone();

        let (released, ended) = both(
            async move { one(releasing.release(vec![given], 0, now).await.unwrap()) },
            control(ending, lease.id.clone(), Action::Stop(GRACE), now),
        )
        .await;

        let story = (released, ended);
        let signalled_first = (Finished::Applied(Status::Stopped), Controlled::Signalled);
        let released_first = (Finished::Applied(Status::Pending), Controlled::Done(Status::Stopped));
        assert!(story == signalled_first || story == released_first, "round {round}: {story:?}");
        assert_eq!(t.status(&lease.id).await, Status::Stopped);
    }
}

/// Goal: a job is never both finished and given to somebody else.
async fn finish_and_reap(t: &Bench) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        t.advance(LEASE);
        let report = Report { lease: lease.clone(), outcome: ok() };
        let ((reaping, now), (finishing, _)) = (store(t), store(t));

        let (finished, swept) =
            both(finish(finishing, report, now), async move { reaping.reap(10, 0, now).await.unwrap() }).await;

        let state = t.get(&lease.id).await.state;
        if finished == Finished::LeaseLost {
            assert_eq!((swept.moved, state.status, state.crashes), (1, Status::Pending, 1), "round {round}");
            t.stop(&lease.id).await;
        } else {
            assert_eq!(finished, Finished::Applied(Status::Success), "round {round}");
            assert_eq!((swept.moved, state.status, state.crashes), (0, Status::Success, 0), "round {round}");
        }
    }
}

async fn extend_and_reap(t: &Bench) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        t.advance(LEASE);
        let ((reaping, now), (extending, _)) = (store(t), store(t));
        let given = lease.clone();

        let (held, swept) = both(
            async move { one(extending.extend(&pool_id(POOL), &[given], now + LEASE, now).await.unwrap().leases) },
            async move { reaping.reap(10, 0, now).await.unwrap() },
        )
        .await;

        let expected = if held == Held::Lost { (1, Status::Pending) } else { (0, Status::Running) };
        assert_eq!((swept.moved, t.status(&lease.id).await), expected, "round {round}: {held:?}");
        t.finish_ok(&lease).await;
        t.stop(&lease.id).await;
    }
}

async fn same_report_sent_twice(t: &Bench) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        let report = Report { lease: lease.clone(), outcome: failed("broken") };

        let answers = together(4, |_| {
            let (store, now) = store(t);
            finish(store, report.clone(), now)
        })
        .await;

        assert_eq!(answers, [Finished::Applied(Status::Scheduled); 4], "round {round}");
        assert_eq!(t.get(&lease.id).await.state.fails, 1, "round {round}");
    }
}

async fn two_reports_of_one_run(t: &Bench) {
    for round in 0..times(100, 1000) {
        let lease = t.running("copy").await;
        let outcomes = [ok(), crate::bench::fatal("broken")];

        let answers = together(2, |number| {
            let (store, now) = store(t);
            finish(store, Report { lease: lease.clone(), outcome: outcomes[number].clone() }, now)
        })
        .await;

        let status = t.status(&lease.id).await;
        assert_eq!(answers, [Finished::Applied(status); 2], "round {round}: both are told what happened");
    }
}

async fn retry_and_submission_of_one_unique_key(t: &Bench) {
    for round in 0..times(100, 1000) {
        let dead = t.bring(t.job("copy").unique(1), Status::Error).await;
        let new = t.job("copy").unique(1).new_job();
        let new_id = new.job.id.clone();
        let ((retrying, now), (inserting, _)) = (store(t), store(t));

        let (retried, inserted) = both(
            control(retrying, dead.clone(), Action::Retry { next_due: None }, now),
            async move { one(inserting.insert(vec![new], now).await.unwrap()) },
        )
        .await;

        let story = (retried, inserted);
        let retried_first = (Controlled::Done(Status::Pending), Inserted::Duplicate(dead.clone()));
        let inserted_first = (Controlled::Duplicate(new_id.clone()), Inserted::Created);
        assert!(story == retried_first || story == inserted_first, "round {round}: {story:?}");
        t.stop(if story == inserted_first { &new_id } else { &dead }).await;
    }
}
