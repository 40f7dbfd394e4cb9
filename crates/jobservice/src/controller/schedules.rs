//! Periodic jobs as clients see them: a policy looks like a job of kind Periodic, and can be paused and run beside its ticks.

use jobservice_core::cron::Schedule;
use jobservice_core::job;
use jobservice_core::policy::{Policy, PolicyEvent};
use jobservice_core::store::{Executions, ExecutionsQuery, NewJob, PolicyPut, PolicyQuery, Result, StoreError};
use jobservice_core::{JobId, Time};

use super::submission::{Put, PutPolicy};
use super::{Controller, SubmitError, Submitted};

/// What an id stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A job.
    Job(Box<job::Job>),
    /// A policy.
    Policy(Box<Policy>),
}

impl Found {
    /// The job, or how the policy looks among jobs.
    pub fn into_job(self) -> job::Job {
        match self {
            Found::Job(job) => *job,
            Found::Policy(policy) => policy.as_job(),
        }
    }
}

impl Controller {
    /// The job or policy of an id.
    pub async fn find(&self, id: &JobId) -> Result<Option<Found>> {
        if let Some(job) = self.inner.store.get(id).await? {
            return Ok(Some(Found::Job(Box::new(job))));
        }
        Ok(self.policy(id).await?.map(|policy| Found::Policy(Box::new(policy))))
    }

    /// The record of a job. A policy looks like a job of kind Periodic: scheduled, stopped or cancelled, and due at its
    /// next tick.
    pub async fn get(&self, id: &JobId) -> Result<Option<job::Job>> {
        Ok(self.find(id).await?.map(Found::into_job))
    }

    /// The policy of an id.
    pub async fn policy(&self, id: &JobId) -> Result<Option<Policy>> {
        let query = PolicyQuery { id: Some(id.clone()), limit: 1, ..PolicyQuery::default() };
        Ok(self.inner.store.policies(&query).await?.pop())
    }

    /// The policy with this `schedule_key`, or else with this id.
    pub async fn schedule(&self, key: &str) -> Result<Option<Policy>> {
        let query = PolicyQuery { schedule_key: Some(key.into()), limit: 1, ..PolicyQuery::default() };
        if let Some(policy) = self.inner.store.policies(&query).await?.pop() {
            return Ok(Some(policy));
        }
        match JobId::new(key) {
            Ok(id) => self.policy(&id).await,
            Err(_) => Ok(None),
        }
    }

    /// Policies in the order of their ids, from the one after `after` on.
    pub async fn schedules(&self, after: Option<JobId>, limit: usize) -> Result<Vec<Policy>> {
        self.inner.store.policies(&PolicyQuery { after, limit, ..PolicyQuery::default() }).await
    }

    /// A page of the executions of a job or policy, newest first.
    pub async fn executions(&self, query: &ExecutionsQuery) -> Result<Executions> {
        self.inner.store.executions(query).await
    }

    /// For each of these jobs whether it has executions.
    pub async fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        self.inner.store.have_executions(ids).await
    }

    /// Pauses a policy, or lets it go on from now: what it missed is not made up for. None if there is none. One that has
    /// ended stays as it is.
    pub async fn pause(&self, id: &JobId, paused: bool) -> Result<Option<Policy>> {
        let next_due = if paused { None } else { self.next_due_of(id).await? };
        self.inner.store.change_policy(id, &PolicyEvent::Pause { paused, next_due }, self.inner.clock.now()).await
    }

    /// Makes one execution of a policy at once, beside its ticks: its due time stays, and it may be paused. Repeating a
    /// call whose answer was lost makes a second one.
    ///
    /// # Errors
    /// [`SubmitError::PolicyEnded`], [`SubmitError::Duplicate`] if its executions are unique and one is not done, and
    /// what keeps the store from taking it.
    pub async fn run_now(&self, policy: &Policy) -> std::result::Result<Submitted, SubmitError> {
        if policy.state.ended.is_some() {
            return Err(SubmitError::PolicyEnded);
        }
        let now = self.inner.clock.now();
        let execution = policy
            .execution(self.inner.store.new_id(&policy.spec.name), now, now)
            .map_err(|error| not_comparable(&error))?;
        let inserted = self.inner.store.insert(vec![NewJob::from(execution.clone())], now).await?.pop();
        self.submitted(execution, inserted).await
    }

    pub(super) async fn put_policy(
        &self,
        policy: Policy,
        warnings: Vec<String>,
    ) -> std::result::Result<Submitted, SubmitError> {
        let (put, id) = match self.inner.store.put_policy(policy.clone(), self.inner.clock.wall()).await? {
            PolicyPut::Created => (Put::Created, None),
            PolicyPut::Updated(id) => (Put::Updated, Some(id)),
            PolicyPut::Unchanged(id) => (Put::Unchanged, Some(id)),
            PolicyPut::IdTaken => return Err(SubmitError::IdTaken),
        };
        let policy = match id {
            None => policy,
            // It may be deleted by now; what was submitted still answers for its id.
            Some(id) => self.policy(&id).await?.unwrap_or(Policy { id, ..policy }),
        };
        Ok(Submitted { job: policy.as_job(), repeated: false, policy: Some(PutPolicy { policy, put }), warnings })
    }

    /// The first tick after now of the policy with this id; none if there is no such policy.
    pub(super) async fn next_due_of(&self, id: &JobId) -> Result<Option<Time>> {
        let Some(policy) = self.policy(id).await? else { return Ok(None) };
        let schedule = Schedule::parse(&policy.spec.cron, &policy.spec.timezone);
        let schedule = schedule.map_err(|error| StoreError::Invalid(format!("the cron text of {id}: {error}")))?;
        Ok(schedule.next_after(self.inner.clock.wall()))
    }
}

fn not_comparable(error: &jobservice_core::unique::JsonError) -> SubmitError {
    SubmitError::Invalid(vec![super::FieldError {
        field: "parameters".to_owned(),
        problem: error.to_string(),
        remedy: "a unique job needs parameters that can be compared".to_owned(),
    }])
}
