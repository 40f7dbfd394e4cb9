//! The one thread that writes, and its group commit.
//!
//! 1. It sleeps until a call comes, takes all that wait, and opens a transaction.
//! 2. It applies call after call; those that came meanwhile join. Once the disk is done with the batch before, it goes on
//!    when no call waits or when it has worked for about half as long as a sync takes. So it is never idle while there is
//!    work, nor is the disk; and the slower the disk, the larger the batches. There is no timer.
//! 3. It commits. Crash before that: nothing of the batch happened, and nobody was told that it did.
//! 4. It hands the calls over to `sync`, which makes the commit durable and answers. Crash before that: all of the batch
//!    happened or nothing, and the callers do not know; every verb says what calling again does then.
//! 5. It writes the log back to the file when it has grown.
//!
//! Claims wait until no other call does, so that they see what the others brought.
//!
//! A call that fails is answered with its error and the batch is done again without it: so no call can harm another, and
//! none needs a savepoint. What the disk's errors mean is said in `fault`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jobservice_core::StoreError;
use jobservice_core::notices::Notices;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::call::{Call, Class, Failure};
use crate::fault::{self, Fault};
use crate::health::{Ballast, Doctor, Health};
use crate::queue::{Queue, Wait};
use crate::session::Session;
use crate::sync::{Batch, Syncer};
use crate::upkeep::{Log, Vacuum};
use crate::{OpenError, WriteHook};

/// Calls in one transaction: past it the gain is small and the wait of the first grows.
const CALLS_MAX: usize = 1024;

/// Time since the begin of a transaction after which nobody joins it, whatever else waits.
const WORK_MAX: Duration = Duration::from_millis(5);

/// Calls that join a batch between two looks at the disk.
const JOIN_TOGETHER: usize = 8;

/// Calls that wake the writer while the disk is busy: applied early they shorten the batch, but each wake-up costs too.
const WAKE_TOGETHER: usize = 16;

/// Work that is worth a commit of its own while more waits, if the disk is that fast.
const WORK_MIN: Duration = Duration::from_micros(150);

/// How long nothing must have come before idle work begins.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The same for giving free pages back: shorter than the second at which the sweeps come, so that a service that has
/// nothing else to do gets there.
const VACUUM_AFTER: Duration = Duration::from_millis(200);

/// How often the log is tried to begin anew at the start, while others read.
const CHECKPOINT_TRIES: u32 = 3;

/// How often a full disk is looked at.
const FULL_LOOK: Duration = Duration::from_millis(250);

pub(crate) type Calls = Queue<Box<dyn Call>>;

/// What the writer shares with the store.
pub(crate) struct Shared {
    pub(crate) calls: Calls,
    pub(crate) notices: Arc<Notices>,
    pub(crate) doctor: Doctor,
    /// Whether there may be executions: without any nobody need look for them.
    pub(crate) has_executions: Arc<AtomicBool>,
}

/// Starts the writer; answers once it is ready for calls.
pub(crate) fn start(
    mut conn: Connection,
    log: &Path,
    shared: Arc<Shared>,
    ballast: Ballast,
    hook: Option<Arc<dyn WriteHook>>,
) -> Result<JoinHandle<()>, OpenError> {
    let pages = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&pages);
    conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, number| {
        count.store(u32::try_from(number).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    let log = log.to_owned();
    let (ready, is_ready) = mpsc::channel();
    let run = move || {
        let guard = Guard(Arc::clone(&shared));
        let begun = prepare(&conn, &log, &shared, hook.as_ref());
        let (session, syncer) = match begun {
            Ok(begun) => begun,
            Err(error) => return drop(ready.send(Err(error))),
        };
        drop(ready.send(Ok(())));
        let log = Log { pages, checkpointed: 0 };
        let shared = &shared;
        let vacuum = Vacuum { wanted: true, next_step: now(), steps: 0 };
        let mut writer = Writer { session, syncer, shared, ballast, hook, log, commits: 0, applied: 0, vacuum };
        writer.run();
        drop(writer);
        if shared.doctor.health() == Health::Poisoned
            && let Err(error) = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "cannot keep the log from being written back at the close: {error}");
        }
        drop(guard);
    };
    let thread = thread::Builder::new().name("sqlite-writer".to_owned()).spawn(run).map_err(OpenError::Thread)?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(OpenError::Damaged { what: "the writer ended while it started".to_owned() }),
    }
}

/// What the writer needs before its first call.
fn prepare<'c>(
    conn: &'c Connection,
    log: &Path,
    shared: &Arc<Shared>,
    hook: Option<&Arc<dyn WriteHook>>,
) -> Result<(Session<'c>, Syncer), OpenError> {
    begin_log_anew(conn)?;
    // Reads, and thereby makes the log if there is none.
    let session = Session::new(conn, Arc::clone(&shared.has_executions))?;
    // Commits are synced by `sync`, which says why that is as good.
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    let file = File::open(log).map_err(|source| OpenError::Log { path: log.to_owned(), source })?;
    let syncer = Syncer::start(file, Arc::clone(shared), hook.cloned()).map_err(OpenError::Thread)?;
    Ok((session, syncer))
}

/// Writes what an unclean end left in the log back to the file, syncs that, and begins the log anew.
///
/// Frames that the process before wrote may be in the kernel's cache and not on the disk, also for good, if a sync failed.
/// Whoever appended behind them would lose all that comes after them with the next power loss.
fn begin_log_anew(conn: &Connection) -> Result<(), OpenError> {
    for _ in 0..CHECKPOINT_TRIES {
        // Waits for readers for as long as the busy time-out says.
        let is_busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if is_busy == 0 {
            return Ok(());
        }
        tracing::warn!("another process reads the store: waiting for it, so that the log can begin anew");
    }
    tracing::warn!("another process keeps reading the store: going on with the log that the process before left");
    Ok(())
}

/// Closes the store to writes when the writer ends, also by a panic: who waits must not wait for ever.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.doctor.set(Health::Poisoned);
        }
        self.0.calls.close();
        let mut left = Vec::new();
        self.0.calls.take(&mut left, usize::MAX);
        for call in left {
            call.answer(Err(StoreError::Poisoned));
        }
    }
}

pub(crate) struct Writer<'c> {
    pub(crate) session: Session<'c>,
    syncer: Syncer,
    pub(crate) shared: &'c Shared,
    ballast: Ballast,
    hook: Option<Arc<dyn WriteHook>>,
    pub(crate) log: Log,
    commits: u64,
    applied: u64,
    pub(crate) vacuum: Vacuum,
}

/// Why an attempt at a batch came to nothing.
struct Broken {
    stage: Stage,
    failure: Failure,
}

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Call(usize),
    Commit,
}

/// Which calls of a batch were applied.
#[derive(Default)]
struct Progress {
    /// All before this one, but for the claims below.
    seen: usize,
    claims: Vec<usize>,
}

impl Stage {
    fn broke(self) -> impl FnOnce(Failure) -> Broken {
        move |failure| Broken { stage: self, failure }
    }
}

impl Writer<'_> {
    fn run(&mut self) {
        if !self.ballast.make() {
            tracing::warn!("there is no room for the ballast file: the disk is taken for full");
            self.shared.doctor.set(Health::Full);
        }
        let mut calls = Vec::new();
        loop {
            match self.shared.calls.wait(self.patience()) {
                Wait::Items => {
                    self.shared.calls.take(&mut calls, JOIN_TOGETHER);
                    self.batch(&mut calls);
                    self.after_batch();
                }
                Wait::Nudged => {}
                Wait::Nothing => self.idle(),
                Wait::Closed => return,
            }
        }
    }

    /// How long to wait for calls before there is something else to do.
    fn patience(&mut self) -> Option<Duration> {
        match self.shared.doctor.health() {
            Health::Full => Some(FULL_LOOK),
            Health::Poisoned => None,
            Health::Well if self.vacuum.wanted => Some(VACUUM_AFTER),
            Health::Well => (self.log.behind() > 0).then_some(IDLE_AFTER),
        }
    }

    /// Does all calls, each once, and answers them.
    fn batch(&mut self, calls: &mut Vec<Box<dyn Call>>) {
        let mut refused: &[Class] = &[];
        if self.shared.doctor.health() == Health::Full && !self.has_room_again() {
            refused = &[Class::Intake];
        }
        let mut joinable = true;
        loop {
            refuse(calls, refused);
            if self.shared.doctor.health() == Health::Poisoned {
                calls.drain(..).for_each(|call| call.answer(Err(StoreError::Poisoned)));
            }
            if calls.is_empty() {
                return;
            }
            let Err(broken) = self.attempt(calls, joinable, refused) else { return };
            joinable = false;
            let mut is_full = false;
            if self.shared.doctor.health() == Health::Poisoned {
                // The batch before could not be synced: this one is answered likewise, above.
            } else if Fault::of(&broken.failure, broken.stage == Stage::Commit) == Fault::Full {
                refused = self.make_room(refused);
                is_full = true;
            } else {
                self.blame(broken, calls);
            }
            if !self.roll_back() {
                self.shared.doctor.set(Health::Poisoned);
            } else if is_full {
                // What is in the file makes room in the log.
                self.checkpoint();
            }
        }
    }

    /// Applies the calls in one transaction, commits it and hands them over.
    fn attempt(&mut self, calls: &mut Vec<Box<dyn Call>>, joinable: bool, refused: &[Class]) -> Result<(), Broken> {
        let changes = self.session.conn.total_changes();
        self.session.hot.begin.execute([]).map_err(Failure::from).map_err(Stage::Begin.broke())?;
        let started = now();
        // Half: the other half is the answers and what the callers make of them.
        let enough = (self.syncer.usual() / 2).max(WORK_MIN);
        let mut progress = Progress::default();
        loop {
            self.apply_all(calls, &mut progress, false)?;
            // While some are refused nobody joins: the next batch looks again who is.
            let may_join = joinable && refused.is_empty() && calls.len() < CALLS_MAX && started.elapsed() < WORK_MAX;
            if !may_join {
                break;
            }
            let is_free = self.syncer.is_free();
            if is_free && started.elapsed() >= enough {
                break;
            }
            let room = CALLS_MAX - calls.len();
            if self.shared.calls.take(calls, room.min(JOIN_TOGETHER)) > 0 {
                continue;
            }
            if is_free || self.shared.calls.wait_for(WAKE_TOGETHER, Some(WORK_MAX)) == Wait::Closed {
                break;
            }
        }
        self.apply_all(calls, &mut progress, true)?;
        self.session.flush().map_err(Stage::Commit.broke())?;
        self.syncer.wait();
        if self.shared.doctor.health() == Health::Poisoned {
            let failure = Failure::Invalid("the commit before could not be synced".to_owned());
            return Err(Broken { stage: Stage::Commit, failure });
        }
        let commit = (self.session.conn.total_changes() != changes).then_some(self.commits + 1);
        if let (Some(commit), Some(hook)) = (commit, &self.hook) {
            hook.before_commit(commit);
        }
        self.session.hot.commit.execute([]).map_err(Failure::from).map_err(Stage::Commit.broke())?;
        self.commits = commit.unwrap_or(self.commits);
        let mut news = std::mem::take(&mut self.session.news);
        news.ready &= self.session.names.hinted().len() > 0;
        self.syncer.hand_over(Batch { calls: std::mem::take(calls), news, commit });
        Ok(())
    }

    /// Applies the calls that were not yet. Claims only once no other call waits, and, unless it is the `last` time, only
    /// if there is something to claim: else they wait for what may still join.
    fn apply_all(&mut self, calls: &mut [Box<dyn Call>], progress: &mut Progress, last: bool) -> Result<(), Broken> {
        while let Some(call) = calls.get_mut(progress.seen) {
            if call.class() == Class::Claim {
                progress.claims.push(progress.seen);
            } else {
                self.apply(call, progress.seen)?;
            }
            progress.seen += 1;
        }
        if last || (self.shared.calls.is_empty() && self.session.names.hinted().len() > 0) {
            for at in progress.claims.drain(..) {
                if let Some(call) = calls.get_mut(at) {
                    self.apply(call, at)?;
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, call: &mut Box<dyn Call>, at: usize) -> Result<(), Broken> {
        call.apply(&mut self.session).map_err(Stage::Call(at).broke())?;
        self.applied += 1;
        if let Some(hook) = &self.hook {
            hook.after_apply(self.applied);
        }
        Ok(())
    }

    /// Answers those whom a failure concerns.
    fn blame(&mut self, broken: Broken, calls: &mut Vec<Box<dyn Call>>) {
        let Broken { stage, failure } = broken;
        match (Fault::of(&failure, stage == Stage::Commit), stage) {
            // The loop around answers them all.
            (Fault::Poison, _) => self.poison(&failure),
            (Fault::Call, Stage::Call(at)) if at < calls.len() => {
                let call = calls.remove(at);
                let during = call.during();
                call.answer(Err(fault::tell(failure, during)));
            }
            (Fault::Call | Fault::Passing | Fault::Full, _) => {
                let why = failure.to_string();
                for call in calls.drain(..) {
                    let error = StoreError::Unavailable { during: call.during(), source: why.clone().into() };
                    call.answer(Err(error));
                }
            }
        }
    }

    /// The disk is full: drops the ballast, and says who is refused the next time.
    fn make_room(&mut self, refused: &[Class]) -> &'static [Class] {
        let first = self.drop_ballast();
        match refused {
            [] if first => &[Class::Intake],
            [] | [Class::Intake] => &[Class::Intake, Class::Claim, Class::Upkeep],
            _ => &[Class::Intake, Class::Claim, Class::Upkeep, Class::Ending],
        }
    }

    /// Undoes the open transaction; answers whether the store can go on.
    fn roll_back(&mut self) -> bool {
        // SQLite rolls back by itself on some errors.
        let conn = self.session.conn;
        let undone = conn.is_autocommit() || self.session.hot.rollback.execute([]).is_ok() || conn.is_autocommit();
        let reloaded = self.session.reload();
        if let Err(error) = &reloaded {
            tracing::error!(%error, "cannot read the store after a rollback: {error}");
        }
        undone && reloaded.is_ok()
    }

    pub(crate) fn poison(&mut self, failure: &Failure) {
        tracing::error!(error = %failure, "a write failed, the store is closed to writes: {failure}");
        self.shared.doctor.set(Health::Poisoned);
    }

    /// Makes room for endings; answers whether that is new.
    pub(crate) fn drop_ballast(&mut self) -> bool {
        let first = self.shared.doctor.health() != Health::Full;
        if first {
            tracing::error!("the disk is full: new jobs are refused until there is room");
        }
        self.ballast.drop_it();
        self.shared.doctor.set(Health::Full);
        first
    }

    /// Looks whether intake may go on.
    pub(crate) fn has_room_again(&mut self) -> bool {
        if !self.ballast.has_room() || !self.ballast.make() {
            return false;
        }
        tracing::info!("there is room on the disk again: new jobs are taken");
        self.shared.doctor.set(Health::Well);
        true
    }
}

/// Answers the calls of these classes that the disk is full.
fn refuse(calls: &mut Vec<Box<dyn Call>>, classes: &[Class]) {
    if classes.is_empty() {
        return;
    }
    for call in std::mem::take(calls) {
        if classes.contains(&call.class()) {
            call.answer(Err(StoreError::Full));
        } else {
            calls.push(call);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "sizes batches; no record depends on it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
