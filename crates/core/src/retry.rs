//! When a failed job runs again.

use std::time::Duration;

/// The pause before the next try of a job that has now failed `fails` times.
///
/// The original's (and Sidekiq's) curve: `fails^4 + 15 + jitter * (fails + 1)` seconds, so the first retry comes after
/// 16 to 74 s and the fourth after about five minutes. `jitter` is any random number; only its remainder by 30 counts.
/// It keeps jobs that failed together from coming back together.
pub fn backoff(fails: u32, jitter: u32) -> Duration {
    let fails = u64::from(fails);
    let curve = fails.saturating_pow(4).saturating_add(15);
    let spread = u64::from(jitter % 30).saturating_mul(fails.saturating_add(1));
    Duration::from_secs(curve.saturating_add(spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_retry_comes_after_16_to_74_seconds() {
        let waits: Vec<u64> = (0..30).map(|jitter| backoff(1, jitter).as_secs()).collect();
        assert_eq!((waits.iter().min(), waits.iter().max()), (Some(&16), Some(&74)));
    }

    #[test]
    fn backoff_grows_and_never_overflows() {
        assert!((1..100).all(|fails| backoff(fails + 1, 0) > backoff(fails, 0)));
        assert!(backoff(u32::MAX, u32::MAX) > Duration::from_secs(1));
    }
}
