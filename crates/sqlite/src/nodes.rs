//! Nodes: who lives.

use jobservice_core::store::Node;
use jobservice_core::{Name, PoolId, Time, limits};
use rusqlite::Connection;

use crate::call::Failure;
use crate::row::{from_json, to_json};
use crate::session::Session;

impl Session<'_> {
    /// Notes that a node lives; answers with all that are known.
    pub(crate) fn beat(&mut self, node: &Node, now: Time) -> Result<Vec<Node>, Failure> {
        let Node { pool, started_at, beat_at: _, names, concurrency, host, pid } = node;
        let mut put = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO nodes (pool, started_at, beat_at, names, concurrency, host, pid)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let names = to_json("the names of a node", names)?;
        put.execute((pool.as_str(), started_at.as_millis(), now.as_millis(), names, concurrency, host, pid))?;
        drop(put);
        read_known(self.conn, now)
    }
}

/// The nodes that are not forgotten yet.
pub(crate) fn read_known(conn: &Connection, now: Time) -> Result<Vec<Node>, Failure> {
    let nodes = read_all(conn)?.into_iter();
    Ok(nodes.filter(|node| now.since(node.beat_at) < limits::NODE_FORGOTTEN_AFTER).collect())
}

/// All nodes that are stored.
pub(crate) fn read_all(conn: &Connection) -> Result<Vec<Node>, Failure> {
    let mut all = conn
        .prepare_cached("SELECT pool, started_at, beat_at, names, concurrency, host, pid FROM nodes ORDER BY pool")?;
    let mut rows = all.query([])?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next()? {
        let pool = PoolId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
        let names: Vec<Name> =
            from_json("the names of a node", row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?;
        nodes.push(Node {
            pool: pool.map_err(|error| Failure::Damaged(error.to_string()))?,
            started_at: Time::from_millis(row.get(1)?),
            beat_at: Time::from_millis(row.get(2)?),
            names,
            concurrency: row.get(4)?,
            host: row.get(5)?,
            pid: row.get(6)?,
        });
    }
    Ok(nodes)
}
