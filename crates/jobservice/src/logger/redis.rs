//! `STORE` (alias `DB`) beside a Redis store: job logs kept in the same Redis, so that any node can show and follow them.
//! See [`jobservice_redis::RedisStore::append_log`].

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jobservice_core::store::StoreError;
use jobservice_core::{JobId, Time};
use jobservice_redis::{LogExtent, RedisStore};

use super::{Extent, LogBackend, LogChunk, LogError, LogPiece, ReadLog, Removed, SweepLogs, SweepRule};

/// Appends on their way at once.
const AT_ONCE: usize = 64;

/// Keeps job logs in the Redis of a store.
pub struct RedisLogs {
    store: Arc<RedisStore>,
}

impl RedisLogs {
    /// Logs beside the jobs of this store.
    pub fn new(store: Arc<RedisStore>) -> RedisLogs {
        RedisLogs { store }
    }
}

fn failed(during: &'static str) -> impl Fn(StoreError) -> LogError {
    move |source| LogError::Failed { during, source: source.into() }
}

#[async_trait]
impl LogBackend for RedisLogs {
    fn name(&self) -> &'static str {
        "STORE"
    }

    /// The pieces of a job one after the other, jobs beside one another.
    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let count = pieces.len();
        let mut by_job: HashMap<JobId, Vec<(usize, LogPiece)>> = HashMap::new();
        for (at, piece) in pieces.into_iter().enumerate() {
            by_job.entry(piece.id.clone()).or_default().push((at, piece));
        }
        let append = |pieces: Vec<(usize, LogPiece)>| async move {
            let mut answers = Vec::with_capacity(pieces.len());
            for (at, piece) in pieces {
                let appended = self.store.append_log(&piece.id, &piece.bytes, piece.at).await;
                answers.push((at, appended.map_err(failed("append"))));
            }
            answers
        };
        let answers = stream::iter(by_job.into_values()).map(append).buffer_unordered(AT_ONCE);
        let mut answers: Vec<_> = answers.concat().await;
        answers.sort_by_key(|(at, _)| *at);
        debug_assert_eq!(answers.len(), count, "each piece is answered");
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn reader(&self) -> Option<&dyn ReadLog> {
        Some(self)
    }

    fn sweeper(&self) -> Option<&dyn SweepLogs> {
        Some(self)
    }
}

#[async_trait]
impl ReadLog for RedisLogs {
    async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogError> {
        let found = self.store.log_extent(id).await.map_err(failed("read"))?;
        Ok(found.map(|LogExtent { head_end, tail_start, end }| Extent { head_end, tail_start, end }))
    }

    async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogChunk>, LogError> {
        let found = self.store.read_log(id, offset, limit).await.map_err(failed("read"))?;
        let chunk = found.map(|part| LogChunk {
            bytes: Bytes::from(part.bytes),
            offset,
            next_offset: part.next_offset,
            end: part.end,
        });
        Ok(chunk)
    }
}

#[async_trait]
impl SweepLogs for RedisLogs {
    async fn remove(&self, ids: &[JobId]) -> Result<u64, LogError> {
        Ok(self.store.remove_logs(ids).await.map_err(failed("remove logs"))?.0)
    }

    async fn sweep(&self, rule: &SweepRule, now: Time) -> Result<Removed, LogError> {
        let before = rule.older_than.map(|age| now - age);
        let (logs, bytes) = self.store.sweep_logs(before, rule.bytes_max).await.map_err(failed("sweep"))?;
        Ok(Removed { logs, bytes })
    }

    /// The logs lie beside the jobs of one store, so a log whose job that store does not know is nobody's.
    async fn idle(&self, before: Time, after: Option<&JobId>, limit: usize) -> Result<Vec<JobId>, LogError> {
        self.store.idle_logs(before, after, limit).await.map_err(failed("look for idle logs"))
    }
}
