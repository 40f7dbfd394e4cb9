//! A schedule in words, for people who cannot read cron text, and what they may have meant otherwise.

use std::time::Duration;

use crate::cron::parse::{Field, Fields, Part, Special};

const MONTHS: [&str; 13] = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Beyond this many times of the day they are described by their fields.
const TIMES_MAX: usize = 6;

/// The whole schedule as a sentence.
pub(super) fn sentence(fields: &Fields, zone: &str) -> String {
    let (time, is_list) = times(fields).map_or_else(|| (pace(fields), false), |times| (times, true));
    let days = match (days(fields), is_list) {
        (Some(days), true) => format!(" {days}"),
        (Some(days), false) => format!(", {days}"),
        (None, true) => " every day".to_owned(),
        (None, false) => String::new(),
    };
    let months = if fields.month.is_whole() { String::new() } else { format!(" in {}", list(&fields.month)) };
    capitalized(&format!("{time}{days}{months}, in {zone}."))
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().collect::<String>() + characters.as_str()).unwrap_or_default()
}

/// `at 02:30 and 14:30`, if it is a handful of times of the day.
fn times(fields: &Fields) -> Option<String> {
    let second = fields.second.only()?;
    let (hours, minutes): (Vec<u32>, Vec<u32>) = (fields.hour.list().collect(), fields.minute.list().collect());
    if hours.len() * minutes.len() > TIMES_MAX {
        return None;
    }
    let mut times = Vec::new();
    for hour in &hours {
        for minute in &minutes {
            let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
            times.push(format!("{hour:02}:{minute:02}{seconds}"));
        }
    }
    Some(format!("at {}", join(&times)))
}

/// `every 5 minutes, in hours 9 to 17`.
fn pace(fields: &Fields) -> String {
    let mut phrases = Vec::new();
    if fields.second.only() != Some(0) {
        phrases.push(run(&fields.second, "second"));
    }
    let whole_hours = phrases.is_empty() && fields.minute.only() == Some(0);
    if whole_hours && fields.hour.is_whole() {
        return "every hour".to_owned();
    }
    if whole_hours && let Some(step) = even_step(&fields.hour) {
        return format!("every {step} hours from midnight");
    }
    if !fields.minute.is_whole() || phrases.is_empty() {
        phrases.push(run(&fields.minute, "minute"));
    }
    if !fields.hour.is_whole() {
        phrases.push(match even_step(&fields.hour) {
            Some(step) => format!("every {step} hours from midnight"),
            None => format!("in hour{} {}", plural(&fields.hour), list(&fields.hour)),
        });
    } else if even_step(&fields.minute).is_none()
        && !fields.minute.is_whole()
        && let Some(last) = phrases.last_mut()
    {
        last.push_str(" of every hour");
    }
    phrases.join(", ")
}

/// `every minute`, `every 5 minutes`, `at minutes 0, 20 and 40`.
fn run(field: &Field, unit: &str) -> String {
    if field.is_whole() {
        return format!("every {unit}");
    }
    match even_step(field) {
        Some(step) => format!("every {step} {unit}s"),
        None => format!("at {unit}{} {}", plural(field), list(field)),
    }
}

fn plural(field: &Field) -> &'static str {
    if field.only().is_some() { "" } else { "s" }
}

/// The step, if the values are evenly spaced from the field's first on, over its end as well.
fn even_step(field: &Field) -> Option<u32> {
    let step = field.step.filter(|step| *step > 1)?;
    let (min, max) = field.part.bounds();
    let from_first = field.list().next() == Some(min);
    (from_first && (max - min + 1).is_multiple_of(step)).then_some(step)
}

/// `on Monday to Friday`; none if it is every day.
fn days(fields: &Fields) -> Option<String> {
    let of_month = (!fields.day.is_whole()).then(|| days_of_month(&fields.day));
    let of_week = (!fields.weekday.is_whole()).then(|| days_of_week(&fields.weekday));
    match (of_month, of_week) {
        (None, None) => None,
        // One of them allows every day, and either is enough.
        (None, Some(_)) | (Some(_), None) if fields.either_day() => None,
        (Some(days), None) | (None, Some(days)) => Some(format!("on {days}")),
        (Some(month), Some(week)) if fields.either_day() => Some(format!("on {month} or on {week}")),
        (Some(month), Some(week)) => Some(format!("on {month} if it is {week}")),
    }
}

fn days_of_month(field: &Field) -> String {
    let mut entries = Vec::new();
    if field.step.is_some_and(|step| step > 1) && field.values.count_ones() > 3 {
        let first: Vec<String> = field.list().take(3).map(|day| day.to_string()).collect();
        entries.push(format!("days {} and so on of the month", first.join(", ")));
    } else if field.values != 0 {
        let plural = if field.values.is_power_of_two() { "" } else { "s" };
        entries.push(format!("day{plural} {} of the month", list(field)));
    }
    entries.extend(field.specials.iter().map(special));
    join(&entries)
}

fn days_of_week(field: &Field) -> String {
    let mut entries = Vec::new();
    if field.values != 0 {
        entries.push(list(field));
    }
    entries.extend(field.specials.iter().map(special));
    join(&entries)
}

fn special(special: &Special) -> String {
    const NTH: [&str; 6] = ["", "first", "second", "third", "fourth", "fifth"];
    match *special {
        Special::LastDay => "the last day of the month".to_owned(),
        Special::LastWorkday => "the last working day (Monday to Friday) of the month".to_owned(),
        Special::NearestWorkday(day) => format!("the working day (Monday to Friday) nearest to day {day} of the month"),
        Special::Nth(weekday, nth) => format!("the {} {} of the month", word(&NTH, nth), word(&WEEKDAYS, weekday)),
        Special::LastWeekday(weekday) => format!("the last {} of the month", word(&WEEKDAYS, weekday)),
    }
}

fn word<'a>(words: &[&'a str], index: u32) -> &'a str {
    words.get(index as usize).copied().unwrap_or_default()
}

/// The values of a field, neighbours drawn together: `1, 3 to 5 and 9`.
fn list(field: &Field) -> String {
    let name = |value: u32| match field.part {
        Part::Month => word(&MONTHS, value).to_owned(),
        Part::Weekday => word(&WEEKDAYS, value % 7).to_owned(),
        Part::Second | Part::Minute | Part::Hour | Part::Day => value.to_string(),
    };
    let mut values: Vec<u32> = field.list().collect();
    // A week begins on Monday for whoever reads `Saturday and Sunday`.
    if field.part == Part::Weekday && values.first() == Some(&0) && values.len() > 1 {
        values.remove(0);
        values.push(7);
    }
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            _ => ranges.push((value, value)),
        }
    }
    let mut entries = Vec::new();
    for (first, last) in ranges {
        match last - first {
            0 => entries.push(name(first)),
            1 => entries.extend([name(first), name(last)]),
            _ => entries.push(format!("{} to {}", name(first), name(last))),
        }
    }
    join(&entries)
}

/// `a`, `a and b`, `a, b and c`.
fn join(entries: &[String]) -> String {
    match entries {
        [] => String::new(),
        [only] => only.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// `1 hour 30 minutes`.
pub(super) fn pause(pause: Duration) -> String {
    let seconds = pause.as_secs();
    let parts = [
        ("day", seconds / 86_400),
        ("hour", seconds / 3600 % 24),
        ("minute", seconds / 60 % 60),
        ("second", seconds % 60),
    ];
    let words: Vec<String> = parts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(unit, count)| if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") })
        .collect();
    words.join(" ")
}

/// What may not be meant as it is written.
pub(super) fn warnings(fields: &Fields) -> Vec<String> {
    let mut warnings = Vec::new();
    let per_minute = fields.second.values.count_ones();
    if per_minute > 1 {
        warnings.push(format!(
            "the first of six fields is the second: it runs {per_minute} times in each minute that fits"
        ));
    }
    if fields.either_day() && !fields.day.is_whole() && !fields.weekday.is_whole() {
        warnings.push("day of month and weekday are both set: it runs on days that fit either of them".to_owned());
    }
    if fields.weekday.is_whole() && fields.day.specials.is_empty() && fields.day.values.trailing_zeros() > 28 {
        warnings.push("months that do not have such a day are passed over; L is the last day of each month".to_owned());
    }
    for field in [&fields.second, &fields.minute, &fields.hour] {
        warnings.extend(uneven(field));
    }
    warnings
}

/// Whether a step begins anew at a place where it does not fit.
fn uneven(field: &Field) -> Option<String> {
    let step = field.step.filter(|step| *step > 1)?;
    let (min, max) = field.part.bounds();
    let (first, last) = (field.list().next()?, field.list().last()?);
    let pause = max - last + 1 + first - min;
    let (unit, next) = match field.part {
        Part::Second => ("second", "minute"),
        Part::Minute => ("minute", "hour"),
        _ => ("hour", "day"),
    };
    (pause != step).then(|| {
        let letter = unit.get(..1).unwrap_or_default();
        let last = if pause == 1 { format!("1 {unit}") } else { format!("{pause} {unit}s") };
        format!("a step of {step} {unit}s begins anew with each {next}: there the pause is {last}; @every {step}{letter} keeps the pace")
    })
}
