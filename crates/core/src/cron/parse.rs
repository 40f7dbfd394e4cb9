//! Reads cron text, field by field, so that an error can say which field and what to write instead.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::cron::CronError;
use crate::limits;

/// What a text says.
pub(super) enum Parsed {
    /// `@every`: the pause, in whole seconds.
    Every(Duration),
    /// Anything else.
    Fields(Box<Fields>),
}

/// The six fields.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) second: Field,
    pub(super) minute: Field,
    pub(super) hour: Field,
    pub(super) day: Field,
    pub(super) month: Field,
    pub(super) weekday: Field,
}

/// What one field allows.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) part: Part,
    /// Bit n: the value n. Sunday is 0.
    pub(super) values: u64,
    /// Whether a `*` or `?` is in it: then it does not restrict the days.
    pub(super) has_star: bool,
    /// The step of `*/n` or `m/n`, if the field is one.
    pub(super) step: Option<u32>,
    /// Whether any step is in it.
    pub(super) has_step: bool,
    /// Days that depend on the month: `L`, `LW`, `15W`, `MON#2`, `FRIL`.
    pub(super) specials: Vec<Special>,
}

/// A day that depends on the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// `L`: the last day.
    LastDay,
    /// `LW`: the last of Monday to Friday.
    LastWorkday,
    /// `15W`: of Monday to Friday the day nearest to this day.
    NearestWorkday(u32),
    /// `1#2`: the second Monday.
    Nth(u32, u32),
    /// `5L`: the last Friday.
    LastWeekday(u32),
}

/// Which field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Part::Second => "second",
            Part::Minute => "minute",
            Part::Hour => "hour",
            Part::Day => "day of month",
            Part::Month => "month",
            Part::Weekday => "weekday",
        }
    }

    /// The smallest and the largest value as they are kept.
    pub(super) const fn bounds(self) -> (u32, u32) {
        match self {
            Part::Second | Part::Minute => (0, 59),
            Part::Hour => (0, 23),
            Part::Day => (1, 31),
            Part::Month => (1, 12),
            Part::Weekday => (0, 6),
        }
    }

    /// What may be written.
    const fn rule(self) -> &'static str {
        match self {
            Part::Second | Part::Minute => "use 0 to 59",
            Part::Hour => "use 0 to 23",
            Part::Day => "use 1 to 31, L, LW or 15W",
            Part::Month => "use 1 to 12 or JAN to DEC",
            Part::Weekday => "use 0 to 7 (0 and 7 are Sunday), SUN to SAT, MON#2 or FRIL",
        }
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Part::Month => &MONTHS,
            Part::Weekday => &WEEKDAYS,
            Part::Second | Part::Minute | Part::Hour | Part::Day => &[],
        }
    }

    fn error(self, problem: impl Into<String>, remedy: impl Into<String>) -> CronError {
        CronError::new(Some(self.name()), problem, remedy)
    }

    fn whole(self) -> Field {
        let (min, max) = self.bounds();
        Field {
            part: self,
            values: bits(min, max, 1),
            has_star: true,
            step: None,
            has_step: false,
            specials: Vec::new(),
        }
    }
}

/// The zone of a `TZ=` or `CRON_TZ=` at the beginning, and the rest.
pub(super) fn split_zone(text: &str) -> (Option<&str>, &str) {
    for prefix in ["TZ=", "CRON_TZ="] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return match rest.split_once(char::is_whitespace) {
                Some((zone, rest)) => (Some(zone), rest.trim()),
                None => (Some(rest), ""),
            };
        }
    }
    (None, text)
}

/// Reads the text without its zone.
pub(super) fn rule(text: &str) -> Result<Parsed, CronError> {
    if let Some(word) = text.strip_prefix('@') {
        return nickname(word);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let fields = match *words.as_slice() {
        [] => return Err(CronError::new(None, "it is empty", "write five fields, such as 0 2 * * *")),
        [minute, hour, day, month, weekday] => fields("0", minute, hour, day, month, weekday)?,
        [second, minute, hour, day, month, weekday] => fields(second, minute, hour, day, month, weekday)?,
        [_, _, _, _, _, _, _] => {
            return Err(CronError::new(
                None,
                "seven fields are too many",
                "leave out the year: it cannot be restricted",
            ));
        }
        _ => {
            let remedy = "five are needed (minute, hour, day of month, month, weekday), or six with the seconds first";
            return Err(CronError::new(None, format!("{} fields are not a schedule", words.len()), remedy));
        }
    };
    Ok(Parsed::Fields(Box::new(fields)))
}

fn nickname(word: &str) -> Result<Parsed, CronError> {
    let (word, argument) = word.split_once(char::is_whitespace).unwrap_or((word, ""));
    let word = word.to_ascii_lowercase();
    if word == "every" {
        return every(argument.trim()).map(Parsed::Every);
    }
    let text = match word.as_str() {
        _ if !argument.trim().is_empty() => "",
        "hourly" => "0 * * * *",
        "daily" | "midnight" => "0 0 * * *",
        "weekly" => "0 0 * * 0",
        "monthly" => "0 0 1 * *",
        "yearly" | "annually" => "0 0 1 1 *",
        _ => "",
    };
    if text.is_empty() {
        let problem = format!("@{} is not a schedule", limits::cut(&word, 40));
        let remedy = "use @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @every 90s";
        return Err(CronError::new(None, problem, remedy));
    }
    rule(text)
}

/// The pause of an `@every`: numbers with units, `1h30m`.
fn every(text: &str) -> Result<Duration, CronError> {
    let wrong = |problem: String, remedy: &str| Err(CronError::new(Some("@every"), problem, remedy));
    let Some(millis) = pause_millis(text) else {
        let problem = format!("{:?} is not a pause", limits::cut(text, 40));
        return wrong(problem, "write numbers with units s, m, h, d or w: 90s, 1h30m");
    };
    if millis < 1000 {
        return wrong(format!("{text} is too short"), "a policy runs once a second at the most: 1s");
    }
    if millis % 1000 != 0 {
        return wrong(format!("{text} is not a whole number of seconds"), "leave out the fraction");
    }
    let pause = Duration::from_millis(millis);
    if pause > limits::DELAY_MAX {
        return wrong(format!("{text} is too long"), "use a schedule with a date, or a delay");
    }
    Ok(pause)
}

fn pause_millis(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let unit_millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            "w" => 7 * 24 * 3600 * 1000,
            _ => return None,
        };
        sum = sum.checked_add(decimal_times(number, unit_millis)?)?;
        rest = tail;
    }
    (sum > 0 || !text.is_empty()).then_some(sum)
}

/// `1.5` times `unit`, if that is a whole number.
fn decimal_times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(fraction)?.checked_mul(unit)?;
    if part % scale != 0 {
        return None;
    }
    digits(whole)?.checked_mul(unit)?.checked_add(part / scale)
}

fn fields(second: &str, minute: &str, hour: &str, day: &str, month: &str, weekday: &str) -> Result<Fields, CronError> {
    Ok(Fields {
        second: field(Part::Second, second)?,
        minute: field(Part::Minute, minute)?,
        hour: field(Part::Hour, hour)?,
        day: field(Part::Day, day)?,
        month: field(Part::Month, month)?,
        weekday: field(Part::Weekday, weekday)?,
    })
}

fn field(part: Part, text: &str) -> Result<Field, CronError> {
    if matches!(text, "*" | "?") {
        return Ok(part.whole());
    }
    let mut field = Field { values: 0, has_star: false, ..part.whole() };
    let entries: Vec<&str> = text.split(',').collect();
    for entry in &entries {
        if let Some(special) = special(part, entry)? {
            field.specials.push(special);
            continue;
        }
        let (range, step) = match entry.split_once('/') {
            Some((range, step)) => (range, Some(parse_step(part, entry, step)?)),
            None => (*entry, None),
        };
        let (first, last) = match range {
            "*" | "?" => part.bounds(),
            range => parse_range(part, range, step.is_some())?,
        };
        field.has_star |= matches!(range, "*" | "?");
        field.has_step |= step.is_some();
        if entries.len() == 1 && !range.contains('-') {
            field.step = step;
        }
        field.values |= bits(first, last, step.unwrap_or(1));
    }
    if part == Part::Weekday && field.values & (1 << 7) != 0 {
        field.values = (field.values & !(1 << 7)) | 1;
    }
    if [Special::LastDay, Special::LastWorkday].iter().all(|special| field.specials.contains(special)) {
        return Err(part.error("L and LW cannot be together", "make two policies of it"));
    }
    Ok(field)
}

fn parse_step(part: Part, entry: &str, step: &str) -> Result<u32, CronError> {
    let (min, max) = part.bounds();
    match number(step) {
        Some(0) => Err(part.error(format!("the step of {entry} is zero"), "use 1 or more")),
        Some(step) if step > max - min => {
            let problem = format!("the step of {entry} is longer than the field");
            Err(part.error(problem, "for a pace that knows no field use @every, such as @every 90m"))
        }
        Some(step) => Ok(step),
        None => Err(part.error(format!("{:?} is not a step", limits::cut(step, 40)), "write a number after the /")),
    }
}

/// The first and the last value. A single value with a step means: from it to the end, as in the original.
fn parse_range(part: Part, range: &str, has_step: bool) -> Result<(u32, u32), CronError> {
    let (min, max) = part.bounds();
    let Some((first, last)) = range.split_once('-') else {
        let value = value(part, range)?;
        return Ok((value, if has_step { max } else { value }));
    };
    let (first, mut last) = (value(part, first)?, value(part, last)?);
    if part == Part::Weekday && last == 0 && first > 0 {
        // To Sunday, the end of the week.
        last = 7;
    }
    if first > last {
        let problem = format!("{range} goes backwards");
        return Err(part.error(problem, format!("write {first}-{max},{min}-{last}")));
    }
    Ok((first, last))
}

fn value(part: Part, text: &str) -> Result<u32, CronError> {
    let (min, max) = part.bounds();
    if let Some(position) = part.names().iter().position(|name| is_name(name, text)) {
        return Ok(min + u32::try_from(position).unwrap_or(0));
    }
    let max_written = if part == Part::Weekday { 7 } else { max };
    match number(text) {
        Some(value) if (min..=max_written).contains(&value) => Ok(value),
        Some(value) => Err(part.error(format!("there is no {} {value}", part.name()), part.rule())),
        None if text.is_empty() => Err(part.error("a value is missing", part.rule())),
        None => Err(part.error(format!("{:?} is not a value", limits::cut(text, 40)), part.rule())),
    }
}

/// Whether `text` is the name, in full or by its first three letters, in any case.
fn is_name(name: &str, text: &str) -> bool {
    name.eq_ignore_ascii_case(text) || name.get(..3).is_some_and(|short| short.eq_ignore_ascii_case(text))
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A day that depends on the month, if the entry is one.
fn special(part: Part, entry: &str) -> Result<Option<Special>, CronError> {
    let ends = |letter: &str| {
        let (head, tail) = entry.split_at_checked(entry.len().saturating_sub(1))?;
        tail.eq_ignore_ascii_case(letter).then_some(head)
    };
    match part {
        Part::Day if entry.eq_ignore_ascii_case("L") => Ok(Some(Special::LastDay)),
        Part::Day if entry.eq_ignore_ascii_case("LW") => Ok(Some(Special::LastWorkday)),
        Part::Day => match ends("W") {
            Some(day) => Ok(Some(Special::NearestWorkday(value(part, day)?))),
            None => Ok(None),
        },
        Part::Weekday => {
            if let Some((weekday, nth)) = entry.split_once('#') {
                return match number(nth) {
                    Some(nth @ 1..=5) => Ok(Some(Special::Nth(value(part, weekday)? % 7, nth))),
                    _ => Err(part.error(format!("there is no {} in a month", limits::cut(entry, 40)), "use #1 to #5")),
                };
            }
            match ends("L") {
                Some(weekday) if !weekday.is_empty() => Ok(Some(Special::LastWeekday(value(part, weekday)? % 7))),
                _ => Ok(None),
            }
        }
        Part::Second | Part::Minute | Part::Hour | Part::Month => Ok(None),
    }
}

/// The bits `first`, `first + step`, and so on up to `last`.
fn bits(first: u32, last: u32, step: u32) -> u64 {
    let step = usize::try_from(step.max(1)).unwrap_or(1);
    (first..=last).step_by(step).fold(0, |bits, value| bits | (1 << value))
}

impl Field {
    /// The values that it allows, in order, without those that depend on the month.
    pub(super) fn list(&self) -> impl Iterator<Item = u32> + use<> {
        let values = self.values;
        (0..64).filter(move |value| values & (1 << value) != 0)
    }

    /// Its only value, if it has only one.
    pub(super) fn only(&self) -> Option<u32> {
        (self.values.is_power_of_two() && self.specials.is_empty()).then(|| self.values.trailing_zeros())
    }

    /// Whether it allows all values.
    pub(super) fn is_whole(&self) -> bool {
        let (min, max) = self.part.bounds();
        self.values == bits(min, max, 1)
    }

    /// As croner reads it: plain numbers. A `*` only where one was written: that makes a difference between the days.
    fn plain(&self) -> String {
        if self.is_whole() && self.has_star {
            return "*".to_owned();
        }
        let specials = self.specials.iter().map(|special| match special {
            Special::LastDay => "L".to_owned(),
            Special::LastWorkday => "LW".to_owned(),
            Special::NearestWorkday(day) => format!("{day}W"),
            Special::Nth(weekday, nth) => format!("{weekday}#{nth}"),
            Special::LastWeekday(weekday) => format!("{weekday}L"),
        });
        let entries: Vec<String> = self.list().map(|value| value.to_string()).chain(specials).collect();
        entries.join(",")
    }
}

impl Fields {
    /// Whether it means a pace: see [`crate::cron`].
    pub(super) fn is_pace(&self) -> bool {
        [&self.second, &self.minute, &self.hour].iter().any(|field| field.has_star || field.has_step)
    }

    /// Whether both day fields are restricted, so that either is enough.
    pub(super) fn either_day(&self) -> bool {
        !self.day.has_star && !self.weekday.has_star
    }

    /// What matches clock readings.
    pub(super) fn matcher(&self) -> Result<Cron, CronError> {
        let all = [&self.second, &self.minute, &self.hour, &self.day, &self.month, &self.weekday];
        let text = all.map(Field::plain).join(" ");
        // croner takes a field for unrestricted only if it is exactly `*`; what `*/2` means beside another is said here.
        let parser = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed)
            .dom_and_dow(!self.either_day())
            .build();
        parser.parse(&text).map_err(|error| CronError::new(None, error.to_string(), "write it in another way"))
    }
}
