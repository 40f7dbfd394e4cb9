//! What the writer does for the file between batches: writes the log back when it has grown, and, when nobody asks for
//! anything, gives free pages back to the file system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::call::Failure;
use crate::fault::Fault;
use crate::health::Health;
use crate::schema;
use crate::writer::Writer;

/// Free pages that are kept for the next jobs instead of being given back to the file system (1 MiB).
const FREE_PAGES_KEPT: i64 = 256;

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
        self.vacuum |= std::mem::take(&mut self.session.freed);
        if self.shared.doctor.health() != Health::Poisoned && self.log.behind() >= schema::CHECKPOINT_PAGES {
            self.checkpoint();
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
        if self.vacuum {
            self.give_back();
        }
        if self.log.behind() > 0 {
            self.checkpoint();
        }
    }

    /// Gives free pages back to the file system, a step at a time, until a call comes.
    fn give_back(&mut self) {
        while self.shared.calls.is_empty() {
            match self.vacuum_step() {
                Ok(true) => {}
                Ok(false) => {
                    self.vacuum = false;
                    return;
                }
                Err(error) => {
                    self.vacuum = false;
                    let failure = Failure::Engine(error);
                    if Fault::of(&failure, true) == Fault::Poison {
                        self.poison(&failure);
                    }
                    return;
                }
            }
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
