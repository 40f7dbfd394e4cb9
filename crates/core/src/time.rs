//! Time as the domain sees it: milliseconds since the epoch, handed in by the caller.
//!
//! Nothing in this crate reads a clock except [`SystemClock`]. Leases must not expire early because somebody set the
//! wall clock, and must not live for an hour because it was set back; cron specs, on the other hand, follow the wall
//! clock. Hence the two readings of [`Clock`].

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, futures::OwnedNotified};

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
///
/// Milliseconds inside, seconds on the wire: the store orders by this number, clients see [`Time::as_seconds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    /// The largest instant; used as "no limit" in range queries.
    pub const MAX: Time = Time(i64::MAX);

    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Time {
        Time(millis)
    }

    /// The instant `seconds` seconds after the epoch; saturates.
    pub const fn from_seconds(seconds: i64) -> Time {
        Time(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: the unit of the REST API.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long `earlier` is ago, seen from `self`; zero if it is not in the past.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Where the present comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time that leases, delays and records use. Never goes backwards within a process.
    fn now(&self) -> Time;

    /// The wall clock as the machine shows it now: what cron specs follow. May jump in both directions.
    fn wall(&self) -> Time {
        self.now()
    }

    /// When [`Clock::now`] last jumped forward by more than `least`, if it ever did.
    ///
    /// After such a jump leases look expired although their holders had no chance to extend them; who reaps waits for
    /// one lease from this instant on. Of a store that is away for that long the same is true: its clock says that it has
    /// jumped when it is back, and says so while it is away.
    fn jumped_at(&self, least: Duration) -> Option<Time> {
        let _ = least;
        None
    }

    /// Resolves when somebody moved the clock by hand after this call; none for a clock that runs by itself. Who waits
    /// for an instant registers here before looking at [`Clock::now`], so that a test can move time under it.
    fn moved(&self) -> Option<OwnedNotified> {
        None
    }
}

/// The machine's clock, made steady.
///
/// Runs on the monotonic clock from the wall time at its creation. When the wall clock turns out to be ahead by more
/// than a second (it was set forward, or the machine slept) it jumps forward to it; when the wall clock was set back it
/// keeps running at its own pace and never goes back.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    started_wall_ms: i64,
    forward_ms: AtomicI64,
    jumped_at_ms: AtomicI64,
    jump_ms: AtomicI64,
}

/// Below this, a wall clock ahead of ours is drift or NTP slewing and is not followed.
const JUMP_MS: i64 = 1000;

/// How long after a jump another one counts as a part of it: longer than anybody pauses for one.
const JUMP_RECENT_MS: i64 = 60_000;

impl SystemClock {
    /// A clock that shows the machine's wall time now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn new() -> SystemClock {
        SystemClock {
            started: Instant::now(),
            started_wall_ms: wall_ms(),
            forward_ms: AtomicI64::new(0),
            jumped_at_ms: AtomicI64::new(i64::MIN),
            jump_ms: AtomicI64::new(0),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        // The wall clock first: a thread that is held up between the two readings must not see a jump.
        let wall = wall_ms();
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let forward = self.forward_ms.load(Ordering::Relaxed);
        let steady = self.started_wall_ms.saturating_add(elapsed).saturating_add(forward);
        let ahead = wall.saturating_sub(steady);
        if ahead <= JUMP_MS {
            return Time(steady);
        }
        // Of two threads that see the same jump only one adds it.
        let added = forward.saturating_add(ahead);
        if self.forward_ms.compare_exchange(forward, added, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // A correction soon after a large jump must not hide it.
            let last_at = self.jumped_at_ms.load(Ordering::Acquire);
            let is_recent = steady.saturating_sub(last_at) < JUMP_RECENT_MS;
            let last = if is_recent { self.jump_ms.load(Ordering::Relaxed) } else { 0 };
            self.jump_ms.store(last.max(ahead), Ordering::Relaxed);
            self.jumped_at_ms.store(steady.saturating_add(ahead), Ordering::Release);
        }
        Time(steady.saturating_add(ahead))
    }

    fn wall(&self) -> Time {
        Time(wall_ms())
    }

    fn jumped_at(&self, least: Duration) -> Option<Time> {
        let at = self.jumped_at_ms.load(Ordering::Acquire);
        let by = self.jump_ms.load(Ordering::Relaxed);
        (at != i64::MIN && i128::from(by) > least.as_millis() as i128).then_some(Time(at))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    moved: Arc<Notify>,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Time) -> ManualClock {
        ManualClock { now: AtomicI64::new(now.0), moved: Arc::default() }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) -> Time {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let now = Time(self.now.fetch_add(by, Ordering::SeqCst).saturating_add(by));
        self.moved.notify_waiters();
        now
    }
}

impl Default for ManualClock {
    /// Shows an ordinary day: 2026-01-05T12:00:00Z, a Monday.
    fn default() -> Self {
        ManualClock::at(Time::from_seconds(1_767_614_400))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.now.load(Ordering::SeqCst))
    }

    fn moved(&self) -> Option<OwnedNotified> {
        Some(Arc::clone(&self.moved).notified_owned())
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Time {
        (**self).now()
    }

    fn wall(&self) -> Time {
        (**self).wall()
    }

    fn jumped_at(&self, least: Duration) -> Option<Time> {
        (**self).jumped_at(least)
    }

    fn moved(&self) -> Option<OwnedNotified> {
        (**self).moved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(Time::from_millis(1999).as_seconds(), 1);
        assert_eq!(Time::from_millis(-1).as_seconds(), -1);
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Time::MAX + Duration::from_secs(1), Time::MAX);
        assert_eq!(Time::from_millis(5).since(Time::from_millis(9)), Duration::ZERO);
    }

    #[test]
    fn system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert_eq!(clock.jumped_at(Duration::from_secs(3)), None);
    }
}
