//! When a delivery that failed is tried again.

use std::time::Duration;

use jobservice_core::Time;

/// The pauses after the first, second, .. failure; the last one repeats. Quick at first, for receivers that restart; then
/// slow, so that one that is away for hours is not worn out when it comes back.
const PAUSES: [Duration; 8] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
];

/// What a receiver may ask for with `Retry-After`.
const ASKED_MIN: Duration = Duration::from_secs(1);
const ASKED_MAX: Duration = Duration::from_secs(3600);

/// When to try again what failed `failures` times in all. `random` spreads it by a fifth to both sides, so that those who
/// failed together do not come back together.
pub(super) fn next_try(failures: u32, asked: Option<Duration>, random: u32, now: Time) -> Time {
    if let Some(asked) = asked {
        return now + asked.clamp(ASKED_MIN, ASKED_MAX);
    }
    let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(PAUSES.len() - 1);
    let pause = PAUSES.get(at).copied().unwrap_or(ASKED_MAX);
    let percent = 80 + random % 41;
    now + pause * percent / 100
}

/// Reads the header `Retry-After`: seconds, or a date.
pub(super) fn retry_after(text: &str, now: Time) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Time::from_millis(at.as_millisecond()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_seconds(1_445_412_480);

    fn pause(failures: u32, random: u32) -> Duration {
        next_try(failures, None, random, NOW).since(NOW)
    }

    #[test]
    fn pauses_grow_from_two_seconds_to_five_hours_and_stay_there() {
        let exact = 20;
        let pauses: Vec<u64> = (1..=10).map(|failures| pause(failures, exact).as_secs()).collect();
        assert_eq!(pauses, [2, 5, 15, 60, 300, 1800, 7200, 18_000, 18_000, 18_000]);
        assert_eq!(pause(u32::MAX, exact).as_secs(), 18_000);
    }

    #[test]
    fn pauses_are_spread_by_a_fifth() {
        assert_eq!((pause(4, 0).as_secs(), pause(4, 40).as_secs()), (48, 72));
        assert!((0..1000).all(|random| (48..=72).contains(&pause(4, random).as_secs())));
    }

    #[test]
    fn receiver_may_ask_for_another_time_within_bounds() {
        let asked = |seconds| next_try(1, Some(Duration::from_secs(seconds)), 7, NOW).since(NOW).as_secs();
        assert_eq!((asked(0), asked(90), asked(1_000_000)), (1, 90, 3600));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(retry_after(" 120 ", NOW), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:30 GMT", NOW), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:00:00 GMT", NOW), Some(Duration::ZERO), "past");
        assert_eq!(retry_after("soon", NOW), None);
    }
}
