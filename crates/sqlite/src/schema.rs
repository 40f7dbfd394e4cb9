//! The file: its tables, its settings, and how an older file becomes a newer one.
//!
//! `user_version` counts the migrations that a file has had. Each runs in a transaction of its own together with the new
//! number, so that a crash leaves the file before or after it. A file with a higher number than we know is refused:
//! writing to it with old rules could break what the newer release relies on.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::OpenError;

/// All changes of the schema since the first release, in order. Only ever append.
const MIGRATIONS: [&str; 1] = [include_str!("schema/0001_first.sql")];

/// "JOBS": tells our files from other SQLite files.
const APPLICATION_ID: i32 = 0x4a4f_4253;

/// The first version with the fix of a WAL-reset race that could corrupt a file.
const SQLITE_MIN: i32 = 3_051_003;

/// Statements kept prepared by a connection: more than there are in this crate.
const STATEMENTS_MAX: usize = 128;

/// The writer's page cache. It works at the ends of few trees, so more would not be hit more often; and each commit that
/// split a page looks through all of it (SQLite drops a page number that it used meanwhile).
const WRITER_CACHE_KIB: i64 = 8 * 1024;

/// A reader's page cache.
const READER_CACHE_KIB: i64 = 8 * 1024;

/// Pages of 4 KiB in the write-ahead log from which on it is written back to the file (16 MiB).
pub(crate) const CHECKPOINT_PAGES: u32 = 4000;

/// Opens the file for writing, making it if there is none, and brings it to the newest schema.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_MIN {
        return Err(OpenError::OldSqlite { found: rusqlite::version() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    // Both must be set before the first table and do nothing after that.
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    check(&conn, MIGRATIONS.len())?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(OpenError::NoWal { mode });
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    // The writer checkpoints by itself, after it has answered: see `writer`.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    common(&conn, WRITER_CACHE_KIB)?;
    migrate(&conn, &MIGRATIONS)?;
    Ok(conn)
}

/// Opens the file for reading only. It must exist and have the schema that we know.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    let found = check(&conn, MIGRATIONS.len())?;
    if found < MIGRATIONS.len() {
        return Err(OpenError::OlderSchema { found, known: MIGRATIONS.len() });
    }
    conn.pragma_update(None, "query_only", true)?;
    common(&conn, READER_CACHE_KIB)?;
    Ok(conn)
}

fn common(conn: &Connection, cache_kib: i64) -> Result<(), OpenError> {
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    // One plan for a statement, whatever is bound to it. Without this SQLite may look at the values to prove that a partial
    // index fits, and then prepares the statement anew for each of them.
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(())
}

/// Whether the file is ours and not newer than the `known` migrations; answers with the number that it has had.
fn check(conn: &Connection, known: usize) -> Result<usize, OpenError> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(OpenError::NotOurs);
    }
    match usize::try_from(version) {
        Ok(found) if found <= known => Ok(found),
        Ok(_) | Err(_) => Err(OpenError::NewerSchema { found: version, known }),
    }
}

fn migrate(conn: &Connection, migrations: &[&str]) -> Result<(), OpenError> {
    let done = check(conn, migrations.len())?;
    for (index, migration) in migrations.iter().enumerate().skip(done) {
        let transaction = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "schema_test.rs"]
mod tests;

/// How SQLite would run a statement, for the tests that pin it.
#[cfg(test)]
pub(crate) fn plan_of(conn: &Connection, sql: &str) -> String {
    let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // The values do not matter to the plan: there are no statistics of the tables.
    for index in 1..=plan.parameter_count() {
        plan.raw_bind_parameter(index, 1).unwrap();
    }
    let mut rows = plan.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get::<_, String>(3).unwrap());
    }
    steps.join(" | ")
}
