//! The readable reference store: all promises of [`Store`] over plain maps behind one mutex.
//!
//! It is what a test of a user runs on, the model that the other stores are compared with, and the place to read what a
//! verb does. Each verb takes the lock, does its step, and lets go; that is all there is to atomicity here. Nothing is
//! kept when the value is dropped.
//!
//! * `inner`: the records, and the one door through which all of them change.
//! * `indexes`: the sorted sets; a pure function of the records, which is what the audit checks.
//! * `intake`, `claim`, `sweep`, `policies`, `outbox`, `list`, `look`: the verbs.

mod audit;
mod claim;
mod indexes;
mod inner;
mod intake;
mod list;
mod look;
mod outbox;
mod policies;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::inner::Inner;
use crate::job::{Job, LeaseKey, Status};
use crate::lifecycle::Event;
use crate::notices::Notices;
use crate::policy::{Policy, PolicyEvent, Tick};
use crate::store::{
    Act, Acted, Action, CheckedIn, Claim, Controlled, Deleted, Executions, ExecutionsQuery, Extended, Finished, Fired,
    Inserted, JobEvents, Minute, NameAsk, NameOptions, NameStats, NewJob, Node, OptionsChange, OutboxEntry, Page,
    PolicyPut, PolicyQuery, Query, Report, Resent, Result, Settled, Store, Swept, Waiting,
};
use crate::{JobId, Name, PoolId, Time};

/// A [`Store`] that keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    notices: Arc<Notices>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Does one step under the lock, then tells who has to know.
    fn step<T>(&self, step: impl FnOnce(&mut Inner) -> T) -> T {
        let (answer, news) = {
            let mut inner = self.inner.lock();
            let answer = step(&mut inner);
            (answer, std::mem::take(&mut inner.news))
        };
        // After the lock is free: who is woken looks at the store first of all.
        news.tell(&self.notices);
        answer
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn insert(&self, jobs: Vec<NewJob>, now: Time) -> Result<Vec<Inserted>> {
        Ok(self.step(|inner| jobs.into_iter().map(|job| inner.insert(job, now)).collect()))
    }

    async fn claim(&self, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        Ok(self.step(|inner| inner.claim(ask, now)))
    }

    async fn extend(&self, pool: &PoolId, leases: &[LeaseKey], until: Time, now: Time) -> Result<Extended> {
        Ok(self.step(|inner| inner.extend(pool, leases, until, now)))
    }

    async fn finish(&self, reports: Vec<Report>, now: Time) -> Result<Vec<Finished>> {
        Ok(self.step(|inner| {
            let reports = reports.into_iter();
            reports
                .map(|Report { lease, outcome }| {
                    let id = lease.id.clone();
                    inner.end_run(&id, &Event::Finish { lease, outcome }, now)
                })
                .collect()
        }))
    }

    async fn release(&self, leases: Vec<LeaseKey>, jitter: u32, now: Time) -> Result<Vec<Finished>> {
        Ok(self.step(|inner| {
            let leases = leases.into_iter();
            leases
                .map(|lease| {
                    let id = lease.id.clone();
                    inner.end_run(&id, &Event::Release { lease, jitter }, now)
                })
                .collect()
        }))
    }

    async fn check_in(&self, lease: &LeaseKey, message: Arc<str>, now: Time) -> Result<CheckedIn> {
        Ok(self.step(|inner| inner.check_in(lease, message, now)))
    }

    async fn control(&self, id: &JobId, action: Action, now: Time) -> Result<Controlled> {
        Ok(self.step(|inner| inner.control(id, action, now)))
    }

    async fn delete(&self, id: &JobId, now: Time) -> Result<Deleted> {
        Ok(self.step(|inner| inner.delete(id, now)))
    }

    async fn act(&self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>> {
        Ok(self.step(|inner| inner.act(ids, filter, act, now)))
    }

    async fn set_options(&self, name: &Name, options: OptionsChange, _now: Time) -> Result<NameOptions> {
        Ok(self.step(|inner| inner.set_options(name, options)))
    }

    async fn promote(&self, limit: usize, now: Time) -> Result<Swept> {
        Ok(self.step(|inner| inner.promote(limit, now)))
    }

    async fn reap(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept> {
        Ok(self.step(|inner| inner.reap(limit, jitter, now)))
    }

    async fn prune(&self, limit: usize, now: Time) -> Result<Swept> {
        Ok(self.step(|inner| inner.prune(limit, now)))
    }

    async fn shrink(&self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept> {
        Ok(self.step(|inner| inner.shrink(bytes_max, limit, now)))
    }

    async fn put_policy(&self, policy: Policy, now: Time) -> Result<PolicyPut> {
        Ok(self.step(|inner| inner.put_policy(policy, now)))
    }

    async fn fire(&self, id: &JobId, tick: &Tick, executions: Vec<NewJob>, now: Time) -> Result<Fired> {
        Ok(self.step(|inner| inner.fire(id, tick, executions, now)))
    }

    async fn change_policy(&self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
        self.step(|inner| inner.change_policy(id, event, now))
    }

    async fn policies(&self, query: &PolicyQuery) -> Result<Vec<Policy>> {
        Ok(self.step(|inner| inner.list_policies(query)))
    }

    async fn next_due(&self, after: Time) -> Result<Option<Time>> {
        Ok(self.step(|inner| inner.next_due(after)))
    }

    async fn take_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>> {
        Ok(self.step(|inner| inner.take_events(limit, until, now)))
    }

    async fn settle_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()> {
        self.step(|inner| inner.settle_event(id, seq, settled, now));
        Ok(())
    }

    async fn resend_event(&self, id: &JobId, seq: u32, now: Time) -> Result<Resent> {
        Ok(self.step(|inner| inner.resend_event(id, seq, now)))
    }

    async fn events(&self, id: &JobId) -> Result<Vec<OutboxEntry>> {
        Ok(self.step(|inner| inner.outbox.of(id).cloned().collect()))
    }

    async fn get(&self, id: &JobId) -> Result<Option<Job>> {
        Ok(self.step(|inner| inner.jobs.get(id).cloned()))
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        self.step(|inner| inner.list(query))
    }

    async fn executions(&self, query: &ExecutionsQuery) -> Result<Executions> {
        Ok(self.step(|inner| inner.executions(query)))
    }

    async fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        Ok(self.step(|inner| ids.iter().map(|id| inner.indexes.by_upstream.contains_key(id)).collect()))
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>> {
        Ok(self.step(|inner| inner.indexes.counts()))
    }

    async fn names(&self) -> Result<Vec<NameStats>> {
        Ok(self.step(|inner| inner.names()))
    }

    async fn explain(&self, id: &JobId, code: &Arc<[NameAsk]>, now: Time) -> Result<Option<Waiting>> {
        Ok(self.step(|inner| inner.explain(id, code, now)))
    }

    async fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>> {
        Ok(self.step(|inner| inner.minutes_of(name, from)))
    }

    async fn beat(&self, node: Option<&Node>, now: Time) -> Result<Vec<Node>> {
        Ok(self.step(|inner| inner.beat(node, now)))
    }

    fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    async fn audit(&self) -> Result<Vec<String>> {
        Ok(self.step(|inner| inner.audit()))
    }

    async fn dump(&self) -> Result<String> {
        Ok(self.step(|inner| crate::dump::render(&inner.contents())))
    }
}
