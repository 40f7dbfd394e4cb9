//! Jobs are taken: `claim`, its order, its limits, and what a lost answer means.

use jobservice_core::job::{Lease, Status};
use jobservice_core::limits::{GRACE, LEASE};
use jobservice_core::share::{self, Share};
use jobservice_core::store::{Claim, Finished, Held, OptionsChange, Query};
use jobservice_core::JobId;

use crate::bench::{Bench, POOL, lease, name, pool_id, seconds};
use crate::rng::Rng;

super::cases! { $ claim:
    claimed_job_runs_under_a_lease,
    claim_gives_the_run_its_time_and_grace,
    any_nonce_makes_a_lease,
    claim_without_work_answers_with_nothing,
    claim_takes_no_more_than_its_slots,
    claim_for_no_slots_takes_nothing,
    two_claims_never_get_the_same_job,
    only_pending_jobs_are_claimed,
    names_not_asked_for_stay,
    higher_priority_goes_first,
    older_goes_first_and_then_the_smaller_id,
    promoted_job_stands_where_it_was_due,
    attempt_rises_with_each_claim_and_is_never_reset,
    names_share_the_slots_by_the_plan,
    slots_left_over_go_round_again,
    no_name_starves_beside_a_heavy_one,
    weight_of_the_operator_beats_the_codes,
    limit_of_the_code_holds_over_all_pools,
    limit_bounds_a_single_claim,
    limit_of_the_operator_beats_the_codes,
    limit_of_zero_lets_none_run,
    limit_counts_a_dead_workers_leases_until_they_are_reaped,
    limit_never_leaks_however_many_workers_are_killed,
    slots_of_a_limited_name_go_to_others,
    paused_name_is_passed_over,
    suspect_is_claimed_only_where_it_is_welcome,
    at_most_one_suspect_goes_into_a_claim,
    suspect_does_not_hold_up_the_others,
    lost_answer_of_a_claim_is_found_by_extend,
    lost_answer_of_a_claim_ends_with_the_lease_at_the_latest,
}

async fn claimed_job_runs_under_a_lease(t: &Bench) {
    let id = t.job("copy").insert().await;
    t.advance(seconds(3));

    let ask = t.ask(&["copy"]).pool("web/01").lease(seconds(20)).build();
    let jobs = t.store.claim(&ask, t.now()).await.unwrap();

    let job = t.get(&id).await;
    assert_eq!(jobs, [job.clone()], "the answer is the record");
    assert_eq!((job.state.status, job.state.attempt), (Status::Running, 1));
    assert_eq!(job.state.started_at, Some(t.now()));
    let until = t.now() + seconds(20);
    assert_eq!(job.state.lease, Some(Lease { nonce: ask.nonce, pool: pool_id("web/01"), until, abort_at: None }));
}

async fn claim_gives_the_run_its_time_and_grace(t: &Bench) {
    t.job("copy").timeout(seconds(90)).insert().await;

    let job = t.claim_one("copy").await;

    assert_eq!(job.state.lease.unwrap().abort_at, Some(t.now() + seconds(90) + GRACE));
}

async fn any_nonce_makes_a_lease(t: &Bench) {
    for nonce in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1] {
        t.job("copy").insert().await;
        let ask = Claim { nonce, ..t.ask(&["copy"]).build() };
        let held = lease(&t.store.claim(&ask, t.now()).await.unwrap()[0]);

        assert_eq!(held.nonce, nonce);
        assert_eq!(t.extend(&held).await, Held::Held(None));
        assert_eq!(t.finish_ok(&held).await, Finished::Applied(Status::Success));
        assert_eq!(t.finish_ok(&held).await, Finished::Applied(Status::Success), "remembered as it was");
    }
}

async fn claim_without_work_answers_with_nothing(t: &Bench) {
    assert_eq!(t.ask(&["copy"]).slots(10).claim().await, []);
    assert_eq!(t.ask(&[]).slots(10).claim().await, []);
}

async fn claim_takes_no_more_than_its_slots(t: &Bench) {
    for _ in 0..5 {
        t.job("copy").insert().await;
    }

    assert_eq!(t.ask(&["copy"]).slots(3).claim().await.len(), 3);
    assert_eq!(t.ask(&["copy"]).slots(3).claim().await.len(), 2);
}

async fn claim_for_no_slots_takes_nothing(t: &Bench) {
    t.job("copy").insert().await;
    t.job("move").insert().await;

    assert_eq!(t.ask(&["copy", "move"]).slots(0).claim().await, []);
    assert_eq!(t.ask(&["copy"]).slots(0).claim().await, []);
}

async fn two_claims_never_get_the_same_job(t: &Bench) {
    let mut inserted = Vec::new();
    for _ in 0..20 {
        inserted.push(t.job("copy").insert().await);
    }

    let mut claimed = Vec::new();
    for pool in ["a/01", "b/01", "a/01", "b/01"] {
        claimed.extend(t.ask(&["copy"]).pool(pool).slots(6).ids().await);
    }

    assert_eq!(claimed, inserted);
}

async fn only_pending_jobs_are_claimed(t: &Bench) {
    for status in Status::ALL {
        if status != Status::Pending {
            t.with_status(status, "copy").await;
        }
    }
    t.advance(seconds(7200));

    assert_eq!(t.ask(&["copy"]).slots(10).claim().await, [], "a due job is not Pending before it is promoted");
}

async fn names_not_asked_for_stay(t: &Bench) {
    let other = t.job("move").insert().await;
    let mine = t.job("copy").insert().await;

    assert_eq!(t.ask(&["copy", "unheard-of"]).slots(10).ids().await, [mine]);
    assert_eq!(t.status(&other).await, Status::Pending);
}

async fn higher_priority_goes_first(t: &Bench) {
    let mut expected = Vec::new();
    for priority in [0, 9, 3, 5] {
        expected.push((priority, t.job("copy").priority(priority).insert().await));
        t.advance(seconds(1));
    }
    expected.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let expected: Vec<JobId> = expected.into_iter().map(|(_, id)| id).collect();

    assert_eq!(t.ask(&["copy"]).slots(4).ids().await, expected);
}

async fn older_goes_first_and_then_the_smaller_id(t: &Bench) {
    let (a, b, c) = (t.id(), t.id(), t.id());
    let late = t.id();
    t.job("copy").id(&c).insert().await;
    t.job("copy").id(&a).insert().await;
    t.job("copy").id(&b).insert().await;
    t.advance(seconds(1));
    let early_id = JobId::new("0000-early-id").unwrap();
    t.job("copy").id(&early_id).insert().await;
    t.job("copy").id(&late).insert().await;

    assert_eq!(t.ask(&["copy"]).slots(9).ids().await, [a, b, c, early_id, late]);
}

async fn promoted_job_stands_where_it_was_due(t: &Bench) {
    let due_at_3 = t.job("copy").after(seconds(3)).insert().await;
    t.advance(seconds(5));
    let came_at_5 = t.job("copy").insert().await;
    t.advance(seconds(60));
    t.promote().await;

    assert_eq!(t.ask(&["copy"]).slots(2).ids().await, [due_at_3, came_at_5], "a late sweep costs no place");
}

async fn attempt_rises_with_each_claim_and_is_never_reset(t: &Bench) {
    let id = t.job("copy").max_fails(1).insert().await;
    let mut nonces = Vec::new();
    for attempt in 1..=4 {
        let job = t.claim_one("copy").await;
        assert_eq!(job.state.attempt, attempt);
        nonces.push(lease(&job).nonce);
        if attempt == 2 {
            t.release(&lease(&job)).await;
        } else {
            t.finish_failed(&lease(&job)).await;
            t.retry(&id).await;
        }
    }

    assert!(nonces.windows(2).all(|two| two[0] != two[1]), "each claim has a nonce of its own: {nonces:?}");
}

/// Goal: every store takes the same jobs for the same claim. Method: compare with the shared plan over many seeds.
async fn names_share_the_slots_by_the_plan(t: &Bench) {
    const WEIGHTS: [(&str, u32); 3] = [("heavy", 6000), ("light", 1000), ("medium", 3000)];
    for seed in 0..20 {
        let t = &t.another().await;
        let mut waiting = std::collections::HashMap::new();
        for (named, _) in WEIGHTS {
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.push(t.job(named).insert().await);
            }
            waiting.insert(named, ids);
        }

        let mut ask = t.ask(&["heavy", "light", "medium"]).slots(10).seed(seed);
        for (named, weight) in WEIGHTS {
            ask = ask.weight(named, weight);
        }
        let claimed = ask.ids().await;

        let shares = WEIGHTS.iter().map(|(named, weight)| Share { name: name(named), weight: *weight }).collect();
        let plan = share::plan(shares, 10_000, 10, seed);
        let expected: Vec<JobId> = plan
            .iter()
            .flat_map(|(named, slots)| waiting[named.as_str()].iter().take(*slots as usize).cloned())
            .take(10)
            .collect();
        assert_eq!(claimed, expected, "seed {seed}");
        t.audit().await;
    }
}

async fn slots_left_over_go_round_again(t: &Bench) {
    for _ in 0..10 {
        t.job("light").insert().await;
    }
    let only = t.job("heavy").insert().await;

    let claimed = t.ask(&["heavy", "light"]).weight("heavy", 9000).slots(8).ids().await;

    assert_eq!(claimed.len(), 8, "no slot stays empty while there is work");
    assert!(claimed.contains(&only));
}

async fn no_name_starves_beside_a_heavy_one(t: &Bench) {
    for _ in 0..100 {
        t.job("bulk").insert().await;
    }
    let one_of_few = t.job("few").insert().await;

    let claimed = t.ask(&["bulk", "few"]).weight("bulk", 10_000).weight("few", 1).slots(10).ids().await;

    assert_eq!(claimed.len(), 10);
    assert!(claimed.contains(&one_of_few), "each name with work gets a slot while slots last");
}

/// Goal: the weight in the store decides. Method: with equal weights in the code, count whose turn comes first.
async fn weight_of_the_operator_beats_the_codes(t: &Bench) {
    let change = OptionsChange { weight: Some(Some(10_000)), ..OptionsChange::default() };
    t.store.set_options(&name("chosen"), change, t.now()).await.unwrap();
    for seed in 0..50 {
        let shares = vec![
            Share { name: name("chosen"), weight: 10_000 },
            Share { name: name("other"), weight: 100 },
        ];
        let expected = share::plan(shares, 10_100, 1, seed)[0].0.clone();
        t.job("chosen").insert().await;
        t.job("other").insert().await;

        let ask = t.ask(&["chosen", "other"]).weight("chosen", 100).weight("other", 100).seed(seed);
        let first = ask.claim().await.pop().unwrap();
        assert_eq!(first.spec.name, expected, "seed {seed}");

        t.finish_ok(&lease(&first)).await;
        for job in t.ask(&["chosen", "other"]).slots(2).claim().await {
            t.finish_ok(&lease(&job)).await;
        }
    }
}

async fn limit_of_the_code_holds_over_all_pools(t: &Bench) {
    for _ in 0..5 {
        t.job("copy").insert().await;
    }
    let first = t.ask(&["copy"]).pool("a/01").max_concurrency(2).slots(1).claim().await;
    let second = t.ask(&["copy"]).pool("b/01").max_concurrency(2).slots(5).claim().await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(t.ask(&["copy"]).pool("a/01").max_concurrency(2).slots(5).claim().await, []);

    t.finish_ok(&lease(&first[0])).await;

    assert_eq!(t.ask(&["copy"]).pool("b/01").max_concurrency(2).slots(5).claim().await.len(), 1);
}

async fn limit_bounds_a_single_claim(t: &Bench) {
    for _ in 0..5 {
        t.job("copy").insert().await;
        t.job("move").insert().await;
    }

    let claimed = t.ask(&["copy", "move"]).max_concurrency(3).slots(10).claim().await;

    let copies = claimed.iter().filter(|job| job.spec.name.as_str() == "copy").count();
    assert_eq!((copies, claimed.len()), (3, 6));
}

async fn limit_of_the_operator_beats_the_codes(t: &Bench) {
    for _ in 0..9 {
        t.job("copy").insert().await;
    }
    set_limit(t, Some(3)).await;
    assert_eq!(t.ask(&["copy"]).max_concurrency(1).slots(9).claim().await.len(), 3, "more than the code's");
    assert_eq!(t.ask(&["copy"]).slots(9).claim().await, [], "where the code has none");

    set_limit(t, None).await;

    assert_eq!(t.ask(&["copy"]).max_concurrency(5).slots(9).claim().await.len(), 2, "cleared, the code's counts");
}

async fn limit_of_zero_lets_none_run(t: &Bench) {
    let id = t.job("copy").insert().await;
    set_limit(t, Some(0)).await;
    assert_eq!(t.ask(&["copy"]).slots(9).claim().await, []);

    set_limit(t, Some(1)).await;
    assert_eq!(t.ask(&["copy"]).slots(9).ids().await, [id]);
}

async fn limit_counts_a_dead_workers_leases_until_they_are_reaped(t: &Bench) {
    t.job("copy").insert().await;
    t.job("copy").insert().await;
    t.ask(&["copy"]).pool("dead/01").max_concurrency(1).claim().await;
    t.advance(LEASE * 2);
    assert_eq!(t.ask(&["copy"]).max_concurrency(1).claim().await, [], "it may still be running");

    t.reap().await;

    assert_eq!(t.ask(&["copy"]).max_concurrency(1).claim().await.len(), 1);
}

/// Goal: whatever becomes of the runs of a limited name, as many run as may and never more.
/// Method: in each round a pool takes all that it may; each of its runs ends in some way or its worker is killed, which
/// shows only when its lease has expired.
async fn limit_never_leaks_however_many_workers_are_killed(t: &Bench) {
    const LIMIT: usize = 3;
    let mut rng = Rng::new(7);
    let change = OptionsChange { max_concurrency: Some(Some(LIMIT as u32)), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), change, t.now()).await.unwrap();
    let mut kills = 0;
    let wanted = crate::counts::times(200, 10_000);
    while kills < wanted {
        for _ in 0..LIMIT {
            t.job("copy").retention(0).insert().await;
        }
        let pool = format!("pool/{:016x}", rng.next());
        let jobs = t.ask(&["copy"]).pool(&pool).slots(LIMIT as u32 + 2).claim().await;
        assert_eq!(jobs.len(), LIMIT, "as many as may run, after {kills} kills");
        assert_eq!(t.ask(&["copy"]).slots(5).claim().await.len(), 0, "and no more, after {kills} kills");
        for job in &jobs {
            let lease = crate::bench::lease(job);
            match rng.below(6) {
                0 => drop(t.finish_ok(&lease).await),
                1 => drop(t.finish(&lease, crate::bench::fatal("broken")).await),
                2 => drop(t.release(&lease).await),
                // Signalled, and then killed all the same.
                3 => {
                    t.stop(&job.id).await;
                    kills += 1;
                }
                _ => kills += 1,
            }
        }
        t.advance(LEASE);
        t.reap().await;
        if kills % 50 < LIMIT as u64 {
            t.prune().await;
            let waiting = t.list(Query { status: Some(Status::Pending), limit: 1000, ..Query::default() }).await;
            for id in waiting.iter().skip(20) {
                t.stop(id).await;
            }
        }
    }
    assert_eq!(t.list(Query { status: Some(Status::Running), ..Query::default() }).await, []);
}

async fn slots_of_a_limited_name_go_to_others(t: &Bench) {
    for _ in 0..10 {
        t.job("copy").insert().await;
        t.job("move").insert().await;
    }
    set_limit(t, Some(1)).await;

    let claimed = t.ask(&["copy", "move"]).slots(8).claim().await;

    assert_eq!(claimed.iter().filter(|job| job.spec.name.as_str() == "move").count(), 7);
}

async fn paused_name_is_passed_over(t: &Bench) {
    let paused = t.job("copy").priority(9).insert().await;
    let other = t.job("move").insert().await;
    let pause = OptionsChange { paused: Some(true), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), pause, t.now()).await.unwrap();
    assert_eq!(t.ask(&["copy", "move"]).slots(9).ids().await, [other]);

    let resume = OptionsChange { paused: Some(false), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), resume, t.now()).await.unwrap();

    assert_eq!(t.ask(&["copy", "move"]).slots(9).ids().await, [paused]);
}

async fn suspect_is_claimed_only_where_it_is_welcome(t: &Bench) {
    let id = t.job("copy").insert().await;
    t.claim_one("copy").await;
    t.lose_worker().await;
    assert_eq!(t.status(&id).await, Status::Pending);

    assert_eq!(t.ask(&["copy"]).slots(9).no_suspects().claim().await, []);
    assert_eq!(t.ask(&["copy"]).slots(9).ids().await, [id]);
}

async fn at_most_one_suspect_goes_into_a_claim(t: &Bench) {
    for named in ["copy", "copy", "move"] {
        t.job(named).insert().await;
    }
    assert_eq!(t.ask(&["copy", "move"]).slots(9).claim().await.len(), 3);
    t.lose_worker().await;
    t.job("copy").insert().await;

    let claimed = t.ask(&["copy", "move"]).slots(9).claim().await;

    assert_eq!(claimed.iter().filter(|job| job.state.crashes > 0).count(), 1);
    assert_eq!(claimed.len(), 2, "and those without a crash");
    assert_eq!(t.ask(&["copy", "move"]).slots(1).claim().await.len(), 1, "the next claim may have the next");
}

async fn suspect_does_not_hold_up_the_others(t: &Bench) {
    let suspect = t.job("copy").priority(9).insert().await;
    t.claim_one("copy").await;
    t.lose_worker().await;
    let healthy = t.job("copy").insert().await;

    assert_eq!(t.ask(&["copy"]).no_suspects().ids().await, [healthy]);
    assert_eq!(t.ask(&["copy"]).ids().await, [suspect]);
}

/// Goal: a pool whose claim was carried out and not answered finds its jobs again, and nothing is counted.
async fn lost_answer_of_a_claim_is_found_by_extend(t: &Bench) {
    let first = t.job("copy").insert().await;
    let second = t.job("copy").insert().await;
    let known = t.run_one("copy").await;
    let lost = lease(&t.claim_one("copy").await);
    assert_eq!((&known.id, &lost.id), (&first, &second));

    let extended = t.extend_all(POOL, std::slice::from_ref(&known)).await;
    assert_eq!((extended.leases, extended.unlisted), (vec![Held::Held(None)], vec![lost.clone()]));

    assert_eq!(t.finish_ok(&lost).await, Finished::Applied(Status::Success), "it can be run");
    let job = t.get(&second).await;
    assert_eq!((job.state.attempt, job.state.fails, job.state.crashes, job.state.releases), (1, 0, 0, 0));
    assert_eq!(t.extend_all(POOL, std::slice::from_ref(&known)).await.unlisted, []);
}

async fn lost_answer_of_a_claim_ends_with_the_lease_at_the_latest(t: &Bench) {
    let id = t.job("copy").insert().await;
    t.claim_one("copy").await;

    t.lose_worker().await;

    assert_eq!(t.ask(&["copy"]).pool("other/01").ids().await, [id]);
}

async fn set_limit(t: &Bench, limit: Option<u32>) {
    let change = OptionsChange { max_concurrency: Some(limit), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), change, t.now()).await.unwrap();
}
