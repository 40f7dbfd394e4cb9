//! The store's clock: the same on all nodes, whatever their own clocks say.
//!
//! It is the monotonic clock of the machine plus an offset to the time of the store, which is measured with each pulse
//! (`pulse.rs`). The time of the store is Redis' TIME plus a correction kept beside it that makes it never go back, also
//! over a clock that is set back and a failover to a machine whose clock is behind: all nodes read the same.
//!
//! If the store falls behind a node all the same, since it lost what it must not fall behind, the node tells it: its clock
//! is the monotonic one, so it is the store that went back and not the node that ran ahead. Otherwise nodes that are new
//! would follow the store while the others do not.
//!
//! A store that was away counts as a jump: time has passed in which nobody could extend a lease or report an outcome, and
//! who reaped at its return would run again what has ended meanwhile. The store remembers it for a while, for nodes that start
//! just then.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jobservice_core::{Clock, Time};
use tokio::time::Instant;

use crate::link::now;

/// Below this, a store's clock ahead of ours is drift and no jump.
const JUMP: i64 = 1_000_000;

/// How long after a jump another one counts as a part of it.
const JUMP_RECENT: i64 = 60_000_000;

/// Below this, a store that has not been heard for a while is busy and not away. It is measured about once a second.
pub(crate) const AWAY: i64 = 3_000_000;

/// One measurement: what was read, and between which instants. In microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Since the clock was started.
    pub(crate) asked: i64,
    pub(crate) answered: i64,
    /// The time of the store.
    pub(crate) steady: i64,
    /// What TIME said.
    pub(crate) wall: i64,
}

/// What a measurement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The clock follows the store.
    Good,
    /// The store's clock is behind ours by so much that it is not followed: it has to be told ours.
    Behind(Duration),
}

/// The store's clock.
#[derive(Debug)]
pub(crate) struct RedisClock {
    started: Instant,
    steady: AtomicI64,
    wall: AtomicI64,
    /// The latest instant that was shown, in milliseconds.
    shown: AtomicI64,
    jumped_at: AtomicI64,
    jump: AtomicI64,
    /// Since the clock was started, when it was last measured.
    measured_at: AtomicI64,
}

impl RedisClock {
    /// A clock that has measured nothing yet.
    pub(crate) fn new() -> RedisClock {
        RedisClock {
            started: now(),
            steady: AtomicI64::new(i64::MIN),
            wall: AtomicI64::new(0),
            shown: AtomicI64::new(i64::MIN),
            jumped_at: AtomicI64::new(i64::MIN),
            jump: AtomicI64::new(0),
            measured_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Microseconds since it was started.
    pub(crate) fn elapsed(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Follows a measurement. Only one caller at a time.
    pub(crate) fn follow(&self, measured: Measured) -> Fit {
        let Measured { asked, answered, steady, wall } = measured;
        // It was read at some instant between the two: halfway, give or take half of what lies between.
        let (middle, doubt) = (asked + (answered - asked) / 2, (answered - asked) / 2);
        let offset = steady - middle;
        let known = self.steady.load(Ordering::Acquire);
        let away = self.away(answered);
        if away > AWAY {
            self.jumped(answered.saturating_add(known), away);
        }
        self.measured_at.store(answered, Ordering::Release);
        if known == i64::MIN {
            self.wall.store(wall - middle, Ordering::Release);
            self.steady.store(offset, Ordering::Release);
            return Fit::Good;
        }
        let wall_offset = wall - middle;
        if (wall_offset - self.wall.load(Ordering::Acquire)).abs() > doubt {
            self.wall.store(wall_offset, Ordering::Release);
        }
        let ahead = offset - known;
        if ahead.abs() <= doubt {
            return Fit::Good;
        }
        if ahead < -JUMP {
            return Fit::Behind(Duration::from_micros(ahead.unsigned_abs()));
        }
        if ahead > JUMP {
            self.jumped(middle + offset, ahead);
        }
        self.steady.store(offset, Ordering::Release);
        Fit::Good
    }

    /// The store was back from an outage at `at`, by its own time, `after` so long: maybe before this node was there.
    pub(crate) fn resumed(&self, at: i64, after: i64) {
        if at > self.jumped_at.load(Ordering::Acquire) {
            self.jumped(at, after);
        }
    }

    fn jumped(&self, at: i64, by: i64) {
        // A correction soon after a large jump must not hide it.
        let is_recent = at.saturating_sub(self.jumped_at.load(Ordering::Acquire)) < JUMP_RECENT;
        let last = if is_recent { self.jump.load(Ordering::Relaxed) } else { 0 };
        self.jump.store(last.max(by), Ordering::Relaxed);
        self.jumped_at.store(at, Ordering::Release);
    }

    /// For how long the store has not been heard.
    fn away(&self, elapsed: i64) -> i64 {
        match self.measured_at.load(Ordering::Acquire) {
            i64::MIN => 0,
            at => elapsed.saturating_sub(at),
        }
    }

    fn jumped_by(&self, elapsed: i64, least: i64) -> Option<Time> {
        let away = self.away(elapsed);
        if away > AWAY.max(least) {
            // It is away still: whoever waits from here on waits from its return on as well.
            return Some(self.at(elapsed));
        }
        let at = self.jumped_at.load(Ordering::Acquire);
        let by = self.jump.load(Ordering::Relaxed);
        (at != i64::MIN && by > least).then(|| Time::from_millis(at.div_euclid(1000)))
    }

    fn at(&self, elapsed: i64) -> Time {
        let now = elapsed.saturating_add(self.steady.load(Ordering::Acquire)).div_euclid(1000);
        // A small step back is waited out.
        Time::from_millis(self.shown.fetch_max(now, Ordering::AcqRel).max(now))
    }
}

impl Clock for RedisClock {
    fn now(&self) -> Time {
        self.at(self.elapsed())
    }

    fn wall(&self) -> Time {
        Time::from_millis(self.elapsed().saturating_add(self.wall.load(Ordering::Acquire)).div_euclid(1000))
    }

    fn jumped_at(&self, least: Duration) -> Option<Time> {
        self.jumped_by(self.elapsed(), i64::try_from(least.as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const START: i64 = 1_767_614_400 * SECOND;

    fn measured(asked: i64, answered: i64, steady: i64) -> Measured {
        Measured { asked, answered, steady, wall: steady }
    }

    fn millis(at: i64) -> Time {
        Time::from_millis(at / 1000)
    }

    #[test]
    fn two_nodes_agree_whatever_their_own_clocks_say() {
        // They were started five minutes apart, and measure at different times over ways of different length.
        let (one, two) = (RedisClock::new(), RedisClock::new());
        one.follow(measured(0, 2000, START + 1000));
        two.follow(measured(300 * SECOND, 300 * SECOND + 6000, START + 3000));
        let (a, b) = (one.at(10 * SECOND), two.at(310 * SECOND));
        assert!((a.as_millis() - b.as_millis()).abs() <= 3, "{a} {b}");
    }

    /// A store that keeps its time as `pulse.lua` does, and nodes that pulse as `pulse.rs` does.
    struct Source {
        wall: i64,
        last: i64,
        ahead: i64,
    }

    impl Source {
        fn time(&mut self, floor: i64) -> i64 {
            let (now, least) = (self.wall + self.ahead, self.last.max(floor));
            if now < least {
                self.ahead += least - now;
            }
            self.last = now.max(least);
            self.last
        }

        /// A pulse at `elapsed` on the node's own clock.
        fn pulse(&mut self, node: &RedisClock, elapsed: i64) -> Fit {
            let steady = self.time(0);
            let fit = node.follow(Measured { asked: elapsed, answered: elapsed, steady, wall: self.wall });
            if fit != Fit::Good {
                self.time(node.at(elapsed).as_millis() * 1000);
            }
            fit
        }
    }

    #[test]
    fn nodes_stay_together_on_a_store_whose_clock_is_behind() {
        let (one, two, new) = (RedisClock::new(), RedisClock::new(), RedisClock::new());
        let mut source = Source { wall: START, last: 0, ahead: 0 };
        source.pulse(&one, 0);
        source.pulse(&two, 0);
        // Another primary takes over that never heard of the time, five minutes behind. Who is new sees it first.
        source = Source { wall: START + SECOND - 300 * SECOND, last: 0, ahead: 0 };
        source.pulse(&new, 0);
        assert_eq!(source.pulse(&one, SECOND), Fit::Behind(Duration::from_secs(300)));
        assert_eq!(source.pulse(&two, SECOND), Fit::Good);
        source.wall += SECOND;
        for (node, elapsed) in [(&one, 2 * SECOND), (&two, 2 * SECOND), (&new, SECOND)] {
            assert_eq!(source.pulse(node, elapsed), Fit::Good);
            assert_eq!(node.at(elapsed), millis(START + 2 * SECOND));
        }
        // For who is new that was a jump.
        assert!(new.jumped_by(SECOND, 299 * SECOND).is_some());
        assert_eq!(one.jumped_by(2 * SECOND, 0), None);
    }

    #[test]
    fn time_that_is_set_back_by_little_more_than_a_jump_is_made_up_for() {
        let (clock, mut source) = (RedisClock::new(), Source { wall: START, last: 0, ahead: 0 });
        source.pulse(&clock, 0);
        // With a pulse a second the time of the store stands still until the next one.
        source.wall -= JUMP + 5000;
        assert!(matches!(source.pulse(&clock, SECOND + 5000), Fit::Behind(_)));
        for second in 2..5 {
            source.wall += SECOND;
            let elapsed = second * SECOND + 5000;
            assert_eq!(source.pulse(&clock, elapsed), Fit::Good);
            assert_eq!(clock.at(elapsed), millis(START + elapsed));
        }
    }

    #[test]
    fn who_starts_after_an_outage_hears_of_it() {
        let (old, new) = (RedisClock::new(), RedisClock::new());
        new.follow(measured(0, 0, START));
        new.resumed(START, 20 * SECOND);
        new.resumed(START, 20 * SECOND);
        assert_eq!(new.jumped_by(SECOND, 10 * SECOND / 3), Some(millis(START)));
        assert_eq!(new.jumped_by(SECOND, 20 * SECOND), None);
        // Who has seen a jump since keeps to that.
        old.follow(measured(0, 0, START));
        old.follow(measured(SECOND, SECOND, START + 61 * SECOND));
        old.resumed(START, 20 * SECOND);
        assert_eq!(old.jumped_by(SECOND, 0), Some(millis(START + 61 * SECOND)));
    }

    #[test]
    fn a_measurement_within_its_doubt_changes_nothing_and_a_better_one_does() {
        let clock = RedisClock::new();
        clock.follow(measured(0, 100_000, START));
        assert_eq!(clock.at(50_000), millis(START));
        clock.follow(measured(SECOND, SECOND + 100_000, START + SECOND + 20_000));
        assert_eq!(clock.at(SECOND + 50_000), millis(START + SECOND));
        clock.follow(measured(2 * SECOND, 2 * SECOND, START + 2 * SECOND + 20_000));
        assert_eq!(clock.at(2 * SECOND), millis(START + 2 * SECOND + 20_000));
        assert_eq!(clock.jumped_at(Duration::ZERO), None);
    }

    #[test]
    fn it_never_goes_back() {
        let clock = RedisClock::new();
        clock.follow(measured(0, 0, START));
        assert_eq!(clock.at(SECOND), millis(START + SECOND));
        // A small step is waited out.
        assert_eq!(clock.follow(measured(SECOND, SECOND, START + SECOND - 300_000)), Fit::Good);
        assert_eq!(clock.at(SECOND), millis(START + SECOND));
        assert_eq!(clock.at(SECOND + 200_000), millis(START + SECOND));
        assert_eq!(clock.at(SECOND + 400_000), millis(START + SECOND + 100_000));
        // A large one is not taken at all: an hour must not last two. The store is told instead.
        let behind = clock.follow(measured(2 * SECOND, 2 * SECOND, START - 3600 * SECOND));
        assert!(matches!(behind, Fit::Behind(by) if by > Duration::from_secs(3600)), "{behind:?}");
        assert_eq!(clock.at(3 * SECOND), millis(START + 3 * SECOND - 300_000));
        // The wall clock goes wherever it is set.
        assert!(clock.wall() < Time::from_millis(START / 1000 - 3_000_000));
    }

    #[test]
    fn a_store_that_was_away_counts_as_a_jump() {
        let clock = RedisClock::new();
        clock.follow(measured(0, 0, START));
        clock.follow(measured(SECOND, SECOND, START + SECOND));
        let lease = 10 * SECOND;
        assert_eq!(clock.jumped_by(3 * SECOND, lease / 3), None);
        // While it is away, and when it is back.
        assert_eq!(clock.jumped_by(6 * SECOND, lease / 3), Some(millis(START + 6 * SECOND)));
        clock.follow(measured(9 * SECOND, 9 * SECOND, START + 9 * SECOND));
        clock.follow(measured(10 * SECOND, 10 * SECOND, START + 10 * SECOND));
        assert_eq!(clock.jumped_by(10 * SECOND, lease / 3), Some(millis(START + 9 * SECOND)));
        assert_eq!(clock.jumped_by(10 * SECOND, lease), None);
        assert_eq!(clock.at(10 * SECOND), millis(START + 10 * SECOND));
    }

    #[test]
    fn a_jump_forward_is_reported() {
        let clock = RedisClock::new();
        clock.follow(measured(0, 0, START));
        clock.follow(measured(SECOND, SECOND, START + 61 * SECOND));
        assert_eq!(clock.at(SECOND), millis(START + 61 * SECOND));
        assert_eq!(clock.jumped_by(SECOND, 3 * SECOND), Some(millis(START + 61 * SECOND)));
        assert_eq!(clock.jumped_by(SECOND, 61 * SECOND), None);
        // Another one, small and soon after, does not hide it.
        clock.follow(measured(2 * SECOND, 2 * SECOND, START + 64 * SECOND));
        assert!(clock.jumped_by(2 * SECOND, 3 * SECOND).is_some());
    }
}
