//! Tells whether this is still the Redis that we knew, or one that came back empty, older, or another.
//!
//! Each shard has a random id, made when it is first used: another id means that it was emptied or is another one. And for
//! each node it counts the steps of that node that it has carried out, and its pulses, within the step itself. Nobody else
//! raises that number, so if a step comes to no more than this node was told before it sent it, the shard is an older state
//! of the same: a backup, a replica that lacked the last writes, a server that was killed before it had written them. What is
//! lost cannot be brought back, but it must not go unnoticed.

use parking_lot::Mutex;

/// A shard forgets a node a day after its last pulse (`pulse.lua`). Who was away for longer than this, in microseconds, takes
/// it that it was forgotten.
const REMEMBERED: i64 = 12 * 3600 * 1_000_000;

/// What is known of a shard's identity.
#[derive(Debug)]
pub(crate) struct Epoch {
    node: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    id: Option<String>,
    /// What TIME said at the last pulse.
    wall: i64,
    /// The highest number of steps that this node was told.
    told: i64,
    /// How many losses were found so far.
    losses: u64,
    /// One that a step has found and no pulse has told yet: how many steps.
    untold: Option<i64>,
}

/// What was known when something was sent: its answer is compared with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The highest number of steps that this node was told.
    told: i64,
    losses: u64,
}

/// What a pulse said.
#[derive(Debug)]
pub(crate) struct Pulsed<'a> {
    pub(crate) id: &'a str,
    /// The number of steps and pulses of this node.
    pub(crate) steps: i64,
    /// What TIME said, in microseconds.
    pub(crate) wall: i64,
}

/// What has become of a shard since it was last looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It has another id: it was emptied, or is another one.
    Everything,
    /// It lacks so many steps and pulses that this node was told of; of other nodes it may lack more.
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
                "redis is in an older state than this node has seen: it lacks steps that were acknowledged (at least \
                 {steps}), since it was killed before it wrote them, came from a backup, or a replica took over that \
                 lacked them; jobs submitted then are lost, and some that had run may run again"
            ),
        }
    }
}

impl Epoch {
    /// Nothing is known yet.
    pub(crate) fn new() -> Epoch {
        // Two nodes of the same number would hide losses from each other, no more.
        Epoch { node: format!("{:016x}", getrandom::u64().unwrap_or(0)), known: Mutex::default() }
    }

    /// The name under which the shard remembers what it told this node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// To be asked before a step or a pulse is sent.
    pub(crate) fn sent(&self) -> Sent {
        let known = self.known.lock();
        Sent { told: known.told, losses: known.losses }
    }

    /// Takes the number of steps that a step was answered with. Others may be under way: a loss that was found meanwhile is
    /// not found again.
    pub(crate) fn answered(&self, sent: Sent, steps: i64) {
        let mut known = self.known.lock();
        if known.losses != sent.losses {
            return;
        }
        if steps > sent.told {
            known.told = known.told.max(steps);
        } else {
            known.untold = Some(sent.told - steps + 1);
            known.losses += 1;
            known.told = steps;
        }
    }

    /// Takes what a pulse said, and tells what was lost since the last one. Only one caller at a time.
    pub(crate) fn take(&self, sent: Sent, pulsed: &Pulsed<'_>) -> Option<Lost> {
        let mut known = self.known.lock();
        let Pulsed { id, steps, wall } = *pulsed;
        let is_forgotten = wall.saturating_sub(known.wall) > REMEMBERED;
        let is_older = steps <= sent.told && known.losses == sent.losses;
        let found = is_older.then(|| sent.told - steps + 1).max(known.untold.take());
        let lost = match known.id.as_deref() {
            None => None,
            Some(known) if known != id => Some(Lost::Everything),
            Some(_) => found.filter(|_| !is_forgotten).map(|steps| Lost::Newest { steps }),
        };
        known.id = Some(id.to_owned());
        known.wall = wall;
        if is_older || lost.is_some() {
            known.losses += 1;
            known.told = steps;
        } else {
            known.told = known.told.max(steps);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shard remembers, as the scripts keep it.
    #[derive(Clone, Default)]
    struct Shard {
        id: String,
        wall: i64,
        steps: std::collections::BTreeMap<String, i64>,
    }

    impl Shard {
        fn new(id: &str) -> Shard {
            Shard { id: id.to_owned(), ..Shard::default() }
        }

        /// Carries a step out; what it answers.
        fn step(&mut self, epoch: &Epoch) -> i64 {
            let steps = self.steps.entry(epoch.node.clone()).or_default();
            *steps += 1;
            *steps
        }

        fn commit(&mut self, epoch: &Epoch) {
            let sent = epoch.sent();
            epoch.answered(sent, self.step(epoch));
        }

        fn pulse(&mut self, epoch: &Epoch) -> Option<Lost> {
            let (sent, steps) = (epoch.sent(), self.step(epoch));
            epoch.take(sent, &Pulsed { id: &self.id, steps, wall: self.wall })
        }
    }

    fn newest(steps: i64) -> Lost {
        Lost::Newest { steps }
    }

    #[test]
    fn another_or_older_store_is_noticed_once() {
        let (epoch, mut shard) = (Epoch::new(), Shard::new("a"));
        assert_eq!(shard.pulse(&epoch), None);
        assert_eq!(shard.pulse(&epoch), None);
        let mut older = shard.clone();
        (0..3).for_each(|_| shard.commit(&epoch));
        assert_eq!(older.pulse(&epoch), Some(newest(3)));
        assert_eq!(older.pulse(&epoch), None);
        let mut other = Shard::new("b");
        assert_eq!(other.pulse(&epoch), Some(Lost::Everything));
        assert_eq!(other.pulse(&epoch), None);
    }

    #[test]
    fn loss_is_noticed_by_who_was_told_whatever_others_have_done_since() {
        let (one, two, mut shard) = (Epoch::new(), Epoch::new(), Shard::new("a"));
        assert_eq!((shard.pulse(&one), shard.pulse(&two)), (None, None));
        let mut older = shard.clone();
        shard.commit(&one);
        (0..9).for_each(|_| older.commit(&two));
        assert_eq!(older.pulse(&two), None, "it was told of nothing that is lacking");
        assert_eq!(older.pulse(&one), Some(newest(1)));
        assert_eq!(older.pulse(&one), None);
    }

    #[test]
    fn loss_is_noticed_although_this_node_has_made_as_many_steps_since() {
        let (epoch, mut shard) = (Epoch::new(), Shard::new("a"));
        assert_eq!(shard.pulse(&epoch), None);
        let mut older = shard.clone();
        (0..3).for_each(|_| shard.commit(&epoch));
        (0..6).for_each(|_| older.commit(&epoch));
        assert_eq!(older.pulse(&epoch), Some(newest(3)));
        assert_eq!(older.pulse(&epoch), None);
    }

    #[test]
    fn state_from_before_this_node_was_there_is_older_unless_it_was_forgotten() {
        let (epoch, mut shard) = (Epoch::new(), Shard::new("a"));
        let mut older = shard.clone();
        assert_eq!(shard.pulse(&epoch), None);
        shard.commit(&epoch);
        older.commit(&epoch);
        assert_eq!(older.pulse(&epoch), Some(newest(2)));
        older.commit(&epoch);
        // A machine that was asleep for longer than a day; a step may come before the pulse.
        for first in [false, true] {
            older.steps.clear();
            older.wall += 86_400 * 1_000_000;
            if first {
                older.commit(&epoch);
            }
            assert_eq!(older.pulse(&epoch), None, "{first}");
            older.commit(&epoch);
            assert_eq!(older.pulse(&epoch), None, "{first}");
        }
    }

    #[test]
    fn what_overtakes_on_its_way_back_is_no_loss() {
        let (epoch, mut shard) = (Epoch::new(), Shard::new("a"));
        assert_eq!(shard.pulse(&epoch), None);
        // Two steps and a pulse are sent at once; their answers come in another order.
        let sent = epoch.sent();
        let (first, steps, second) = (shard.step(&epoch), shard.step(&epoch), shard.step(&epoch));
        epoch.answered(sent, second);
        epoch.answered(sent, first);
        assert_eq!(epoch.take(sent, &Pulsed { id: "a", steps, wall: 0 }), None);
        assert_eq!(shard.pulse(&epoch), None);
        assert_eq!(epoch.sent().told, 5);
    }

    #[test]
    fn steps_under_way_find_a_loss_once() {
        let (epoch, mut shard) = (Epoch::new(), Shard::new("a"));
        assert_eq!(shard.pulse(&epoch), None);
        let mut older = shard.clone();
        (0..3).for_each(|_| shard.commit(&epoch));
        let sent = epoch.sent();
        let answers: Vec<i64> = (0..3).map(|_| older.step(&epoch)).collect();
        for steps in answers {
            epoch.answered(sent, steps);
        }
        assert_eq!(older.pulse(&epoch), Some(newest(3)));
        assert_eq!(older.pulse(&epoch), None);
    }
}
