//! The sweep that fires policies: each tick makes its executions once, whichever node comes first.
//!
//! A round pages over the policies that are due, works out what each asks for, and fires many at once, so that they share
//! commits. What two nodes, or a repeated round, fire twice is found stale by the store's compare-and-set of the due
//! time; a crash leaves a tick fired or due. Then it sleeps until the next policy is due, as far as the store knows, or
//! until it is told that one was put or changed; it looks each second at the latest, for hints may be lost.
//!
//! A policy that cannot fire holds up no other: why is kept with it and shown, and it is tried again each second. One
//! whose overlap rule makes it wait is tried again when an execution ends, and each second as well.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use jobservice_core::cron::{Schedule, plan_tick, ticks_of};
use jobservice_core::policy::{Policy, PolicyEvent, Tick};
use jobservice_core::store::{Fired, NewJob, PolicyQuery, Result, StoreError};
use jobservice_core::{JobId, Store, Time, limits};
use parking_lot::Mutex;

use super::{Maintenance, PAUSE_MIN, Trouble};
use crate::wait;

/// The name of this sweep in the log.
#[derive(Debug)]
struct Fire;

/// What became of one policy that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its tick was fired or skipped, here or elsewhere.
    Done,
    /// Its tick waits for an execution to end.
    Waits,
    /// It cannot fire; why was noted.
    Failed,
}

impl Maintenance {
    pub(super) async fn fire(&self) {
        let mut trouble = Trouble::default();
        let schedules = Schedules::default();
        loop {
            // Register before looking: a policy put between the look and the wait would be late by up to a second.
            let put = self.store.notices().policies();
            let ended = self.store.notices().executions();
            let (now, wall) = (self.clock.now(), self.clock.wall());
            match self.fire_due(&schedules, wall).await {
                Ok((waits, next_at)) => {
                    trouble.over(Fire);
                    // Ticks are of the wall clock, waiting is of the steady one.
                    let pause = next_at.map_or(self.times.fire, |next_at| next_at.since(wall).min(self.times.fire));
                    let look_at = now + pause.max(PAUSE_MIN);
                    tokio::select! {
                        () = wait::until(&self.clock, look_at) => {}
                        // Many puts in a row make one look, not one each.
                        () = put => wait::pause(PAUSE_MIN).await,
                        () = ended, if waits => wait::pause(PAUSE_MIN).await,
                    }
                }
                Err(error) => trouble.wait(Fire, &error).await,
            }
        }
    }

    /// Fires all that is due by the wall clock, which cron texts follow. Answers whether a tick waits for an execution to end, and when the next is due.
    async fn fire_due(&self, schedules: &Schedules, now: Time) -> Result<(bool, Option<Time>)> {
        schedules.refresh(now);
        let mut waits = false;
        let mut after: Option<JobId> = None;
        loop {
            let limit = limits::POLICIES_PAGE;
            let query = PolicyQuery { due_by: Some(now), after, limit, ..PolicyQuery::default() };
            let page = self.store.policies(&query).await?;
            let is_last = page.len() < limit;
            after = page.last().map(|policy| policy.id.clone());
            let mut fates = stream::iter(page)
                .map(|policy| self.fire_one(schedules, policy))
                .buffer_unordered(limits::FIRES_AT_ONCE);
            while let Some(fate) = fates.next().await {
                waits |= fate? == Fate::Waits;
            }
            if is_last {
                return Ok((waits, self.store.next_due(now).await?));
            }
        }
    }

    /// An error means that the store is ill, and others could not fire either.
    async fn fire_one(&self, schedules: &Schedules, policy: Policy) -> Result<Fate> {
        // Planning after an outage walks over many ticks: the other sweeps, on the same thread, get their turn in between.
        tokio::task::yield_now().await;
        let now = self.clock.wall();
        let (tick, executions) = match plan(schedules, &policy, &*self.store, now) {
            Ok(Some(planned)) => planned,
            Ok(None) => return Ok(Fate::Done),
            Err(problem) => return self.failed(&policy, &problem, now).await,
        };
        match self.store.fire(&policy.id, &tick, executions, now).await {
            Ok(Fired::Waiting) => Ok(Fate::Waits),
            Ok(Fired::Fired(_) | Fired::Skipped | Fired::Stale) => Ok(Fate::Done),
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Poisoned)) => Err(error),
            Err(StoreError::Full) => {
                self.failed(&policy, &StoreError::Full.to_string(), now).await?;
                Err(StoreError::Full)
            }
            Err(error) => self.failed(&policy, &error.to_string(), now).await,
        }
    }

    /// Notes with the policy why it does not fire, for people to see. Its due time stands.
    async fn failed(&self, policy: &Policy, problem: &str, now: Time) -> Result<Fate> {
        if policy.state.error.as_deref() != Some(problem) {
            let (id, name) = (&policy.id, &policy.spec.name);
            tracing::warn!(policy.id = %id, job.name = %name, problem, "policy {id} cannot fire: {problem}");
            let problem = limits::cut(problem, limits::ERROR_BYTES_MAX).into();
            match self.store.change_policy(&policy.id, &PolicyEvent::FireFailed(problem), now).await {
                // Only this record is ill: the log has told of it, and the audit will.
                Ok(_) | Err(StoreError::Damaged { .. } | StoreError::Contended { .. } | StoreError::Invalid(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Fate::Failed)
    }
}

/// What a due policy asks for: the tick, and its executions. None if it is not due any more.
fn plan(
    schedules: &Schedules,
    policy: &Policy,
    store: &dyn Store,
    now: Time,
) -> std::result::Result<Option<(Tick, Vec<NewJob>)>, String> {
    let schedule = schedules.get(policy)?;
    let Some(tick) = plan_tick(policy, &schedule, now) else { return Ok(None) };
    let mut executions = Vec::with_capacity(tick.executions);
    for at in ticks_of(&tick, &schedule, now) {
        let execution =
            policy.execution(store.new_id(&policy.spec.name), at, now).map_err(|error| error.to_string())?;
        executions.push(NewJob::from(execution));
    }
    Ok(Some((tick, executions)))
}

/// Schedules that were read before: reading one costs more than firing it, and many policies have the same.
#[derive(Default)]
struct Schedules(Mutex<Read>);

#[derive(Default)]
struct Read {
    by_text: HashMap<(Arc<str>, Arc<str>), Arc<Schedule>>,
    since: Option<Time>,
}

/// More are forgotten together: it only costs their reading again.
const SCHEDULES_KEPT: usize = 4096;

/// The rules of time zones change, and the system's tables with them: nothing is remembered for longer than this.
const SCHEDULES_KEPT_FOR: std::time::Duration = std::time::Duration::from_secs(3600);

impl Schedules {
    fn refresh(&self, now: Time) {
        let mut read = self.0.lock();
        if read.since.is_none_or(|since| now.since(since) > SCHEDULES_KEPT_FOR) {
            read.by_text.clear();
            read.since = Some(now);
        }
    }

    fn get(&self, policy: &Policy) -> std::result::Result<Arc<Schedule>, String> {
        let key = (Arc::clone(&policy.spec.cron), Arc::clone(&policy.spec.timezone));
        let mut read = self.0.lock();
        if let Some(schedule) = read.by_text.get(&key) {
            return Ok(Arc::clone(schedule));
        }
        let schedule = Arc::new(Schedule::parse(&key.0, &key.1).map_err(|error| error.to_string())?);
        if read.by_text.len() >= SCHEDULES_KEPT {
            read.by_text.clear();
        }
        read.by_text.insert(key, Arc::clone(&schedule));
        Ok(schedule)
    }
}
