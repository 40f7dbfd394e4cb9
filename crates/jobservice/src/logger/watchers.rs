//! Who follows which log: wakes followers when lines of their job were written by this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jobservice_core::JobId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

#[derive(Debug, Default)]
pub(super) struct Watchers {
    jobs: Mutex<HashMap<JobId, Entry>>,
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Entry {
    notify: Arc<Notify>,
    count: usize,
}

impl Watchers {
    pub(super) fn watch(self: &Arc<Self>, id: &JobId) -> Watcher {
        let mut jobs = self.jobs.lock();
        self.count.fetch_add(1, Ordering::SeqCst);
        let entry = jobs.entry(id.clone()).or_default();
        entry.count += 1;
        Watcher { watchers: Arc::clone(self), id: id.clone(), notify: Arc::clone(&entry.notify) }
    }

    /// Whether anybody follows any log.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub(super) fn tell(&self, id: &JobId) {
        if self.any()
            && let Some(entry) = self.jobs.lock().get(id)
        {
            entry.notify.notify_waiters();
        }
    }
}

/// Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Watcher {
    watchers: Arc<Watchers>,
    id: JobId,
    notify: Arc<Notify>,
}

impl Watcher {
    /// Resolves when lines were written after this call.
    pub(super) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut jobs = self.watchers.jobs.lock();
        self.watchers.count.fetch_sub(1, Ordering::SeqCst);
        if let Some(entry) = jobs.get_mut(&self.id) {
            entry.count -= 1;
            if entry.count == 0 {
                jobs.remove(&self.id);
            }
        }
    }
}
