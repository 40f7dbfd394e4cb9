//! The worker pool: claims jobs, runs them, reports how they ended, and keeps their leases alive meanwhile.
//!
//! Three parts on three runtimes, so that none can hold up another:
//! * the [`fetcher`] claims and reports, in rounds;
//! * the [`keeper`] extends leases, brings signals, and ends runs whose time is over;
//! * the [`runner`]s run the jobs, on as many threads as there are slots (at most 64), and as many again in reserve: code
//!   that neither yields nor ends keeps its thread for ever, and its slot must still be able to run others.
//!
//! They meet at the [`board`] (what runs) and the [`table`] (what is leased).

pub(crate) mod board;
mod fetcher;
mod keeper;
mod round;
mod runner;
mod table;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jobservice_core::PoolId;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::Registry;
use crate::env::Env;
use crate::watchdog::{Fatal, Watchdog};

use fetcher::{Fetcher, StuckMax};
use keeper::Keeper;
use table::Table;

/// Threads for jobs at the most, without the reserve: more would only take turns.
const THREADS_MAX: usize = 64;

/// Threads for code of jobs that blocks by way of the runtime (files, name look-ups), besides the blocking jobs.
const BLOCKING_THREADS: usize = 512;

/// Whether the pool works or ends.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Working,
    Draining { grace: Duration },
}

/// How a pool is built.
pub(crate) struct Settings {
    pub(crate) slots: usize,
    /// Jobs that are claimed beyond the free slots, so that a slot that becomes free has its next job at hand.
    pub(crate) prefetch: usize,
    pub(crate) registry: Arc<Registry>,
    pub(crate) fatal: Fatal,
}

/// Numbers of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// The pool.
    pub pool: PoolId,
    /// Jobs that it may run at once.
    pub slots: usize,
    /// Jobs that it runs.
    pub running: usize,
    /// Jobs that it claimed ahead and that wait for a slot.
    pub waiting: usize,
    /// Runs whose end is not known to be in the store yet, running ones included.
    pub leased: usize,
    /// Threads held by code that was given up and neither yields nor ends. Half the slots or more: the pool is not well.
    pub stuck: usize,
    /// Whether these have used up the threads in reserve, so that no more jobs are claimed.
    pub held_up: bool,
    /// Jobs claimed since the start.
    pub claimed: u64,
    /// Ends reported since the start.
    pub finished: u64,
    /// Runs whose lease was lost since the start.
    pub lost: u64,
}

impl PoolStats {
    /// Whether enough of its threads are free to be of use.
    pub fn is_healthy(&self) -> bool {
        !self.held_up && self.stuck * 2 < self.slots.max(1)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    claimed: AtomicU64,
    finished: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    fn claimed(&self, count: usize) {
        self.claimed.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn finished(&self, count: usize) {
        self.finished.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn lost(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A running pool. Dropping it ends it at once: what runs is given back.
pub(crate) struct Pool {
    env: Arc<Env>,
    table: Arc<Table>,
    counters: Arc<Counters>,
    slots: usize,
    phase: watch::Sender<Phase>,
    /// Closed when the pool has ended.
    ended: watch::Receiver<()>,
}

impl Pool {
    /// Starts the threads of a pool. `env.board` has as many slots as `settings`.
    pub(crate) fn start(env: Arc<Env>, settings: Settings) -> io::Result<Pool> {
        crate::run::panics::install_hook();
        let Settings { slots, prefetch, registry, fatal } = settings;
        let table = Arc::new(Table::default());
        let counters = Arc::new(Counters::default());
        let (phase, phases) = watch::channel(Phase::Working);
        let (ended_sender, ended) = watch::channel(());
        let lost_claim = Arc::new(Notify::new());

        let threads = slots.clamp(1, THREADS_MAX);
        let jobs = Builder::new_multi_thread()
            .worker_threads(threads * 2)
            .max_blocking_threads(slots * 2 + BLOCKING_THREADS)
            .thread_name("job")
            .enable_all()
            .build()?;
        let keeper_runtime = Builder::new_current_thread().enable_all().build()?;
        let fetcher_runtime = Builder::new_current_thread().enable_all().build()?;

        let keeper = Keeper {
            env: Arc::clone(&env),
            table: Arc::clone(&table),
            lost_claim: Arc::clone(&lost_claim),
            hurry: Arc::new(Notify::new()),
        };
        // Subscribed before the first claim: a signal cannot come before its job is claimed.
        let signals = env.store.notices().signals();
        let keeper_stop = CancellationToken::new();
        let stop = keeper_stop.clone();
        let (keeper_gone, keeper_ended) = oneshot::channel::<()>();
        let watchdog = Watchdog::new(fatal.clone(), "the keeper of the leases");
        std::thread::Builder::new().name("jobs-keeper".to_owned()).spawn(move || {
            keeper_runtime.block_on(stop.run_until_cancelled(keeper.run(signals)));
            watchdog.done();
            drop(keeper_gone);
        })?;

        let fetcher = Fetcher {
            env: Arc::clone(&env),
            table: Arc::clone(&table),
            asks: registry.asks(),
            registry,
            jobs: jobs.handle().clone(),
            counters: Arc::clone(&counters),
            phase: phases,
            lost_claim,
            fatal: fatal.clone(),
            held_max: slots + prefetch,
            // The reserve makes up for as many stuck threads as there are slots; after those there are fewer than slots.
            stuck_max: StuckMax { in_async: threads + 1, blocking: slots + BLOCKING_THREADS },
        };
        let watchdog = Watchdog::new(fatal, "the fetcher of jobs");
        let ends = Ends { jobs: Some(jobs), keeper_stop, _ended: ended_sender };
        std::thread::Builder::new().name("jobs-fetcher".to_owned()).spawn(move || {
            // Dropped at the end of the thread, however that comes.
            let ends = ends;
            fetcher_runtime.block_on(async {
                fetcher.run().await;
                watchdog.done();
                ends.keeper_stop.cancel();
                // An error is how the keeper says that it is gone.
                drop(keeper_ended.await);
            });
        })?;
        Ok(Pool { env, table, counters, slots, phase, ended })
    }

    /// Claims no more, gives what runs `grace` to end, gives back the rest, reports all ends, and stops. Safe to repeat.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.drain(grace);
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    fn drain(&self, grace: Duration) {
        self.phase.send_if_modified(|phase| match phase {
            Phase::Working => {
                *phase = Phase::Draining { grace };
                true
            }
            Phase::Draining { .. } => false,
        });
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let (running, waiting) = self.env.board.load();
        PoolStats {
            pool: self.env.pool.clone(),
            slots: self.slots,
            running,
            waiting,
            leased: self.table.len(),
            stuck: self.env.board.stuck(),
            held_up: self.env.board.is_held_up(),
            claimed: self.counters.claimed.load(Ordering::Relaxed),
            finished: self.counters.finished.load(Ordering::Relaxed),
            lost: self.counters.lost.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.drain(Duration::ZERO);
    }
}

/// What ends with the fetcher's thread.
struct Ends {
    jobs: Option<Runtime>,
    keeper_stop: CancellationToken,
    _ended: watch::Sender<()>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.keeper_stop.cancel();
        if let Some(jobs) = self.jobs.take() {
            // Not waited for: stuck threads never end.
            jobs.shutdown_background();
        }
    }
}
