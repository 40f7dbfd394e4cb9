//! What can be set when a store is opened, and why it may not open.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Writes that may wait for the writer; more make their callers wait. Default 4096.
    pub queue_max: usize,
    /// Bytes of the file that is dropped when the disk is full, so that running jobs can still end; 0 for none. Default
    /// 16 MiB.
    pub ballast_bytes: u64,
    /// Called around every commit, for tests that kill the process there.
    pub write_hook: Option<Arc<dyn WriteHook>>,
}

impl Default for Options {
    fn default() -> Self {
        Options { queue_max: 4096, ballast_bytes: 16 * 1024 * 1024, write_hook: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { queue_max, ballast_bytes, write_hook } = self;
        f.debug_struct("Options")
            .field("queue_max", queue_max)
            .field("ballast_bytes", ballast_bytes)
            .field("write_hook", &write_hook.is_some())
            .finish()
    }
}

/// Is told of the commits of a store, in its own threads. For tests: a hook that aborts the process at the n-th call
/// shows what a crash there leaves.
///
/// Only transactions that write something count; `n` counts them from 1 since the store was opened.
pub trait WriteHook: Send + Sync {
    /// A call has been applied in the open transaction: the `n`-th since the store was opened.
    fn after_apply(&self, n: u64) {
        let _ = n;
    }

    /// The `n`-th commit is about to be made: nothing of it is durable.
    fn before_commit(&self, n: u64) {
        let _ = n;
    }

    /// The `n`-th commit has been made: all of it is durable, nobody has been answered.
    fn after_commit(&self, n: u64) {
        let _ = n;
    }

    /// The calls of the `n`-th commit have been answered.
    fn after_answer(&self, n: u64) {
        let _ = n;
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process serves the file. Two would take each other's workers for dead.
    #[error("{} is served by another process{}", path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Served {
        /// The database.
        path: PathBuf,
        /// The number of that process, if it could be read.
        holder: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The write-ahead log cannot be opened to be synced.
    #[error("cannot open {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is an SQLite file of something else.
    #[error("the file is not a database of jobservice")]
    NotOurs,
    /// It was written by a newer release.
    #[error(
        "the database has schema {found}, this release knows up to {known}: use the release that wrote it, or a newer one"
    )]
    NewerSchema {
        /// The schema of the file.
        found: i64,
        /// The newest that we know.
        known: usize,
    },
    /// It was written by an older release and is opened for reading only.
    #[error("the database has schema {found}, this release reads {known}: let the service open it once")]
    OlderSchema {
        /// The schema of the file.
        found: usize,
        /// The one that we read.
        known: usize,
    },
    /// The file system does not support the write-ahead log.
    #[error("the database cannot use a write-ahead log (it is in mode {mode:?}): is it on a network file system?")]
    NoWal {
        /// The journal mode that SQLite fell back to.
        mode: String,
    },
    /// The SQLite that we are linked to is too old.
    #[error("SQLite {found} is too old: 3.51.3 is the least that is safe")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
    /// SQLite said no.
    #[error("cannot open the database")]
    Engine(#[from] rusqlite::Error),
    /// The thread cannot be started.
    #[error("cannot start a thread for the database")]
    Thread(#[source] std::io::Error),
    /// What is stored cannot be right.
    #[error("the database is damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
}

impl From<crate::call::Failure> for OpenError {
    fn from(failure: crate::call::Failure) -> OpenError {
        match failure {
            crate::call::Failure::Engine(error) => OpenError::Engine(error),
            crate::call::Failure::Damaged(what) | crate::call::Failure::Invalid(what) => OpenError::Damaged { what },
        }
    }
}
