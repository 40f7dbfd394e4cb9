//! Looking at a store's file beside the process that serves it, or when none does: `doctor` and `backup`.

use std::path::{Path, PathBuf};

use jobservice_core::job::Status;
use jobservice_core::store::{NameStats, Node};
use jobservice_core::{StoreError, Time};
use rusqlite::{Connection, OptionalExtension};

use crate::call::Failure;
use crate::reads::Reader;
use crate::{OpenError, audit, fault, lock, nodes, schema};

/// How much room a store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the file.
    pub file: u64,
    /// Bytes of it that hold nothing.
    pub free: u64,
    /// Bytes of the write-ahead log beside it.
    pub log: u64,
}

/// Whether a process serves the file: holds its lock.
///
/// # Errors
/// If the lock file is there and cannot be looked at.
pub fn is_served(path: &Path) -> std::io::Result<bool> {
    lock::is_held(path)
}

/// A store's file, opened for reading only. Blocking: for tools, and for threads that may block.
#[derive(Debug)]
pub struct Inspector {
    conn: Connection,
    path: PathBuf,
}

impl Inspector {
    /// Opens the file. A process that serves it is not disturbed.
    ///
    /// # Errors
    /// [`OpenError`], also if the file's schema is an older one: only the service brings a file up to date.
    pub fn open(path: impl AsRef<Path>) -> Result<Inspector, OpenError> {
        let path = path.as_ref().to_owned();
        Ok(Inspector { conn: schema::open_reader(&path)?, path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks through everything; answers with each thing that is wrong as a sentence. Reads the whole file.
    pub fn audit(&self) -> Result<Vec<String>, StoreError> {
        audit::audit(&self.conn).map_err(|failure| fault::tell(failure, "audit"))
    }

    /// The whole state as text, as it is at one instant.
    pub fn dump(&self) -> Result<String, StoreError> {
        audit::dump(&self.conn).map_err(|failure| fault::tell(failure, "dump"))
    }

    /// How much room it takes.
    pub fn size(&self) -> Result<Size, StoreError> {
        self.look("size", |conn| {
            let read = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            let (page, pages, free) = (read("page_size")?, read("page_count")?, read("freelist_count")?);
            let log = std::fs::metadata(lock::beside(&self.path, "-wal")).map_or(0, |metadata| metadata.len());
            Ok(Size { file: (page * pages) as u64, free: (page * free) as u64, log })
        })
    }

    /// How many jobs there are in each status.
    pub fn counts(&self) -> Result<Vec<(Status, u64)>, StoreError> {
        self.look("counts", |conn| Reader::new(conn)?.counts())
    }

    /// Each name that has options or jobs that are not final, with numbers.
    pub fn names(&self) -> Result<Vec<NameStats>, StoreError> {
        self.look("names", |conn| Reader::new(conn)?.names())
    }

    /// The nodes that are stored, dead ones included.
    pub fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.look("nodes", nodes::read_all)
    }

    /// When the job that has been due for longest was due, and when the newest job was submitted.
    pub fn oldest_due_and_newest(&self) -> Result<(Option<Time>, Option<Time>), StoreError> {
        self.look("times", |conn| {
            let time = |sql: &str| -> Result<Option<Time>, Failure> {
                let millis: Option<i64> = conn.query_row(sql, [], |row| row.get(0)).optional()?;
                Ok(millis.map(Time::from_millis))
            };
            let due = time("SELECT run_at FROM jobs INDEXED BY jobs_due WHERE status = 0 ORDER BY run_at LIMIT 1")?;
            Ok((due, time("SELECT enqueued_at FROM jobs ORDER BY seq DESC LIMIT 1")?))
        })
    }

    fn look<T>(
        &self,
        during: &'static str,
        look: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        look(&self.conn).map_err(|failure| fault::tell(failure, during))
    }

    /// Copies the state of one instant to a new file, without the pages that are free. The service goes on meanwhile,
    /// but its log grows until the copy is done.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] also if `to` exists and is not empty.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let unavailable = |source: rusqlite::Error| fault::tell(source.into(), "backup");
        // Not `.backup`: it begins again at each write of another process, and so never ends beside a busy one.
        let copy = || -> rusqlite::Result<()> {
            self.conn.pragma_update(None, "query_only", false)?;
            let copied = self.conn.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
            self.conn.pragma_update(None, "query_only", true)?;
            copied.map(drop)
        };
        copy().map_err(unavailable)
    }
}
