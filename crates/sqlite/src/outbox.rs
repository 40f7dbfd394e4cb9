//! The outbox: undelivered hook events, in order per job.
//!
//! Each event has a turn of its own (`next_at`); that of a job's first event is the job's, and `outbox_turns` keeps it
//! sorted. A take holds the events that it gives out by moving their turns to the end of the hold. An event that joins
//! meanwhile has its turn at once, and gets it as soon as those before it are settled.

use jobservice_core::lifecycle::HookEvent;
use jobservice_core::store::{JobEvents, Settled, Swept};
use jobservice_core::{JobId, Time, limits};
use rusqlite::{OptionalExtension, Row};

use crate::call::Failure;
use crate::row::{self, Record};
use crate::session::Session;

/// The columns that [`read`] wants.
pub(crate) const COLUMNS: &str = "seq, status, attempt, at, check_in, error";

/// Reads an event selected as [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>) -> Result<HookEvent, Failure> {
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
                .prepare_cached("DELETE FROM outbox WHERE job = ?1 AND check_in IS NOT NULL AND next_at <= ?2")?;
            older.execute((job, at.as_millis()))?;
        }
        let mut put = self.conn.prepare_cached(
            "INSERT INTO outbox (job, seq, status, attempt, at, next_at, tries, check_in, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0, ?6, ?7)",
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

    /// Makes the turn of a job that of its first event; answers when that is, if there is one.
    fn set_turn(&mut self, job: i64, id: &str) -> Result<Option<Time>, Failure> {
        let first = self.time("SELECT next_at FROM outbox WHERE job = ?1 ORDER BY seq LIMIT 1", [job])?;
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
            let mut hold = self.conn.prepare_cached("UPDATE outbox SET next_at = ?2 WHERE job = ?1")?;
            hold.execute((job, until.as_millis()))?;
            drop(hold);
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
            let mut events = self
                .conn
                .prepare_cached(&format!("SELECT {COLUMNS}, tries FROM outbox WHERE job = ?1 ORDER BY seq"))?;
            let mut rows = events.query([job])?;
            let (mut events, mut tries) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                if events.is_empty() {
                    tries = row.get(6)?;
                }
                events.push(read(row)?);
            }
            taken.push(JobEvents { job: record.job.clone(), events, tries });
            self.running.keep(record);
        }
        Ok(taken)
    }

    fn take_of(&mut self, id: &str) -> Result<Option<Record>, Failure> {
        let id = JobId::new(id).map_err(|error| Failure::Damaged(error.to_string()))?;
        self.take(&id)
    }

    /// Records what became of a delivery.
    pub(crate) fn settle_event(&mut self, id: &JobId, seq: u32, settled: &Settled, now: Time) -> Result<(), Failure> {
        let mut job = self.conn.prepare_cached("SELECT seq FROM jobs WHERE id = ?1")?;
        let job: Option<i64> = job.query_row([id.as_str()], |row| row.get(0)).optional()?;
        let Some(job) = job else { return Ok(()) };
        match settled {
            Settled::Done => {
                self.conn.prepare_cached("DELETE FROM outbox WHERE job = ?1 AND seq <= ?2")?.execute((job, seq))?;
            }
            Settled::Retry { at, error } => {
                // Nothing to wait for if the event that failed is settled already.
                let mut failed = self.conn.prepare_cached(
                    "UPDATE outbox SET tries = tries + 1, failure = ?3
                     WHERE job = ?1 AND seq = (SELECT min(seq) FROM outbox WHERE job = ?1) AND seq <= ?2",
                )?;
                if failed.execute((job, seq, &**error))? > 0 {
                    let mut wait = self.conn.prepare_cached("UPDATE outbox SET next_at = ?2 WHERE job = ?1")?;
                    wait.execute((job, at.as_millis()))?;
                }
            }
        }
        // Events that joined during the delivery have waited for this.
        let turn = self.set_turn(job, id.as_str())?;
        self.news.events |= turn.is_some_and(|turn| turn <= now);
        Ok(())
    }

    /// Removes up to `limit` events past their deadline; answers when the next will be.
    pub(crate) fn prune_events(&mut self, limit: usize, now: Time, swept: &mut Swept) -> Result<Option<Time>, Failure> {
        let oldest = now - limits::HOOK_DEADLINE;
        let most = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut late = self.conn.prepare_cached(
            "SELECT outbox.job, outbox.seq, outbox_turns.id FROM outbox JOIN outbox_turns USING (job)
             WHERE outbox.at <= ?1 ORDER BY outbox.at LIMIT ?2",
        )?;
        let late = late.query_map((oldest.as_millis(), most), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut late: Vec<(i64, i64, String)> = late.collect::<Result<_, _>>()?;
        swept.more |= late.len() > limit;
        late.truncate(limit);
        for (job, seq, id) in &late {
            self.conn.prepare_cached("DELETE FROM outbox WHERE job = ?1 AND seq <= ?2")?.execute((job, seq))?;
            self.set_turn(*job, id)?;
        }
        swept.moved += late.len();
        let next = self.time("SELECT min(at) FROM outbox", [])?;
        Ok(next.map(|at| at + limits::HOOK_DEADLINE))
    }
}
