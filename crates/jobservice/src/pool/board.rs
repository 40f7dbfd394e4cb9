//! Where fetcher and runners meet: runs that wait for a slot, slots that are taken, runs that are over.
//!
//! One short lock, taken twice a job. Runners wake the fetcher when they run out of work, not at every end: what ended
//! meanwhile goes to the store in one batch with the next claim. While a runner is busy the fetcher looks by itself after
//! a moment ([`Busy`]), so that code that blocks its thread delays neither its neighbours' start nor their reports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::run::{Ended, Run};

/// Where fetcher and runners meet.
pub(crate) struct Board {
    slots: usize,
    inner: Mutex<Inner>,
    news: Notify,
    stuck: Stuck,
    /// The fetcher claims no more because of it.
    held_up: AtomicBool,
}

/// Code that goes on after its run was given up, by where it runs: for async code the threads in reserve are few.
#[derive(Default)]
struct Stuck {
    in_async: AtomicIsize,
    blocking: AtomicIsize,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Arc<Run>>,
    /// Slots taken.
    running: usize,
    /// Runners that look for runs or poll one for the first time.
    runners: usize,
    /// Runs that were started, ever: shows whether anything moves.
    started: u64,
    ended: Vec<Ended>,
}

/// How busy the runners are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Runs that could start at once, if a runner were free.
    pub(crate) startable: usize,
    /// Runners that look for runs or poll one for the first time.
    pub(crate) runners: usize,
    /// Runs that were started, ever.
    pub(crate) started: u64,
}

impl Board {
    pub(crate) fn new(slots: usize) -> Board {
        Board {
            slots,
            inner: Mutex::default(),
            news: Notify::new(),
            stuck: Stuck::default(),
            held_up: AtomicBool::new(false),
        }
    }

    // ---- the fetcher ----

    /// Adds claimed runs. Answers how many runners to start for them, which count as started with this call.
    pub(crate) fn add(&self, runs: impl IntoIterator<Item = Arc<Run>>, runners_wanted: usize) -> usize {
        let mut inner = self.inner.lock();
        // Those that were stopped before they began would stay until a slot is free, and more of them come meanwhile.
        inner.waiting.retain(|run| !run.is_settled());
        inner.waiting.extend(runs);
        inner.more_runners(runners_wanted, self.slots)
    }

    /// Takes what ended since the last call, and tells how busy the runners are.
    pub(crate) fn take_ended(&self, into: &mut Vec<Ended>) -> Busy {
        let mut inner = self.inner.lock();
        into.append(&mut inner.ended);
        Busy { startable: inner.startable(self.slots), runners: inner.runners, started: inner.started }
    }

    /// All runners are held up in their runs: as many again may start.
    pub(crate) fn double_runners(&self) -> usize {
        let mut inner = self.inner.lock();
        let wanted = inner.runners.max(1) * 2;
        inner.more_runners(wanted, self.slots)
    }

    /// Resolves when there is something to look at.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    // ---- the runners ----

    /// The next run, if there is one and a slot for it. If not, the runner that asks must end: it is not counted any more.
    pub(crate) fn next(&self) -> Option<Arc<Run>> {
        let mut inner = self.inner.lock();
        while inner.running < self.slots
            && let Some(run) = inner.waiting.pop_front()
        {
            // Stopped, revoked or given back before it began.
            if !run.start() {
                continue;
            }
            inner.running += 1;
            inner.started += 1;
            return Some(run);
        }
        inner.runners -= 1;
        drop(inner);
        self.news.notify_one();
        None
    }

    /// The runner's run is not through after its first poll: the runner stays with it. Answers whether another runner
    /// must take the place; it counts as started with this call.
    pub(crate) fn stay(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.runners -= 1;
        let wanted = inner.runners + 1;
        let replaced = inner.more_runners(wanted, self.slots) > 0;
        let idle = inner.runners == 0;
        drop(inner);
        if idle {
            self.news.notify_one();
        }
        replaced
    }

    /// The run that the runner stayed with is over: it looks for the next one.
    pub(crate) fn back(&self) {
        self.inner.lock().runners += 1;
    }

    // ---- whoever settles a run ----

    /// A run is settled: its slot is free, if it had one.
    pub(crate) fn free(&self, started: bool) {
        if started {
            self.inner.lock().running -= 1;
        }
    }

    /// What is to be reported of a settled run. Whoever ends a run outside of a runner wakes the fetcher too.
    pub(crate) fn ended(&self, ended: Ended) {
        self.inner.lock().ended.push(ended);
    }

    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    // ---- code that goes on after its run was settled ----

    pub(crate) fn stuck_more(&self, is_blocking: bool) {
        self.stuck.of(is_blocking).fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn stuck_less(&self, is_blocking: bool) {
        self.stuck.of(is_blocking).fetch_sub(1, Ordering::AcqRel);
        self.news.notify_one();
    }

    /// How many runs of async or of blocking jobs were given up and their code still runs.
    pub(crate) fn stuck_of(&self, is_blocking: bool) -> usize {
        // For a moment it is below zero, when code ends between the two steps of giving it up.
        usize::try_from(self.stuck.of(is_blocking).load(Ordering::Acquire)).unwrap_or(0)
    }

    /// The same of all jobs.
    pub(crate) fn stuck(&self) -> usize {
        self.stuck_of(false) + self.stuck_of(true)
    }

    /// Notes whether the fetcher claims no more because of stuck code; answers whether that is new.
    pub(crate) fn held_up(&self, is_held_up: bool) -> bool {
        self.held_up.swap(is_held_up, Ordering::AcqRel) != is_held_up
    }

    pub(crate) fn is_held_up(&self) -> bool {
        self.held_up.load(Ordering::Acquire)
    }

    /// Slots that are taken, and runs that wait for one.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.running, inner.waiting.len())
    }
}

impl Stuck {
    fn of(&self, is_blocking: bool) -> &AtomicIsize {
        if is_blocking { &self.blocking } else { &self.in_async }
    }
}

impl Inner {
    fn startable(&self, slots: usize) -> usize {
        self.waiting.len().min(slots.saturating_sub(self.running))
    }

    /// Brings the runners to `wanted`, but starts no more than there are runs for.
    fn more_runners(&mut self, wanted: usize, slots: usize) -> usize {
        let more = wanted.saturating_sub(self.runners).min(self.startable(slots));
        self.runners += more;
        more
    }
}
