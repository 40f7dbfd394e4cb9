//! Building a service.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::id::InvalidId;
use jobservice_core::store::{BoxError, Node};
use jobservice_core::{Clock, PoolId, Store, StoreError, SystemClock, limits};
use jobservice_redis::RedisStore;
use tokio::sync::{Mutex, watch};

use super::{Service, embedded};
use crate::env::{Env, Properties, PropertySource, States};
use crate::hooks::{HookOptions, Hooks};
use crate::logger::{JobLogs, JobLogsBuilder, LogError, RedisLogs};
use crate::maintenance::{Maintenance, SweepTimes, Upkeep};
use crate::middleware::Middleware;
use crate::pool::board::Board;
use crate::pool::{Pool, Settings};
use crate::{BlockingJob, Controller, Job, Registry, RetentionRules};

/// Jobs that run at once unless [`ServiceBuilder::workers`] says otherwise: the original's default.
const WORKERS: usize = 10;

/// Builds a [`Service`]: a store, jobs, and what they need.
pub struct ServiceBuilder {
    backend: Backend,
    registry: Registry,
    states: States,
    properties: Properties,
    middleware: Vec<Arc<dyn Middleware>>,
    workers: usize,
    prefetch: usize,
    pool_name: String,
    logs: Logs,
    hooks: Option<HookOptions>,
    clock: Option<Arc<dyn Clock>>,
    grace: Duration,
    shutdown_grace: Duration,
    retention: RetentionRules,
}

enum Backend {
    None,
    Sqlite(PathBuf),
    Redis(Box<jobservice_redis::Options>),
    Store(Arc<dyn Store>),
}

enum Logs {
    /// With SQLite: in the store; else none.
    Default,
    Given(JobLogs),
    Build(JobLogsBuilder),
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No store was named.
    #[error("the service has no store: call sqlite(..) or store(..) on the builder")]
    NoStore,
    /// Registered jobs are not valid; all mistakes are listed.
    #[error("the registered jobs are not valid: {}", .0.join("; "))]
    Registry(Vec<String>),
    /// The number of workers is out of range.
    #[error("{0} workers with {1} jobs fetched ahead are not possible: at most 10,000 together")]
    Workers(usize, usize),
    /// The name of the pool is not valid.
    #[error("the pool's name is not valid")]
    PoolName(#[source] InvalidId),
    /// The store could not be opened.
    #[error("cannot open the store")]
    Open(#[source] BoxError),
    /// The store did not answer.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// The job logs could not be opened.
    #[error("cannot open the job logs")]
    Logs(#[from] LogError),
    /// The system gave no thread.
    #[error("cannot start the threads of the service")]
    Threads(#[source] std::io::Error),
    /// The system gave no random numbers, without which no pool has an identity.
    #[error("the system gives no random numbers")]
    Random,
}

impl Default for ServiceBuilder {
    fn default() -> Self {
        ServiceBuilder {
            backend: Backend::None,
            registry: Registry::new(),
            states: States::default(),
            properties: Properties::default(),
            middleware: Vec::new(),
            workers: WORKERS,
            prefetch: 0,
            pool_name: "pool".to_owned(),
            logs: Logs::Default,
            hooks: Some(HookOptions::default()),
            clock: None,
            grace: limits::GRACE,
            shutdown_grace: limits::SHUTDOWN_GRACE,
            retention: RetentionRules::default(),
        }
    }
}

impl ServiceBuilder {
    /// Keeps the jobs in an SQLite file, which is made if it is not there. Only one process at a time may serve it. Job
    /// logs are kept beside it unless [`ServiceBuilder::logs`] or [`ServiceBuilder::log_backends`] say otherwise.
    pub fn sqlite(mut self, path: impl AsRef<Path>) -> Self {
        self.backend = Backend::Sqlite(path.as_ref().to_path_buf());
        self
    }

    /// Keeps the jobs in a Redis, which any number of processes serve together. Job logs are kept there too unless
    /// [`ServiceBuilder::logs`] or [`ServiceBuilder::log_backends`] say otherwise, and the time is told by its clock unless
    /// [`ServiceBuilder::clock`] does.
    pub fn redis(mut self, options: jobservice_redis::Options) -> Self {
        self.backend = Backend::Redis(Box::new(options));
        self
    }

    /// Keeps the jobs in this store.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.backend = Backend::Store(store);
        self
    }

    /// Gives the jobs a value that they reach by its type: [`crate::Context::state`].
    pub fn with<T: Any + Send + Sync>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// Adds an async job.
    pub fn register<J: Job>(mut self) -> Self {
        self.registry = self.registry.register::<J>();
        self
    }

    /// Adds a blocking job.
    pub fn register_blocking<J: BlockingJob>(mut self) -> Self {
        self.registry = self.registry.register_blocking::<J>();
        self
    }

    /// Uses these jobs instead of what was registered so far.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Runs this around each run, inside of what was added before.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// How many jobs run at once, 10 by default. 0: this process submits and watches over jobs, and runs none.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many jobs are claimed ahead of free workers, none by default.
    ///
    /// With it a worker that becomes free has its next job at hand, which makes many short jobs faster. The price: a job
    /// that was fetched waits for this process, however busy, while another may be idle, and its timeout already runs.
    pub fn prefetch(mut self, jobs: usize) -> Self {
        self.prefetch = jobs;
        self
    }

    /// What the pool is called in statistics; a random part is added, so that two of the same name are told apart.
    pub fn pool_name(mut self, name: impl Into<String>) -> Self {
        self.pool_name = name.into();
        self
    }

    /// Writes job logs here.
    pub fn logs(mut self, logs: JobLogs) -> Self {
        self.logs = Logs::Given(logs);
        self
    }

    /// Writes job logs to these backends.
    pub fn log_backends(mut self, backends: JobLogsBuilder) -> Self {
        self.logs = Logs::Build(backends);
        self
    }

    /// How status hooks are delivered; by default to public addresses, without signatures. None: this process delivers
    /// none, and refuses jobs that have one.
    pub fn hooks(mut self, options: impl Into<Option<HookOptions>>) -> Self {
        self.hooks = options.into();
        self
    }

    /// Tells the time from this clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets a property that jobs read with [`crate::Context::get`].
    pub fn property(mut self, property: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.own.insert(property.into(), value.into());
        self
    }

    /// Adds a place where jobs' properties are looked up: after those set by name, before the environment.
    pub fn properties(mut self, source: Arc<dyn PropertySource>) -> Self {
        self.properties.sources.push(source);
        self
    }

    /// Adds a place where jobs' properties are looked up last: after the environment.
    pub fn fallback_properties(mut self, source: Arc<dyn PropertySource>) -> Self {
        self.properties.fallbacks.push(source);
        self
    }

    /// How long a running job may take to obey a stop, a cancel or its timeout; 30 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long running jobs may take to end at a shutdown; 25 s by default.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// For how long jobs are kept once they are final, and how much room they may take.
    pub fn retention(mut self, retention: RetentionRules) -> Self {
        self.retention = retention;
        self
    }

    /// Opens the store and starts to work.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing runs then.
    pub async fn start(self) -> Result<Service, StartError> {
        if !self.registry.problems().is_empty() {
            return Err(StartError::Registry(self.registry.problems().to_vec()));
        }
        if self.workers.saturating_add(self.prefetch) > limits::WORKERS_MAX as usize {
            return Err(StartError::Workers(self.workers, self.prefetch));
        }
        let incarnation = getrandom::u64().map_err(|_| StartError::Random)?;
        let pool = PoolId::incarnation(&self.pool_name, incarnation).map_err(StartError::PoolName)?;
        let redis = match &self.backend {
            Backend::Redis(options) => {
                let opened = RedisStore::connect(options).await;
                Some(opened.map_err(|error| StartError::Open(error.into()))?)
            }
            Backend::None | Backend::Sqlite(_) | Backend::Store(_) => None,
        };
        let own_clock =
            || redis.as_ref().map_or_else(|| Arc::new(SystemClock::new()) as Arc<dyn Clock>, |redis| redis.clock());
        let clock = self.clock.clone().unwrap_or_else(own_clock);
        let (store, sqlite): (Arc<dyn Store>, _) = match (&self.backend, redis.clone()) {
            (_, Some(redis)) => (redis as Arc<dyn Store>, None),
            (Backend::None | Backend::Redis(_), None) => return Err(StartError::NoStore),
            (Backend::Store(store), None) => (Arc::clone(store), None),
            (Backend::Sqlite(path), None) => {
                let sqlite = embedded::open(path, clock.now()).await?;
                (Arc::clone(&sqlite) as Arc<dyn Store>, Some(sqlite))
            }
        };
        let logs = match (self.logs, &self.backend) {
            (Logs::Given(logs), _) => logs,
            (Logs::Build(backends), _) => backends.build(Arc::clone(&store), Arc::clone(&clock))?,
            (Logs::Default, Backend::Sqlite(path)) => {
                embedded::logs(path).await?.build(Arc::clone(&store), Arc::clone(&clock))?
            }
            (Logs::Default, _) => match redis {
                Some(redis) => {
                    let logs = JobLogs::builder().backend(Arc::new(RedisLogs::new(redis)));
                    logs.build(Arc::clone(&store), Arc::clone(&clock))?
                }
                None => JobLogs::disabled(),
            },
        };
        let registry = Arc::new(self.registry);
        let bytes_max = self.retention.bytes_max;
        let controller = Controller::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            logs.clone(),
            Arc::clone(&registry),
            self.grace,
            self.retention,
        )
        .with_hooks(self.hooks.as_ref().map(|hooks| Arc::clone(&hooks.policy)));
        let (fatal_sender, fatal) = watch::channel(None);
        let runs_jobs = self.workers > 0 && !registry.is_empty();
        let node = runs_jobs.then(|| Node {
            pool: pool.clone(),
            started_at: clock.now(),
            beat_at: clock.now(),
            names: registry.jobs().map(|info| info.name.clone()).collect(),
            concurrency: u32::try_from(self.workers).unwrap_or(u32::MAX),
            host: host(),
            pid: std::process::id(),
        });
        let maintenance = Maintenance {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            logs: logs.clone(),
            bytes_max,
            times: SweepTimes::default(),
        };
        let upkeep = Upkeep::start(maintenance, node, fatal_sender.clone()).map_err(StartError::Threads)?;
        let hooks = match self.hooks {
            Some(options) => {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                Some(Hooks::start(store, clock, options, fatal_sender.clone()).map_err(StartError::Threads)?)
            }
            None => None,
        };
        let pool = if runs_jobs {
            let env = Arc::new(Env {
                store,
                clock,
                logs: logs.clone(),
                state: Arc::new(self.states),
                properties: Arc::new(self.properties),
                middleware: self.middleware.into(),
                pool,
                grace: self.grace,
                board: Board::new(self.workers),
                controller: controller.clone(),
            });
            let settings = Settings { slots: self.workers, prefetch: self.prefetch, registry, fatal: fatal_sender };
            Some(Pool::start(env, settings).map_err(StartError::Threads)?)
        } else {
            None
        };
        Ok(Service {
            controller,
            pool,
            upkeep,
            hooks,
            logs,
            sqlite,
            shutdown_grace: self.shutdown_grace,
            fatal,
            ended: Mutex::new(false),
        })
    }
}

/// The name of the machine, for people.
fn host() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let name = name.unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}
