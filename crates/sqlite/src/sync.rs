//! The thread that makes commits durable and then answers, so that the writer works on while the disk does.
//!
//! The writer commits without a sync, which leaves the transaction in the write-ahead log as the kernel has it, and hands
//! the calls over. This thread syncs the log, and only then answers. One batch is on its way at a time: the writer commits
//! the next when this one is on the disk, and until then takes more calls into its open transaction. So the slower the
//! disk the larger the batches, and neither waits for the other without need.
//!
//! Why this is as good as `synchronous=FULL`: the log is only ever appended to, or begun anew after SQLite synced it and
//! the file itself (a checkpoint does, with `synchronous=NORMAL` as well); a frame counts when its checksum and all before
//! it are right. So a power loss keeps a prefix of the commits, and a sync that came after a commit keeps that commit and
//! all before it. What differs: a reader may see a commit some milliseconds before it is on the disk. Nobody was told of
//! it then, and whoever saw it must expect the same of a commit that comes after the look.
//!
//! A batch that wrote nothing is answered in its turn as well: what it says may rest on the batch before it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jobservice_core::StoreError;
use parking_lot::{Condvar, Mutex};

use crate::WriteHook;
use crate::call::Call;
use crate::health::Health;
use crate::session::News;
use crate::writer::{self, Shared};

/// Calls whose transaction is committed.
pub(crate) struct Batch {
    pub(crate) calls: Vec<Box<dyn Call>>,
    pub(crate) news: News,
    /// The number of the commit, if it wrote anything.
    pub(crate) commit: Option<u64>,
}

/// The way from the writer to the thread. Dropping it waits until all is synced and answered.
pub(crate) struct Syncer {
    hand: Arc<Hand>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Hand {
    state: Mutex<State>,
    handed_over: Condvar,
    freed: Condvar,
    /// Microseconds that a sync takes, smoothed.
    usual: AtomicU64,
}

#[derive(Default)]
struct State {
    batch: Option<Batch>,
    syncing: bool,
    closed: bool,
    /// The thread has panicked: nobody takes batches any more.
    dead: bool,
}

impl State {
    fn is_free(&self) -> bool {
        self.batch.is_none() && !self.syncing
    }
}

impl Syncer {
    /// Starts the thread; `log` is the write-ahead log.
    pub(crate) fn start(log: File, shared: Arc<Shared>, hook: Option<Arc<dyn WriteHook>>) -> std::io::Result<Syncer> {
        let hand = Arc::<Hand>::default();
        let work = Work { hand: Arc::clone(&hand), log, shared, hook };
        let thread = thread::Builder::new().name("sqlite-sync".to_owned()).spawn(move || work.run())?;
        Ok(Syncer { hand, thread: Some(thread) })
    }

    /// Whether all that was handed over is on the disk.
    pub(crate) fn is_free(&self) -> bool {
        self.hand.state.lock().is_free()
    }

    /// How long a sync takes, over the last few.
    pub(crate) fn usual(&self) -> Duration {
        Duration::from_micros(self.hand.usual.load(Ordering::Relaxed))
    }

    /// Blocks until it is.
    pub(crate) fn wait(&self) {
        let mut state = self.hand.state.lock();
        while !state.is_free() {
            self.hand.freed.wait(&mut state);
        }
    }

    /// Hands over the calls of a commit. The caller has seen that the thread is free.
    pub(crate) fn hand_over(&self, batch: Batch) {
        let mut state = self.hand.state.lock();
        if state.dead {
            drop(state);
            return batch.calls.into_iter().for_each(|call| call.answer(Err(StoreError::Poisoned)));
        }
        state.batch = Some(batch);
        drop(state);
        self.hand.handed_over.notify_one();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.hand.state.lock().closed = true;
        self.hand.handed_over.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the syncing thread has panicked");
        }
    }
}

/// What the thread works with.
struct Work {
    hand: Arc<Hand>,
    log: File,
    shared: Arc<Shared>,
    hook: Option<Arc<dyn WriteHook>>,
}

impl Work {
    fn run(&self) {
        while let Some(batch) = self.next() {
            let synced = self.sync(&batch);
            // Before the answers: the next commit need not wait for them.
            self.free();
            self.answer(batch, synced);
        }
    }

    fn next(&self) -> Option<Batch> {
        let mut state = self.hand.state.lock();
        loop {
            if let Some(batch) = state.batch.take() {
                state.syncing = true;
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            self.hand.handed_over.wait(&mut state);
        }
    }

    fn free(&self) {
        self.hand.state.lock().syncing = false;
        self.hand.freed.notify_all();
        // The writer may wait for calls to join: it has something better to do now.
        self.shared.calls.nudge();
    }

    /// Whether the batch is on the disk.
    fn sync(&self, batch: &Batch) -> bool {
        if self.shared.doctor.health() == Health::Poisoned {
            return false;
        }
        let Some(commit) = batch.commit else { return true };
        let started = writer::now();
        // Crash here: the commit may be on the disk or not, and nobody was told of it.
        let synced = self.log.sync_data();
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let usual = self.hand.usual.load(Ordering::Relaxed);
        self.hand.usual.store(usual.saturating_mul(7).saturating_add(took) / 8, Ordering::Relaxed);
        if let Err(error) = synced {
            tracing::error!(%error, "the log cannot be synced, the store is closed to writes: {error}");
            self.shared.doctor.set(Health::Poisoned);
            return false;
        }
        if let Some(hook) = &self.hook {
            hook.after_commit(commit);
        }
        true
    }

    fn answer(&self, batch: Batch, synced: bool) {
        let Batch { calls, mut news, commit } = batch;
        if !synced {
            return calls.into_iter().for_each(|call| call.answer(Err(StoreError::Poisoned)));
        }
        for call in calls {
            call.answer(Ok(()));
        }
        if let (Some(hook), Some(commit)) = (&self.hook, commit) {
            hook.after_answer(commit);
        }
        news.tell(&self.shared.notices);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody will sync any more: the writer must neither wait for it nor go on.
            self.shared.doctor.set(Health::Poisoned);
            let mut state = self.hand.state.lock();
            state.dead = true;
            // Its callers learn of it by that.
            state.batch = None;
            drop(state);
            self.free();
        }
    }
}
