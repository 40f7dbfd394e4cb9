//! The outbox: undelivered hook events, in order per job.
//!
//! Each event has a turn of its own ([`OutboxEntry::next_at`]); that of a job's first event is the job's. A take holds
//! the events that it gives out by moving their turns to the end of the hold. An event that joins meanwhile has its
//! turn at once, and gets it as soon as those before it are settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::indexes::Timed;
use super::inner::Inner;
use crate::dump::OutboxEntry;
use crate::lifecycle::HookEvent;
use crate::store::{JobEvents, Settled};
use crate::{JobId, Time, limits};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The events of each job in order; no job without events.
    events: BTreeMap<JobId, VecDeque<OutboxEntry>>,
    /// The jobs by their turn.
    turns: BTreeSet<Timed>,
}

impl Outbox {
    /// Adds an event. A check-in takes the place of one that nobody is sending and that has not failed lately: only the
    /// newest progress is of interest, and a chatty job must not fill the store while its hook is away.
    pub(super) fn put(&mut self, id: &JobId, event: HookEvent) {
        self.change(id, |events| {
            if event.check_in.is_some() {
                events.retain(|entry| entry.event.check_in.is_none() || entry.next_at > event.at);
            }
            let next_at = event.at;
            events.push_back(OutboxEntry { id: id.clone(), event, next_at, tries: 0, error: None });
        });
    }

    /// Whether a job has undelivered events.
    pub(super) fn holds(&self, id: &JobId) -> bool {
        self.events.contains_key(id)
    }

    /// Drops the events of a job that goes.
    pub(super) fn forget(&mut self, id: &JobId) {
        self.change(id, VecDeque::clear);
    }

    /// All events, those of a job in their order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &OutboxEntry> {
        self.events.values().flatten()
    }

    /// Takes the events of up to `limit` jobs whose turn it is, and holds them until `until`.
    fn take(&mut self, limit: usize, until: Time, now: Time) -> Vec<(JobId, Vec<HookEvent>, u32)> {
        let due = self.turns.iter().take_while(|(at, _)| *at <= now).take(limit);
        let due: Vec<JobId> = due.map(|(_, id)| id.clone()).collect();
        let mut taken = Vec::with_capacity(due.len());
        for id in due {
            self.change(&id, |events| {
                hold(events, until);
                let tries = events.front().map_or(0, |entry| entry.tries);
                taken.push((id.clone(), events.iter().map(|entry| entry.event.clone()).collect(), tries));
            });
        }
        taken
    }

    /// Removes the events up to `seq`.
    fn done(&mut self, id: &JobId, seq: u32) {
        self.change(id, |events| events.retain(|entry| entry.event.seq > seq));
    }

    /// Lets a job wait until `at`, unless the event that failed is settled already.
    fn retry(&mut self, id: &JobId, seq: u32, at: Time, error: Arc<str>) {
        self.change(id, |events| {
            let Some(first) = events.front_mut().filter(|first| first.event.seq <= seq) else { return };
            first.tries += 1;
            first.error = Some(error);
            hold(events, at);
        });
    }

    /// When the turn of a job comes.
    fn turn(&self, id: &JobId) -> Option<Time> {
        Some(self.events.get(id)?.front()?.next_at)
    }

    /// Removes up to `limit` events past their deadline; answers how many, and whether there are more.
    pub(super) fn prune(&mut self, limit: usize, now: Time) -> (usize, bool) {
        let past = |entry: &OutboxEntry| entry.event.at + limits::HOOK_DEADLINE <= now;
        let late = self.entries().filter(|entry| past(entry));
        let mut removed: Vec<(JobId, u32)> =
            late.take(limit.saturating_add(1)).map(|entry| (entry.id.clone(), entry.event.seq)).collect();
        let more = removed.len() > limit;
        removed.truncate(limit);
        for (id, seq) in &removed {
            self.done(id, *seq);
        }
        (removed.len(), more)
    }

    /// When the next event will be past its deadline.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.entries().map(|entry| entry.event.at + limits::HOOK_DEADLINE).min()
    }

    /// Changes the events of a job and keeps its turn right.
    fn change(&mut self, id: &JobId, change: impl FnOnce(&mut VecDeque<OutboxEntry>)) {
        if let Some(turn) = self.turn(id) {
            self.turns.remove(&(turn, id.clone()));
        }
        let events = self.events.entry(id.clone()).or_default();
        change(events);
        match events.front() {
            Some(first) => {
                self.turns.insert((first.next_at, id.clone()));
            }
            None => {
                self.events.remove(id);
            }
        }
    }

    /// What is wrong with the turns.
    pub(super) fn audit(&self) -> Option<String> {
        let turns: BTreeSet<Timed> = self.events.keys().filter_map(|id| Some((self.turn(id)?, id.clone()))).collect();
        (turns != self.turns).then(|| format!("the turns {:?} should be {turns:?}", self.turns))
    }

    /// The events of each job.
    pub(super) fn by_job(&self) -> impl Iterator<Item = (&JobId, Vec<&HookEvent>)> {
        self.events.iter().map(|(id, entries)| (id, entries.iter().map(|entry| &entry.event).collect()))
    }
}

/// Makes events wait until `until`.
fn hold(events: &mut VecDeque<OutboxEntry>, until: Time) {
    for entry in events {
        entry.next_at = until;
    }
}

impl Inner {
    /// Takes the events of jobs whose turn it is.
    pub(super) fn take_events(&mut self, limit: usize, until: Time, now: Time) -> Vec<JobEvents> {
        let taken = self.outbox.take(limit, until, now).into_iter();
        taken
            .filter_map(|(id, events, tries)| Some(JobEvents { job: self.jobs.get(&id)?.clone(), events, tries }))
            .collect()
    }

    /// Records what became of a delivery.
    pub(super) fn settle_event(&mut self, id: &JobId, seq: u32, settled: Settled, now: Time) {
        match settled {
            Settled::Done => self.outbox.done(id, seq),
            Settled::Retry { at, error } => self.outbox.retry(id, seq, at, error),
        }
        // Events that joined during the delivery have waited for this.
        self.news.events |= self.outbox.turn(id).is_some_and(|turn| turn <= now);
    }
}
