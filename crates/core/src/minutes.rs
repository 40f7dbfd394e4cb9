//! What happened in each minute, for charts: a few numbers per name, kept for [`limits::MINUTES_KEPT`].

use crate::job::{State, Status};
use crate::{Time, limits};

/// The length of a minute.
const MILLIS: i64 = 60_000;

/// What happened in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// When the minute began.
    pub at: Time,
    /// The numbers.
    pub bucket: Bucket,
}

/// The numbers of one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Jobs that came in.
    pub submitted: u64,
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed or whose worker was lost.
    pub failed: u64,
    /// For how long the runs that began had waited to be claimed, in all, in milliseconds.
    pub wait_ms: u64,
    /// For how long the runs that ended had run, in all, in milliseconds.
    pub run_ms: u64,
}

impl Bucket {
    /// Counts a job that came in.
    pub fn submit(&mut self) {
        self.submitted += 1;
    }

    /// Counts a change of a job from `before` to `after` at `now`. Only runs that begin or end are counted.
    pub fn change(&mut self, before: &State, after: &State, now: Time) {
        if before.status == after.status {
            return;
        }
        if after.status == Status::Running {
            self.wait_ms += now.since(before.ready_at).as_millis() as u64;
        }
        if before.status == Status::Running {
            self.run_ms += now.since(before.started_at.unwrap_or(now)).as_millis() as u64;
            self.succeeded += u64::from(after.status == Status::Success);
            self.failed += u64::from(after.fails > before.fails || after.crashes > before.crashes);
        }
    }

    /// Adds the numbers of another.
    pub fn add(&mut self, other: Bucket) {
        self.submitted += other.submitted;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.wait_ms += other.wait_ms;
        self.run_ms += other.run_ms;
    }
}

/// The number of the minute that an instant lies in, counted from 1970.
pub fn number_of(at: Time) -> i64 {
    at.as_millis().div_euclid(MILLIS)
}

/// When the minute of a number began.
pub fn begin_of(number: i64) -> Time {
    Time::from_millis(number.saturating_mul(MILLIS))
}

/// The number of the oldest minute that is kept at `now`.
pub fn oldest_kept(now: Time) -> i64 {
    number_of(now - limits::MINUTES_KEPT)
}
