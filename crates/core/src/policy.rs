//! Periodic jobs: a policy is the template of jobs that run on a cron schedule. It never runs itself.
//!
//! A tick is one due time. `fire` is one atomic step of the store: it compares the policy's due time with the one that
//! the caller saw, inserts the executions, and moves the due time on. So a tick fires once on any number of nodes
//! without a leader, and a crash leaves either the whole step or nothing. This module is the rule book of policies, as
//! [`crate::lifecycle`] is that of jobs.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::{Job, Kind, Retention, Signal, Spec, Status};
use crate::unique::{self, JsonError, Scope, Unique};
use crate::{JobId, Name, Time};

/// A periodic job's template and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its id, in the same space as the ids of jobs.
    pub id: JobId,
    /// What was asked for; replaced as a whole by an upsert with the same `schedule_key`.
    pub spec: Arc<PolicySpec>,
    /// What became of it.
    pub state: PolicyState,
}

/// What makes a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The name that makes a second submission an update of the first.
    pub schedule_key: Option<Arc<str>>,
    /// Which code its executions run.
    pub name: Name,
    /// Their input, JSON text as given.
    pub parameters: Arc<str>,
    /// When they run: see [`crate::cron`].
    pub cron: Arc<str>,
    /// The IANA time zone of the cron text; UTC by default.
    pub timezone: Arc<str>,
    /// What happens to ticks that were missed.
    pub misfire: Misfire,
    /// What happens to a tick while an earlier execution is not final.
    pub overlap: Overlap,
    /// Priority of the executions.
    pub priority: u8,
    /// `max_fails` of the executions.
    pub max_fails: u32,
    /// Timeout of the executions.
    pub timeout: Option<Duration>,
    /// Hook of the executions.
    pub hook: Option<Arc<str>>,
    /// Whether its executions are unique, and how long each holds the key.
    pub unique: Option<Scope>,
    /// What makes its executions the same as other jobs instead of the parameters, if they are unique.
    pub unique_key: Option<Arc<str>>,
    /// Tags of the executions.
    pub tags: Vec<Arc<str>>,
    /// Retention of the executions.
    pub retention: Retention,
}

/// What becomes of ticks that were missed while nobody could fire them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Misfire {
    /// They are skipped and counted.
    Skip,
    /// One execution makes up for all of them.
    #[default]
    Last,
    /// Each gets its execution, up to [`crate::limits::MISFIRE_ALL_MAX`].
    All,
}

/// What becomes of a tick while an earlier execution is not final yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It fires all the same, as in the original.
    #[default]
    Allow,
    /// It is skipped and counted.
    Skip,
    /// Its due time stands until the earlier execution is final; then the misfire rule decides.
    Queue,
    /// The earlier executions are stopped and it fires.
    Replace,
}

/// What changes in a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyState {
    /// How it was ended, if it was.
    pub ended: Option<Signal>,
    /// Whether an operator paused it: it stays, but does not fire.
    pub paused: bool,
    /// Rises with each change.
    pub version: u64,
    /// The next tick; none if it has ended or its spec has no further time.
    pub next_due: Option<Time>,
    /// The last tick that fired.
    pub last_fired: Option<Time>,
    /// Executions made so far.
    pub fired: u64,
    /// Ticks skipped by misfire or overlap.
    pub skipped: u64,
    /// Why the last attempt to fire failed, until one succeeds.
    pub error: Option<Arc<str>>,
    /// When it was first submitted.
    pub enqueued_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl Policy {
    /// A policy as it is submitted at `now`.
    pub fn submitted(id: JobId, spec: PolicySpec, next_due: Option<Time>, now: Time) -> Policy {
        let state = PolicyState {
            ended: None,
            paused: false,
            version: 1,
            next_due,
            last_fired: None,
            fired: 0,
            skipped: 0,
            error: None,
            enqueued_at: now,
            updated_at: now,
        };
        Policy { id, spec: Arc::new(spec), state }
    }

    /// The status that is shown for it: scheduled while active, else stopped or cancelled.
    pub fn status(&self) -> Status {
        self.state.ended.map_or(Status::Scheduled, Signal::status)
    }

    /// Whether it fires when its time comes.
    pub fn is_active(&self) -> bool {
        self.state.ended.is_none() && !self.state.paused
    }

    /// An execution of it for the tick at `tick`, to be inserted by [`crate::Store::fire`], or beside the ticks.
    ///
    /// # Errors
    /// If the parameters are not JSON that can be compared, which a unique job needs.
    pub fn execution(&self, id: JobId, tick: Time, now: Time) -> Result<Job, JsonError> {
        let PolicySpec { name, parameters, unique, unique_key, .. } = &*self.spec;
        let unique = match (unique, unique_key) {
            (None, _) => None,
            (Some(scope), Some(key)) => Some(Unique { digest: unique::digest_key(name, key), scope: *scope }),
            (Some(scope), None) => Some(Unique { digest: unique::digest(name, parameters)?, scope: *scope }),
        };
        let spec = Spec { unique, upstream: Some(self.id.clone()), enqueued_at: now, ..self.job_spec(Kind::Scheduled) };
        Ok(Job::submitted(id, spec, Some(tick), now))
    }

    /// How it looks among jobs: one of kind Periodic that is due at its next tick and never runs itself. No store keeps
    /// such a job.
    pub fn as_job(&self) -> Job {
        let PolicyState { ended, error, enqueued_at, updated_at, version, .. } = &self.state;
        let run_at = self.state.next_due.filter(|_| self.is_active());
        let mut job = Job::submitted(self.id.clone(), self.job_spec(Kind::Periodic), run_at, *enqueued_at);
        job.state.status = self.status();
        job.state.version = *version;
        job.state.error.clone_from(error);
        job.state.updated_at = *updated_at;
        job.state.finished_at = ended.map(|_| *updated_at);
        job
    }

    fn job_spec(&self, kind: Kind) -> Spec {
        let spec = &self.spec;
        Spec {
            name: spec.name.clone(),
            kind,
            parameters: Arc::clone(&spec.parameters),
            priority: spec.priority,
            unique: None,
            max_fails: spec.max_fails,
            timeout: spec.timeout,
            hook: spec.hook.clone(),
            upstream: None,
            tags: spec.tags.clone(),
            retention: spec.retention,
            enqueued_at: self.state.enqueued_at,
        }
    }
}

/// What happens to a policy. Its executions are handled by the store in the same step, each through
/// [`crate::lifecycle::decide`].
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyEvent {
    /// It is ended: no further ticks; its waiting executions end, its running ones are signalled.
    End(Signal),
    /// It is made active again from `next_due` on.
    Retry {
        /// The first tick after now.
        next_due: Option<Time>,
    },
    /// An operator pauses or resumes it. Resuming moves the due time to `next_due`: pauses are not made up for.
    Pause {
        /// Whether it is to be paused.
        paused: bool,
        /// The first tick after now.
        next_due: Option<Time>,
    },
    /// Firing failed: shown until it succeeds. The due time stands.
    FireFailed(Arc<str>),
}

/// Decides what `event` does to `policy`; none if there is nothing to change.
pub fn decide(policy: &Policy, event: &PolicyEvent, now: Time) -> Option<PolicyState> {
    let mut state = policy.state.clone();
    match event {
        PolicyEvent::End(signal) => {
            if state.ended.is_some() {
                return None;
            }
            state.ended = Some(*signal);
            state.next_due = None;
        }
        PolicyEvent::Retry { next_due } => {
            state.ended?;
            state.ended = None;
            state.next_due = *next_due;
        }
        PolicyEvent::Pause { paused, next_due } => {
            if state.paused == *paused || state.ended.is_some() {
                return None;
            }
            state.paused = *paused;
            if !paused {
                state.next_due = *next_due;
            }
        }
        PolicyEvent::FireFailed(error) => {
            if state.error.as_ref() == Some(error) {
                return None;
            }
            state.error = Some(Arc::clone(error));
        }
    }
    state.version += 1;
    state.updated_at = now;
    Some(state)
}

/// The new state of a policy that is submitted again under its `schedule_key`; none if nothing differs.
pub fn upsert(stored: &Policy, spec: &PolicySpec, next_due: Option<Time>, now: Time) -> Option<PolicyState> {
    if *stored.spec == *spec && stored.state.ended.is_none() {
        return None;
    }
    let same_times = stored.spec.cron == spec.cron && stored.spec.timezone == spec.timezone;
    let mut state = stored.state.clone();
    if !same_times || state.ended.is_some() {
        state.next_due = next_due;
    }
    state.ended = None;
    state.version += 1;
    state.updated_at = now;
    Some(state)
}

/// A wish to fire, as the maintenance worked it out from the policy it read.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// The due time it saw: the step happens only if that still stands.
    pub expected_due: Time,
    /// The version of the policy from which the executions were made: with another they would be made of what was replaced
    /// meanwhile, and the step does not happen. None: of whatever version.
    pub version: Option<u64>,
    /// The due time after it.
    pub next_due: Option<Time>,
    /// How many executions it brings along: 1, more under `misfire: all`, 0 if all ticks are to be skipped.
    pub executions: usize,
    /// How many ticks it passes over without an execution.
    pub skipped: u64,
}

/// What a fire step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Firing {
    /// Insert the executions and write this state; stop the earlier executions first if so said.
    Fire {
        /// The policy's new state.
        state: PolicyState,
        /// Whether the executions that are not final are stopped (overlap: replace).
        stops_earlier: bool,
    },
    /// Insert nothing, write this state: the tick was skipped.
    Skip(PolicyState),
    /// Do nothing now: an earlier execution is not final (overlap: queue).
    Wait,
    /// Do nothing: somebody else fired it, or the policy changed, ended or is paused.
    Stale,
}

/// Decides whether `tick` fires, with `live` executions of the policy not final.
pub fn decide_fire(policy: &Policy, tick: &Tick, live: usize, now: Time) -> Firing {
    let is_seen = tick.version.is_none_or(|version| version == policy.state.version);
    if !policy.is_active() || !is_seen || policy.state.next_due != Some(tick.expected_due) || tick.expected_due > now {
        return Firing::Stale;
    }
    let mut state = policy.state.clone();
    state.version += 1;
    state.updated_at = now;
    state.next_due = tick.next_due;
    state.skipped += tick.skipped;
    state.error = None;
    let overlaps = live > 0 && tick.executions > 0;
    match policy.spec.overlap {
        Overlap::Queue if overlaps => Firing::Wait,
        Overlap::Skip if overlaps => {
            state.skipped += tick.executions as u64;
            Firing::Skip(state)
        }
        Overlap::Allow | Overlap::Skip | Overlap::Queue | Overlap::Replace => {
            if tick.executions == 0 {
                return Firing::Skip(state);
            }
            state.last_fired = Some(tick.expected_due);
            state.fired += tick.executions as u64;
            Firing::Fire { state, stops_earlier: overlaps && policy.spec.overlap == Overlap::Replace }
        }
    }
}

/// The state after a fire, once it is known what became of the executions: `state` is from [`Firing::Fire`], `before` what
/// it was made from.
///
/// Executions that the store refused (another job holds their unique key) count as skipped ticks. If none was created
/// the whole tick was skipped: [`PolicyState::last_fired`] stays, and the store answers so.
pub fn count_fired(before: &PolicyState, mut state: PolicyState, created: usize, refused: usize) -> PolicyState {
    state.fired = before.fired + created as u64;
    state.skipped += refused as u64;
    if created == 0 {
        state.last_fired = before.last_fired;
    }
    state
}
