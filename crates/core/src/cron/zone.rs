//! From clock readings to instants: gaps, repeated hours, and nothing else.
//!
//! A reading is what a clock on the wall of the zone shows (`civil::DateTime`); matching readings is croner's work.

use croner::{Cron, Weekday};
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// Whether any day fits. Within 28 years each date falls on each weekday, leap days included, so no more need be looked
/// at; croner's own search would go on to the year 5000.
pub(super) fn has_days(cron: &Cron) -> bool {
    let first = Date::constant(2000, 1, 1);
    let days = first.series(1.day()).take(28 * 366);
    days.into_iter().any(|date| {
        let (month, day) = (date.month() as u32, date.day() as u32);
        let weekday = Weekday::from_days_from_sunday(date.weekday().to_sunday_zero_offset() as u32);
        let pattern = &cron.pattern;
        matches!(pattern.month_match(month), Ok(true))
            && matches!(pattern.day_match(date.year().into(), month, day, weekday), Ok(true))
    })
}

/// The next tick of a schedule that means times of the day.
///
/// Every reading that fits is one tick. The instants follow the order of the readings, so the first reading after what
/// the clock shows at `after` is the one, unless the clock has gone back and it was had the first time.
pub(super) fn next_of_day(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut reading = zone.to_datetime(after);
    loop {
        reading = cron.find_next_occurrence(&reading, false).ok()?;
        let ambiguous = zone.to_ambiguous_timestamp(reading);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => return ambiguous.unambiguous().ok(),
            AmbiguousOffset::Gap { before, .. } => return change_before(zone, before.to_timestamp(reading).ok()?),
            AmbiguousOffset::Fold { before, after: later } => {
                let first = before.to_timestamp(reading).ok()?;
                if first > after {
                    return Some(first);
                }
                let change = change_before(zone, later.to_timestamp(reading).ok()?)?;
                if change <= after {
                    // The whole repeated range has been had. Do not step through what fits in it: go to its end.
                    reading = before.to_datetime(change).checked_sub(1.second()).ok()?;
                }
            }
        }
    }
}

/// The next tick of a schedule that means a pace: the first instant at which the clock shows a reading that fits.
///
/// Between two changes of the zone's offset the clock runs evenly, so each such stretch is looked at by itself.
pub(super) fn next_of_pace(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let (mut from, mut inclusive) = (after, false);
    loop {
        let offset = zone.to_offset(from);
        let reading = cron.find_next_occurrence(&offset.to_datetime(from), inclusive).ok()?;
        let tick = offset.to_timestamp(reading).ok()?;
        match zone.following(from).next() {
            Some(change) if change.timestamp() <= tick => (from, inclusive) = (change.timestamp(), true),
            _ => return Some(tick),
        }
    }
}

/// The last change of the zone's offset at or before an instant.
fn change_before(zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
    let change = zone.preceding(at.checked_add(1.second()).ok()?).next()?;
    Some(change.timestamp())
}

/// A reading that fits and does not exist on some day of the years 2024 to 2034, if there is one.
pub(super) fn skipped_reading(cron: &Cron, zone: &TimeZone) -> Option<DateTime> {
    let utc = |year| TimeZone::UTC.to_timestamp(DateTime::constant(year, 1, 1, 0, 0, 0, 0)).ok();
    let (begin, end) = (utc(2024)?, utc(2034)?);
    for change in zone.following(begin).take_while(|change| change.timestamp() < end) {
        let at = change.timestamp();
        let before = zone.to_offset(at.checked_sub(1.second()).ok()?);
        let (begins, ends) = (before.to_datetime(at), change.offset().to_datetime(at));
        if begins < ends
            && let Ok(reading) = cron.find_next_occurrence(&begins, true)
            && reading < ends
        {
            return Some(reading);
        }
    }
    None
}
