//! Reading logs: on connections of their own, which see what is committed and hold nobody up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jobservice_core::{JobId, Time};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use super::LogsError;
use super::append::hour;
use super::file::{self, Count, File};

/// Connections that are kept open; more are made when more read at once.
const KEPT_MAX: usize = 4;

/// Which offsets of a log are kept: `0..head_end` and `tail_start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub struct Chunk {
    /// The text.
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub next_offset: u64,
    /// The end of the log.
    pub end: u64,
}

pub(super) struct Readers {
    path: Arc<Path>,
    /// Told to the writer, which replaces the file.
    is_damaged: Arc<AtomicBool>,
    kept: Mutex<Vec<File>>,
}

impl Readers {
    pub(super) fn new(path: Arc<Path>, is_damaged: Arc<AtomicBool>) -> Readers {
        Readers { path, is_damaged, kept: Mutex::default() }
    }

    /// Calls `f` with a connection; none if there is no file.
    fn with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<Option<T>, LogsError> {
        let answer = self.try_with(f);
        if let Err(LogsError::Sqlite { source, .. }) = &answer
            && file::is_damage(source)
        {
            self.is_damaged.store(true, Ordering::Release);
        }
        answer
    }

    fn try_with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<Option<T>, LogsError> {
        let kept = self.kept.lock().pop().filter(|file| file.is_current(&self.path));
        let file = match kept {
            Some(file) => file,
            None => match file::open_reader(&self.path)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let answer = f(&file.conn).map_err(file::sqlite("read", &self.path))?;
        let mut kept = self.kept.lock();
        if kept.len() < KEPT_MAX {
            kept.push(file);
        }
        Ok(Some(answer))
    }

    pub(super) fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogsError> {
        Ok(self.with(|conn| Ok(find(conn, id)?.map(|(_, extent)| extent)))?.flatten())
    }

    pub(super) fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<Chunk>, LogsError> {
        let read = |conn: &Connection| {
            // One transaction, so that row and chunks are of the same moment.
            let transaction = conn.unchecked_transaction()?;
            let Some((log, extent)) = find(conn, id)? else { return Ok(None) };
            let chunk = read(conn, log, extent, offset, limit)?;
            transaction.commit()?;
            Ok(Some(chunk))
        };
        Ok(self.with(read)?.flatten())
    }

    pub(super) fn idle(&self, before: Time, after: Option<&JobId>, limit: usize) -> Result<Vec<JobId>, LogsError> {
        let ids = self.with(|conn| {
            let mut find =
                conn.prepare_cached("SELECT job FROM log WHERE job > ?1 AND hour < ?2 ORDER BY job LIMIT ?3")?;
            let after = after.map_or("", |id| id.as_str());
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = find.query_map(params![after, hour(before), limit], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        Ok(ids.unwrap_or_default().into_iter().filter_map(|id| JobId::new(id).ok()).collect())
    }
}

fn find(conn: &Connection, id: &JobId) -> rusqlite::Result<Option<(i64, Extent)>> {
    conn.prepare_cached("SELECT log, size, head_end, tail_start FROM log WHERE job = ?1")?
        .query_row([id.as_str()], |row| {
            let Count(end) = row.get(1)?;
            let head_end = row.get::<_, Option<Count>>(2)?.map_or(end, |count| count.0);
            let tail_start = row.get::<_, Option<Count>>(3)?.map_or(end, |count| count.0);
            Ok((row.get(0)?, Extent { head_end, tail_start, end }))
        })
        .optional()
}

fn read(conn: &Connection, log: i64, extent: Extent, offset: u64, limit: usize) -> rusqlite::Result<Chunk> {
    let end = extent.end;
    if offset >= end {
        return Ok(Chunk { bytes: Vec::new(), next_offset: end, end });
    }
    if (extent.head_end..extent.tail_start).contains(&offset) {
        return Ok(Chunk { bytes: Vec::new(), next_offset: extent.tail_start, end });
    }
    let until = if offset < extent.head_end { extent.head_end } else { end };
    let mut chunks = conn.prepare_cached(
        "SELECT start, bytes FROM chunk WHERE log = ?1 AND start < ?3 \
         AND start >= (SELECT max(start) FROM chunk WHERE log = ?1 AND start <= ?2) ORDER BY start",
    )?;
    let mut rows = chunks.query(params![log, Count(offset), Count(until)])?;
    let mut bytes = Vec::new();
    let mut at = offset;
    while bytes.len() < limit
        && let Some(row) = rows.next()?
    {
        let Count(start) = row.get(0)?;
        let chunk = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let within = at.saturating_sub(start) as usize;
        let part = chunk.get(within..).unwrap_or_default();
        let part = part.get(..limit - bytes.len()).unwrap_or(part);
        bytes.extend_from_slice(part);
        at += part.len() as u64;
    }
    // Nothing where something should be: on behind it rather than round and round.
    let next_offset = if bytes.is_empty() { if until == end { end } else { extent.tail_start } } else { at };
    Ok(Chunk { bytes, next_offset, end })
}
