//! Reading logs back, also while they are written.
//!
//! Offsets count all bytes ever written to the log, so an offset that a reader holds stays good although the middle of a
//! large log is dropped: a read from there answers with the cut mark, and goes on behind the cut. A chunk has as many bytes
//! as lie between its offsets, but for the mark, which stands for all that it says are missing.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use jobservice_core::JobId;
use jobservice_core::notices::Watch;
use tokio::time::timeout;

use super::watchers::Watcher;
use super::{Extent, JobLogs, LogChunk, LogError, ReadLog, line};

/// The most bytes of one chunk.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Bytes read at once while the lines of a log's end are counted.
const TAIL_STEP_BYTES: u64 = 64 * 1024;

/// How often a follower looks by itself: a job may run on another node, whose lines no wake-up tells of.
const POLL: Duration = Duration::from_millis(500);

/// Bytes that a follower reads at once.
const FOLLOW_BYTES: usize = 64 * 1024;

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At this offset; 0 is the beginning.
    Offset(u64),
    /// At the last so many lines.
    TailLines(u64),
    /// At the first line that begins within the last so many bytes.
    TailBytes(u64),
}

impl JobLogs {
    /// Up to `limit` bytes (at most 1 MiB) of a job's log; none if no backend that can read has one.
    ///
    /// Lines that this process has written before this call are there. To read on, ask for the chunk's `next_offset`;
    /// the log ended where [`LogChunk::is_last`] says so.
    pub async fn read(&self, id: &JobId, from: ReadFrom, limit: usize) -> Result<Option<LogChunk>, LogError> {
        let Some(core) = self.core() else { return Ok(None) };
        core.flush_job(id).await;
        for sink in &core.sinks {
            if let Some(reader) = sink.backend.reader()
                && let Some(chunk) = read(reader, id, from, limit).await?
            {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// Resolves when the job's log may have grown after this call; after half a second in any case.
    pub fn changed(&self, id: &JobId) -> impl Future<Output = ()> + Send + 'static {
        let watcher = self.core().map(|core| core.watchers.watch(id));
        let changed = watcher.as_ref().map(Watcher::changed);
        async move {
            // Held until the end: without its watcher nobody tells of the change.
            let watcher = watcher;
            match changed {
                Some(changed) => drop(timeout(POLL, changed).await),
                None => pause().await,
            }
            drop(watcher);
        }
    }

    /// Follows a job's log from there on until the job is final and all of its log was given.
    pub fn follow(&self, id: &JobId, from: ReadFrom) -> Follower {
        let watch = self.core().map(|core| (core.watchers.watch(id), core.store.notices().watch(id)));
        Follower { logs: self.clone(), id: id.clone(), from, watch }
    }
}

/// Gives a log chunk by chunk as it is written. Dropping it ends it.
#[derive(Debug)]
pub struct Follower {
    logs: JobLogs,
    id: JobId,
    from: ReadFrom,
    watch: Option<(Watcher, Watch)>,
}

impl Follower {
    /// The next part of the log, as soon as there is one; none when the job is final (or gone) and its log was given.
    ///
    /// Dropping the future loses nothing: the next call goes on where the last answer ended.
    pub async fn next(&mut self) -> Result<Option<LogChunk>, LogError> {
        loop {
            let Some((watcher, watch)) = &self.watch else { return Ok(None) };
            // Before looking, so that what happens between the look and the wait wakes us.
            let (log_changed, job_changed) = (watcher.changed(), watch.changed());
            if let Some(chunk) = self.read_on().await? {
                return Ok(Some(chunk));
            }
            if self.is_over().await {
                // Between the read and the look the job may have written its last lines.
                return self.read_on().await;
            }
            tokio::select! {
                () = log_changed => {}
                () = job_changed => {}
                () = pause() => {}
            }
        }
    }

    async fn read_on(&mut self) -> Result<Option<LogChunk>, LogError> {
        let Some(chunk) = self.logs.read(&self.id, self.from, FOLLOW_BYTES).await? else { return Ok(None) };
        self.from = ReadFrom::Offset(chunk.next_offset);
        Ok((!chunk.bytes.is_empty()).then_some(chunk))
    }

    /// Whether the job will write no more. A store that does not answer leaves that open.
    async fn is_over(&self) -> bool {
        let Some(core) = self.logs.core() else { return true };
        match core.store.get(&self.id).await {
            Ok(job) => job.is_none_or(|job| job.state.status.is_final()),
            Err(_) => false,
        }
    }
}

async fn pause() {
    drop(timeout(POLL, std::future::pending::<()>()).await);
}

async fn read(reader: &dyn ReadLog, id: &JobId, from: ReadFrom, limit: usize) -> Result<Option<LogChunk>, LogError> {
    let offset = match from {
        ReadFrom::Offset(offset) => offset,
        ReadFrom::TailLines(lines) => match reader.extent(id).await? {
            Some(extent) => last_lines(reader, id, extent, lines).await?,
            None => return Ok(None),
        },
        ReadFrom::TailBytes(bytes) => match reader.extent(id).await? {
            Some(extent) => last_bytes(reader, id, extent, bytes).await?,
            None => return Ok(None),
        },
    };
    let Some(mut chunk) = reader.read(id, offset, limit.clamp(1, CHUNK_BYTES_MAX)).await? else { return Ok(None) };
    if chunk.bytes.is_empty() && chunk.next_offset > chunk.offset {
        chunk.bytes = Bytes::from(line::cut_mark(chunk.next_offset - chunk.offset));
    }
    Ok(Some(chunk))
}

/// Where the last `lines` lines begin.
async fn last_lines(reader: &dyn ReadLog, id: &JobId, extent: Extent, lines: u64) -> Result<u64, LogError> {
    if lines == 0 {
        return Ok(extent.end);
    }
    // One more than lines: the first line feed found, from the end, ends the last line.
    let mut missing = lines.saturating_add(1);
    let is_cut = extent.head_end < extent.tail_start;
    let parts: &[_] =
        if is_cut { &[(extent.tail_start, extent.end), (0, extent.head_end)] } else { &[(0, extent.end)] };
    for &(start, end) in parts {
        let mut until = end;
        while until > start {
            let from = until.saturating_sub(TAIL_STEP_BYTES).max(start);
            let bytes = read_range(reader, id, from, until).await?;
            for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                missing -= 1;
                if missing == 0 {
                    return Ok(from + at as u64 + 1);
                }
            }
            until = from;
        }
        if missing == 1 {
            return Ok(start);
        }
    }
    Ok(0)
}

/// Where the first line begins that begins within the last `bytes` bytes.
async fn last_bytes(reader: &dyn ReadLog, id: &JobId, extent: Extent, bytes: u64) -> Result<u64, LogError> {
    let from = extent.end.saturating_sub(bytes);
    if from == 0 || bytes == 0 || from == extent.tail_start {
        return Ok(from);
    }
    if (extent.head_end..extent.tail_start).contains(&from) {
        return Ok(from);
    }
    let mut at = from - 1;
    while at < extent.end {
        let step = read_range(reader, id, at, (at + TAIL_STEP_BYTES).min(extent.end)).await?;
        if step.is_empty() {
            break;
        }
        if let Some(found) = step.iter().position(|byte| *byte == b'\n') {
            let next_line = at + found as u64 + 1;
            if next_line < extent.end {
                return Ok(next_line);
            }
            break;
        }
        at += step.len() as u64;
    }
    // One line is longer than what was asked for: its end says more than nothing. Not from within a character.
    let bytes = read_range(reader, id, from, (from + 4).min(extent.end)).await?;
    let within = bytes.iter().take_while(|byte| *byte & 0b1100_0000 == 0b1000_0000).count();
    Ok(from + within as u64)
}

/// The bytes of a range as far as they are still kept.
async fn read_range(reader: &dyn ReadLog, id: &JobId, from: u64, until: u64) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::with_capacity((until - from) as usize);
    let mut at = from;
    while at < until {
        let Some(chunk) = reader.read(id, at, (until - at) as usize).await? else { break };
        if chunk.bytes.is_empty() || chunk.offset != at {
            break;
        }
        bytes.extend_from_slice(&chunk.bytes);
        at = chunk.next_offset;
    }
    bytes.truncate((until - from) as usize);
    Ok(bytes)
}
