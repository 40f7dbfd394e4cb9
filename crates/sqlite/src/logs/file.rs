//! The file: making, opening, and replacing it when it is damaged.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::LogsError;

/// "JLOG": tells our files from other SQLite files.
const APPLICATION_ID: i32 = 0x4a4c_4f47;

/// The version of the schema.
const VERSION: u32 = 1;

const SCHEMA: &str = "
CREATE TABLE log (
    log INTEGER PRIMARY KEY,
    job TEXT NOT NULL UNIQUE,
    -- Bytes ever appended: the offset of the next one.
    size INTEGER NOT NULL,
    -- The kept beginning is 0..head_end, the kept end tail_start..size. NULL: nothing was ever dropped and all fits the head.
    head_end INTEGER,
    tail_start INTEGER,
    -- Where the last chunk starts.
    last_start INTEGER NOT NULL,
    -- Of the last write, in hours since the epoch: coarse, so that the index is touched once an hour and not at each write.
    hour INTEGER NOT NULL
) STRICT;
CREATE INDEX log_by_hour ON log (hour);
CREATE TABLE chunk (
    log INTEGER NOT NULL,
    -- Offset of the first byte.
    start INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (log, start)
) STRICT, WITHOUT ROWID;
";

/// An open connection and which file it is on: the file at a path can be replaced under it.
pub(super) struct File {
    pub(super) conn: Connection,
    identity: Option<(u64, u64)>,
}

impl File {
    /// Whether the file at `path` is still the one that this connection is on.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        self.identity.is_some() && self.identity == identity(path)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

pub(super) fn sqlite(during: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> LogsError {
    let path = path.to_owned();
    move |source| LogsError::Sqlite { during, path: path.clone(), source }
}

/// Opens the file for writing, making it if it is missing; a damaged one is moved aside first.
pub(super) fn open_or_replace(path: &Path) -> Result<File, LogsError> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        let made = fs::create_dir_all(dir);
        made.map_err(|source| LogsError::Io { during: "make the directory of", path: path.to_owned(), source })?;
    }
    match open(path) {
        Err(LogsError::Sqlite { source, .. }) if is_damage(&source) => {
            move_aside(path)?;
            open(path)
        }
        other => other,
    }
}

/// Whether an error says that the file cannot be trusted any more.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Moves a damaged file out of the way, for who wants to look into it; an older one of that kind goes.
pub(super) fn move_aside(path: &Path) -> Result<(), LogsError> {
    let aside = with_suffix(path, ".damaged");
    tracing::warn!(path = %path.display(), "job logs are damaged: moved to {}, new ones begun", aside.display());
    let moved = fs::rename(path, &aside);
    moved.map_err(|source| LogsError::Io { during: "move aside", path: path.to_owned(), source })?;
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LogsError::Io { during: "move aside", path: path.to_owned(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn open(path: &Path) -> Result<File, LogsError> {
    let error = sqlite("open", path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(&error)?;
    let is_new = check(&conn, path)? == 0;
    prepare(&conn, is_new).map_err(&error)?;
    Ok(File { conn, identity: identity(path) })
}

fn prepare(conn: &Connection, is_new: bool) -> rusqlite::Result<()> {
    if is_new {
        // Must be set before the first table and does nothing after that.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // No fsync at a commit, only at a checkpoint: a power loss may take the last lines but leaves the file sound. Lines are
    // no promise, and a job's end waits for its log to be written.
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    conn.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    conn.pragma_update(None, "cache_size", -8 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    if is_new {
        let transaction = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Opens the file for reading; none if there is no file.
pub(super) fn open_reader(path: &Path) -> Result<Option<File>, LogsError> {
    let Some(identity) = identity(path) else { return Ok(None) };
    let error = sqlite("open", path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(&error)?;
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(&error)?;
    if check(&conn, path)? == 0 {
        // Just being made anew.
        return Ok(None);
    }
    conn.pragma_update(None, "cache_size", -2 * 1024).map_err(&error)?;
    Ok(Some(File { conn, identity: Some(identity) }))
}

/// Whether the file is ours, and of which version; 0 if it is empty.
fn check(conn: &Connection, path: &Path) -> Result<u32, LogsError> {
    let read = || -> rusqlite::Result<(i32, u32, i64)> {
        let application = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, version, tables))
    };
    let (application, found, tables) = read().map_err(sqlite("open", path))?;
    let is_empty = application == 0 && found == 0 && tables == 0;
    if application != APPLICATION_ID && !is_empty {
        return Err(LogsError::NotOurs { path: path.to_owned() });
    }
    if found > VERSION {
        return Err(LogsError::TooNew { path: path.to_owned(), found, known: VERSION });
    }
    Ok(found)
}

/// An offset or a number of bytes as SQLite keeps it: its integers have a sign, ours never need the top bit.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl rusqlite::types::FromSql for Count {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        let value = value.as_i64()?;
        u64::try_from(value).map(Count).map_err(|_| rusqlite::types::FromSqlError::OutOfRange(value))
    }
}

impl rusqlite::ToSql for Count {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}
