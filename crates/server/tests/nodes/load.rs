//! A load on several nodes, which writes down what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::super::chaos::{Api, now, pause};
use super::{Cluster, Random};

const SUBMITTERS: usize = 6;
const SUBMITS_PER_SECOND: u64 = 200;

/// A steady load over all nodes that live, until stopped.
pub struct Load {
    targets: Arc<Mutex<Vec<Option<Api>>>>,
    stop: Arc<AtomicBool>,
    unanswered: Arc<AtomicU64>,
    submitters: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(cluster: &Cluster, seed: u64) -> Load {
        let targets =
            Arc::new(Mutex::new((0..cluster.nodes.len()).map(|at| Some(cluster.api(at))).collect::<Vec<_>>()));
        let (stop, unanswered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let submitters = (0..SUBMITTERS)
            .map(|submitter| {
                let (targets, stop, unanswered) = (Arc::clone(&targets), Arc::clone(&stop), Arc::clone(&unanswered));
                tokio::spawn(submit(targets, stop, unanswered, Random(seed ^ submitter as u64)))
            })
            .collect();
        Load { targets, stop, unanswered, submitters }
    }

    /// Sends the load of a node elsewhere, or to it again.
    pub fn aim(&self, at: usize, api: Option<Api>) {
        self.targets.lock()[at] = api;
    }

    /// What was acknowledged, and how many were not.
    pub async fn stop(self) -> (Vec<String>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut ids = Vec::new();
        for submitter in self.submitters {
            ids.extend(submitter.await.expect("a submitter does not panic"));
        }
        (ids, self.unanswered.load(Ordering::Relaxed))
    }
}

async fn submit(
    targets: Arc<Mutex<Vec<Option<Api>>>>,
    stop: Arc<AtomicBool>,
    unanswered: Arc<AtomicU64>,
    mut random: Random,
) -> Vec<String> {
    let mut ids = Vec::new();
    let every = Duration::from_micros(1_000_000 * SUBMITTERS as u64 / SUBMITS_PER_SECOND);
    let mut due = now();
    while !stop.load(Ordering::Relaxed) {
        let target = {
            let targets = targets.lock();
            let at = random.below(targets.len());
            targets[at].clone()
        };
        if let Some(api) = target {
            // Some run for a while, so that kills hit running jobs; some have a limit.
            let (name, milliseconds) = match random.below(20) {
                0 | 1 => ("mark", 500),
                2 => ("limited", 100),
                _ => ("mark", 0),
            };
            match api.submit(name, json!({"milliseconds": milliseconds}), json!({})).await {
                Ok(id) => ids.push(id),
                Err(_) => drop(unanswered.fetch_add(1, Ordering::Relaxed)),
            }
        }
        due += every;
        pause(due.saturating_duration_since(now())).await;
    }
    ids
}
