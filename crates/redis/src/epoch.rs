//! Tells whether this is still the Redis that we knew, or one that came back empty, older, or another.
//!
//! The store has a random id, made when it is first used, and a count that rises with each pulse of each node. Another id
//! means that it was emptied or is another store; a lower count than was seen, that it is an older state of the same: a
//! backup, or a replica that lacked the last writes. What is lost cannot be brought back, but it must not go unnoticed.

use parking_lot::Mutex;

/// What is known of the store's identity.
#[derive(Debug, Default)]
pub(crate) struct Epoch(Mutex<Option<(String, i64)>>);

/// What has become of the store since it was last looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It has another id: it was emptied, or is another one.
    Everything,
    /// It is older than what was seen, by so many pulses of nodes.
    Newest { pulses: i64 },
}

impl Lost {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Lost::Everything => {
                "redis is not the one that this node knew: it was emptied (FLUSHALL, a restart without \
                 append-only file) or replaced, and jobs that were in it are lost"
                    .to_owned()
            }
            Lost::Newest { pulses } => format!(
                "redis is in an older state than this node has seen, by {pulses} signs of life of nodes: it came from a \
                 backup, or a replica took over that lacked the last writes; jobs submitted then are lost, others may run \
                 again"
            ),
        }
    }
}

impl Epoch {
    /// Takes what a pulse said. What is found from now on is compared with that: each loss is found once.
    pub(crate) fn take(&self, id: &str, count: i64) -> Option<Lost> {
        let mut known = self.0.lock();
        let lost = match &*known {
            Some((known, _)) if known != id => Some(Lost::Everything),
            Some((_, seen)) if *seen >= count => Some(Lost::Newest { pulses: *seen - count + 1 }),
            _ => None,
        };
        *known = Some((id.to_owned(), count));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_or_older_store_is_noticed_once() {
        let epoch = Epoch::default();
        assert_eq!(epoch.take("a", 5), None);
        assert_eq!(epoch.take("a", 6), None);
        assert_eq!(epoch.take("a", 9), None);
        assert_eq!(epoch.take("a", 4), Some(Lost::Newest { pulses: 6 }));
        assert_eq!(epoch.take("a", 5), None);
        assert_eq!(epoch.take("b", 1), Some(Lost::Everything));
        assert_eq!(epoch.take("b", 2), None);
    }
}
