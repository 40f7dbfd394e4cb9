//! The sweeps that move jobs: promote and reap. Both read what is due, let the rule book decide, and commit; of two nodes
//! that do so at once, one finds that there is nothing left to do.

use jobservice_core::job::Job;
use jobservice_core::lifecycle::{self, Event};
use jobservice_core::store::{Result, Swept};
use jobservice_core::{JobId, Name, Time};
use redis::Value;

use crate::link::{array, number, text};
use crate::places::{Place, sets};
use crate::store::{RedisStore, Shard};
use crate::work::{Happened, Tries, Work};

/// Members of a sorted set with their scores.
pub(crate) fn scored(answer: &Value) -> Result<Vec<(i64, String)>> {
    let mut members = Vec::new();
    for pair in array(answer)?.chunks_exact(2) {
        if let [member, score] = pair
            && let (Some(member), Some(score)) = (text(member)?, number(score)?)
        {
            members.push((score, member.to_owned()));
        }
    }
    Ok(members)
}

/// A member of a set whose time has come.
struct Past {
    at: i64,
    id: JobId,
    /// The number of the shard.
    shard: usize,
    key: String,
}

/// Those of all shards whose time has come.
#[derive(Default)]
struct AllPast(Vec<Past>);

impl AllPast {
    fn add(&mut self, shard: &Shard, key: &str, members: Vec<(i64, String)>) {
        let members = members.into_iter().filter_map(|(at, id)| Some((at, JobId::new(id).ok()?)));
        self.0.extend(members.map(|(at, id)| Past { at, id, shard: shard.number, key: key.to_owned() }));
    }

    /// The first `limit`, and whether there are more.
    fn first(mut self, limit: usize) -> (Vec<Past>, bool) {
        self.0.sort_unstable_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        let more = self.0.len() > limit;
        self.0.truncate(limit);
        (self.0, more)
    }
}

impl RedisStore {
    /// Makes due jobs Pending.
    pub(crate) async fn promote_due(&self, limit: usize, now: Time) -> Result<Swept> {
        let mut all = AllPast::default();
        // A shard that is away must not hold up the others: it is told of once they had their turn.
        let mut trouble = None;
        let mut there = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let key = shard.keys.due();
            match first(shard, &key, limit, now).await {
                Ok(members) => {
                    all.add(shard, &key, members);
                    there.push(shard);
                }
                Err(error) => trouble = Some(error),
            }
        }
        let (past, more) = all.first(limit);
        let mut swept = Swept { more, ..Swept::default() };
        for shard in there {
            match self.move_on(shard, &past, |_| Some(Event::Due), now).await {
                Ok(moved) => swept.moved += moved,
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        for shard in &self.shards {
            swept.next_at = earliest(swept.next_at, next(shard, &shard.keys.due()).await?);
        }
        Ok(swept)
    }

    /// Ends the runs that are over their lease, their grace or their timeout.
    pub(crate) async fn reap_overdue(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept> {
        let mut all = AllPast::default();
        let mut trouble = None;
        let mut busy = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            match self.overdue_in(shard, limit, now, &mut all).await {
                Ok(names) => busy.push((shard, names)),
                Err(error) => trouble = Some(error),
            }
        }
        let (past, more) = all.first(limit);
        let mut swept = Swept { more, ..Swept::default() };
        for (shard, _) in &busy {
            match self.move_on(shard, &past, |job: &Job| lifecycle::overdue(job, jitter, now), now).await {
                Ok(moved) => swept.moved += moved,
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        for (shard, names) in busy {
            swept.next_at = earliest(swept.next_at, self.next_reap(shard, &names, now).await?);
        }
        Ok(swept)
    }

    /// Adds the runs of a shard that are overdue; answers with its names that may have runs.
    async fn overdue_in(&self, shard: &Shard, limit: usize, now: Time, all: &mut AllPast) -> Result<Vec<Name>> {
        let names = self.busy(shard).await?;
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.cmd("ZRANGEBYSCORE").arg(shard.keys.running(name)).arg("-inf").arg(now.as_millis());
            pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit.saturating_add(1));
        }
        for (name, answer) in names.iter().zip(&shard.link.pipe(&pipe, "reap").await?) {
            all.add(shard, &shard.keys.running(name), scored(answer)?);
        }
        Ok(names)
    }

    /// Lets an event happen to those of a shard, in one step; answers to how many it did.
    async fn move_on(
        &self,
        shard: &Shard,
        past: &[Past],
        event: impl Fn(&Job) -> Option<Event>,
        now: Time,
    ) -> Result<usize> {
        let past: Vec<&Past> = past.iter().filter(|past| past.shard == shard.number).collect();
        let ids: Vec<JobId> = past.iter().map(|past| past.id.clone()).collect();
        let mut tries = Tries::default();
        while !ids.is_empty() {
            let mut work = Work::new(shard, now);
            work.load(&ids).await?;
            let mut moved = 0;
            for Past { id, key, .. } in &past {
                if set_aside(&mut work, id, key) {
                    continue;
                }
                let is_moved = match work.job(id).and_then(&event) {
                    Some(event) => matches!(work.happen(id, &event).await?, Happened::Is(_)),
                    None => false,
                };
                if is_moved {
                    moved += 1;
                } else {
                    put_right(&mut work, id, key);
                }
            }
            if self.commit(shard, work, &mut tries).await? {
                return Ok(moved);
            }
        }
        Ok(0)
    }

    async fn busy(&self, shard: &Shard) -> Result<Vec<Name>> {
        let mut get = redis::cmd("SMEMBERS");
        get.arg(shard.keys.busy());
        let answer = shard.link.send(&get, "reap").await?;
        Ok(array(&answer)?.iter().filter_map(|name| Name::new(text(name).ok()??).ok()).collect())
    }

    /// When the next run has to be looked at. Names without runs are tidied away.
    async fn next_reap(&self, shard: &Shard, names: &[Name], now: Time) -> Result<Option<Time>> {
        let mut next_at = None;
        let mut pipe = redis::pipe();
        for name in names {
            pipe.cmd("ZRANGE").arg(shard.keys.running(name)).arg(&[0, 0]).arg("WITHSCORES");
        }
        let mut idle = Vec::new();
        for (name, answer) in names.iter().zip(&shard.link.pipe(&pipe, "reap").await?) {
            match scored(answer)?.first() {
                Some((at, _)) => next_at = earliest(next_at, Some(Time::from_millis(*at))),
                None => idle.push(name),
            }
        }
        for name in idle {
            let mut work = Work::new(shard, now);
            work.check([b"z", shard.keys.running(name).as_bytes(), b"0"]);
            work.command([b"SREM", shard.keys.busy().as_bytes(), name.as_str().as_bytes()]);
            // Whoever claimed one of its jobs meanwhile keeps it there: nothing to try again.
            self.commit(shard, work, &mut Tries::default()).await?;
        }
        Ok(next_at)
    }
}

/// Moves a record that cannot be read out of a set, so that it blocks nobody; answers whether it was one.
pub(crate) fn set_aside(work: &mut Work<'_>, id: &JobId, from: &str) -> bool {
    let Some(why) = work.broken(id) else { return false };
    tracing::error!(job = %id, "the record of a job cannot be read: {why}; it is set aside, see `jobservice doctor`");
    note_broken(work, id);
    work.command([b"ZREM", from.as_bytes(), id.as_str().as_bytes()]);
    true
}

/// Puts a job where its record says that it is in a set which it was found in too early, or by mistake: it would come first
/// in each sweep, and after enough of such nothing else would.
pub(crate) fn put_right(work: &mut Work<'_>, id: &JobId, key: &str) {
    let Some(job) = work.job(id).cloned() else {
        work.check([b"x", work.keys().job(id).as_bytes()]);
        work.command([b"ZREM", key.as_bytes(), id.as_str().as_bytes()]);
        return;
    };
    let mut place = None;
    sets(work.keys(), &job, |of, at| {
        if let (true, Place::Score(score)) = (of == key, at) {
            place = Some(score);
        }
    });
    work.must_stand(id);
    match place {
        Some(score) => work.command([b"ZADD", key.as_bytes(), score.to_string().as_bytes(), id.as_str().as_bytes()]),
        None => work.command([b"ZREM", key.as_bytes(), id.as_str().as_bytes()]),
    }
}

/// Notes for `jobservice doctor` that what belongs to an id cannot be read.
pub(crate) fn note_broken(work: &mut Work<'_>, id: &JobId) {
    let broken = work.keys().broken();
    work.command([b"SADD", broken.as_bytes(), id.as_str().as_bytes()]);
}

/// The earlier of two times.
pub(crate) fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    [a, b].into_iter().flatten().min()
}

/// The members of a sorted set up to now, one more than `limit`.
async fn first(shard: &Shard, key: &str, limit: usize, now: Time) -> Result<Vec<(i64, String)>> {
    let mut get = redis::cmd("ZRANGEBYSCORE");
    get.arg(key).arg("-inf").arg(now.as_millis()).arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit.saturating_add(1));
    scored(&shard.link.send(&get, "sweep").await?)
}

/// The least score of a sorted set, as a time.
pub(crate) async fn next(shard: &Shard, key: &str) -> Result<Option<Time>> {
    let mut get = redis::cmd("ZRANGE");
    get.arg(key).arg(&[0, 0]).arg("WITHSCORES");
    let members = scored(&shard.link.send(&get, "sweep").await?)?;
    Ok(members.first().map(|(at, _)| Time::from_millis(*at)))
}
