//! Due times against models that walk the clock step by step.
//!
//! The models are given what a text means as a condition in Rust, and of the zone only what a clock shows at an instant.
//! They parse nothing, and know nothing of gaps and repeated hours but what they see the clock do.

use jiff::civil::Weekday;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::*;

/// A text, whether it means a pace, and which clock readings fit.
struct Case {
    text: &'static str,
    pace: bool,
    fits: fn(DateTime) -> bool,
}

const fn pace(text: &'static str, fits: fn(DateTime) -> bool) -> Case {
    Case { text, pace: true, fits }
}

const fn times(text: &'static str, fits: fn(DateTime) -> bool) -> Case {
    Case { text, pace: false, fits }
}

fn hm(reading: DateTime) -> (i8, i8) {
    (reading.hour(), reading.minute())
}

fn sunday(reading: DateTime) -> bool {
    reading.weekday() == Weekday::Sunday
}

const BY_MINUTE: [Case; 30] = [
    pace("* * * * *", |_| true),
    pace("*/5 * * * *", |r| r.minute() % 5 == 0),
    pace("*/7 * * * *", |r| r.minute() % 7 == 0),
    pace("0 * * * *", |r| r.minute() == 0),
    pace("15,45 * * * *", |r| [15, 45].contains(&r.minute())),
    pace("0 */2 * * *", |r| r.minute() == 0 && r.hour() % 2 == 0),
    pace("30 1/2 * * *", |r| r.minute() == 30 && r.hour() % 2 == 1),
    pace("0 1-5/2 * * *", |r| r.minute() == 0 && [1, 3, 5].contains(&r.hour())),
    pace("*/10 2 * * *", |r| r.minute() % 10 == 0 && r.hour() == 2),
    pace("*/15 1-3 * * SUN", |r| r.minute() % 15 == 0 && (1..=3).contains(&r.hour()) && sunday(r)),
    pace("0 */3 25-31 * *", |r| r.minute() == 0 && r.hour() % 3 == 0 && r.day() >= 25),
    pace("* 2 * 3,10,11 *", |r| r.hour() == 2 && [3, 10, 11].contains(&r.month())),
    times("30 2 * * *", |r| hm(r) == (2, 30)),
    times("0 2 * * *", |r| hm(r) == (2, 0)),
    times("15 2 * * *", |r| hm(r) == (2, 15)),
    times("59 1 * * *", |r| hm(r) == (1, 59)),
    times("0 3 * * *", |r| hm(r) == (3, 0)),
    times("30 1 * * *", |r| hm(r) == (1, 30)),
    times("0 1,2,3 * * *", |r| r.minute() == 0 && (1..=3).contains(&r.hour())),
    times("0 2,3 * * *", |r| r.minute() == 0 && [2, 3].contains(&r.hour())),
    times("30 1-4 * * *", |r| r.minute() == 30 && (1..=4).contains(&r.hour())),
    times("15,45 1,2 * * SUN", |r| [15, 45].contains(&r.minute()) && [1, 2].contains(&r.hour()) && sunday(r)),
    times("0-59 2 * * *", |r| r.hour() == 2),
    times("0 0 * * *", |r| hm(r) == (0, 0)),
    times("30 23 * * SAT", |r| hm(r) == (23, 30) && r.weekday() == Weekday::Saturday),
    times("30 2 * * SUN", |r| hm(r) == (2, 30) && sunday(r)),
    times("30 2 1 * *", |r| hm(r) == (2, 30) && r.day() == 1),
    times("30 2 L 3 *", |r| hm(r) == (2, 30) && r.month() == 3 && r.day() == 31),
    times("30 2 25-31 * MON", |r| hm(r) == (2, 30) && (r.day() >= 25 || r.weekday() == Weekday::Monday)),
    times("30 2 * * SUN#1,SUN#2,SUNL", |r| {
        hm(r) == (2, 30) && sunday(r) && (r.day() <= 14 || r.day() + 7 > r.date().days_in_month())
    }),
];

const BY_SECOND: [Case; 6] = [
    pace("* * * * * *", |_| true),
    pace("*/30 59 * * * *", |r| r.second() % 30 == 0 && r.minute() == 59),
    pace("*/20 */10 1-3 * * *", |r| r.second() % 20 == 0 && r.minute() % 10 == 0 && (1..=3).contains(&r.hour())),
    times("15 30 2 * * *", |r| hm(r) == (2, 30) && r.second() == 15),
    times("59 59 1 * * *", |r| hm(r) == (1, 59) && r.second() == 59),
    times("0-59 0 2,3 * * *", |r| r.minute() == 0 && [2, 3].contains(&r.hour())),
];

/// What a clock shows from an instant on, step by step.
struct Walk {
    step: i64,
    shown: Vec<(Timestamp, DateTime)>,
}

impl Walk {
    fn around(zone: &TimeZone, change: Timestamp, seconds: i64, step: i64) -> Walk {
        // Zone files of 64 bits end with a change of nothing at the last second of 32 bits: that is not a whole minute.
        let middle = change.as_second() / step * step;
        let instant = |offset| Timestamp::from_second(middle + offset).unwrap();
        let shown = (-seconds..=seconds).step_by(step as usize).map(instant);
        Walk { step, shown: shown.map(|at| (at, zone.to_datetime(at))).collect() }
    }

    /// A pace ticks whenever a reading fits. A time of the day ticks when the clock, which may jump, first shows it or
    /// something later.
    fn ticks(&self, case: &Case) -> Vec<Timestamp> {
        let mut ticks = Vec::new();
        let mut latest = self.shown[0].1 - self.step.seconds();
        for (at, reading) in &self.shown {
            if case.pace {
                ticks.extend((case.fits)(*reading).then_some(*at));
                continue;
            }
            let mut due = false;
            while latest < *reading {
                latest += self.step.seconds();
                due |= (case.fits)(latest);
            }
            ticks.extend(due.then_some(*at));
        }
        ticks
    }

    fn check(&self, case: &Case, zone: &str) {
        let schedule = schedule(case.text, zone);
        let time = |at: &Timestamp| Time::from_seconds(at.as_second());
        let expected: Vec<Time> = self.ticks(case).iter().map(time).collect();
        let (first, last) = (time(&self.shown[0].0), time(&self.shown[self.shown.len() - 1].0));

        let ticks: Vec<Time> =
            schedule.upcoming(first - Duration::from_secs(1)).take_while(|tick| *tick <= last).collect();

        // Not `assert_eq!`: thousands of instants help nobody.
        let differs = ticks.iter().zip(&expected).find(|(tick, expected)| tick != expected);
        assert_eq!((differs, ticks.len()), (None, expected.len()), "{} in {zone} from {first}", case.text);
        // And from anywhere, not only from tick to tick.
        for (at, _) in self.shown.iter().step_by(if soak() { 3 } else { 7 }) {
            let after = time(at) + Duration::from_millis(500);
            let next = expected.iter().find(|tick| **tick > after);
            let found = schedule.next_after(after);
            assert!(next.is_none_or(|next| found == Some(*next)), "{} in {zone} after {after}: {found:?}", case.text);
        }
    }
}

/// Checks all changes of a zone's offset in the years from `first` up to and including `last`, so many hours around each.
/// Returns how many there are.
fn check_zone(name: &str, first: i16, last: i16, hours: i64) -> usize {
    let zone = TimeZone::get(name).unwrap();
    let new_year = |year| TimeZone::UTC.to_timestamp(jiff::civil::date(year, 1, 1).at(0, 0, 0, 0)).unwrap();
    let changes = zone.following(new_year(first)).map(|change| change.timestamp());
    let changes: Vec<Timestamp> = changes.take_while(|at| *at < new_year(last + 1)).collect();
    for (position, change) in changes.iter().enumerate() {
        let walk = Walk::around(&zone, *change, hours * 3600, 60);
        for case in &BY_MINUTE {
            walk.check(case, name);
        }
        if soak() || (position % 12 == 0 && last == 2040) {
            let walk = Walk::around(&zone, *change, 5400, 1);
            for case in &BY_SECOND {
                walk.check(case, name);
            }
        }
    }
    changes.iter().filter(|at| zone.to_offset(**at) != zone.to_offset(**at - 1.second())).count()
}

/// How far around a change is looked: its own night, or two days.
fn hours() -> i64 {
    if soak() { 50 } else { 2 }
}

#[test]
fn clock_changes_of_berlin_are_as_the_model_says() {
    assert_eq!(check_zone("Europe/Berlin", 2020, 2040, hours()), 42);
}

#[test]
fn clock_changes_of_new_york_are_as_the_model_says() {
    assert_eq!(check_zone("America/New_York", 2020, 2040, hours()), 42);
}

/// Half an hour of change.
#[test]
fn clock_changes_of_lord_howe_are_as_the_model_says() {
    assert_eq!(check_zone("Australia/Lord_Howe", 2020, 2040, hours()), 42);
}

/// Zones that change at midnight, by two hours, for a month of each year, for good, or by a whole day.
#[test]
fn clock_changes_of_odd_zones_are_as_the_model_says() {
    let zones = [
        ("Africa/Casablanca", 2020),
        ("Africa/Cairo", 2023),
        ("America/Asuncion", 2020),
        ("America/Nuuk", 2020),
        ("America/Santiago", 2020),
        ("America/Havana", 2020),
        ("Antarctica/Troll", 2020),
        ("Asia/Beirut", 2020),
        ("Asia/Tehran", 2015),
        ("Europe/Dublin", 2020),
        ("Pacific/Apia", 2010),
    ];
    for (zone, first) in zones {
        let last = if soak() { 2040 } else { first };
        assert!(check_zone(zone, first, last, hours().min(6)) > 0, "{zone} has no changes");
    }
    // It went over the date line: 30 December 2011 was not.
    assert!(check_zone("Pacific/Apia", 2011, 2011, 26) > 0);
}

#[test]
fn daily_job_in_berlin_over_both_changes_of_2026() {
    let daily = schedule("30 2 * * *", "Europe/Berlin");
    assert_eq!(
        readings(&daily, at("2026-03-27T12:00:00"), 3),
        ["Sat 28 Mar 02:30:00 +01:00", "Sun 29 Mar 03:00:00 +02:00", "Mon 30 Mar 02:30:00 +02:00"]
    );
    assert_eq!(
        readings(&daily, at("2026-10-24T12:00:00"), 2),
        ["Sun 25 Oct 02:30:00 +02:00", "Mon 26 Oct 02:30:00 +01:00"]
    );
}

/// A per-minute job that stood still for the repeated hour was the defect of another scheduler.
#[test]
fn pace_goes_on_through_the_repeated_hour() {
    let half_hourly = schedule("*/30 * * * *", "Europe/Berlin");
    assert_eq!(
        readings(&half_hourly, at("2026-10-25T00:00:00"), 5),
        [
            "Sun 25 Oct 02:30:00 +02:00",
            "Sun 25 Oct 02:00:00 +01:00",
            "Sun 25 Oct 02:30:00 +01:00",
            "Sun 25 Oct 03:00:00 +01:00",
            "Sun 25 Oct 03:30:00 +01:00"
        ]
    );
    assert_eq!(
        readings(&half_hourly, at("2026-03-29T00:00:00"), 3),
        ["Sun 29 Mar 01:30:00 +01:00", "Sun 29 Mar 03:00:00 +02:00", "Sun 29 Mar 03:30:00 +02:00"]
    );
}

#[test]
fn leap_day_comes_in_leap_years_only() {
    let leap_day = schedule("0 0 29 2 *", "");
    let days: Vec<Time> = leap_day.upcoming(at("2090-01-01T00:00:00")).take(3).collect();
    assert_eq!(days, [at("2092-02-29T00:00:00"), at("2096-02-29T00:00:00"), at("2104-02-29T00:00:00")]);
}

type DayCase = (&'static str, fn(jiff::civil::Date) -> bool);

/// The working day nearest to day `n` of the month of `date`, in the same month.
fn nearest_workday(date: jiff::civil::Date, n: i8) -> i8 {
    let last = date.days_in_month();
    let Ok(day) = jiff::civil::Date::new(date.year(), date.month(), n) else { return 0 };
    match day.weekday() {
        Weekday::Saturday if n == 1 => 3,
        Weekday::Saturday => n - 1,
        Weekday::Sunday if n == last => n - 2,
        Weekday::Sunday => n + 1,
        _ => n,
    }
}

#[test]
fn days_are_as_a_calendar_says() {
    let cases: [DayCase; 16] = [
        ("0 0 * * *", |_| true),
        ("0 0 13 * FRI", |d| d.day() == 13 || d.weekday() == Weekday::Friday),
        ("0 0 13 * *", |d| d.day() == 13),
        ("0 0 ? * FRI", |d| d.weekday() == Weekday::Friday),
        ("0 0 */2 * FRI", |d| d.day() % 2 == 1 && d.weekday() == Weekday::Friday),
        ("0 0 13 * */2", |d| d.day() == 13 && d.weekday().to_sunday_zero_offset() % 2 == 0),
        ("0 0 1-31 * FRI", |_| true),
        ("0 0 1 * 0-6", |_| true),
        ("0 0 31 * *", |d| d.day() == 31),
        ("0 0 L * *", |d| d.day() == d.days_in_month()),
        ("0 0 LW * *", |d| {
            let last = d.last_of_month();
            d == match last.weekday() {
                Weekday::Saturday => last - 1.day(),
                Weekday::Sunday => last - 2.days(),
                _ => last,
            }
        }),
        ("0 0 1W,15W,31W * *", |d| [1, 15, 31].iter().any(|n| nearest_workday(d, *n) == d.day())),
        ("0 0 * * MON#2,FRI#5", |d| match d.weekday() {
            Weekday::Monday => (8..=14).contains(&d.day()),
            Weekday::Friday => d.day() >= 29,
            _ => false,
        }),
        ("0 0 * * SUNL,7#1", |d| d.weekday() == Weekday::Sunday && (d.day() <= 7 || d.day() + 7 > d.days_in_month())),
        ("0 0 29 2 MON", |d| d.month() == 2 && (d.day() == 29 || d.weekday() == Weekday::Monday)),
        ("0 0 1,L JAN-MAR,DEC *", |d| [1, 2, 3, 12].contains(&d.month()) && [1, d.days_in_month()].contains(&d.day())),
    ];
    let (first, days) = (jiff::civil::date(2020, 1, 1), 21 * 366);
    for (text, fits) in cases {
        let expected: Vec<Time> = first
            .series(1.day())
            .take(days)
            .filter(|date| fits(*date))
            .map(|date| at(&date.at(0, 0, 0, 0).to_string()))
            .collect();

        let ticks: Vec<Time> = schedule(text, "").upcoming(at("2019-12-31T23:59:59")).take(expected.len()).collect();

        assert_eq!(ticks, expected, "{text}");
    }
}

/// One field of a random text: entries of first value, last value (if a range) and step (if any); empty is a star.
type Entries = Vec<(i8, Option<i8>, Option<i8>)>;

fn entries(min: i8, max: i8) -> impl Strategy<Value = Entries> {
    let entry = (min..=max, prop::option::of(min..=max), prop::option::weighted(0.3, 1..=(max - min)));
    let entry = entry.prop_map(move |(a, b, step)| match b {
        Some(b) => (a.min(b), Some(a.max(b)), step),
        None => (a, None, step),
    });
    prop::collection::vec(entry, 0..4)
}

fn write(entries: &Entries) -> String {
    let text = |(first, last, step): &(i8, Option<i8>, Option<i8>)| {
        let last = last.map(|last| format!("-{last}")).unwrap_or_default();
        format!("{first}{last}{}", step.map(|step| format!("/{step}")).unwrap_or_default())
    };
    if entries.is_empty() { "*".to_owned() } else { entries.iter().map(text).collect::<Vec<_>>().join(",") }
}

fn allows(entries: &Entries, value: i8) -> bool {
    entries.is_empty()
        || entries.iter().any(|(first, last, step)| match (last, step) {
            (None, None) => value == *first,
            (Some(last), step) => (*first..=*last).contains(&value) && (value - first) % step.unwrap_or(1) == 0,
            (None, Some(step)) => value >= *first && (value - first) % step == 0,
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if soak() { 50_000 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_texts_come_due_as_a_walk_through_the_calendar_says(
        (minute, hour) in (entries(0, 59), entries(0, 23)),
        (day, month, weekday) in (entries(1, 31), entries(1, 12), entries(0, 6)),
        after in 1_577_836_800_i64..2_208_988_800,
    ) {
        let text = [&minute, &hour, &day, &month, &weekday].map(write).join(" ");
        let after = Timestamp::from_second(after).unwrap();
        let begin = TimeZone::UTC.to_datetime(after);
        let day_fits = |date: jiff::civil::Date| {
            let of_week = allows(&weekday, date.weekday().to_sunday_zero_offset());
            let of_month = allows(&day, date.day());
            let either = !day.is_empty() && !weekday.is_empty();
            allows(&month, date.month()) && if either { of_month || of_week } else { of_month && of_week }
        };
        let fitting_days = begin.date().series(1.day()).take(366 * 9).filter(|date| day_fits(*date));
        let readings = fitting_days.flat_map(|date| (0..24 * 60_i16).map(move |at| date.at((at / 60) as i8, (at % 60) as i8, 0, 0)));
        let mut fitting =
            readings.filter(|reading| *reading > begin && allows(&hour, reading.hour()) && allows(&minute, reading.minute()));
        match (Schedule::parse(&text, "UTC"), fitting.next()) {
            (Ok(schedule), Some(expected)) => {
                prop_assert_eq!(schedule.next_after(Time::from_seconds(after.as_second())), Some(at(&expected.to_string())), "{}", text);
            }
            (Err(error), None) => prop_assert_eq!(error.problem, "it would never come due"),
            (parsed, expected) => prop_assert!(false, "{text}: {parsed:?} but {expected:?}"),
        }
    }
}
