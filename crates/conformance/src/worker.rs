//! A small worker pool, as the suite needs it: it drives a faulty store by the protocol that `Store` documents and
//! remembers what it did, so that the records can be held against it.
//!
//! The protocol: a claim that is not answered is forgotten; each turn extends what the pool holds and adopts what the
//! store names as unlisted; a report is sent again until it is answered; a run whose lease is lost is dropped.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jobservice_core::job::{Job, LeaseKey};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::limits::{GRACE, LEASE, WEIGHT_DEFAULT};
use jobservice_core::store::{Claim, Finished, Held, NameAsk, Report, Result, Store};
use jobservice_core::{JobId, PoolId, Status, Time};

use crate::bench::{failed, name, ok, seconds};
use crate::rng::Rng;

/// What a run of the small pool came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs that were begun.
    pub begun: u32,
    /// Reports of a failure that were accepted.
    pub failed: u32,
    /// Reports of a snooze that were accepted.
    pub snoozed: u32,
    /// Runs given back that were accepted.
    pub released: u32,
    /// Runs whose lease was lost.
    pub lost: u32,
}

/// The pool.
pub struct Worker {
    store: Arc<dyn Store>,
    rng: Rng,
    pool: PoolId,
    held: Vec<LeaseKey>,
    /// Reports that nobody has answered yet.
    reports: Vec<Report>,
    /// Leases to be given back that nobody has answered yet.
    releases: Vec<LeaseKey>,
    /// Each run that it knows of: a lease is run once.
    seen: HashSet<LeaseKey>,
    /// Jobs that nobody may be given any more: their stop was answered while they waited.
    pub ended: HashSet<JobId>,
    /// What came of each job's runs.
    pub runs: HashMap<JobId, Runs>,
}

impl Worker {
    /// A pool over this store, which does as this seed says.
    pub fn new(store: Arc<dyn Store>, pool: PoolId, seed: u64) -> Worker {
        Worker {
            store,
            rng: Rng::new(seed),
            pool,
            held: Vec::new(),
            reports: Vec::new(),
            releases: Vec::new(),
            seen: HashSet::new(),
            ended: HashSet::new(),
            runs: HashMap::new(),
        }
    }

    /// Whether it waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.reports.is_empty() && self.releases.is_empty()
    }

    /// One turn: claim, extend and adopt, run, report.
    pub async fn turn(&mut self, now: Time) {
        let ask = Claim {
            pool: self.pool.clone(),
            names: [NameAsk { name: name("copy"), weight: WEIGHT_DEFAULT, max_concurrency: None }].into(),
            slots: 3,
            suspects: true,
            nonce: self.rng.next(),
            seed: self.rng.next(),
            until: now + LEASE,
            grace: GRACE,
        };
        if let Ok(jobs) = self.store.claim(&ask, now).await {
            for job in jobs {
                self.begin(&job.lease_key().expect("a claimed job has a lease"));
            }
        }
        self.extend(now).await;
        self.run(now);
        self.report(now).await;
    }

    fn begin(&mut self, lease: &LeaseKey) {
        assert!(!self.ended.contains(&lease.id), "job {} was stopped before it was claimed", lease.id);
        assert!(
            self.seen.insert(lease.clone()),
            "the lease of attempt {} of {} was given twice",
            lease.attempt,
            lease.id
        );
        self.settle_older(&lease.id);
        self.runs.entry(lease.id.clone()).or_default().begun += 1;
        self.held.push(lease.clone());
    }

    /// Extends until it is answered: an unanswered one would be tried again before the leases end.
    async fn extend(&mut self, now: Time) {
        let mut listed = self.held.clone();
        listed.extend(self.reports.iter().map(|report| report.lease.clone()));
        listed.extend(self.releases.iter().cloned());
        let extended = again(|| self.store.extend(&self.pool, &listed, now + LEASE, now)).await;
        assert_eq!(extended.leases.len(), listed.len());
        for (lease, held) in listed.iter().zip(&extended.leases) {
            // A report on its way may have ended the lease already, and its answer been lost: that is not a lost run.
            if *held == Held::Lost && self.held.contains(lease) {
                self.held.retain(|other| other != lease);
                self.runs.entry(lease.id.clone()).or_default().lost += 1;
            }
        }
        for lease in extended.unlisted {
            self.begin(&lease);
        }
    }

    /// Decides how the runs end; some go on for another turn.
    fn run(&mut self, now: Time) {
        for lease in std::mem::take(&mut self.held) {
            let outcome = match self.rng.below(10) {
                0 => {
                    self.releases.push(lease);
                    continue;
                }
                1 | 2 => {
                    self.held.push(lease);
                    continue;
                }
                3 => failed("broken"),
                4 => Outcome::Snooze { until: now + seconds(2) },
                _ => ok(),
            };
            self.reports.push(Report { lease, outcome });
        }
    }

    async fn report(&mut self, now: Time) {
        if let Ok(answers) = self.store.finish(self.reports.clone(), now).await {
            for (report, answer) in std::mem::take(&mut self.reports).into_iter().zip(answers) {
                self.reported(&report, answer);
            }
        }
        if let Ok(answers) = self.store.release(self.releases.clone(), 0, now).await {
            for (lease, answer) in std::mem::take(&mut self.releases).into_iter().zip(answers) {
                self.released(&lease, answer);
            }
        }
    }

    fn reported(&mut self, report: &Report, answer: Finished) {
        let runs = self.runs.entry(report.lease.id.clone()).or_default();
        match (answer, &report.outcome) {
            (Finished::LeaseLost, _) => runs.lost += 1,
            (Finished::Applied(Status::Stopped), _) => {}
            (Finished::Applied(_), Outcome::Failed { .. }) => runs.failed += 1,
            (Finished::Applied(_), Outcome::Snooze { .. }) => runs.snoozed += 1,
            (Finished::Applied(_), _) => {}
        }
    }

    fn released(&mut self, lease: &LeaseKey, answer: Finished) {
        let runs = self.runs.entry(lease.id.clone()).or_default();
        match answer {
            Finished::LeaseLost => runs.lost += 1,
            Finished::Applied(Status::Stopped) => {}
            Finished::Applied(_) => runs.released += 1,
        }
    }

    /// A newer attempt of a job is the answer to what is still unanswered of an older one: it was accepted, or the job
    /// could not run again (nobody reaps a pool that lives). To send it on would be too late once the newer has ended.
    fn settle_older(&mut self, id: &JobId) {
        let (older, newer) = std::mem::take(&mut self.reports).into_iter().partition(|report| report.lease.id == *id);
        self.reports = newer;
        let older: Vec<Report> = older;
        for report in &older {
            self.reported(report, Finished::Applied(Status::Pending));
        }
        let (older, newer) = std::mem::take(&mut self.releases).into_iter().partition(|lease| lease.id == *id);
        self.releases = newer;
        let older: Vec<LeaseKey> = older;
        for lease in &older {
            self.released(lease, Finished::Applied(Status::Pending));
        }
    }

    /// Checks that the record of a job counts what happened, and nothing twice.
    pub fn check(&self, job: &Job) {
        let runs = self.runs.get(&job.id).cloned().unwrap_or_default();
        let state = &job.state;
        assert_eq!(state.attempt, runs.begun, "{}: each claim was run once, {runs:?}", job.id);
        assert_eq!(state.crashes, runs.lost, "{}: no worker died, {runs:?}", job.id);
        assert_eq!(state.fails, runs.failed, "{}: each failure counts once, {runs:?}", job.id);
        assert_eq!(state.releases, runs.released, "{}: each release counts once, {runs:?}", job.id);
    }
}

/// Makes a call again until it is answered.
///
/// # Panics
/// If it is not in a thousand tries, or fails in another way than by being unavailable.
pub async fn again<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> T {
    for _ in 0..1000 {
        match call().await {
            Ok(answer) => return answer,
            Err(jobservice_core::StoreError::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("no answer in a thousand tries");
}
