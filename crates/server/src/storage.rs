//! Where the service keeps its jobs: the embedded store or Redis, by one setting. What differs between the two is here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jobservice::logger::{LogBackend, RedisLogs, StoreLogs};
use jobservice_core::{Clock, Store, SystemClock};
use jobservice_redis::RedisStore;
use jobservice_sqlite::{Health, Options, SqliteStore};

use crate::config::Config;
use crate::data_dir;

/// The store of the service.
#[derive(Clone)]
pub(crate) enum Storage {
    /// A file of this process.
    Sqlite(Arc<SqliteStore>, Arc<dyn Clock>),
    /// A server that other nodes use too.
    Redis(Arc<RedisStore>),
}

impl Storage {
    /// Opens the store that the configuration names. An embedded one takes back what the process before left running.
    pub(crate) async fn open(config: &Config) -> Result<Storage> {
        if let Some(redis) = &config.redis {
            let store = RedisStore::connect(redis).await.context("cannot use Redis")?;
            return Ok(Storage::Redis(store));
        }
        let store = open_sqlite(config).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let reaped =
            store.reap_previous(clock.now()).await.context("cannot take back the jobs of the process before")?;
        if reaped > 0 {
            tracing::info!("took back {reaped} jobs of the process before");
        }
        Ok(Storage::Sqlite(store, clock))
    }

    /// The store.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Storage::Sqlite(store, _) => Arc::clone(store) as Arc<dyn Store>,
            Storage::Redis(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    /// The clock that goes with it.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        match self {
            Storage::Sqlite(_, clock) => Arc::clone(clock),
            Storage::Redis(store) => store.clock(),
        }
    }

    /// What keeps job logs with it: in a file beside the embedded store, or in the same Redis, for all nodes to read.
    pub(crate) fn logs(&self, config: &Config) -> Result<Arc<dyn LogBackend>> {
        Ok(match self {
            Storage::Sqlite(..) => Arc::new(StoreLogs::open_beside_store(logs_path(&config.store_path))?),
            Storage::Redis(store) => Arc::new(RedisLogs::new(Arc::clone(store))),
        })
    }

    /// What keeps it from working as well as it could, if anything does.
    pub(crate) fn degraded(&self) -> Option<String> {
        match self {
            Storage::Sqlite(store, _) if *store.health().borrow() == Health::Full => {
                Some("the store is full: no jobs are taken in, running ones go on".to_owned())
            }
            Storage::Sqlite(..) => None,
            Storage::Redis(store) => {
                let warnings = store.warnings();
                (!warnings.is_empty()).then(|| warnings.join("; "))
            }
        }
    }

    /// Resolves when nothing can be written any more, whatever comes: only the embedded store knows such a state. Redis
    /// may come back.
    pub(crate) async fn poisoned(&self) {
        match self {
            Storage::Sqlite(store, _) => store.poisoned().await,
            Storage::Redis(_) => std::future::pending().await,
        }
    }
}

async fn open_sqlite(config: &Config) -> Result<Arc<SqliteStore>> {
    let path = config.store_path.clone();
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        data_dir::create(dir)?;
    }
    // Opening recovers what a crash left, which may take a while.
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path, Options::default())).await;
    let store = opened.context("opening the store broke off")?;
    Ok(Arc::new(store.with_context(|| format!("cannot open the store {}", config.store_path.display()))?))
}

/// Job logs stand beside the store, in a file of their own: `logs.db` beside `jobs.db`, `a-logs.db` beside `a.db`. It is
/// told apart by the store's name, so that two stores in one directory, each with a lock of its own, do not share it.
pub(crate) fn logs_path(store: &Path) -> PathBuf {
    if store.file_name().is_some_and(|name| name == "jobs.db") {
        return store.with_file_name("logs.db");
    }
    let mut name = store.file_stem().unwrap_or_default().to_owned();
    name.push("-logs");
    if let Some(extension) = store.extension() {
        name.push(".");
        name.push(extension);
    }
    store.with_file_name(name)
}
