//! What is past its time goes: prune.
//!
//! What goes is chosen over all shards, earliest first, and then goes shard by shard. Whether it may go is decided again
//! within the step of its shard, so of two nodes that do so at once, one finds nothing left to do.

use std::collections::HashSet;

use jobservice_core::job::Status;
use jobservice_core::lifecycle::Event;
use jobservice_core::outbox::OutboxEntry;
use jobservice_core::store::{Result, Swept};
use jobservice_core::{JobId, StoreError, Time, limits, minutes};
use redis::Value;

use crate::due::{earliest, next, note_broken, put_right, scored};
use crate::link::{array, text};
use crate::list::names_in;
use crate::look::{COMMANDS_MAX, cards};
use crate::nodes;
use crate::record;
use crate::store::{RedisStore, Shard};
use crate::walk::{Source, Walk};
use crate::work::{Happened, Tries, Work, waits_since};

/// Members looked at in one round trip.
const PAGE: usize = 256;

/// What goes of one shard in one step.
#[derive(Default)]
struct Going {
    /// Events past their deadline.
    events: Vec<(JobId, u32)>,
    /// Final jobs past their expiry.
    jobs: Vec<JobId>,
    /// Remembered submissions past theirs, with what is remembered.
    submissions: Vec<(String, String)>,
}

impl RedisStore {
    /// Removes what is past its time, of each kind at most `limit`.
    ///
    /// Events go first: a job that stayed for their sake goes in the same call as the last of them.
    pub(crate) async fn prune_all(&self, limit: usize, now: Time) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut going: Vec<Going> = self.shards.iter().map(|_| Going::default()).collect();

        let (events, freed) = self.late_events(limit, now).await?;
        swept.more |= events.len() > limit;
        for (number, id, seq) in events.into_iter().take(limit) {
            if let Some(going) = going.get_mut(number) {
                going.events.push((id, seq));
            }
        }
        let jobs = self.may_go(limit.saturating_add(1), Some(now), &freed).await?;
        swept.more |= jobs.len() > limit;
        let jobs: Vec<(usize, JobId)> = jobs.into_iter().take(limit).collect();
        for (number, id) in &jobs {
            if let Some(going) = going.get_mut(*number) {
                going.jobs.push(id.clone());
            }
        }
        let submissions = self.forgotten_submissions(limit.saturating_add(1), now).await?;
        swept.more |= submissions.len() > limit;
        for (number, field, value) in submissions.into_iter().take(limit) {
            if let Some(going) = going.get_mut(number) {
                going.submissions.push((field, value));
            }
        }

        let mut gone = HashSet::new();
        for (shard, going) in self.shards.iter().zip(&going) {
            swept.moved += self.let_go(shard, going, now, &mut gone).await?;
        }
        swept.removed.extend(jobs.into_iter().map(|(_, id)| id).filter(|id| gone.contains(id)));
        let (forgotten, next_at) = self.forget_nodes(self.shard(0)?, now).await?;
        swept.moved += forgotten;
        swept.next_at = earliest(swept.next_at, next_at);
        for shard in &self.shards {
            // Nobody waits for these: the last call of a sweep does them.
            if !swept.more {
                self.forget_minutes(shard, now).await?;
                self.tidy_names(shard, now).await?;
            }
            swept.next_at = earliest(swept.next_at, next_in(shard, now).await?);
        }
        Ok(swept)
    }

    /// Events past their deadline, that first which should have arrived first: one more than `limit` if there are more.
    /// And the jobs of which no event waits once the first `limit` are given up.
    async fn late_events(&self, limit: usize, now: Time) -> Result<(Vec<(usize, JobId, u32)>, HashSet<JobId>)> {
        let mut late: Vec<(Time, JobId, u32, usize)> = Vec::new();
        let mut outboxes = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let mut get = redis::cmd("ZRANGEBYSCORE");
            get.arg(shard.keys.waiting_since()).arg("-inf").arg((now - limits::HOOK_DEADLINE).as_millis());
            get.arg("LIMIT").arg(0).arg(limit.saturating_add(1));
            let ids = crate::work::ids(&shard.link.send(&get, "prune").await?)?;
            let read = record::outboxes(&shard.link, &shard.keys, &ids.iter().collect::<Vec<_>>()).await?;
            for (id, outbox) in ids.into_iter().zip(read) {
                let outbox = match outbox {
                    Ok((_, outbox)) => outbox,
                    Err(why) => {
                        self.set_outbox_aside(shard, &id, &why, now).await?;
                        continue;
                    }
                };
                let before = late.len();
                let past = outbox.waiting().filter(|entry| entry.deadline() <= now);
                late.extend(past.map(|entry| (entry.deadline(), id.clone(), entry.event.seq, number)));
                if late.len() == before {
                    self.put_wait_right(shard, &id, now).await?;
                }
                outboxes.push((id, outbox));
            }
        }
        late.sort();
        late.truncate(limit.saturating_add(1));
        let given_up: HashSet<(&JobId, u32)> = late.iter().take(limit).map(|(_, id, seq, _)| (id, *seq)).collect();
        let goes = |entry: &OutboxEntry| given_up.contains(&(&entry.id, entry.event.seq));
        let freed =
            outboxes.iter().filter(|(_, outbox)| outbox.waiting().all(goes)).map(|(id, _)| id.clone()).collect();
        Ok((late.into_iter().map(|(_, id, seq, number)| (number, id, seq)).collect(), freed))
    }

    /// Takes an outbox that cannot be read out of the turns, so that it blocks nobody.
    async fn set_outbox_aside(&self, shard: &Shard, id: &JobId, why: &str, now: Time) -> Result<()> {
        tracing::error!(job = %id, "the hook events of a job cannot be read: {why}; they are set aside");
        let mut work = Work::new(shard, now);
        for key in [shard.keys.turns(), shard.keys.waiting_since()] {
            work.command([b"ZREM", key.as_bytes(), id.as_str().as_bytes()]);
        }
        note_broken(&mut work, id);
        self.commit(shard, work, &mut Tries::default()).await.map(drop)
    }

    /// Notes since when the events of a job wait, if what was noted was wrong: it would be looked at in each sweep.
    async fn put_wait_right(&self, shard: &Shard, id: &JobId, now: Time) -> Result<()> {
        let mut work = Work::new(shard, now);
        let since = waits_since(work.outbox(id).await?);
        work.outbox_must_stand(id);
        let (key, member) = (shard.keys.waiting_since(), id.as_str().as_bytes());
        match since {
            Some(at) => work.command([b"ZADD", key.as_bytes(), at.as_millis().to_string().as_bytes(), member]),
            None => work.command([b"ZREM", key.as_bytes(), member]),
        }
        // If they changed meanwhile, it was noted anew.
        self.commit(shard, work, &mut Tries::default()).await.map(drop)
    }

    /// Up to `limit` final jobs without waiting events, or with such as are `freed` of them, that next to expire first, with
    /// their shards; up to an expiry, if there is one.
    pub(crate) async fn may_go(
        &self,
        limit: usize,
        until: Option<Time>,
        freed: &HashSet<JobId>,
    ) -> Result<Vec<(usize, JobId)>> {
        let mut sources = Vec::new();
        for shard in &self.shards {
            let finals = Status::ALL.into_iter().filter(|status| status.is_final());
            sources.extend(finals.map(|status| Source::new(shard, shard.keys.kept(status), 0, None)));
        }
        let mut walk = Walk::new(sources, false);
        let mut free = Vec::new();
        loop {
            let mut found = walk.take(PAGE.min(limit.saturating_add(1))).await?;
            let is_last = found.is_empty() || found.last().is_some_and(|last| is_after(last.score, until));
            found.retain(|found| !is_after(found.score, until));
            let mut waits = vec![false; found.len()];
            for shard in &self.shards {
                let of_shard = found.iter().enumerate().filter(|(_, found)| found.shard.number == shard.number);
                let (places, ids): (Vec<usize>, Vec<&str>) =
                    of_shard.map(|(at, found)| (at, found.member.as_str())).unzip();
                if ids.is_empty() {
                    continue;
                }
                let mut scores = redis::cmd("ZMSCORE");
                scores.arg(shard.keys.turns()).arg(&ids);
                let scores = shard.link.send(&scores, "prune").await?;
                for (at, score) in places.into_iter().zip(array(&scores)?) {
                    if let Some(waits) = waits.get_mut(at) {
                        *waits = *score != Value::Nil;
                    }
                }
            }
            for (found, waits) in found.into_iter().zip(waits) {
                let Ok(id) = JobId::new(&found.member) else { continue };
                if waits && !freed.contains(&id) {
                    continue;
                }
                if free.len() == limit {
                    return Ok(free);
                }
                free.push((found.shard.number, id));
            }
            if is_last || free.len() == limit {
                return Ok(free);
            }
        }
    }

    async fn forgotten_submissions(&self, limit: usize, now: Time) -> Result<Vec<(usize, String, String)>> {
        let mut over: Vec<(i64, String, usize)> = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let mut get = redis::cmd("ZRANGEBYSCORE");
            get.arg(shard.keys.submissions_due()).arg("-inf").arg(now.as_millis()).arg("WITHSCORES");
            get.arg("LIMIT").arg(0).arg(limit);
            let found = scored(&shard.link.send(&get, "prune").await?)?;
            over.extend(found.into_iter().map(|(at, field)| (at, field, number)));
        }
        over.sort();
        over.truncate(limit);
        let mut submissions = Vec::with_capacity(over.len());
        for (number, shard) in self.shards.iter().enumerate() {
            let fields: Vec<&String> =
                over.iter().filter(|(_, _, of)| *of == number).map(|(_, field, _)| field).collect();
            for part in fields.chunks(COMMANDS_MAX) {
                let mut get = redis::cmd("HMGET");
                get.arg(shard.keys.submissions()).arg(part);
                let values = shard.link.send(&get, "prune").await?;
                for (field, value) in part.iter().zip(array(&values)?) {
                    submissions.push((number, (*field).clone(), text(value)?.unwrap_or_default().to_owned()));
                }
            }
        }
        Ok(submissions)
    }

    /// Lets go what goes of a shard; answers how many, and notes the jobs that are gone.
    async fn let_go(&self, shard: &Shard, going: &Going, now: Time, gone: &mut HashSet<JobId>) -> Result<usize> {
        let Going { events, jobs, submissions } = going;
        if events.is_empty() && jobs.is_empty() && submissions.is_empty() {
            return Ok(0);
        }
        let mut tries = Tries::default();
        loop {
            let mut work = Work::new(shard, now);
            let mut moved = 0;
            for (id, seq) in events {
                let outbox = work.outbox(id).await?;
                // It may have been settled, or sent again, meanwhile.
                if outbox.get(*seq).is_some_and(|entry| entry.is_waiting() && entry.deadline() <= now) {
                    outbox.give_up(*seq, now);
                    moved += 1;
                }
            }
            let removed = remove(&mut work, jobs, &Event::Prune).await?;
            moved += removed.len();
            let (hash, due) = (shard.keys.submissions(), shard.keys.submissions_due());
            for (field, value) in submissions {
                work.check([b"f", hash.as_bytes(), field.as_bytes(), value.as_bytes()]);
                work.command([b"HDEL", hash.as_bytes(), field.as_bytes()]);
                work.command([b"ZREM", due.as_bytes(), field.as_bytes()]);
                moved += 1;
            }
            if self.commit(shard, work, &mut tries).await? {
                gone.extend(removed);
                return Ok(moved);
            }
            if !submissions.is_empty() {
                // One of them is remembered anew, or forgotten by another: the rest of them can wait for the next call.
                let rest = Going { events: events.clone(), jobs: jobs.clone(), submissions: Vec::new() };
                return Box::pin(self.let_go(shard, &rest, now, gone)).await;
            }
        }
    }

    /// Forgets nodes long dead; answers how many, and when the next one will be forgotten.
    async fn forget_nodes(&self, shard: &Shard, now: Time) -> Result<(usize, Option<Time>)> {
        let key = shard.keys.nodes();
        let mut get = redis::cmd("HGETALL");
        get.arg(&key);
        let answer = shard.link.send(&get, "prune").await?;
        let mut next_at = None;
        let mut forgotten = 0;
        for (pool, stored) in record::pairs(&answer)? {
            let (Some(pool), Some(stored)) = (text(pool)?, text(stored)?) else { continue };
            let Ok(node) = nodes::read(pool, stored) else { continue };
            if now.since(node.beat_at) < limits::NODE_FORGOTTEN_AFTER {
                next_at = earliest(next_at, Some(node.beat_at + limits::NODE_FORGOTTEN_AFTER));
                continue;
            }
            let mut work = Work::new(shard, now);
            work.check([b"f", key.as_bytes(), pool.as_bytes(), stored.as_bytes()]);
            work.command([b"HDEL", key.as_bytes(), pool.as_bytes()]);
            // One that fails has beaten again, or another forgot it.
            forgotten += usize::from(self.commit(shard, work, &mut Tries::default()).await?);
        }
        Ok((forgotten, next_at))
    }

    /// Forgets minutes that are older than they are kept. The score of an hour is its first minute that is still there, so
    /// each hour is looked at once a minute, while its minutes go one by one.
    async fn forget_minutes(&self, shard: &Shard, now: Time) -> Result<()> {
        let oldest = minutes::oldest_kept(now);
        let hours = shard.keys.hours();
        loop {
            let mut get = redis::cmd("ZRANGEBYSCORE");
            get.arg(&hours).arg("-inf").arg(format!("({oldest}")).arg("LIMIT").arg(0).arg(PAGE);
            let answer = shard.link.send(&get, "prune").await?;
            let members: Vec<&str> = array(&answer)?.iter().filter_map(|member| text(member).ok()?).collect();
            if members.is_empty() {
                return Ok(());
            }
            let mut pipe = redis::pipe();
            for member in &members {
                pipe.cmd("HKEYS").arg(shard.keys.minutes_of(member));
            }
            let mut work = Work::new(shard, now);
            for (member, fields) in members.iter().zip(&shard.link.pipe(&pipe, "prune").await?) {
                let key = shard.keys.minutes_of(member);
                let hour = member.split_once(':').and_then(|(hour, _)| hour.parse::<i64>().ok()).unwrap_or(0);
                let mut stays = false;
                for field in array(fields)? {
                    let field = text(field)?.unwrap_or_default();
                    let minute = field.trim_end_matches(|character: char| !character.is_ascii_digit()).parse::<i64>();
                    if minute.is_ok_and(|minute| hour * 60 + minute >= oldest) {
                        stays = true;
                    } else {
                        work.command([b"HDEL", key.as_bytes(), field.as_bytes()]);
                    }
                }
                if stays {
                    work.command([b"ZADD", hours.as_bytes(), oldest.to_string().as_bytes(), member.as_bytes()]);
                } else {
                    work.command([b"ZREM", hours.as_bytes(), member.as_bytes()]);
                }
            }
            self.commit(shard, work, &mut Tries::default()).await?;
        }
    }

    /// Takes names without jobs out of those that may have some.
    async fn tidy_names(&self, shard: &Shard, now: Time) -> Result<()> {
        let keys = &shard.keys;
        let known = names_in(shard, keys.known()).await?;
        for part in known.chunks(PAGE) {
            let all: Vec<String> = part.iter().map(|name| keys.by_name(name)).collect();
            let numbers = cards(shard, all.iter().map(String::as_str)).await?;
            let idle = part.iter().zip(&all).zip(numbers);
            for ((name, set), _) in idle.filter(|(_, number)| *number == 0) {
                let mut work = Work::new(shard, now);
                work.check([b"z", set.as_bytes(), b"0"]);
                work.command([b"SREM", keys.known().as_bytes(), name.as_str().as_bytes()]);
                // If one of its jobs came meanwhile, it stays: nothing to try again.
                self.commit(shard, work, &mut Tries::default()).await?;
            }
        }
        Ok(())
    }
}

/// Removes jobs of which no event waits; answers which are gone. One that cannot be read is set aside.
pub(crate) async fn remove(work: &mut Work<'_>, ids: &[JobId], event: &Event) -> Result<Vec<JobId>> {
    work.load(ids).await?;
    let mut gone = Vec::with_capacity(ids.len());
    for id in ids {
        match remove_one(work, id, event).await {
            Ok(true) => gone.push(id.clone()),
            Ok(false) => put_all_right(work, id),
            Err(StoreError::Damaged { what }) => {
                tracing::error!(job = %id, "a job cannot be removed: {what}; it is set aside, see `jobservice doctor`");
                let keys = work.keys();
                for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
                    work.command([b"ZREM", keys.kept(status).as_bytes(), id.as_str().as_bytes()]);
                }
                note_broken(work, id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}

async fn remove_one(work: &mut Work<'_>, id: &JobId, event: &Event) -> Result<bool> {
    let has_hook = work.get(id).await?.is_some_and(|job| job.spec.hook.is_some());
    // An event may have been sent again meanwhile.
    if has_hook && work.outbox(id).await?.turn().is_some() {
        return Ok(false);
    }
    Ok(matches!(work.happen(id, event).await?, Happened::Gone))
}

/// Puts a job that may not go where its record says that it is.
fn put_all_right(work: &mut Work<'_>, id: &JobId) {
    for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
        let key = work.keys().kept(status);
        put_right(work, id, &key);
    }
}

/// Whether a time is past a bound, if there is one.
fn is_after(score: i64, until: Option<Time>) -> bool {
    until.is_some_and(|until| score > until.as_millis())
}

/// When something of a shard will be past its time next.
async fn next_in(shard: &Shard, now: Time) -> Result<Option<Time>> {
    let mut next_at = next(shard, &shard.keys.submissions_due()).await?;
    if let Some(since) = next(shard, &shard.keys.waiting_since()).await? {
        next_at = earliest(next_at, Some(since + limits::HOOK_DEADLINE));
    }
    let mut pipe = redis::pipe();
    for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
        pipe.cmd("ZRANGEBYSCORE").arg(shard.keys.kept(status)).arg(format!("({}", now.as_millis())).arg("+inf");
        pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(1);
    }
    for answer in &shard.link.pipe(&pipe, "prune").await? {
        let first = scored(answer)?.into_iter().next();
        next_at = earliest(next_at, first.map(|(at, _)| Time::from_millis(at)));
    }
    Ok(next_at)
}
