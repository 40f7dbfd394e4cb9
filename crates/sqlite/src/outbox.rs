//! The outbox: hook events, in order per job; see [`jobservice_core::outbox`].
//!
//! Each waiting event has a turn of its own (`next_at`); that of a job's first one is the job's, and `outbox_turns` keeps
//! it sorted. A take holds the events that it gives out by moving their turns to the end of the hold. An event that joins
//! meanwhile has its turn at once, and gets it as soon as those before it are settled.

use jobservice_core::lifecycle::HookEvent;
use jobservice_core::outbox::{Delivery, JobEvents, OutboxEntry, Resent, Settled};
use jobservice_core::store::Swept;
use jobservice_core::{JobId, Time, limits};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::call::Failure;
use crate::row::{self, Record};
use crate::session::Session;

/// The columns that [`read_entry`] wants.
pub(crate) const ENTRY_COLUMNS: &str =
    "seq, status, attempt, at, check_in, error, delivery, next_at, tries, failure, resent_at";

/// How many these are.
pub(crate) const ENTRY_COLUMNS_COUNT: usize = 11;

/// Reads an event, and what became of it, selected as [`ENTRY_COLUMNS`].
pub(crate) fn read_entry(row: &Row<'_>, id: &JobId) -> Result<OutboxEntry, Failure> {
    Ok(OutboxEntry {
        id: id.clone(),
        event: read(row)?,
        delivery: delivery_of(row.get(6)?)?,
        next_at: Time::from_millis(row.get(7)?),
        tries: row.get(8)?,
        error: row.get(9)?,
        resent_at: row.get::<_, Option<i64>>(10)?.map(Time::from_millis),
    })
}

/// Reads the events of a job, in order.
pub(crate) fn read_of(conn: &Connection, id: &JobId) -> Result<Vec<OutboxEntry>, Failure> {
    let mut events = conn.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS} FROM outbox WHERE job = (SELECT seq FROM jobs WHERE id = ?1) ORDER BY seq"
    ))?;
    let mut rows = events.query([id.as_str()])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read_entry(row, id)?);
    }
    Ok(entries)
}

const fn delivery_number(delivery: Delivery) -> i64 {
    match delivery {
        Delivery::Waiting => 0,
        Delivery::Delivered => 1,
        Delivery::GivenUp => 2,
        Delivery::Gone => 3,
    }
}

fn delivery_of(number: i64) -> Result<Delivery, Failure> {
    let delivery = Delivery::ALL.into_iter().find(|delivery| delivery_number(*delivery) == number);
    delivery.ok_or_else(|| Failure::Damaged(format!("{number} says not what became of an event")))
}

fn read(row: &Row<'_>) -> Result<HookEvent, Failure> {
    let status: i64 = row.get(1)?;
    Ok(HookEvent {
        seq: row.get(0)?,
        status: row::status_of(status).ok_or_else(|| Failure::Damaged(format!("{status} is no status")))?,
        attempt: row.get(2)?,
        at: Time::from_millis(row.get(3)?),
        check_in: row.get(4)?,
        error: row.get(5)?,
    })
}

impl Session<'_> {
    /// Adds an event. A check-in takes the place of one that nobody is sending and that has not failed lately: only the
    /// newest progress is of interest, and a chatty job must not fill the store while its hook is away.
    pub(crate) fn put_event(&mut self, record: &Record, event: &HookEvent) -> Result<(), Failure> {
        let HookEvent { seq, status, attempt, at, check_in, error } = event;
        let job = record.seq;
        if check_in.is_some() {
            let mut older = self
                .conn
                .prepare_cached("DELETE FROM outbox WHERE job = ?1 AND delivery = 0 AND check_in IS NOT NULL AND next_at <= ?2 AND resent_at IS NULL")?;
            older.execute((job, at.as_millis()))?;
        }
        let mut put = self.conn.prepare_cached(
            "INSERT INTO outbox (job, seq, status, attempt, at, delivery, next_at, tries, check_in, error)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?5, 0, ?6, ?7)",
        )?;
        let status = row::status_number(*status);
        put.execute((job, seq, status, attempt, at.as_millis(), check_in.as_deref(), error.as_deref()))?;
        drop(put);
        self.news.events = true;
        self.set_turn(job, record.job.id.as_str()).map(drop)
    }

    /// Drops the events of a job that goes.
    pub(crate) fn forget_events(&mut self, job: i64) -> Result<(), Failure> {
        self.conn.prepare_cached("DELETE FROM outbox WHERE job = ?1")?.execute([job])?;
        self.conn.prepare_cached("DELETE FROM outbox_turns WHERE job = ?1")?.execute([job])?;
        Ok(())
    }

    /// Makes the turn of a job that of its first waiting event; answers when that is, if there is one.
    fn set_turn(&mut self, job: i64, id: &str) -> Result<Option<Time>, Failure> {
        let first =
            self.time("SELECT next_at FROM outbox WHERE job = ?1 AND delivery = 0 ORDER BY seq LIMIT 1", [job])?;
        let Some(next_at) = first else {
            self.conn.prepare_cached("DELETE FROM outbox_turns WHERE job = ?1")?.execute([job])?;
            return Ok(None);
        };
        let mut put = self.conn.prepare_cached(
            "INSERT INTO outbox_turns (job, id, next_at) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET next_at = excluded.next_at WHERE next_at <> excluded.next_at",
        )?;
        put.execute((job, id, next_at.as_millis()))?;
        Ok(Some(next_at))
    }

    /// Takes the events of jobs whose turn it is, and holds them until `until`.
    pub(crate) fn take_events(&mut self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>, Failure> {
        let mut due = self
            .conn
            .prepare_cached("SELECT job, id FROM outbox_turns WHERE next_at <= ?1 ORDER BY next_at, id LIMIT ?2")?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let due: Vec<(i64, String)> =
            due.query_map((now.as_millis(), limit), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let mut taken = Vec::with_capacity(due.len());
        for (job, id) in due {
            self.hold_events(job, until)?;
            self.set_turn(job, &id)?;
            let record = match self.take_of(&id) {
                Err(Failure::Damaged(why)) => {
                    // Its events wait for the end of the hold; those of others go on.
                    tracing::error!(
                        job.id = id,
                        why,
                        "the events of job {id} cannot be sent, it cannot be read: {why}"
                    );
                    continue;
                }
                record => record?,
            };
            let Some(record) = record else { continue };
            let mut all =
                self.conn.prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM outbox WHERE job = ?1 ORDER BY seq"))?;
            let mut rows = all.query([job])?;
            let (mut events, mut tries, mut gone) = (Vec::new(), 0, false);
            while let Some(row) = rows.next()? {
                let entry = read_entry(row, &record.job.id)?;
                gone |= entry.delivery == Delivery::Gone;
                if entry.is_waiting() {
                    if events.is_empty() {
                        tries = entry.tries;
                    }
                    events.push(entry.event);
                }
            }
            drop(rows);
            drop(all);
            taken.push(JobEvents { job: record.job.clone(), events, tries, gone });
            self.running.keep(record);
        }
        Ok(taken)
    }

    /// Makes the waiting events of a job wait until `until`.
    fn hold_events(&mut self, job: i64, until: Time) -> Result<(), Failure> {
        let mut hold = self.conn.prepare_cached("UPDATE outbox SET next_at = ?2 WHERE job = ?1 AND delivery = 0")?;
        hold.execute((job, until.as_millis()))?;
        Ok(())
    }

    fn take_of(&mut self, id: &str) -> Result<Option<Record>, Failure> {
        let id = JobId::new(id).map_err(|error| Failure::Damaged(error.to_string()))?;
        self.take(&id)
    }

    fn number_of(&self, id: &JobId) -> Result<Option<i64>, Failure> {
        let mut job = self.conn.prepare_cached("SELECT seq FROM jobs WHERE id = ?1")?;
        Ok(job.query_row([id.as_str()], |row| row.get(0)).optional()?)
    }

    /// Records what became of a delivery.
    pub(crate) fn settle_event(&mut self, id: &JobId, seq: u32, settled: &Settled, now: Time) -> Result<(), Failure> {
        let Some(job) = self.number_of(id)? else { return Ok(()) };
        match settled {
            Settled::Done => self.end_events(job, Some(seq), Delivery::Delivered, None, now)?,
            Settled::Gone { error } => self.end_events(job, None, Delivery::Gone, Some(error), now)?,
            Settled::Retry { at, error } => {
                let mut failed = self.conn.prepare_cached(
                    "UPDATE outbox SET tries = tries + 1, failure = ?3
                     WHERE job = ?1 AND seq =
                     (SELECT min(seq) FROM outbox WHERE job = ?1 AND delivery = 0
                      AND (seq = ?2 OR (seq < ?2 AND resent_at IS NULL)))",
                )?;
                // Nothing to wait for if the event that failed is settled already.
                let counted = failed.execute((job, seq, &**error))? > 0;
                drop(failed);
                if counted {
                    self.hold_events(job, *at)?;
                }
            }
            Settled::Later { at } => {
                let mut first = self.conn.prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM outbox WHERE job = ?1 AND delivery = 0 AND seq <= ?2)",
                )?;
                let waits = first.query_row((job, seq), |row| row.get(0))?;
                drop(first);
                if waits {
                    self.hold_events(job, *at)?;
                }
            }
        }
        // Events that joined during the delivery have waited for this.
        let turn = self.set_turn(job, id.as_str())?;
        self.news.events |= turn.is_some_and(|turn| turn <= now);
        Ok(())
    }

    /// Settles the waiting events of a job, all or those up to one (but for earlier ones that were sent again), and lets the
    /// oldest go of what is kept.
    fn end_events(
        &mut self,
        job: i64,
        up_to: Option<u32>,
        delivery: Delivery,
        failure: Option<&str>,
        now: Time,
    ) -> Result<(), Failure> {
        let mut end = self.conn.prepare_cached(
            "UPDATE outbox SET delivery = ?3, next_at = ?4, failure = coalesce(?5, failure)
             WHERE job = ?1 AND delivery = 0 AND (?2 IS NULL OR seq = ?2 OR (seq < ?2 AND resent_at IS NULL))",
        )?;
        end.execute((job, up_to, delivery_number(delivery), now.as_millis(), failure))?;
        drop(end);
        self.trim_events(job)
    }

    /// Lets the oldest settled events of a job go.
    fn trim_events(&mut self, job: i64) -> Result<(), Failure> {
        let mut trim = self.conn.prepare_cached(
            "DELETE FROM outbox WHERE job = ?1 AND delivery <> 0 AND seq <= (SELECT seq FROM outbox
             WHERE job = ?1 AND delivery <> 0 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        )?;
        trim.execute((job, limits::HOOK_EVENTS_KEPT as i64))?;
        Ok(())
    }

    /// Makes the turn of an event now.
    pub(crate) fn resend_event(&mut self, id: &JobId, seq: u32, now: Time) -> Result<Resent, Failure> {
        let Some(job) = self.number_of(id)? else { return Ok(Resent::NoJob) };
        let mut event = self.conn.prepare_cached("SELECT delivery FROM outbox WHERE job = ?1 AND seq = ?2")?;
        let delivery: Option<i64> = event.query_row((job, seq), |row| row.get(0)).optional()?;
        drop(event);
        match delivery.map(delivery_of).transpose()? {
            None => return Ok(Resent::NoEvent),
            // In its order: those before it have their turn too.
            Some(Delivery::Waiting) => self.hold_events(job, now)?,
            Some(Delivery::Delivered | Delivery::GivenUp | Delivery::Gone) => {
                let mut again = self.conn.prepare_cached(
                    "UPDATE outbox SET delivery = 0, tries = 0, failure = NULL, next_at = ?3, resent_at = ?3
                     WHERE job = ?1 AND seq = ?2",
                )?;
                again.execute((job, seq, now.as_millis()))?;
                drop(again);
                // Whoever sends again takes the receiver for willing.
                let mut willing =
                    self.conn.prepare_cached("UPDATE outbox SET delivery = 2 WHERE job = ?1 AND delivery = 3")?;
                willing.execute([job])?;
            }
        }
        self.set_turn(job, id.as_str())?;
        self.news.events = true;
        Ok(Resent::Done)
    }

    /// Ends the holds of earlier incarnations: whoever took those events is dead. A hold looks like a wait for the next try,
    /// so a try that would come within that time comes now.
    pub(crate) fn free_events(&mut self, now: Time) -> Result<(), Failure> {
        let longest = now + limits::hook_hold(limits::HOOK_TIMEOUT_MAX);
        let mut held =
            self.conn.prepare_cached("SELECT job, id FROM outbox_turns WHERE next_at > ?1 AND next_at <= ?2")?;
        let held = held.query_map((now.as_millis(), longest.as_millis()), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let held: Vec<(i64, String)> = held.collect::<Result<_, _>>()?;
        for (job, id) in held {
            self.hold_events(job, now)?;
            self.set_turn(job, &id)?;
        }
        Ok(())
    }

    /// Gives up to `limit` events past their deadline up; answers when the next will be.
    pub(crate) fn prune_events(&mut self, limit: usize, now: Time, swept: &mut Swept) -> Result<Option<Time>, Failure> {
        let oldest = now - limits::HOOK_DEADLINE;
        let most = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut late = self.conn.prepare_cached(
            "SELECT outbox.job, outbox.seq, outbox_turns.id FROM outbox JOIN outbox_turns USING (job)
             WHERE delivery = 0 AND coalesce(resent_at, at) <= ?1 ORDER BY coalesce(resent_at, at), outbox_turns.id, outbox.seq
             LIMIT ?2",
        )?;
        let found = late.query_map((oldest.as_millis(), most), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut found: Vec<(i64, i64, String)> = found.collect::<Result<_, _>>()?;
        drop(late);
        swept.more |= found.len() > limit;
        found.truncate(limit);
        for (job, seq, id) in &found {
            let mut end =
                self.conn.prepare_cached("UPDATE outbox SET delivery = 2, next_at = ?3 WHERE job = ?1 AND seq = ?2")?;
            end.execute((job, seq, now.as_millis()))?;
            drop(end);
            self.trim_events(*job)?;
            self.set_turn(*job, id)?;
        }
        swept.moved += found.len();
        let next = self.time("SELECT min(coalesce(resent_at, at)) FROM outbox WHERE delivery = 0", [])?;
        Ok(next.map(|at| at + limits::HOOK_DEADLINE))
    }
}
