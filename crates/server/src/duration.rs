//! Lengths of time as people write them: `90s`, `5m`, `2h30m`, `250ms`, `7d`.

use std::time::Duration;

/// The text is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write it like 90s, 5m, 2h30m, 250ms or 7d")]
pub(crate) struct NotADuration(String);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a length of time; a plain number is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, NotADuration> {
    let wrong = || NotADuration(text.chars().take(80).collect());
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        millis = number.checked_mul(unit_ms).and_then(|ms| millis.checked_add(ms)).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

/// Writes a length of time for people, in its two largest units.
pub(crate) fn show(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis < 1000 {
        return format!("{millis}ms");
    }
    if millis < 60_000 {
        return format!("{}.{}s", millis / 1000, millis % 1000 / 100);
    }
    let mut parts = Vec::new();
    let mut rest = millis / 1000 * 1000;
    for (name, unit_ms) in UNITS.into_iter().rev() {
        if rest >= unit_ms && parts.len() < 2 && name != "ms" {
            parts.push(format!("{}{name}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up_and_a_plain_number_is_seconds() {
        for (text, millis) in
            [("90", 90_000), ("90s", 90_000), ("2h30m", 9_000_000), ("250ms", 250), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "5x", "-5s", "1.5h", "5 m", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_in_the_two_largest_units() {
        for (millis, text) in [(7, "7ms"), (1500, "1.5s"), (61_000, "1m1s"), (3_600_000, "1h"), (90_061_000, "1d1h")] {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
    }
}
