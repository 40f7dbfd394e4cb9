//! One attempt: from the claim of a job to the one report about how it ended.
//!
//! A [`Run`] is settled exactly once, by whoever comes first:
//! * its code returns (or panics): the outcome is what the code said;
//! * the keeper gives it up because its grace has passed: the outcome is what was asked of it (a stop, a timeout, ...);
//! * its lease is lost: there is nothing to report, another run may have the job.
//!
//! What comes later is ignored: a late end of code that was given up frees its thread and nothing else. Async code that
//! was given up is dropped at its next `await`; code that neither yields nor returns cannot be ended and is counted as
//! stuck until it does. Either way the slot is free at once.

pub(crate) mod attempt;
pub(crate) mod panics;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering};

use futures_util::task::AtomicWaker;
use jobservice_core::job::{LeaseKey, Signal};
use jobservice_core::lifecycle::{self, Outcome};
use jobservice_core::{Time, job, limits};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Failure;
use crate::env::Env;
use crate::failure::FailureKind;
use crate::logger::{self, JobLog};
use crate::registry::Entry;

pub(crate) use attempt::{guarded, guarded_sync};
pub(crate) use panics::caught;

/// Why a run should end before its work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Interrupt {
    /// Somebody stopped the job: it ends for good.
    Stop,
    /// Somebody cancelled the job: it may be retried later.
    Cancel,
    /// It runs for longer than its timeout.
    Timeout,
    /// The service shuts down: the job will run again elsewhere, or here after the restart.
    Shutdown,
    /// The service took this run for dead and gave the job to another: nothing that it does counts any more.
    LeaseLost,
}

impl Interrupt {
    const fn bit(self) -> u8 {
        match self {
            Interrupt::Stop => 1,
            Interrupt::Cancel => 1 << 1,
            Interrupt::Timeout => 1 << 2,
            Interrupt::Shutdown => 1 << 3,
            Interrupt::LeaseLost => 1 << 4,
        }
    }

    /// The weightiest of several: what is irrevocable comes first, a stop overrules a cancel, and a wish of somebody
    /// overrules the clock.
    const BY_WEIGHT: [Interrupt; 5] =
        [Interrupt::LeaseLost, Interrupt::Stop, Interrupt::Cancel, Interrupt::Timeout, Interrupt::Shutdown];
}

impl From<Signal> for Interrupt {
    fn from(signal: Signal) -> Interrupt {
        match signal {
            Signal::Stop => Interrupt::Stop,
            Signal::Cancel => Interrupt::Cancel,
        }
    }
}

/// What is to be told to the store about a run that is over.
#[derive(Debug)]
pub(crate) enum Ending {
    /// How it ended.
    Report(Outcome),
    /// It goes back, nothing counts.
    Release,
    /// Nothing: the lease is lost.
    Nothing,
}

/// A run that is settled.
pub(crate) struct Ended {
    pub(crate) run: Arc<Run>,
    pub(crate) ending: Ending,
}

/// It occupies (or occupied) a slot.
const STARTED: u8 = 1;
/// Its ending is decided.
const SETTLED: u8 = 1 << 1;
/// It was settled while its code still ran.
const GIVEN_UP: u8 = 1 << 2;
/// Its code is over: returned, panicked or dropped.
const CODE_OVER: u8 = 1 << 3;

/// One attempt at a job.
pub(crate) struct Run {
    job: job::Job,
    lease: LeaseKey,
    entry: Arc<Entry>,
    env: Arc<Env>,
    log: JobLog,
    /// Where it stands in the table of the pool.
    place: AtomicUsize,
    progress: AtomicU8,
    /// Who still works for it: its task, its thread.
    alive: AtomicUsize,
    interrupts: AtomicU8,
    /// When it will be given up, in milliseconds; `i64::MAX` until it is interrupted.
    grace_until: AtomicI64,
    interrupted: Notify,
    /// Wakes the task that runs it, so that it notices that it was given up.
    waker: AtomicWaker,
    result: Mutex<Option<Arc<str>>>,
}

impl Run {
    /// The run of a job as a claim gave it; none if the job is not Running.
    pub(crate) fn new(job: job::Job, entry: Arc<Entry>, env: Arc<Env>) -> Option<Arc<Run>> {
        let lease = job.lease_key()?;
        let log = env.logs.open(logger::Run::of(&job)?);
        Some(Arc::new(Run {
            job,
            lease,
            entry,
            env,
            log,
            place: AtomicUsize::new(usize::MAX),
            progress: AtomicU8::new(0),
            alive: AtomicUsize::new(0),
            interrupts: AtomicU8::new(0),
            grace_until: AtomicI64::new(i64::MAX),
            interrupted: Notify::new(),
            waker: AtomicWaker::new(),
            result: Mutex::new(None),
        }))
    }

    pub(crate) fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed)
    }

    pub(crate) fn set_place(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
    }

    pub(crate) fn job(&self) -> &job::Job {
        &self.job
    }

    pub(crate) fn lease(&self) -> &LeaseKey {
        &self.lease
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.env
    }

    pub(crate) fn log(&self) -> &JobLog {
        &self.log
    }

    /// Whether its job crashed before: a pool runs at most one such at a time.
    pub(crate) fn is_suspect(&self) -> bool {
        self.job.state.crashes > 0
    }

    /// When it will have run for longer than it may.
    pub(crate) fn timeout_at(&self) -> Option<Time> {
        Some(self.job.state.started_at? + self.job.spec.timeout?)
    }

    pub(crate) fn set_result(&self, result: Arc<str>) {
        *self.result.lock() = Some(result);
    }

    // ---- interrupts ----

    /// Asks the run to end by `until`. Several may ask; the earliest end stands. A run that has not begun never does.
    pub(crate) fn ask_to_end(self: &Arc<Run>, interrupt: Interrupt, until: Time) {
        self.grace_until.fetch_min(until.as_millis(), Ordering::AcqRel);
        let before = self.interrupts.fetch_or(interrupt.bit(), Ordering::AcqRel);
        if before & interrupt.bit() != 0 {
            return;
        }
        self.interrupted.notify_waiters();
        if self.progress.compare_exchange(0, SETTLED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.report(self.ending_as_asked());
            self.env.board.wake();
        }
    }

    pub(crate) fn was_asked(&self, interrupt: Interrupt) -> bool {
        self.interrupts.load(Ordering::Acquire) & interrupt.bit() != 0
    }

    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        let asked = self.interrupts.load(Ordering::Acquire);
        Interrupt::BY_WEIGHT.into_iter().find(|interrupt| asked & interrupt.bit() != 0)
    }

    /// When it will be given up, if it was interrupted.
    pub(crate) fn grace_until(&self) -> Option<Time> {
        let until = self.grace_until.load(Ordering::Acquire);
        (until != i64::MAX).then_some(Time::from_millis(until))
    }

    pub(crate) async fn interrupted(&self) -> Interrupt {
        loop {
            // Register before looking: an interrupt between the two would be slept through.
            let interrupted = self.interrupted.notified();
            if let Some(interrupt) = self.interrupt() {
                return interrupt;
            }
            interrupted.await;
        }
    }

    // ---- how it ends ----

    /// Notes that it takes a slot; false if it was settled before it could begin. Called by the board under its lock.
    pub(crate) fn start(&self) -> bool {
        self.progress.fetch_or(STARTED, Ordering::AcqRel) & SETTLED == 0
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.progress.load(Ordering::Acquire) & SETTLED != 0
    }

    /// Its code is through: decides what that means, unless somebody settled the run before. The slot is free from here
    /// on; the answer goes to [`Run::report`].
    pub(crate) fn ended(self: &Arc<Run>, said: Result<(), Failure>) -> Option<Ending> {
        if self.is_settled() {
            return None;
        }
        let ending = self.ending(said);
        self.settle(0).then_some(ending)
    }

    /// Hands the ending of a settled run to the fetcher.
    pub(crate) fn report(self: &Arc<Run>, ending: Ending) {
        self.env.board.ended(Ended { run: Arc::clone(self), ending });
    }

    /// Settles it although its code still runs or has not begun: what was asked of it decides how. Returns whether it was
    /// this call that settled it.
    pub(crate) fn give_up(self: &Arc<Run>) -> bool {
        let ending = self.ending_as_asked();
        let settled = self.settle(GIVEN_UP);
        if settled {
            self.report(ending);
            self.env.board.wake();
            self.waker.wake();
        }
        settled
    }

    /// The lease is lost: another run may have the job. Nothing of this one counts any more.
    pub(crate) fn revoke(self: &Arc<Run>) -> bool {
        self.log.revoke();
        self.ask_to_end(Interrupt::LeaseLost, Time::from_millis(0));
        self.give_up()
    }

    /// Settles it if nobody did before.
    fn settle(&self, how: u8) -> bool {
        let before = self.progress.fetch_or(SETTLED, Ordering::AcqRel);
        if before & SETTLED != 0 {
            return false;
        }
        let started = before & STARTED != 0;
        // Two steps on purpose: only who settled it may say that it was given up.
        if how & GIVEN_UP != 0 && started {
            let before = self.progress.fetch_or(GIVEN_UP, Ordering::AcqRel);
            if before & CODE_OVER == 0 {
                self.env.board.stuck_more(self.entry.info.blocking);
            }
        }
        self.env.board.free(started);
        true
    }

    /// Its code is over. If it had been given up, its thread is free again only now.
    fn code_over(&self) {
        let before = self.progress.fetch_or(CODE_OVER, Ordering::AcqRel);
        if before & GIVEN_UP != 0 && before & CODE_OVER == 0 {
            self.env.board.stuck_less(self.entry.info.blocking);
        }
    }

    fn ending(&self, said: Result<(), Failure>) -> Ending {
        let failure = match said {
            Ok(()) => return Ending::Report(Outcome::Ok { result: self.result.lock().take() }),
            Err(failure) => failure,
        };
        match (failure.kind(), self.interrupt()) {
            (FailureKind::Interrupted | FailureKind::Obeyed(_), Some(_)) => self.ending_as_asked(),
            (FailureKind::Obeyed(Signal::Stop), None) => Ending::Report(Outcome::Stopped),
            (FailureKind::Obeyed(Signal::Cancel), None) => Ending::Report(Outcome::Cancelled),
            (FailureKind::Snooze(delay), _) => {
                let until = self.env.clock.now() + delay.min(limits::DELAY_MAX);
                Ending::Report(Outcome::Snooze { until })
            }
            (FailureKind::Retryable, _) => {
                let retry = self.entry.should_retry(&self.job.spec.parameters, &failure);
                self.failed(failure.message(), retry)
            }
            (FailureKind::Interrupted, None) => {
                self.failed("ended as if interrupted, but nothing had interrupted it", true)
            }
            (FailureKind::Permanent, _) => self.failed(failure.message(), false),
        }
    }

    fn ending_as_asked(&self) -> Ending {
        match self.interrupt() {
            Some(Interrupt::LeaseLost) => Ending::Nothing,
            Some(Interrupt::Stop) => Ending::Report(Outcome::Stopped),
            Some(Interrupt::Cancel) => Ending::Report(Outcome::Cancelled),
            Some(Interrupt::Timeout) => {
                self.failed(&lifecycle::timeout_error(self.job.spec.timeout.unwrap_or_default()), true)
            }
            Some(Interrupt::Shutdown) | None => Ending::Release,
        }
    }

    fn failed(&self, message: &str, retryable: bool) -> Ending {
        let message = if message.is_empty() { "failed without saying why" } else { message };
        self.log.error(format!("attempt {} failed: {message}", self.job.state.attempt));
        // The backoff counts this failure too.
        let retry_after = if retryable { self.entry.backoff(self.job.state.fails.saturating_add(1)) } else { None };
        let error = limits::cut(message, limits::ERROR_BYTES_MAX).as_ref().into();
        Ending::Report(Outcome::Failed { error, retryable, retry_after, jitter: crate::env::random_u32() })
    }
}

/// Held by whatever works for a run: its task and, for a blocking job, its thread. With the last one its code is over.
pub(crate) struct Alive(Arc<Run>);

impl Alive {
    pub(crate) fn of(run: &Arc<Run>) -> Alive {
        run.alive.fetch_add(1, Ordering::AcqRel);
        Alive(Arc::clone(run))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.0.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.code_over();
        }
    }
}
