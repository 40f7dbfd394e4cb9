//! A node of a service: a store on a Redis, with short words for what the tests do.
#![expect(unreachable_pub, reason = "a module of several test files")]
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests: a panic is how they speak")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jobservice_core::job::{Job, Kind, Retention, Spec};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::limits::{GRACE, LEASE, MAX_FAILS_DEFAULT, WEIGHT_DEFAULT};
use jobservice_core::store::{Claim, Finished, Inserted, NameAsk, NewJob, Report, Result};
use jobservice_core::{Clock, JobId, Name, PoolId, Store, Time};
use jobservice_redis::{OpenError, Options, RedisStore};

/// One node.
pub struct Node {
    pub store: Arc<RedisStore>,
    pub clock: Arc<dyn Clock>,
    pub pool: PoolId,
}

impl Node {
    /// A node on this Redis.
    pub async fn open(url: &str) -> Node {
        Node::with(Options { url: url.to_owned(), ..Options::default() }).await
    }

    /// A node with these options.
    pub async fn with(options: Options) -> Node {
        Node::try_with(options).await.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
    }

    /// The same, if it opens.
    pub async fn try_with(options: Options) -> std::result::Result<Node, OpenError> {
        let store = RedisStore::connect(&options).await?;
        let clock = store.clock();
        let pool = PoolId::incarnation("node", getrandom::u64().unwrap()).unwrap();
        Ok(Node { store, clock, pool })
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub fn job(&self, name: &str) -> NewJob {
        let spec = Spec {
            name: Name::new(name).unwrap(),
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
            enqueued_at: self.now(),
        };
        NewJob::from(Job::submitted(JobId::generate(), spec, None, self.now()))
    }

    /// Submits one job.
    pub async fn submit(&self, name: &str) -> Result<JobId> {
        let job = self.job(name);
        let id = job.job.id.clone();
        let answer = self.store.insert(vec![job], self.now()).await?;
        assert_eq!(answer, [Inserted::Created]);
        Ok(id)
    }

    /// Claims jobs of a name.
    pub async fn claim(&self, name: &str, slots: u32) -> Result<Vec<Job>> {
        self.claim_below(name, slots, None).await
    }

    /// The same with a limit of the code.
    pub async fn claim_below(&self, name: &str, slots: u32, max_concurrency: Option<u32>) -> Result<Vec<Job>> {
        let asked = NameAsk { name: Name::new(name).unwrap(), weight: WEIGHT_DEFAULT, max_concurrency };
        let claim = Claim {
            pool: self.pool.clone(),
            names: Arc::new([asked]),
            slots,
            suspects: true,
            nonce: getrandom::u64().unwrap(),
            seed: 0,
            until: self.now() + LEASE,
            grace: GRACE,
        };
        self.store.claim(&claim, self.now()).await
    }

    /// Reports that jobs succeeded.
    pub async fn finish(&self, jobs: &[Job]) -> Result<Vec<Finished>> {
        let report = |job: &Job| Report { lease: job.lease_key().unwrap(), outcome: Outcome::Ok { result: None } };
        self.store.finish(jobs.iter().map(report).collect(), self.now()).await
    }

    /// A job goes all the way.
    pub async fn is_well(&self) {
        let id = self.submit("well").await.unwrap();
        let jobs = self.claim("well", 1).await.unwrap();
        assert_eq!(jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&id]);
        assert!(matches!(self.finish(&jobs).await.unwrap().as_slice(), [Finished::Applied(_)]));
    }
}

/// Waits for what must come within this time.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

/// Asks again until it is so; how long it took.
pub async fn until(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let began = now();
    while !is_so().await {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        // What is asked for comes from other threads and processes; asking is cheap, and who is asked is not held up.
        tokio::task::yield_now().await;
    }
    began.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "it is about real time")]
pub fn now() -> Instant {
    Instant::now()
}
