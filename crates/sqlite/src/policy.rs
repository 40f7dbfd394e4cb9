//! Policies: put, fire, change, end. What each means is said by `jobservice_core::policy`.

use jobservice_core::job::Signal;
use jobservice_core::lifecycle::Event;
use jobservice_core::policy::{self, Firing, Overlap, Policy, PolicyEvent, PolicyState, Tick};
use jobservice_core::store::{Action, Controlled, Deleted, Fired, Inserted, NewJob, PolicyPut};
use jobservice_core::{JobId, Time, limits};
use rusqlite::{OptionalExtension, Row};

use crate::call::Failure;
use crate::row::{from_json, to_json};
use crate::session::Session;

/// The columns that [`read`] wants.
pub(crate) const COLUMNS: &str = "id, spec, state";

/// Reads a policy selected as [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>) -> Result<Policy, Failure> {
    let text = |index| -> Result<_, Failure> { Ok(row.get_ref(index)?.as_str().map_err(rusqlite::Error::from)?) };
    let id = JobId::new(text(0)?).map_err(|error| Failure::Damaged(error.to_string()))?;
    let spec = from_json("the spec of a policy", text(1)?)?;
    let state = from_json("the state of a policy", text(2)?)?;
    Ok(Policy { id, spec: std::sync::Arc::new(spec), state })
}

impl Session<'_> {
    /// A policy.
    pub(crate) fn policy(&mut self, id: &JobId) -> Result<Option<Policy>, Failure> {
        if !self.has_policies {
            return Ok(None);
        }
        let mut by_id = self.conn.prepare_cached("SELECT id, spec, state FROM policies WHERE id = ?1")?;
        let mut rows = by_id.query([id.as_str()])?;
        let row = rows.next()?;
        row.map(read).transpose()
    }

    fn write_policy(&mut self, policy: &Policy) -> Result<(), Failure> {
        let Policy { id, spec, state } = policy;
        self.has_policies = true;
        let mut put = self.conn.prepare_cached(
            "INSERT INTO policies (id, schedule_key, name, active, next_due, spec, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET schedule_key = excluded.schedule_key, name = excluded.name,
                 active = excluded.active, next_due = excluded.next_due, spec = excluded.spec, state = excluded.state",
        )?;
        put.execute((
            id.as_str(),
            spec.schedule_key.as_deref(),
            spec.name.as_str(),
            policy.is_active(),
            state.next_due.map(Time::as_millis),
            to_json("the spec of a policy", &**spec)?,
            to_json("the state of a policy", state)?,
        ))?;
        Ok(())
    }

    fn change_state(&mut self, policy: Policy, state: PolicyState) -> Result<Policy, Failure> {
        let changed = Policy { state, ..policy };
        self.write_policy(&changed)?;
        Ok(changed)
    }

    /// Inserts a policy or updates that with its key.
    pub(crate) fn put_policy(&mut self, policy: &Policy, now: Time) -> Result<PolicyPut, Failure> {
        if let Some(key) = &policy.spec.schedule_key
            && let Some(stored) = self.policy_by_key(key)?
        {
            let id = stored.id.clone();
            let Some(state) = policy::upsert(&stored, &policy.spec, policy.state.next_due, now) else {
                return Ok(PolicyPut::Unchanged(id));
            };
            self.write_policy(&Policy { id: id.clone(), spec: policy.spec.clone(), state })?;
            self.news.changed.push(id.clone());
            self.news.policies = true;
            return Ok(PolicyPut::Updated(id));
        }
        if self.id_is_taken(&policy.id)? {
            return Ok(PolicyPut::IdTaken);
        }
        self.write_policy(policy)?;
        self.news.policies = true;
        Ok(PolicyPut::Created)
    }

    fn policy_by_key(&mut self, key: &str) -> Result<Option<Policy>, Failure> {
        let mut by_key = self.conn.prepare_cached("SELECT id, spec, state FROM policies WHERE schedule_key = ?1")?;
        let mut rows = by_key.query([key])?;
        let row = rows.next()?;
        row.map(read).transpose()
    }

    /// Fires one tick.
    pub(crate) fn fire(&mut self, id: &JobId, tick: &Tick, executions: &[NewJob], now: Time) -> Result<Fired, Failure> {
        let Some(policy) = self.policy(id)? else { return Ok(Fired::Stale) };
        // Only as many as the rule needs to know: under `allow` there may be any number of them.
        let live = match policy.spec.overlap {
            Overlap::Allow => Vec::new(),
            Overlap::Skip | Overlap::Queue => self.live(id, 1)?,
            Overlap::Replace => self.live(id, usize::MAX)?,
        };
        let (state, stops_earlier) = match policy::decide_fire(&policy, tick, live.len(), now) {
            Firing::Wait => return Ok(Fired::Waiting),
            Firing::Stale => return Ok(Fired::Stale),
            Firing::Skip(state) => {
                self.change_state(policy, state)?;
                return Ok(Fired::Skipped);
            }
            Firing::Fire { state, stops_earlier } => (state, stops_earlier),
        };
        if stops_earlier {
            // Before the inserts: those that only waited give their unique key back. One that runs holds on to it until
            // it has ended, and the new execution then counts as skipped.
            for earlier in &live {
                self.happen(earlier, &Event::Stop { grace: limits::GRACE }, now)?;
            }
        }
        let mut created = Vec::with_capacity(executions.len());
        for execution in executions {
            if self.insert(execution, now)? == Inserted::Created {
                created.push(execution.job.id.clone());
            }
        }
        let state = policy::count_fired(&policy.state, state, created.len(), executions.len() - created.len());
        self.change_state(policy, state)?;
        Ok(if created.is_empty() { Fired::Skipped } else { Fired::Fired(created) })
    }

    /// Applies an event to a policy on behalf of the maintenance or an operator.
    pub(crate) fn change_policy(
        &mut self,
        id: &JobId,
        event: &PolicyEvent,
        now: Time,
    ) -> Result<Option<Policy>, Failure> {
        if let PolicyEvent::End(_) = event {
            return Err(Failure::Invalid("a policy is ended by `control`, with its executions".to_owned()));
        }
        let Some(policy) = self.policy(id)? else { return Ok(None) };
        match self.decide_policy(policy.clone(), event, now)? {
            Some(changed) => Ok(Some(changed)),
            None => Ok(Some(policy)),
        }
    }

    /// Lets the rule book decide what an event does to a policy, and does it; none if it changes nothing.
    fn decide_policy(&mut self, policy: Policy, event: &PolicyEvent, now: Time) -> Result<Option<Policy>, Failure> {
        let Some(state) = policy::decide(&policy, event, now) else { return Ok(None) };
        self.news.changed.push(policy.id.clone());
        self.news.policies |= !matches!(event, PolicyEvent::FireFailed(_));
        self.change_state(policy, state).map(Some)
    }

    /// Stops, cancels or retries a policy; ending it ends its waiting executions and signals its running ones.
    pub(crate) fn control_policy(&mut self, policy: Policy, action: Action, now: Time) -> Result<Controlled, Failure> {
        let (id, status) = (policy.id.clone(), policy.status());
        let (signal, event) = match action {
            Action::Retry { next_due } => {
                let changed = self.decide_policy(policy, &PolicyEvent::Retry { next_due }, now)?;
                return Ok(changed.map_or(Controlled::Refused(status), |policy| Controlled::Done(policy.status())));
            }
            Action::Stop(grace) => (Signal::Stop, Event::Stop { grace }),
            Action::Cancel(grace) => (Signal::Cancel, Event::Cancel { grace }),
        };
        let Some(ended) = self.decide_policy(policy, &PolicyEvent::End(signal), now)? else {
            return Ok(Controlled::Unchanged(status));
        };
        for execution in self.live(&id, usize::MAX)? {
            // One that is signalled already refuses, and that is as good.
            self.happen(&execution, &event, now)?;
        }
        Ok(Controlled::Done(ended.status()))
    }

    /// Removes a policy that has ended.
    pub(crate) fn delete_policy(&mut self, policy: &Policy) -> Result<Deleted, Failure> {
        if policy.state.ended.is_none() {
            return Ok(Deleted::Refused(policy.status()));
        }
        let mut delete = self.conn.prepare_cached("DELETE FROM policies WHERE id = ?1 RETURNING id")?;
        let gone: Option<String> = delete.query_row([policy.id.as_str()], |row| row.get(0)).optional()?;
        Ok(if gone.is_some() { Deleted::Gone } else { Deleted::NotFound })
    }
}
