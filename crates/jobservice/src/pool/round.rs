//! One exchange with the store: what ended, what is given back, and the next claim, sent together.

use std::sync::Arc;

use futures_util::future;
use jobservice_core::job::LeaseKey;
use jobservice_core::lifecycle::Outcome;
use jobservice_core::store::{Claim, Finished, Report, Result, StoreError};
use jobservice_core::{Clock, Job, Store};

use crate::env::random_u32;
use crate::run::Run;

/// What is sent.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) reports: Vec<(Arc<Run>, Outcome)>,
    pub(crate) releases: Vec<Arc<Run>>,
    pub(crate) claim: Option<Claim>,
}

/// What came back, with what was sent: an error means that it is not known what happened, and that all may be sent again.
pub(crate) struct Answers {
    pub(crate) reports: Vec<(Arc<Run>, Outcome)>,
    pub(crate) finished: Result<Vec<Finished>>,
    pub(crate) releases: Vec<Arc<Run>>,
    pub(crate) released: Result<Vec<Finished>>,
    pub(crate) claim: Option<(Claim, Result<Vec<Job>>)>,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.releases.is_empty() && self.claim.is_none()
    }

    /// Sends it. The ends go before the claim, so that a slot of a limited name is free when the claim looks at it; all go
    /// out before the first answer is waited for, so that a store with group commit takes them in one transaction.
    pub(crate) async fn go(self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Answers {
        let Round { reports, releases, claim } = self;
        let now = clock.now();
        let batch =
            reports.iter().map(|(run, outcome)| Report { lease: run.lease().clone(), outcome: outcome.clone() });
        let batch: Vec<Report> = batch.collect();
        let leases: Vec<LeaseKey> = releases.iter().map(|run| run.lease().clone()).collect();
        // Crash here: the outcomes of these runs are lost with us; their leases expire and the jobs run again.
        let (finished, released, claimed) = future::join3(
            async { if batch.is_empty() { Ok(Vec::new()) } else { store.finish(batch, now).await } },
            async { if leases.is_empty() { Ok(Vec::new()) } else { store.release(leases, random_u32(), now).await } },
            async {
                match &claim {
                    Some(claim) => Some(store.claim(claim, now).await),
                    None => None,
                }
            },
        )
        .await;
        // Crash here: the jobs of the claim are Running and nobody runs them. They come back when their leases expire.
        Answers { reports, finished, releases, released, claim: claim.zip(claimed) }
    }
}

/// Whether the store will never answer this process otherwise.
pub(crate) fn is_for_good(error: &StoreError) -> bool {
    matches!(error, StoreError::Poisoned)
}
