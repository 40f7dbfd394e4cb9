//! People look: numbers, why a job waits, executions, what happened in each minute.

use std::collections::BTreeMap;

use jobservice_core::job::{Index, Job, Status};
use jobservice_core::store::{Bucket, Executions, ExecutionsQuery, Minute, NameAsk, Result, Waiting};
use jobservice_core::{JobId, Name, StoreError, Time, limits, minutes};
use redis::Value;

use crate::claim::read_options;
use crate::due::scored;
use crate::link::{array, number, text};
use crate::list::{self, names_in};
use crate::store::{RedisStore, Shard};
use crate::walk::{Found, Source, Walk};
use crate::work::hour_and_minute;
use crate::{nodes, record};

/// Commands sent in one round trip.
pub(crate) const COMMANDS_MAX: usize = 1000;

/// How often it is looked again why a job waits that moves meanwhile.
const LOOKS: usize = 3;

impl RedisStore {
    /// How many jobs there are in each status.
    pub(crate) async fn count_jobs(&self) -> Result<Vec<(Status, u64)>> {
        let mut counts: Vec<(Status, u64)> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
        for shard in &self.shards {
            let keys = &shard.keys;
            let mut sets: Vec<(Status, String)> = vec![(Status::Scheduled, keys.due())];
            for name in names_in(shard, keys.work()).await? {
                sets.extend([keys.ready(&name), keys.suspects(&name)].map(|key| (Status::Pending, key)));
            }
            for name in names_in(shard, keys.busy()).await? {
                sets.push((Status::Running, keys.running(&name)));
            }
            let finals = Status::ALL.into_iter().filter(|status| status.is_final());
            sets.extend(finals.map(|status| (status, keys.kept(status))));
            for part in sets.chunks(COMMANDS_MAX) {
                let numbers = cards(shard, part.iter().map(|(_, key)| key.as_str())).await?;
                for ((status, _), number) in part.iter().zip(numbers) {
                    counts.iter_mut().filter(|(of, _)| of == status).for_each(|(_, count)| *count += number);
                }
            }
        }
        Ok(counts)
    }

    /// Why a job waits, the first reason that applies: who removes it sees the next.
    pub(crate) async fn explain_job(&self, id: &JobId, code: &[NameAsk], now: Time) -> Result<Option<Waiting>> {
        let shard = self.shard_with(id).await?;
        for _ in 0..LOOKS {
            let Some(job) = read_one(shard, id).await? else { return Ok(None) };
            let suspect = match job.index() {
                Index::Due { run_at } => return Ok(Some(Waiting::Due(run_at))),
                Index::Running { .. } | Index::Final { .. } => return Ok(None),
                Index::Ready { suspect, .. } => suspect,
            };
            let name = &job.spec.name;
            let mut pipe = redis::pipe();
            pipe.cmd("HGET").arg(shard.keys.names()).arg(name.as_str());
            pipe.cmd("ZCARD").arg(shard.keys.running(name));
            pipe.cmd("ZRANK").arg(shard.keys.ready(name)).arg(id.as_str());
            let answers = shard.link.pipe(&pipe, "explain").await?;
            let [options, running, rank] = answers.as_slice() else { return Ok(None) };
            let options = read_options(text(options)?.unwrap_or_default())?;
            if options.paused {
                return Ok(Some(Waiting::Paused));
            }
            let running = crate::work::count(running)?;
            let coded = || code.iter().find(|asked| asked.name == *name).and_then(|asked| asked.max_concurrency);
            let limit = options.max_concurrency.or_else(coded);
            if let Some(limit) = limit.filter(|limit| running >= u64::from(*limit)) {
                return Ok(Some(Waiting::AtLimit { limit, running }));
            }
            let nodes = nodes::known(self.shard(0)?).await?;
            if !nodes.iter().any(|node| node.is_alive(now) && node.names.contains(name)) {
                return Ok(Some(Waiting::NoWorker));
            }
            if suspect {
                return Ok(Some(Waiting::Suspect));
            }
            // None: it was claimed, or ended, between the two looks.
            let Some(before) = number(rank)? else { continue };
            let position = u64::try_from(before).ok().filter(|before| *before <= limits::POSITION_MAX as u64);
            return Ok(Some(Waiting::Queued { position }));
        }
        Ok(Some(Waiting::Queued { position: None }))
    }

    /// Whether each of these has executions.
    pub(crate) async fn which_have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        let mut found = vec![false; ids.len()];
        for shard in &self.shards {
            for (ids, found) in ids.chunks(COMMANDS_MAX).zip(found.chunks_mut(COMMANDS_MAX)) {
                let numbers: Vec<String> = ids.iter().map(|id| shard.keys.executions(id)).collect();
                let numbers = cards(shard, numbers.iter().map(String::as_str)).await?;
                found.iter_mut().zip(numbers).for_each(|(found, number)| *found |= number > 0);
            }
        }
        Ok(found)
    }

    /// A page of the executions of a parent, newest first.
    pub(crate) async fn executions_of(&self, query: &ExecutionsQuery) -> Result<Executions> {
        let ExecutionsQuery { upstream, live, offset, limit } = query;
        let limit = (*limit).min(limits::LIST_MAX);
        let (found, total) = if *live {
            self.live_executions(upstream, *offset, limit).await?
        } else {
            self.all_executions(upstream, *offset, limit).await?
        };
        let jobs = list::read(&found).await?.into_iter().flatten();
        let jobs = jobs.filter(|job| !live || !job.state.status.is_final()).collect();
        Ok(Executions { jobs, total })
    }

    async fn all_executions(&self, upstream: &JobId, offset: usize, limit: usize) -> Result<(Vec<Found<'_>>, usize)> {
        let mut total = 0;
        for shard in &self.shards {
            let key = shard.keys.executions(upstream);
            total += cards(shard, std::iter::once(key.as_str())).await?.into_iter().sum::<u64>();
        }
        let total = usize::try_from(total).unwrap_or(usize::MAX).min(limits::EXECUTIONS_COUNTED_MAX);
        let limit = limit.min(total.saturating_sub(offset));
        if limit == 0 {
            return Ok((Vec::new(), total));
        }
        if let [shard] = self.shards.as_slice() {
            let mut get = redis::cmd("ZREVRANGE");
            get.arg(shard.keys.executions(upstream)).arg(offset).arg(offset + limit - 1).arg("WITHSCORES");
            let found = scored(&shard.link.send(&get, "executions").await?)?.into_iter();
            return Ok((found.map(|(score, member)| Found { shard, group: 0, score, member }).collect(), total));
        }
        let sources = self.shards.iter().map(|shard| Source::new(shard, shard.keys.executions(upstream), 0, None));
        let mut walk = Walk::new(sources.collect(), true);
        // Passing over is by places: only ids are read.
        let mut left = offset;
        while left > 0 {
            let passed = walk.take(left.min(COMMANDS_MAX)).await?.len();
            if passed == 0 {
                break;
            }
            left -= passed;
        }
        Ok((walk.take(limit).await?, total))
    }

    /// Those that are not final: few, so they are sorted here.
    async fn live_executions(&self, upstream: &JobId, offset: usize, limit: usize) -> Result<(Vec<Found<'_>>, usize)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let mut get = redis::cmd("SMEMBERS");
            get.arg(shard.keys.live(upstream));
            let answer = shard.link.send(&get, "executions").await?;
            let members: Vec<&str> = array(&answer)?.iter().filter_map(|member| text(member).ok()?).collect();
            for part in members.chunks(COMMANDS_MAX) {
                let mut scores = redis::cmd("ZMSCORE");
                scores.arg(shard.keys.executions(upstream)).arg(part);
                let scores = shard.link.send(&scores, "executions").await?;
                for (member, score) in part.iter().zip(array(&scores)?) {
                    if let Some(score) = number(score)? {
                        found.push(Found { shard, group: 0, score, member: (*member).to_owned() });
                    }
                }
            }
        }
        found.sort_by(|a, b| (b.score, &b.member).cmp(&(a.score, &a.member)));
        found.truncate(limits::EXECUTIONS_COUNTED_MAX);
        let total = found.len();
        Ok((found.into_iter().skip(offset).take(limit).collect(), total))
    }

    /// What happened in each minute from that of `from` on.
    pub(crate) async fn minutes_from(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>> {
        let mut found: BTreeMap<i64, Bucket> = BTreeMap::new();
        for shard in &self.shards {
            if name.is_some_and(|name| self.shard_number(name) != shard.number) {
                continue;
            }
            let mut get = redis::cmd("ZRANGEBYSCORE");
            get.arg(shard.keys.hours()).arg(hour_and_minute(from).0.saturating_mul(60)).arg("+inf");
            let answer = shard.link.send(&get, "minutes").await?;
            let mut hours: Vec<(i64, &str)> = Vec::new();
            for member in array(&answer)? {
                if let Some((hour, of)) = text(member)?.and_then(|member| member.split_once(':'))
                    && name.is_none_or(|name| name.as_str() == of)
                    && let Ok(hour) = hour.parse()
                {
                    hours.push((hour, of));
                }
            }
            for part in hours.chunks(COMMANDS_MAX) {
                let mut pipe = redis::pipe();
                for (hour, name) in part {
                    pipe.cmd("HGETALL").arg(shard.keys.minutes(*hour, name));
                }
                for ((hour, _), answer) in part.iter().zip(&shard.link.pipe(&pipe, "minutes").await?) {
                    add_hour(&mut found, *hour, answer)?;
                }
            }
        }
        let found = found.into_iter().filter(|(minute, _)| *minute >= minutes::number_of(from));
        Ok(found.map(|(minute, bucket)| Minute { at: minutes::begin_of(minute), bucket }).collect())
    }
}

/// Adds the numbers of an hour. What cannot be read is left out: a chart with a gap is better than none.
fn add_hour(found: &mut BTreeMap<i64, Bucket>, hour: i64, answer: &Value) -> Result<()> {
    for (field, value) in record::pairs(answer)? {
        let Some(field) = text(field)? else { continue };
        let digits = field.trim_end_matches(|character: char| !character.is_ascii_digit());
        let (Ok(minute), Some(value)) = (digits.parse::<i64>(), number(value)?) else { continue };
        let bucket = found.entry(hour * 60 + minute).or_default();
        let value = value.max(0) as u64;
        match field.get(digits.len()..) {
            Some("s") => bucket.submitted += value,
            Some("o") => bucket.succeeded += value,
            Some("f") => bucket.failed += value,
            Some("w") => bucket.wait_ms += value,
            Some("r") => bucket.run_ms += value,
            _ => {}
        }
    }
    Ok(())
}

/// The sizes of sorted sets.
pub(crate) async fn cards<'a>(shard: &Shard, keys: impl Iterator<Item = &'a str>) -> Result<Vec<u64>> {
    let mut pipe = redis::pipe();
    keys.for_each(|key| {
        pipe.cmd("ZCARD").arg(key);
    });
    shard.link.pipe(&pipe, "count").await?.iter().map(crate::work::count).collect()
}

async fn read_one(shard: &Shard, id: &JobId) -> Result<Option<Job>> {
    match record::read_all(&shard.link, &shard.keys, &[id]).await?.pop() {
        Some(Ok(record)) => Ok(record.map(|record| record.job)),
        Some(Err(why)) => Err(StoreError::Damaged { what: format!("job {id}: {why}") }),
        None => Ok(None),
    }
}
