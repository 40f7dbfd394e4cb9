//! The bench that a case works at: a store, a clock that stands still, and short words for what all cases do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jobservice_core::job::{Job, LeaseKey, Signal, Status};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::limits::{GRACE, LEASE};
use jobservice_core::store::{
    Action, CheckedIn, Controlled, Deleted, Extended, Finished, Held, JobEvents, NewJob, Query, Report, Settled, Store,
    Swept,
};
use jobservice_core::{Clock, JobId, ManualClock, Name, PoolId, Time};

use crate::build::{Ask, JobBuilder, PolicyBuilder};

/// The pool that claims when a case does not say which.
pub const POOL: &str = "pool/0000000000000001";

/// Makes the stores of one implementation.
#[async_trait]
pub trait Factory: Send + Sync + 'static {
    /// A new, empty store, apart from all others. What it needs (a directory, a namespace) lives as long as the factory;
    /// each case has a factory of its own.
    async fn open(&self) -> Arc<dyn Store>;

    /// Closes `store` and opens what it stored again; none if this kind of store does not outlive its value.
    async fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        None
    }
}

/// Runs one case on a store of its own, with `threads` worker threads (0: all on the test's), and audits the store.
///
/// # Panics
/// If the case does, or if the audit finds anything.
pub fn run<F: Factory>(factory: F, threads: usize, case: impl AsyncFnOnce(&Bench)) {
    let mut runtime = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 0 {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().build().expect("a runtime can be built").block_on(async {
        let bench = Bench::new(Arc::new(factory)).await;
        case(&bench).await;
        bench.audit().await;
    });
}

/// A store, a clock, and short words for what all cases do. The words panic where a case could not go on.
pub struct Bench {
    /// The store under test.
    pub store: Arc<dyn Store>,
    /// The time, which only the case moves.
    pub clock: Arc<ManualClock>,
    factory: Arc<dyn Factory>,
    counter: AtomicU64,
}

impl Bench {
    /// A bench with a new store of `factory`.
    pub async fn new(factory: Arc<dyn Factory>) -> Bench {
        let store = factory.open().await;
        Bench { store, clock: Arc::default(), factory, counter: AtomicU64::new(0) }
    }

    /// Another bench of the same kind, with a store and a clock of its own.
    pub async fn another(&self) -> Bench {
        Bench::new(Arc::clone(&self.factory)).await
    }

    /// A bench at the same clock with the store closed and opened again; none if the store does not outlive its value.
    pub async fn reopened(self) -> Option<Bench> {
        let Bench { store, clock, factory, counter } = self;
        let store = factory.reopen(store).await?;
        Some(Bench { store, clock, factory, counter })
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) -> Time {
        self.clock.advance(by)
    }

    /// A number never given before at this bench: for ids and nonces.
    pub fn number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A job id never given before at this bench; later ones sort later.
    pub fn id(&self) -> JobId {
        JobId::new(format!("job-{:08}", self.number())).unwrap()
    }

    /// Begins a job of this name.
    pub fn job(&self, name: &str) -> JobBuilder<'_> {
        JobBuilder::new(self, name)
    }

    /// Begins a policy whose executions have this name.
    pub fn policy(&self, name: &str) -> PolicyBuilder<'_> {
        PolicyBuilder::new(self, name)
    }

    /// Begins a claim of jobs of these names.
    pub fn ask<'a>(&'a self, names: &[&str]) -> Ask<'a> {
        Ask::new(self, names)
    }

    /// Inserts jobs that must all be created.
    pub async fn insert(&self, jobs: Vec<Job>) {
        let jobs: Vec<NewJob> = jobs.into_iter().map(NewJob::from).collect();
        let count = jobs.len();
        let answers = self.store.insert(jobs, self.now()).await.unwrap();
        assert_eq!(answers, vec![jobservice_core::store::Inserted::Created; count]);
    }

    /// Claims one job of this name, which must be there, and answers with it.
    pub async fn claim_one(&self, name: &str) -> Job {
        let mut jobs = self.ask(&[name]).claim().await;
        assert_eq!(jobs.len(), 1, "one {name} job to claim");
        jobs.pop().unwrap()
    }

    /// Claims one job of this name and answers with its lease.
    pub async fn run_one(&self, name: &str) -> LeaseKey {
        lease(&self.claim_one(name).await)
    }

    /// Inserts a job of this name and claims it.
    pub async fn running(&self, name: &str) -> LeaseKey {
        let id = self.job(name).insert().await;
        let lease = self.run_one(name).await;
        assert_eq!(lease.id, id, "no other {name} job waits");
        lease
    }

    /// Inserts a job of this name that has a hook, and claims it.
    pub async fn hooked_run(&self, name: &str) -> LeaseKey {
        let id = self.job(name).hook().insert().await;
        let lease = self.run_one(name).await;
        assert_eq!(lease.id, id, "no other {name} job waits");
        lease
    }

    /// Inserts a job of this name and brings it to `status`.
    pub async fn with_status(&self, status: Status, name: &str) -> JobId {
        self.bring(self.job(name), status).await
    }

    /// Inserts this job, of whose name no other may wait, and brings it to `status`.
    pub async fn bring(&self, job: JobBuilder<'_>, status: Status) -> JobId {
        let name = job.name().clone();
        if status == Status::Scheduled {
            return job.after(seconds(3600)).insert().await;
        }
        let id = job.insert().await;
        match status {
            Status::Pending | Status::Scheduled => return id,
            Status::Stopped => {
                self.stop(&id).await;
            }
            Status::Cancelled => {
                self.cancel(&id).await;
            }
            Status::Running | Status::Success | Status::Error => {
                let lease = self.run_one(name.as_str()).await;
                if status == Status::Success {
                    self.finish_ok(&lease).await;
                } else if status == Status::Error {
                    self.finish(&lease, fatal("broken")).await;
                }
            }
        }
        assert_eq!(self.status(&id).await, status);
        id
    }

    /// Reports how a run ended.
    pub async fn finish(&self, lease: &LeaseKey, outcome: Outcome) -> Finished {
        let answers = self.store.finish(vec![Report { lease: lease.clone(), outcome }], self.now()).await.unwrap();
        one(answers)
    }

    /// Reports that a run succeeded.
    pub async fn finish_ok(&self, lease: &LeaseKey) -> Finished {
        self.finish(lease, ok()).await
    }

    /// Reports that a run failed and may be tried again.
    pub async fn finish_failed(&self, lease: &LeaseKey) -> Finished {
        self.finish(lease, failed("broken")).await
    }

    /// Gives a run back.
    pub async fn release(&self, lease: &LeaseKey) -> Finished {
        one(self.store.release(vec![lease.clone()], 0, self.now()).await.unwrap())
    }

    /// Records progress.
    pub async fn check_in(&self, lease: &LeaseKey, message: &str) -> CheckedIn {
        self.store.check_in(lease, message.into(), self.now()).await.unwrap()
    }

    /// Extends one lease of the pool [`POOL`] by a lease's length from now.
    pub async fn extend(&self, lease: &LeaseKey) -> Held {
        one(self.extend_all(POOL, std::slice::from_ref(lease)).await.leases)
    }

    /// Extends leases of a pool by a lease's length from now.
    pub async fn extend_all(&self, pool: &str, leases: &[LeaseKey]) -> Extended {
        self.store.extend(&pool_id(pool), leases, self.now() + LEASE, self.now()).await.unwrap()
    }

    /// Stops a job or policy, with the ordinary grace.
    pub async fn stop(&self, id: &JobId) -> Controlled {
        self.store.control(id, Action::Stop(GRACE), self.now()).await.unwrap()
    }

    /// Cancels a job or policy, with the ordinary grace.
    pub async fn cancel(&self, id: &JobId) -> Controlled {
        self.store.control(id, Action::Cancel(GRACE), self.now()).await.unwrap()
    }

    /// Asks for a dead job to run again.
    pub async fn retry(&self, id: &JobId) -> Controlled {
        self.store.control(id, Action::Retry { next_due: None }, self.now()).await.unwrap()
    }

    /// Removes a job or policy.
    pub async fn delete(&self, id: &JobId) -> Deleted {
        self.store.delete(id, self.now()).await.unwrap()
    }

    /// Promotes all that is due.
    pub async fn promote(&self) -> Swept {
        self.store.promote(1000, self.now()).await.unwrap()
    }

    /// Reaps all that is overdue.
    pub async fn reap(&self) -> Swept {
        self.store.reap(1000, 0, self.now()).await.unwrap()
    }

    /// Prunes all that is past its time.
    pub async fn prune(&self) -> Swept {
        self.store.prune(1000, self.now()).await.unwrap()
    }

    /// Takes the deliverable events of all jobs for a minute.
    pub async fn take_events(&self) -> Vec<JobEvents> {
        self.store.take_events(100, self.now() + seconds(60), self.now()).await.unwrap()
    }

    /// Records that all events of a job up to `seq` were delivered.
    pub async fn delivered(&self, id: &JobId, seq: u32) {
        self.store.settle_event(id, seq, Settled::Done, self.now()).await.unwrap();
    }

    /// The record of a job that must exist.
    pub async fn get(&self, id: &JobId) -> Job {
        self.find(id).await.unwrap_or_else(|| panic!("job {id} exists"))
    }

    /// The record of a job, if it exists.
    pub async fn find(&self, id: &JobId) -> Option<Job> {
        self.store.get(id).await.unwrap()
    }

    /// The status of a job that must exist.
    pub async fn status(&self, id: &JobId) -> Status {
        self.get(id).await.state.status
    }

    /// The ids that a query lists, over all its pages.
    pub async fn list(&self, query: Query) -> Vec<JobId> {
        list_all(&self.store, query).await.into_iter().map(|job| job.id).collect()
    }

    /// Lets the lease of the last claims run out and reaps.
    pub async fn lose_worker(&self) -> Swept {
        self.advance(LEASE);
        self.reap().await
    }

    /// Looks through the whole store.
    ///
    /// # Panics
    /// If it finds anything that must not be.
    pub async fn audit(&self) {
        let violations = self.store.audit().await.unwrap();
        assert!(violations.is_empty(), "the audit found:\n{}", violations.join("\n"));
    }
}

/// All jobs that a query lists, page by page.
pub async fn list_all(store: &Arc<dyn Store>, mut query: Query) -> Vec<Job> {
    if query.limit == 0 {
        query.limit = 100;
    }
    let mut jobs = Vec::new();
    // More pages than there could be rows: a cursor that does not move is a failure, not an endless test.
    for _ in 0..10_000 {
        let page = store.list(&query).await.unwrap();
        assert!(page.jobs.len() <= query.limit, "a page has at most {} jobs", query.limit);
        jobs.extend(page.jobs);
        match page.next {
            Some(cursor) => query.cursor = Some(cursor),
            None => return jobs,
        }
    }
    panic!("a list that does not end: {query:?}");
}

/// The lease of a job that was claimed.
pub fn lease(job: &Job) -> LeaseKey {
    job.lease_key().expect("a claimed job has a lease")
}

/// A pool's identity.
pub fn pool_id(text: &str) -> PoolId {
    PoolId::new(text).unwrap()
}

/// A job's name.
pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// So many seconds.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A success without a result.
pub fn ok() -> Outcome {
    Outcome::Ok { result: None }
}

/// A failure after which another try makes sense, with the shortest default backoff.
pub fn failed(error: &str) -> Outcome {
    Outcome::Failed { error: error.into(), retryable: true, retry_after: None, jitter: 0 }
}

/// A failure after which no other try makes sense.
pub fn fatal(error: &str) -> Outcome {
    Outcome::Failed { error: error.into(), retryable: false, retry_after: None, jitter: 0 }
}

/// A lease that holds, of a job that nobody signalled.
pub const HELD: Held = Held::Held(None);

/// A lease that holds, of a job that was signalled.
pub const fn signalled(signal: Signal) -> Held {
    Held::Held(Some(signal))
}

/// The only one.
pub fn one<T>(mut answers: Vec<T>) -> T {
    assert_eq!(answers.len(), 1, "one answer to one question");
    answers.pop().unwrap()
}
