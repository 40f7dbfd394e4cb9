//! The writer's hands: the connection inside a transaction, its prepared statements, and what is known beside the rows.
//!
//! The verbs of the store are methods of [`Session`] in the modules named after them. All of them change records through
//! [`Session::happen`] (in `commit`), which asks the rule book.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jobservice_core::job::Status;
use jobservice_core::notices::{Notices, SignalNotice};
use jobservice_core::{JobId, Name, PoolId};
use rusqlite::{Connection, Statement};

use crate::call::Failure;
use crate::claim::Asks;
use crate::commit;
use crate::names::Names;
use crate::row::{self, Record};
use crate::running::Running;

pub(crate) struct Session<'c> {
    pub(crate) conn: &'c Connection,
    pub(crate) hot: Hot<'c>,
    pub(crate) running: Running,
    pub(crate) names: Names,
    pub(crate) asks: Asks,
    pub(crate) news: News,
    /// Whether there may be policies: without any an insert need not look among them for its id.
    pub(crate) has_policies: bool,
    /// Whether there may be executions, for who reads.
    pub(crate) has_executions: Arc<AtomicBool>,
    /// The pools that claimed since the store was opened: their leases are not those of dead processes.
    pub(crate) pools: Vec<PoolId>,
    /// Whether rows were removed, so that there may be free pages.
    pub(crate) freed: bool,
    next_seq: i64,
}

/// The statements of the life of a job, prepared once. Others come from the connection's cache.
pub(crate) struct Hot<'c> {
    pub(crate) begin: Statement<'c>,
    pub(crate) commit: Statement<'c>,
    pub(crate) rollback: Statement<'c>,
    pub(crate) by_id: Statement<'c>,
    pub(crate) insert: Statement<'c>,
    pub(crate) insert_whole: Statement<'c>,
    pub(crate) ready: Statement<'c>,
    pub(crate) update: Statement<'c>,
    pub(crate) update_claimed: Statement<'c>,
    pub(crate) update_finished: Statement<'c>,
}

impl<'c> Hot<'c> {
    fn prepare(conn: &'c Connection) -> rusqlite::Result<Hot<'c>> {
        let columns = row::columns();
        // A taken id or unique key is an answer; which of the two it was is looked up when it happens.
        let insert = |columns: &str| {
            let marks = vec!["?"; columns.split(',').count()].join(", ");
            format!("INSERT INTO jobs ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING")
        };
        let update = |columns: &str| format!("UPDATE jobs SET {} = ? WHERE seq = ?", columns.replace(", ", " = ?, "));
        Ok(Hot {
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            commit: conn.prepare("COMMIT")?,
            rollback: conn.prepare("ROLLBACK")?,
            by_id: conn.prepare(&format!("SELECT {columns} FROM jobs WHERE id = ?"))?,
            insert: conn.prepare(&insert(&format!("{}, {}", row::SPEC_COLUMNS, row::BEGINNING_COLUMNS)))?,
            insert_whole: conn.prepare(&insert(&columns))?,
            ready: conn.prepare(&format!(
                "SELECT {columns} FROM jobs INDEXED BY jobs_ready WHERE status = 1 AND crashes = 0 AND name = ? \
                 ORDER BY priority DESC, ready_at, id LIMIT ?"
            ))?,
            update: conn.prepare(&update(&format!("{}, {}", row::BEGINNING_COLUMNS, row::HISTORY_COLUMNS)))?,
            update_claimed: conn.prepare(&update(commit::CLAIMED_COLUMNS))?,
            update_finished: conn.prepare(&update(commit::FINISHED_COLUMNS))?,
        })
    }
}

/// What has to be told once the batch is durable.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) ready: bool,
    pub(crate) events: bool,
    pub(crate) policies: bool,
    pub(crate) executions: bool,
    pub(crate) changed: Vec<JobId>,
    pub(crate) signals: Vec<SignalNotice>,
}

impl News {
    /// Tells it and is empty again.
    pub(crate) fn tell(&mut self, notices: &Notices) {
        // Looked at only now: who began to watch after the commit sees its effects by looking.
        if notices.has_watchers() {
            self.changed.iter().for_each(|id| notices.tell_changed(id));
        }
        self.changed.clear();
        self.signals.drain(..).for_each(|notice| notices.tell_signal(notice));
        if std::mem::take(&mut self.ready) {
            notices.tell_ready();
        }
        if std::mem::take(&mut self.events) {
            notices.tell_events();
        }
        if std::mem::take(&mut self.policies) {
            notices.tell_policies();
        }
        if std::mem::take(&mut self.executions) {
            notices.tell_executions();
        }
    }

    fn clear(&mut self) {
        *self = News::default();
    }
}

impl<'c> Session<'c> {
    pub(crate) fn new(conn: &'c Connection, has_executions: Arc<AtomicBool>) -> Result<Session<'c>, Failure> {
        let any: bool = conn.query_row("SELECT EXISTS (SELECT 1 FROM executions)", [], |row| row.get(0))?;
        has_executions.store(any, Ordering::Release);
        let last: Option<i64> = conn.query_row("SELECT max(seq) FROM jobs", [], |row| row.get(0))?;
        let mut session = Session {
            conn,
            hot: Hot::prepare(conn)?,
            running: Running::default(),
            names: Names::default(),
            asks: Asks::default(),
            news: News::default(),
            has_policies: true,
            has_executions,
            pools: Vec::new(),
            freed: false,
            next_seq: last.unwrap_or(0) + 1,
        };
        session.reload()?;
        Ok(session)
    }

    /// The number of a new row. Numbers of rows that were rolled back or refused are left out, which harms nobody.
    pub(crate) fn new_seq(&mut self) -> i64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Drops all that came from a transaction that was rolled back.
    pub(crate) fn reload(&mut self) -> Result<(), Failure> {
        self.running.clear();
        self.news.clear();
        self.has_policies = true;
        self.names.reload(self.conn)
    }

    /// Takes the record of a job, from the cache if it runs.
    pub(crate) fn take(&mut self, id: &JobId) -> Result<Option<Record>, Failure> {
        match self.running.take(id) {
            Some(record) => {
                #[cfg(debug_assertions)]
                debug_assert_eq!(
                    self.read(id)?.as_ref(),
                    Some(&record),
                    "the cache of running jobs is not what is stored"
                );
                Ok(Some(record))
            }
            None => self.read(id),
        }
    }

    fn read(&mut self, id: &JobId) -> Result<Option<Record>, Failure> {
        let mut rows = self.hot.by_id.query([id.as_str()])?;
        let row = rows.next()?;
        row.map(|row| row::read(row, None)).transpose()
    }

    /// Writes what the batch has counted: the last thing before a commit.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.names.flush(self.conn)
    }

    /// Whether another job or a policy has this id.
    pub(crate) fn id_is_taken(&mut self, id: &JobId) -> Result<bool, Failure> {
        let mut job = self.conn.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?;
        Ok(job.exists([id.as_str()])? || self.is_policy(id)?)
    }

    /// Whether a policy has this id.
    pub(crate) fn is_policy(&mut self, id: &JobId) -> Result<bool, Failure> {
        if !self.has_policies {
            return Ok(false);
        }
        let mut policy = self.conn.prepare_cached("SELECT 1 FROM policies WHERE id = ?1")?;
        if policy.exists([id.as_str()])? {
            return Ok(true);
        }
        self.has_policies = self.conn.prepare_cached("SELECT 1 FROM policies LIMIT 1")?.exists([])?;
        Ok(false)
    }

    /// Who holds a unique key.
    pub(crate) fn holder(&mut self, digest: &[u8; 32]) -> Result<Option<JobId>, Failure> {
        let mut holder =
            self.conn.prepare_cached("SELECT id FROM jobs INDEXED BY jobs_key WHERE digest = ?1 AND holds_key = 1")?;
        let mut rows = holder.query([digest.as_slice()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let id = JobId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
        id.map(Some).map_err(|error| Failure::Damaged(error.to_string()))
    }

    /// Puts a record that cannot be read out of everybody's way. It keeps its row, for `doctor`.
    pub(crate) fn set_aside(&mut self, seq: i64, from: Status, why: &str) -> Result<(), Failure> {
        tracing::error!(job.seq = seq, why, "row {seq} cannot be read and is set aside: {why}");
        let name: String = self.conn.query_row("SELECT name FROM jobs WHERE seq = ?1", [seq], |row| row.get(0))?;
        if let Ok(name) = Name::new(name) {
            let slot = self.names.slot(&name);
            self.names.moved(slot, Some(from), None);
        }
        let mut aside = self.conn.prepare_cached("UPDATE jobs SET status = ?1, holds_key = 0 WHERE seq = ?2")?;
        aside.execute((row::SET_ASIDE, seq))?;
        // A policy must not wait for it for ever.
        let mut ended = self.conn.prepare_cached(
            "UPDATE executions SET live = 0 WHERE job = ?1 AND upstream = (SELECT upstream FROM jobs WHERE seq = ?1)",
        )?;
        ended.execute([seq])?;
        Ok(())
    }

    /// What the writer remembers against what is stored.
    pub(crate) fn audit_memory(&mut self) -> Result<Vec<String>, Failure> {
        let kept: Vec<Record> = self.running.records().cloned().collect();
        let mut wrong = Vec::new();
        for record in kept {
            if self.read(&record.job.id)?.as_ref() != Some(&record) {
                wrong.push(format!("the writer remembers job {} otherwise than it is stored", record.job.id));
            }
        }
        let mut ready = self.conn.prepare_cached("SELECT DISTINCT name, crashes > 0 FROM jobs WHERE status = 1")?;
        let ready = ready.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ready: Vec<(String, bool)> = ready.collect::<Result<_, _>>()?;
        for (name, suspect) in ready {
            let Ok(name) = Name::new(&name) else { continue };
            let slot = self.names.slot(&name);
            let state = self.names.get(slot);
            if !(if suspect { state.suspects } else { state.ready }) {
                wrong.push(format!("the writer does not know that {name} has ready jobs"));
            }
        }
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    /// Goal: the life of a job costs the same at a million jobs as at ten.
    #[test]
    fn the_statements_of_every_job_search_by_key_and_sort_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&directory.path().join("jobs.db")).unwrap();
        let hot = Hot::prepare(&conn).unwrap();
        let plan = |statement: &Statement<'_>| schema::plan_of(&conn, &statement.expanded_sql().unwrap());

        assert_eq!(plan(&hot.by_id), "SEARCH jobs USING INDEX jobs_id (id=?)");
        assert_eq!(plan(&hot.ready), "SEARCH jobs USING INDEX jobs_ready (name=?)");
        for update in [&hot.update, &hot.update_claimed, &hot.update_finished] {
            assert_eq!(plan(update), "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)");
        }
        for insert in [&hot.insert, &hot.insert_whole] {
            assert_eq!(plan(insert), "");
        }
    }

    /// Goal: the number of names does not enter the cost of opening a store with a million jobs.
    #[test]
    fn what_the_writer_reads_when_it_starts_is_found_by_index() {
        let directory = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&directory.path().join("jobs.db")).unwrap();

        let last = schema::plan_of(&conn, "SELECT max(seq) FROM jobs");
        let [ready, suspects] = crate::names::NEXT_NAMES.map(|sql| schema::plan_of(&conn, sql));

        assert_eq!(last, "SEARCH jobs");
        assert_eq!(ready, "SEARCH jobs USING COVERING INDEX jobs_ready (name>?)");
        assert_eq!(suspects, "SEARCH jobs USING INDEX jobs_suspects (name>?)");
    }
}
