//! Nodes: who lives. All of them are in the first shard.

use jobservice_core::store::{Node, Result};
use jobservice_core::{Name, PoolId, StoreError, Time, limits};
use redis::Value;
use serde::{Deserialize, Serialize};

use crate::link::text;
use crate::record;
use crate::store::{RedisStore, Shard};
use crate::work::{Tries, Work};

/// A node as it is stored, under its pool.
#[derive(Serialize, Deserialize)]
struct Stored {
    started_at: i64,
    beat_at: i64,
    names: Vec<Name>,
    concurrency: u32,
    host: String,
    pid: u32,
}

fn write(node: &Node, beat_at: Time) -> Result<String> {
    let Node { pool, started_at, beat_at: _, names, concurrency, host, pid } = node;
    let stored = Stored {
        started_at: started_at.as_millis(),
        beat_at: beat_at.as_millis(),
        names: names.clone(),
        concurrency: *concurrency,
        host: host.clone(),
        pid: *pid,
    };
    serde_json::to_string(&stored)
        .map_err(|error| StoreError::Damaged { what: format!("node {pool} cannot be written: {error}") })
}

/// Reads the node of a pool.
pub(crate) fn read(pool: &str, text: &str) -> Result<Node> {
    let damaged = |why: String| StoreError::Damaged { what: format!("node {pool} cannot be read: {why}") };
    let stored: Stored = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    Ok(Node {
        pool: PoolId::new(pool).map_err(|error| damaged(error.to_string()))?,
        started_at: Time::from_millis(stored.started_at),
        beat_at: Time::from_millis(stored.beat_at),
        names: stored.names,
        concurrency: stored.concurrency,
        host: stored.host,
        pid: stored.pid,
    })
}

/// Reads the nodes in the answer to `HGETALL`: each, or why it cannot be read.
pub(crate) fn read_all(answer: &Value) -> Result<Vec<Result<Node>>> {
    let pairs = record::pairs(answer)?;
    pairs
        .into_iter()
        .map(|(pool, node)| Ok(read(text(pool)?.unwrap_or_default(), text(node)?.unwrap_or_default())))
        .collect()
}

impl RedisStore {
    /// Notes that a node lives; answers with all that are known, by pool.
    pub(crate) async fn beat_node(&self, node: Option<&Node>, now: Time) -> Result<Vec<Node>> {
        let Some(shard) = self.shards.first() else { return Ok(Vec::new()) };
        if let Some(node) = node {
            let (key, beat) = (shard.keys.nodes(), write(node, now)?);
            // As a step, for a full Redis refuses a plain write: a node that works must not look dead.
            let mut work = Work::new(shard, now);
            work.command([b"HSET", key.as_bytes(), node.pool.as_str().as_bytes(), beat.as_bytes()]);
            self.commit(shard, work, &mut Tries::default()).await?;
        }
        let mut nodes = known(shard).await?;
        nodes.retain(|node| now.since(node.beat_at) < limits::NODE_FORGOTTEN_AFTER);
        Ok(nodes)
    }
}

/// All nodes that are stored, by pool. One that cannot be read is left out: it beats again or is forgotten; the audit
/// finds it.
pub(crate) async fn known(shard: &Shard) -> Result<Vec<Node>> {
    let mut get = redis::cmd("HGETALL");
    get.arg(shard.keys.nodes());
    let answer = shard.link.send(&get, "nodes").await?;
    let mut nodes: Vec<Node> = read_all(&answer)?.into_iter().filter_map(Result::ok).collect();
    nodes.sort_by(|a, b| a.pool.cmp(&b.pool));
    Ok(nodes)
}
