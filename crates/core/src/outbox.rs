//! The outbox: the events of jobs' hooks on their way, and for a while those that arrived.
//!
//! An event is written in the step of the change that it reports, waits until it is settled, and is kept afterwards, so
//! that people can see what became of it and send it again: the newest [`crate::limits::HOOK_EVENTS_KEPT`] of a job,
//! for as long as the job itself. Only waiting events have a turn; everything that delivers looks at these alone.

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
