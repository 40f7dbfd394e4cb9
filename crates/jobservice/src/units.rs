//! `90.seconds()`: durations as people say them.

use std::time::Duration;

/// Makes durations out of whole numbers.
///
/// ```
/// use jobservice::prelude::*;
///
/// assert_eq!(90.seconds(), std::time::Duration::from_secs(90));
/// assert_eq!(2.days(), 48.hours());
/// ```
pub trait Units: Sized {
    /// This many milliseconds.
    fn milliseconds(self) -> Duration;

    /// This many seconds.
    fn seconds(self) -> Duration {
        times(self.milliseconds(), 1000)
    }

    /// This many minutes.
    fn minutes(self) -> Duration {
        times(self.seconds(), 60)
    }

    /// This many hours.
    fn hours(self) -> Duration {
        times(self.minutes(), 60)
    }

    /// This many days of 24 hours.
    fn days(self) -> Duration {
        times(self.hours(), 24)
    }
}

fn times(duration: Duration, by: u32) -> Duration {
    duration.saturating_mul(by)
}

impl Units for u32 {
    fn milliseconds(self) -> Duration {
        Duration::from_millis(u64::from(self))
    }
}

impl Units for u64 {
    fn milliseconds(self) -> Duration {
        Duration::from_millis(self)
    }
}

/// What a literal without a type is; a negative number is taken for zero.
impl Units for i32 {
    fn milliseconds(self) -> Duration {
        Duration::from_millis(u64::try_from(self).unwrap_or(0))
    }
}
