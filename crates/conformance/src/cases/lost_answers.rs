//! Answers are lost: whoever keeps to the protocol loses no job and counts nothing twice.
//!
//! Goal: what `Store` says of repeating a call is enough to live with. Method: a small pool ([`crate::worker`]), an
//! operator, a scheduler, a hook delivery work through [`crate::faulty`] at harsh rates, over many seeds; then the records
//! are held against what they did.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use jobservice_core::job::Status;
use jobservice_core::limits::{GRACE, LEASE, RELEASES_MAX};
use jobservice_core::store::{
    Action, Controlled, Fired, Inserted, NewJob, PolicyQuery, Query, Settled, Store,
};
use jobservice_core::{JobId, Time};

use crate::bench::{Bench, pool_id, seconds};
use crate::counts::seeds;
use crate::faulty::{Faulty, Rates};
use crate::rng::Rng;
use crate::worker::{Worker, again};

super::cases! { $ lost_answers:
    pool_runs_each_claim_once,
    stopped_jobs_end_and_are_not_begun_again,
    killed_pools_strand_no_job,
    submissions_are_stored_once,
    sweeps_move_each_job_once,
    ticks_fire_once,
    events_arrive_complete_and_in_order,
    dropped_call_is_done_wholly_or_not_at_all,
}

fn faulty(t: &Bench, seed: u64) -> Arc<Faulty> {
    Arc::new(Faulty::new(Arc::clone(&t.store), Rates::HARSH, seed))
}

fn is_all_final(counts: &[(Status, u64)]) -> bool {
    counts.iter().all(|(status, count)| status.is_final() || *count == 0)
}

/// Turns a pool until nothing is left to do.
async fn drain(t: &Bench, store: &dyn Store, worker: &mut Worker) {
    for _ in 0..2000 {
        worker.turn(t.now()).await;
        if worker.is_idle() && is_all_final(&again(|| store.counts()).await) {
            return;
        }
        t.advance(seconds(1));
        again(|| store.promote(100, t.now())).await;
    }
    panic!("jobs are stranded: {:?}", t.store.counts().await.unwrap());
}

async fn pool_runs_each_claim_once(t: &Bench) {
    let mut faults = Vec::new();
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let store = faulty(t, seed);
        let jobs: Vec<_> = (0..20).map(|_| t.job("copy").max_fails(100).build()).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;
        let mut worker = Worker::new(store.clone(), pool_id("web/01"), seed);

        drain(t, &*store, &mut worker).await;

        for id in ids {
            let job = t.get(&id).await;
            assert_eq!(job.state.status, Status::Success, "seed {seed}");
            let runs = &worker.runs[&id];
            if runs.released <= RELEASES_MAX {
                worker.check(&job);
                let ended = runs.failed + runs.snoozed + runs.released + 1;
                assert_eq!(runs.begun, ended, "seed {seed}: each run of {id} ended once, {runs:?}");
            }
        }
        faults.push(store.faults());
        t.audit().await;
    }
    let calm = faults.iter().filter(|(lost, refused)| lost + refused < 10).count();
    assert!(calm * 2 < faults.len(), "too calm to show anything: {faults:?}");
}

async fn stopped_jobs_end_and_are_not_begun_again(t: &Bench) {
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let store = faulty(t, seed);
        let mut rng = Rng::new(seed ^ 0x5709);
        let jobs: Vec<_> = (0..30).map(|_| t.job("copy").max_fails(100).build()).collect();
        let mut waiting: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        let ids = waiting.clone();
        t.insert(jobs).await;
        let mut worker = Worker::new(store.clone(), pool_id("web/01"), seed);

        let mut stopped = Vec::new();
        while !waiting.is_empty() {
            worker.turn(t.now()).await;
            let id = waiting.swap_remove(rng.below(waiting.len() as u64) as usize);
            match again(|| store.control(&id, Action::Stop(GRACE), t.now())).await {
                Controlled::Done(Status::Stopped) => {
                    worker.ended.insert(id.clone());
                    stopped.push(id);
                }
                // Done before and asked again because the answer was lost, or ended by itself.
                Controlled::Unchanged(Status::Stopped) => stopped.push(id),
                Controlled::Signalled | Controlled::Unchanged(Status::Running | Status::Success) => {}
                other => panic!("seed {seed}: the stop of {id} is answered {other:?}"),
            }
            t.advance(seconds(1));
            again(|| store.promote(100, t.now())).await;
        }
        drain(t, &*store, &mut worker).await;

        for id in &ids {
            let job = t.get(id).await;
            assert!(matches!(job.state.status, Status::Stopped | Status::Success), "seed {seed}: {id}");
            assert_eq!(job.state.crashes, 0, "seed {seed}: {id}");
        }
        for id in &stopped {
            assert_eq!(t.status(id).await, Status::Stopped, "seed {seed}: {id} was answered as stopped");
        }
        t.audit().await;
    }
}

/// Pools die with all that they know, again and again; the next incarnation knows nothing of their leases.
async fn killed_pools_strand_no_job(t: &Bench) {
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let store = faulty(t, seed);
        let mut rng = Rng::new(seed ^ 0xdead);
        let jobs: Vec<_> = (0..30).map(|_| t.job("copy").max_fails(100).build()).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;

        let mut worker = Worker::new(store.clone(), pool_id("web/00"), seed);
        for turn in 1..100 {
            worker.turn(t.now()).await;
            if rng.chance(15) {
                worker = Worker::new(store.clone(), pool_id(&format!("web/{turn:02}")), seed + turn);
            }
            t.advance(seconds(1));
            again(|| store.promote(100, t.now())).await;
            again(|| store.reap(100, 0, t.now())).await;
        }
        for _ in 0..2000 {
            worker.turn(t.now()).await;
            if worker.is_idle() && is_all_final(&again(|| store.counts()).await) {
                break;
            }
            t.advance(seconds(1));
            again(|| store.promote(100, t.now())).await;
            again(|| store.reap(100, 0, t.now())).await;
        }

        for id in ids {
            let state = t.get(&id).await.state;
            let poison = state.status == Status::Error && state.crashes == jobservice_core::limits::CRASHES_MAX;
            assert!(state.status == Status::Success || poison, "seed {seed}: {id} is {}", state.status);
        }
        t.audit().await;
    }
}

async fn submissions_are_stored_once(t: &Bench) {
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let store = faulty(t, seed);
        let mut ids = Vec::new();
        for number in 0..30 {
            // As a client does it: the same key, but each try makes a job with an id of its own.
            let key = format!("submission-{number}");
            let answer = again(async || {
                let job = t.job("copy").idempotency_key(&key).new_job();
                let id = job.job.id.clone();
                let answer = store.insert(vec![job], t.now()).await?.remove(0);
                Ok(if answer == Inserted::Created { Inserted::Repeated(id) } else { answer })
            })
            .await;
            let Inserted::Repeated(id) = answer else { panic!("seed {seed}: {answer:?}") };
            ids.insert(0, id);
        }

        assert_eq!(t.list(Query::default()).await, ids, "seed {seed}");
        t.audit().await;
    }
}

async fn sweeps_move_each_job_once(t: &Bench) {
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let store = faulty(t, seed);
        let mut jobs: Vec<_> = (0..10).map(|_| t.job("copy").after(seconds(5)).retention(0).build()).collect();
        jobs.extend((0..10).map(|_| t.job("copy").build()));
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;
        assert_eq!(t.ask(&["copy"]).slots(10).claim().await.len(), 10);
        t.advance(LEASE);

        for _ in 0..10 {
            again(|| store.promote(3, t.now())).await;
            again(|| store.reap(3, 0, t.now())).await;
        }

        for id in &ids[..10] {
            assert_eq!((t.status(id).await, t.get(id).await.state.version), (Status::Pending, 2), "seed {seed}");
        }
        for id in &ids[10..] {
            let state = t.get(id).await.state;
            assert_eq!((state.status, state.crashes, state.version), (Status::Pending, 1, 3), "seed {seed}");
        }
        for id in &ids[..10] {
            t.stop(id).await;
        }
        for _ in 0..10 {
            again(|| store.prune(3, t.now())).await;
        }
        assert_eq!(t.list(Query::default()).await.len(), 10, "seed {seed}");
        t.audit().await;
    }
}

/// Two schedulers read the policies and fire what is due, each through faults of its own.
async fn ticks_fire_once(t: &Bench) {
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let schedulers = [faulty(t, seed), faulty(t, seed ^ 0xf1e1)];
        let policy = t.policy("copy").put().await;
        let ticks = 30;
        let last = t.now() + seconds(60 * ticks);
        for _ in 0..ticks {
            t.advance(seconds(60));
            // A lost call leaves the tick to the next round; nobody waits for an answer.
            for _ in 0..20 {
                for store in &schedulers {
                    fire_what_is_due(t, &**store).await;
                }
            }
        }

        let executions = t.list(Query { upstream: Some(policy.clone()), ..Query::default() }).await;
        let state = super::policies::get(t, &policy).await.state;
        assert_eq!(executions.len() as u64, ticks, "seed {seed}");
        assert_eq!((state.fired, state.skipped, state.last_fired), (ticks, 0, Some(last)), "seed {seed}");
        t.audit().await;
    }
}

async fn fire_what_is_due(t: &Bench, store: &dyn Store) {
    let now = t.now();
    let due = PolicyQuery { due_by: Some(now), limit: 10, ..PolicyQuery::default() };
    let Ok(policies) = store.policies(&due).await else { return };
    for policy in policies {
        let Some(due) = policy.state.next_due else { continue };
        let tick = super::fire::tick(due, Some(due + seconds(60)));
        let execution: NewJob = super::fire::execution(t, &policy.id);
        if let Ok(fired) = store.fire(&policy.id, &tick, vec![execution], now).await {
            assert!(matches!(fired, Fired::Fired(_) | Fired::Stale), "{fired:?}");
        }
    }
}

async fn events_arrive_complete_and_in_order(t: &Bench) {
    for seed in seeds(20, 200) {
        let t = &t.another().await;
        let store = faulty(t, seed);
        let jobs: Vec<_> = (0..10).map(|_| t.job("copy").hook().max_fails(100).build()).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        t.insert(jobs).await;
        let mut worker = Worker::new(t.store.clone(), pool_id("web/01"), seed);
        let mut hook = Hook { received: BTreeMap::new(), rng: Rng::new(seed ^ 0x400c) };

        for _ in 0..60 {
            worker.turn(t.now()).await;
            hook.deliver(&*store, t.now()).await;
            t.advance(seconds(1));
            t.promote().await;
        }
        drain(t, &*t.store, &mut worker).await;
        store.set_rates(Rates::default());
        for _ in 0..200 {
            hook.deliver(&*store, t.now()).await;
            t.advance(seconds(5));
        }

        for id in ids {
            let expected: Vec<u32> = (1..=t.get(&id).await.state.event_seq).collect();
            assert_eq!(hook.received[&id], expected, "seed {seed}: first arrivals of {id}");
        }
        assert_eq!(t.take_events().await, [], "seed {seed}: all settled");
        t.audit().await;
    }
}

/// A hook that fails now and then, and who sends to it.
struct Hook {
    /// What arrived of each job, repeats left out.
    received: BTreeMap<JobId, Vec<u32>>,
    rng: Rng,
}

impl Hook {
    async fn deliver(&mut self, store: &dyn Store, now: Time) {
        let Ok(taken) = store.take_events(3, now + seconds(10), now).await else { return };
        for taken in taken {
            let received = self.received.entry(taken.job.id.clone()).or_default();
            for event in taken.events {
                if self.rng.chance(20) {
                    let settled = Settled::Retry { at: now + seconds(3), error: "503".into() };
                    // Nobody waits for the answer: the events come again after the hold.
                    drop(store.settle_event(&taken.job.id, event.seq, settled, now).await);
                    break;
                }
                if !received.contains(&event.seq) {
                    received.push(event.seq);
                }
                if store.settle_event(&taken.job.id, event.seq, Settled::Done, now).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// Goal: a caller that gives up waiting does no harm. Method: the future is polled once and dropped.
async fn dropped_call_is_done_wholly_or_not_at_all(t: &Bench) {
    for _ in 0..50 {
        let jobs: Vec<NewJob> = (0..3).map(|_| t.job("copy").new_job()).collect();
        {
            let mut call = pin!(t.store.insert(jobs.clone(), t.now()));
            std::future::poll_fn(|context| {
                drop(call.as_mut().poll(context));
                Poll::Ready(())
            })
            .await;
        }
        let answers = t.store.insert(jobs, t.now()).await.unwrap();
        assert!(answers == [const { Inserted::Created }; 3] || answers == [const { Inserted::IdTaken }; 3], "{answers:?}");

        let ask = t.ask(&["copy"]).slots(3).build();
        {
            let mut call = pin!(t.store.claim(&ask, t.now()));
            std::future::poll_fn(|context| {
                drop(call.as_mut().poll(context));
                Poll::Ready(())
            })
            .await;
        }
        let claimed = t.ask(&["copy"]).slots(3).claim().await;
        let unlisted = t.extend_all(crate::bench::POOL, &[]).await.unlisted;
        assert_eq!(unlisted.len(), 3, "run by whichever claim: {} by the second", claimed.len());
        for lease in unlisted {
            t.finish_ok(&lease).await;
        }
    }
}
