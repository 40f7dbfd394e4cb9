//! The numbers of each name.

use std::collections::{BTreeMap, BTreeSet};

use jobservice_core::store::{NameOptions, NameStats, Result};
use jobservice_core::{Name, Time};
use redis::{Pipeline, Value};

use crate::claim::read_options;
use crate::due::{earliest, scored};
use crate::link::text;
use crate::list::names_in;
use crate::places::{ready_place, ready_score};
use crate::record;
use crate::store::{RedisStore, Shard};
use crate::work::count;

/// Names asked for in one round trip.
const PAGE: usize = 100;

/// Commands sent for each of them by [`ask`].
const COMMANDS: usize = 8;

impl RedisStore {
    /// The numbers of each name that has options or jobs that are not final.
    pub(crate) async fn stats_of_names(&self) -> Result<Vec<NameStats>> {
        let mut stats = Vec::new();
        for shard in &self.shards {
            let options = options_in(shard).await?;
            let mut names: BTreeSet<Name> = names_in(shard, shard.keys.known()).await?.into_iter().collect();
            names.extend(options.keys().cloned());
            let names: Vec<Name> = names.into_iter().collect();
            for part in names.chunks(PAGE) {
                stats.extend(stats_in(shard, part, &options).await?);
            }
        }
        // Names all of whose jobs are final are nobody's business.
        let is_shown =
            |of: &NameStats| of.options != NameOptions::default() || of.pending + of.scheduled + of.running > 0;
        stats.retain(is_shown);
        stats.sort_by(|a: &NameStats, b: &NameStats| a.name.cmp(&b.name));
        Ok(stats)
    }
}

/// What operators said of names.
async fn options_in(shard: &Shard) -> Result<BTreeMap<Name, NameOptions>> {
    let mut get = redis::cmd("HGETALL");
    get.arg(shard.keys.names());
    let answer = shard.link.send(&get, "names").await?;
    let mut options = BTreeMap::new();
    for (name, said) in record::pairs(&answer)? {
        if let (Some(name), Some(said)) = (text(name)?.and_then(|name| Name::new(name).ok()), text(said)?) {
            options.insert(name, read_options(said)?);
        }
    }
    Ok(options)
}

async fn stats_in(shard: &Shard, names: &[Name], options: &BTreeMap<Name, NameOptions>) -> Result<Vec<NameStats>> {
    let mut pipe = redis::pipe();
    for name in names {
        ask(&mut pipe, shard, name);
    }
    let answers = shard.link.pipe(&pipe, "names").await?;
    let mut stats = Vec::with_capacity(names.len());
    let mut mixed = Vec::new();
    for (name, answers) in names.iter().zip(answers.chunks_exact(COMMANDS)) {
        let [ready, suspects, due, running, ends @ ..] = answers else { continue };
        let (pending, scheduled, running) = (count(ready)? + count(suspects)?, count(due)?, count(running)?);
        let said = options.get(name);
        if said.is_none() && pending + scheduled + running == 0 {
            continue;
        }
        let mut oldest_pending = None;
        for (key, ends) in [shard.keys.ready(name), shard.keys.suspects(name)].into_iter().zip(ends.chunks_exact(2)) {
            if let Some((first, last)) = first_and_last(ends)? {
                oldest_pending = earliest(oldest_pending, Some(ready_place(first).1));
                // Within a priority the first is the oldest. The lower priorities have to be looked at.
                mixed.extend(
                    (ready_place(last).0..ready_place(first).0).map(|priority| (stats.len(), key.clone(), priority)),
                );
            }
        }
        let (name, options) = (name.clone(), said.copied().unwrap_or_default());
        stats.push(NameStats { name, options, pending, scheduled, running, oldest_pending });
    }
    if mixed.is_empty() {
        return Ok(stats);
    }
    let mut pipe = redis::pipe();
    for (_, key, priority) in &mixed {
        let epoch = Time::from_millis(0);
        let (from, to) = (ready_score(*priority, epoch), ready_score(priority.saturating_sub(1), epoch));
        pipe.cmd("ZRANGEBYSCORE").arg(key).arg(from);
        if *priority > 0 {
            pipe.arg(format!("({to}"));
        } else {
            pipe.arg("+inf");
        }
        pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(1);
    }
    for ((at, _, _), answer) in mixed.iter().zip(&shard.link.pipe(&pipe, "names").await?) {
        if let (Some((score, _)), Some(stats)) = (scored(answer)?.first(), stats.get_mut(*at)) {
            stats.oldest_pending = earliest(stats.oldest_pending, Some(ready_place(*score).1));
        }
    }
    Ok(stats)
}

/// The numbers of a name, and the first and the last of each of its queues.
fn ask(pipe: &mut Pipeline, shard: &Shard, name: &Name) {
    let keys = &shard.keys;
    for key in [keys.ready(name), keys.suspects(name), keys.due_of(name), keys.running(name)] {
        pipe.cmd("ZCARD").arg(key);
    }
    for key in [keys.ready(name), keys.suspects(name)] {
        pipe.cmd("ZRANGE").arg(&key).arg(&[0, 0]).arg("WITHSCORES");
        pipe.cmd("ZRANGE").arg(&key).arg(&[-1, -1]).arg("WITHSCORES");
    }
}

fn first_and_last(ends: &[Value]) -> Result<Option<(i64, i64)>> {
    let [first, last] = ends else { return Ok(None) };
    Ok(scored(first)?.pop().zip(scored(last)?.pop()).map(|((first, _), (last, _))| (first, last)))
}
