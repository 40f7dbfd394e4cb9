//! What the writer does for the file between batches: writes the log back when it has grown, and gives free pages back to
//! the file system: all of them when nobody asks for anything, a few now and then when most of the file is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::call::Failure;
use crate::fault::Fault;
use crate::health::Health;
use crate::schema;
use crate::writer::{Writer, now};

/// Free pages that are kept for the next jobs instead of being given back to the file system (1 MiB).
const FREE_PAGES_KEPT: i64 = 256;

/// Free pages from which on some are given back beside the work (16 MiB), if they are a quarter of the file or more. Fewer
/// are used again soon.
const FREE_PAGES_MANY: i64 = 4096;

/// How often that happens: a step takes about two milliseconds.
const STEP_EVERY: Duration = Duration::from_millis(100);

/// After so many steps the log is written back: only that makes the file shorter.
const STEPS_BEFORE_CHECKPOINT: u32 = 20;

/// What is known of free pages.
pub(crate) struct Vacuum {
    /// Whether there may be any to give back.
    pub(crate) wanted: bool,
    /// When a step may be taken next although calls keep coming.
    pub(crate) next_step: Instant,
    /// Steps since the log was last written back for their sake.
    pub(crate) steps: u32,
}

/// The write-ahead log.
pub(crate) struct Log {
    /// Its pages, as of the last commit.
    pub(crate) pages: Arc<AtomicU32>,
    /// How many of them are in the file.
    pub(crate) checkpointed: u32,
}

impl Log {
    /// Pages that are not in the file yet.
    pub(crate) fn behind(&mut self) -> u32 {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.checkpointed {
            // It has begun anew.
            self.checkpointed = 0;
        }
        pages - self.checkpointed
    }
}

impl Writer<'_> {
    pub(crate) fn after_batch(&mut self) {
        self.vacuum.wanted |= std::mem::take(&mut self.session.freed);
        if self.shared.doctor.health() != Health::Poisoned && self.log.behind() >= schema::CHECKPOINT_PAGES {
            self.checkpoint();
        }
        if self.vacuum.wanted && self.shared.doctor.health() == Health::Well {
            self.step_beside_work();
        }
    }

    /// Writes the log back to the file, so that it can begin anew.
    pub(crate) fn checkpoint(&mut self) {
        let pages = self
            .session
            .conn
            .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")
            .and_then(|mut checkpoint| checkpoint.query_row([], |row| row.get::<_, i64>(2)));
        match pages {
            Ok(pages) => self.log.checkpointed = u32::try_from(pages).unwrap_or(0),
            Err(error) => {
                let failure = Failure::Engine(error);
                match Fault::of(&failure, true) {
                    Fault::Full => drop(self.drop_ballast()),
                    Fault::Passing | Fault::Call => {
                        tracing::warn!(error = %failure, "cannot write the log back, will try again: {failure}");
                    }
                    Fault::Poison => self.poison(&failure),
                }
            }
        }
    }

    /// What can wait until nobody waits.
    pub(crate) fn idle(&mut self) {
        match self.shared.doctor.health() {
            Health::Poisoned => return,
            Health::Full => drop(self.has_room_again()),
            Health::Well => {}
        }
        if self.vacuum.wanted {
            self.give_back();
        }
        if self.log.behind() > 0 {
            self.checkpoint();
        }
    }

    /// After very much was removed while calls keep coming there may be no idle moment for hours.
    fn step_beside_work(&mut self) {
        if now() < self.vacuum.next_step {
            return;
        }
        self.vacuum.next_step = now() + STEP_EVERY;
        let conn = self.session.conn;
        let read = |pragma: &str| -> rusqlite::Result<i64> {
            conn.prepare_cached(&format!("PRAGMA {pragma}"))?.query_row([], |row| row.get(0))
        };
        let is_much = || Ok((read("freelist_count")?, read("page_count")?));
        let is_much = is_much().map(|(free, all)| free > FREE_PAGES_MANY && free > all / 4);
        match is_much.and_then(|is_much| if is_much { self.vacuum_step() } else { Ok(false) }) {
            Ok(true) => self.vacuum.steps += 1,
            // The last steps shall not wait for more that may never come.
            Ok(false) if self.vacuum.steps > 0 => self.vacuum.steps = STEPS_BEFORE_CHECKPOINT,
            Ok(false) => {}
            Err(error) => self.cannot_give_back(error),
        }
        if self.vacuum.steps >= STEPS_BEFORE_CHECKPOINT {
            self.vacuum.steps = 0;
            self.checkpoint();
        }
    }

    /// Gives free pages back to the file system, a step at a time, until a call comes.
    fn give_back(&mut self) {
        while self.shared.calls.is_empty() {
            match self.vacuum_step() {
                Ok(true) => {}
                Ok(false) => {
                    self.vacuum.wanted = false;
                    return;
                }
                Err(error) => return self.cannot_give_back(error),
            }
        }
    }

    /// It is tried again when something was removed again, unless the disk is ill.
    fn cannot_give_back(&mut self, error: rusqlite::Error) {
        self.vacuum.wanted = false;
        let failure = Failure::Engine(error);
        if Fault::of(&failure, true) == Fault::Poison {
            self.poison(&failure);
        }
    }

    fn vacuum_step(&mut self) -> rusqlite::Result<bool> {
        let conn = self.session.conn;
        let free: i64 = conn.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
        if free <= FREE_PAGES_KEPT {
            return Ok(false);
        }
        // Each step of this statement frees one page: run to its end, not once.
        let mut step = conn.prepare_cached("PRAGMA incremental_vacuum(200)")?;
        let mut rows = step.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}
