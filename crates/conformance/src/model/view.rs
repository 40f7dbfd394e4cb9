//! What the generator and the coverage see of the reference before an operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::limits::LIST_MAX;
use jobservice_core::policy::Policy;
use jobservice_core::store::{PolicyQuery, Query, Store};
use jobservice_core::{JobId, PoolId};

use crate::rng::Rng;

/// All records.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// The policies.
    pub policies: BTreeMap<JobId, Policy>,
}

impl View {
    /// All that `store` holds.
    pub async fn of(store: &Arc<dyn Store>) -> View {
        let jobs = crate::bench::list_all(store, Query { limit: LIST_MAX, ..Query::default() }).await;
        let policies = store.policies(&PolicyQuery { limit: 10_000, ..PolicyQuery::default() }).await.unwrap();
        View {
            jobs: jobs.into_iter().map(|job| (job.id.clone(), job)).collect(),
            policies: policies.into_iter().map(|policy| (policy.id.clone(), policy)).collect(),
        }
    }

    /// The runs: who has which lease.
    pub fn runs(&self) -> Vec<(PoolId, LeaseKey)> {
        let running = self.jobs.values().filter(|job| job.state.status == Status::Running);
        running.filter_map(|job| Some((job.state.lease.as_ref()?.pool.clone(), job.lease_key()?))).collect()
    }

    /// The job of this name; none if there is none (any more). Scenarios have a name of their own for their one job.
    pub fn named(&self, name: &str) -> Option<&Job> {
        self.jobs.values().find(|job| job.spec.name.as_str() == name)
    }

    /// One of the jobs that are so.
    pub fn pick(&self, rng: &mut Rng, is_so: impl Fn(&Job) -> bool) -> Option<&Job> {
        let jobs: Vec<&Job> = self.jobs.values().filter(|job| is_so(job)).collect();
        rng.pick(&jobs).copied()
    }
}
