//! What the tests over files share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test says what is wrong by its panic, and not each test file uses all of this"
)]

use std::time::Duration;

use jobservice_core::job::{Job, Kind, LeaseKey, Retention, Spec};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::store::{Claim, NameAsk, NewJob, Report};
use jobservice_core::{JobId, Name, PoolId, Store, Time};
use jobservice_sqlite::SqliteStore;

pub const NOW: Time = Time::from_seconds(1_767_614_400);

pub fn job(name: &str) -> NewJob {
    job_with(name, r#"{"a": 1}"#, None)
}

pub fn job_with(name: &str, parameters: &str, run_at: Option<Time>) -> NewJob {
    let spec = Spec {
        name: Name::new(name).unwrap(),
        kind: Kind::Generic,
        parameters: parameters.into(),
        priority: 0,
        unique: None,
        max_fails: 4,
        timeout: None,
        hook: None,
        upstream: None,
        tags: vec!["red".into()],
        retention: Retention::default(),
        enqueued_at: NOW,
    };
    Job::submitted(JobId::generate(), spec, run_at, NOW).into()
}

pub fn ask(pool: &str, names: &[&str], slots: u32) -> Claim {
    let names =
        names.iter().map(|name| NameAsk { name: Name::new(name).unwrap(), weight: 1000, max_concurrency: None });
    Claim {
        pool: PoolId::new(pool).unwrap(),
        names: names.collect(),
        slots,
        suspects: true,
        nonce: 7,
        seed: 1,
        until: NOW + Duration::from_secs(10),
        grace: Duration::from_secs(30),
    }
}

pub fn succeeded(job: &Job) -> Report {
    let LeaseKey { id, attempt, nonce } = job.lease_key().unwrap();
    Report { lease: LeaseKey { id, attempt, nonce }, outcome: Outcome::Ok { result: None } }
}

pub async fn sound(store: &SqliteStore) {
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
}

/// Looks until it is as it should be, for at most ten seconds.
pub async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if is_so().await {
            return;
        }
        std::thread::sleep(Duration::from_millis(10)); // bounded poll
    }
    panic!("not within ten seconds: {what}");
}
