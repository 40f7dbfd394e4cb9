//! Job logs in Redis, readable from any node.
//!
//! **Layout**, in the shard that is the home of the job's id. `log:<id>` is a hash: `end`, the bytes ever appended; `last`
//! and `first`, the numbers of the last and of the first kept segment of the log's end; and under each number the offset
//! at which that segment begins. The text lies in strings `log_text:<number>:<id>`: number 0 is the beginning of the log,
//! which stays; when it is full segments follow, of which the oldest go. `logs` has the ids by last write, `logs_by_id` by
//! id, `logs_bytes` the bytes of all texts, which the two scripts that change them count.
//!
//! Logs are no promise: a full Redis refuses their lines and nothing else.

use jobservice_core::store::Result;
use jobservice_core::{JobId, Time, limits};
use redis::Value;

use crate::due::scored;
use crate::link::{self, array, number, text, unexpected};
use crate::script::{LOG_APPEND, LOG_REMOVE};
use crate::store::{RedisStore, Shard};
use crate::work::ids;

/// Bytes of the beginning of a log that are kept, and as many of its end.
const HALF_BYTES: usize = limits::LOG_BYTES_MAX / 2;

/// Bytes of a segment: what goes at once.
const SEGMENT_BYTES: usize = HALF_BYTES / 16;

/// Logs that a step of a sweep removes.
const SWEEP_MAX: usize = 200;

/// How far a log reaches: `0..head_end` and `tail_start..end` are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// Where the kept beginning ends.
    pub head_end: u64,
    /// Where the kept end begins.
    pub tail_start: u64,
    /// All bytes ever appended.
    pub end: u64,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// The text.
    pub bytes: Vec<u8>,
    /// Where to read on.
    pub next_offset: u64,
    /// The end of the log when this was read.
    pub end: u64,
}

/// Where the text of a log lies.
struct Map {
    end: u64,
    /// Number and begin of each segment kept, in order; the first is the beginning of the log.
    segments: Vec<(u64, u64)>,
    /// Whether something between the beginning and the first segment went.
    is_cut: bool,
}

impl Map {
    fn extent(&self) -> LogExtent {
        let tail = self.segments.get(1).map(|(_, begin)| *begin);
        match (tail, self.is_cut) {
            (Some(tail_start), true) => LogExtent { head_end: self.head_end(), tail_start, end: self.end },
            (Some(tail), false) => LogExtent { head_end: tail, tail_start: tail, end: self.end },
            (None, _) => LogExtent { head_end: self.end, tail_start: self.end, end: self.end },
        }
    }

    /// The beginning is as long as was told when the second segment began.
    fn head_end(&self) -> u64 {
        self.segments.first().map_or(0, |(_, end)| *end)
    }
}

/// A piece in parts that fit into a segment, cut after a line where there is one.
fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let most = rest.len().min(SEGMENT_BYTES);
        let window = rest.get(..most)?;
        let line = if most < rest.len() { window.iter().rposition(|byte| *byte == b'\n') } else { None };
        let (part, after) = rest.split_at(line.map_or(most, |at| at + 1));
        rest = after;
        Some(part)
    })
}

impl RedisStore {
    fn log_shard(&self, id: &JobId) -> Result<&Shard> {
        self.shard(self.home(id))
    }

    /// Appends whole lines to the log of a job.
    ///
    /// # Errors
    /// As a submission: [`jobservice_core::StoreError::Full`] if Redis is.
    pub async fn append_log(&self, id: &JobId, bytes: &[u8], now: Time) -> Result<()> {
        let shard = self.log_shard(id)?;
        let mut call = link::call(&LOG_APPEND, shard.keys.prefix());
        call.arg(id.as_str()).arg(now.as_millis()).arg(HALF_BYTES).arg(SEGMENT_BYTES).arg(HALF_BYTES);
        parts(bytes).for_each(|part| {
            call.arg(part);
        });
        shard.link.run(&LOG_APPEND, &call, "append to a log").await?;
        Ok(())
    }

    async fn log_map(&self, shard: &Shard, id: &JobId) -> Result<Option<Map>> {
        let mut get = redis::cmd("HGETALL");
        get.arg(shard.keys.log(id));
        let answer = shard.link.send(&get, "read a log").await?;
        let mut fields = std::collections::BTreeMap::new();
        for pair in array(&answer)?.chunks_exact(2) {
            if let [field, value] = pair
                && let (Some(field), Some(value)) = (text(field)?, number(value)?)
            {
                fields.insert(field.to_owned(), value.max(0) as u64);
            }
        }
        let Some(end) = fields.get("end").copied() else { return Ok(None) };
        let first = fields.get("first").copied().unwrap_or(1);
        let mut segments: Vec<(u64, u64)> =
            fields.iter().filter_map(|(field, begin)| Some((field.parse().ok()?, *begin))).collect();
        segments.sort_unstable();
        let is_cut = first > 1;
        let head_end = if is_cut { self.log_head(shard, id).await? } else { segments.first().map_or(end, |it| it.1) };
        segments.insert(0, (0, head_end));
        Ok(Some(Map { end, segments, is_cut }))
    }

    async fn log_head(&self, shard: &Shard, id: &JobId) -> Result<u64> {
        let mut length = redis::cmd("STRLEN");
        length.arg(shard.keys.log_text(0, id));
        let answer = shard.link.send(&length, "read a log").await?;
        Ok(number(&answer)?.unwrap_or(0).max(0) as u64)
    }

    /// How far the log of a job reaches; none if there is none.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn log_extent(&self, id: &JobId) -> Result<Option<LogExtent>> {
        let map = self.log_map(self.log_shard(id)?, id).await?;
        Ok(map.map(|map| map.extent()))
    }

    /// Up to `limit` bytes of the log of a job from `offset` on; none if there is none. Never crosses the cut: at an
    /// offset that was dropped there are no bytes, and `next_offset` is where the log goes on.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn read_log(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogPart>> {
        let shard = self.log_shard(id)?;
        let Some(map) = self.log_map(shard, id).await? else { return Ok(None) };
        let LogExtent { head_end, tail_start, end } = map.extent();
        let nothing = |next_offset| Some(LogPart { bytes: Vec::new(), next_offset, end });
        if offset >= end {
            return Ok(nothing(end));
        }
        if offset >= head_end && offset < tail_start {
            return Ok(nothing(tail_start));
        }
        let place = map.segments.iter().skip(1).rev().find(|(_, begin)| *begin <= offset);
        let (segment, begin) = place.map_or((0, 0), |(segment, begin)| (*segment, *begin));
        let mut get = redis::cmd("GETRANGE");
        let from = offset - begin;
        get.arg(shard.keys.log_text(segment, id)).arg(from).arg(from + (limit.max(1) as u64) - 1);
        let answer = shard.link.send(&get, "read a log").await?;
        let Value::BulkString(bytes) = answer else { return Err(unexpected("read a log", &answer)) };
        if bytes.is_empty() {
            // It went between the two looks: whoever reads looks again where the log goes on.
            let next_offset = map.segments.iter().map(|(_, begin)| *begin).find(|begin| *begin > offset).unwrap_or(end);
            return Ok(nothing(next_offset));
        }
        Ok(Some(LogPart { next_offset: offset + bytes.len() as u64, bytes, end }))
    }

    /// Removes the logs of jobs; answers how many there were and how many bytes they had.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn remove_logs(&self, ids: &[JobId]) -> Result<(u64, u64)> {
        let (mut logs, mut bytes) = (0, 0);
        for shard in &self.shards {
            let here: Vec<&JobId> = ids.iter().filter(|id| self.home(id) == shard.number).collect();
            for part in here.chunks(SWEEP_MAX) {
                let mut call = link::call(&LOG_REMOVE, shard.keys.prefix());
                for id in part {
                    call.arg(id.as_str());
                }
                let answer = shard.link.run(&LOG_REMOVE, &call, "remove logs").await?;
                if let [gone, freed] = array(&answer)? {
                    logs += number(gone)?.unwrap_or(0).max(0) as u64;
                    bytes += number(freed)?.unwrap_or(0).max(0) as u64;
                }
            }
        }
        Ok((logs, bytes))
    }

    /// Removes logs not written since `before`, and while all together have more than `bytes_max` those that were not
    /// written for the longest time; answers how many and how many bytes.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn sweep_logs(&self, before: Option<Time>, bytes_max: Option<u64>) -> Result<(u64, u64)> {
        let (mut logs, mut bytes) = (0, 0);
        let share = bytes_max.map(|bytes| bytes / self.shards.len().max(1) as u64);
        for shard in &self.shards {
            loop {
                let mut old = redis::cmd("ZRANGE");
                old.arg(shard.keys.logs()).arg(0).arg(SWEEP_MAX - 1).arg("WITHSCORES");
                let oldest = scored(&shard.link.send(&old, "sweep logs").await?)?;
                let mut size = redis::cmd("GET");
                size.arg(shard.keys.logs_bytes());
                let taken = number(&shard.link.send(&size, "sweep logs").await?)?.unwrap_or(0).max(0) as u64;
                let is_over = share.is_some_and(|share| taken > share);
                let aged =
                    oldest.iter().filter(|(at, _)| before.is_some_and(|before| *at < before.as_millis())).count();
                // One by one while there is too much: the last that goes may be the one that makes room enough.
                let count = aged.max(usize::from(is_over));
                let go: Vec<JobId> = oldest.into_iter().take(count).filter_map(|(_, id)| JobId::new(id).ok()).collect();
                if go.is_empty() {
                    break;
                }
                let (gone, freed) = self.remove_logs(&go).await?;
                (logs, bytes) = (logs + gone, bytes + freed);
                if gone == 0 {
                    break;
                }
            }
        }
        Ok((logs, bytes))
    }

    /// Up to `limit` jobs whose logs were not written since `before`, in the order of their ids, those after `after`.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn idle_logs(&self, before: Time, after: Option<&JobId>, limit: usize) -> Result<Vec<JobId>> {
        let mut idle = Vec::new();
        for shard in &self.shards {
            let mut from = after.cloned();
            loop {
                let mut next = redis::cmd("ZRANGEBYLEX");
                next.arg(shard.keys.logs_by_id());
                match &from {
                    Some(after) => next.arg(format!("({after}")),
                    None => next.arg("-"),
                };
                next.arg("+").arg("LIMIT").arg(0).arg(SWEEP_MAX);
                let page = ids(&shard.link.send(&next, "look for idle logs").await?)?;
                let Some(last) = page.last().cloned() else { break };
                let mut scores = redis::cmd("ZMSCORE");
                scores.arg(shard.keys.logs());
                for id in &page {
                    scores.arg(id.as_str());
                }
                let answer = shard.link.send(&scores, "look for idle logs").await?;
                for (id, score) in page.into_iter().zip(array(&answer)?) {
                    if number(score)?.is_some_and(|at| at < before.as_millis()) {
                        idle.push(id);
                    }
                }
                if idle.len() >= limit {
                    break;
                }
                from = Some(last);
            }
        }
        idle.sort_unstable();
        idle.truncate(limit);
        Ok(idle)
    }
}
