//! The sweeps: promote, reap, prune, shrink.

use std::collections::BTreeSet;

use super::indexes::Timed;
use super::inner::{Happened, Inner};
use crate::job::Job;
use crate::lifecycle::{self, Event};
use crate::store::Swept;
use crate::{JobId, Time, limits, minutes};

impl Inner {
    /// Makes due jobs Pending.
    pub(super) fn promote(&mut self, limit: usize, now: Time) -> Swept {
        let (due, more) = past(&self.indexes.due, limit, now);
        let mut swept = Swept { more, ..Swept::default() };
        for id in due {
            swept.moved += usize::from(matches!(self.happen(&id, &Event::Due, now), Happened::Is(_)));
        }
        swept.next_at = self.indexes.due.first().map(|(at, _)| *at);
        swept
    }

    /// Ends the runs that are over their lease, their grace or their timeout.
    pub(super) fn reap(&mut self, limit: usize, jitter: u32, now: Time) -> Swept {
        let (overdue, more) = past(&self.indexes.running, limit, now);
        let mut swept = Swept { more, ..Swept::default() };
        for id in overdue {
            let event = self.jobs.get(&id).and_then(|job| lifecycle::overdue(job, jitter, now));
            let happened = event.map(|event| self.happen(&id, &event, now));
            swept.moved += usize::from(matches!(happened, Some(Happened::Is(_))));
        }
        swept.next_at = self.indexes.running.first().map(|(at, _)| *at);
        swept
    }

    /// Removes what is past its time, of each kind at most `limit`.
    ///
    /// Events go first: a job that stayed for their sake goes in the same call as the last of them.
    pub(super) fn prune(&mut self, limit: usize, now: Time) -> Swept {
        let mut swept = Swept::default();
        let mut next: Vec<Time> = Vec::new();

        let (events, more) = self.outbox.prune(limit, now);
        swept.moved += events;
        swept.more |= more;
        next.extend(self.outbox.next_deadline());

        let (jobs, more) = self.expired(limit, now);
        swept.more |= more;
        for id in jobs {
            if let Happened::Gone = self.happen(&id, &Event::Prune, now) {
                swept.moved += 1;
                swept.removed.push(id);
            }
        }
        let unexpired = self.indexes.kept.values().filter_map(|kept| kept.iter().find(|(at, _)| *at > now));
        next.extend(unexpired.map(|(at, _)| *at));

        let over = self.idempotency.iter().filter(|(_, entry)| entry.expires_at <= now);
        let mut keys: Vec<_> = over.map(|(key, entry)| (entry.expires_at, key.clone())).collect();
        keys.sort();
        swept.more |= keys.len() > limit;
        keys.truncate(limit);
        swept.moved += keys.len();
        for (_, key) in keys {
            self.idempotency.remove(&key);
        }
        next.extend(self.idempotency.values().map(|entry| entry.expires_at).min());

        let nodes = self.nodes.len();
        self.nodes.retain(|_, node| now.since(node.beat_at) < limits::NODE_FORGOTTEN_AFTER);
        swept.moved += nodes - self.nodes.len();
        next.extend(self.nodes.values().map(|node| node.beat_at + limits::NODE_FORGOTTEN_AFTER).min());

        let oldest = minutes::oldest_kept(now);
        self.minutes.retain(|(number, _), _| *number >= oldest);

        swept.next_at = next.into_iter().min();
        swept
    }

    /// Removes final jobs while all take more than `bytes_max`, those first that would be the next to expire. A job
    /// takes about what its text takes.
    pub(super) fn shrink(&mut self, bytes_max: u64, limit: usize, now: Time) -> Swept {
        let mut swept = Swept::default();
        let mut taken: u64 = self.jobs.values().map(bytes_of).sum();
        let kept = self.indexes.kept.values().flatten().filter(|(_, id)| !self.outbox.holds(id));
        let mut may_go: Vec<Timed> = kept.cloned().collect();
        may_go.sort();
        let mut may_go = may_go.into_iter().peekable();
        while taken > bytes_max && swept.removed.len() < limit {
            let Some((_, id)) = may_go.next() else { break };
            taken -= self.jobs.get(&id).map_or(0, bytes_of);
            // Final, so that a delete is what is always allowed, and a prune is not before its time.
            if let Happened::Gone = self.happen(&id, &Event::Delete, now) {
                swept.moved += 1;
                swept.removed.push(id);
            }
        }
        swept.more = taken > bytes_max && may_go.peek().is_some();
        swept
    }

    /// Up to `limit` final jobs past their expiry without undelivered events, earliest first, and whether there are more.
    fn expired(&self, limit: usize, now: Time) -> (Vec<JobId>, bool) {
        let kept = self.indexes.kept.values().flat_map(|kept| kept.iter().take_while(|(at, _)| *at <= now));
        let mut expired: Vec<&Timed> = kept.filter(|(_, id)| !self.outbox.holds(id)).collect();
        expired.sort();
        let more = expired.len() > limit;
        (expired.into_iter().take(limit).map(|(_, id)| id.clone()).collect(), more)
    }
}

/// What a job is taken to need: its text, and as much again as a record is large.
fn bytes_of(job: &Job) -> u64 {
    let result = job.state.result.as_ref().map_or(0, |result| result.len());
    (std::mem::size_of::<Job>() + job.spec.parameters.len() + result) as u64
}

/// Up to `limit` members whose time has come, earliest first, and whether there are more.
fn past(set: &BTreeSet<Timed>, limit: usize, now: Time) -> (Vec<JobId>, bool) {
    let mut past = set.iter().take_while(|(at, _)| *at <= now);
    let ids = past.by_ref().take(limit).map(|(_, id)| id.clone()).collect();
    (ids, past.next().is_some())
}
