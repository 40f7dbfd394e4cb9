//! The store: which verb is where.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::notices::Notices;
use jobservice_core::policy::{Policy, PolicyEvent, Tick};
use jobservice_core::store::{
    Act, Acted, Action, CheckedIn, Claim, Controlled, Deleted, Executions, ExecutionsQuery, Extended, Finished, Fired,
    Inserted, JobEvents, Minute, NameAsk, NameOptions, NameStats, NewJob, Node, OptionsChange, OutboxEntry, Page,
    PolicyPut, PolicyQuery, Query, Report, Resent, Result, Settled, Swept, Waiting,
};
use jobservice_core::{Clock, JobId, Name, PoolId, Store, StoreError, Time};
use parking_lot::Mutex;

use crate::checks::Warnings;
use crate::clock::RedisClock;
use crate::epoch::Epoch;
use crate::keys::Keys;
use crate::lane::Lane;
use crate::link::Link;
use crate::options::{OpenError, Options};
use crate::record::Record;
use crate::view::{Part, Quiet};
use crate::wake::Wake;
use crate::work::{Committed, Tries, Work};

/// The store on Redis.
pub struct RedisStore {
    /// The connection.
    pub(crate) link: Link,
    pub(crate) clock: Arc<RedisClock>,
    pub(crate) warnings: Warnings,
    pub(crate) wake: Arc<Wake>,
    pub(crate) shards: Vec<Arc<Shard>>,
    /// Where submissions come together, by shard.
    pub(crate) lanes: Vec<Lane>,
    pub(crate) notices: Arc<Notices>,
    /// The records of jobs that this node claimed: what a finish or an extend assumes.
    pub(crate) held: Mutex<HashMap<JobId, Record>>,
    /// What operators say of names, as it was when a claim last looked: its text by shard and name.
    pub(crate) options: Mutex<HashMap<Name, String>>,
}

/// One part of the store.
pub(crate) struct Shard {
    pub(crate) number: usize,
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) wake: Arc<Wake>,
    pub(crate) epoch: Epoch,
}

impl RedisStore {
    /// Connects.
    ///
    /// # Errors
    /// [`OpenError`]: the options are wrong, nobody answers, or it is no Redis to keep jobs in.
    pub async fn connect(options: &Options) -> std::result::Result<Arc<RedisStore>, OpenError> {
        // Boxed: the futures within are many and deep, and the caller need not hold them.
        Box::pin(crate::open::open(options)).await
    }

    /// Whether there is a store, and what is not as it should be although it would work. A first connection makes one, and
    /// with it settles for good how many shards it has: this makes none.
    ///
    /// # Errors
    /// [`OpenError`]: the options are wrong, nobody answers, or it is no Redis to keep jobs in.
    pub async fn is_used(options: &Options) -> std::result::Result<(bool, Vec<String>), OpenError> {
        Box::pin(crate::open::is_used(options)).await
    }

    /// The clock of the store, which all its nodes share: what a service on it must use.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// What is not as it should be although the store works: a node with any is degraded.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.all()
    }

    /// Carries a step out; false if it has to be decided again.
    pub(crate) async fn commit(&self, shard: &Shard, work: Work<'_>, tries: &mut Tries) -> Result<bool> {
        let Some(Committed { news, records }) = work.commit(tries).await? else { return Ok(false) };
        let gone: Vec<JobId> =
            records.iter().filter(|(_, record)| record.is_none()).map(|(id, _)| id.clone()).collect();
        {
            let mut held = self.held.lock();
            for (id, record) in records {
                match record.filter(|record| record.job.state.status == Status::Running) {
                    // Only what this node holds: others' runs end elsewhere.
                    Some(record) => {
                        if let Some(known) = held.get_mut(&id).filter(|known| known.is_before(&record)) {
                            *known = record;
                        }
                    }
                    None => {
                        held.remove(&id);
                    }
                }
            }
        }
        news.tell(&self.notices);
        // The step is done, whatever becomes of this: pointers to nothing are taken for none.
        if let Err(error) = self.unpoint(shard.number, &gone.iter().collect::<Vec<_>>()).await {
            tracing::warn!(error = %error, "pointers to removed jobs stay");
        }
        Ok(true)
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    fn new_id(&self, name: &Name) -> JobId {
        self.own_id(name)
    }

    async fn insert(&self, jobs: Vec<NewJob>, now: Time) -> Result<Vec<Inserted>> {
        let inserted = self.insert_all(jobs, now).await;
        if matches!(inserted, Err(StoreError::Full)) {
            let text = "redis is full (maxmemory): no jobs are taken in, those that are there run";
            self.warnings.set("full", Some(text.to_owned()));
        }
        inserted
    }

    fn rounds(&self) -> usize {
        2
    }

    async fn claim(&self, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        if self.is_idle() {
            return Ok(Vec::new());
        }
        let jobs = self.claim_jobs(ask, now).await?;
        self.tell_claimed(&jobs);
        Ok(jobs)
    }

    async fn extend(&self, pool: &PoolId, leases: &[LeaseKey], until: Time, now: Time) -> Result<Extended> {
        self.extend_leases(pool, leases, until, now).await
    }

    async fn finish(&self, reports: Vec<Report>, now: Time) -> Result<Vec<Finished>> {
        self.finish_runs(reports, now).await
    }

    async fn release(&self, leases: Vec<LeaseKey>, jitter: u32, now: Time) -> Result<Vec<Finished>> {
        self.release_runs(leases, jitter, now).await
    }

    async fn check_in(&self, lease: &LeaseKey, message: Arc<str>, now: Time) -> Result<CheckedIn> {
        self.check_in_run(lease, message, now).await
    }

    async fn control(&self, id: &JobId, action: Action, now: Time) -> Result<Controlled> {
        self.control_one(id, action, now).await
    }

    async fn delete(&self, id: &JobId, now: Time) -> Result<Deleted> {
        self.delete_one(id, now).await
    }

    async fn act(&self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>> {
        self.act_on(ids, filter, act, now).await
    }

    async fn set_options(&self, name: &Name, options: OptionsChange, _now: Time) -> Result<NameOptions> {
        self.change_options(name, options).await
    }

    async fn promote(&self, limit: usize, now: Time) -> Result<Swept> {
        if let Some(Quiet { next_at }) = self.quiet(Part::Scheduled, now) {
            return Ok(Swept { next_at, ..Swept::default() });
        }
        self.promote_due(limit, now).await
    }

    async fn reap(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept> {
        if let Some(Quiet { next_at }) = self.quiet(Part::Running, now) {
            return Ok(Swept { next_at, ..Swept::default() });
        }
        self.reap_overdue(limit, jitter, now).await
    }

    async fn prune(&self, limit: usize, now: Time) -> Result<Swept> {
        self.prune_all(limit, now).await
    }

    async fn shrink(&self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept> {
        self.shrink_to(bytes_max, limit, now).await
    }

    async fn put_policy(&self, policy: Policy, now: Time) -> Result<PolicyPut> {
        self.put_one_policy(policy, now).await
    }

    async fn fire(&self, id: &JobId, tick: &Tick, executions: Vec<NewJob>, now: Time) -> Result<Fired> {
        self.fire_tick(id, tick, executions, now).await
    }

    async fn change_policy(&self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
        self.change_one_policy(id, event, now).await
    }

    async fn policies(&self, query: &PolicyQuery) -> Result<Vec<Policy>> {
        if query.due_by.is_some_and(|by| self.quiet(Part::Policies, by).is_some()) {
            return Ok(Vec::new());
        }
        self.list_policies(query).await
    }

    async fn next_due(&self, after: Time) -> Result<Option<Time>> {
        if let Some(Quiet { next_at }) = self.quiet(Part::Policies, after) {
            return Ok(next_at);
        }
        self.next_policy_due(after).await
    }

    async fn take_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>> {
        self.wake.delivers();
        if self.quiet(Part::Events, now).is_some() {
            return Ok(Vec::new());
        }
        self.take_due_events(limit, until, now).await
    }

    async fn settle_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()> {
        self.settle_one_event(id, seq, settled, now).await
    }

    async fn resend_event(&self, id: &JobId, seq: u32, now: Time) -> Result<Resent> {
        self.resend_one_event(id, seq, now).await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<OutboxEntry>> {
        self.events_of(id).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<Job>> {
        let shard = self.shard_with(id).await?;
        let mut work = Work::new(shard, Time::MAX);
        Ok(work.get(id).await?.cloned())
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        self.list_jobs(query).await
    }

    async fn executions(&self, query: &ExecutionsQuery) -> Result<Executions> {
        self.executions_of(query).await
    }

    async fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        self.which_have_executions(ids).await
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>> {
        self.count_jobs().await
    }

    async fn names(&self) -> Result<Vec<NameStats>> {
        self.stats_of_names().await
    }

    async fn explain(&self, id: &JobId, code: &Arc<[NameAsk]>, now: Time) -> Result<Option<Waiting>> {
        self.explain_job(id, code, now).await
    }

    async fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>> {
        self.minutes_from(name, from).await
    }

    async fn beat(&self, node: Option<&Node>, now: Time) -> Result<Vec<Node>> {
        self.beat_node(node, now).await
    }

    fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    async fn audit(&self) -> Result<Vec<String>> {
        self.audit_all().await
    }

    async fn dump(&self) -> Result<String> {
        self.dump_all().await
    }
}
