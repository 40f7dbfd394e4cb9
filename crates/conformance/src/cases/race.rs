//! Threads meet: who comes first is open, that both are told the same story is not.
//!
//! Each case lets two or more calls loose at once, over several threads, and looks at whether their answers and the
//! record fit one order of the calls. Repeated 100 times, 1,000 times in a soak.

use std::sync::Arc;

use jobservice_core::job::Status;
use jobservice_core::limits::{GRACE, LEASE};
use jobservice_core::store::{
    Action, Controlled, Finished, Fired, Held, Inserted, OptionsChange, PolicyPut, Query, Report, Store,
};
use jobservice_core::{JobId, Time};
use tokio::sync::Barrier;

use crate::bench::{Bench, POOL, failed, name, ok, one, pool_id, seconds};
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
    many_submitters_of_one_unique_key,
    many_submitters_with_one_idempotency_key,
    many_submitters_of_one_id,
    retry_and_submission_of_one_unique_key,
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

/// Runs `count` calls at once, each on a task of its own, released by a barrier; answers in their order.
async fn together<T, F>(count: usize, call: impl Fn(usize) -> F) -> Vec<T>
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

fn store(t: &Bench) -> (Arc<dyn Store>, Time) {
    (Arc::clone(&t.store), t.now())
}

async fn control(store: Arc<dyn Store>, id: JobId, action: Action, now: Time) -> Controlled {
    store.control(&id, action, now).await.unwrap()
}

async fn finish(store: Arc<dyn Store>, report: Report, now: Time) -> Finished {
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
