//! The outbox: the events of jobs' hooks on their way, and for a while those that arrived.
//!
//! An event is written in the step of the change that it reports, waits until it is settled, and is kept afterwards, so
//! that people can see what became of it and send it again: the newest [`crate::limits::HOOK_EVENTS_KEPT`] of a job,
//! for as long as the job itself. Only waiting events have a turn; everything that delivers looks at these alone.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::job::Job;
use crate::lifecycle::HookEvent;
use crate::{JobId, Time, limits};

/// A hook event and what became of it.
///
/// The waiting events of a job are taken as a whole when the turn of the first of them has come, and each keeps the time
/// for itself: an event that joins while others are on their way does not wait for the end of their hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The job.
    pub id: JobId,
    /// The event.
    pub event: HookEvent,
    /// What became of it.
    pub delivery: Delivery,
    /// While it waits: when its turn comes, if it is the first of its job: when it happened; the end of the hold of who
    /// took it; or the time of the next try. Afterwards: when it was settled.
    pub next_at: Time,
    /// How many deliveries of it failed ([`Settled::Retry`]).
    pub tries: u32,
    /// Why the last one did, or why no more was tried.
    pub error: Option<Arc<str>>,
    /// When somebody asked for it to be sent again. Such an event is out of the order of its job.
    pub resent_at: Option<Time>,
}

impl OutboxEntry {
    /// A new event: its turn is now.
    pub fn new(id: JobId, event: HookEvent) -> OutboxEntry {
        let next_at = event.at;
        OutboxEntry { id, event, delivery: Delivery::Waiting, next_at, tries: 0, error: None, resent_at: None }
    }

    /// Whether it is still to be delivered.
    pub fn is_waiting(&self) -> bool {
        self.delivery == Delivery::Waiting
    }

    /// From when on it is not tried any more.
    pub fn deadline(&self) -> Time {
        self.resent_at.unwrap_or(self.event.at) + limits::HOOK_DEADLINE
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// It is still to be delivered.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// The receiver did not take it before the deadline.
    GivenUp,
    /// The receiver said that it wants no more events of this job (410).
    Gone,
}

impl Delivery {
    /// All of them.
    pub const ALL: [Delivery; 4] = [Delivery::Waiting, Delivery::Delivered, Delivery::GivenUp, Delivery::Gone];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Delivery::Waiting => "waiting",
            Delivery::Delivered => "delivered",
            Delivery::GivenUp => "given_up",
            Delivery::Gone => "gone",
        }
    }
}

/// The waiting events of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobEvents {
    /// The job as it is now: the body of the message is composed from it.
    pub job: Job,
    /// Its waiting events, in order.
    pub events: Vec<HookEvent>,
    /// How often the first of them was tried.
    pub tries: u32,
    /// Whether the receiver wants no more of this job: they are to be settled as [`Settled::Gone`], not sent. Sending
    /// any event of the job again by hand ends this.
    pub gone: bool,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was delivered: the events count as [`Delivery::Delivered`].
    Done,
    /// It failed and is counted; the job's events wait until then.
    Retry {
        /// When to try again.
        at: Time,
        /// Why it failed.
        error: Arc<str>,
    },
    /// Nothing was tried: the job's events wait until then.
    Later {
        /// When their turn comes.
        at: Time,
    },
    /// The receiver wants no more events of this job: all that wait count as [`Delivery::Gone`], whatever their number.
    Gone {
        /// What it said.
        error: Arc<str>,
    },
}

/// The answer to [`crate::Store::resend_event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resent {
    /// Its turn is now.
    Done,
    /// The job has no such event: it never had, or it is no longer kept.
    NoEvent,
    /// There is no such job.
    NoJob,
}

/// The events of one job in order, those that wait and those that are kept: what happens to them, for stores that read
/// and write them as a whole.
///
/// Each waiting event has a turn of its own ([`OutboxEntry::next_at`]); that of the first one is the job's. Who takes the
/// events moves their turns to the end of the hold. An event that joins meanwhile has its turn at once, and gets it as
/// soon as those before it are settled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobOutbox(VecDeque<OutboxEntry>);

impl JobOutbox {
    /// The outbox with these entries, which are in order.
    pub fn new(entries: impl IntoIterator<Item = OutboxEntry>) -> JobOutbox {
        JobOutbox(entries.into_iter().collect())
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All events, in order.
    pub fn entries(&self) -> impl Iterator<Item = &OutboxEntry> {
        self.0.iter()
    }

    /// The event of this number.
    pub fn get(&self, seq: u32) -> Option<&OutboxEntry> {
        self.0.iter().find(|entry| entry.event.seq == seq)
    }

    /// The events that wait, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &OutboxEntry> {
        self.0.iter().filter(|entry| entry.is_waiting())
    }

    /// When the turn of the job comes; none if nothing waits.
    pub fn turn(&self) -> Option<Time> {
        Some(self.waiting().next()?.next_at)
    }

    /// Whether the receiver wants no more: see [`JobEvents::gone`].
    pub fn is_gone(&self) -> bool {
        self.0.iter().any(|entry| entry.delivery == Delivery::Gone)
    }

    /// Adds an event. A check-in takes the place of one that nobody is sending and that has not failed lately: only the
    /// newest progress is of interest, and a chatty job must not fill the store while its hook is away.
    pub fn put(&mut self, id: &JobId, event: HookEvent) {
        if event.check_in.is_some() {
            let idle = |entry: &OutboxEntry| entry.resent_at.is_none() && entry.next_at <= event.at;
            self.0.retain(|entry| !(entry.is_waiting() && entry.event.check_in.is_some() && idle(entry)));
        }
        self.0.push_back(OutboxEntry::new(id.clone(), event));
    }

    /// Gives the waiting events out and holds them until `until`.
    pub fn take(&mut self, job: Job, until: Time) -> JobEvents {
        self.hold(until);
        let tries = self.waiting().next().map_or(0, |entry| entry.tries);
        let events = self.waiting().map(|entry| entry.event.clone()).collect();
        JobEvents { job, events, tries, gone: self.is_gone() }
    }

    /// Notes what became of the delivery of the events up to `seq`. Earlier ones that were sent again by hand are not meant: each
    /// of these is settled by itself, and one that still waits was sent again while this one was on its way.
    pub fn settle(&mut self, seq: u32, settled: Settled, now: Time) {
        let is_meant = |entry: &OutboxEntry| {
            let at = entry.event.seq;
            entry.is_waiting() && (at == seq || (at < seq && entry.resent_at.is_none()))
        };
        match settled {
            Settled::Done => self.end(is_meant, Delivery::Delivered, None, now),
            Settled::Gone { error } => self.end(OutboxEntry::is_waiting, Delivery::Gone, Some(&error), now),
            Settled::Retry { at, error } => {
                // Nothing to wait for if it is settled already.
                let Some(failed) = self.0.iter_mut().find(|entry| is_meant(entry)) else { return };
                failed.tries += 1;
                failed.error = Some(error);
                self.hold(at);
            }
            Settled::Later { at } => {
                if self.waiting().next().is_some_and(|first| first.event.seq <= seq) {
                    self.hold(at);
                }
            }
        }
    }

    /// Settles events, and lets the oldest go of what is kept.
    fn end(&mut self, which: impl Fn(&OutboxEntry) -> bool, delivery: Delivery, error: Option<&Arc<str>>, now: Time) {
        for entry in self.0.iter_mut().filter(|entry| which(entry)) {
            entry.end(delivery, error, now);
        }
        self.trim();
    }

    /// Makes the turn of an event now; answers whether there is such an event.
    pub fn resend(&mut self, seq: u32, now: Time) -> bool {
        let Some(entry) = self.0.iter_mut().find(|entry| entry.event.seq == seq) else { return false };
        if entry.is_waiting() {
            // In its order: those before it have their turn too.
            self.hold(now);
            return true;
        }
        entry.delivery = Delivery::Waiting;
        (entry.tries, entry.error) = (0, None);
        (entry.next_at, entry.resent_at) = (now, Some(now));
        // Whoever sends again takes the receiver for willing.
        for entry in self.0.iter_mut().filter(|entry| entry.delivery == Delivery::Gone) {
            entry.delivery = Delivery::GivenUp;
        }
        true
    }

    /// Gives one event up, past its deadline.
    pub fn give_up(&mut self, seq: u32, now: Time) {
        for entry in self.0.iter_mut().filter(|entry| entry.event.seq == seq) {
            entry.end(Delivery::GivenUp, None, now);
        }
        self.trim();
    }

    /// Makes waiting events wait until `until`.
    fn hold(&mut self, until: Time) {
        for entry in self.0.iter_mut().filter(|entry| entry.is_waiting()) {
            entry.next_at = until;
        }
    }

    /// Lets the oldest settled events go.
    fn trim(&mut self) {
        let settled = self.0.iter().filter(|entry| !entry.is_waiting()).count();
        let mut over = settled.saturating_sub(limits::HOOK_EVENTS_KEPT);
        self.0.retain(|entry| {
            let goes = over > 0 && !entry.is_waiting();
            over -= usize::from(goes);
            !goes
        });
    }
}

impl OutboxEntry {
    fn end(&mut self, delivery: Delivery, error: Option<&Arc<str>>, now: Time) {
        self.delivery = delivery;
        self.next_at = now;
        if let Some(error) = error {
            self.error = Some(Arc::clone(error));
        }
    }
}
