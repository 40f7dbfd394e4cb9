//! The leases of this pool: every run from its claim until its end is known to be in the store.
//!
//! Who asks: the fetcher (adds, removes), the keeper (extends all of them, finds the one that is signalled, looks for
//! those whose time is over). The lock is taken once for a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jobservice_core::job::{LeaseKey, Signal};
use jobservice_core::{Time, limits};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::run::Run;

/// Signals for runs of which the claim has not been answered yet; more than these come with the next extend.
const EARLY_MAX: usize = 64;

/// The leases of this pool.
#[derive(Default)]
pub(crate) struct Table {
    inner: Mutex<Inner>,
    look: Notify,
    /// When the keeper looks next, in milliseconds.
    look_at: AtomicI64,
}

#[derive(Default)]
struct Inner {
    runs: Vec<Arc<Run>>,
    suspects: usize,
    /// Nonces of the claims that are not answered. Their leases look unlisted to an extend and are not.
    claims: Vec<u64>,
    early: Vec<(LeaseKey, Signal)>,
    /// Leases of runs whose ends the store cannot take. They look unlisted too, and nobody may run their jobs at once.
    /// With the time of that.
    abandoned: Vec<(LeaseKey, Time)>,
}

impl Table {
    // ---- the fetcher ----

    /// A claim with this nonce is on its way.
    pub(crate) fn claiming(&self, nonce: u64) {
        self.inner.lock().claims.push(nonce);
    }

    /// The claim is answered with these runs (none if it failed). Answers with the signals that came before the answer.
    pub(crate) fn claimed(&self, nonce: u64, runs: &[Arc<Run>]) -> Vec<(Arc<Run>, Signal)> {
        let mut inner = self.inner.lock();
        inner.claims.retain(|other| *other != nonce);
        for run in runs {
            run.set_place(inner.runs.len());
            inner.suspects += usize::from(run.is_suspect());
            inner.runs.push(Arc::clone(run));
        }
        let early = std::mem::take(&mut inner.early);
        let mut signals = Vec::new();
        for (lease, signal) in early {
            match runs.iter().find(|run| *run.lease() == lease) {
                Some(run) => signals.push((Arc::clone(run), signal)),
                None if !inner.claims.is_empty() => inner.early.push((lease, signal)),
                None => {}
            }
        }
        drop(inner);
        if let Some(at) = runs.iter().filter_map(|run| run.timeout_at()).min() {
            self.look_by(at);
        }
        signals
    }

    /// The ends of these runs are in the store, or can never be.
    pub(crate) fn remove<'a>(&self, runs: impl IntoIterator<Item = &'a Arc<Run>>) {
        let mut inner = self.inner.lock();
        for run in runs {
            let place = run.place();
            if inner.runs.get(place).is_none_or(|found| !Arc::ptr_eq(found, run)) {
                continue;
            }
            let run = inner.runs.swap_remove(place);
            inner.suspects -= usize::from(run.is_suspect());
            if let Some(moved) = inner.runs.get(place) {
                moved.set_place(place);
            }
        }
    }

    /// The store cannot take the ends of these runs: their leases are left to the reaper.
    pub(crate) fn abandon<'a>(&self, runs: impl IntoIterator<Item = &'a Arc<Run>> + Clone, now: Time) {
        self.leave_to_reaper(runs.clone().into_iter().map(|run| run.lease().clone()), now);
        self.remove(runs);
    }

    fn leave_to_reaper(&self, leases: impl Iterator<Item = LeaseKey>, now: Time) {
        self.inner.lock().abandoned.extend(leases.map(|lease| (lease, now)));
    }

    /// Whether one of the runs crashed before.
    pub(crate) fn has_suspect(&self) -> bool {
        self.inner.lock().suspects > 0
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.lock().runs.len()
    }

    // ---- the keeper ----

    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        self.inner.lock().runs.clone()
    }

    /// The run that a signal is for. One whose claim is not answered yet gets it with the answer.
    pub(crate) fn find(&self, lease: &LeaseKey, signal: Signal) -> Option<Arc<Run>> {
        let mut inner = self.inner.lock();
        let found = inner.runs.iter().find(|run| run.lease() == lease).cloned();
        if found.is_none() && inner.claims.contains(&lease.nonce) && inner.early.len() < EARLY_MAX {
            inner.early.push((lease.clone(), signal));
        }
        found
    }

    /// Whether this lease, which the store calls unlisted, is nobody's: its claim is over and no run has it.
    pub(crate) fn is_orphan(&self, lease: &LeaseKey) -> bool {
        let inner = self.inner.lock();
        !inner.claims.contains(&lease.nonce)
            && !inner.abandoned.iter().any(|(abandoned, _)| abandoned == lease)
            && !inner.runs.iter().any(|run| run.lease() == lease)
    }

    /// The store named these leases: abandoned ones that it knows no more need not be remembered. Not as soon as one is not
    /// named: a store may name it only the next time. Once its lease is over anybody may give the job back.
    pub(crate) fn unlisted(&self, unlisted: &[LeaseKey], now: Time) {
        let mut inner = self.inner.lock();
        inner.abandoned.retain(|(lease, at)| unlisted.contains(lease) || now < *at + limits::LEASE);
    }

    // ---- when to look for runs whose time is over ----

    /// The keeper has to look by `at`, if it does not mean to anyway.
    pub(crate) fn look_by(&self, at: Time) {
        if at.as_millis() < self.look_at.load(Ordering::Acquire) {
            self.look.notify_one();
        }
    }

    /// The keeper means to look at this time.
    pub(crate) fn looks_at(&self, at: Time) {
        self.look_at.store(at.as_millis(), Ordering::Release);
    }

    /// Resolves when the keeper has to look earlier than it meant to.
    pub(crate) fn look(&self) -> Notified<'_> {
        self.look.notified()
    }
}

#[cfg(test)]
mod tests {
    use jobservice_core::JobId;

    use super::*;

    #[test]
    fn an_abandoned_lease_is_remembered_until_it_is_over_though_an_extend_does_not_name_it() {
        let table = Table::default();
        let lease = LeaseKey { id: JobId::generate(), attempt: 1, nonce: 7 };
        let abandoned_at = Time::from_millis(1000);
        let over = abandoned_at + limits::LEASE;
        assert!(table.is_orphan(&lease));

        table.leave_to_reaper(std::iter::once(lease.clone()), abandoned_at);
        table.unlisted(&[], Time::from_millis(over.as_millis() - 1));
        assert!(!table.is_orphan(&lease), "it may be named again");
        table.unlisted(std::slice::from_ref(&lease), over);
        assert!(!table.is_orphan(&lease), "it is named still");
        table.unlisted(&[], over);

        assert!(table.is_orphan(&lease));
        assert!(table.inner.lock().abandoned.is_empty());
    }
}
