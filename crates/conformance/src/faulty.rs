//! A store between the caller and the true one, which loses answers, refuses calls and lets others go first.
//!
//! What a network, a crash of the store or a time-out do to a caller, by a seeded plan: after a lost answer the call has
//! happened and the caller does not know; after a refused one it has not, and the caller does not know that either. Both
//! look alike: [`StoreError::Unavailable`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::notices::Notices;
use jobservice_core::policy::{Policy, PolicyEvent, Tick};
use jobservice_core::store::{
    Act, Acted, Action, CheckedIn, Claim, Controlled, Deleted, Executions, ExecutionsQuery, Extended, Finished, Fired,
    Inserted, JobEvents, Minute, NameAsk, NameOptions, NameStats, NewJob, Node, OptionsChange, OutboxEntry, Page,
    PolicyPut, PolicyQuery, Query, Report, Resent, Result, Settled, Store, StoreError, Swept, Waiting,
};
use jobservice_core::{JobId, Name, PoolId, Time};
use parking_lot::Mutex;

use crate::rng::Rng;

/// How many of 100 calls meet which fault; the rest meet none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Calls that are carried out and not answered.
    pub lost: u64,
    /// Calls that are not carried out.
    pub refused: u64,
    /// Calls before which other tasks go first.
    pub delayed: u64,
}

impl Rates {
    /// Every third call is lost or refused: far worse than any network that one would work on.
    pub const HARSH: Rates = Rates { lost: 20, refused: 13, delayed: 20 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Lost,
    Refused,
    Delayed(u64),
}

/// The faulty store.
pub struct Faulty {
    inner: Arc<dyn Store>,
    rounds: Option<usize>,
    plan: Mutex<Plan>,
}

struct Plan {
    rng: Rng,
    rates: Rates,
    /// Verbs with rates of their own.
    apart: Vec<(&'static str, Rates)>,
    lost: u64,
    refused: u64,
    calls: BTreeMap<&'static str, u64>,
}

impl Faulty {
    /// Puts faults before `inner`: at these rates, as this seed says.
    pub fn new(inner: Arc<dyn Store>, rates: Rates, seed: u64) -> Faulty {
        let plan = Plan { rng: Rng::new(seed), rates, apart: Vec::new(), lost: 0, refused: 0, calls: BTreeMap::new() };
        Faulty { inner, rounds: None, plan: Mutex::new(plan) }
    }

    /// The same as a store that wants so many exchanges under way at once: see [`Store::rounds`].
    #[must_use]
    pub fn with_rounds(self, rounds: usize) -> Faulty {
        Faulty { rounds: Some(rounds), ..self }
    }

    /// Changes the rates of all verbs: all zero ends the faults.
    pub fn set_rates(&self, rates: Rates) {
        let mut plan = self.plan.lock();
        plan.rates = rates;
        plan.apart.clear();
    }

    /// Changes the rates of one verb of the trait, until [`Faulty::set_rates`] changes those of all.
    pub fn set_rates_of(&self, verb: &'static str, rates: Rates) {
        let mut plan = self.plan.lock();
        plan.apart.retain(|(apart, _)| *apart != verb);
        plan.apart.push((verb, rates));
    }

    /// How many answers were lost and how many calls refused so far.
    pub fn faults(&self) -> (u64, u64) {
        let plan = self.plan.lock();
        (plan.lost, plan.refused)
    }

    /// How often a verb of the trait was called so far.
    pub fn calls(&self, verb: &'static str) -> u64 {
        self.plan.lock().calls.get(verb).copied().unwrap_or(0)
    }

    fn draw(&self, verb: &'static str) -> Fault {
        let mut plan = self.plan.lock();
        *plan.calls.entry(verb).or_default() += 1;
        let apart = plan.apart.iter().find(|(apart, _)| *apart == verb).map(|(_, rates)| *rates);
        let Rates { lost, refused, delayed } = apart.unwrap_or(plan.rates);
        let draw = plan.rng.below(100);
        if draw < lost {
            plan.lost += 1;
            Fault::Lost
        } else if draw < lost + refused {
            plan.refused += 1;
            Fault::Refused
        } else if draw < lost + refused + delayed {
            Fault::Delayed(plan.rng.between(1, 5))
        } else {
            Fault::None
        }
    }

    async fn through<T>(&self, during: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let unavailable = |what: &'static str| StoreError::Unavailable { during, source: what.into() };
        match self.draw(during) {
            Fault::None => call.await,
            Fault::Delayed(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                call.await
            }
            Fault::Lost => {
                call.await?;
                Err(unavailable("the answer was lost"))
            }
            Fault::Refused => {
                drop(call);
                Err(unavailable("the call was lost"))
            }
        }
    }
}

#[async_trait]
impl Store for Faulty {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or_else(|| self.inner.rounds())
    }

    async fn insert(&self, jobs: Vec<NewJob>, now: Time) -> Result<Vec<Inserted>> {
        self.through("insert", self.inner.insert(jobs, now)).await
    }

    async fn claim(&self, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        self.through("claim", self.inner.claim(ask, now)).await
    }

    async fn extend(&self, pool: &PoolId, leases: &[LeaseKey], until: Time, now: Time) -> Result<Extended> {
        self.through("extend", self.inner.extend(pool, leases, until, now)).await
    }

    async fn finish(&self, reports: Vec<Report>, now: Time) -> Result<Vec<Finished>> {
        self.through("finish", self.inner.finish(reports, now)).await
    }

    async fn release(&self, leases: Vec<LeaseKey>, jitter: u32, now: Time) -> Result<Vec<Finished>> {
        self.through("release", self.inner.release(leases, jitter, now)).await
    }

    async fn check_in(&self, lease: &LeaseKey, message: Arc<str>, now: Time) -> Result<CheckedIn> {
        self.through("check_in", self.inner.check_in(lease, message, now)).await
    }

    async fn control(&self, id: &JobId, action: Action, now: Time) -> Result<Controlled> {
        self.through("control", self.inner.control(id, action, now)).await
    }

    async fn delete(&self, id: &JobId, now: Time) -> Result<Deleted> {
        self.through("delete", self.inner.delete(id, now)).await
    }

    async fn act(&self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>> {
        self.through("act", self.inner.act(ids, filter, act, now)).await
    }

    async fn set_options(&self, name: &Name, options: OptionsChange, now: Time) -> Result<NameOptions> {
        self.through("set_options", self.inner.set_options(name, options, now)).await
    }

    async fn promote(&self, limit: usize, now: Time) -> Result<Swept> {
        self.through("promote", self.inner.promote(limit, now)).await
    }

    async fn reap(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept> {
        self.through("reap", self.inner.reap(limit, jitter, now)).await
    }

    async fn prune(&self, limit: usize, now: Time) -> Result<Swept> {
        self.through("prune", self.inner.prune(limit, now)).await
    }

    async fn shrink(&self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept> {
        self.through("shrink", self.inner.shrink(bytes_max, limit, now)).await
    }

    async fn put_policy(&self, policy: Policy, now: Time) -> Result<PolicyPut> {
        self.through("put_policy", self.inner.put_policy(policy, now)).await
    }

    async fn fire(&self, id: &JobId, tick: &Tick, executions: Vec<NewJob>, now: Time) -> Result<Fired> {
        self.through("fire", self.inner.fire(id, tick, executions, now)).await
    }

    async fn change_policy(&self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
        self.through("change_policy", self.inner.change_policy(id, event, now)).await
    }

    async fn policies(&self, query: &PolicyQuery) -> Result<Vec<Policy>> {
        self.through("policies", self.inner.policies(query)).await
    }

    async fn next_due(&self, after: Time) -> Result<Option<Time>> {
        self.through("next_due", self.inner.next_due(after)).await
    }

    async fn take_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>> {
        self.through("take_events", self.inner.take_events(limit, until, now)).await
    }

    async fn settle_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()> {
        self.through("settle_event", self.inner.settle_event(id, seq, settled, now)).await
    }

    async fn resend_event(&self, id: &JobId, seq: u32, now: Time) -> Result<Resent> {
        self.through("resend_event", self.inner.resend_event(id, seq, now)).await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<OutboxEntry>> {
        self.through("events", self.inner.events(id)).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<Job>> {
        self.through("get", self.inner.get(id)).await
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        self.through("list", self.inner.list(query)).await
    }

    async fn executions(&self, query: &ExecutionsQuery) -> Result<Executions> {
        self.through("executions", self.inner.executions(query)).await
    }

    async fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        self.through("have_executions", self.inner.have_executions(ids)).await
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>> {
        self.through("counts", self.inner.counts()).await
    }

    async fn names(&self) -> Result<Vec<NameStats>> {
        self.through("names", self.inner.names()).await
    }

    async fn explain(&self, id: &JobId, code: &Arc<[NameAsk]>, now: Time) -> Result<Option<Waiting>> {
        self.through("explain", self.inner.explain(id, code, now)).await
    }

    async fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>> {
        self.through("minutes", self.inner.minutes(name, from)).await
    }

    async fn beat(&self, node: Option<&Node>, now: Time) -> Result<Vec<Node>> {
        self.through("beat", self.inner.beat(node, now)).await
    }

    fn notices(&self) -> &Arc<Notices> {
        self.inner.notices()
    }

    async fn audit(&self) -> Result<Vec<String>> {
        self.through("audit", self.inner.audit()).await
    }

    async fn dump(&self) -> Result<String> {
        self.through("dump", self.inner.dump()).await
    }
}
