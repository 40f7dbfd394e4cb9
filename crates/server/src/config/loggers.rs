//! The lists of log backends: of the service itself, and of jobs.

use std::path::PathBuf;
use std::time::Duration;

use jobservice::logger::Level;

use super::yaml::{Node, Value};
use super::{Reading, did_you_mean};

/// One log backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logger {
    /// Which one.
    pub(crate) kind: LoggerKind,
    /// The least grave level that it gets.
    pub(crate) level: Level,
    /// How long its logs stay; none: as long as their jobs.
    pub(crate) kept: Option<Duration>,
}

/// The backends there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoggerKind {
    /// A standard stream.
    StdOutput {
        /// Standard error instead of standard output.
        to_stderr: bool,
    },
    /// Files in a directory.
    File {
        /// The directory.
        base_dir: PathBuf,
    },
    /// In the store, with the jobs.
    Store,
}

impl Logger {
    /// The service logs to standard error: standard output is for what a command answers.
    pub(super) fn default_of_service() -> Vec<Logger> {
        vec![Logger { kind: LoggerKind::StdOutput { to_stderr: true }, level: Level::Info, kept: None }]
    }

    /// Jobs log into the store, so that their logs can be read back without anything being set up.
    pub(super) fn default_of_jobs() -> Vec<Logger> {
        vec![Logger { kind: LoggerKind::Store, level: Level::Debug, kept: None }]
    }
}

/// The fields of one logger in the file.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    level: Option<Level>,
    base_dir: Option<PathBuf>,
    to_stderr: Option<bool>,
    kept: Option<Duration>,
}

const KEYS: [&str; 4] = ["name", "level", "settings", "sweeper"];
const SETTINGS: [&str; 2] = ["base_dir", "output"];
const SWEEPER: [&str; 2] = ["duration", "settings"];

impl Reading {
    pub(super) fn read_loggers(&mut self, file: &str, path: &str, node: &Node) -> Vec<Logger> {
        let Value::List(items) = &node.value else {
            if node.value != Value::Nothing {
                let remedy = "give a list of loggers, each with a name";
                self.problem(format!("{file}:{}", node.line), path, "it is no list", remedy);
            }
            return Vec::new();
        };
        let mut loggers = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let place = format!("{file}:{}", item.line);
            let fields = self.fields(file, &path, item);
            loggers.extend(self.logger(place, &path, fields));
        }
        loggers
    }

    fn logger(&mut self, place: String, path: &str, fields: Fields) -> Option<Logger> {
        let of_service = path.starts_with("loggers");
        let name_path = format!("{path}.name");
        let Some(name) = fields.name else {
            self.problem(place, &name_path, "it is missing", "give STD_OUTPUT, FILE or STORE");
            return None;
        };
        let kind = match name.to_ascii_uppercase().as_str() {
            "STD_OUTPUT" => LoggerKind::StdOutput { to_stderr: fields.to_stderr.unwrap_or(of_service) },
            "FILE" => {
                let Some(base_dir) = fields.base_dir else {
                    self.problem(place, &format!("{path}.settings.base_dir"), "it is missing", "give a directory");
                    return None;
                };
                LoggerKind::File { base_dir }
            }
            "STORE" | "DB" if of_service => {
                self.problem(
                    place,
                    &name_path,
                    "the service's own log cannot go to the store",
                    "give STD_OUTPUT or FILE",
                );
                return None;
            }
            "STORE" | "DB" => LoggerKind::Store,
            _ => {
                self.problem(place, &name_path, format!("{name:?} is not known"), "give STD_OUTPUT, FILE or STORE");
                return None;
            }
        };
        Some(Logger { kind, level: fields.level.unwrap_or(Level::Info), kept: fields.kept })
    }

    fn fields(&mut self, file: &str, path: &str, item: &Node) -> Fields {
        let mut fields = Fields::default();
        self.each(file, path, item, &KEYS, &mut |reading, key, path, place, node| match key {
            "name" => fields.name = reading.scalar(place, path, node),
            "level" => {
                fields.level = reading.scalar(place, path, node).and_then(|text| {
                    let level = Level::parse(&text);
                    if level.is_none() {
                        let remedy = "give DEBUG, INFO, WARNING, ERROR or FATAL";
                        reading.problem(place, path, format!("it is {text:?}"), remedy);
                    }
                    level
                });
            }
            "settings" => reading.each(file, path, node, &SETTINGS, &mut |reading, key, path, place, node| {
                let Some(text) = reading.scalar(place, path, node) else { return };
                match (key, text.to_ascii_lowercase().as_str()) {
                    ("base_dir", _) => fields.base_dir = Some(PathBuf::from(text)),
                    (_, "stdout" | "std_out") => fields.to_stderr = Some(false),
                    (_, "stderr" | "std_err") => fields.to_stderr = Some(true),
                    _ => reading.problem(place, path, format!("it is {text:?}"), "give stdout or stderr"),
                }
            }),
            _ => reading.each(file, path, node, &SWEEPER, &mut |reading, key, path, place, node| {
                // The original repeats the directory here; there is no other that could be swept.
                if key == "settings" {
                    return;
                }
                let Some(text) = reading.scalar(place, path, node) else { return };
                match text.parse::<u32>() {
                    Ok(days) if days > 0 => fields.kept = Some(Duration::from_secs(u64::from(days) * 86_400)),
                    _ => reading.problem(place, path, format!("it is {text:?}"), "give days, at least 1"),
                }
            }),
        });
        fields
    }

    /// Goes over the keys of a mapping, complaining of those that are not known.
    pub(super) fn each(
        &mut self,
        file: &str,
        path: &str,
        node: &Node,
        known: &[&'static str],
        take: &mut dyn FnMut(&mut Reading, &'static str, &str, &str, &Node),
    ) {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => return,
            Value::Scalar(_) | Value::List(_) => {
                let remedy = format!("give keys: {}", known.join(", "));
                self.problem(format!("{file}:{}", node.line), path, "it is no mapping", remedy);
                return;
            }
        };
        for entry in entries {
            let path = format!("{path}.{}", entry.key);
            let place = format!("{file}:{}", entry.key_line);
            if let Some(key) = known.iter().find(|known| **known == entry.key) {
                take(self, key, &path, &place, &entry.node);
                continue;
            }
            let remedy = match did_you_mean(&entry.key, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known here are {}", known.join(", ")),
            };
            self.problem(place, &path, "it is not known", remedy);
        }
    }

    pub(super) fn scalar(&mut self, place: &str, path: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(text) => Some(text.clone()),
            Value::Nothing => None,
            Value::List(_) | Value::Map(_) => {
                self.problem(place, path, "it is not a single value", "give one");
                None
            }
        }
    }
}
