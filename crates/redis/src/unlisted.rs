//! Runs that a pool does not know of: claims whose answer was lost.
//!
//! Each claim is counted with how many of its jobs still run ([`Keys::held`]). Where these are as many as the pool has just
//! extended of that claim nothing more is looked at. Else the runs of all pools are: their headers tell which claim they are
//! of. The claims are counted twice, before the leases are extended and after that: what a pool claims meanwhile is more than
//! it has extended, but was not there before, and what it had not heard of yet is over before long.
//!
//! [`Keys::held`]: crate::keys::Keys::held

use std::collections::{HashMap, HashSet};

use jobservice_core::job::LeaseKey;
use jobservice_core::store::Result;
use jobservice_core::{JobId, PoolId, Time};

use crate::due::scored;
use crate::header;
use crate::link::text;
use crate::list::names_in;
use crate::store::{RedisStore, Shard};
use crate::work::{Work, ids};

/// Runs looked at in one round trip.
const PAGE: usize = 500;

impl RedisStore {
    /// The claims of a pool of which jobs run on a shard, by nonce, with how many.
    pub(crate) async fn claims(&self, shard: &Shard, pool: &PoolId) -> Result<HashMap<String, i64>> {
        let mut get = redis::cmd("ZRANGE");
        get.arg(shard.keys.held(pool)).arg(&[0, -1]).arg("WITHSCORES");
        let claims = scored(&shard.link.send(&get, "extend").await?)?;
        Ok(claims.into_iter().map(|(runs, nonce)| (nonce, runs)).collect())
    }

    /// The leases of a pool on a shard other than these, which it holds, of claims that were there `before` these were
    /// extended.
    ///
    /// One whose run ends between the two looks may hide another until the next extend.
    pub(crate) async fn unlisted(
        &self,
        shard: &Shard,
        pool: &PoolId,
        held: &HashSet<&LeaseKey>,
        before: &HashMap<String, i64>,
        now: Time,
    ) -> Result<Vec<LeaseKey>> {
        if before.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self.claims(shard, pool).await?;
        let mut known: HashMap<String, i64> = HashMap::new();
        if !claims.is_empty() {
            let held: Vec<&LeaseKey> = held.iter().copied().collect();
            let ids: Vec<&JobId> = held.iter().map(|lease| &lease.id).collect();
            for (lease, number) in held.iter().zip(self.numbers_with(&ids).await?) {
                if number == shard.number {
                    *known.entry(header::nonce(lease.nonce)).or_default() += 1;
                }
            }
        }
        let is_more = |claims: &HashMap<String, i64>, nonce: &str| {
            claims.get(nonce).copied().unwrap_or(0) > known.get(nonce).copied().unwrap_or(0)
        };
        let claims: HashSet<String> =
            claims.keys().filter(|nonce| is_more(&claims, nonce) && is_more(before, nonce)).cloned().collect();
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for name in names_in(shard, shard.keys.busy()).await? {
            let key = shard.keys.running(&name);
            for page in 0.. {
                let mut get = redis::cmd("ZRANGE");
                get.arg(&key).arg(page * PAGE).arg((page + 1) * PAGE - 1);
                let runs = ids(&shard.link.send(&get, "extend").await?)?;
                if runs.is_empty() {
                    break;
                }
                found.extend(of_claims(shard, runs, &claims).await?);
            }
        }
        // Runs that end or begin while they are read move between pages.
        found.sort_unstable();
        found.dedup();
        let mut work = Work::new(shard, now);
        work.load(&found).await?;
        let lease = |id: &JobId| {
            let job = work.job(id)?;
            let lease = job.state.lease.as_ref()?;
            if lease.pool == *pool { job.lease_key() } else { None }
        };
        Ok(found.iter().filter_map(lease).filter(|lease| !held.contains(lease)).collect())
    }
}

/// Those of the runs that are of one of these claims.
async fn of_claims(shard: &Shard, runs: Vec<JobId>, claims: &HashSet<String>) -> Result<Vec<JobId>> {
    let mut pipe = redis::pipe();
    for id in &runs {
        pipe.cmd("HGET").arg(shard.keys.job(id)).arg("h");
    }
    let mut found = Vec::new();
    for (id, answer) in runs.into_iter().zip(&shard.link.pipe(&pipe, "extend").await?) {
        let header = text(answer)?.unwrap_or_default();
        if header::nonce_of(header).is_some_and(|nonce| claims.contains(nonce)) {
            found.push(id);
        }
    }
    Ok(found)
}
