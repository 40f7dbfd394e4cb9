//! People look: a record, numbers of names, why a job waits, policies.

use std::collections::BTreeMap;

use jobservice_core::job::{Index, Job, Status};
use jobservice_core::policy::Policy;
use jobservice_core::store::{
    Bucket, Executions, ExecutionsQuery, Minute, NameAsk, NameOptions, NameStats, PolicyQuery, Waiting,
};
use jobservice_core::{JobId, Name, Time, limits, minutes};
use rusqlite::{Connection, OptionalExtension};

use crate::call::Failure;
use crate::names::read_options;
use crate::reads::Reader;
use crate::{nodes, policy, row};

/// Policies that cannot be read of which the log tells; beyond, the audit does.
const UNREADABLE_TOLD_MAX: usize = 100;

impl Reader<'_> {
    /// The record of a job.
    pub(crate) fn get(&mut self, id: &JobId) -> Result<Option<Job>, Failure> {
        let mut rows = self.by_id.query([id.as_str()])?;
        let row = rows.next()?;
        Ok(row.map(|row| row::read(row, None)).transpose()?.map(|record| record.job))
    }

    /// How many jobs there are in each status.
    pub(crate) fn counts(&self) -> Result<Vec<(Status, u64)>, Failure> {
        let mut sums = self.conn.prepare_cached("SELECT status, sum(jobs) FROM counts GROUP BY status")?;
        let mut rows = sums.query([])?;
        let mut numbers = BTreeMap::new();
        while let Some(row) = rows.next()? {
            numbers.insert(row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.max(0) as u64);
        }
        let of = |status| numbers.get(&row::status_number(status)).copied().unwrap_or(0);
        Ok(Status::ALL.into_iter().map(|status| (status, of(status))).collect())
    }

    /// The numbers of each name that has options or jobs that are not final.
    pub(crate) fn names(&self) -> Result<Vec<NameStats>, Failure> {
        let mut names: BTreeMap<Name, NameStats> = BTreeMap::new();
        let blank = |name: &Name| NameStats {
            name: name.clone(),
            options: NameOptions::default(),
            pending: 0,
            scheduled: 0,
            running: 0,
            oldest_pending: None,
        };
        for (name, options) in read_options(self.conn)? {
            names.entry(name.clone()).or_insert_with(|| blank(&name)).options = options;
        }
        let mut live =
            self.conn.prepare_cached("SELECT name, status, jobs FROM counts WHERE status < 3 AND jobs > 0")?;
        let mut rows = live.query([])?;
        while let Some(row) = rows.next()? {
            let name = Name::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
            let name = name.map_err(|error| Failure::Damaged(error.to_string()))?;
            let jobs = row.get::<_, i64>(2)? as u64;
            let stats = names.entry(name.clone()).or_insert_with(|| blank(&name));
            match row::status_of(row.get(1)?) {
                Some(Status::Scheduled) => stats.scheduled = jobs,
                Some(Status::Pending) => stats.pending = jobs,
                Some(Status::Running) => stats.running = jobs,
                Some(Status::Error | Status::Success | Status::Stopped | Status::Cancelled) | None => {}
            }
        }
        for stats in names.values_mut().filter(|stats| stats.pending > 0) {
            stats.oldest_pending = oldest_pending(self.conn, &stats.name)?;
        }
        Ok(names.into_values().collect())
    }

    /// Why a job waits, the first reason that applies: who removes it sees the next.
    pub(crate) fn explain(&mut self, id: &JobId, code: &[NameAsk], now: Time) -> Result<Option<Waiting>, Failure> {
        let Some(job) = self.get(id)? else { return Ok(None) };
        let name = &job.spec.name;
        let (priority, ready_at, suspect) = match job.index() {
            Index::Due { run_at } => return Ok(Some(Waiting::Due(run_at))),
            Index::Running { .. } | Index::Final { .. } => return Ok(None),
            Index::Ready { priority, ready_at, suspect } => (priority, ready_at, suspect),
        };
        let options = options_of(self.conn, name)?;
        if options.paused {
            return Ok(Some(Waiting::Paused));
        }
        let mut count = self
            .conn
            .prepare_cached("SELECT count(*) FROM jobs INDEXED BY jobs_running WHERE status = 2 AND name = ?1")?;
        let running = count.query_row([name.as_str()], |row| row.get::<_, i64>(0))? as u64;
        let coded = || code.iter().find(|asked| asked.name == *name).and_then(|asked| asked.max_concurrency);
        let limit = options.max_concurrency.or_else(coded);
        if let Some(limit) = limit.filter(|limit| running >= u64::from(*limit)) {
            return Ok(Some(Waiting::AtLimit { limit, running }));
        }
        if !nodes::read_all(self.conn)?.iter().any(|node| node.is_alive(now) && node.names.contains(name)) {
            return Ok(Some(Waiting::NoWorker));
        }
        if suspect {
            return Ok(Some(Waiting::Suspect));
        }
        let before = jobs_before(self.conn, &job, priority, ready_at)?;
        let position = (before <= limits::POSITION_MAX as u64).then_some(before);
        Ok(Some(Waiting::Queued { position }))
    }

    /// The numbers of the minutes from the one of `from` on, oldest first, of a name or of all together.
    pub(crate) fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>, Failure> {
        let mut all = self.conn.prepare_cached(
            "SELECT minute, sum(submitted), sum(succeeded), sum(failed), sum(wait_ms), sum(run_ms) FROM minutes
             WHERE minute >= ?1 AND (?2 IS NULL OR name = ?2) GROUP BY minute ORDER BY minute",
        )?;
        let mut rows = all.query((minutes::number_of(from), name.map(Name::as_str)))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let number = |column| row.get::<_, i64>(column).map(|number| number.max(0) as u64);
            found.push(Minute {
                at: minutes::begin_of(row.get(0)?),
                bucket: Bucket {
                    submitted: number(1)?,
                    succeeded: number(2)?,
                    failed: number(3)?,
                    wait_ms: number(4)?,
                    run_ms: number(5)?,
                },
            });
        }
        Ok(found)
    }

    /// The policies that a query asks for.
    pub(crate) fn policies(&mut self, query: &PolicyQuery) -> Result<Vec<Policy>, Failure> {
        let PolicyQuery { id, schedule_key, due_by, after, limit } = query;
        let after = after.as_ref().map_or("", JobId::as_str);
        let columns = policy::COLUMNS;
        let sql = if due_by.is_some() {
            // Sorted by hand: those that are due are few, and an order by id would make a walk of all the rest.
            format!(
                "SELECT {columns} FROM
                 (SELECT * FROM policies INDEXED BY policies_due WHERE active = 1 AND next_due <= ?4)
                 WHERE (?1 IS NULL OR id = ?1) AND id > ?2 AND (?3 IS NULL OR schedule_key = ?3) ORDER BY id"
            )
        } else {
            // One statement per question, so that each is answered by its index.
            let of = match (id, schedule_key) {
                (Some(_), _) => "id = ?1 AND (?3 IS NULL OR schedule_key = ?3)",
                (None, Some(_)) => "schedule_key = ?3 AND ?1 IS NULL",
                (None, None) => "?1 IS NULL AND ?3 IS NULL",
            };
            format!("SELECT {columns} FROM policies WHERE {of} AND id > ?2 AND ?4 = 0 ORDER BY id")
        };
        let mut statement = self.conn.prepare_cached(&sql)?;
        let by = due_by.map_or(0, Time::as_millis);
        let id = id.as_ref().map(JobId::as_str);
        let mut rows = statement.query((id, after, schedule_key.as_deref(), by))?;
        let mut policies = Vec::new();
        while policies.len() < *limit {
            let Some(row) = rows.next()? else { break };
            match policy::read(row) {
                Ok(policy) => policies.push(policy),
                // It must not hold up the others. Said once: this is asked each second.
                Err(failure) if due_by.is_some() => {
                    let id: String = row.get(0)?;
                    if self.unreadable.len() < UNREADABLE_TOLD_MAX && self.unreadable.insert(id.clone()) {
                        tracing::error!(policy.id = id, "policy {id} cannot be read and does not fire: {failure:?}");
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(policies)
    }

    /// When the next active policy is due after this.
    pub(crate) fn next_due(&self, after: Time) -> Result<Option<Time>, Failure> {
        let mut next = self.conn.prepare_cached(
            "SELECT next_due FROM policies INDEXED BY policies_due WHERE active = 1 AND next_due > ?1
             ORDER BY next_due LIMIT 1",
        )?;
        let next: Option<i64> = next.query_row([after.as_millis()], |row| row.get(0)).optional()?;
        Ok(next.map(Time::from_millis))
    }

    /// A page of the executions of a parent, with their count.
    pub(crate) fn executions(&self, query: &ExecutionsQuery) -> Result<Executions, Failure> {
        let ExecutionsQuery { upstream, live, offset, limit } = query;
        let of =
            if *live { "INDEXED BY executions_live WHERE upstream = ?1 AND live = 1" } else { "WHERE upstream = ?1" };
        let most = limits::EXECUTIONS_COUNTED_MAX;
        let count = format!("SELECT count(*) FROM (SELECT 1 FROM executions {of} LIMIT {most})");
        let total: i64 = self.conn.prepare_cached(&count)?.query_row([upstream.as_str()], |row| row.get(0))?;
        let mut executions = Executions { jobs: Vec::new(), total: usize::try_from(total).unwrap_or(0) };
        let limit = (*limit).min(limits::LIST_MAX).min(executions.total.saturating_sub(*offset));
        if limit == 0 {
            return Ok(executions);
        }
        // What is passed over is passed over in the small table, without a look at the jobs.
        let columns = row::columns();
        let page = format!(
            "SELECT {columns} FROM (SELECT job FROM executions {of} ORDER BY job DESC LIMIT ?2 OFFSET ?3)
             CROSS JOIN jobs ON seq = job ORDER BY job DESC"
        );
        let mut page = self.conn.prepare_cached(&page)?;
        let mut rows = page.query((upstream.as_str(), limit as i64, *offset as i64))?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>("status")? != row::SET_ASIDE {
                executions.jobs.push(row::read(row, None)?.job);
            }
        }
        Ok(executions)
    }

    /// Which of these jobs have executions.
    pub(crate) fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>, Failure> {
        let mut any = self.conn.prepare_cached("SELECT 1 FROM executions WHERE upstream = ?1 LIMIT 1")?;
        ids.iter().map(|id| Ok(any.exists([id.as_str()])?)).collect()
    }
}

fn options_of(conn: &Connection, name: &Name) -> Result<NameOptions, Failure> {
    let mut options =
        conn.prepare_cached("SELECT paused, max_concurrency, weight FROM name_options WHERE name = ?1")?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(NameOptions { paused: row.get(0)?, max_concurrency: row.get(1)?, weight: row.get(2)? })
    };
    Ok(options.query_row([name.as_str()], read).optional()?.unwrap_or_default())
}

/// Since when the job that waits longest waits: the head of each priority, for a queue is sorted by priority first.
fn oldest_pending(conn: &Connection, name: &Name) -> Result<Option<Time>, Failure> {
    let mut oldest: Option<i64> = None;
    for sql in [
        "SELECT ready_at FROM jobs INDEXED BY jobs_ready
         WHERE status = 1 AND crashes = 0 AND name = ?1 AND priority = ?2 ORDER BY ready_at LIMIT 1",
        "SELECT ready_at FROM jobs INDEXED BY jobs_suspects
         WHERE status = 1 AND crashes > 0 AND name = ?1 AND priority = ?2 ORDER BY ready_at LIMIT 1",
    ] {
        let mut head = conn.prepare_cached(sql)?;
        for priority in 0..=limits::PRIORITY_MAX {
            let ready_at: Option<i64> = head.query_row((name.as_str(), priority), |row| row.get(0)).optional()?;
            oldest = oldest.into_iter().chain(ready_at).min();
        }
    }
    Ok(oldest.map(Time::from_millis))
}

/// How many sound jobs stand before this one in its queue; counts no further than one past [`limits::POSITION_MAX`].
fn jobs_before(conn: &Connection, job: &Job, priority: u8, ready_at: Time) -> Result<u64, Failure> {
    let most = limits::POSITION_MAX as i64 + 1;
    let mut higher = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_ready
         WHERE status = 1 AND crashes = 0 AND name = ?1 AND priority > ?2 LIMIT ?3)",
    )?;
    let name = job.spec.name.as_str();
    let higher: i64 = higher.query_row((name, priority, most), |row| row.get(0))?;
    let mut earlier = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_ready
         WHERE status = 1 AND crashes = 0 AND name = ?1 AND priority = ?2 AND (ready_at, id) < (?3, ?4) LIMIT ?5)",
    )?;
    let place = (name, priority, ready_at.as_millis(), job.id.as_str(), most - higher);
    let earlier: i64 = earlier.query_row(place, |row| row.get(0))?;
    Ok((higher + earlier) as u64)
}
