//! `STORE` (alias `DB`): job logs kept with the embedded store, in `logs.db` beside it. See [`jobservice_sqlite::logs`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jobservice_core::{JobId, Time};
use jobservice_sqlite::logs::{Logs, LogsError, Options, Piece};
use tokio::time::timeout;

use super::{Extent, LogBackend, LogChunk, LogError, LogPiece, ReadLog, Removed, SweepLogs, SweepRule};

/// How long the writer may take to end: a hung disk must not hang the end of the service.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Keeps job logs in an SQLite file of their own.
pub struct StoreLogs {
    logs: Logs,
}

impl StoreLogs {
    /// Logs in the file at `path`, which is made if it is missing. A damaged one is moved aside.
    ///
    /// # Errors
    /// If the file cannot be made or opened, is a database of something else, or was made by a newer version.
    pub fn open(path: impl Into<PathBuf>) -> Result<StoreLogs, LogError> {
        StoreLogs::with_options(path, Options::default())
    }

    /// The same on the disk of an embedded store, to which it leaves the last room.
    ///
    /// # Errors
    /// As [`StoreLogs::open`].
    pub fn open_beside_store(path: impl Into<PathBuf>) -> Result<StoreLogs, LogError> {
        StoreLogs::with_options(path, Options::beside_a_store())
    }

    /// The same, keeping as much as `options` say.
    ///
    /// # Errors
    /// As [`StoreLogs::open`].
    pub fn with_options(path: impl Into<PathBuf>, options: Options) -> Result<StoreLogs, LogError> {
        let logs = Logs::open(path, options).map_err(failed("open its file"))?;
        Ok(StoreLogs { logs })
    }
}

fn failed(during: &'static str) -> impl Fn(LogsError) -> LogError {
    move |source| LogError::Failed { during, source: source.into() }
}

#[async_trait]
impl LogBackend for StoreLogs {
    fn name(&self) -> &'static str {
        "STORE"
    }

    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let count = pieces.len();
        let pieces = pieces
            .into_iter()
            .map(|LogPiece { id, attempt, bytes, at, .. }| Piece { id, attempt, bytes, at })
            .collect();
        let Err(error) = self.logs.append(pieces).await else { return (0..count).map(|_| Ok(())).collect() };
        // They share a transaction and a fate.
        let error = Arc::new(error);
        let answer = |_| Err(LogError::Failed { during: "append", source: Arc::clone(&error).into() });
        (0..count).map(answer).collect()
    }

    fn reader(&self) -> Option<&dyn ReadLog> {
        Some(self)
    }

    fn sweeper(&self) -> Option<&dyn SweepLogs> {
        Some(self)
    }

    async fn shutdown(&self) {
        if timeout(SHUTDOWN_WAIT_MAX, self.logs.shutdown()).await.is_err() {
            tracing::warn!("the writer of the job logs does not end");
        }
    }
}

#[async_trait]
impl ReadLog for StoreLogs {
    async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogError> {
        let found = self.logs.extent(id).await.map_err(failed("read"))?;
        Ok(found.map(|found| Extent { head_end: found.head_end, tail_start: found.tail_start, end: found.end }))
    }

    async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogChunk>, LogError> {
        let found = self.logs.read(id, offset, limit).await.map_err(failed("read"))?;
        let chunk = found.map(|found| LogChunk {
            bytes: Bytes::from(found.bytes),
            offset,
            next_offset: found.next_offset,
            end: found.end,
        });
        Ok(chunk)
    }
}

#[async_trait]
impl SweepLogs for StoreLogs {
    async fn remove(&self, ids: &[JobId]) -> Result<u64, LogError> {
        self.logs.remove(ids).await.map_err(failed("remove logs"))
    }

    async fn sweep(&self, rule: &SweepRule, now: Time) -> Result<Removed, LogError> {
        let before = rule.older_than.map(|age| now - age);
        let swept = self.logs.sweep(before, rule.bytes_max).await.map_err(failed("sweep"))?;
        Ok(Removed { logs: swept.logs, bytes: swept.bytes })
    }

    /// The file belongs to one store, so a log whose job that store does not know is nobody's.
    async fn idle(&self, before: Time, after: Option<&JobId>, limit: usize) -> Result<Vec<JobId>, LogError> {
        self.logs.idle(before, after.cloned(), limit).await.map_err(failed("look for idle logs"))
    }
}
