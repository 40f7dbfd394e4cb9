//! Appending to a log: where the bytes go, and what must go for them.
//!
//! [`plan`] decides without the database; [`append`] reads the log's row, plans, writes.

use std::ops::Range;

use jobservice_core::Time;
use rusqlite::{Connection, OptionalExtension, params};

use super::Piece;
use super::file::Count;

/// Stands at the beginning of a log whose beginning was swept while its job ran.
const GONE_MARK: &[u8] = b"--- the lines before this one were removed ---\n";

/// The last chunk is grown until it has this many bytes: growing rewrites it, and a page is written in any case.
const GROW_BELOW: u64 = 4096;

/// Bytes of one chunk, unless a single line is longer.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// How much of a log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) head: u64,
    pub(super) tail: u64,
}

/// A log's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) size: u64,
    /// Where head and tail part; none while all fits the head.
    pub(super) cut: Option<Cut>,
    pub(super) last_start: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) head_end: u64,
    pub(super) tail_start: u64,
}

/// What an append does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes that the last chunk grows by, if it has the same attempt.
    pub(super) grow: Option<Range<usize>>,
    /// New chunks.
    pub(super) chunks: Vec<(u64, Range<usize>)>,
    /// The row after it.
    pub(super) row: Row,
}

/// Where `bytes`, whole lines, go in a log that stands as `row` says.
pub(super) fn plan(row: Row, bytes: &[u8], limit: Limit) -> Plan {
    let mut plan = Plan { grow: None, chunks: Vec::new(), row };
    let mut at = 0;
    if row.cut.is_none() {
        let fits = line_cut(bytes, limit.head.saturating_sub(row.size) as usize);
        let last_bytes = row.size - row.last_start;
        if fits > 0 && last_bytes > 0 && last_bytes < GROW_BELOW && last_bytes + fits as u64 <= 2 * GROW_BELOW {
            plan.grow = Some(0..fits);
        } else {
            plan.split(bytes, 0..fits);
        }
        plan.row.size += fits as u64;
        at = fits;
        if at == bytes.len() {
            return plan;
        }
        plan.row.cut = Some(Cut { head_end: plan.row.size, tail_start: plan.row.size });
    }
    let skipped = (bytes.len() - at).saturating_sub(limit.tail as usize);
    if skipped > 0 {
        // More than the tail may hold: its beginning would be dropped as soon as it is written.
        let from = line_cut_after(bytes, at + skipped);
        plan.row.size += (from - at) as u64;
        at = from;
        if let Some(cut) = &mut plan.row.cut {
            cut.tail_start = plan.row.size;
        }
    } else if let Some(cut) = row.cut {
        let last_bytes = row.size - row.last_start;
        let rest = (bytes.len() - at) as u64;
        let may_grow = row.last_start >= cut.tail_start && last_bytes > 0 && last_bytes < GROW_BELOW;
        if may_grow && last_bytes + rest <= 2 * GROW_BELOW {
            plan.grow = Some(at..bytes.len());
            plan.row.size += rest;
            return plan;
        }
    }
    plan.split(bytes, at..bytes.len());
    plan.row.size += (bytes.len() - at) as u64;
    plan
}

impl Plan {
    /// Adds `range` as chunks of whole lines, from the row's size on.
    fn split(&mut self, bytes: &[u8], range: Range<usize>) {
        let mut at = range.start;
        while at < range.end {
            let rest = bytes.get(at..range.end).unwrap_or_default();
            let fits = match line_cut(rest, CHUNK_BYTES_MAX) {
                0 => line_cut_after(rest, 0),
                fits => fits,
            };
            let start = self.row.size + (at - range.start) as u64;
            self.chunks.push((start, at..at + fits));
            self.row.last_start = start;
            at += fits;
        }
    }
}

/// How many of the first `room` bytes are whole lines.
fn line_cut(bytes: &[u8], room: usize) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    bytes.get(..room).and_then(|head| head.iter().rposition(|byte| *byte == b'\n')).map_or(0, |found| found + 1)
}

/// Where the line ends that holds the byte at `at`: behind its line feed.
fn line_cut_after(bytes: &[u8], at: usize) -> usize {
    let found = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
    found.map_or(bytes.len(), |found| at + found + 1)
}

pub(super) fn hour(at: Time) -> i64 {
    at.as_seconds().div_euclid(3600)
}

/// Appends a piece, within the caller's transaction.
pub(super) fn append(conn: &Connection, piece: &Piece, limit: Limit) -> rusqlite::Result<()> {
    let mut find =
        conn.prepare_cached("SELECT log, size, head_end, tail_start, last_start, hour FROM log WHERE job = ?1")?;
    let found = find
        .query_row([piece.id.as_str()], |row| {
            let cut = row.get::<_, Option<Count>>(2)?.zip(row.get::<_, Option<Count>>(3)?);
            let cut = cut.map(|(head_end, tail_start)| Cut { head_end: head_end.0, tail_start: tail_start.0 });
            let log = Row { size: row.get::<_, Count>(1)?.0, cut, last_start: row.get::<_, Count>(4)?.0 };
            Ok((row.get::<_, i64>(0)?, log, row.get::<_, i64>(5)?))
        })
        .optional()?;
    let hour = hour(piece.at);
    if let Some((log, before, last_hour)) = found {
        let mut plan = plan(before, &piece.bytes, limit);
        write_chunks(conn, log, piece.attempt, before, &mut plan, &piece.bytes)?;
        trim(conn, log, before, &mut plan.row, limit)?;
        update(conn, log, plan.row)?;
        if last_hour != hour {
            conn.prepare_cached("UPDATE log SET hour = ?2 WHERE log = ?1")?.execute([log, hour])?;
        }
        return Ok(());
    }
    let marked;
    let bytes: &[u8] = if piece.bytes.starts_with(b"--- ") {
        &piece.bytes
    } else {
        marked = [GONE_MARK, &piece.bytes].concat();
        &marked
    };
    let mut plan = plan(Row::default(), bytes, limit);
    let (row, cut) = (plan.row, plan.row.cut);
    conn.prepare_cached(
        "INSERT INTO log (job, size, head_end, tail_start, last_start, hour) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        piece.id.as_str(),
        Count(row.size),
        cut.map(|cut| Count(cut.head_end)),
        cut.map(|cut| Count(cut.tail_start)),
        Count(row.last_start),
        hour,
    ])?;
    write_chunks(conn, conn.last_insert_rowid(), piece.attempt, Row::default(), &mut plan, bytes)
}

fn write_chunks(
    conn: &Connection,
    log: i64,
    attempt: u32,
    before: Row,
    plan: &mut Plan,
    bytes: &[u8],
) -> rusqlite::Result<()> {
    if let Some(range) = plan.grow.clone() {
        // `||` makes a text of two blobs, byte for byte.
        let mut grow = conn.prepare_cached(
            "UPDATE chunk SET bytes = CAST(bytes || ?4 AS BLOB) WHERE log = ?1 AND start = ?2 AND attempt = ?3",
        )?;
        let more = bytes.get(range.clone()).unwrap_or_default();
        if grow.execute(params![log, Count(before.last_start), attempt, more])? == 0 {
            // The last chunk is of another attempt.
            plan.chunks.insert(0, (before.size, range));
            if plan.row.last_start == before.last_start {
                plan.row.last_start = before.size;
            }
        }
    }
    let mut insert = conn.prepare_cached("INSERT INTO chunk (log, start, attempt, bytes) VALUES (?1, ?2, ?3, ?4)")?;
    for (start, range) in &plan.chunks {
        insert.execute(params![log, Count(*start), attempt, bytes.get(range.clone()).unwrap_or_default()])?;
    }
    Ok(())
}

/// Drops the oldest of the tail beyond the limit.
fn trim(conn: &Connection, log: i64, before: Row, row: &mut Row, limit: Limit) -> rusqlite::Result<()> {
    let Some(cut) = row.cut.as_mut() else { return Ok(()) };
    let was_skipped = before.cut.is_some_and(|before| before.tail_start != cut.tail_start);
    if row.size - cut.tail_start > limit.tail {
        let first_max = row.size - limit.tail;
        let mut first = conn.prepare_cached("SELECT min(start) FROM chunk WHERE log = ?1 AND start >= ?2")?;
        let first: Option<Count> = first.query_row(params![log, Count(first_max)], |row| row.get(0))?;
        // One line longer than the tail stays alone.
        cut.tail_start = first.map_or(row.last_start, |first| first.0);
    } else if !was_skipped {
        return Ok(());
    }
    conn.prepare_cached("DELETE FROM chunk WHERE log = ?1 AND start >= ?2 AND start < ?3")?.execute(params![
        log,
        Count(cut.head_end),
        Count(cut.tail_start)
    ])?;
    Ok(())
}

fn update(conn: &Connection, log: i64, row: Row) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE log SET size = ?2, head_end = ?3, tail_start = ?4, last_start = ?5 WHERE log = ?1")?
        .execute(params![
            log,
            Count(row.size),
            row.cut.map(|cut| Count(cut.head_end)),
            row.cut.map(|cut| Count(cut.tail_start)),
            Count(row.last_start)
        ])?;
    Ok(())
}
