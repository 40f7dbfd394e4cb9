//! The outboxes of all jobs, by turn; what happens within one is said by [`JobOutbox`].

use std::collections::{BTreeMap, BTreeSet};

use super::indexes::Timed;
use super::inner::Inner;
use crate::lifecycle::HookEvent;
use crate::outbox::{JobEvents, JobOutbox, OutboxEntry, Resent, Settled};
use crate::{JobId, Time};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The events of each job, waiting and kept; no job without events.
    events: BTreeMap<JobId, JobOutbox>,
    /// The jobs with waiting events, by their turn.
    turns: BTreeSet<Timed>,
}

impl Outbox {
    /// Adds an event.
    pub(super) fn put(&mut self, id: &JobId, event: HookEvent) {
        self.change(id, |events| events.put(id, event));
    }

    /// Whether a job has waiting events.
    pub(super) fn holds(&self, id: &JobId) -> bool {
        self.turn(id).is_some()
    }

    /// Drops the events of a job that goes.
    pub(super) fn forget(&mut self, id: &JobId) {
        self.change(id, |events| *events = JobOutbox::default());
    }

    /// All events, those of a job in their order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &OutboxEntry> {
        self.events.values().flat_map(JobOutbox::entries)
    }

    /// The events of a job, in their order.
    pub(super) fn of(&self, id: &JobId) -> impl Iterator<Item = &OutboxEntry> {
        self.events.get(id).into_iter().flat_map(JobOutbox::entries)
    }

    /// Up to `limit` jobs whose turn it is.
    fn due(&self, limit: usize, now: Time) -> Vec<JobId> {
        let due = self.turns.iter().take_while(|(at, _)| *at <= now).take(limit);
        due.map(|(_, id)| id.clone()).collect()
    }

    /// When the turn of a job comes.
    fn turn(&self, id: &JobId) -> Option<Time> {
        self.events.get(id)?.turn()
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
            self.change(id, |events| events.give_up(*seq, now));
        }
        (late.len(), more)
    }

    /// When the next event will be past its deadline.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.entries().filter(|entry| entry.is_waiting()).map(OutboxEntry::deadline).min()
    }

    /// Changes the events of a job and keeps its turn right.
    fn change<T>(&mut self, id: &JobId, change: impl FnOnce(&mut JobOutbox) -> T) -> T {
        if let Some(turn) = self.turn(id) {
            self.turns.remove(&(turn, id.clone()));
        }
        let events = self.events.entry(id.clone()).or_default();
        let answer = change(events);
        if events.is_empty() {
            self.events.remove(id);
        }
        if let Some(turn) = self.turn(id) {
            self.turns.insert((turn, id.clone()));
        }
        answer
    }

    /// What is wrong with the turns.
    pub(super) fn audit(&self) -> Option<String> {
        let turns: BTreeSet<Timed> = self.events.keys().filter_map(|id| Some((self.turn(id)?, id.clone()))).collect();
        (turns != self.turns).then(|| format!("the turns {:?} should be {turns:?}", self.turns))
    }

    /// The events of each job.
    pub(super) fn by_job(&self) -> impl Iterator<Item = (&JobId, Vec<&OutboxEntry>)> {
        self.events.iter().map(|(id, events)| (id, events.entries().collect()))
    }
}

impl Inner {
    /// Takes the events of jobs whose turn it is.
    pub(super) fn take_events(&mut self, limit: usize, until: Time, now: Time) -> Vec<JobEvents> {
        let due = self.outbox.due(limit, now).into_iter();
        due.filter_map(|id| {
            let job = self.jobs.get(&id)?.clone();
            Some(self.outbox.change(&id, |events| events.take(job, until)))
        })
        .collect()
    }

    /// Records what became of a delivery.
    pub(super) fn settle_event(&mut self, id: &JobId, seq: u32, settled: Settled, now: Time) {
        self.outbox.change(id, |events| events.settle(seq, settled, now));
        // Events that joined during the delivery have waited for this.
        self.news.events |= self.outbox.turn(id).is_some_and(|turn| turn <= now);
    }

    /// Makes the turn of an event now.
    pub(super) fn resend_event(&mut self, id: &JobId, seq: u32, now: Time) -> Resent {
        if !self.jobs.contains_key(id) {
            return Resent::NoJob;
        }
        if !self.outbox.change(id, |events| events.resend(seq, now)) {
            return Resent::NoEvent;
        }
        self.news.events = true;
        Resent::Done
    }
}
