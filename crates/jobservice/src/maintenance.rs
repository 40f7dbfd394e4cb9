//! The sweeps: promote what is due, fire policies, reap what is overdue, prune what has expired or takes too much room; and
//! the beat of this node.
//!
//! Every node runs them; the store sees to it that each job moves once. A sweep sleeps until the next record of its kind
//! is due, as far as the store knows, and looks at least every [`SweepTimes`] says: hints may be lost. An error is said
//! once, tried again with growing pauses, and never ends a sweep.

mod fire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::store::{Node, Result, Swept};
use jobservice_core::{Clock, JobId, Store, Time, limits};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::env::random_u32;
use crate::logger::JobLogs;
use crate::wait;
use crate::watchdog::{Fatal, Watchdog};

/// Records that one call moves at the most: a call is one transaction, and others wait for it.
const BATCH: usize = 1000;

/// Shortest pause between two looks that found nothing more to do.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The same for prune. Nobody waits for what is pruned, and what expires one by one is better taken together.
const PRUNE_PAUSE_MIN: Duration = Duration::from_secs(1);

/// How often each sweep looks although nothing told it to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepTimes {
    promote: Duration,
    fire: Duration,
    reap: Duration,
    prune: Duration,
    beat: Duration,
}

impl Default for SweepTimes {
    fn default() -> Self {
        SweepTimes {
            promote: Duration::from_secs(1),
            fire: Duration::from_secs(1),
            reap: Duration::from_secs(1),
            prune: Duration::from_secs(60),
            beat: Duration::from_secs(5),
        }
    }
}

/// What the sweeps work on.
#[derive(Clone)]
pub(crate) struct Maintenance {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) logs: JobLogs,
    /// Bytes that the store may take before final jobs go ahead of their time.
    pub(crate) bytes_max: Option<u64>,
    pub(crate) times: SweepTimes,
}

/// The sweeps on their thread. They end when it is dropped.
pub(crate) struct Upkeep {
    stop: DropGuard,
    ended: watch::Receiver<()>,
}

impl Upkeep {
    /// Starts the sweeps on a thread of their own, and the beat if there is a pool.
    pub(crate) fn start(maintenance: Maintenance, node: Option<Node>, fatal: Fatal) -> io::Result<Upkeep> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (ended_sender, ended) = watch::channel(());
        let stopped = stop.clone();
        let watchdog = Watchdog::new(fatal, "the upkeep");
        std::thread::Builder::new().name("jobs-upkeep".to_owned()).spawn(move || {
            let _ended = ended_sender;
            runtime.block_on(stopped.run_until_cancelled(maintenance.run(node)));
            watchdog.done();
        })?;
        Ok(Upkeep { stop: stop.drop_guard(), ended })
    }

    /// Ends the sweeps and waits for that. Each step of theirs is whole or not at all, wherever they are.
    pub(crate) async fn stop(&self) {
        self.stop.token().cancel();
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    Promote,
    Reap,
    Prune,
}

impl Maintenance {
    async fn run(&self, node: Option<Node>) {
        let beat = async {
            if let Some(node) = node {
                self.beat(node).await;
            }
        };
        tokio::join!(self.sweep(Sweep::Promote), self.fire(), self.sweep(Sweep::Reap), self.sweep(Sweep::Prune), beat);
    }

    async fn sweep(&self, sweep: Sweep) {
        let mut trouble = Trouble::default();
        loop {
            let now = self.clock.now();
            if let (Sweep::Reap, Some(until)) = (sweep, self.reaping_pauses_until(now)) {
                wait::until(&self.clock, until).await;
                continue;
            }
            match self.step(sweep, now).await {
                Ok(Swept { more: true, .. }) => {
                    trouble.over(sweep);
                    tokio::task::yield_now().await;
                }
                Ok(swept) => {
                    trouble.over(sweep);
                    wait::until(&self.clock, self.next_look(sweep, swept.next_at, now)).await;
                }
                Err(error) => trouble.wait(sweep, &error).await,
            }
        }
    }

    async fn step(&self, sweep: Sweep, now: Time) -> Result<Swept> {
        match sweep {
            Sweep::Promote => self.store.promote(BATCH, now).await,
            Sweep::Reap => self.store.reap(BATCH, random_u32(), now).await,
            Sweep::Prune => {
                // Of a store that is far away, more at once: each call costs some round trips, whatever it removes.
                let most = limits::PRUNE_MAX * self.store.rounds().max(1);
                let mut swept = self.store.prune(most, now).await?;
                self.remove_logs(&swept.removed).await;
                if !swept.more
                    && let Some(bytes_max) = self.bytes_max
                {
                    let shrunk = self.store.shrink(bytes_max, limits::PRUNE_MAX, now).await?;
                    swept.more |= shrunk.more;
                    self.remove_logs(&shrunk.removed).await;
                }
                Ok(swept)
            }
        }
    }

    /// Crash before this: the logs stay without their jobs until the sweeper of the logs removes them by age.
    async fn remove_logs(&self, of: &[JobId]) {
        if !of.is_empty()
            && let Err(error) = self.logs.remove(of).await
        {
            let jobs = of.len();
            tracing::warn!(jobs, error = %error, "the logs of {jobs} pruned jobs could not be removed");
        }
    }

    /// After a jump of the clock leases look expired although their holders had no chance to extend them.
    fn reaping_pauses_until(&self, now: Time) -> Option<Time> {
        let until = self.clock.jumped_at(limits::LEASE / 3)? + limits::LEASE;
        (until > now).then_some(until)
    }

    /// A job that is submitted from now on for a time before this is promoted late, by less than a second; delays come in
    /// whole seconds.
    fn next_look(&self, sweep: Sweep, next_at: Option<Time>, now: Time) -> Time {
        let (every, pause_min) = match sweep {
            Sweep::Promote => (self.times.promote, PAUSE_MIN),
            Sweep::Reap => (self.times.reap, PAUSE_MIN),
            Sweep::Prune => (self.times.prune, PRUNE_PAUSE_MIN),
        };
        next_at.map_or(now + every, |next_at| next_at.min(now + every)).max(now + pause_min)
    }

    async fn beat(&self, node: Node) {
        let mut trouble = Trouble::default();
        loop {
            let now = self.clock.now();
            match self.store.beat(Some(&node), now).await {
                Ok(_) => {
                    trouble.quiet();
                    wait::until(&self.clock, now + self.times.beat).await;
                }
                Err(error) => {
                    if trouble.is_new() {
                        tracing::warn!(error = %error, "this node could not give a sign of life, trying on");
                    }
                    trouble.backoff.wait().await;
                }
            }
        }
    }
}

/// Errors of one loop: said when they begin and when they end.
#[derive(Debug, Default)]
struct Trouble {
    told: bool,
    backoff: wait::Backoff,
}

impl Trouble {
    fn is_new(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    fn quiet(&mut self) {
        self.told = false;
        self.backoff.reset();
    }

    fn over(&mut self, sweep: impl std::fmt::Debug) {
        if self.told {
            tracing::info!("{sweep:?} works again");
        }
        self.quiet();
    }

    async fn wait(&mut self, sweep: impl std::fmt::Debug, error: &jobservice_core::StoreError) {
        if self.is_new() {
            tracing::warn!(error = %error, "{sweep:?} failed, trying on");
        }
        self.backoff.wait().await;
    }
}
