//! Jobs come in, and people steer: insert, control, delete, options of names.

use std::sync::Arc;

use super::inner::{Happened, Inner};
use crate::dump::IdempotencyEntry;
use crate::job::{Signal, Status};
use crate::lifecycle::{Event, Refusal};
use crate::policy::PolicyEvent;
use crate::store::{Act, Acted, Action, Controlled, Deleted, Inserted, NameOptions, NewJob, OptionsChange, Query};
use crate::{JobId, Name, Time, limits};

impl Inner {
    /// Inserts one job. The order of the looks matters to who repeats a call: first whether this very submission is
    /// known, by its key or by its id, only then whether another job is in its way.
    pub(super) fn insert(&mut self, new: NewJob, now: Time) -> Inserted {
        let NewJob { job, idempotency_key, launched_by } = new;
        if let Some(lease) = launched_by
            && !self.jobs.get(&lease.id).is_some_and(|caller| caller.is_held_by(&lease))
        {
            return Inserted::LeaseLost;
        }
        let submission = idempotency_key.map(|key: Arc<str>| (job.spec.name.clone(), key));
        if let Some(known) = submission.as_ref().and_then(|submission| self.idempotency.get(submission))
            && known.expires_at > now
        {
            return Inserted::Repeated(known.id.clone());
        }
        if self.jobs.contains_key(&job.id) || self.policies.contains_key(&job.id) {
            return Inserted::IdTaken;
        }
        if let (true, Some(unique)) = (job.state.holds_key, job.spec.unique)
            && let Some(holder) = self.indexes.holders.get(&unique.digest)
        {
            return Inserted::Duplicate(holder.clone());
        }
        if let Some((name, key)) = submission {
            let expires_at = now + limits::IDEMPOTENCY_KEPT;
            let entry = IdempotencyEntry { name: name.clone(), key: Arc::clone(&key), id: job.id.clone(), expires_at };
            self.idempotency.insert((name, key), entry);
        }
        self.add(job, now);
        Inserted::Created
    }

    /// Stops, cancels or retries a job or a policy.
    pub(super) fn control(&mut self, id: &JobId, action: Action, now: Time) -> Controlled {
        if self.policies.contains_key(id) {
            return self.control_policy(id, action, now);
        }
        let event = match action {
            Action::Stop(grace) => Event::Stop { grace },
            Action::Cancel(grace) => Event::Cancel { grace },
            Action::Retry { .. } => Event::Retry,
        };
        match self.happen(id, &event, now) {
            // Only a running job takes a signal; the others are done with at once.
            Happened::Is(Status::Running) => Controlled::Signalled,
            Happened::Is(status) => Controlled::Done(status),
            Happened::KeyTaken(holder) => Controlled::Duplicate(holder),
            Happened::Refused(Refusal::Illegal { status, .. }) => Controlled::Refused(status),
            Happened::Refused(Refusal::Unchanged | Refusal::LeaseLost | Refusal::Repeated(_) | Refusal::NotYet(_)) => {
                self.jobs.get(id).map_or(Controlled::NotFound, |job| Controlled::Unchanged(job.state.status))
            }
            Happened::NotFound | Happened::Gone => Controlled::NotFound,
        }
    }

    fn control_policy(&mut self, id: &JobId, action: Action, now: Time) -> Controlled {
        let Some(status) = self.policies.get(id).map(crate::policy::Policy::status) else {
            return Controlled::NotFound;
        };
        let (signal, event) = match action {
            Action::Retry { next_due } => {
                let changed = self.decide_policy(id, &PolicyEvent::Retry { next_due }, now);
                return changed.map_or(Controlled::Refused(status), Controlled::Done);
            }
            Action::Stop(grace) => (Signal::Stop, Event::Stop { grace }),
            Action::Cancel(grace) => (Signal::Cancel, Event::Cancel { grace }),
        };
        let Some(status) = self.decide_policy(id, &PolicyEvent::End(signal), now) else {
            return Controlled::Unchanged(status);
        };
        for execution in self.indexes.live(id) {
            // One that is signalled already refuses, and that is as good.
            self.happen(&execution, &event, now);
        }
        Controlled::Done(status)
    }

    /// Removes a job or a policy. Its idempotency key stays until its time is over: a client that repeats the submission
    /// gets the id that it was given, also after the job is gone, instead of a second run.
    pub(super) fn delete(&mut self, id: &JobId, now: Time) -> Deleted {
        if let Some(policy) = self.policies.get(id) {
            if policy.state.ended.is_none() {
                return Deleted::Refused(policy.status());
            }
            self.policies.remove(id);
            return Deleted::Gone;
        }
        match self.happen(id, &Event::Delete, now) {
            Happened::Gone => Deleted::Gone,
            Happened::Is(status) | Happened::Refused(Refusal::Illegal { status, .. }) => Deleted::Refused(status),
            Happened::NotFound | Happened::KeyTaken(_) | Happened::Refused(_) => Deleted::NotFound,
        }
    }

    /// Does the same to many jobs.
    pub(super) fn act(&mut self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Vec<Acted> {
        let one = |inner: &mut Inner, id: &JobId| match (inner.jobs.get(id), act) {
            (Some(job), _) if !filter.matches(job) => Acted::Passed,
            (Some(_), Act::Control(action)) => Acted::Controlled(inner.control(id, action, now)),
            (Some(_), Act::Delete) => Acted::Deleted(inner.delete(id, now)),
            (None, _) => Acted::Passed,
        };
        ids.iter().map(|id| one(self, id)).collect()
    }

    /// What an operator said of a name.
    pub(super) fn options(&self, name: &Name) -> NameOptions {
        self.options.get(name).copied().unwrap_or_default()
    }

    /// Changes what an operator says of a name. Options that say nothing are not kept.
    pub(super) fn set_options(&mut self, name: &Name, change: OptionsChange) -> NameOptions {
        let options = change.apply(self.options(name));
        if options == NameOptions::default() {
            self.options.remove(name);
        } else {
            self.options.insert(name.clone(), options);
        }
        // It may have been resumed, or its limit raised.
        self.news.ready |= self.indexes.ready.contains_key(name);
        options
    }
}
