//! The sweeps: promote what is due, reap what is overdue, prune what is past its time.
//!
//! Each reads the numbers of the rows that it is about to move before it moves the first: a statement must not walk an
//! index that changes beneath it. A row that cannot be read is set aside and the sweep goes on.

use jobservice_core::job::Status;
use jobservice_core::lifecycle::{self, Event};
use jobservice_core::store::Swept;
use jobservice_core::{JobId, Time, limits};
use rusqlite::{OptionalExtension, Params};

use crate::call::Failure;
use crate::commit::Happened;
use crate::row::{self, Record};
use crate::session::Session;

/// Minutes that go at once, more than ten thousand names bring in one; small rows, of which that many take some
/// milliseconds.
const MINUTES_AT_ONCE: i64 = 10_000;

/// Scheduled jobs whose time has come, earliest first.
const DUE: &str =
    "SELECT seq FROM jobs INDEXED BY jobs_due WHERE status = 0 AND run_at <= ?1 ORDER BY run_at, id LIMIT ?2";

/// Running jobs that the service must look at.
const OVERDUE: &str = "SELECT seq FROM jobs WHERE seq IN \
     (SELECT seq FROM jobs INDEXED BY jobs_running WHERE status = 2 AND reap_at <= ?1) ORDER BY reap_at, id LIMIT ?2";

/// Final jobs of a status past their expiry, without undelivered events, earliest first.
const EXPIRED: &str = "SELECT seq, expires_at, id FROM jobs INDEXED BY jobs_final \
     WHERE status = ?1 AND status >= 3 AND expires_at <= ?2 \
     AND NOT EXISTS (SELECT 1 FROM outbox_turns WHERE job = seq) ORDER BY expires_at, id LIMIT ?3";

/// Idempotency keys past their time, earliest first.
const OLD_KEYS: &str = "SELECT name, key FROM idempotency INDEXED BY idempotency_expires WHERE expires_at <= ?1 \
     ORDER BY expires_at, name, key LIMIT ?2";

/// When the next final job of a status expires.
const UNEXPIRED: &str = "SELECT expires_at FROM jobs INDEXED BY jobs_final \
     WHERE status = ?1 AND status >= 3 AND expires_at > ?2 ORDER BY expires_at LIMIT 1";

impl Session<'_> {
    /// Makes due jobs Pending.
    pub(crate) fn promote(&mut self, limit: usize, now: Time) -> Result<Swept, Failure> {
        let (rows, more) = self.first(DUE, limit, now)?;
        let mut swept = Swept { more, ..Swept::default() };
        for seq in rows {
            let Some(mut record) = self.take_row(seq, Status::Scheduled)? else { continue };
            let happened = self.happen_to(&mut record, &Event::Due, now)?;
            swept.moved += usize::from(matches!(happened, Happened::Is(_)));
        }
        let next = "SELECT run_at FROM jobs INDEXED BY jobs_due WHERE status = 0 ORDER BY run_at LIMIT 1";
        swept.next_at = self.time(next, [])?;
        Ok(swept)
    }

    /// Ends the runs that are over their lease, their grace or their timeout. Looks at all running jobs: they are few,
    /// and an index by time would be paid by every job.
    pub(crate) fn reap(&mut self, limit: usize, jitter: u32, now: Time) -> Result<Swept, Failure> {
        let (rows, more) = self.first(OVERDUE, limit, now)?;
        let mut swept = Swept { more, ..Swept::default() };
        for seq in rows {
            let Some(mut record) = self.take_row(seq, Status::Running)? else { continue };
            if let Some(event) = lifecycle::overdue(&record.job, jitter, now) {
                let happened = self.happen_to(&mut record, &event, now)?;
                swept.moved += usize::from(matches!(happened, Happened::Is(_)));
            }
            self.running.keep(record);
        }
        swept.next_at = self.time("SELECT min(reap_at) FROM jobs INDEXED BY jobs_running WHERE status = 2", [])?;
        Ok(swept)
    }

    /// Gives back at once what the dead held: every lease but those of `remote` pools and of pools that claimed since
    /// the store was opened. The file lock proves that no other process serves this store.
    pub(crate) fn reap_previous(&mut self, now: Time) -> Result<usize, Failure> {
        let mut running = self.conn.prepare_cached("SELECT seq FROM jobs INDEXED BY jobs_running WHERE status = 2")?;
        let rows: Vec<i64> = running.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        drop(running);
        let mut reaped = 0;
        for seq in rows {
            let Some(mut record) = self.take_row(seq, Status::Running)? else { continue };
            let pool = record.job.state.lease.as_ref().map(|lease| &lease.pool);
            if pool.is_some_and(|pool| !pool.name().starts_with("remote") && !self.pools.contains(pool)) {
                let happened = self.happen_to(&mut record, &Event::LeaseExpired { proven: true }, now)?;
                reaped += usize::from(matches!(happened, Happened::Is(_)));
            }
            self.running.keep(record);
        }
        self.free_events(now)?;
        Ok(reaped)
    }

    /// Removes what is past its time, of each kind at most `limit`.
    ///
    /// Events go first: a job that stayed for their sake goes in the same call as the last of them.
    pub(crate) fn prune(&mut self, limit: usize, now: Time) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        let mut next = vec![self.prune_events(limit, now, &mut swept)?];
        self.prune_jobs(limit, now, &mut swept)?;
        for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
            next.push(self.time(UNEXPIRED, (row::status_number(status), now.as_millis()))?);
        }
        next.push(self.prune_keys(limit, now, &mut swept)?);
        next.push(self.prune_nodes(now, &mut swept)?);
        let mut minutes = self.conn.prepare_cached(
            "DELETE FROM minutes WHERE (minute, name) IN (SELECT minute, name FROM minutes WHERE minute < ?1 LIMIT ?2)",
        )?;
        minutes.execute((jobservice_core::minutes::oldest_kept(now), MINUTES_AT_ONCE))?;
        swept.next_at = next.into_iter().flatten().min();
        Ok(swept)
    }

    /// Removes idempotency keys past their time; answers when the next is.
    fn prune_keys(&mut self, limit: usize, now: Time, swept: &mut Swept) -> Result<Option<Time>, Failure> {
        let most = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut old = self.conn.prepare_cached(OLD_KEYS)?;
        let old = old.query_map((now.as_millis(), most), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut old: Vec<(String, String)> = old.collect::<Result<_, _>>()?;
        swept.more |= old.len() > limit;
        old.truncate(limit);
        let mut remove = self.conn.prepare_cached("DELETE FROM idempotency WHERE name = ?1 AND key = ?2")?;
        for key in old {
            swept.moved += remove.execute(key)?;
        }
        drop(remove);
        self.time("SELECT min(expires_at) FROM idempotency", [])
    }

    /// Removes final jobs past their expiry that have no undelivered events, earliest first.
    fn prune_jobs(&mut self, limit: usize, now: Time, swept: &mut Swept) -> Result<(), Failure> {
        let mut expired = self.conn.prepare_cached(EXPIRED)?;
        let most = limit.saturating_add(1);
        let mut all: Vec<(i64, String, i64, Status)> = Vec::new();
        for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
            let of_status = (row::status_number(status), now.as_millis(), i64::try_from(most).unwrap_or(i64::MAX));
            let mut rows = expired.query(of_status)?;
            while let Some(row) = rows.next()? {
                all.push((row.get(1)?, row.get(2)?, row.get(0)?, status));
            }
        }
        drop(expired);
        all.sort_unstable();
        swept.more |= all.len() > limit;
        all.truncate(limit);
        for (_, _, seq, status) in all {
            let Some(mut record) = self.take_row(seq, status)? else { continue };
            if let Happened::Gone = self.happen_to(&mut record, &Event::Prune, now)? {
                swept.moved += 1;
                swept.removed.push(record.job.id);
            }
        }
        Ok(())
    }

    /// Up to `limit` rows of a statement that takes the time and a limit, and whether there are more.
    fn first(&mut self, sql: &str, limit: usize, now: Time) -> Result<(Vec<i64>, bool), Failure> {
        let most = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map((now.as_millis(), most), |row| row.get(0))?;
        let mut rows: Vec<i64> = rows.collect::<Result<_, _>>()?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok((rows, more))
    }

    /// The record in a row; none if it cannot be read, in which case it is set aside from the set of `status`.
    pub(crate) fn take_row(&mut self, seq: i64, status: Status) -> Result<Option<Record>, Failure> {
        let read = {
            let mut by_seq = self.conn.prepare_cached(&Self::columns_by_seq())?;
            let mut rows = by_seq.query([seq])?;
            match rows.next()? {
                Some(row) => row::read(row, None),
                None => return Ok(None),
            }
        };
        match read {
            Ok(record) => {
                // One copy at a time: what the caller writes is what counts from now on.
                self.running.take(&record.job.id);
                Ok(Some(record))
            }
            Err(Failure::Damaged(why)) => {
                self.set_aside(seq, status, &why)?;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The time that a statement answers with.
    pub(crate) fn time(&mut self, sql: &str, params: impl Params) -> Result<Option<Time>, Failure> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let millis: Option<Option<i64>> = statement.query_row(params, |row| row.get(0)).optional()?;
        Ok(millis.flatten().map(Time::from_millis))
    }

    /// Removes nodes that are long dead; answers when the next is to go.
    fn prune_nodes(&mut self, now: Time, swept: &mut Swept) -> Result<Option<Time>, Failure> {
        let oldest = now - limits::NODE_FORGOTTEN_AFTER;
        let mut remove = self.conn.prepare_cached("DELETE FROM nodes WHERE beat_at <= ?1")?;
        swept.moved += remove.execute([oldest.as_millis()])?;
        let next = self.time("SELECT min(beat_at) FROM nodes", [])?;
        Ok(next.map(|beat_at| beat_at + limits::NODE_FORGOTTEN_AFTER))
    }

    /// The ids of executions of a parent that are not final, at most so many.
    pub(crate) fn live(&mut self, upstream: &JobId, limit: usize) -> Result<Vec<JobId>, Failure> {
        let mut live = self.conn.prepare_cached(
            "SELECT id FROM executions INDEXED BY executions_live CROSS JOIN jobs ON seq = job
             WHERE executions.upstream = ?1 AND live = 1 ORDER BY job LIMIT ?2",
        )?;
        let mut rows = live.query((upstream.as_str(), i64::try_from(limit).unwrap_or(i64::MAX)))?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            let id = JobId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
            ids.push(id.map_err(|error| Failure::Damaged(error.to_string()))?);
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    /// Goal: a sweep costs by what it moves, not by what is stored.
    #[test]
    fn sweeps_walk_their_indexes() {
        let directory = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&directory.path().join("jobs.db")).unwrap();
        let plans = [DUE, OVERDUE, EXPIRED, UNEXPIRED, OLD_KEYS].map(|sql| schema::plan_of(&conn, sql));

        assert_eq!(
            plans,
            [
                "SEARCH jobs USING COVERING INDEX jobs_due (run_at<?)",
                // The running jobs are few enough to be looked at, and those of them that are overdue to be sorted.
                "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?) | LIST SUBQUERY 1 \
                 | SCAN jobs USING COVERING INDEX jobs_running | USE TEMP B-TREE FOR ORDER BY",
                "SEARCH jobs USING COVERING INDEX jobs_final (status=? AND expires_at<?) | CORRELATED SCALAR SUBQUERY 1 \
                 | SEARCH outbox_turns USING INTEGER PRIMARY KEY (rowid=?)",
                "SEARCH jobs USING COVERING INDEX jobs_final (status=? AND expires_at>?)",
                "SEARCH idempotency USING COVERING INDEX idempotency_expires (expires_at<?)",
            ]
        );
    }
}
