//! Looking at a store's file beside the process that serves it, or when none does: `doctor` and `backup`.

use std::path::{Path, PathBuf};

use jobservice_core::StoreError;
use rusqlite::Connection;

use crate::{OpenError, audit, fault, schema};

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
