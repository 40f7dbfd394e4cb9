//! What the store keeps, and the one door through which every record changes: [`Inner::happen`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::indexes::Indexes;
use super::outbox::Outbox;
use crate::dump::{Contents, IdempotencyEntry};
use crate::job::{Job, Status};
use crate::lifecycle::{self, Change, Event, Refusal};
use crate::minutes::{self, Bucket};
use crate::notices::{Notices, SignalNotice};
use crate::policy::Policy;
use crate::store::{NameOptions, Node};
use crate::{JobId, Name, PoolId, Time};

/// The state of the store.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) indexes: Indexes,
    pub(super) policies: BTreeMap<JobId, Policy>,
    pub(super) options: BTreeMap<Name, NameOptions>,
    pub(super) idempotency: BTreeMap<(Name, Arc<str>), IdempotencyEntry>,
    pub(super) outbox: Outbox,
    pub(super) nodes: BTreeMap<PoolId, Node>,
    /// What happened in each minute, by name.
    pub(super) minutes: BTreeMap<(i64, Name), Bucket>,
    /// What has to be told once the lock is free.
    pub(super) news: News,
}

/// What became of a job by an event.
#[derive(Debug)]
pub(super) enum Happened {
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

impl Inner {
    /// Lets the rule book decide what an event does to a job, and does it.
    pub(super) fn happen(&mut self, id: &JobId, event: &Event, now: Time) -> Happened {
        let Some(job) = self.jobs.get(id) else {
            return Happened::NotFound;
        };
        match lifecycle::decide(job, event, now) {
            Ok(change) => self.apply(id, change, now),
            Err(refusal) => Happened::Refused(refusal),
        }
    }

    /// Stores a new record. The caller has looked that its id and key are free.
    pub(super) fn add(&mut self, job: Job, now: Time) {
        self.indexes.add(&job);
        self.minute(&job.spec.name, now).submit();
        self.news.ready |= job.state.status == Status::Pending;
        self.jobs.insert(job.id.clone(), job);
    }

    /// The numbers of a name in the minute of `now`.
    fn minute(&mut self, name: &Name, now: Time) -> &mut Bucket {
        self.minutes.entry((minutes::number_of(now), name.clone())).or_default()
    }

    fn apply(&mut self, id: &JobId, change: Change, now: Time) -> Happened {
        let Some(job) = self.jobs.get_mut(id) else {
            return Happened::NotFound;
        };
        if let (true, Some(unique)) = (change.takes_key, job.spec.unique)
            && let Some(holder) = self.indexes.holders.get(&unique.digest)
            && holder != id
        {
            return Happened::KeyTaken(holder.clone());
        }
        self.indexes.remove(job);
        let Some(state) = change.state else {
            self.jobs.remove(id);
            self.outbox.forget(id);
            self.news.changed.push(id.clone());
            return Happened::Gone;
        };
        let before = std::mem::replace(&mut job.state, state);
        self.indexes.add(job);
        let status = job.state.status;
        if status != before.status {
            let bucket = self.minutes.entry((minutes::number_of(now), job.spec.name.clone())).or_default();
            bucket.change(&before, &job.state, now);
            self.news.changed.push(id.clone());
            // A run that ended may have made room below the limit of its name.
            self.news.executions |= status.is_final() && job.spec.upstream.is_some();
            self.news.ready |= status == Status::Pending
                || (before.status == Status::Running && self.indexes.ready.contains_key(&job.spec.name));
        }
        if job.state.signal != before.signal
            && let (Some(signal), Some(lease), Some(key)) = (job.state.signal, &job.state.lease, job.lease_key())
        {
            let notice = SignalNotice { pool: lease.pool.clone(), lease: key, signal: signal.signal };
            self.news.signals.push(notice);
        }
        if let Some(event) = change.event {
            self.outbox.put(id, event);
            self.news.events = true;
        }
        Happened::Is(status)
    }

    /// Everything, for the dump.
    pub(super) fn contents(&self) -> Contents {
        Contents {
            jobs: self.jobs.values().cloned().collect(),
            policies: self.policies.values().cloned().collect(),
            options: self.options.iter().map(|(name, options)| (name.clone(), *options)).collect(),
            unique: self.indexes.holders.iter().map(|(digest, id)| (*digest, id.clone())).collect(),
            idempotency: self.idempotency.values().cloned().collect(),
            outbox: self.outbox.entries().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
        }
    }
}

/// Notices that wait for the lock to be free.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) ready: bool,
    pub(super) events: bool,
    pub(super) policies: bool,
    pub(super) executions: bool,
    pub(super) changed: Vec<JobId>,
    pub(super) signals: Vec<SignalNotice>,
}

impl News {
    pub(super) fn tell(self, notices: &Notices) {
        self.changed.iter().for_each(|id| notices.tell_changed(id));
        self.signals.into_iter().for_each(|notice| notices.tell_signal(notice));
        if self.ready {
            notices.tell_ready();
        }
        if self.events {
            notices.tell_events();
        }
        if self.policies {
            notices.tell_policies();
        }
        if self.executions {
            notices.tell_executions();
        }
    }
}
