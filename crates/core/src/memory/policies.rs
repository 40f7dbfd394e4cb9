//! Policies: put, fire, change.

use std::sync::Arc;

use super::inner::Inner;
use crate::job::Status;
use crate::lifecycle::Event;
use crate::policy::{self, Firing, Policy, PolicyEvent, Tick};
use crate::store::{Fired, Inserted, NewJob, PolicyPut, PolicyQuery, Result, StoreError};
use crate::{JobId, Time, limits};

impl Inner {
    /// Inserts a policy or updates that with its key.
    pub(super) fn put_policy(&mut self, policy: Policy, now: Time) -> PolicyPut {
        if let Some(key) = &policy.spec.schedule_key
            && let Some(stored) =
                self.policies.values_mut().find(|stored| stored.spec.schedule_key.as_ref() == Some(key))
        {
            let id = stored.id.clone();
            let Some(state) = policy::upsert(stored, &policy.spec, policy.state.next_due, now) else {
                return PolicyPut::Unchanged(id);
            };
            stored.state = state;
            stored.spec = policy.spec;
            self.news.changed.push(id.clone());
            self.news.policies = true;
            return PolicyPut::Updated(id);
        }
        if self.jobs.contains_key(&policy.id) || self.policies.contains_key(&policy.id) {
            return PolicyPut::IdTaken;
        }
        self.policies.insert(policy.id.clone(), policy);
        self.news.policies = true;
        PolicyPut::Created
    }

    /// Fires one tick.
    pub(super) fn fire(&mut self, id: &JobId, tick: &Tick, executions: Vec<NewJob>, now: Time) -> Fired {
        let live = self.indexes.live(id);
        let Some(policy) = self.policies.get_mut(id) else {
            return Fired::Stale;
        };
        let before = policy.state.clone();
        let (state, stops_earlier) = match policy::decide_fire(policy, tick, live.len(), now) {
            Firing::Wait => return Fired::Waiting,
            Firing::Stale => return Fired::Stale,
            Firing::Skip(state) => {
                policy.state = state;
                return Fired::Skipped;
            }
            Firing::Fire { state, stops_earlier } => (state, stops_earlier),
        };
        if stops_earlier {
            // Before the inserts: those that only waited give their unique key back. One that runs holds on to it until
            // it has ended, and the new execution then counts as skipped.
            for earlier in &live {
                self.happen(earlier, &Event::Stop { grace: limits::GRACE }, now);
            }
        }
        let offered = executions.len();
        let mut created = Vec::with_capacity(offered);
        for execution in executions {
            let execution_id = execution.job.id.clone();
            if self.insert(execution, now) == Inserted::Created {
                created.push(execution_id);
            }
        }
        let state = policy::count_fired(&before, state, created.len(), offered - created.len());
        if let Some(policy) = self.policies.get_mut(id) {
            policy.state = state;
        }
        if created.is_empty() { Fired::Skipped } else { Fired::Fired(created) }
    }

    /// Applies an event to a policy on behalf of the maintenance or an operator.
    pub(super) fn change_policy(&mut self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
        if let PolicyEvent::End(_) = event {
            return Err(StoreError::Invalid("a policy is ended by `control`, with its executions".to_owned()));
        }
        self.decide_policy(id, event, now);
        Ok(self.policies.get(id).cloned())
    }

    /// Lets the rule book decide what an event does to a policy, and does it; none if it changes nothing.
    pub(super) fn decide_policy(&mut self, id: &JobId, event: &PolicyEvent, now: Time) -> Option<Status> {
        let policy = self.policies.get_mut(id)?;
        policy.state = policy::decide(policy, event, now)?;
        self.news.changed.push(id.clone());
        self.news.policies |= !matches!(event, PolicyEvent::FireFailed(_));
        Some(policy.status())
    }

    /// The policies that a query asks for.
    pub(super) fn list_policies(&self, query: &PolicyQuery) -> Vec<Policy> {
        let PolicyQuery { id, schedule_key, due_by, after, limit } = query;
        let due = |policy: &Policy, by: Time| policy.is_active() && policy.state.next_due.is_some_and(|due| due <= by);
        let all = self.policies.values();
        all.filter(|policy| id.as_ref().is_none_or(|id| *id == policy.id))
            .filter(|policy| schedule_key.is_none() || policy.spec.schedule_key == *schedule_key)
            .filter(|policy| after.as_ref().is_none_or(|after| policy.id > *after))
            .filter(|policy| due_by.is_none_or(|by| due(policy, by)))
            .take(*limit)
            .cloned()
            .collect()
    }

    /// When the next policy is due after this.
    pub(super) fn next_due(&self, after: Time) -> Option<Time> {
        let active = self.policies.values().filter(|policy| policy.is_active());
        active.filter_map(|policy| policy.state.next_due).filter(|due| *due > after).min()
    }

    /// What is wrong with the policies.
    pub(super) fn audit_policies(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut keys: Vec<(&Arc<str>, &JobId)> = Vec::new();
        for (id, policy) in &self.policies {
            if *id != policy.id {
                wrong.push(format!("policy {} is stored as {id}", policy.id));
            }
            if self.jobs.contains_key(id) {
                wrong.push(format!("{id} is the id of a job and of a policy"));
            }
            wrong.extend(crate::invariant::check_policy(policy));
            keys.extend(policy.spec.schedule_key.as_ref().map(|key| (key, id)));
        }
        keys.sort();
        for pair in keys.windows(2) {
            if let [(a, first), (b, second)] = pair
                && a == b
            {
                wrong.push(format!("policies {first} and {second} have the same schedule key {a:?}"));
            }
        }
        wrong
    }
}
