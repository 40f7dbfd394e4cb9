//! The sorted sets: which jobs wait, are due, run, are kept, of which name, tag and parent, and who holds which key.
//!
//! They are a function of the records alone ([`Indexes::of`]), which is how the audit finds a wrong one. A job is taken
//! out before its record changes and put back after it, so no set needs to know about transitions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::job::{Index, Job, Status};
use crate::{JobId, Name, PoolId, Time};

/// A job's place in a set that is sorted by a time.
pub(super) type Timed = (Time, JobId);

/// A waiting job's place in the queue of its name: the least is the first to be claimed.
pub(super) type Place = (Reverse<u8>, Time, JobId);

/// All sets. Empty inner sets are removed, so that equal records give equal indexes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Indexes {
    /// Pending jobs, by name.
    pub(super) ready: BTreeMap<Name, Ready>,
    /// Scheduled jobs by due time.
    pub(super) due: BTreeSet<Timed>,
    /// Running jobs by the next time that the service must look at them.
    pub(super) running: BTreeSet<Timed>,
    /// Final jobs by expiry.
    pub(super) kept: BTreeMap<Status, BTreeSet<Timed>>,
    /// All jobs by time of submission.
    pub(super) newest: BTreeSet<Timed>,
    /// The same, by name.
    pub(super) by_name: BTreeMap<Name, BTreeSet<Timed>>,
    /// The same, by tag.
    pub(super) by_tag: BTreeMap<Arc<str>, BTreeSet<Timed>>,
    /// The same, by parent.
    pub(super) by_upstream: BTreeMap<JobId, BTreeSet<Timed>>,
    /// The jobs of a parent that are not final.
    live: BTreeMap<JobId, BTreeSet<JobId>>,
    /// The jobs that a pool runs.
    held: BTreeMap<PoolId, BTreeSet<JobId>>,
    /// Who holds which unique key.
    pub(super) holders: BTreeMap<[u8; 32], JobId>,
    /// How many jobs of a name have a status.
    numbers: BTreeMap<(Name, Status), u64>,
}

/// The queue of one name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ready {
    /// Jobs that never crashed.
    pub(super) sound: BTreeSet<Place>,
    /// Jobs that did: possibly what kills workers.
    pub(super) suspects: BTreeSet<Place>,
}

impl Ready {
    /// The first to be claimed, suspects among them or not.
    pub(super) fn first(&self, suspects: bool) -> Option<&Place> {
        let suspect = if suspects { self.suspects.first() } else { None };
        [self.sound.first(), suspect].into_iter().flatten().min()
    }

    /// All that come after `after`, in the order in which they are claimed.
    pub(super) fn all(&self, after: Option<Place>) -> impl Iterator<Item = &Place> {
        let mut sound = range_after(&self.sound, after.clone()).peekable();
        let mut suspects = range_after(&self.suspects, after).peekable();
        std::iter::from_fn(move || match (sound.peek(), suspects.peek()) {
            (Some(a), Some(b)) if b < a => suspects.next(),
            (None, _) => suspects.next(),
            (Some(_), _) => sound.next(),
        })
    }

    fn set(&mut self, suspect: bool) -> &mut BTreeSet<Place> {
        if suspect { &mut self.suspects } else { &mut self.sound }
    }
}

/// The members of `set` greater than `after`, or all.
pub(super) fn range_after<T: Ord>(set: &BTreeSet<T>, after: Option<T>) -> impl Iterator<Item = &T> {
    use std::ops::Bound::{Excluded, Unbounded};
    set.range::<T, _>((after.map_or(Unbounded, Excluded), Unbounded))
}

impl Indexes {
    /// The indexes of these records.
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a Job>) -> Indexes {
        let mut indexes = Indexes::default();
        jobs.for_each(|job| indexes.add(job));
        indexes
    }

    /// Puts a job where its record says.
    pub(super) fn add(&mut self, job: &Job) {
        let (spec, state, id) = (&job.spec, &job.state, &job.id);
        match job.index() {
            Index::Due { run_at } => {
                self.due.insert((run_at, id.clone()));
            }
            Index::Ready { priority, ready_at, suspect } => {
                let ready = self.ready.entry(spec.name.clone()).or_default();
                ready.set(suspect).insert((Reverse(priority), ready_at, id.clone()));
            }
            Index::Running { reap_at } => {
                self.running.insert((reap_at, id.clone()));
            }
            Index::Final { expires_at } => put(&mut self.kept, &state.status, (expires_at, id.clone())),
        }
        let aged = || (spec.enqueued_at, id.clone());
        self.newest.insert(aged());
        put(&mut self.by_name, &spec.name, aged());
        for tag in &spec.tags {
            put(&mut self.by_tag, tag, aged());
        }
        if let Some(upstream) = &spec.upstream {
            put(&mut self.by_upstream, upstream, aged());
            if !state.status.is_final() {
                put(&mut self.live, upstream, id.clone());
            }
        }
        if let Some(lease) = &state.lease {
            put(&mut self.held, &lease.pool, id.clone());
        }
        if let (true, Some(unique)) = (state.holds_key, spec.unique) {
            self.holders.insert(unique.digest, id.clone());
        }
        *self.numbers.entry((spec.name.clone(), state.status)).or_default() += 1;
    }

    /// Takes a job out of where its record says it is.
    pub(super) fn remove(&mut self, job: &Job) {
        let (spec, state, id) = (&job.spec, &job.state, &job.id);
        match job.index() {
            Index::Due { run_at } => {
                self.due.remove(&(run_at, id.clone()));
            }
            Index::Ready { priority, ready_at, suspect } => {
                if let Some(ready) = self.ready.get_mut(&spec.name) {
                    ready.set(suspect).remove(&(Reverse(priority), ready_at, id.clone()));
                    if ready.first(true).is_none() {
                        self.ready.remove(&spec.name);
                    }
                }
            }
            Index::Running { reap_at } => {
                self.running.remove(&(reap_at, id.clone()));
            }
            Index::Final { expires_at } => take(&mut self.kept, &state.status, &(expires_at, id.clone())),
        }
        let aged = (spec.enqueued_at, id.clone());
        self.newest.remove(&aged);
        take(&mut self.by_name, &spec.name, &aged);
        for tag in &spec.tags {
            take(&mut self.by_tag, tag, &aged);
        }
        if let Some(upstream) = &spec.upstream {
            take(&mut self.by_upstream, upstream, &aged);
            take(&mut self.live, upstream, id);
        }
        if let Some(lease) = &state.lease {
            take(&mut self.held, &lease.pool, id);
        }
        if let (true, Some(unique)) = (state.holds_key, spec.unique)
            && self.holders.get(&unique.digest) == Some(id)
        {
            self.holders.remove(&unique.digest);
        }
        let key = (spec.name.clone(), state.status);
        if let Some(number) = self.numbers.get_mut(&key) {
            *number -= 1;
            if *number == 0 {
                self.numbers.remove(&key);
            }
        }
    }

    /// How many jobs of a name have a status.
    pub(super) fn number(&self, name: &Name, status: Status) -> u64 {
        self.numbers.get(&(name.clone(), status)).copied().unwrap_or(0)
    }

    /// How many jobs there are in each status.
    pub(super) fn counts(&self) -> Vec<(Status, u64)> {
        let of = |status| self.numbers.iter().filter(move |((_, is), _)| *is == status).map(|(_, number)| number).sum();
        Status::ALL.into_iter().map(|status| (status, of(status))).collect()
    }

    /// The names that have jobs which are not final.
    pub(super) fn live_names(&self) -> impl Iterator<Item = &Name> {
        self.numbers.keys().filter(|(_, status)| !status.is_final()).map(|(name, _)| name)
    }

    /// The jobs of a parent that are not final.
    pub(super) fn live(&self, upstream: &JobId) -> Vec<JobId> {
        self.live.get(upstream).into_iter().flatten().cloned().collect()
    }

    /// The jobs that a pool runs.
    pub(super) fn held(&self, pool: &PoolId) -> impl Iterator<Item = &JobId> {
        self.held.get(pool).into_iter().flatten()
    }
}

fn put<K: Ord + Clone, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: V) {
    match sets.get_mut(key) {
        Some(set) => {
            set.insert(value);
        }
        None => {
            sets.insert(key.clone(), BTreeSet::from([value]));
        }
    }
}

fn take<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
