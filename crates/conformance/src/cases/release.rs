//! Jobs are given back at shutdown: `release`.

use jobservice_core::job::{AttemptOutcome, LeaseKey, Status};
use jobservice_core::limits::RELEASES_MAX;
use jobservice_core::store::Finished;

use crate::bench::{Bench, lease, seconds};

super::cases! { $ release:
    released_job_waits_again_and_nothing_fails,
    released_job_keeps_its_place,
    release_sent_again_gets_the_same_answer,
    release_past_the_free_ones_counts_as_a_failure,
    release_past_the_free_ones_of_a_last_try_is_the_end,
    released_job_with_a_signal_ends,
    late_release_is_refused,
    release_after_a_finish_is_lost,
    releases_of_a_batch_are_answered_one_by_one,
    release_frees_the_slot_of_a_limited_name,
}

async fn released_job_waits_again_and_nothing_fails(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(seconds(2));

    assert_eq!(t.release(&lease).await, Finished::Applied(Status::Pending));

    let state = t.get(&lease.id).await.state;
    assert_eq!((state.status, state.lease), (Status::Pending, None));
    assert_eq!((state.attempt, state.releases, state.fails, state.crashes), (1, 1, 0, 0));
    assert_eq!(state.attempts[0].outcome, AttemptOutcome::Released);
    assert_eq!(state.error, None);
}

async fn released_job_keeps_its_place(t: &Bench) {
    let first = t.running("copy").await;
    t.advance(seconds(5));
    let later = t.job("copy").insert().await;

    t.release(&first).await;

    assert_eq!(t.ask(&["copy"]).slots(2).ids().await, [first.id, later]);
}

async fn release_sent_again_gets_the_same_answer(t: &Bench) {
    let lease = t.running("copy").await;
    t.release(&lease).await;
    let before = t.get(&lease.id).await;
    assert_eq!(t.release(&lease).await, Finished::Applied(Status::Pending));
    assert_eq!(t.get(&lease.id).await, before, "counted once");

    let second = t.claim_one("copy").await;
    assert_eq!(t.release(&lease).await, Finished::Applied(Status::Pending), "what it became then");

    assert_eq!(t.get(&lease.id).await, second, "the run that came after it goes on");
}

async fn release_past_the_free_ones_counts_as_a_failure(t: &Bench) {
    let id = t.job("copy").insert().await;
    for _ in 0..RELEASES_MAX {
        let lease = t.run_one("copy").await;
        assert_eq!(t.release(&lease).await, Finished::Applied(Status::Pending));
    }
    assert_eq!(t.get(&id).await.state.releases, RELEASES_MAX);

    let lease = t.run_one("copy").await;
    assert_eq!(t.release(&lease).await, Finished::Applied(Status::Scheduled));

    let job = t.get(&id).await;
    assert!(job.is_retrying());
    assert_eq!((job.state.fails, job.state.releases), (1, RELEASES_MAX + 1));
    assert_eq!(t.release(&lease).await, Finished::Applied(Status::Scheduled));
    assert_eq!(t.get(&id).await, job, "counted once");
}

async fn release_past_the_free_ones_of_a_last_try_is_the_end(t: &Bench) {
    let id = t.job("copy").max_fails(1).insert().await;
    for _ in 0..RELEASES_MAX {
        t.release(&t.run_one("copy").await).await;
    }

    assert_eq!(t.release(&t.run_one("copy").await).await, Finished::Applied(Status::Error));
    assert!(t.get(&id).await.state.error.is_some());
}

async fn released_job_with_a_signal_ends(t: &Bench) {
    let stopped = t.running("copy").await;
    t.stop(&stopped.id).await;
    let cancelled = t.running("copy").await;
    t.cancel(&cancelled.id).await;

    assert_eq!(t.release(&stopped).await, Finished::Applied(Status::Stopped));
    assert_eq!(t.release(&cancelled).await, Finished::Applied(Status::Cancelled));
    assert_eq!(t.release(&cancelled).await, Finished::Applied(Status::Cancelled), "again, the same");
    assert_eq!(t.get(&stopped.id).await.state.releases, 0);
}

async fn late_release_is_refused(t: &Bench) {
    let first = t.running("copy").await;
    t.lose_worker().await;
    assert_eq!(t.release(&first).await, Finished::LeaseLost, "while the job waits");

    let second = t.claim_one("copy").await;
    assert_eq!(t.release(&first).await, Finished::LeaseLost, "while another attempt runs");
    let foreign = LeaseKey { nonce: lease(&second).nonce ^ 1, ..lease(&second) };
    assert_eq!(t.release(&foreign).await, Finished::LeaseLost);
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };
    assert_eq!(t.release(&unknown).await, Finished::LeaseLost);

    assert_eq!(t.get(&first.id).await, second);
}

async fn release_after_a_finish_is_lost(t: &Bench) {
    let lease = t.running("copy").await;
    t.finish_ok(&lease).await;

    assert_eq!(t.release(&lease).await, Finished::LeaseLost, "a release is not that report sent again");
    assert_eq!(t.status(&lease.id).await, Status::Success);
}

async fn releases_of_a_batch_are_answered_one_by_one(t: &Bench) {
    let first = t.running("copy").await;
    let second = t.running("copy").await;
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };

    let leases = vec![second.clone(), unknown, first, second];
    let answers = t.store.release(leases, 0, t.now()).await.unwrap();

    let given_back = Finished::Applied(Status::Pending);
    assert_eq!(answers, [given_back, Finished::LeaseLost, given_back, given_back]);
    assert_eq!(t.store.release(Vec::new(), 0, t.now()).await.unwrap(), []);
}

async fn release_frees_the_slot_of_a_limited_name(t: &Bench) {
    let first = t.job("copy").insert().await;
    let held = t.ask(&["copy"]).max_concurrency(1).claim().await.pop().unwrap();
    assert_eq!(t.ask(&["copy"]).max_concurrency(1).claim().await, []);

    t.release(&lease(&held)).await;

    assert_eq!(t.ask(&["copy"]).max_concurrency(1).ids().await, [first]);
}
