//! The hook events of jobs: take, settle, send again. What happens within an outbox is said by
//! [`jobservice_core::outbox::JobOutbox`]; `keys.turns()` says whose turn it is.
//!
//! Who takes events reads those of many jobs and holds them in one step. Of two that take at once one finds that the
//! versions have risen, and looks again for who is left.

use jobservice_core::outbox::{JobEvents, JobOutbox, OutboxEntry, Resent, Settled};
use jobservice_core::store::Result;
use jobservice_core::{JobId, StoreError, Time};

use crate::due::{note_broken, scored};
use crate::store::{RedisStore, Shard};
use crate::work::{Tries, Work};

/// How often a take looks again because others were faster: they got what it did not.
const ROUNDS_MAX: u32 = 8;

/// The events of a job that were taken, with what its turn was.
struct Taken {
    turn: Time,
    events: JobEvents,
}

impl RedisStore {
    /// Takes the events of jobs whose turn it is, and holds them until `until`.
    ///
    /// The events of each shard are taken in a step of its own: should a later one fail, what was taken is given out.
    pub(crate) async fn take_due_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>> {
        let mut due: Vec<(i64, String, usize)> = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            due.extend(due_on(shard, limit, now).await?.into_iter().map(|(turn, id)| (turn, id, number)));
        }
        // The oldest of all shards.
        due.sort_unstable();
        due.truncate(limit);
        let mut taken: Vec<Taken> = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let here = due.iter().filter(|(.., of)| *of == number).map(|(turn, id, _)| (*turn, id.clone()));
            if let Err(error) = self.take_from(shard, here.collect(), until, now, &mut taken).await {
                if taken.is_empty() {
                    return Err(error);
                }
                tracing::warn!(shard = shard.number, "not all events that are due were taken: {error}");
            }
        }
        taken.sort_unstable_by(|a, b| (a.turn, &a.events.job.id).cmp(&(b.turn, &b.events.job.id)));
        Ok(taken.into_iter().map(|taken| taken.events).collect())
    }

    /// Takes the events of as many jobs as are due: of these, or, as far as others were faster, of those that come next.
    async fn take_from(
        &self,
        shard: &Shard,
        mut due: Vec<(i64, String)>,
        until: Time,
        now: Time,
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let mut left = due.len();
        let mut tries = Tries::default();
        for _ in 0..ROUNDS_MAX {
            if due.is_empty() {
                break;
            }
            let mut work = Work::new(shard, now);
            let ids: Vec<JobId> = due.iter().filter_map(|(_, id)| known_or_dropped(&mut work, id)).collect();
            let broken = work.load_outboxes(&ids).await?;
            // After their events: a job that is read later is at least as new as these.
            work.load(&ids).await?;
            let mut these = Vec::with_capacity(ids.len());
            for id in &ids {
                these.extend(take_one(&mut work, id, broken.get(id), until, now).await?);
            }
            match self.commit(shard, work, &mut tries).await {
                Ok(true) => {
                    let is_complete = these.len() == due.len();
                    left = left.saturating_sub(these.len());
                    taken.extend(these);
                    if is_complete || left == 0 {
                        break;
                    }
                }
                Ok(false) => {}
                // Others are busy with the same events: nothing is left undone.
                Err(StoreError::Contended { .. }) => break,
                Err(error) => return Err(error),
            }
            due = due_on(shard, left, now).await?;
        }
        Ok(())
    }

    /// Records what became of a delivery.
    pub(crate) async fn settle_one_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()> {
        let shard = self.shard_with(id).await?;
        let mut tries = Tries::default();
        loop {
            let mut work = Work::new(shard, now);
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
            let mut work = Work::new(shard, now);
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
        let mut work = Work::new(shard, Time::MAX);
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
) -> Result<Option<Taken>> {
    if let Some(why) = unreadable.map(String::as_str) {
        set_aside(work, id, why);
        return Ok(None);
    }
    let outbox: &JobOutbox = work.outbox(id).await?;
    let next = outbox.turn();
    let Some(turn) = next.filter(|turn| *turn <= now) else {
        // Somebody else took or settled them; or the turn is wrong, and would come first for ever. Either way this is it.
        set_turn(work, id, next);
        return Ok(None);
    };
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
    Ok(Some(Taken { turn, events: work.outbox(id).await?.take(job, until) }))
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
    for key in [work.keys().turns(), work.keys().waiting_since()] {
        work.command([b"ZREM", key.as_bytes(), id.as_str().as_bytes()]);
    }
}
