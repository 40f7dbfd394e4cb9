//! The physical limit: one thread, one connection, the store's own file (same schema, same pragmas), statements prepared
//! once and nothing around them: no record, no rule book, no channels, no answers.
//!
//! A transaction carries `operations` operations, a third each inserts, claims (one SELECT for all of them) and finishes,
//! which write the columns that the store writes for a job that succeeds at once. Each commit is fsynced.

use std::path::Path;

use anyhow::ensure;
use jobservice_core::{Clock as _, JobId, SystemClock};
use jobservice_sqlite::{Options, SqliteStore};
use rusqlite::{Connection, params};

use crate::stats::now;

const PAYLOAD: &str = r#"{"n":123456}"#;
const POOL: &str = "bench/00000000000000ab";
const ATTEMPTS: &str = r#"[{"attempt":1,"pool":"bench/00000000000000ab","started_at":1767614400000,"ended_at":1767614400000,"outcome":"success"}]"#;
const DAY_MS: i64 = 86_400_000;

const INSERT: &str = "INSERT INTO jobs(seq, id, name, priority, kind, max_fails, timeout_ms, enqueued_at, \
     success_seconds, stopped_seconds, error_seconds, scope, digest, upstream, hook, tags, parameters, \
     status, version, attempt, fails, crashes, releases, event_seq, holds_key, ready_at, updated_at) \
     VALUES(?1, ?2, 'noop', 0, 0, 4, NULL, ?3, 259200, 604800, 2592000, NULL, NULL, NULL, NULL, NULL, ?4, \
     1, 1, 0, 0, 0, 0, 0, 0, ?3, ?3)";
const READY: &str = "SELECT seq, id, priority, attempt, version, enqueued_at, ready_at, parameters FROM jobs \
     INDEXED BY jobs_ready WHERE status = 1 AND crashes = 0 AND name = 'noop' ORDER BY priority DESC, ready_at, id LIMIT ?1";
const CLAIM: &str = "UPDATE jobs SET status = 2, version = 2, attempt = 1, event_seq = 0, started_at = ?2, updated_at = ?2, \
     lease_nonce = ?3, lease_pool = ?4, lease_until = ?5, abort_at = NULL, reap_at = ?5 WHERE seq = ?1";
const FINISH: &str = "UPDATE jobs SET status = 4, version = 3, event_seq = 0, finished_at = ?2, expires_at = ?3, \
     updated_at = ?2, lease_nonce = NULL, lease_pool = NULL, lease_until = NULL, abort_at = NULL, reap_at = NULL, \
     ended_attempt = 1, ended_nonce = ?4, ended_how = 0, ended_status = 4, ended_at = ?2, result = NULL, attempts = ?5 \
     WHERE seq = ?1";

/// Life cycles a second of the raw loop on a new file, after `stored` finished jobs were put into it.
pub(crate) fn run(path: &Path, stored: usize, jobs: usize, operations: usize) -> anyhow::Result<f64> {
    preload(path, stored)?;
    let conn = open(path)?;
    let started = now();
    cycle(&conn, stored, jobs, operations / 3)?;
    Ok(jobs as f64 / started.elapsed().as_secs_f64())
}

/// Makes a store at `path` with `stored` jobs that succeeded.
pub(crate) fn preload(path: &Path, stored: usize) -> anyhow::Result<()> {
    // The store makes its file; the lock goes with it.
    drop(SqliteStore::open(path, Options::default())?);
    let conn = open(path)?;
    cycle(&conn, 0, stored, 1000)?;
    // The numbers beside the records: what the store would have counted.
    conn.execute("INSERT INTO counts SELECT name, status, count(*) FROM jobs GROUP BY name, status", [])?;
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    conn.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    conn.pragma_update(None, "cache_size", -64 * 1024)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(conn)
}

fn cycle(conn: &Connection, stored: usize, jobs: usize, batch: usize) -> anyhow::Result<()> {
    let mut insert = conn.prepare(INSERT)?;
    let mut ready = conn.prepare(READY)?;
    let mut claim = conn.prepare(CLAIM)?;
    let mut finish = conn.prepare(FINISH)?;
    let mut seq = i64::try_from(stored)?;
    let end = seq + i64::try_from(jobs)?;
    let mut at = SystemClock::new().now().as_millis();
    while seq < end {
        let size = i64::try_from(batch)?.min(end - seq);
        at += 1;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..size {
            seq += 1;
            insert.execute(params![seq, JobId::generate().as_str(), at, PAYLOAD])?;
        }
        let mut claimed = Vec::new();
        let mut rows = ready.query([size])?;
        while let Some(row) = rows.next()? {
            // Read as the store reads them: the id and the parameters are what a worker needs.
            let (_id, _parameters): (String, String) = (row.get(1)?, row.get(7)?);
            claimed.push(row.get::<_, i64>(0)?);
        }
        drop(rows);
        ensure!(claimed.len() == usize::try_from(size)?, "the raw loop claimed {} of {size}", claimed.len());
        for job in &claimed {
            claim.execute(params![job, at, 123_456_789_i64, POOL, at + 10_000])?;
        }
        for job in &claimed {
            finish.execute(params![job, at, at + 3 * DAY_MS, 123_456_789_i64, ATTEMPTS])?;
        }
        conn.execute_batch("COMMIT")?;
    }
    Ok(())
}
