//! What a place that keeps job logs must do. Users can add their own: see [`LogBackend`].
//!
//! A backend is given whole lines, already formatted and fenced, in batches. It decides neither what a line looks like
//! nor whether a run may still write; it owns the offsets of its logs, and how much of each it keeps.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jobservice_core::store::BoxError;
use jobservice_core::{JobId, Name, Time};

/// Why a log could not be written or read. It never fails a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system refused.
    #[error("cannot {during} {path}")]
    Io {
        /// What was attempted: "write", "open".
        during: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The backend has more to do than it can; what it was given is lost.
    #[error("the log backend cannot keep up")]
    Busy,
    /// The backend failed in a way of its own.
    #[error("the log backend failed to {during}")]
    Failed {
        /// What was attempted.
        during: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

/// Whole lines of one run, to be appended to its job's log.
#[derive(Clone, Debug)]
pub struct LogPiece {
    /// The job: the name of the log.
    pub id: JobId,
    /// Which code runs it.
    pub name: Name,
    /// The run, among those of the job. All attempts of a job share one log.
    pub attempt: u32,
    /// UTF-8 text of whole lines, each ended by a line feed. The first piece of an attempt begins with its header line.
    pub bytes: Bytes,
    /// When it is written, by the clock of the service.
    pub at: Time,
}

/// Where job logs go.
///
/// All calls of [`LogBackend::append`] come from one caller, one after the other, so a backend needs no order of its own.
/// They come from a thread that does nothing else: brief blocking is fine. A backend that may block without end (a pipe
/// that nobody reads) must take the batch and answer: while it does not, no job's log goes on, in any backend.
#[async_trait]
pub trait LogBackend: Send + Sync + 'static {
    /// What the configuration and warnings call it, like `FILE`.
    fn name(&self) -> &str;

    /// Appends each piece to the log of its job and answers for each, in order.
    ///
    /// A piece is kept whole or not at all. One that failed is not offered again: its lines are counted as lost, and the
    /// next piece of that run begins with a line that says so. A crash loses what was not yet written; logs carry no
    /// promise of durability.
    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>>;

    /// The backend as one that can read back, if it can.
    fn reader(&self) -> Option<&dyn ReadLog> {
        None
    }

    /// The backend as one that keeps what can be removed, if it does.
    fn sweeper(&self) -> Option<&dyn SweepLogs> {
        None
    }

    /// Writes out what it still holds; called once, last.
    async fn shutdown(&self) {}
}

/// A backend that can read logs back.
///
/// **Offsets** count all bytes that were ever appended to the job's log in this backend, so an offset stays good although
/// the middle of a large log is dropped.
#[async_trait]
pub trait ReadLog: Send + Sync {
    /// How far the log of a job reaches; none if there is no log.
    async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogError>;

    /// Up to `limit` bytes from `offset` on; none if there is no log.
    ///
    /// Never crosses the cut. At an offset whose bytes were dropped the answer has no bytes and its `next_offset` is where
    /// the log goes on. At or past the end it has no bytes either, and `next_offset` is the end.
    async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogChunk>, LogError>;
}

/// A backend whose logs can be removed.
#[async_trait]
pub trait SweepLogs: Send + Sync {
    /// Removes the logs of jobs; those that have none are passed over. Answers how many went. Safe to repeat.
    async fn remove(&self, ids: &[JobId]) -> Result<u64, LogError>;

    /// Removes what `rule` does not let stay, the longest unwritten first, and nothing that is not a job log of ours.
    async fn sweep(&self, rule: &SweepRule, now: Time) -> Result<Removed, LogError>;

    /// Up to `limit` jobs whose logs were not written since `before`, in the order of their ids, those after `after`:
    /// logs whose jobs are gone are then removed. A backend that is shared with other services, whose jobs are not in
    /// our store, must name none: the default.
    async fn idle(&self, before: Time, after: Option<&JobId>, limit: usize) -> Result<Vec<JobId>, LogError> {
        let _ = (before, after, limit);
        Ok(Vec::new())
    }
}

/// How long logs stay, apart from going with their jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepRule {
    /// Logs not written for this long go. None: age does not matter.
    pub older_than: Option<Duration>,
    /// When all logs together take more bytes, the oldest go. None: size does not matter.
    pub bytes_max: Option<u64>,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Logs.
    pub logs: u64,
    /// Their bytes, as far as they are known.
    pub bytes: u64,
}

/// Which offsets of a log are kept: `0..head_end` and `tail_start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Where the kept beginning ends.
    pub head_end: u64,
    /// Where the kept end begins; equal to `head_end` as long as nothing was dropped.
    pub tail_start: u64,
    /// All bytes ever appended.
    pub end: u64,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// The text, or the cut mark. As many bytes as lie between the offsets, except for the mark.
    pub bytes: Bytes,
    /// Where it was read from.
    pub offset: u64,
    /// Where to read on.
    pub next_offset: u64,
    /// The end of the log when this was read.
    pub end: u64,
}

impl LogChunk {
    /// Whether the log ended here when it was read.
    pub fn is_last(&self) -> bool {
        self.next_offset >= self.end
    }
}
