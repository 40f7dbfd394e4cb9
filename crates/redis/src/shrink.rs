//! The bound of the store: while its jobs take too much, final ones go ahead of their time.
//!
//! A Redis may be shared, and tells the size of single keys only. So the size is reckoned: the number of jobs, times what
//! the records of some drawn at random take, and what the sets take for each ([`SETS_BYTES`]). Their logs, events and
//! the numbers of minutes are not counted.

use std::collections::HashSet;

use jobservice_core::lifecycle::Event;
use jobservice_core::store::{Result, Swept};
use jobservice_core::{JobId, Time};

use crate::list::names_in;
use crate::look::cards;
use crate::store::{RedisStore, Shard};
use crate::upkeep::remove;
use crate::work::{Tries, Work, count, ids};

/// Records that are measured to reckon with: enough to be right within some percent unless very few are very large.
const SAMPLE: u64 = 128;

/// Names that they are drawn from.
const SAMPLED_NAMES: usize = 32;

/// What a job takes in the sets, by its status and name: two sorted sets of some hundred bytes for each member.
const SETS_BYTES: u64 = 260;

impl RedisStore {
    /// Removes up to `limit` final jobs while the jobs take more than `bytes_max`, that first which would expire next.
    pub(crate) async fn shrink_to(&self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut taken: u64 = 0;
        for shard in &self.shards {
            taken = taken.saturating_add(bytes_in(shard).await?);
        }
        if taken <= bytes_max {
            return Ok(swept);
        }
        let may_go = self.may_go(limit.saturating_add(1), None, &HashSet::new()).await?;
        let mut going: Vec<Vec<JobId>> = self.shards.iter().map(|_| Vec::new()).collect();
        let mut chosen = 0;
        for (number, id, bytes) in self.measured(&may_go).await?.into_iter().take(limit) {
            if taken <= bytes_max {
                break;
            }
            taken = taken.saturating_sub(bytes);
            chosen += 1;
            if let Some(going) = going.get_mut(number) {
                going.push(id);
            }
        }
        swept.more = taken > bytes_max && may_go.len() > chosen;
        let mut gone = HashSet::new();
        for (shard, ids) in self.shards.iter().zip(&going) {
            let mut tries = Tries::default();
            while !ids.is_empty() {
                let mut work = Work::new(shard, now);
                // Final, so that a delete is what is always allowed, and a prune is not before its time.
                let removed = remove(&mut work, ids, &Event::Delete).await?;
                if self.commit(shard, work, &mut tries).await? {
                    gone.extend(removed);
                    break;
                }
            }
        }
        swept.removed = may_go.into_iter().map(|(_, id)| id).filter(|id| gone.contains(id)).collect();
        swept.moved = swept.removed.len();
        Ok(swept)
    }

    /// What each of these jobs takes, in their order.
    async fn measured(&self, jobs: &[(usize, JobId)]) -> Result<Vec<(usize, JobId, u64)>> {
        let mut measured: Vec<(usize, JobId, u64)> = jobs.iter().map(|(number, id)| (*number, id.clone(), 0)).collect();
        for (number, shard) in self.shards.iter().enumerate() {
            let mut of_shard: Vec<&mut (usize, JobId, u64)> =
                measured.iter_mut().filter(|(of, _, _)| *of == number).collect();
            let ids: Vec<JobId> = of_shard.iter().map(|(_, id, _)| id.clone()).collect();
            for (job, bytes) in of_shard.iter_mut().zip(sizes(shard, &ids).await?) {
                job.2 = bytes;
            }
        }
        Ok(measured)
    }
}

/// What the jobs of a shard take.
async fn bytes_in(shard: &Shard) -> Result<u64> {
    let known = names_in(shard, shard.keys.known()).await?;
    let lists: Vec<String> = known.iter().map(|name| shard.keys.by_name(name)).collect();
    let mut lists: Vec<(u64, String)> =
        cards(shard, lists.iter().map(String::as_str)).await?.into_iter().zip(lists.iter().cloned()).collect();
    let jobs: u64 = lists.iter().map(|(jobs, _)| jobs).sum();
    // From each of the names with most jobs as many as are its share.
    lists.sort_unstable_by(|a, b| b.cmp(a));
    lists.truncate(SAMPLED_NAMES);
    let mut pipe = redis::pipe();
    for (of_name, list) in &lists {
        pipe.cmd("ZRANDMEMBER").arg(list).arg((SAMPLE * of_name).div_ceil(jobs.max(1)));
    }
    let mut drawn = Vec::new();
    for answer in &shard.link.pipe(&pipe, "shrink").await? {
        drawn.extend(ids(answer)?);
    }
    let sizes = sizes(shard, &drawn).await?;
    let sum: u64 = sizes.iter().sum();
    Ok((sum / (sizes.len().max(1) as u64)).saturating_mul(jobs))
}

/// What each of these jobs takes.
async fn sizes(shard: &Shard, ids: &[JobId]) -> Result<Vec<u64>> {
    let mut pipe = redis::pipe();
    for id in ids {
        pipe.cmd("MEMORY").arg("USAGE").arg(shard.keys.job(id));
    }
    shard.link.pipe(&pipe, "shrink").await?.iter().map(|bytes| Ok(count(bytes)?.saturating_add(SETS_BYTES))).collect()
}
