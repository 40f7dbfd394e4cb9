//! Jobs come in.

use std::sync::atomic::Ordering;

use jobservice_core::job::{LeaseKey, Status};
use jobservice_core::store::{Bucket, Inserted, NewJob};
use jobservice_core::{JobId, Time, limits};
use rusqlite::OptionalExtension;

use crate::call::Failure;
use crate::row::{self, Binder};
use crate::session::Session;

impl Session<'_> {
    /// Inserts jobs, each answered on its own.
    pub(crate) fn insert_all(&mut self, jobs: &[NewJob], now: Time) -> Result<Vec<Inserted>, Failure> {
        jobs.iter().map(|new| self.insert(new, now)).collect()
    }

    /// Inserts one job. The order of the looks matters to who repeats a call: first whether this very submission is
    /// known, by its key or by its id, only then whether another job is in its way.
    pub(crate) fn insert(&mut self, new: &NewJob, now: Time) -> Result<Inserted, Failure> {
        let NewJob { job, idempotency_key, launched_by } = new;
        if let Some(lease) = launched_by
            && !self.holds(lease)?
        {
            return Ok(Inserted::LeaseLost);
        }
        let (spec, state) = (&job.spec, &job.state);
        if let Some(key) = idempotency_key
            && let Some(known) = self.submitted_before(spec.name.as_str(), key, now)?
        {
            return Ok(Inserted::Repeated(known));
        }
        if self.has_policies && self.is_policy(&job.id)? {
            return Ok(Inserted::IdTaken);
        }
        let seq = self.new_seq();
        let begins = row::is_beginning(state);
        let mut binder = Binder::new(if begins { &mut self.hot.insert } else { &mut self.hot.insert_whole });
        row::bind_spec(&mut binder, seq, &job.id, spec)?;
        row::bind_beginning(&mut binder, state)?;
        if !begins {
            row::bind_history(&mut binder, state)?;
        }
        if binder.execute()? == 0 {
            return self.in_the_way(new);
        }
        for tag in &spec.tags {
            let mut add = self.conn.prepare_cached("INSERT OR IGNORE INTO job_tags (tag, job) VALUES (?1, ?2)")?;
            add.execute((&**tag, seq))?;
        }
        if let Some(upstream) = &spec.upstream {
            self.has_executions.store(true, Ordering::Release);
            let mut add =
                self.conn.prepare_cached("INSERT INTO executions (upstream, job, live) VALUES (?1, ?2, ?3)")?;
            add.execute((upstream.as_str(), seq, !state.status.is_final()))?;
        }
        if let Some(key) = idempotency_key {
            let mut add = self.conn.prepare_cached(
                "INSERT INTO idempotency (name, key, id, expires_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET id = excluded.id, expires_at = excluded.expires_at",
            )?;
            let expires_at = now + limits::IDEMPOTENCY_KEPT;
            add.execute((spec.name.as_str(), &**key, job.id.as_str(), expires_at.as_millis()))?;
        }
        let slot = self.names.slot(&spec.name);
        self.names.moved(slot, None, Some(state.status));
        self.names.note(slot, now, Bucket::submit);
        if state.status == Status::Pending {
            self.names.hint(slot, state.crashes > 0);
            self.news.ready = true;
        }
        Ok(Inserted::Created)
    }

    /// Whether a run still holds its lease.
    fn holds(&mut self, lease: &LeaseKey) -> Result<bool, Failure> {
        let Some(caller) = self.take(&lease.id)? else { return Ok(false) };
        let holds = caller.job.is_held_by(lease);
        self.running.keep(caller);
        Ok(holds)
    }

    fn submitted_before(&mut self, name: &str, key: &str, now: Time) -> Result<Option<JobId>, Failure> {
        let mut known =
            self.conn.prepare_cached("SELECT id FROM idempotency WHERE name = ?1 AND key = ?2 AND expires_at > ?3")?;
        let known: Option<String> = known.query_row((name, key, now.as_millis()), |row| row.get(0)).optional()?;
        known.map(|id| JobId::new(id).map_err(|error| Failure::Damaged(error.to_string()))).transpose()
    }

    /// What kept the row out.
    fn in_the_way(&mut self, new: &NewJob) -> Result<Inserted, Failure> {
        if self.id_is_taken(&new.job.id)? {
            return Ok(Inserted::IdTaken);
        }
        let holder = match new.job.spec.unique {
            Some(unique) => self.holder(&unique.digest)?,
            None => None,
        };
        let unknown = || Failure::Damaged(format!("job {} is refused, but no row is in its way", new.job.id));
        holder.map(Inserted::Duplicate).ok_or_else(unknown)
    }
}
