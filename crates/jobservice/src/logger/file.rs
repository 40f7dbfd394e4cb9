//! `FILE`: a directory with one `<id>.log` per job.
//!
//! **Layout.** `<id>.log` holds the beginning of the log, up to half of the limit: for nearly every job that is all of it,
//! readable with `less` and `tail -f`. A larger log goes on in the directory `<id>.tail`, in parts named after their
//! offsets; when the parts outgrow the other half of the limit, the oldest goes. So nothing is ever copied or rewritten,
//! and names and lengths say all: after a crash there is nothing to repair.
//!
//! Only a [`JobId`] becomes a file name: letters, digits, `_` and `-`. Symbolic links are not followed.
//!
//! Nothing is fsynced: a log carries no promise of durability, and a job's end is not to wait for a disk's cache.

mod log;
mod parts;
mod sweep;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_core::limits::LOG_BYTES_MAX;
use jobservice_core::{JobId, Time};
use parking_lot::Mutex;

use self::log::{Failure, Log};
use super::{Extent, LogBackend, LogChunk, LogError, LogPiece, ReadLog, Removed, SweepLogs, SweepRule};

/// Logs that are kept open. A job that writes now and then is opened anew each time beyond that: some microseconds.
const OPEN_MAX: usize = 64;

/// Keeps job logs as files in a directory.
pub struct FileLogs {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    limit: Limit,
    open: Mutex<OpenLogs>,
}

fn failed(during: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::Io { during, path: path.display().to_string(), source }
}

/// How much of a log is kept.
#[derive(Clone, Copy, Debug)]
struct Limit {
    head: u64,
    tail: u64,
}

impl Limit {
    fn of(bytes_max: u64) -> Limit {
        Limit { head: bytes_max / 2, tail: bytes_max / 2 }
    }

    /// A quarter of the tail: so much of it goes at once.
    fn part(self) -> u64 {
        (self.tail / 4).max(1)
    }
}

impl FileLogs {
    /// Logs in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`LogError::Io`] if it cannot be made, or nothing can be written there.
    pub fn open(dir: impl Into<PathBuf>) -> Result<FileLogs, LogError> {
        FileLogs::with_limit(dir, LOG_BYTES_MAX as u64)
    }

    /// The same, keeping at most `bytes_max` bytes of each log.
    ///
    /// # Errors
    /// As [`FileLogs::open`].
    pub fn with_limit(dir: impl Into<PathBuf>, bytes_max: u64) -> Result<FileLogs, LogError> {
        let dir = dir.into();
        // A directory that cannot be written is told at the start, not by the first job's missing log.
        let probe = dir.join(format!(".probe-{}", std::process::id()));
        log::make_dir(&dir)
            .and_then(|()| std::fs::write(&probe, b""))
            .and_then(|()| std::fs::remove_file(&probe))
            .map_err(|source| failed("write to", &dir, source))?;
        let shared = Shared { dir, limit: Limit::of(bytes_max), open: Mutex::default() };
        Ok(FileLogs { shared: Arc::new(shared) })
    }

    /// Calls `f` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        during: &'static str,
        f: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        let answer = tokio::task::spawn_blocking(move || f(&shared)).await;
        let answer = answer.map_err(|source| LogError::Failed { during, source: source.into() })?;
        answer.map_err(|source| failed(during, &self.shared.dir, source))
    }
}

impl Shared {
    fn path(&self, id: &JobId) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    /// Appends to a log, opening it if needed.
    fn append(&self, open: &mut OpenLogs, piece: &LogPiece) -> Result<(), LogError> {
        let path = self.path(&piece.id);
        // Twice: the file may have been removed under an open handle; the second time it is made anew.
        for _ in 0..2 {
            let mut log = match open.take(&piece.id) {
                Some(log) => log,
                None => Log::open(&path, self.limit).map_err(|source| failed("open", &path, source))?,
            };
            match log.append(&piece.bytes) {
                Ok(()) => {
                    open.put(piece.id.clone(), log);
                    return Ok(());
                }
                // What the handle knows of the file is no longer true, or not known to be: it is dropped.
                Err(Failure::Moved) => {}
                Err(Failure::Io(source)) => return Err(failed("write", &path, source)),
            }
        }
        Err(failed("write", &path, io::ErrorKind::NotFound.into()))
    }
}

#[async_trait]
impl LogBackend for FileLogs {
    fn name(&self) -> &'static str {
        "FILE"
    }

    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let mut open = self.shared.open.lock();
        pieces.iter().map(|piece| self.shared.append(&mut open, piece)).collect()
    }

    fn reader(&self) -> Option<&dyn ReadLog> {
        Some(self)
    }

    fn sweeper(&self) -> Option<&dyn SweepLogs> {
        Some(self)
    }
}

#[async_trait]
impl ReadLog for FileLogs {
    async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogError> {
        let id = id.clone();
        self.blocking("read a log in", move |shared| log::extent(&shared.path(&id))).await
    }

    async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogChunk>, LogError> {
        let id = id.clone();
        self.blocking("read a log in", move |shared| log::read(&shared.path(&id), offset, limit)).await
    }
}

#[async_trait]
impl SweepLogs for FileLogs {
    async fn remove(&self, ids: &[JobId]) -> Result<u64, LogError> {
        let ids = ids.to_vec();
        self.blocking("remove logs in", move |shared| {
            let mut removed = 0;
            let mut failed = None;
            for id in ids {
                drop(shared.open.lock().take(&id));
                match log::remove(&shared.path(&id)) {
                    Ok(was_there) => removed += u64::from(was_there),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(removed), Err)
        })
        .await
    }

    async fn sweep(&self, rule: &SweepRule, now: Time) -> Result<Removed, LogError> {
        let rule = *rule;
        self.blocking("sweep", move |shared| sweep::sweep(&shared.dir, rule, now)).await
    }
}

/// The open logs, at most [`OPEN_MAX`]; the least recently written goes first.
#[derive(Default)]
struct OpenLogs {
    logs: HashMap<JobId, (u64, Log)>,
    turn: u64,
}

impl OpenLogs {
    fn take(&mut self, id: &JobId) -> Option<Log> {
        self.logs.remove(id).map(|(_, log)| log)
    }

    fn put(&mut self, id: JobId, log: Log) {
        if self.logs.len() >= OPEN_MAX
            && let Some(oldest) = self.logs.iter().min_by_key(|(_, (turn, _))| *turn).map(|(id, _)| id.clone())
        {
            self.logs.remove(&oldest);
        }
        self.turn += 1;
        self.logs.insert(id, (self.turn, log));
    }
}

#[cfg(test)]
#[path = "file/file_test.rs"]
mod file_test;
