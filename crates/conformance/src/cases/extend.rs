//! Leases live: `extend` and `check_in`.

use jobservice_core::job::{CheckIn, LeaseKey, Signal, Status};
use jobservice_core::limits::LEASE;
use jobservice_core::store::{CheckedIn, Finished, Held};

use crate::bench::{Bench, HELD, POOL, lease, one, pool_id, seconds, signalled};

super::cases! { $ extend:
    extended_lease_lasts_until_the_new_end,
    lease_is_never_shortened,
    lease_is_held_after_its_end_until_it_is_reaped,
    reaped_lease_is_lost,
    ended_lease_is_lost,
    lease_of_another_attempt_or_nonce_is_lost,
    lease_of_an_unknown_job_is_lost,
    extend_tells_of_a_signal,
    extend_answers_each_in_order,
    extend_changes_nothing_but_the_end,
    extend_moves_the_time_of_reaping,
    extend_does_not_put_off_the_timeout,
    unlisted_are_all_leases_of_this_incarnation_only,
    unlisted_are_also_single_leases_of_a_claim,
    extend_of_nothing_names_all_leases,
    check_in_is_kept,
    check_in_tells_of_a_signal,
    check_in_of_a_lost_run_is_refused,
    check_in_is_kept_over_attempts,
    check_in_does_not_extend_the_lease,
}

async fn extended_lease_lasts_until_the_new_end(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(seconds(3));

    assert_eq!(t.extend(&lease).await, HELD);

    assert_eq!(t.get(&lease.id).await.state.lease.unwrap().until, t.now() + LEASE);
}

async fn lease_is_never_shortened(t: &Bench) {
    let lease = t.running("copy").await;
    let until = t.now() + LEASE;

    let early = t.now() + seconds(1);
    let held = t.store.extend(&pool_id(POOL), std::slice::from_ref(&lease), early, t.now()).await.unwrap();

    assert_eq!(held.leases, [HELD]);
    assert_eq!(t.get(&lease.id).await.state.lease.unwrap().until, until);
}

async fn lease_is_held_after_its_end_until_it_is_reaped(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE * 5);

    assert_eq!(t.extend(&lease).await, HELD, "nobody took it");

    assert_eq!(t.reap().await.moved, 0, "and now nobody may");
    assert_eq!(t.finish_ok(&lease).await, Finished::Applied(Status::Success));
}

async fn reaped_lease_is_lost(t: &Bench) {
    let lease = t.running("copy").await;
    t.lose_worker().await;
    assert_eq!(t.extend(&lease).await, Held::Lost, "while the job waits");

    t.claim_one("copy").await;

    assert_eq!(t.extend(&lease).await, Held::Lost, "while another attempt runs");
}

async fn ended_lease_is_lost(t: &Bench) {
    let finished = t.running("copy").await;
    t.finish_ok(&finished).await;
    let released = t.running("copy").await;
    t.release(&released).await;

    assert_eq!(t.extend(&finished).await, Held::Lost);
    assert_eq!(t.extend(&released).await, Held::Lost);
}

async fn lease_of_another_attempt_or_nonce_is_lost(t: &Bench) {
    let lease = t.running("copy").await;
    let foreign = LeaseKey { nonce: lease.nonce ^ 1, ..lease.clone() };
    let later = LeaseKey { attempt: lease.attempt + 1, ..lease.clone() };

    assert_eq!(t.extend(&foreign).await, Held::Lost);
    assert_eq!(t.extend(&later).await, Held::Lost);
    assert_eq!(t.extend(&lease).await, HELD);
}

async fn lease_of_an_unknown_job_is_lost(t: &Bench) {
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };

    assert_eq!(t.extend(&unknown).await, Held::Lost);
}

async fn extend_tells_of_a_signal(t: &Bench) {
    let lease = t.running("copy").await;
    t.cancel(&lease.id).await;
    assert_eq!(t.extend(&lease).await, signalled(Signal::Cancel));

    t.stop(&lease.id).await;
    assert_eq!(t.extend(&lease).await, signalled(Signal::Stop));
    assert_eq!(t.extend(&lease).await, signalled(Signal::Stop), "each time anew");
}

async fn extend_answers_each_in_order(t: &Bench) {
    let held = t.running("copy").await;
    let lost = t.running("copy").await;
    t.finish_ok(&lost).await;
    let stopped = t.running("copy").await;
    t.stop(&stopped.id).await;
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };

    let leases = [unknown, stopped.clone(), held.clone(), lost, held];
    let extended = t.extend_all(POOL, &leases).await;

    assert_eq!(extended.leases, [Held::Lost, signalled(Signal::Stop), HELD, Held::Lost, HELD]);
    assert_eq!(extended.unlisted, []);
}

async fn extend_changes_nothing_but_the_end(t: &Bench) {
    let lease = t.running("copy").await;
    let mut before = t.get(&lease.id).await;
    t.advance(seconds(3));

    t.extend(&lease).await;

    before.state.lease.as_mut().unwrap().until = t.now() + LEASE;
    assert_eq!(t.get(&lease.id).await, before, "neither version nor times: a lease of a long job is extended often");
}

async fn extend_moves_the_time_of_reaping(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE - seconds(1));
    t.extend(&lease).await;

    t.advance(seconds(2));
    assert_eq!(t.reap().await.moved, 0, "the old end has passed, the new one has not");

    t.advance(LEASE);
    assert_eq!(t.reap().await.moved, 1);
}

async fn extend_does_not_put_off_the_timeout(t: &Bench) {
    let id = t.job("copy").timeout(seconds(5)).insert().await;
    let lease = lease(&t.claim_one("copy").await);
    for _ in 0..10 {
        t.advance(seconds(4));
        t.extend(&lease).await;
    }

    assert_eq!(t.reap().await.moved, 1);
    assert_eq!(t.get(&id).await.state.fails, 1);
}

async fn unlisted_are_all_leases_of_this_incarnation_only(t: &Bench) {
    for _ in 0..4 {
        t.job("copy").insert().await;
    }
    let earlier = t.ask(&["copy"]).pool("web/01").claim().await;
    let listed = t.ask(&["copy"]).pool("web/02").claim().await;
    let lost = t.ask(&["copy"]).pool("web/02").claim().await;
    let other = t.ask(&["copy"]).pool("api/02").claim().await;

    let extended = t.extend_all("web/02", &[lease(&listed[0])]).await;

    assert_eq!(extended.unlisted, [lease(&lost[0])]);
    assert_eq!(t.extend_all("web/01", &[lease(&earlier[0])]).await.unlisted, []);
    assert_eq!(t.extend_all("api/02", &[lease(&other[0])]).await.unlisted, []);
    assert_eq!(t.extend_all("api/03", &[]).await.unlisted, []);
}

/// A claim of several jobs, one of which is listed, one ended, and one is listed although its lease is lost.
async fn unlisted_are_also_single_leases_of_a_claim(t: &Bench) {
    for _ in 0..5 {
        t.job("copy").insert().await;
    }
    let leases: Vec<LeaseKey> = t.ask(&["copy"]).slots(5).claim().await.iter().map(lease).collect();
    let [listed, ended, lost, left, forgotten] = leases.as_slice() else { panic!("{} jobs", leases.len()) };
    t.finish_ok(ended).await;
    t.finish_ok(lost).await;

    let extended = t.extend_all(POOL, &[listed.clone(), lost.clone()]).await;

    assert_eq!(extended.leases, [HELD, Held::Lost]);
    let mut unlisted = extended.unlisted;
    unlisted.sort_by(|a, b| a.id.cmp(&b.id));
    let mut wanted = vec![left.clone(), forgotten.clone()];
    wanted.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(unlisted, wanted);
    let all = [listed.clone(), left.clone(), forgotten.clone()];
    assert_eq!(t.extend_all(POOL, &all).await.unlisted, []);
}

async fn extend_of_nothing_names_all_leases(t: &Bench) {
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(t.running("copy").await);
    }

    let mut unlisted = t.extend_all(POOL, &[]).await.unlisted;

    unlisted.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(unlisted, leases);
}

async fn check_in_is_kept(t: &Bench) {
    let lease = t.running("copy").await;
    let before = t.get(&lease.id).await.state;
    t.advance(seconds(1));

    assert_eq!(t.check_in(&lease, "50%").await, CheckedIn::Noted(None));
    let after = t.get(&lease.id).await.state;

    assert_eq!(after.check_in, Some(CheckIn { message: "50%".into(), at: t.now() }));
    assert_eq!((after.version, after.updated_at), (before.version + 1, t.now()));
    assert_eq!((after.status, after.lease), (before.status, before.lease));

    t.check_in(&lease, "").await;
    assert_eq!(&*t.get(&lease.id).await.state.check_in.unwrap().message, "", "an empty message is a message");
}

async fn check_in_tells_of_a_signal(t: &Bench) {
    let lease = t.running("copy").await;
    t.stop(&lease.id).await;

    assert_eq!(t.check_in(&lease, "50%").await, CheckedIn::Noted(Some(Signal::Stop)));
    assert_eq!(&*t.get(&lease.id).await.state.check_in.unwrap().message, "50%");
}

async fn check_in_of_a_lost_run_is_refused(t: &Bench) {
    let reaped = t.running("copy").await;
    t.lose_worker().await;
    assert_eq!(t.check_in(&reaped, "late").await, CheckedIn::LeaseLost, "while the job waits");
    let current = t.run_one("copy").await;
    assert_eq!(t.check_in(&reaped, "late").await, CheckedIn::LeaseLost, "while another attempt runs");
    let foreign = LeaseKey { nonce: current.nonce ^ 1, ..current.clone() };
    assert_eq!(t.check_in(&foreign, "late").await, CheckedIn::LeaseLost);
    t.finish_ok(&current).await;
    assert_eq!(t.check_in(&current, "late").await, CheckedIn::LeaseLost, "after its own end");
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };
    assert_eq!(t.check_in(&unknown, "late").await, CheckedIn::LeaseLost);

    assert_eq!(t.get(&reaped.id).await.state.check_in, None);
}

async fn check_in_is_kept_over_attempts(t: &Bench) {
    let lease = t.running("copy").await;
    t.check_in(&lease, "page 7").await;
    t.release(&lease).await;

    let again = t.claim_one("copy").await;

    assert_eq!(&*again.state.check_in.unwrap().message, "page 7", "a resume point");
}

async fn check_in_does_not_extend_the_lease(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE - seconds(1));
    t.check_in(&lease, "alive").await;
    t.advance(seconds(1));

    assert_eq!(t.reap().await.moved, 1);
    assert_eq!(one(t.extend_all(POOL, &[lease]).await.leases), Held::Lost);
}
