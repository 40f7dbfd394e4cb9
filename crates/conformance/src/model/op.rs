//! One operation: a call of a store with all its arguments, and its answer in a form that two stores can be compared by.

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::policy::{Policy, PolicyEvent, Tick};
use jobservice_core::store::{
    Act, Acted, Action, CheckedIn, Claim, Controlled, Deleted, Extended, Finished, Fired, Inserted, JobEvents, Minute,
    NameAsk, NameOptions, NameStats, NewJob, Node, OptionsChange, OutboxEntry, PolicyPut, PolicyQuery, Query, Report,
    Resent, Result, Settled, Store, Swept, Waiting,
};
use jobservice_core::{JobId, Name, PoolId, Time};

/// A call of a store, or a step of the clock.
///
/// A prune goes on until there is no more to do, because which of the records past their time go first is nobody's
/// business. The same holds for the order of jobs that are taken for hook delivery at the same instant.
#[derive(Clone, Debug)]
pub enum Op {
    /// Time passes.
    Advance(Duration),
    /// [`Store::insert`].
    Insert(Vec<NewJob>),
    /// [`Store::claim`].
    Claim(Claim),
    /// [`Store::extend`].
    Extend {
        /// Whose.
        pool: PoolId,
        /// Which.
        leases: Vec<LeaseKey>,
        /// Until when.
        until: Time,
    },
    /// [`Store::finish`].
    Finish(Vec<Report>),
    /// [`Store::release`].
    Release {
        /// Which.
        leases: Vec<LeaseKey>,
        /// For the backoff of one that counts as a failure.
        jitter: u32,
    },
    /// [`Store::check_in`].
    CheckIn {
        /// Of which run.
        lease: LeaseKey,
        /// What it says.
        message: Arc<str>,
    },
    /// [`Store::control`].
    Control {
        /// Of which job or policy.
        id: JobId,
        /// What.
        action: Action,
    },
    /// [`Store::delete`].
    Delete(JobId),
    /// [`Store::act`].
    Act {
        /// On which jobs.
        ids: Vec<JobId>,
        /// Which of them are meant.
        filter: Query,
        /// What is done.
        act: Act,
    },
    /// [`Store::set_options`].
    SetOptions {
        /// Of which name.
        name: Name,
        /// What.
        change: OptionsChange,
    },
    /// [`Store::promote`] with this limit.
    Promote(usize),
    /// [`Store::reap`].
    Reap {
        /// At most so many.
        limit: usize,
        /// For the backoff of those that timed out.
        jitter: u32,
    },
    /// [`Store::prune`] with this limit, until there is no more.
    Prune(usize),
    /// [`Store::shrink`] to nothing, at most by so many: what a job takes is each store's own measure.
    Shrink(usize),
    /// [`Store::put_policy`].
    PutPolicy(Box<Policy>),
    /// [`Store::fire`].
    Fire {
        /// Which policy.
        id: JobId,
        /// Which tick.
        tick: Tick,
        /// What it brings.
        executions: Vec<NewJob>,
    },
    /// [`Store::change_policy`].
    ChangePolicy {
        /// Which policy.
        id: JobId,
        /// What happens to it.
        event: PolicyEvent,
    },
    /// [`Store::policies`].
    Policies(PolicyQuery),
    /// [`Store::take_events`] of all jobs whose turn it is.
    TakeEvents {
        /// Until when they are held.
        until: Time,
    },
    /// [`Store::settle_event`].
    Settle {
        /// Of which job.
        id: JobId,
        /// Up to which event.
        seq: u32,
        /// What became of it.
        settled: Settled,
    },
    /// [`Store::resend_event`].
    Resend {
        /// Of which job.
        id: JobId,
        /// Which event.
        seq: u32,
    },
    /// [`Store::events`].
    Kept(JobId),
    /// [`Store::get`].
    Get(JobId),
    /// [`Store::list`], all pages.
    List(Query),
    /// [`Store::counts`].
    Counts,
    /// [`Store::names`].
    Names,
    /// [`Store::explain`], with this limit in the code.
    Explain {
        /// Which job.
        id: JobId,
        /// What the code says.
        code: Arc<[NameAsk]>,
    },
    /// [`Store::minutes`].
    Minutes {
        /// Of which name.
        name: Option<Name>,
        /// From when on.
        from: Time,
    },
    /// [`Store::beat`].
    Beat(Option<Node>),
}

/// What a store says to an [`Op`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To what has no answer.
    Nothing,
    /// To an insert.
    Inserted(Vec<Inserted>),
    /// To a claim.
    Claimed(Vec<Job>),
    /// To an extend, the unlisted leases in the order of their jobs.
    Extended(Extended),
    /// To a finish or release.
    Finished(Vec<Finished>),
    /// To a check-in.
    CheckedIn(CheckedIn),
    /// To a control.
    Controlled(Controlled),
    /// To a delete.
    Deleted(Deleted),
    /// To an act on many.
    Acted(Vec<Acted>),
    /// To new options.
    Options(NameOptions),
    /// To a sweep: how many it moved, and whether there is more.
    Swept(usize, bool),
    /// To a shrink: which jobs went, in their order, and whether there is more.
    Shrunk(Vec<JobId>, bool),
    /// To a prune: how many it moved in all, and which jobs went, in the order of their ids.
    Pruned(usize, Vec<JobId>),
    /// To a put.
    PolicyPut(PolicyPut),
    /// To a fire.
    Fired(Fired),
    /// To a change of a policy.
    Policy(Option<Box<Policy>>),
    /// To a look at policies.
    Policies(Vec<Policy>),
    /// To a wish to send again.
    Resent(Resent),
    /// To a look at events.
    Kept(Vec<OutboxEntry>),
    /// To a take, in the order of the jobs.
    Events(Vec<JobEvents>),
    /// To a get.
    Job(Option<Box<Job>>),
    /// To a list.
    Jobs(Vec<Job>),
    /// How many jobs of each status there are; those of which there are none left out.
    Counts(Vec<(Status, u64)>),
    /// The names, in their order.
    Names(Vec<NameStats>),
    /// Why a job waits.
    Waiting(Option<Waiting>),
    /// The minutes.
    Minutes(Vec<Minute>),
    /// The nodes, in the order of their pools.
    Nodes(Vec<Node>),
}

/// More calls than any sweep of the model needs: one that never ends is a failure.
const SWEEPS_MAX: usize = 10_000;

impl Op {
    /// Asks `store`, at `now`.
    pub async fn ask(&self, store: &Arc<dyn Store>, now: Time) -> Result<Answer> {
        Ok(match self.clone() {
            Op::Advance(_) => Answer::Nothing,
            Op::Insert(jobs) => Answer::Inserted(store.insert(jobs, now).await?),
            Op::Claim(claim) => Answer::Claimed(store.claim(&claim, now).await?),
            Op::Extend { pool, leases, until } => {
                let mut extended = store.extend(&pool, &leases, until, now).await?;
                extended.unlisted.sort_by(|a, b| a.id.cmp(&b.id));
                Answer::Extended(extended)
            }
            Op::Finish(reports) => Answer::Finished(store.finish(reports, now).await?),
            Op::Release { leases, jitter } => Answer::Finished(store.release(leases, jitter, now).await?),
            Op::CheckIn { lease, message } => Answer::CheckedIn(store.check_in(&lease, message, now).await?),
            Op::Control { id, action } => Answer::Controlled(store.control(&id, action, now).await?),
            Op::Delete(id) => Answer::Deleted(store.delete(&id, now).await?),
            Op::Act { ids, filter, act } => Answer::Acted(store.act(&ids, &filter, act, now).await?),
            Op::SetOptions { name, change } => Answer::Options(store.set_options(&name, change, now).await?),
            Op::Promote(limit) => {
                let Swept { moved, more, .. } = store.promote(limit, now).await?;
                Answer::Swept(moved, more)
            }
            Op::Reap { limit, jitter } => {
                let Swept { moved, more, .. } = store.reap(limit, jitter, now).await?;
                Answer::Swept(moved, more)
            }
            Op::Prune(limit) => prune(store, limit, now).await?,
            Op::Shrink(limit) => {
                let Swept { removed, more, .. } = store.shrink(0, limit, now).await?;
                Answer::Shrunk(removed, more)
            }
            Op::PutPolicy(policy) => Answer::PolicyPut(store.put_policy(*policy, now).await?),
            Op::Fire { id, tick, executions } => Answer::Fired(store.fire(&id, &tick, executions, now).await?),
            Op::ChangePolicy { id, event } => {
                Answer::Policy(store.change_policy(&id, &event, now).await?.map(Box::new))
            }
            Op::Policies(query) => Answer::Policies(store.policies(&query).await?),
            Op::TakeEvents { until } => {
                let mut events = store.take_events(10_000, until, now).await?;
                events.sort_by(|a, b| a.job.id.cmp(&b.job.id));
                Answer::Events(events)
            }
            Op::Settle { id, seq, settled } => {
                store.settle_event(&id, seq, settled, now).await?;
                Answer::Nothing
            }
            Op::Resend { id, seq } => Answer::Resent(store.resend_event(&id, seq, now).await?),
            Op::Kept(id) => Answer::Kept(store.events(&id).await?),
            Op::Get(id) => Answer::Job(store.get(&id).await?.map(Box::new)),
            Op::List(query) => {
                let newest_first = query.name.is_some() || query.tag.is_some() || query.upstream.is_some();
                let newest_first = newest_first || (query.status.is_none() && !query.retrying);
                let mut jobs = crate::bench::list_all(store, query).await;
                if newest_first {
                    assert!(jobs.is_sorted_by(|a, b| a.spec.enqueued_at >= b.spec.enqueued_at), "newest first");
                    // Which of two submissions of one instant is newer is the store's to say.
                    jobs.sort_by(|a, b| (b.spec.enqueued_at, &b.id).cmp(&(a.spec.enqueued_at, &a.id)));
                }
                Answer::Jobs(jobs)
            }
            Op::Counts => {
                let mut counts = store.counts().await?;
                counts.retain(|(_, count)| *count > 0);
                counts.sort();
                Answer::Counts(counts)
            }
            Op::Names => {
                let mut names = store.names().await?;
                names.sort_by(|a, b| a.name.cmp(&b.name));
                Answer::Names(names)
            }
            Op::Explain { id, code } => Answer::Waiting(store.explain(&id, &code, now).await?),
            Op::Minutes { name, from } => Answer::Minutes(store.minutes(name.as_ref(), from).await?),
            Op::Beat(node) => {
                let mut nodes = store.beat(node.as_ref(), now).await?;
                nodes.sort_by(|a, b| a.pool.cmp(&b.pool));
                Answer::Nodes(nodes)
            }
        })
    }
}

async fn prune(store: &Arc<dyn Store>, limit: usize, now: Time) -> Result<Answer> {
    let (mut moved, mut removed) = (0, Vec::new());
    for _ in 0..SWEEPS_MAX {
        let swept = store.prune(limit, now).await?;
        moved += swept.moved;
        removed.extend(swept.removed);
        if !swept.more {
            removed.sort();
            return Ok(Answer::Pruned(moved, removed));
        }
    }
    panic!("a prune that always has more to do");
}

impl Answer {
    /// Whether a store may give this answer where the reference gives `reference`: the same, but that it may believe
    /// that there is more to sweep when it was just the limit.
    pub fn agrees(&self, reference: &Answer) -> bool {
        match (self, reference) {
            (Answer::Swept(moved, more), Answer::Swept(expected, expects_more)) => {
                moved == expected && (*more || !expects_more)
            }
            (answer, reference) => answer == reference,
        }
    }
}
