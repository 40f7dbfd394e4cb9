//! Hints pushed within a process, so that nobody has to poll.
//!
//! A notice may be early, late, doubled or missing; who acts on one looks at the store. Every store owns one
//! [`Notices`] and speaks through it after a commit; one that is shared by several processes feeds it from its channel.
//! Who waits registers *before* looking: otherwise a change between the look and the wait would be slept through.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, futures::OwnedNotified};

use crate::job::{LeaseKey, Signal};
use crate::{JobId, PoolId};

/// A running job was asked to stop or cancel.
#[derive(Clone, Debug)]
pub struct SignalNotice {
    /// The pool that runs it.
    pub pool: PoolId,
    /// The run.
    pub lease: LeaseKey,
    /// What it is asked.
    pub signal: Signal,
}

/// How many signals a slow pool may lag behind before it misses some; its next extend tells it all the same.
const SIGNALS_MAX: usize = 1024;

/// The hints of one store.
#[derive(Debug)]
pub struct Notices {
    ready: Arc<Notify>,
    events: Arc<Notify>,
    policies: Arc<Notify>,
    executions: Arc<Notify>,
    signals: broadcast::Sender<SignalNotice>,
    watched: Mutex<HashMap<JobId, Watched>>,
    watchers: AtomicUsize,
}

#[derive(Debug)]
struct Watched {
    notify: Arc<Notify>,
    count: usize,
}

impl Default for Notices {
    fn default() -> Self {
        Notices {
            ready: Arc::default(),
            events: Arc::default(),
            policies: Arc::default(),
            executions: Arc::default(),
            signals: broadcast::channel(SIGNALS_MAX).0,
            watched: Mutex::default(),
            watchers: AtomicUsize::new(0),
        }
    }
}

impl Notices {
    /// Resolves when jobs may have become ready after this call. Does not need to be polled to be registered.
    pub fn ready(&self) -> OwnedNotified {
        Arc::clone(&self.ready).notified_owned()
    }

    /// Resolves when hook events may have become deliverable after this call.
    pub fn events(&self) -> OwnedNotified {
        Arc::clone(&self.events).notified_owned()
    }

    /// Resolves when a policy may be due earlier than was known before this call.
    pub fn policies(&self) -> OwnedNotified {
        Arc::clone(&self.policies).notified_owned()
    }

    /// Resolves when an execution has become final after this call: a tick may have waited for it.
    pub fn executions(&self) -> OwnedNotified {
        Arc::clone(&self.executions).notified_owned()
    }

    /// Receives the signals given from now on.
    pub fn signals(&self) -> broadcast::Receiver<SignalNotice> {
        self.signals.subscribe()
    }

    /// Watches one job: each change of its status after this call wakes the watch.
    pub fn watch(self: &Arc<Self>, id: &JobId) -> Watch {
        let mut watched = self.watched.lock();
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let entry = watched.entry(id.clone()).or_insert_with(|| Watched { notify: Arc::new(Notify::new()), count: 0 });
        entry.count += 1;
        Watch { notices: Arc::clone(self), id: id.clone(), notify: Arc::clone(&entry.notify) }
    }

    /// Tells that jobs may have become ready.
    pub fn tell_ready(&self) {
        self.ready.notify_waiters();
    }

    /// Tells that hook events may have become deliverable.
    pub fn tell_events(&self) {
        self.events.notify_waiters();
    }

    /// Tells that a policy was put or changed.
    pub fn tell_policies(&self) {
        self.policies.notify_waiters();
    }

    /// Tells that an execution has become final.
    pub fn tell_executions(&self) {
        self.executions.notify_waiters();
    }

    /// Tells that a running job was signalled.
    pub fn tell_signal(&self, notice: SignalNotice) {
        // Nobody listening is no error: the pool may be gone.
        drop(self.signals.send(notice));
    }

    /// Whether anybody watches any job: lets a store skip [`Notices::tell_changed`] on its hot path.
    pub fn has_watchers(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// Tells all who watch a job to look: a store does so when it may have missed changes.
    pub fn tell_watchers(&self) {
        if self.has_watchers() {
            self.watched.lock().values().for_each(|watched| watched.notify.notify_waiters());
        }
    }

    /// Tells that a job's status changed.
    pub fn tell_changed(&self, id: &JobId) {
        if self.has_watchers()
            && let Some(watched) = self.watched.lock().get(id)
        {
            watched.notify.notify_waiters();
        }
    }
}

/// A watch on one job. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    notices: Arc<Notices>,
    id: JobId,
    notify: Arc<Notify>,
}

impl Watch {
    /// Resolves when the job changed after this call. Call it before looking at the job.
    pub fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.notices.watched.lock();
        self.notices.watchers.fetch_sub(1, Ordering::SeqCst);
        if let Some(entry) = watched.get_mut(&self.id) {
            entry.count -= 1;
            if entry.count == 0 {
                watched.remove(&self.id);
            }
        }
    }
}
