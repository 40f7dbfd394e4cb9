//! Removing logs: those of jobs that are gone, the old ones, and the oldest when the file is too large. In small steps, so
//! that the writer goes on writing lines in between.

use jobservice_core::JobId;
use rusqlite::{Connection, OptionalExtension, params};

use super::Swept;
use super::file::Count;

/// Logs that one step removes at the most.
pub(super) const LOGS_PER_STEP: usize = 256;

/// A step ends once it has removed this many bytes: some ten milliseconds.
const BYTES_PER_STEP: u64 = 16 * 1024 * 1024;

/// Pages that one step gives back to the file system.
const PAGES_PER_STEP: u32 = 2000;

/// Free pages that are kept for the next lines instead of being given back as soon as logs are removed (1 MiB).
const FREE_PAGES_KEPT: u64 = 256;

/// What a step of a removal did.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) swept: Swept,
    /// How many of the ids it is done with.
    pub(super) done: usize,
}

/// What a step of a sweep did.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) swept: Swept,
    pub(super) more: bool,
}

/// Removes the logs of the first of `ids`, within the caller's transaction.
pub(super) fn remove(conn: &Connection, ids: &[JobId]) -> rusqlite::Result<Removal> {
    let mut find = conn.prepare_cached(&format!("SELECT log, {KEPT} FROM log WHERE job = ?1"))?;
    let mut removal = Removal { swept: Swept::default(), done: 0 };
    for id in ids {
        removal.done += 1;
        let found = find.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((log, Count(bytes))) = found else { continue };
        delete(conn, log, bytes, &mut removal.swept)?;
        if removal.swept.bytes >= BYTES_PER_STEP {
            break;
        }
    }
    Ok(removal)
}

/// The kept bytes of a row of `log`.
const KEPT: &str = "size - (coalesce(tail_start, 0) - coalesce(head_end, 0))";

/// Removes some logs not written since the hour `before`, within the caller's transaction.
pub(super) fn by_age(conn: &Connection, before: i64) -> rusqlite::Result<Swept> {
    oldest(conn, before, BYTES_PER_STEP)
}

/// Removes some of the logs not written for the longest time if the file holds more than `bytes_max`.
pub(super) fn by_size(conn: &Connection, bytes_max: u64) -> rusqlite::Result<Swept> {
    match bytes_in_use(conn)?.checked_sub(bytes_max) {
        None | Some(0) => Ok(Swept::default()),
        Some(excess) => oldest(conn, i64::MAX, excess.min(BYTES_PER_STEP)),
    }
}

fn oldest(conn: &Connection, before: i64, bytes: u64) -> rusqlite::Result<Swept> {
    let mut swept = Swept::default();
    let mut find = conn.prepare_cached(&format!(
        "SELECT log, {KEPT} FROM log INDEXED BY log_by_hour WHERE hour < ?1 ORDER BY hour, log LIMIT ?2"
    ))?;
    let rows = find.query_map(params![before, LOGS_PER_STEP as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(i64, Count)> = rows.collect::<rusqlite::Result<_>>()?;
    for (log, Count(kept)) in found {
        delete(conn, log, kept, &mut swept)?;
        if swept.bytes >= bytes {
            break;
        }
    }
    Ok(swept)
}

fn delete(conn: &Connection, log: i64, bytes: u64, swept: &mut Swept) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM chunk WHERE log = ?1")?.execute([log])?;
    conn.prepare_cached("DELETE FROM log WHERE log = ?1")?.execute([log])?;
    swept.logs += 1;
    swept.bytes += bytes;
    Ok(())
}

/// Bytes of the file that hold something.
pub(super) fn bytes_in_use(conn: &Connection) -> rusqlite::Result<u64> {
    let read = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, Count>(0)).map(|count| count.0);
    Ok((read("page_count")? - read("freelist_count")?) * read("page_size")?)
}

/// Whether there are enough free pages to give some back.
pub(super) fn has_much_free(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(free_pages(conn)? > FREE_PAGES_KEPT)
}

fn free_pages(conn: &Connection) -> rusqlite::Result<u64> {
    conn.pragma_query_value(None, "freelist_count", |row| row.get::<_, Count>(0)).map(|count| count.0)
}

/// Gives some free pages back to the file system, outside of a transaction. Answers whether there are more.
pub(super) fn vacuum(conn: &Connection) -> rusqlite::Result<bool> {
    let before = free_pages(conn)?;
    if before == 0 {
        return Ok(false);
    }
    // Each step of the statement frees one page: it must be stepped to its end.
    let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({PAGES_PER_STEP})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    let after = free_pages(conn)?;
    Ok(after > 0 && after < before)
}
