//! What was seen of the store a moment ago, so that an idle node need not ask.
//!
//! The sweeps, the delivery of hooks and the pools ask each second whether there is anything to do. One look (`pulse.rs`)
//! answers for all of them: the least time of each set that is sorted by one. A view is only ever used to say "nothing to
//! do" without a call, never to decide anything: when something may be due, or the view is older than [`View::age_max`],
//! or something happened since it was taken, the store is asked as if there were no view. So the worst that a view can do
//! is to make something late by its greatest age.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jobservice_core::Time;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::work::News;

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Scheduled jobs.
    Scheduled,
    /// Running jobs whose lease, grace or timeout ends.
    Running,
    /// Hook events.
    Events,
    /// Policies.
    Policies,
}

/// Nothing of a kind is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quiet {
    /// When the next is.
    pub(crate) next_at: Option<Time>,
}

/// What one look saw of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) scheduled: Option<Time>,
    pub(crate) running: Option<Time>,
    pub(crate) events: Option<Time>,
    pub(crate) policies: Option<Time>,
    /// There may be Pending jobs.
    pub(crate) work: bool,
}

/// What was seen of all shards.
pub(crate) struct View {
    age_max: Duration,
    shards: Mutex<Vec<Option<(Look, Seen)>>>,
    /// How often something happened that a look before it does not know of.
    ready: AtomicU64,
    events: AtomicU64,
    policies: AtomicU64,
}

/// When a look was begun, and what had happened by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    at: Instant,
    ready: u64,
    events: u64,
    policies: u64,
}

impl View {
    /// A view that has seen nothing yet. With an age of zero it never says anything.
    pub(crate) fn new(age_max: Duration, shards: usize) -> View {
        View {
            age_max,
            shards: Mutex::new(vec![None; shards]),
            ready: AtomicU64::new(0),
            events: AtomicU64::new(0),
            policies: AtomicU64::new(0),
        }
    }

    /// How old it may be.
    pub(crate) fn age_max(&self) -> Duration {
        self.age_max
    }

    /// To be called before a look is sent: what happens from here on, it may not have seen.
    pub(crate) fn begin(&self, at: Instant) -> Look {
        Look {
            at,
            ready: self.ready.load(Ordering::SeqCst),
            events: self.events.load(Ordering::SeqCst),
            policies: self.policies.load(Ordering::SeqCst),
        }
    }

    /// Keeps what a look saw of a shard.
    pub(crate) fn keep(&self, shard: usize, look: Look, seen: Seen) {
        if let Some(place) = self.shards.lock().get_mut(shard) {
            *place = Some((look, seen));
        }
    }

    /// Something happened, here or elsewhere: what was seen of it before does not count any more.
    pub(crate) fn outdated(&self, news: &News) {
        if news.ready || !news.freed.is_empty() {
            self.ready.fetch_add(1, Ordering::SeqCst);
        }
        if news.events {
            self.events.fetch_add(1, Ordering::SeqCst);
        }
        if news.policies {
            self.policies.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Whether it is known that nothing of this kind is due by `by`; if so, when the next is. None: the store must be asked.
    pub(crate) fn nothing_due(&self, part: Part, by: Time, at: Instant) -> Option<Quiet> {
        let quiet = self.over_all(at, |look, seen| match part {
            Part::Scheduled => Some(Quiet { next_at: seen.scheduled }),
            Part::Running => Some(Quiet { next_at: seen.running }),
            Part::Events => {
                (look.events == self.events.load(Ordering::SeqCst)).then_some(Quiet { next_at: seen.events })
            }
            Part::Policies => {
                (look.policies == self.policies.load(Ordering::SeqCst)).then_some(Quiet { next_at: seen.policies })
            }
        })?;
        quiet.next_at.is_none_or(|next| next > by).then_some(quiet)
    }

    /// Whether it is known that no job is Pending.
    pub(crate) fn no_work(&self, at: Instant) -> bool {
        let all = self.over_all(at, |look, seen| {
            (!seen.work && look.ready == self.ready.load(Ordering::SeqCst)).then_some(Quiet { next_at: None })
        });
        all.is_some()
    }

    /// The least that all shards have, if all were seen lately and `read` accepts what was seen.
    fn over_all(&self, at: Instant, read: impl Fn(&Look, &Seen) -> Option<Quiet>) -> Option<Quiet> {
        if self.age_max.is_zero() {
            return None;
        }
        let mut least: Option<Time> = None;
        for seen in &*self.shards.lock() {
            let (look, seen) =
                seen.as_ref().filter(|(look, _)| at.saturating_duration_since(look.at) <= self.age_max)?;
            least = [least, read(look, seen)?.next_at].into_iter().flatten().min();
        }
        Some(Quiet { next_at: least })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(scheduled: i64) -> Seen {
        Seen { scheduled: Some(Time::from_millis(scheduled)), ..Seen::default() }
    }

    fn due(view: &View, by: i64, at: Instant) -> Option<Quiet> {
        view.nothing_due(Part::Scheduled, Time::from_millis(by), at)
    }

    #[test]
    fn it_says_that_nothing_is_due_only_if_all_shards_were_seen_lately() {
        let (view, start) = (View::new(Duration::from_secs(1), 2), crate::link::now());
        assert_eq!(due(&view, 10, start), None);
        view.keep(0, view.begin(start), seen(20));
        assert_eq!(due(&view, 10, start), None);
        view.keep(1, view.begin(start), seen(15));
        assert_eq!(due(&view, 10, start), Some(Quiet { next_at: Some(Time::from_millis(15)) }));
        assert_eq!(due(&view, 15, start), None);
        assert_eq!(due(&view, 10, start + Duration::from_millis(1001)), None);
    }

    #[test]
    fn with_no_age_it_says_nothing() {
        let (view, start) = (View::new(Duration::ZERO, 1), crate::link::now());
        view.keep(0, view.begin(start), seen(20));
        assert_eq!(due(&view, 10, start), None);
        assert!(!view.no_work(start));
    }

    #[test]
    fn what_happens_after_a_look_began_is_not_seen_by_it() {
        let (view, start) = (View::new(Duration::from_secs(1), 1), crate::link::now());
        let nothing = Time::from_millis(0);
        let all = News { ready: true, events: true, policies: true, ..News::default() };
        let look = view.begin(start);
        view.outdated(&all);
        view.keep(0, look, Seen::default());

        assert!(!view.no_work(start));
        assert_eq!(view.nothing_due(Part::Events, nothing, start), None);
        assert_eq!(view.nothing_due(Part::Policies, nothing, start), None);
        assert_eq!(view.nothing_due(Part::Running, nothing, start), Some(Quiet { next_at: None }));

        view.keep(0, view.begin(start), Seen::default());
        assert!(view.no_work(start));
        assert_eq!(view.nothing_due(Part::Events, nothing, start), Some(Quiet { next_at: None }));
    }
}
