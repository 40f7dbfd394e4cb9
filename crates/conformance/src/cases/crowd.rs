//! Many callers want the same at once: each thing is done once, whoever of them does it.

use std::sync::Arc;

use jobservice_core::JobId;
use jobservice_core::job::Status;
use jobservice_core::limits::LEASE;
use jobservice_core::store::{Finished, Fired, Inserted, OptionsChange, PolicyPut, Query, Report};

use super::race::{finish, store, together};
use crate::bench::{Bench, name, ok, one, seconds};
use crate::counts::times;

super::cases! { $ crowd on 4 threads:
    many_submitters_of_one_unique_key,
    many_submitters_with_one_idempotency_key,
    many_submitters_of_one_id,
    many_pools_claim,
    many_pools_claim_below_a_limit,
    four_reapers,
    four_promoters,
    four_pruners,
    many_nodes_fire_one_tick,
    many_nodes_declare_one_schedule,
    four_takers_of_events,
    readers_and_writers,
}

async fn many_submitters_of_one_unique_key(t: &Bench) {
    for round in 0..times(20, 200) {
        let jobs: Vec<_> = (0..64).map(|_| t.job("copy").unique(1).new_job()).collect();

        let answers = together(64, |number| {
            let ((store, now), job) = (store(t), jobs[number].clone());
            async move { (job.job.id.clone(), one(store.insert(vec![job], now).await.unwrap())) }
        })
        .await;

        let (created, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, answer)| *answer == Inserted::Created);
        assert_eq!(created.len(), 1, "round {round}");
        let winner = &created[0].0;
        assert!(refused.iter().all(|(_, answer)| *answer == Inserted::Duplicate(winner.clone())), "round {round}");
        assert_eq!(t.list(by_status(Status::Pending)).await, [winner.clone()], "round {round}");
        t.stop(winner).await;
    }
}

async fn many_submitters_with_one_idempotency_key(t: &Bench) {
    for round in 0..times(20, 200) {
        let key = format!("submission-{round}");
        let jobs: Vec<_> = (0..16).map(|_| t.job("copy").idempotency_key(&key).new_job()).collect();

        let answers = together(16, |number| {
            let ((store, now), job) = (store(t), jobs[number].clone());
            async move { (job.job.id.clone(), one(store.insert(vec![job], now).await.unwrap())) }
        })
        .await;

        let (created, repeated): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, answer)| *answer == Inserted::Created);
        assert_eq!(created.len(), 1, "round {round}");
        let first = &created[0].0;
        assert!(repeated.iter().all(|(_, answer)| *answer == Inserted::Repeated(first.clone())), "round {round}");
    }
}

async fn many_submitters_of_one_id(t: &Bench) {
    for round in 0..times(20, 200) {
        let job = t.job("copy").build();

        let mut answers = together(8, |_| {
            let ((store, now), job) = (store(t), job.clone());
            async move { one(store.insert(vec![job.into()], now).await.unwrap()) }
        })
        .await;

        answers.sort_by_key(|answer| *answer != Inserted::Created);
        assert_eq!(answers[0], Inserted::Created, "round {round}");
        assert!(answers[1..].iter().all(|answer| *answer == Inserted::IdTaken), "round {round}");
    }
}

async fn many_pools_claim(t: &Bench) {
    for round in 0..times(10, 100) {
        let jobs: Vec<_> = (0..200).map(|_| t.job("copy").build()).collect();
        let mut inserted: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;

        let claims = together(8, |number| {
            let (store, now) = store(t);
            let mut asks = Vec::new();
            for _ in 0..200 {
                asks.push(t.ask(&["copy"]).pool(&format!("pool-{number}/01")).slots(7).build());
            }
            async move {
                let mut claimed = Vec::new();
                for ask in asks {
                    let jobs = store.claim(&ask, now).await.unwrap();
                    if jobs.is_empty() {
                        break;
                    }
                    claimed.extend(jobs);
                }
                claimed
            }
        })
        .await;

        let mut ids: Vec<JobId> = claims.iter().flatten().map(|job| job.id.clone()).collect();
        ids.sort();
        inserted.sort();
        assert_eq!(ids, inserted, "round {round}: each once");
        for job in claims.iter().flatten() {
            assert_eq!(t.finish_ok(&crate::bench::lease(job)).await, Finished::Applied(Status::Success));
        }
    }
}

async fn many_pools_claim_below_a_limit(t: &Bench) {
    let limit = OptionsChange { max_concurrency: Some(Some(3)), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), limit, t.now()).await.unwrap();
    for round in 0..times(20, 200) {
        let jobs: Vec<_> = (0..16).map(|_| t.job("copy").build()).collect();
        t.insert(jobs).await;

        let claims = together(8, |number| {
            let ((store, now), ask) = (store(t), t.ask(&["copy"]).pool(&format!("pool-{number}/01")).slots(2).build());
            async move { store.claim(&ask, now).await.unwrap() }
        })
        .await;

        let running: Vec<_> = claims.into_iter().flatten().collect();
        assert_eq!(running.len(), 3, "round {round}: as many as may, and none more");
        for job in &running {
            t.finish_ok(&crate::bench::lease(job)).await;
        }
        for id in t.list(by_status(Status::Pending)).await {
            t.stop(&id).await;
        }
    }
}

async fn four_reapers(t: &Bench) {
    for round in 0..times(5, 50) {
        let jobs: Vec<_> = (0..100).map(|_| t.job("copy").build()).collect();
        t.insert(jobs).await;
        let leases = t.ask(&["copy"]).slots(100).claim().await;
        t.advance(LEASE);

        let moved = together(4, |_| {
            let (store, now) = store(t);
            async move {
                let mut moved = 0;
                // Ten more than one reaper alone would need.
                for _ in 0..24 {
                    moved += store.reap(7, 0, now).await.unwrap().moved;
                }
                moved
            }
        })
        .await;

        assert_eq!(moved.iter().sum::<usize>(), 100, "round {round}: each once");
        for job in leases {
            let state = t.get(&job.id).await.state;
            assert_eq!((state.status, state.crashes), (Status::Pending, 1), "round {round}");
            t.stop(&job.id).await;
        }
    }
}

async fn four_promoters(t: &Bench) {
    for round in 0..times(5, 50) {
        let jobs: Vec<_> = (0..100).map(|_| t.job("copy").after(seconds(5)).build()).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;
        t.advance(seconds(5));

        let moved = together(4, |_| {
            let (store, now) = store(t);
            async move {
                let mut moved = 0;
                for _ in 0..24 {
                    moved += store.promote(7, now).await.unwrap().moved;
                }
                moved
            }
        })
        .await;

        assert_eq!(moved.iter().sum::<usize>(), 100, "round {round}: each once");
        for id in ids {
            assert_eq!(t.get(&id).await.state.version, 2, "round {round}");
            t.stop(&id).await;
        }
    }
}

async fn four_pruners(t: &Bench) {
    for round in 0..times(5, 50) {
        let jobs: Vec<_> = (0..50).map(|_| t.job("copy").retention(5).build()).collect();
        let mut ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;
        for id in &ids {
            t.stop(id).await;
        }
        t.advance(seconds(5));

        let removed = together(4, |_| {
            let (store, now) = store(t);
            async move {
                let mut removed = Vec::new();
                for _ in 0..12 {
                    removed.extend(store.prune(7, now).await.unwrap().removed);
                }
                removed
            }
        })
        .await;

        let mut removed: Vec<JobId> = removed.into_iter().flatten().collect();
        removed.sort();
        ids.sort();
        assert_eq!(removed, ids, "round {round}: each once");
    }
}

async fn many_nodes_fire_one_tick(t: &Bench) {
    let policy = t.policy("copy").put().await;
    for round in 0..times(50, 1000) {
        t.advance(seconds(60));
        let now = t.now();
        let tick = super::fire::tick(now, Some(now + seconds(60)));
        let executions: Vec<_> = (0..5).map(|_| super::fire::execution(t, &policy)).collect();

        let answers = together(5, |number| {
            let ((store, now), policy, tick) = (store(t), policy.clone(), tick.clone());
            let execution = executions[number].clone();
            async move { store.fire(&policy, &tick, vec![execution], now).await.unwrap() }
        })
        .await;

        let fired: Vec<_> = answers.iter().filter(|answer| **answer != Fired::Stale).collect();
        assert!(matches!(fired.as_slice(), [Fired::Fired(ids)] if ids.len() == 1), "round {round}: {answers:?}");
    }
    let executions = t.list(Query { upstream: Some(policy), ..Query::default() }).await;
    assert_eq!(executions.len() as u64, times(50, 1000), "one execution a tick");
}

async fn many_nodes_declare_one_schedule(t: &Bench) {
    for round in 0..times(20, 200) {
        let key = format!("schedule-{round}");
        let policies: Vec<_> = (0..8).map(|_| t.policy("copy").key(&key).build()).collect();

        let answers = together(8, |number| {
            let ((store, now), policy) = (store(t), policies[number].clone());
            async move { store.put_policy(policy, now).await.unwrap() }
        })
        .await;

        let created: Vec<_> =
            answers.iter().zip(&policies).filter(|(answer, _)| **answer == PolicyPut::Created).collect();
        assert_eq!(created.len(), 1, "round {round}");
        let id = &created[0].1.id;
        let others = answers.iter().filter(|answer| **answer == PolicyPut::Unchanged(id.clone())).count();
        assert_eq!(others, 7, "round {round}: {answers:?}");
    }
}

async fn four_takers_of_events(t: &Bench) {
    for round in 0..times(10, 100) {
        let jobs: Vec<_> = (0..40).map(|_| t.job("copy").hook().build()).collect();
        let mut ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;
        let running = t.ask(&["copy"]).slots(40).claim().await;

        let taken = together(4, |_| {
            let (store, now) = store(t);
            async move {
                let mut taken = Vec::new();
                for _ in 0..12 {
                    taken.extend(store.take_events(7, now + seconds(60), now).await.unwrap());
                }
                taken
            }
        })
        .await;

        let mut taken: Vec<JobId> = taken.into_iter().flatten().map(|taken| taken.job.id).collect();
        taken.sort();
        ids.sort();
        assert_eq!(taken, ids, "round {round}: each once");
        for job in &running {
            t.finish_ok(&crate::bench::lease(job)).await;
            t.delivered(&job.id, 2).await;
        }
    }
}

/// Goal: who reads while others write sees whole steps. Method: readers check every record that they see while writers
/// bring jobs through their lives.
async fn readers_and_writers(t: &Bench) {
    let rounds = times(50, 500);
    let writers = together(4, |number| {
        let (store, now) = store(t);
        let named = format!("writer-{number}");
        let mut lives = Vec::new();
        for _ in 0..rounds {
            lives.push((t.job(&named).hook().build(), t.ask(&[&named]).build()));
        }
        async move {
            for (job, ask) in lives {
                let id = job.id.clone();
                assert_eq!(one(store.insert(vec![job.into()], now).await.unwrap()), Inserted::Created);
                let seen = store.get(&id).await.unwrap().expect("what is answered is there to be read");
                assert_eq!(seen.state.status, Status::Pending);
                let lease = crate::bench::lease(&one(store.claim(&ask, now).await.unwrap()));
                let report = Report { lease, outcome: ok() };
                assert_eq!(finish(Arc::clone(&store), report, now).await, Finished::Applied(Status::Success));
                let seen = store.get(&id).await.unwrap().expect("it is kept");
                assert_eq!(seen.state.status, Status::Success);
                for job in store.list(&Query { limit: 5, ..Query::default() }).await.unwrap().jobs {
                    assert_eq!(jobservice_core::invariant::check(&job), Vec::<String>::new());
                }
            }
        }
    });
    writers.await;
    let counts = t.store.counts().await.unwrap();
    let success = counts.iter().find(|(status, _)| *status == Status::Success).map(|(_, count)| *count);
    assert_eq!(success, Some(4 * rounds));
}

fn by_status(status: Status) -> Query {
    Query { status: Some(status), ..Query::default() }
}
