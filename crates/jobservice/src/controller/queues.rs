//! The queues: what waits and runs of each name, and what its jobs may do.

use std::collections::BTreeMap;

use jobservice_core::store::{NameOptions, NameStats, Node, Result};
use jobservice_core::{Name, limits};

use super::Controller;

/// A name with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its numbers, and what an operator said of it.
    pub stats: NameStats,
    /// What the code of this process says of it; none if it does not know the name.
    pub code: Option<CodeOptions>,
    /// The living pools that run it.
    pub pools: usize,
}

/// What a job's code says of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeOptions {
    /// Its share of the workers.
    pub weight: u32,
    /// How many may run at once; none for no limit.
    pub max_concurrency: Option<u32>,
}

impl QueueInfo {
    /// Its share of the workers: what an operator says, else the code, else the default.
    pub fn weight(&self) -> u32 {
        let coded = self.code.map_or(limits::WEIGHT_DEFAULT, |code| code.weight);
        self.stats.options.weight.unwrap_or(coded)
    }

    /// How many may run at once: what an operator says, else the code; none for no limit.
    pub fn max_concurrency(&self) -> Option<u32> {
        self.stats.options.max_concurrency.or_else(|| self.code?.max_concurrency)
    }
}

impl Controller {
    /// All queues: names with jobs that are not final, with options, known to this process, or run by a living pool.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>> {
        let mut stats: BTreeMap<Name, NameStats> =
            self.names().await?.into_iter().map(|stats| (stats.name.clone(), stats)).collect();
        let nodes = self.living().await?;
        let known = self.inner.registry.jobs().map(|info| &info.name);
        for name in known.chain(nodes.iter().flat_map(|node| &node.names)) {
            if !stats.contains_key(name) {
                stats.insert(name.clone(), nothing_of(name));
            }
        }
        Ok(stats.into_values().map(|stats| self.queue_of(stats, &nodes)).collect())
    }

    /// One queue, whether or not there is anything to say of it.
    pub async fn queue(&self, name: &Name) -> Result<QueueInfo> {
        let stats = self.names().await?.into_iter().find(|stats| stats.name == *name);
        Ok(self.queue_of(stats.unwrap_or_else(|| nothing_of(name)), &self.living().await?))
    }

    async fn living(&self) -> Result<Vec<Node>> {
        let now = self.inner.clock.now();
        Ok(self.nodes().await?.into_iter().filter(|node| node.is_alive(now)).collect())
    }

    fn queue_of(&self, stats: NameStats, living: &[Node]) -> QueueInfo {
        let info = self.inner.registry.get(stats.name.as_str());
        let code = info.map(|info| CodeOptions { weight: info.weight, max_concurrency: info.max_concurrency });
        let pools = living.iter().filter(|node| node.names.contains(&stats.name)).count();
        QueueInfo { stats, code, pools }
    }
}

fn nothing_of(name: &Name) -> NameStats {
    NameStats {
        name: name.clone(),
        options: NameOptions::default(),
        pending: 0,
        scheduled: 0,
        running: 0,
        oldest_pending: None,
    }
}
