//! Builders with defaults: a case says only what it is about.

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{Job, Kind, LeaseKey, Retention, Spec};
use jobservice_core::limits::{GRACE, LEASE, MAX_FAILS_DEFAULT, WEIGHT_DEFAULT};
use jobservice_core::policy::{Misfire, Overlap, Policy, PolicySpec};
use jobservice_core::store::{Claim, Inserted, NameAsk, NewJob, PolicyPut};
use jobservice_core::unique::{Scope, Unique};
use jobservice_core::{JobId, Name, Time};

use crate::bench::{Bench, POOL, name, one, pool_id, seconds};

/// A job to be inserted.
#[must_use]
pub struct JobBuilder<'a> {
    bench: &'a Bench,
    id: Option<JobId>,
    run_at: Option<Time>,
    idempotency_key: Option<Arc<str>>,
    launched_by: Option<LeaseKey>,
    spec: Spec,
}

impl<'a> JobBuilder<'a> {
    /// A Generic job of this name: no parameters, priority 0, four failures, no hook, kept as long as by default.
    pub fn new(bench: &'a Bench, named: &str) -> Self {
        let spec = Spec {
            name: name(named),
            kind: Kind::Generic,
            parameters: "{}".into(),
            priority: 0,
            unique: None,
            max_fails: MAX_FAILS_DEFAULT,
            timeout: None,
            hook: None,
            upstream: None,
            tags: Vec::new(),
            retention: Retention::default(),
            enqueued_at: bench.now(),
        };
        JobBuilder { bench, id: None, run_at: None, idempotency_key: None, launched_by: None, spec }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    /// With this id instead of the next of the bench.
    pub fn id(mut self, id: &JobId) -> Self {
        self.id = Some(id.clone());
        self
    }

    /// With this JSON text as its input.
    pub fn parameters(mut self, text: &str) -> Self {
        self.spec.parameters = text.into();
        self
    }

    /// With this priority.
    pub fn priority(mut self, priority: u8) -> Self {
        self.spec.priority = priority;
        self
    }

    /// Due after this.
    pub fn after(mut self, delay: Duration) -> Self {
        self.spec.kind = Kind::Scheduled;
        self.run_at = Some(self.bench.now() + delay);
        self
    }

    /// Unique by a key that is made of this number, until it is final.
    pub fn unique(self, key: u8) -> Self {
        self.unique_for(key, Scope::UntilFinal)
    }

    /// Unique by a key that is made of this number, for this scope.
    pub fn unique_for(mut self, key: u8, scope: Scope) -> Self {
        self.spec.unique = Some(Unique { digest: [key; 32], scope });
        self
    }

    /// With so many runs that may fail.
    pub fn max_fails(mut self, max_fails: u32) -> Self {
        self.spec.max_fails = max_fails;
        self
    }

    /// With this timeout of each run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout = Some(timeout);
        self
    }

    /// With a hook.
    pub fn hook(mut self) -> Self {
        self.spec.hook = Some("http://hooks.example/jobs".into());
        self
    }

    /// As an execution of this job or policy.
    pub fn upstream(mut self, id: &JobId) -> Self {
        self.spec.upstream = Some(id.clone());
        self
    }

    /// With this tag as well.
    pub fn tag(mut self, tag: &str) -> Self {
        self.spec.tags.push(tag.into());
        self
    }

    /// Kept so many seconds once it is final.
    pub fn retention(mut self, seconds: u32) -> Self {
        self.spec.retention = Retention::all(seconds);
        self
    }

    /// Launched by this run.
    pub fn launched_by(mut self, run: &LeaseKey) -> Self {
        self.launched_by = Some(run.clone());
        self.spec.upstream = Some(run.id.clone());
        self
    }

    /// Submitted with this idempotency key.
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The record, as it is submitted now.
    pub fn build(self) -> Job {
        self.new_job().job
    }

    /// The record with its idempotency key.
    pub fn new_job(self) -> NewJob {
        let id = self.id.unwrap_or_else(|| self.bench.id());
        let job = Job::submitted(id, self.spec, self.run_at, self.bench.now());
        NewJob { job, idempotency_key: self.idempotency_key, launched_by: self.launched_by }
    }

    /// Inserts it; answers with what the store says.
    pub async fn try_insert(self) -> Inserted {
        let (store, now) = (Arc::clone(&self.bench.store), self.bench.now());
        one(store.insert(vec![self.new_job()], now).await.unwrap())
    }

    /// Inserts it, which must create it; answers with its id.
    pub async fn insert(self) -> JobId {
        let (store, now) = (Arc::clone(&self.bench.store), self.bench.now());
        let job = self.new_job();
        let id = job.job.id.clone();
        assert_eq!(one(store.insert(vec![job], now).await.unwrap()), Inserted::Created);
        id
    }
}

/// A policy to be put. Its ticks are given by hand: a store does not read cron text.
#[must_use]
pub struct PolicyBuilder<'a> {
    bench: &'a Bench,
    id: Option<JobId>,
    next_due: Option<Time>,
    spec: PolicySpec,
}

impl<'a> PolicyBuilder<'a> {
    /// A policy without a key that is due each minute, for the first time in a minute.
    pub fn new(bench: &'a Bench, named: &str) -> Self {
        let spec = PolicySpec {
            schedule_key: None,
            name: name(named),
            parameters: "{}".into(),
            cron: "0 * * * * *".into(),
            timezone: "UTC".into(),
            misfire: Misfire::default(),
            overlap: Overlap::default(),
            priority: 0,
            max_fails: MAX_FAILS_DEFAULT,
            timeout: None,
            hook: None,
            unique: None,
            unique_key: None,
            tags: Vec::new(),
            retention: Retention::default(),
        };
        PolicyBuilder { bench, id: None, next_due: Some(bench.now() + seconds(60)), spec }
    }

    /// With this id instead of the next of the bench.
    pub fn id(mut self, id: &JobId) -> Self {
        self.id = Some(id.clone());
        self
    }

    /// With this `schedule_key`.
    pub fn key(mut self, key: &str) -> Self {
        self.spec.schedule_key = Some(key.into());
        self
    }

    /// With this rule for ticks that overlap.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.spec.overlap = overlap;
        self
    }

    /// With this cron text.
    pub fn cron(mut self, cron: &str) -> Self {
        self.spec.cron = cron.into();
        self
    }

    /// With this priority of its executions.
    pub fn priority(mut self, priority: u8) -> Self {
        self.spec.priority = priority;
        self
    }

    /// With this first due time.
    pub fn next_due(mut self, next_due: Option<Time>) -> Self {
        self.next_due = next_due;
        self
    }

    /// The record, as it is submitted now.
    pub fn build(self) -> Policy {
        let id = self.id.unwrap_or_else(|| self.bench.id());
        Policy::submitted(id, self.spec, self.next_due, self.bench.now())
    }

    /// Puts it; answers with what the store says.
    pub async fn try_put(self) -> PolicyPut {
        let (store, now) = (Arc::clone(&self.bench.store), self.bench.now());
        store.put_policy(self.build(), now).await.unwrap()
    }

    /// Puts it, which must create it; answers with its id.
    pub async fn put(self) -> JobId {
        let (store, now) = (Arc::clone(&self.bench.store), self.bench.now());
        let policy = self.build();
        let id = policy.id.clone();
        assert_eq!(store.put_policy(policy, now).await.unwrap(), PolicyPut::Created);
        id
    }
}

/// A claim to be made.
#[must_use]
pub struct Ask<'a> {
    bench: &'a Bench,
    names: Vec<NameAsk>,
    claim: Claim,
}

impl<'a> Ask<'a> {
    /// One slot of [`POOL`] for these names, with the default weight and no limit; suspects welcome.
    pub fn new(bench: &'a Bench, names: &[&str]) -> Self {
        let names = names
            .iter()
            .map(|text| NameAsk { name: name(text), weight: WEIGHT_DEFAULT, max_concurrency: None })
            .collect();
        let claim = Claim {
            pool: pool_id(POOL),
            names: Arc::from([]),
            slots: 1,
            suspects: true,
            nonce: bench.number(),
            seed: 1,
            until: bench.now() + LEASE,
            grace: GRACE,
        };
        Ask { bench, names, claim }
    }

    /// For this pool.
    pub fn pool(mut self, pool: &str) -> Self {
        self.claim.pool = pool_id(pool);
        self
    }

    /// For so many slots.
    pub fn slots(mut self, slots: u32) -> Self {
        self.claim.slots = slots;
        self
    }

    /// With this weight of the code for one of the names.
    pub fn weight(mut self, name: &str, weight: u32) -> Self {
        for ask in self.names.iter_mut().filter(|ask| ask.name.as_str() == name) {
            ask.weight = weight;
        }
        self
    }

    /// With this limit of the code for all of the names.
    pub fn max_concurrency(mut self, limit: u32) -> Self {
        for ask in &mut self.names {
            ask.max_concurrency = Some(limit);
        }
        self
    }

    /// Without jobs that crashed before.
    pub fn no_suspects(mut self) -> Self {
        self.claim.suspects = false;
        self
    }

    /// With this random number for the order of the names.
    pub fn seed(mut self, seed: u64) -> Self {
        self.claim.seed = seed;
        self
    }

    /// Under leases of this length.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.claim.until = self.bench.now() + lease;
        self
    }

    /// What is asked.
    pub fn build(self) -> Claim {
        Claim { names: self.names.into(), ..self.claim }
    }

    /// Claims.
    pub async fn claim(self) -> Vec<Job> {
        let (store, now) = (Arc::clone(&self.bench.store), self.bench.now());
        store.claim(&self.build(), now).await.unwrap()
    }

    /// Claims; answers with the ids, in the order of the answer.
    pub async fn ids(self) -> Vec<JobId> {
        self.claim().await.into_iter().map(|job| job.id).collect()
    }
}
