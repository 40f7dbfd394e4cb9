//! The hook events of jobs: take, settle, send again. What happens within an outbox is said by
//! [`jobservice_core::outbox::JobOutbox`]; `keys.turns()` says whose turn it is.
//!
//! Who takes events reads those of many jobs and holds them in one step. Of two that take at once one finds that the
//! versions have risen, and looks again for who is left.

use std::collections::HashMap;

use jobservice_core::outbox::{JobEvents, JobOutbox, OutboxEntry, Resent, Settled};
use jobservice_core::store::Result;
use jobservice_core::{JobId, StoreError, Time};

use crate::due::{note_broken, scored};
use crate::store::{RedisStore, Shard};
use crate::work::{Tries, Work};

impl RedisStore {
    /// Takes the events of jobs whose turn it is, and holds them until `until`.
    ///
    /// The events of each shard are taken in a step of its own: should a later one fail, what was taken is given out.
    pub(crate) async fn take_due_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>> {
        let mut due: Vec<(i64, String, usize)> = Vec::new();
        for (at, shard) in self.shards.iter().enumerate() {
            due.extend(due_on(shard, limit, now).await?.into_iter().map(|(turn, id)| (turn, id, at)));
        }
        due.sort_unstable();
        due.truncate(limit);
        let mut taken: HashMap<JobId, JobEvents> = HashMap::new();
        for (at, shard) in self.shards.iter().enumerate() {
            let ids: Vec<&str> = due.iter().filter(|(_, _, of)| *of == at).map(|(_, id, _)| id.as_str()).collect();
            match self.take_from(shard, &ids, until, now).await {
                Ok(events) => taken.extend(events.into_iter().map(|events| (events.job.id.clone(), events))),
                Err(error) if taken.is_empty() => return Err(error),
                Err(error) => tracing::warn!(shard = shard.number, "no events taken: {error}"),
            }
        }
        // Oldest first.
        let order = due.into_iter().filter_map(|(_, id, _)| JobId::new(id).ok());
        Ok(order.filter_map(|id| taken.remove(&id)).collect())
    }

    /// Takes the events of these jobs, as far as it is still their turn.
    async fn take_from(&self, shard: &Shard, due: &[&str], until: Time, now: Time) -> Result<Vec<JobEvents>> {
        let mut tries = Tries::default();
        while !due.is_empty() {
            let mut work = self.work(shard, now);
            let ids: Vec<JobId> = due.iter().filter_map(|id| known_or_dropped(&mut work, id)).collect();
            let broken = work.load_outboxes(&ids).await?;
            // After their events: a job that is read later is at least as new as these.
            work.load(&ids).await?;
            let mut taken = Vec::with_capacity(ids.len());
            for id in &ids {
                taken.extend(take_one(&mut work, id, broken.get(id), until, now).await?);
            }
            match self.commit(shard, work, &mut tries).await {
                Ok(true) => return Ok(taken),
                Ok(false) => {}
                // Others are busy with the same events: nothing is left undone.
                Err(StoreError::Contended { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    /// Records what became of a delivery.
    pub(crate) async fn settle_one_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()> {
        let shard = self.shard_with(id).await?;
        let mut tries = Tries::default();
        loop {
            let mut work = self.work(shard, now);
            let outbox = work.outbox(id).await?;
            outbox.settle(seq, settled.clone(), now);
            // Events that joined during the delivery have waited for this.
            let has_turn = outbox.turn().is_some_and(|turn| turn <= now);
            work.news.events |= has_turn;
            if self.commit(shard, work, &mut tries).await? {
                return Ok(());
            }
        }
    }

    /// Makes the turn of an event now.
    pub(crate) async fn resend_one_event(&self, id: &JobId, seq: u32, now: Time) -> Result<Resent> {
        let shard = self.shard_with(id).await?;
        let mut tries = Tries::default();
        loop {
            let mut work = self.work(shard, now);
            if work.get(id).await?.is_none() {
                return Ok(Resent::NoJob);
            }
            // The events of a job go with it, and then they are not as they were read.
            if !work.outbox(id).await?.resend(seq, now) {
                return Ok(Resent::NoEvent);
            }
            work.news.events = true;
            if self.commit(shard, work, &mut tries).await? {
                return Ok(Resent::Done);
            }
        }
    }

    /// The events of a job, in order.
    pub(crate) async fn events_of(&self, id: &JobId) -> Result<Vec<OutboxEntry>> {
        let shard = self.shard_with(id).await?;
        let mut work = self.work(shard, Time::MAX);
        Ok(work.outbox(id).await?.entries().cloned().collect())
    }
}

/// The jobs of a shard whose turn it is, up to a limit, with their turns.
async fn due_on(shard: &Shard, limit: usize, now: Time) -> Result<Vec<(i64, String)>> {
    let mut get = redis::cmd("ZRANGEBYSCORE");
    get.arg(shard.keys.turns()).arg("-inf").arg(now.as_millis()).arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
    scored(&shard.link.send(&get, "take events").await?)
}

/// The id; none if it is no id, which can then only be in the way of others.
fn known_or_dropped(work: &mut Work<'_>, id: &str) -> Option<JobId> {
    let known = JobId::new(id).ok();
    if known.is_none() {
        tracing::error!("{id:?} is not the id of a job whose events wait: it is taken out");
        let turns = work.keys().turns();
        work.command([b"ZREM", turns.as_bytes(), id.as_bytes()]);
    }
    known
}

/// Takes the events of one job. None if it is not its turn, or if they cannot be sent: then they wait for nobody.
async fn take_one(
    work: &mut Work<'_>,
    id: &JobId,
    unreadable: Option<&String>,
    until: Time,
    now: Time,
) -> Result<Option<JobEvents>> {
    if let Some(why) = unreadable.map(String::as_str) {
        set_aside(work, id, why);
        return Ok(None);
    }
    let outbox: &JobOutbox = work.outbox(id).await?;
    let turn = outbox.turn();
    if turn.is_none_or(|turn| turn > now) {
        // Somebody else took or settled them; or the turn is wrong, and would come first for ever. Either way this is it.
        set_turn(work, id, turn);
        return Ok(None);
    }
    if let Some(why) = work.broken(id).map(str::to_owned) {
        work.outbox_must_stand(id);
        set_aside(work, id, &format!("the record of the job cannot be read: {why}"));
        return Ok(None);
    }
    let Some(job) = work.job(id).cloned() else {
        // If it was deleted a moment ago, its events went with it, and the step is decided again.
        work.outbox_must_stand(id);
        set_aside(work, id, "there is no such job");
        return Ok(None);
    };
    Ok(Some(work.outbox(id).await?.take(job, until)))
}

/// Writes the turn of a job as its events have it.
fn set_turn(work: &mut Work<'_>, id: &JobId, turn: Option<Time>) {
    let (turns, member) = (work.keys().turns(), id.as_str().as_bytes());
    work.outbox_must_stand(id);
    match turn {
        Some(turn) => work.command([b"ZADD", turns.as_bytes(), turn.as_millis().to_string().as_bytes(), member]),
        None => work.command([b"ZREM", turns.as_bytes(), member]),
    }
}

/// Takes a job's events out of the turns, so that they block nobody.
fn set_aside(work: &mut Work<'_>, id: &JobId, why: &str) {
    tracing::error!(job.id = %id, "the events of job {id} cannot be sent: {why}; they are set aside, see `jobservice doctor`");
    note_broken(work, id);
    let turns = work.keys().turns();
    work.command([b"ZREM", turns.as_bytes(), id.as_str().as_bytes()]);
}
