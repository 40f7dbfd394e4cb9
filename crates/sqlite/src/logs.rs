//! Job logs in SQLite: `logs.db`, a file of its own beside the store's, with a writer of its own.
//!
//! Apart from the store, because logs are large and unimportant beside jobs: they must not take the store's space, its
//! writer's time, or its reputation when they break. Whatever happens to this file (full disk, removed, damaged) costs log
//! lines and nothing else. For the same reason `synchronous=NORMAL`: after a power loss the last lines may be missing, the
//! file is sound, and a commit costs no fsync.
//!
//! **Layout.** `log` has a row for each job with lines: how far its log reaches, which middle of it was dropped, and the
//! hour of its last write, which is what sweeps go by. `chunk` has the text in pieces of whole lines under (log, offset).
//! Small appends grow the last chunk instead of making another, so that a job that says little but often has few rows.
//!
//! One thread writes: it takes all that waits into one transaction and answers after its commit. Readers use connections of
//! their own.

mod append;
mod file;
mod read;
mod sweep;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use jobservice_core::{JobId, Time, limits};
use tokio::sync::{mpsc, oneshot};

use self::read::Readers;
use self::writer::{Work, Writer};

pub use self::read::{Chunk, Extent};

/// Calls that may wait for the writer; past these callers wait to wait.
const QUEUE_MAX: usize = 64;

/// Why logs could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogsError {
    /// SQLite or the file system refused.
    #[error("cannot {during} the job logs at {path}")]
    Sqlite {
        /// What was attempted: "open", "write".
        during: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system refused.
    #[error("cannot {during} the job logs at {path}")]
    Io {
        /// What was attempted.
        during: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is a database of something else. It is left as it is.
    #[error("{path} is a database of something else than job logs")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file was made by a newer version of the service.
    #[error("the job logs at {path} have version {found}, this program knows {known}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Less is free on the disk than [`Options::free_bytes_min`].
    #[error("the disk of the job logs at {path} has only {free_bytes} bytes left")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
    },
    /// The logs were shut down.
    #[error("the job logs are closed")]
    Closed,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes kept of one log: the first and the last half of them.
    pub log_bytes_max: u64,
    /// Bytes of the file in use; past these the logs not written for the longest time go at once, so that a flood over many
    /// jobs does not fill the disk that the store lives on.
    pub file_bytes_max: u64,
    /// Bytes that must be free on the disk, or lines are refused: room for something more important on the same disk.
    pub free_bytes_min: u64,
}

impl Options {
    /// The defaults for a file beside that of a store: what the store drops to let jobs end on a full disk
    /// ([`crate::Options::ballast_bytes`]) is not for logs.
    pub fn beside_a_store() -> Options {
        Options { free_bytes_min: 2 * crate::Options::default().ballast_bytes, ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            log_bytes_max: limits::LOG_BYTES_MAX as u64,
            file_bytes_max: 4 * 1024 * 1024 * 1024,
            free_bytes_min: 0,
        }
    }
}

/// Whole lines for one log.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The job.
    pub id: JobId,
    /// The run that they come from.
    pub attempt: u32,
    /// Text of whole lines, each ended by a line feed.
    pub bytes: Bytes,
    /// When they are written.
    pub at: Time,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Logs.
    pub logs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies the logs at `path`, as they are at one instant, to a new file; false if there are none. The service may go on
/// meanwhile. Blocks.
///
/// # Errors
/// Also if `to` exists and is not empty.
pub fn copy(path: &Path, to: &Path) -> Result<bool, LogsError> {
    let Some(file) = file::open_reader(path)? else { return Ok(false) };
    file.conn.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(file::sqlite("copy", path))?;
    Ok(true)
}

/// Looks whether the file at `path` is sound; answers with what is wrong. Reads all of it, and blocks.
pub fn check(path: &Path) -> Result<Vec<String>, LogsError> {
    let Some(file) = file::open_reader(path)? else { return Ok(Vec::new()) };
    let look = || -> rusqlite::Result<Vec<String>> {
        let mut check = file.conn.prepare("PRAGMA quick_check")?;
        check.query_map([], |row| row.get(0))?.collect()
    };
    let found = look().map_err(file::sqlite("check", path))?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

/// Job logs in one SQLite file.
pub struct Logs {
    path: Arc<Path>,
    work: mpsc::Sender<Work>,
    readers: Arc<Readers>,
}

impl Logs {
    /// Opens the file at `path`, making it if it is missing. One that is damaged is moved aside (`.damaged`) and a new one
    /// made: logs are worth less than a service that starts.
    ///
    /// # Errors
    /// If the file cannot be made or opened, or a newer version made it.
    pub fn open(path: impl Into<PathBuf>, options: Options) -> Result<Logs, LogsError> {
        let path: Arc<Path> = path.into().into();
        let file = file::open_or_replace(&path)?;
        let (work, queue) = mpsc::channel(QUEUE_MAX);
        let is_damaged = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(Arc::clone(&path), options, file, Arc::clone(&is_damaged));
        std::thread::Builder::new()
            .name("job-logs-db".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| LogsError::Io { during: "start the writer of", path: path.to_path_buf(), source })?;
        Ok(Logs { readers: Arc::new(Readers::new(Arc::clone(&path), is_damaged)), path, work })
    }

    async fn call<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, LogsError> {
        let (answer, answered) = oneshot::channel();
        self.work.send(work(answer)).await.map_err(|_| LogsError::Closed)?;
        answered.await.map_err(|_| LogsError::Closed)
    }

    /// Appends each piece to its job's log, all in one transaction: all are written or none.
    ///
    /// # Errors
    /// If SQLite could not write; nothing was written then.
    pub async fn append(&self, pieces: Vec<Piece>) -> Result<(), LogsError> {
        self.call(|answer| Work::Append { pieces, answer }).await?
    }

    /// How far a log reaches; none if there is none.
    pub async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogsError> {
        let id = id.clone();
        self.read_with(move |readers| readers.extent(&id)).await
    }

    /// Up to `limit` bytes from `offset` on, never across the cut; none if there is no log.
    ///
    /// At an offset whose bytes were dropped, or at the end, there are no bytes, and the next offset is where the log goes
    /// on, or its end.
    pub async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<Chunk>, LogsError> {
        let id = id.clone();
        self.read_with(move |readers| readers.read(&id, offset, limit)).await
    }

    /// Jobs whose logs were not written since `before`, those after `after` in the order of their ids, at most `limit`.
    pub async fn idle(&self, before: Time, after: Option<JobId>, limit: usize) -> Result<Vec<JobId>, LogsError> {
        self.read_with(move |readers| readers.idle(before, after.as_ref(), limit)).await
    }

    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Readers) -> Result<T, LogsError> + Send + 'static,
    ) -> Result<T, LogsError> {
        let readers = Arc::clone(&self.readers);
        let path = Arc::clone(&self.path);
        // A read that panicked or was cut off by the runtime's end has no answer.
        tokio::task::spawn_blocking(move || read(&readers)).await.map_err(|error| LogsError::Io {
            during: "read",
            path: path.to_path_buf(),
            source: std::io::Error::other(error),
        })?
    }

    /// Removes the logs of jobs, a few at a time so that lines are written in between. Answers how many there were.
    pub async fn remove(&self, ids: &[JobId]) -> Result<u64, LogsError> {
        let mut removed = 0;
        let mut rest = ids;
        while !rest.is_empty() {
            let ids = rest.iter().take(sweep::LOGS_PER_STEP).cloned().collect();
            let step = self.call(|answer| Work::Remove { ids, answer }).await??;
            removed += step.swept.logs;
            rest = rest.get(step.done..).unwrap_or_default();
        }
        Ok(removed)
    }

    /// Removes logs not written since `before`, then those not written for the longest time until all take at most
    /// `bytes_max`, and gives free space back to the file system.
    pub async fn sweep(&self, before: Option<Time>, bytes_max: Option<u64>) -> Result<Swept, LogsError> {
        let mut swept = Swept::default();
        loop {
            let step = self.call(|answer| Work::Sweep { before, bytes_max, answer }).await??;
            swept.logs += step.swept.logs;
            swept.bytes += step.swept.bytes;
            if !step.more {
                return Ok(swept);
            }
        }
    }

    /// Ends the writer once what waits is written. Later calls are answered with [`LogsError::Closed`].
    pub async fn shutdown(&self) {
        // Nobody there any more is what is wanted.
        drop(self.call(|answer| Work::Stop { answer }).await);
    }
}

#[cfg(test)]
#[path = "logs/logs_test.rs"]
mod logs_test;
