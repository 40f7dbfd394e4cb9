//! People look: numbers of names, why a job waits, which nodes there are.

use std::collections::BTreeSet;

use super::inner::Inner;
use crate::job::{Index, Status};
use crate::minutes;
use crate::store::{Bucket, Minute, NameAsk, NameStats, Node, Waiting};
use crate::{JobId, Name, Time, limits};

impl Inner {
    /// The numbers of each name that has options or jobs that are not final.
    pub(super) fn names(&self) -> Vec<NameStats> {
        let names: BTreeSet<&Name> = self.options.keys().chain(self.indexes.live_names()).collect();
        let of = |name: &Name| NameStats {
            name: name.clone(),
            options: self.options(name),
            pending: self.indexes.number(name, Status::Pending),
            scheduled: self.indexes.number(name, Status::Scheduled),
            running: self.indexes.number(name, Status::Running),
            oldest_pending: self
                .indexes
                .ready
                .get(name)
                .and_then(|ready| ready.all(None).map(|(_, ready_at, _)| *ready_at).min()),
        };
        names.into_iter().map(of).collect()
    }

    /// Why a job waits, the first reason that applies: who removes it sees the next.
    pub(super) fn explain(&self, id: &JobId, code: &[NameAsk], now: Time) -> Option<Waiting> {
        let job = self.jobs.get(id)?;
        let name = &job.spec.name;
        let (place, suspect) = match job.index() {
            Index::Due { run_at } => return Some(Waiting::Due(run_at)),
            Index::Running { .. } | Index::Final { .. } => return None,
            Index::Ready { priority, ready_at, suspect } => {
                ((std::cmp::Reverse(priority), ready_at, id.clone()), suspect)
            }
        };
        let options = self.options(name);
        if options.paused {
            return Some(Waiting::Paused);
        }
        let running = self.indexes.number(name, Status::Running);
        let coded = || code.iter().find(|asked| asked.name == *name).and_then(|asked| asked.max_concurrency);
        let limit = options.max_concurrency.or_else(coded);
        if let Some(limit) = limit.filter(|limit| running >= u64::from(*limit)) {
            return Some(Waiting::AtLimit { limit, running });
        }
        if !self.nodes.values().any(|node| node.is_alive(now) && node.names.contains(name)) {
            return Some(Waiting::NoWorker);
        }
        if suspect {
            return Some(Waiting::Suspect);
        }
        let before = self.indexes.ready.get(name)?.sound.range(..place).take(limits::POSITION_MAX + 1).count();
        Some(Waiting::Queued { position: (before <= limits::POSITION_MAX).then_some(before as u64) })
    }

    /// What happened in each minute from that of `from` on.
    pub(super) fn minutes_of(&self, name: Option<&Name>, from: Time) -> Vec<Minute> {
        let mut found: Vec<Minute> = Vec::new();
        let from = minutes::number_of(from);
        for ((number, of), bucket) in self.minutes.iter().filter(|((number, _), _)| *number >= from) {
            if name.is_some_and(|name| name != of) || *bucket == Bucket::default() {
                continue;
            }
            let at = minutes::begin_of(*number);
            match found.last_mut().filter(|last| last.at == at) {
                Some(last) => last.bucket.add(*bucket),
                None => found.push(Minute { at, bucket: *bucket }),
            }
        }
        found
    }

    /// Notes that a node lives; answers with all that are known.
    pub(super) fn beat(&mut self, node: Option<&Node>, now: Time) -> Vec<Node> {
        if let Some(node) = node {
            self.nodes.insert(node.pool.clone(), Node { beat_at: now, ..node.clone() });
        }
        let known = self.nodes.values().filter(|node| now.since(node.beat_at) < limits::NODE_FORGOTTEN_AFTER);
        known.cloned().collect()
    }
}
