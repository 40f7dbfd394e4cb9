//! What the text means, by example; when it comes due, against models that know nothing of the code.

mod model;
mod plan;
mod text;

use jiff::civil::DateTime;

use super::*;

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::parse(text, zone).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The instant at which a clock in UTC shows `text`.
fn at(text: &str) -> Time {
    let reading: DateTime = text.parse().unwrap();
    Time::from_millis(TimeZone::UTC.to_timestamp(reading).unwrap().as_millisecond())
}

/// The first ticks after an instant, as what a clock in the schedule's zone shows.
fn readings(schedule: &Schedule, after: Time, count: usize) -> Vec<String> {
    let ticks = schedule.upcoming(after).take(count);
    let zoned = |tick: Time| jiff::Timestamp::from_second(tick.as_seconds()).unwrap().to_zoned(schedule.zone.clone());
    ticks.map(|tick| zoned(tick).strftime("%a %d %b %H:%M:%S %:z").to_string()).collect()
}

fn soak() -> bool {
    std::env::var_os("JOBSERVICE_SOAK").is_some()
}
