//! Tells whether this is still the Redis that we knew, or one that came back empty, older, or another.
//!
//! Each shard has a random id, made when it is first used, and a count that rises with each step that is carried out and
//! with each pulse of a node. Another id means that the shard was emptied or is another one; a lower count than this node
//! was told, that it is an older state of the same: a backup, a replica that lacked the last writes, a server that was
//! killed before it had written them. What is lost cannot be brought back, but it must not go unnoticed.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// What is known of a shard's identity.
#[derive(Debug, Default)]
pub(crate) struct Epoch {
    id: Mutex<Option<String>>,
    seen: AtomicI64,
}

/// What has become of a shard since it was last looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It has another id: it was emptied, or is another one.
    Everything,
    /// It is older than what was seen, by at least so many steps and pulses.
    Newest { steps: i64 },
}

impl Lost {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Lost::Everything => {
                "redis is not the one that this node knew: it was emptied (FLUSHALL, a restart without \
                 append-only file) or replaced, and the jobs that were in it are lost"
                    .to_owned()
            }
            Lost::Newest { steps } => format!(
                "redis is in an older state than this node has seen, by at least {steps} steps that were acknowledged: it \
                 was killed before it wrote them, came from a backup, or a replica took over that lacked them; jobs \
                 submitted then are lost, and some that had run may run again"
            ),
        }
    }
}

impl Epoch {
    /// Takes the count that a step was answered with.
    pub(crate) fn saw(&self, count: i64) {
        self.seen.fetch_max(count, Ordering::AcqRel);
    }

    /// The highest count seen so far: to be asked before a pulse, which must come to more.
    pub(crate) fn seen(&self) -> i64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Takes what a pulse said that was sent when `seen` was the highest count. What is found from now on is compared with
    /// that: each loss is found once.
    pub(crate) fn take(&self, id: &str, count: i64, seen: i64) -> Option<Lost> {
        let mut known = self.id.lock();
        let lost = match &*known {
            Some(known) if known != id => Some(Lost::Everything),
            Some(_) if count <= seen => Some(Lost::Newest { steps: seen - count + 1 }),
            _ => None,
        };
        *known = Some(id.to_owned());
        if lost.is_some() {
            self.seen.store(count, Ordering::Release);
        } else {
            self.saw(count);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(epoch: &Epoch, id: &str, count: i64) -> Option<Lost> {
        epoch.take(id, count, epoch.seen())
    }

    #[test]
    fn another_or_older_store_is_noticed_once() {
        let epoch = Epoch::default();
        assert_eq!(pulse(&epoch, "a", 5), None);
        assert_eq!(pulse(&epoch, "a", 6), None);
        epoch.saw(9);
        assert_eq!(pulse(&epoch, "a", 4), Some(Lost::Newest { steps: 6 }));
        assert_eq!(pulse(&epoch, "a", 5), None);
        assert_eq!(pulse(&epoch, "b", 1), Some(Lost::Everything));
        assert_eq!(pulse(&epoch, "b", 2), None);
    }

    #[test]
    fn step_that_is_answered_while_a_pulse_is_under_way_is_no_loss() {
        let epoch = Epoch::default();
        assert_eq!(pulse(&epoch, "a", 5), None);
        let seen = epoch.seen();
        epoch.saw(7);
        assert_eq!(epoch.take("a", 6, seen), None);
        assert_eq!(pulse(&epoch, "a", 8), None);
    }
}
