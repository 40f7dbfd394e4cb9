//! The bench of the logger's tests: jobs in a store that can fail, a clock that stands still, logs in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jobservice_conformance::bench::{Bench, Factory, POOL, name, pool_id};
use jobservice_conformance::faulty::{Faulty, Rates};
use jobservice_conformance::redis_server::RedisServer;
use jobservice_core::job::{Job, LeaseKey};
use jobservice_core::memory::MemoryStore;
use jobservice_core::{JobId, Store};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::core::Limits;
use super::{
    Extent, JobLog, JobLogs, Level, LogBackend, LogChunk, LogError, LogPiece, ReadFrom, ReadLog, RedisLogs, Run,
};

struct Memory;

#[async_trait]
impl Factory for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }
}

/// Logs in memory; fails, or waits, when told to.
pub(super) struct Kept {
    logs: Mutex<HashMap<JobId, Vec<u8>>>,
    pub(super) is_ill: AtomicBool,
    pub(super) appends: AtomicUsize,
    /// An append takes one permit; by default there are plenty.
    pub(super) gate: Semaphore,
}

impl Default for Kept {
    fn default() -> Self {
        Kept {
            logs: Mutex::default(),
            is_ill: AtomicBool::new(false),
            appends: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl Kept {
    pub(super) fn text(&self, id: &JobId) -> String {
        String::from_utf8(self.logs.lock().get(id).cloned().unwrap_or_default()).unwrap()
    }
}

#[async_trait]
impl LogBackend for Kept {
    fn name(&self) -> &'static str {
        "KEPT"
    }

    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        self.gate.acquire().await.unwrap().forget();
        self.appends.fetch_add(1, Ordering::SeqCst);
        if self.is_ill.load(Ordering::SeqCst) {
            return pieces.iter().map(|_| Err(LogError::Busy)).collect();
        }
        let mut logs = self.logs.lock();
        for piece in &pieces {
            assert!(piece.bytes.ends_with(b"\n"), "whole lines");
            logs.entry(piece.id.clone()).or_default().extend_from_slice(&piece.bytes);
        }
        pieces.iter().map(|_| Ok(())).collect()
    }

    fn reader(&self) -> Option<&dyn ReadLog> {
        Some(self)
    }
}

#[async_trait]
impl ReadLog for Kept {
    async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogError> {
        let end = self.logs.lock().get(id).map(|log| log.len() as u64);
        Ok(end.map(|end| Extent { head_end: end, tail_start: end, end }))
    }

    async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogChunk>, LogError> {
        let logs = self.logs.lock();
        let Some(log) = logs.get(id) else { return Ok(None) };
        let from = log.len().min(offset as usize);
        let until = log.len().min(from + limit);
        let bytes = Bytes::copy_from_slice(&log[from..until]);
        Ok(Some(LogChunk { bytes, offset, next_offset: until as u64, end: log.len() as u64 }))
    }
}

pub(super) struct LogBench {
    pub(super) jobs: Bench,
    pub(super) store: Arc<Faulty>,
    pub(super) kept: Arc<Kept>,
    pub(super) logs: JobLogs,
}

impl LogBench {
    pub(super) async fn new() -> LogBench {
        LogBench::with(Limits::default(), Vec::new()).await
    }

    /// With further backends behind the one in memory, each with its threshold.
    pub(super) async fn with(limits: Limits, more: Vec<(Arc<dyn LogBackend>, Level)>) -> LogBench {
        let jobs = Bench::new(Arc::new(Memory)).await;
        let store = Arc::new(Faulty::new(Arc::clone(&jobs.store), Rates::default(), 1));
        let kept = Arc::new(Kept::default());
        let mut builder = JobLogs::builder().limits(limits);
        builder = builder.backend(Arc::clone(&kept) as Arc<dyn LogBackend>).level(Level::Debug);
        for (backend, level) in more {
            builder = builder.backend(backend).level(level);
        }
        let logs = builder.build(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&jobs.clock) as _).unwrap();
        LogBench { jobs, store, kept, logs }
    }

    /// With one other backend instead of the one in memory.
    pub(super) async fn on(backend: Arc<dyn LogBackend>) -> LogBench {
        let mut bench = LogBench::new().await;
        let (store, clock) = (Arc::clone(&bench.store) as Arc<dyn Store>, Arc::clone(&bench.jobs.clock) as _);
        bench.logs = JobLogs::builder().backend(backend).level(Level::Debug).build(store, clock).unwrap();
        bench
    }

    /// A job that runs, as its claim gave it.
    pub(super) async fn claimed(&self) -> Job {
        self.jobs.job("copy").insert().await;
        self.jobs.claim_one("copy").await
    }

    /// A running job and its log.
    pub(super) async fn run(&self) -> (LeaseKey, JobLog) {
        let job = self.claimed().await;
        (job.lease_key().unwrap(), self.logs.open(Run::of(&job).unwrap()))
    }

    /// The log of a run of which nothing is known but its lease: the store is asked about every batch.
    pub(super) fn open(&self, lease: &LeaseKey) -> JobLog {
        self.logs.open(Run::new(lease.clone(), name("copy"), pool_id(POOL)))
    }

    /// From now on every call of the store is refused, or none.
    pub(super) fn store_is_away(&self, is_away: bool) {
        self.store.set_rates(if is_away { Rates { refused: 100, ..Rates::default() } } else { Rates::default() });
    }

    /// All of a log as readers get it.
    pub(super) async fn read_all(&self, id: &JobId) -> Option<String> {
        read_all(&self.logs, id, ReadFrom::Offset(0)).await
    }
}

/// All of a log from there on.
pub(super) async fn read_all(logs: &JobLogs, id: &JobId, from: ReadFrom) -> Option<String> {
    let mut bytes = Vec::new();
    let mut from = from;
    loop {
        let chunk = logs.read(id, from, 300_000).await.unwrap()?;
        bytes.extend_from_slice(&chunk.bytes);
        if chunk.is_last() {
            return Some(String::from_utf8(bytes).unwrap());
        }
        from = ReadFrom::Offset(chunk.next_offset);
    }
}

/// Waits for something that another thread does.
pub(super) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let mut pause = tokio::time::interval(Duration::from_millis(5)); // bounded poll
    for _ in 0..2000 {
        if is_true() {
            return;
        }
        pause.tick().await;
    }
    panic!("not within ten seconds: {what}");
}

/// Logs on a Redis of their own, which lives as long as the first part.
pub(super) async fn redis_logs() -> (RedisServer, Arc<dyn LogBackend>) {
    let server = RedisServer::start();
    let options = jobservice_redis::Options { url: server.url(), ..jobservice_redis::Options::default() };
    let store = jobservice_redis::RedisStore::connect(&options).await.unwrap();
    (server, Arc::new(RedisLogs::new(store)))
}
