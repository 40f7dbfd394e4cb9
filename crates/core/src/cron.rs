//! Cron text: when a policy is due.
//!
//! A [`Schedule`] is read from cron text and a time zone, and then answers one question: what is the first tick after
//! an instant. The text has five fields (minute, hour, day of month, month, weekday), or six with the seconds first, as
//! in the original; or it is one of `@hourly`, `@daily` (`@midnight`), `@weekly`, `@monthly`, `@yearly` (`@annually`) and
//! `@every 90s`. It may begin with `TZ=` or `CRON_TZ=` and a zone, which then overrules the zone given beside it.
//!
//! **Days.** If both day of month and weekday are restricted, a day that fits either of them fits (the rule of cron and
//! of the original). A field is restricted unless it has a `*` or `?`, so `*/2` is not: then both must fit.
//!
//! **Clock changes.** Whether a schedule means times of the day or a pace is told by its text: with a `*`, a `?` or a
//! step among seconds, minutes and hours it is a pace.
//! * Times of the day (`30 2 * * *`) happen once each day: a time that is skipped when the clock goes forward comes at the
//!   first instant after the gap (several skipped times: once), one that is repeated when it goes back comes the first
//!   time only.
//! * A pace (`*/5 * * * *`, `0 */2 * * *`) goes on in real time: it comes at each instant at which the clock shows a time
//!   that fits, in the gap never, in the repeated hour both times.
//!
//! What fits is matched by `croner` on clock readings without a zone. What it makes of a zone itself is not used: it
//! takes lists and ranges of hours (`0 1,2,3 * * *`) for a pace, so that such a job would miss one of its times in
//! spring and have one twice in autumn; `cron/zone.rs` does it instead.
//!
//! Who fires: [`plan_tick`] works out from a policy that is due what its misfire rule asks for.

mod describe;
mod parse;
mod plan;
#[cfg(test)]
mod tests;
mod zone;

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::{Time, limits};

pub use plan::{plan_tick, ticks_of};

/// When a policy is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
    /// The name of the zone as it was given.
    zone_name: Box<str>,
}

#[derive(Clone, Debug)]
enum Rule {
    /// Again and again after the same pause, of whole seconds.
    Every(Duration),
    /// When the clock shows a time that fits.
    Calendar(Box<Calendar>),
}

#[derive(Clone, Debug)]
struct Calendar {
    /// What matches clock readings.
    cron: croner::Cron,
    /// What was written.
    fields: parse::Fields,
}

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}; {remedy}", field.map(|field| format!("{field}: ")).unwrap_or_default())]
pub struct CronError {
    /// Which part of it, if it is one: "minute", "time zone", ...
    pub field: Option<&'static str>,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl Schedule {
    /// Reads cron text. `timezone` is an IANA name such as `Europe/Berlin`, empty for UTC; a `TZ=` in the text overrules
    /// it.
    ///
    /// # Errors
    /// What is wrong and what to write instead. A text that would never come due, such as one for 30 February, is wrong.
    ///
    /// # Examples
    /// ```
    /// use jobservice_core::{Time, cron::Schedule};
    ///
    /// let schedule = Schedule::parse("30 2 * * MON-FRI", "Europe/Berlin")?;
    /// assert_eq!(schedule.describe(), "At 02:30 on Monday to Friday, in Europe/Berlin.");
    ///
    /// let friday_noon = Time::from_seconds(1_767_960_000);
    /// let monday_night = Time::from_seconds(1_768_181_400);
    /// assert_eq!(schedule.next_after(friday_noon), Some(monday_night));
    /// # Ok::<(), jobservice_core::cron::CronError>(())
    /// ```
    pub fn parse(text: &str, timezone: &str) -> Result<Schedule, CronError> {
        if text.len() > limits::CRON_BYTES_MAX {
            let problem = format!("{} bytes are too many", text.len());
            return Err(CronError::new(None, problem, format!("at most {} can be", limits::CRON_BYTES_MAX)));
        }
        let (in_text, spec) = parse::split_zone(text.trim());
        let zone_name = match in_text.unwrap_or(timezone).trim() {
            "" => "UTC",
            name => name,
        };
        let zone = TimeZone::get(zone_name).map_err(|_| {
            let problem = format!("there is no time zone {:?}", limits::cut(zone_name, 80));
            CronError::new(Some("time zone"), problem, "use an IANA name such as Europe/Berlin, or UTC")
        })?;
        let rule = match parse::rule(spec)? {
            parse::Parsed::Every(pause) => Rule::Every(pause),
            parse::Parsed::Fields(fields) => {
                let cron = fields.matcher()?;
                if !zone::has_days(&cron) {
                    let remedy = "check the day against the month: there is no 30 February";
                    return Err(CronError::new(None, "it would never come due", remedy));
                }
                Rule::Calendar(Box::new(Calendar { cron, fields: *fields }))
            }
        };
        Ok(Schedule { rule, zone, zone_name: zone_name.into() })
    }

    /// The first tick after `after`, of a policy that was submitted, or fired last, at `after`. None if there is none in
    /// the years up to 9999.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        self.first_after(after, after)
    }

    /// The first tick after `after` of a policy that was submitted, or had any other tick, at `anchor`.
    ///
    /// The anchor only matters to `@every`, whose ticks lie whole pauses after it, on the second.
    pub fn first_after(&self, anchor: Time, after: Time) -> Option<Time> {
        let calendar = match &self.rule {
            Rule::Every(pause) => return every(*pause, anchor, after),
            Rule::Calendar(calendar) => calendar,
        };
        let after = jiff::Timestamp::from_second(after.as_seconds()).ok()?;
        let next = if calendar.fields.is_pace() {
            zone::next_of_pace(&calendar.cron, &self.zone, after)
        } else {
            zone::next_of_day(&calendar.cron, &self.zone, after)
        };
        Some(Time::from_seconds(next?.as_second()))
    }

    /// The ticks after `after`, one by one.
    pub fn upcoming(&self, after: Time) -> impl Iterator<Item = Time> + '_ {
        std::iter::successors(self.next_after(after), |tick| self.next_after(*tick))
    }

    /// The time zone, as it was given.
    pub fn timezone(&self) -> &str {
        &self.zone_name
    }

    /// An instant as the clocks of its time zone show it: `2026-03-29T03:00:00+02:00`.
    pub fn local(&self, at: Time) -> String {
        match jiff::Timestamp::from_second(at.as_seconds()) {
            Ok(at) => at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            Err(_) => at.to_string(),
        }
    }

    /// What it means, as a sentence.
    pub fn describe(&self) -> String {
        match &self.rule {
            Rule::Every(pause) => format!("Every {}, counted from the submission.", describe::pause(*pause)),
            Rule::Calendar(calendar) => describe::sentence(&calendar.fields, &self.zone_name),
        }
    }

    /// What may not be meant as it is written, each as a sentence; empty if nothing.
    pub fn warnings(&self) -> Vec<String> {
        match &self.rule {
            Rule::Every(_) => Vec::new(),
            Rule::Calendar(calendar) => {
                let mut warnings = describe::warnings(&calendar.fields);
                if !calendar.fields.is_pace()
                    && let Some(skipped) = zone::skipped_reading(&calendar.cron, &self.zone)
                {
                    warnings.push(format!(
                        "when clocks go forward in {} there is no {}: it runs at the first instant after the gap",
                        self.zone_name,
                        skipped.strftime("%H:%M")
                    ));
                }
                warnings
            }
        }
    }
}

impl CronError {
    fn new(field: Option<&'static str>, problem: impl Into<String>, remedy: impl Into<String>) -> CronError {
        CronError { field, problem: problem.into(), remedy: remedy.into() }
    }
}

/// The first of the instants a whole number of pauses after `anchor` that comes after `after`.
fn every(pause: Duration, anchor: Time, after: Time) -> Option<Time> {
    let anchor = Time::from_seconds(anchor.as_seconds());
    let pause_millis = i64::try_from(pause.as_millis()).ok().filter(|millis| *millis > 0)?;
    let passed = after.as_millis().checked_sub(anchor.as_millis())?;
    let pauses = passed.div_euclid(pause_millis).checked_add(1)?.max(1);
    let millis = pauses.checked_mul(pause_millis)?.checked_add(anchor.as_millis())?;
    Some(Time::from_millis(millis))
}
