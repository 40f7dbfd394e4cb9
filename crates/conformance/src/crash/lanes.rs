//! Many callers at once: each brings jobs of a name of its own through their lives, one call after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::limits::{GRACE, LEASE, WEIGHT_DEFAULT};
use jobservice_core::store::{CheckedIn, Claim, Finished, Inserted, NameAsk, Report, Store};
use jobservice_core::{Clock, JobId, ManualClock, Time};

use super::{Noted, Work};
use crate::bench::{lease, name, ok, one, pool_id};

/// Callers.
const LANES: usize = 16;

/// Jobs of each.
const JOBS: usize = 6;

/// Calls in the life of a job. Each raises its version by one, so the version tells how far it came.
const STEPS: usize = 6;

pub(super) struct Lanes;

fn answers(dir: &Path, lane: usize) -> PathBuf {
    dir.join(format!("answers-{lane}"))
}

fn id(lane: usize, number: usize) -> JobId {
    JobId::new(format!("lane-{lane:02}-job-{number:02}")).expect("an id")
}

fn lane_name(lane: usize) -> String {
    format!("lane-{lane:02}")
}

#[async_trait]
impl Work for Lanes {
    async fn work(&self, store: Arc<dyn Store>, dir: &Path, _seed: u64) {
        let now = ManualClock::default().now();
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let mut noted = Noted::open(&answers(dir, lane));
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for number in 0..JOBS {
                        live(&*store, lane, number, now, &mut noted).await;
                    }
                })
            })
            .collect();
        for lane in lanes {
            lane.await.expect("a caller does not panic");
        }
    }

    async fn check(&self, store: Arc<dyn Store>, dir: &Path, _seed: u64) -> Result<(), String> {
        for lane in 0..LANES {
            let answered = Noted::count(&answers(dir, lane));
            let mut done = 0;
            for number in 0..JOBS {
                let job = store.get(&id(lane, number)).await.map_err(|error| error.to_string())?;
                let version = job.as_ref().map_or(0, |job| job.state.version as usize);
                if let Some(job) = &job
                    && job.state.status != status_after(version)
                {
                    return Err(format!("{} has version {version} and is {}", job.id, job.state.status));
                }
                if version > 0 && done != number * STEPS {
                    return Err(format!("{} is there before the one before it ended", id(lane, number)));
                }
                done += version;
            }
            if done != answered && done != answered + 1 {
                return Err(format!("lane {lane}: {answered} calls were answered, {done} are done"));
            }
        }
        Ok(())
    }
}

fn status_after(version: usize) -> Status {
    match version {
        1 | 4 => Status::Pending,
        2 | 3 | 5 => Status::Running,
        _ => Status::Success,
    }
}

/// The life of one job: inserted, claimed, checked in, given back, claimed, finished.
async fn live(store: &dyn Store, lane: usize, number: usize, now: Time, noted: &mut Noted) {
    let named = lane_name(lane);
    let mut spec = crate::model::plain_spec(&named, now);
    spec.hook = Some("http://hooks.example/jobs".into());
    spec.tags = vec!["lane".into()];
    let job = Job::submitted(id(lane, number), spec, None, now);
    assert_eq!(one(store.insert(vec![job.into()], now).await.expect("insert")), Inserted::Created);
    noted.note();
    let first = claim(store, &named, 1, now).await;
    noted.note();
    assert_eq!(store.check_in(&first, "50%".into(), now).await.expect("check in"), CheckedIn::Noted(None));
    noted.note();
    let released = one(store.release(vec![first], 0, now).await.expect("release"));
    assert_eq!(released, Finished::Applied(Status::Pending));
    noted.note();
    let second = claim(store, &named, 2, now).await;
    noted.note();
    let report = Report { lease: second, outcome: ok() };
    assert_eq!(one(store.finish(vec![report], now).await.expect("finish")), Finished::Applied(Status::Success));
    noted.note();
}

async fn claim(store: &dyn Store, named: &str, nonce: u64, now: Time) -> LeaseKey {
    let ask = Claim {
        pool: pool_id("crash/01"),
        names: [NameAsk { name: name(named), weight: WEIGHT_DEFAULT, max_concurrency: None }].into(),
        slots: 1,
        suspects: false,
        nonce,
        seed: nonce,
        until: now + LEASE,
        grace: GRACE,
    };
    lease(&one(store.claim(&ask, now).await.expect("claim")))
}
