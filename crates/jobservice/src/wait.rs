//! Waiting: for an instant of the service's clock, and between tries of something that failed.

use std::time::Duration;

use jobservice_core::{Clock, Time};

/// Longest single wait: a clock that was set forward is noticed after it at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Resolves when `clock` shows `at` or later. A clock that is moved by hand is followed at once.
pub(crate) async fn until(clock: &dyn Clock, at: Time) {
    loop {
        // Register before looking: a move between the two would be slept through.
        let moved = clock.moved();
        let now = clock.now();
        if now >= at {
            return;
        }
        let left = at.since(now).min(LOOK_EVERY);
        match moved {
            Some(moved) => tokio::select! {
                () = moved => {}
                () = pause(left) => {}
            },
            None => pause(left).await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that waits for time to pass")]
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Growing pauses between tries: 50 ms, doubled each time up to 2 s, each shortened at random by up to a quarter, so that
/// many who lost the same store do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(2);

    /// How long to wait now; the next one is longer.
    pub(crate) fn step(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(Self::LAST);
        let quarter = u32::try_from(full.as_millis() / 4).unwrap_or(1).max(1);
        full.saturating_sub(Duration::from_millis(u64::from(crate::env::random_u32() % quarter)))
    }

    pub(crate) async fn wait(&mut self) {
        pause(self.step()).await;
    }

    pub(crate) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jobservice_core::ManualClock;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_an_instant_wakes_when_the_clock_is_moved_there() {
        let clock = Arc::new(ManualClock::default());
        let at = clock.now() + Duration::from_secs(24 * 3600);
        let waiter = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move { until(&clock, at).await }
        });

        clock.advance(Duration::from_secs(3600));
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        clock.advance(Duration::from_secs(23 * 3600));

        waiter.await.unwrap();
    }

    #[test]
    fn pauses_grow_to_two_seconds_and_start_again() {
        let mut backoff = Backoff::default();
        let steps: Vec<Duration> = (0..8).map(|_| backoff.step()).collect();
        assert!(steps[0] > Duration::from_millis(37) && steps[0] <= Duration::from_millis(50), "{steps:?}");
        assert!(steps[7] > Duration::from_millis(1500) && steps[7] <= Duration::from_secs(2), "{steps:?}");
        backoff.reset();
        assert!(backoff.step() <= Duration::from_millis(50));
    }
}
