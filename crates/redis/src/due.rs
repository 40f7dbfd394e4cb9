//! The sweeps that move jobs: promote and reap. Both read what is due, let the rule book decide, and commit; of two nodes
//! that do so at once, one finds that there is nothing left to do.

use jobservice_core::lifecycle::{self, Event};
use jobservice_core::store::{Result, Swept};
use jobservice_core::{JobId, Name, Time};
use redis::Value;

use crate::link::{array, number, text};
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

/// The first `limit` ids whose time has come, earliest first, whether there are more, and the time of the first that stays.
fn past(mut members: Vec<(i64, String)>, limit: usize, now: Time) -> (Vec<JobId>, bool) {
    members.sort_unstable();
    members.retain(|(at, _)| *at <= now.as_millis());
    let more = members.len() > limit;
    members.truncate(limit);
    (members.into_iter().filter_map(|(_, id)| JobId::new(id).ok()).collect(), more)
}

impl RedisStore {
    /// Makes due jobs Pending.
    pub(crate) async fn promote_due(&self, limit: usize, now: Time) -> Result<Swept> {
        let mut swept = Swept::default();
        for shard in &self.shards {
            let members = first(shard, &shard.keys.due(), limit, now).await?;
            let (ids, more) = past(members, limit.saturating_sub(swept.moved), now);
            swept.more |= more;
            let mut tries = Tries::default();
            while !ids.is_empty() {
                let mut work = self.work(shard, now);
                work.load(&ids).await?;
                let mut moved = 0;
                for id in &ids {
                    if set_aside(&mut work, id, &shard.keys.due()) {
                        continue;
                    }
                    moved += usize::from(matches!(work.happen(id, &Event::Due).await?, Happened::Is(_)));
                }
                if self.commit(shard, work, &mut tries).await? {
                    swept.moved += moved;
                    break;
                }
            }
            swept.next_at = earliest(swept.next_at, next(shard, &shard.keys.due()).await?);
        }
        Ok(swept)
    }

    /// Ends the runs that are over their lease, their grace or their timeout.
    pub(crate) async fn reap_overdue(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept> {
        let mut swept = Swept::default();
        for shard in &self.shards {
            let names = self.busy(shard).await?;
            let mut pipe = redis::pipe();
            for name in &names {
                pipe.cmd("ZRANGEBYSCORE").arg(shard.keys.running(name)).arg("-inf").arg(now.as_millis());
                pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit.saturating_add(1));
            }
            let mut members = Vec::new();
            for answer in &shard.link.pipe(&pipe, "reap").await? {
                members.extend(scored(answer)?);
            }
            let (ids, more) = past(members, limit.saturating_sub(swept.moved), now);
            swept.more |= more;
            let mut tries = Tries::default();
            while !ids.is_empty() {
                let mut work = self.work(shard, now);
                work.load(&ids).await?;
                let mut moved = 0;
                for id in &ids {
                    if work.broken(id).is_some() {
                        for name in &names {
                            set_aside(&mut work, id, &shard.keys.running(name));
                        }
                        continue;
                    }
                    let event = work.job(id).and_then(|job| lifecycle::overdue(job, jitter, now));
                    if let Some(event) = event {
                        moved += usize::from(matches!(work.happen(id, &event).await?, Happened::Is(_)));
                    }
                }
                if self.commit(shard, work, &mut tries).await? {
                    swept.moved += moved;
                    break;
                }
            }
            swept.next_at = earliest(swept.next_at, self.next_reap(shard, &names, now).await?);
        }
        Ok(swept)
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
            let mut work = self.work(shard, now);
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
