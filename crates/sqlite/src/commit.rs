//! A change is applied: record, sets, unique key, hook event, numbers and news, all inside the open transaction.
//!
//! This is the only place that writes a status. What the change is comes from [`lifecycle::decide`]; which sets the job
//! leaves and enters follows from the columns, by the partial indexes.

use jobservice_core::JobId;
use jobservice_core::Time;
use jobservice_core::job::{State, Status};
use jobservice_core::lifecycle::{self, Change, Event, Refusal};
use jobservice_core::notices::SignalNotice;

use crate::call::Failure;
use crate::names::Slot;
use crate::row::{self, Binder, Record};
use crate::session::Session;

/// What became of a job by an event.
#[derive(Debug)]
pub(crate) enum Happened {
    /// It has this status now.
    Is(Status),
    /// It is gone.
    Gone,
    /// Nothing.
    Refused(Refusal),
    /// Nothing: this other job holds the unique key that it would need.
    KeyTaken(JobId),
    /// There is no such job.
    NotFound,
}

/// The columns that a claim changes when nothing else comes with it. An update costs by the columns that it sets and by
/// the indexes that mention one of them, so the two steps of every job have statements of their own.
pub(crate) const CLAIMED_COLUMNS: &str = "status, version, attempt, event_seq, started_at, updated_at, lease_nonce, \
     lease_pool, lease_until, abort_at, reap_at";

/// The columns that the end of a job changes when nothing else comes with it.
pub(crate) const FINISHED_COLUMNS: &str = "status, version, event_seq, finished_at, expires_at, updated_at, \
     lease_nonce, lease_pool, lease_until, abort_at, reap_at, \
     ended_attempt, ended_nonce, ended_how, ended_status, ended_at, result, attempts";

/// Which statement writes a change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Claimed,
    Finished,
    All,
}

impl Width {
    fn of(before: &State, after: &State) -> Width {
        // Taken apart by name, so that a new field does not compile until it is known here.
        let State {
            status: _,
            version: _,
            event_seq: _,
            updated_at: _,
            lease,
            attempt,
            started_at,
            ended,
            finished_at,
            expires_at,
            result,
            attempts,
            fails,
            crashes,
            releases,
            signal,
            holds_key,
            ready_at,
            run_at,
            die_at,
            check_in,
            error,
        } = after;
        let others_stay = *fails == before.fails
            && *crashes == before.crashes
            && *releases == before.releases
            && *signal == before.signal
            && *holds_key == before.holds_key
            && *ready_at == before.ready_at
            && *run_at == before.run_at
            && *die_at == before.die_at
            && *check_in == before.check_in
            && *error == before.error;
        let claim_stays = *attempt == before.attempt && *started_at == before.started_at;
        let end_stays = *finished_at == before.finished_at
            && *expires_at == before.expires_at
            && *ended == before.ended
            && *result == before.result
            && *attempts == before.attempts;
        match (others_stay, claim_stays, end_stays) {
            (true, _, true) => Width::Claimed,
            (true, true, false) if lease.is_none() => Width::Finished,
            _ => Width::All,
        }
    }
}

impl Session<'_> {
    /// Lets the rule book decide what an event does to a job, and does it.
    pub(crate) fn happen(&mut self, id: &JobId, event: &Event, now: Time) -> Result<Happened, Failure> {
        let Some(mut record) = self.take(id)? else { return Ok(Happened::NotFound) };
        let happened = self.happen_to(&mut record, event, now)?;
        if !matches!(happened, Happened::Gone) {
            self.running.keep(record);
        }
        Ok(happened)
    }

    /// The same for a record at hand, which becomes what the row is.
    pub(crate) fn happen_to(&mut self, record: &mut Record, event: &Event, now: Time) -> Result<Happened, Failure> {
        match lifecycle::decide(&record.job, event, now) {
            Ok(change) => self.apply(record, change, now),
            Err(refusal) => Ok(Happened::Refused(refusal)),
        }
    }

    fn apply(&mut self, record: &mut Record, change: Change, now: Time) -> Result<Happened, Failure> {
        let id = &record.job.id;
        if let (true, Some(unique)) = (change.takes_key, record.job.spec.unique)
            && let Some(holder) = self.holder(&unique.digest)?
            && holder != *id
        {
            return Ok(Happened::KeyTaken(holder));
        }
        let slot = self.names.slot(&record.job.spec.name);
        let Some(state) = change.state else {
            self.names.moved(slot, Some(record.job.state.status), None);
            self.news.changed.push(id.clone());
            self.remove(record)?;
            return Ok(Happened::Gone);
        };
        self.write_state(record, &state)?;
        let status = state.status;
        let before = std::mem::replace(&mut record.job.state, state);
        if status != before.status {
            self.names.moved(slot, Some(before.status), Some(status));
            self.news.changed.push(record.job.id.clone());
            self.moved(record, slot, &before, now);
            self.set_live(record, &before)?;
        }
        if let Some(event) = change.event {
            self.put_event(record, &event)?;
        }
        self.tell_signal(record, &before);
        Ok(Happened::Is(status))
    }

    /// Numbers, hints and news of a job whose status changed.
    fn moved(&mut self, record: &Record, slot: Slot, before: &State, now: Time) {
        let state = &record.job.state;
        match state.status {
            Status::Pending => {
                self.names.hint(slot, state.crashes > 0);
                self.news.ready = true;
            }
            Status::Running
            | Status::Scheduled
            | Status::Error
            | Status::Success
            | Status::Stopped
            | Status::Cancelled => {}
        }
        if before.status == Status::Running || state.status == Status::Running {
            self.names.note(slot, now, |bucket| bucket.change(before, state, now));
        }
        // The run that ended made room below the limit of its name.
        if before.status == Status::Running && std::mem::take(&mut self.names.get_mut(slot).at_limit) {
            self.news.ready = true;
        }
    }

    /// Notes whether an execution still counts as one that overlaps.
    fn set_live(&mut self, record: &Record, before: &State) -> Result<(), Failure> {
        let live = !record.job.state.status.is_final();
        if let Some(upstream) = &record.job.spec.upstream
            && live == before.status.is_final()
        {
            let mut set =
                self.conn.prepare_cached("UPDATE executions SET live = ?1 WHERE upstream = ?2 AND job = ?3")?;
            set.execute((live, upstream.as_str(), record.seq))?;
            self.news.executions |= !live;
        }
        Ok(())
    }

    fn tell_signal(&mut self, record: &Record, before: &State) {
        let state = &record.job.state;
        if state.signal != before.signal
            && let (Some(signal), Some(lease), Some(key)) = (state.signal, &state.lease, record.job.lease_key())
        {
            let notice = SignalNotice { pool: lease.pool.clone(), lease: key, signal: signal.signal };
            self.news.signals.push(notice);
        }
    }

    fn write_state(&mut self, record: &Record, state: &State) -> Result<(), Failure> {
        let width = Width::of(&record.job.state, state);
        let mut binder = Binder::new(match width {
            Width::Claimed => &mut self.hot.update_claimed,
            Width::Finished => &mut self.hot.update_finished,
            Width::All => &mut self.hot.update,
        });
        match width {
            Width::Claimed => bind_claimed(&mut binder, state)?,
            Width::Finished => bind_finished(&mut binder, state)?,
            Width::All => {
                row::bind_beginning(&mut binder, state)?;
                row::bind_history(&mut binder, state)?;
            }
        }
        binder.put(record.seq)?;
        match binder.execute()? {
            1 => Ok(()),
            rows => Err(Failure::Damaged(format!("an update of job {} changed {rows} rows", record.job.id))),
        }
    }

    /// Removes a row and all that belongs to it.
    fn remove(&mut self, record: &Record) -> Result<(), Failure> {
        let Record { seq, job } = record;
        self.freed = true;
        self.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
        for tag in &job.spec.tags {
            self.conn.prepare_cached("DELETE FROM job_tags WHERE tag = ?1 AND job = ?2")?.execute((&**tag, seq))?;
        }
        if let Some(upstream) = &job.spec.upstream {
            let mut forget = self.conn.prepare_cached("DELETE FROM executions WHERE upstream = ?1 AND job = ?2")?;
            forget.execute((upstream.as_str(), seq))?;
        }
        if job.spec.hook.is_some() {
            self.forget_events(*seq)?;
        }
        Ok(())
    }
}

/// In the order of [`CLAIMED_COLUMNS`].
fn bind_claimed(binder: &mut Binder<'_, '_>, state: &State) -> Result<(), Failure> {
    binder.put(row::status_number(state.status))?;
    binder.put(state.version as i64)?;
    binder.put(state.attempt)?;
    binder.put(state.event_seq)?;
    binder.put(state.started_at.map(Time::as_millis))?;
    binder.put(state.updated_at.as_millis())?;
    row::bind_lease(binder, state)
}

/// In the order of [`FINISHED_COLUMNS`].
fn bind_finished(binder: &mut Binder<'_, '_>, state: &State) -> Result<(), Failure> {
    binder.put(row::status_number(state.status))?;
    binder.put(state.version as i64)?;
    binder.put(state.event_seq)?;
    binder.put(state.finished_at.map(Time::as_millis))?;
    binder.put(state.expires_at.map(Time::as_millis))?;
    binder.put(state.updated_at.as_millis())?;
    row::bind_lease(binder, state)?;
    row::bind_ended(binder, state.ended.as_ref())?;
    binder.put(state.result.as_deref())?;
    row::bind_attempts(binder, &state.attempts)
}
