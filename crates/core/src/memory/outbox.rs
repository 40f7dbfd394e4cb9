//! The outbox: hook events, in order per job; see [`crate::outbox`].
//!
//! Each waiting event has a turn of its own ([`OutboxEntry::next_at`]); that of a job's first one is the job's. A take
//! holds the events that it gives out by moving their turns to the end of the hold. An event that joins meanwhile has its
//! turn at once, and gets it as soon as those before it are settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::indexes::Timed;
use super::inner::Inner;
use crate::lifecycle::HookEvent;
use crate::outbox::{Delivery, JobEvents, OutboxEntry, Resent, Settled};
use crate::{JobId, Time, limits};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The events of each job in order, waiting and kept; no job without events.
    events: BTreeMap<JobId, VecDeque<OutboxEntry>>,
    /// The jobs with waiting events, by their turn.
    turns: BTreeSet<Timed>,
}

/// What a take found of a job.
struct Taken {
    id: JobId,
    events: Vec<HookEvent>,
    tries: u32,
    gone: bool,
}

impl Outbox {
    /// Adds an event. A check-in takes the place of one that nobody is sending and that has not failed lately: only the
    /// newest progress is of interest, and a chatty job must not fill the store while its hook is away.
    pub(super) fn put(&mut self, id: &JobId, event: HookEvent) {
        self.change(id, |events| {
            if event.check_in.is_some() {
                let idle = |entry: &OutboxEntry| entry.resent_at.is_none() && entry.next_at <= event.at;
                events.retain(|entry| !(entry.is_waiting() && entry.event.check_in.is_some() && idle(entry)));
            }
            events.push_back(OutboxEntry::new(id.clone(), event));
        });
    }

    /// Whether a job has waiting events.
    pub(super) fn holds(&self, id: &JobId) -> bool {
        self.turn(id).is_some()
    }

    /// Drops the events of a job that goes.
    pub(super) fn forget(&mut self, id: &JobId) {
        self.change(id, VecDeque::clear);
    }

    /// All events, those of a job in their order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &OutboxEntry> {
        self.events.values().flatten()
    }

    /// The events of a job, in their order.
    pub(super) fn of(&self, id: &JobId) -> impl Iterator<Item = &OutboxEntry> {
        self.events.get(id).into_iter().flatten()
    }

    /// Takes the waiting events of up to `limit` jobs whose turn it is, and holds them until `until`.
    fn take(&mut self, limit: usize, until: Time, now: Time) -> Vec<Taken> {
        let due = self.turns.iter().take_while(|(at, _)| *at <= now).take(limit);
        let due: Vec<JobId> = due.map(|(_, id)| id.clone()).collect();
        let mut taken = Vec::with_capacity(due.len());
        for id in due {
            self.change(&id, |events| {
                hold(events, until);
                let tries = waiting(events).next().map_or(0, |entry| entry.tries);
                let gone = events.iter().any(|entry| entry.delivery == Delivery::Gone);
                let events = waiting(events).map(|entry| entry.event.clone()).collect();
                taken.push(Taken { id: id.clone(), events, tries, gone });
            });
        }
        taken
    }

    /// Settles the waiting events up to `seq`, and lets the oldest go of what is kept.
    fn end(&mut self, id: &JobId, seq: u32, delivery: Delivery, error: Option<&Arc<str>>, now: Time) {
        self.change(id, |events| {
            for entry in events.iter_mut().filter(|entry| entry.is_waiting() && entry.event.seq <= seq) {
                settle(entry, delivery, error, now);
            }
            trim(events);
        });
    }

    /// Lets a job wait until `at`, unless the event that failed is settled already.
    fn wait(&mut self, id: &JobId, seq: u32, at: Time, failure: Option<Arc<str>>) {
        self.change(id, |events| {
            let first = events.iter_mut().find(|entry| entry.is_waiting());
            let Some(first) = first.filter(|first| first.event.seq <= seq) else { return };
            if let Some(failure) = failure {
                first.tries += 1;
                first.error = Some(failure);
            }
            hold(events, at);
        });
    }

    /// Makes the turn of an event now; answers whether there is such an event.
    fn resend(&mut self, id: &JobId, seq: u32, now: Time) -> bool {
        let mut found = false;
        self.change(id, |events| {
            let Some(entry) = events.iter_mut().find(|entry| entry.event.seq == seq) else { return };
            found = true;
            if entry.is_waiting() {
                // In its order: those before it have their turn too.
                hold(events, now);
                return;
            }
            entry.delivery = Delivery::Waiting;
            (entry.tries, entry.error) = (0, None);
            (entry.next_at, entry.resent_at) = (now, Some(now));
            // Whoever sends again takes the receiver for willing.
            for entry in events.iter_mut().filter(|entry| entry.delivery == Delivery::Gone) {
                entry.delivery = Delivery::GivenUp;
            }
        });
        found
    }

    /// When the turn of a job comes.
    fn turn(&self, id: &JobId) -> Option<Time> {
        Some(waiting(self.events.get(id)?).next()?.next_at)
    }

    /// Gives up to `limit` events past their deadline up; answers how many, and whether there are more.
    pub(super) fn prune(&mut self, limit: usize, now: Time) -> (usize, bool) {
        let late = self.entries().filter(|entry| entry.is_waiting() && entry.deadline() <= now);
        let mut late: Vec<(Time, JobId, u32)> =
            late.map(|entry| (entry.deadline(), entry.id.clone(), entry.event.seq)).collect();
        late.sort();
        let more = late.len() > limit;
        late.truncate(limit);
        for (_, id, seq) in &late {
            self.change(id, |events| {
                for entry in events.iter_mut().filter(|entry| entry.event.seq == *seq) {
                    settle(entry, Delivery::GivenUp, None, now);
                }
                trim(events);
            });
        }
        (late.len(), more)
    }

    /// When the next event will be past its deadline.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.entries().filter(|entry| entry.is_waiting()).map(OutboxEntry::deadline).min()
    }

    /// Changes the events of a job and keeps its turn right.
    fn change(&mut self, id: &JobId, change: impl FnOnce(&mut VecDeque<OutboxEntry>)) {
        if let Some(turn) = self.turn(id) {
            self.turns.remove(&(turn, id.clone()));
        }
        let events = self.events.entry(id.clone()).or_default();
        change(events);
        if events.is_empty() {
            self.events.remove(id);
        }
        if let Some(turn) = self.turn(id) {
            self.turns.insert((turn, id.clone()));
        }
    }

    /// What is wrong with the turns.
    pub(super) fn audit(&self) -> Option<String> {
        let turns: BTreeSet<Timed> = self.events.keys().filter_map(|id| Some((self.turn(id)?, id.clone()))).collect();
        (turns != self.turns).then(|| format!("the turns {:?} should be {turns:?}", self.turns))
    }

    /// The events of each job.
    pub(super) fn by_job(&self) -> impl Iterator<Item = (&JobId, Vec<&OutboxEntry>)> {
        self.events.iter().map(|(id, entries)| (id, entries.iter().collect()))
    }
}

fn waiting(events: &VecDeque<OutboxEntry>) -> impl Iterator<Item = &OutboxEntry> {
    events.iter().filter(|entry| entry.is_waiting())
}

/// Makes waiting events wait until `until`.
fn hold(events: &mut VecDeque<OutboxEntry>, until: Time) {
    for entry in events.iter_mut().filter(|entry| entry.is_waiting()) {
        entry.next_at = until;
    }
}

fn settle(entry: &mut OutboxEntry, delivery: Delivery, error: Option<&Arc<str>>, now: Time) {
    entry.delivery = delivery;
    entry.next_at = now;
    if let Some(error) = error {
        entry.error = Some(Arc::clone(error));
    }
}

/// Lets the oldest settled events go.
fn trim(events: &mut VecDeque<OutboxEntry>) {
    let settled = events.iter().filter(|entry| !entry.is_waiting()).count();
    let mut over = settled.saturating_sub(limits::HOOK_EVENTS_KEPT);
    events.retain(|entry| {
        let goes = over > 0 && !entry.is_waiting();
        over -= usize::from(goes);
        !goes
    });
}

impl Inner {
    /// Takes the events of jobs whose turn it is.
    pub(super) fn take_events(&mut self, limit: usize, until: Time, now: Time) -> Vec<JobEvents> {
        let taken = self.outbox.take(limit, until, now).into_iter();
        taken
            .filter_map(|Taken { id, events, tries, gone }| {
                Some(JobEvents { job: self.jobs.get(&id)?.clone(), events, tries, gone })
            })
            .collect()
    }

    /// Records what became of a delivery.
    pub(super) fn settle_event(&mut self, id: &JobId, seq: u32, settled: Settled, now: Time) {
        let outbox = &mut self.outbox;
        match settled {
            Settled::Done => outbox.end(id, seq, Delivery::Delivered, None, now),
            Settled::Gone { error } => outbox.end(id, u32::MAX, Delivery::Gone, Some(&error), now),
            Settled::Retry { at, error } => outbox.wait(id, seq, at, Some(error)),
            Settled::Later { at } => outbox.wait(id, seq, at, None),
        }
        // Events that joined during the delivery have waited for this.
        self.news.events |= self.outbox.turn(id).is_some_and(|turn| turn <= now);
    }

    /// Makes the turn of an event now.
    pub(super) fn resend_event(&mut self, id: &JobId, seq: u32, now: Time) -> Resent {
        if !self.jobs.contains_key(id) {
            return Resent::NoJob;
        }
        if !self.outbox.resend(id, seq, now) {
            return Resent::NoEvent;
        }
        self.news.events = true;
        Resent::Done
    }
}
