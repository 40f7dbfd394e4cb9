//! What the writer knows of each name: hints, the operator's options, and the numbers of the open batch.
//!
//! * The hints say which names may have ready jobs, so that a claim does not look at the others. They err on one side
//!   only: a name with ready jobs is always hinted at; that a hinted name has none is found out by the claim that looks.
//! * The options are a copy of their table, which only the writer changes.
//! * The numbers (jobs by status, what happened this minute) add up during a batch and are written once, before the
//!   commit.
//!
//! After a rollback all three are read again.

use std::collections::{BTreeSet, HashMap};

use jobservice_core::job::Status;
use jobservice_core::store::{Bucket, NameOptions};
use jobservice_core::{Name, Time, minutes};
use rusqlite::{Connection, OptionalExtension};

use crate::call::Failure;
use crate::row::status_number;

/// A name's place in [`Names`]; stays the same while the store is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(usize);

#[derive(Debug)]
pub(crate) struct NameState {
    pub(crate) name: Name,
    /// There may be ready jobs that never crashed.
    pub(crate) ready: bool,
    /// There may be ready jobs that did.
    pub(crate) suspects: bool,
    /// A claim passed the name over because it was at its limit: who makes room must wake the pools.
    pub(crate) at_limit: bool,
    pub(crate) options: NameOptions,
    changed: bool,
    counts: [i64; Status::ALL.len()],
    minute: i64,
    bucket: Bucket,
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: HashMap<Name, Slot>,
    states: Vec<NameState>,
    /// The names with a hint.
    hinted: BTreeSet<Slot>,
    /// The names with numbers to be written.
    changed: Vec<Slot>,
    /// Numbers of a minute that was not the last one seen.
    earlier: Vec<(Slot, i64, Bucket)>,
    /// Rises when options change: who has derived something from them looks at it.
    pub(crate) options_version: u64,
}

/// The next name with ready jobs that never crashed, and with such that did.
pub(crate) const NEXT_NAMES: [&str; 2] = [
    "SELECT name FROM jobs INDEXED BY jobs_ready WHERE status = 1 AND crashes = 0 AND name > ?1 ORDER BY name LIMIT 1",
    "SELECT name FROM jobs INDEXED BY jobs_suspects WHERE status = 1 AND crashes > 0 AND name > ?1 ORDER BY name LIMIT 1",
];

impl Names {
    /// The place of a name.
    pub(crate) fn slot(&mut self, name: &Name) -> Slot {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let slot = Slot(self.states.len());
        self.states.push(NameState {
            name: name.clone(),
            ready: false,
            suspects: false,
            at_limit: false,
            options: NameOptions::default(),
            changed: false,
            counts: [0; Status::ALL.len()],
            minute: 0,
            bucket: Bucket::default(),
        });
        self.slots.insert(name.clone(), slot);
        slot
    }

    #[expect(clippy::indexing_slicing, reason = "a slot is only made by `slot`, and states are never removed")]
    pub(crate) fn get(&self, slot: Slot) -> &NameState {
        &self.states[slot.0]
    }

    #[expect(clippy::indexing_slicing, reason = "a slot is only made by `slot`, and states are never removed")]
    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut NameState {
        &mut self.states[slot.0]
    }

    /// The names that may have ready jobs.
    pub(crate) fn hinted(&self) -> impl ExactSizeIterator<Item = Slot> {
        self.hinted.iter().copied()
    }

    /// Notes that a job of this name became ready.
    pub(crate) fn hint(&mut self, slot: Slot, suspect: bool) {
        let state = self.get_mut(slot);
        let hint = if suspect { &mut state.suspects } else { &mut state.ready };
        if !std::mem::replace(hint, true) {
            self.hinted.insert(slot);
        }
    }

    /// Notes that there are none: only for who has just looked.
    pub(crate) fn exhausted(&mut self, slot: Slot, suspect: bool) {
        let state = self.get_mut(slot);
        *(if suspect { &mut state.suspects } else { &mut state.ready }) = false;
        if !state.ready && !state.suspects {
            self.hinted.remove(&slot);
        }
    }

    /// Counts a job that moved from one status to another; none stands for not being there.
    pub(crate) fn moved(&mut self, slot: Slot, from: Option<Status>, to: Option<Status>) {
        let counts = &mut self.touch(slot).counts;
        for (status, by) in [(from, -1), (to, 1)] {
            let count = status.and_then(|status| counts.get_mut(status_number(status) as usize));
            if let Some(count) = count {
                *count += by;
            }
        }
    }

    /// Adds to the numbers of the minute of `now`.
    pub(crate) fn note(&mut self, slot: Slot, now: Time, note: impl FnOnce(&mut Bucket)) {
        let minute = minutes::number_of(now);
        let state = self.touch(slot);
        if state.minute != minute {
            let (earlier, bucket) = (std::mem::replace(&mut state.minute, minute), std::mem::take(&mut state.bucket));
            note(&mut state.bucket);
            if bucket != Bucket::default() {
                self.earlier.push((slot, earlier, bucket));
            }
            return;
        }
        note(&mut state.bucket);
    }

    #[expect(clippy::indexing_slicing, reason = "a slot is only made by `slot`, and states are never removed")]
    fn touch(&mut self, slot: Slot) -> &mut NameState {
        let state = &mut self.states[slot.0];
        if !std::mem::replace(&mut state.changed, true) {
            self.changed.push(slot);
        }
        state
    }

    /// Writes the numbers of the batch: part of its transaction.
    pub(crate) fn flush(&mut self, conn: &Connection) -> Result<(), Failure> {
        let mut count = conn.prepare_cached(
            "INSERT INTO counts (name, status, jobs) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
        )?;
        for (slot, minute, bucket) in std::mem::take(&mut self.earlier) {
            write_bucket(conn, &self.get(slot).name, minute, bucket)?;
        }
        for slot in std::mem::take(&mut self.changed) {
            let state = self.get_mut(slot);
            state.changed = false;
            for (status, number) in std::mem::take(&mut state.counts).into_iter().enumerate() {
                if number != 0 {
                    count.execute((state.name.as_str(), status as i64, number))?;
                }
            }
            let bucket = std::mem::take(&mut state.bucket);
            if bucket != Bucket::default() {
                write_bucket(conn, &state.name, state.minute, bucket)?;
            }
        }
        Ok(())
    }

    /// Forgets the numbers of the batch and reads hints and options again.
    pub(crate) fn reload(&mut self, conn: &Connection) -> Result<(), Failure> {
        self.changed.clear();
        self.earlier.clear();
        self.hinted.clear();
        self.options_version += 1;
        for state in &mut self.states {
            (state.ready, state.suspects, state.at_limit, state.changed) = (false, false, false, false);
            state.options = NameOptions::default();
            state.counts = [0; Status::ALL.len()];
            state.bucket = Bucket::default();
        }
        for (sql, suspect) in NEXT_NAMES.into_iter().zip([false, true]) {
            for name in each_name(conn, sql)? {
                let slot = self.slot(&name);
                self.hint(slot, suspect);
            }
        }
        for (name, options) in read_options(conn)? {
            let slot = self.slot(&name);
            self.get_mut(slot).options = options;
        }
        Ok(())
    }
}

/// Walks an index from one name to the next, whatever the number of jobs of each.
fn each_name(conn: &Connection, sql: &str) -> Result<Vec<Name>, Failure> {
    let mut next = conn.prepare_cached(sql)?;
    let (mut names, mut last) = (Vec::new(), String::new());
    while let Some(text) = next.query_row([&last], |row| row.get::<_, String>(0)).optional()? {
        // A name that is not one stays in the table for `doctor`; no pool can ask for it.
        names.extend(Name::new(&text));
        last = text;
    }
    Ok(names)
}

/// All options.
pub(crate) fn read_options(conn: &Connection) -> Result<Vec<(Name, NameOptions)>, Failure> {
    let mut all =
        conn.prepare_cached("SELECT name, paused, max_concurrency, weight FROM name_options ORDER BY name")?;
    let mut rows = all.query([])?;
    let mut options = Vec::new();
    while let Some(row) = rows.next()? {
        let name = Name::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
        let name = name.map_err(|error| Failure::Damaged(error.to_string()))?;
        options.push((name, NameOptions { paused: row.get(1)?, max_concurrency: row.get(2)?, weight: row.get(3)? }));
    }
    Ok(options)
}

fn write_bucket(conn: &Connection, name: &Name, minute: i64, bucket: Bucket) -> Result<(), Failure> {
    let Bucket { submitted, succeeded, failed, wait_ms, run_ms } = bucket;
    let mut write = conn.prepare_cached(
        "INSERT INTO minutes (minute, name, submitted, succeeded, failed, wait_ms, run_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET submitted = submitted + excluded.submitted, succeeded = succeeded + excluded.succeeded,
             failed = failed + excluded.failed, wait_ms = wait_ms + excluded.wait_ms, run_ms = run_ms + excluded.run_ms",
    )?;
    let numbers = [submitted, succeeded, failed, wait_ms, run_ms].map(|number| number as i64);
    let [submitted, succeeded, failed, wait_ms, run_ms] = numbers;
    write.execute((minute, name.as_str(), submitted, succeeded, failed, wait_ms, run_ms))?;
    Ok(())
}
