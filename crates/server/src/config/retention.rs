//! `retention:`: how long final jobs are kept, and how much room all may take.

use std::collections::BTreeMap;

use jobservice::RetentionRules;
use jobservice_core::Name;
use jobservice_core::job::Retention;

use super::Reading;
use super::yaml::{Node, Value};

const KEYS: [&str; 5] = ["success", "stopped", "error", "bytes_max", "names"];
const TIMES: [&str; 3] = ["success", "stopped", "error"];

/// Less would not hold a busy minute, and every sweep would remove jobs that somebody still looks for.
const BYTES_MIN: u64 = 16 * 1024 * 1024;

/// What is said of one end or another; what is not said comes from what holds for all.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    success: Option<u32>,
    stopped: Option<u32>,
    error: Option<u32>,
}

impl Times {
    fn over(self, others: Retention) -> Retention {
        Retention {
            success_seconds: self.success.unwrap_or(others.success_seconds),
            stopped_seconds: self.stopped.unwrap_or(others.stopped_seconds),
            error_seconds: self.error.unwrap_or(others.error_seconds),
        }
    }

    fn set(&mut self, key: &str, seconds: u32) {
        match key {
            "success" => self.success = Some(seconds),
            "stopped" => self.stopped = Some(seconds),
            _ => self.error = Some(seconds),
        }
    }
}

impl Reading {
    /// Reads the section.
    pub(super) fn read_retention(&mut self, file: &str, path: &str, node: &Node) -> RetentionRules {
        let mut rules = RetentionRules::default();
        let mut all = Times::default();
        let mut of_names: BTreeMap<Name, Times> = BTreeMap::new();
        self.each(file, path, node, &KEYS, &mut |reading, key, path, place, node| match key {
            "bytes_max" => {
                if let Some(bytes_max) = reading.bytes_max(place, path, node) {
                    rules.bytes_max = bytes_max;
                }
            }
            "names" => reading.names(file, path, node, &mut of_names),
            key => {
                if let Some(seconds) = reading.kept(place, path, node) {
                    all.set(key, seconds);
                }
            }
        });
        rules.default = all.over(rules.default);
        rules.names = of_names.into_iter().map(|(name, times)| (name, times.over(rules.default))).collect();
        rules
    }

    fn names(&mut self, file: &str, path: &str, node: &Node, of_names: &mut BTreeMap<Name, Times>) {
        let Value::Map(entries) = &node.value else {
            if node.value != Value::Nothing {
                self.problem(format!("{file}:{}", node.line), path, "it is no mapping", "give names of jobs");
            }
            return;
        };
        for entry in entries {
            let path = format!("{path}.{}", entry.key);
            let name = match Name::new(&entry.key) {
                Ok(name) => name,
                Err(error) => {
                    let place = format!("{file}:{}", entry.key_line);
                    self.problem(place, &path, error.to_string(), "give the name of a job");
                    continue;
                }
            };
            let times = of_names.entry(name).or_default();
            self.each(file, &path, &entry.node, &TIMES, &mut |reading, key, path, place, node| {
                if let Some(seconds) = reading.kept(place, path, node) {
                    times.set(key, seconds);
                }
            });
        }
    }

    fn kept(&mut self, place: &str, path: &str, node: &Node) -> Option<u32> {
        let text = self.scalar(place, path, node)?;
        let seconds = crate::duration::parse(&text).ok().and_then(|kept| u32::try_from(kept.as_secs()).ok());
        if seconds.is_none() {
            let remedy = "give a length of time like 90s, 12h or 3d, at most a hundred years";
            self.problem(place, path, format!("it is {text:?}"), remedy);
        }
        seconds
    }

    /// Outer none if nothing valid was given, inner none for no bound.
    #[expect(clippy::option_option, reason = "no bound is something that can be given")]
    fn bytes_max(&mut self, place: &str, path: &str, node: &Node) -> Option<Option<u64>> {
        let text = self.scalar(place, path, node)?;
        if text.eq_ignore_ascii_case("none") {
            return Some(None);
        }
        let bytes = size(&text).filter(|bytes| *bytes >= BYTES_MIN);
        if bytes.is_none() {
            self.problem(place, path, format!("it is {text:?}"), "give a size like 1 GiB, at least 16 MiB, or none");
        }
        bytes.map(Some)
    }
}

/// Reads a size: bytes, or with KiB, MiB, GiB, TiB; K, M, G, T and kB, MB, GB, TB mean the same.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Config, Sources};
    use super::*;

    fn read(text: &str) -> Result<RetentionRules, String> {
        let file = Some((PathBuf::from("f.yml"), text.to_owned()));
        let config = Config::read(&Sources { file, ..Sources::default() });
        config.map(|config| config.retention).map_err(|error| error.to_string())
    }

    #[test]
    fn times_and_sizes_are_read_and_names_take_what_they_do_not_say_from_all() {
        let rules = read(
            "retention:\n  success: 1h\n  error: 60d\n  bytes_max: 2 GiB\n  names:\n    report: {success: 7d}\n    scan: {}\n",
        )
        .unwrap();

        let hours = |hours: u32| hours * 3600;
        let all = Retention { success_seconds: 3600, stopped_seconds: hours(168), error_seconds: hours(1440) };
        assert_eq!((rules.default, rules.bytes_max), (all, Some(2 << 30)));
        assert_eq!(rules.of(&Name::new("report").unwrap()), Retention { success_seconds: hours(168), ..all });
        assert_eq!(rules.of(&Name::new("scan").unwrap()), all);
        assert_eq!(read("port: 1\n").unwrap(), RetentionRules::default());
        assert_eq!(read("retention: {bytes_max: none}\n").unwrap().bytes_max, None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let error =
            read("retention:\n  name: 1h\n  error: soon\n  bytes_max: 1k\n  names:\n    a b: {}\n    c: {x: 1}\n")
                .unwrap_err();
        for part in [
            "f.yml:2: retention.name: it is not known; did you mean names?",
            "f.yml:3: retention.error: it is \"soon\"",
            "f.yml:4: retention.bytes_max",
            "f.yml:6: retention.names.a b",
            "f.yml:7: retention.names.c.x",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("17", 17), ("1k", 1024), ("3 MiB", 3 << 20), ("1GB", 1 << 30), ("2tib", 2 << 40)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "1 x", "-1", "99999999999999999999", "18446744073709551615 k"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
