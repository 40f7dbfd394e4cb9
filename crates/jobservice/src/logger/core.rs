//! What handles, readers and the flusher share: the list of runs with unwritten lines, and the words between them.
//!
//! A handle puts its run into the list at its first line and wakes the flusher ([`super::round`]); who needs lines to be
//! written now says so and waits for the end of a round that began after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use jobservice_core::limits::LOG_BYTES_MAX;
use jobservice_core::{Clock, JobId, Store};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::buffer::Caps;
use super::handle::RunLog;
use super::sink::Sink;
use super::watchers::Watchers;
use super::{Level, LogStats};

/// How long [`Core::flush`] waits at the most.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(5);

/// What bounds the memory of the buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of one run's buffer. As large as its log may be: what fits the log is never dropped on the way to it.
    pub(super) run_bytes_max: usize,
    /// Bytes of all buffers; past these each run is held to `run_bytes_pressed`.
    pub(super) bytes_max: usize,
    /// Bytes that each run may buffer however much the others do.
    pub(super) run_bytes_pressed: usize,
    /// A buffer this full is written at once.
    pub(super) hurry_bytes: usize,
    /// A run that has written more than its log keeps is written this often.
    pub(super) flood_pause: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            run_bytes_max: LOG_BYTES_MAX,
            bytes_max: 64 * 1024 * 1024,
            run_bytes_pressed: 256 * 1024,
            hurry_bytes: 64 * 1024,
            flood_pause: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// What a run that has written `bytes` may buffer while all buffers together hold `buffered`.
    pub(super) fn caps(&self, bytes: u64, buffered: usize) -> Caps {
        let room = if buffered < self.bytes_max { self.run_bytes_max } else { self.run_bytes_pressed };
        // Of a flood only the end can still be kept in the log: its beginning is there already.
        let head = if self.is_flooding(bytes) { 0 } else { room / 2 };
        Caps { head, tail: room / 2 }
    }

    pub(super) fn is_flooding(&self, bytes: u64) -> bool {
        bytes > self.run_bytes_max as u64
    }
}

/// Lines by what became of them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// What handles, readers and the flusher share.
pub(super) struct Core {
    pub(super) sinks: Vec<Sink>,
    /// Below this no backend keeps anything.
    pub(super) level_min: Level,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) watchers: Arc<Watchers>,
    /// Bytes buffered or being written.
    pub(super) buffered: AtomicUsize,
    /// Rounds that have ended.
    pub(super) rounds: watch::Sender<u64>,
    pub(super) begun: AtomicU64,
    /// Runs with lines that are not written, those of the current round included.
    pub(super) dirty: Mutex<Vec<Arc<RunLog>>>,
    pub(super) wake: Notify,
    pub(super) urgent: Notify,
    pub(super) all_wanted: AtomicBool,
    pub(super) closing: AtomicBool,
    /// Lines are no longer taken: the last round was.
    pub(super) sealed: AtomicBool,
    pub(super) closed: watch::Sender<bool>,
}

impl Core {
    pub(super) fn new(sinks: Vec<Sink>, store: Arc<dyn Store>, clock: Arc<dyn Clock>, limits: Limits) -> Core {
        let level_min = sinks.iter().map(|sink| sink.level).min().unwrap_or(Level::Fatal);
        Core {
            sinks,
            level_min,
            store,
            clock,
            limits,
            counters: Counters::default(),
            watchers: Arc::default(),
            buffered: AtomicUsize::new(0),
            rounds: watch::channel(0).0,
            begun: AtomicU64::new(0),
            dirty: Mutex::default(),
            wake: Notify::new(),
            urgent: Notify::new(),
            all_wanted: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            sealed: AtomicBool::new(false),
            closed: watch::channel(false).0,
        }
    }

    /// Puts a run whose first line is buffered into the list.
    pub(super) fn add_dirty(&self, run: Arc<RunLog>) {
        self.dirty.lock().push(run);
        self.wake.notify_one();
    }

    /// Asks for a round at once.
    pub(super) fn hurry(&self) {
        self.urgent.notify_one();
        self.wake.notify_one();
    }

    /// Bytes of a buffer went from `before` to `after`.
    pub(super) fn account(&self, before: usize, after: usize) {
        if after >= before {
            self.buffered.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.buffered.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Whether lines are no longer taken.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Begins the end: a last round, then the backends are shut down and the thread ends.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.all_wanted.store(true, Ordering::Release);
        self.hurry();
    }

    /// Resolves when the thread has ended.
    pub(super) async fn until_closed(&self) {
        // An error means that the sender is gone, and it lives as long as `self`.
        drop(self.closed.subscribe().wait_for(|closed| *closed).await);
    }

    /// Waits until all that was written before this call is in the logs; at most five seconds.
    pub(super) async fn flush(&self) {
        self.all_wanted.store(true, Ordering::Release);
        let target = self.begun.load(Ordering::Acquire) + 1;
        let mut rounds = self.rounds.subscribe();
        self.hurry();
        let ended = async { rounds.wait_for(|ended| *ended >= target).await.is_ok() };
        let closed = self.until_closed();
        tokio::select! {
            () = closed => {}
            _ = timeout(FLUSH_WAIT_MAX, ended) => {}
        }
    }

    /// The same for the lines of one job; does nothing if it has none in this process.
    pub(super) async fn flush_job(&self, id: &JobId) {
        let found = {
            let dirty = self.dirty.lock();
            let mut found = false;
            for run in dirty.iter().filter(|run| run.run.lease.id == *id) {
                run.want();
                found = true;
            }
            found
        };
        if found && !self.is_closed() {
            let target = self.begun.load(Ordering::Acquire) + 1;
            let mut rounds = self.rounds.subscribe();
            self.hurry();
            drop(timeout(FLUSH_WAIT_MAX, rounds.wait_for(|ended| *ended >= target)).await);
        }
    }

    pub(super) fn stats(&self) -> LogStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            lines_written: read(&self.counters.written),
            lines_dropped: read(&self.counters.dropped),
            lines_refused: read(&self.counters.refused),
            lines_lost: read(&self.counters.lost),
            bytes_buffered: self.buffered.load(Ordering::Relaxed) as u64,
        }
    }
}
