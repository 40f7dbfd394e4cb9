//! The lists of log backends: of the service itself, and of jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jobservice::logger::Level;
use jobservice_core::limits;

use super::logger_settings::SETTINGS;
use super::yaml::{Node, Value};
use super::{Reading, did_you_mean};

/// One log backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logger {
    /// Which one.
    pub(crate) kind: LoggerKind,
    /// The least grave level that it gets.
    pub(crate) level: Level,
    /// Whether a line is a JSON object. Of the service's own log only.
    pub(crate) as_json: bool,
    /// How long its logs stay; none: as long as their jobs.
    pub(crate) kept: Option<Duration>,
    /// How many bytes all its logs may take before the oldest go; none: as many as there are.
    pub(crate) kept_bytes_max: Option<u64>,
}

/// The backends there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoggerKind {
    /// A standard stream.
    StdOutput {
        /// Standard error instead of standard output.
        to_stderr: bool,
    },
    /// Files in a directory: one for each job, or those of the service.
    File(FileLog),
    /// In the store, with the jobs.
    Store,
    /// One of the user's own.
    Own {
        /// The name it is registered under.
        name: String,
        /// What the configuration says to it.
        settings: BTreeMap<String, String>,
    },
}

impl LoggerKind {
    /// Whether both write to the same stream, file or directory. What backends of the user's own do is theirs.
    fn is_same_place(&self, other: &LoggerKind) -> bool {
        match (self, other) {
            (LoggerKind::File(one), LoggerKind::File(other)) => {
                (&one.base_dir, &one.file_name) == (&other.base_dir, &other.file_name)
            }
            (LoggerKind::Own { .. }, _) => false,
            (one, other) => one == other,
        }
    }
}

/// Where a FILE logger writes. Name and rotation are those of the service's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileLog {
    /// The directory.
    pub(crate) base_dir: PathBuf,
    /// The file in it.
    pub(crate) file_name: String,
    /// When a new file is begun.
    pub(crate) rotation: Rotation,
}

/// When the service's log begins a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// A file holds at most so many bytes.
    pub(crate) file_bytes_max: u64,
    /// Each day (UTC) begins one, too.
    pub(crate) daily: bool,
    /// So many old ones are kept.
    pub(crate) files_max: u32,
}

/// The service's log, unless its settings say otherwise.
const FILE_NAME: &str = "jobservice.log";

impl Logger {
    fn of(kind: LoggerKind, level: Level) -> Logger {
        Logger { kind, level, as_json: false, kept: None, kept_bytes_max: None }
    }

    /// The service logs to standard error: standard output is for what a command answers.
    pub(super) fn default_of_service() -> Vec<Logger> {
        vec![Logger::of(LoggerKind::StdOutput { to_stderr: true }, Level::Info)]
    }

    /// Jobs log into the store, so that their logs can be read back without anything being set up.
    pub(super) fn default_of_jobs() -> Vec<Logger> {
        vec![Logger::of(LoggerKind::Store, Level::Debug)]
    }
}

/// The fields of one logger in the file.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    level: Option<Level>,
    /// Settings, each with the place where it stands.
    settings: BTreeMap<String, (String, String)>,
    kept: Option<Duration>,
    kept_bytes_max: Option<u64>,
    /// The directory that the original's sweeper is told once more.
    work_dir: Option<(String, PathBuf)>,
}

const KEYS: [&str; 4] = ["name", "level", "settings", "sweeper"];
const SWEEPER: [&str; 3] = ["duration", "bytes_max", "settings"];
const SWEEPER_SETTINGS: [&str; 1] = ["work_dir"];

impl Reading {
    pub(super) fn read_loggers(&mut self, file: &str, path: &str, node: &Node) -> Vec<Logger> {
        let Value::List(items) = &node.value else {
            if node.value != Value::Nothing {
                let remedy = "give a list of loggers, each with a name";
                self.problem(format!("{file}:{}", node.line), path, "it is no list", remedy);
            }
            return Vec::new();
        };
        if items.len() > limits::LOG_BACKENDS_MAX {
            let what = format!("it has {} loggers", items.len());
            let remedy = format!("give at most {}", limits::LOG_BACKENDS_MAX);
            self.problem(format!("{file}:{}", node.line), path, what, remedy);
        }
        let mut loggers = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let place = format!("{file}:{}", item.line);
            let fields = self.fields(file, &path, item);
            let Some(logger) = self.logger(&place, &path, fields) else { continue };
            // Two writers of one file, or of one stream, would write into each other's lines.
            if loggers.iter().any(|other: &Logger| other.kind.is_same_place(&logger.kind)) {
                self.problem(place, &path, "it writes to the same place as one before it", "remove one of them");
            }
            loggers.push(logger);
        }
        loggers
    }

    fn logger(&mut self, place: &str, path: &str, mut fields: Fields) -> Option<Logger> {
        let of_service = path.starts_with("loggers");
        let name_path = format!("{path}.name");
        let own = if of_service { self.service_backends.clone() } else { self.job_backends.clone() };
        let known: Vec<&str> = ["STD_OUTPUT", "FILE"]
            .into_iter()
            .chain((!of_service).then_some("STORE"))
            .chain(own.iter().map(String::as_str))
            .collect();
        let remedy = format!("give {}", known.join(" or "));
        let Some(name) = fields.name.take() else {
            self.problem(place, &name_path, "it is missing", remedy);
            return None;
        };
        let kept = (fields.kept, fields.kept_bytes_max);
        let level = fields.level.unwrap_or(Level::Info);
        let (kind, as_json) = if let Some(name) = own.iter().find(|own| own.eq_ignore_ascii_case(&name)) {
            let settings = fields.settings.into_iter().map(|(key, (text, _))| (key, text)).collect();
            (LoggerKind::Own { name: name.clone(), settings }, false)
        } else {
            match name.to_ascii_uppercase().as_str() {
                "STD_OUTPUT" => {
                    let as_json = self.as_json(path, &mut fields, of_service);
                    let output = self.word(path, &mut fields, "output", &["stdout", "stderr", "std_out", "std_err"]);
                    let to_stderr = output.map_or(of_service, |output| output.ends_with("err"));
                    self.others(path, fields, of_service, "STD_OUTPUT");
                    (LoggerKind::StdOutput { to_stderr }, as_json)
                }
                "FILE" => {
                    let as_json = self.as_json(path, &mut fields, of_service);
                    (LoggerKind::File(self.file_log(place, path, fields, of_service)?), as_json)
                }
                "STORE" | "DB" if of_service => {
                    self.problem(place, &name_path, "the service's own log cannot go to the store", remedy);
                    return None;
                }
                "STORE" | "DB" => {
                    self.others(path, fields, of_service, "STORE");
                    (LoggerKind::Store, false)
                }
                _ => {
                    self.problem(place, &name_path, format!("{name:?} is not known"), remedy);
                    return None;
                }
            }
        };
        if matches!(kind, LoggerKind::StdOutput { .. }) && kept != (None, None) {
            self.warnings.push(format!("{place}: {path}.sweeper has no effect: nothing is kept of STD_OUTPUT"));
        }
        Some(Logger { kind, level, as_json, kept: kept.0, kept_bytes_max: kept.1 })
    }

    fn file_log(&mut self, place: &str, path: &str, mut fields: Fields, of_service: bool) -> Option<FileLog> {
        let base_dir = fields.settings.remove("base_dir").map(|(text, _)| PathBuf::from(text));
        let (file_name, rotation) = if of_service {
            let daily = self.word(path, &mut fields, "rotate", &["size", "day"]) == Some("day");
            let file_bytes_max = self.number(path, &mut fields, "file_bytes_max", limits::SERVICE_LOG_BYTES);
            let files_max = self.number(path, &mut fields, "files_max", limits::SERVICE_LOG_FILES);
            let rotation = Rotation {
                file_bytes_max: file_bytes_max.unwrap_or(limits::SERVICE_LOG_BYTES_DEFAULT),
                daily,
                files_max: files_max.map_or(limits::SERVICE_LOG_FILES_DEFAULT, |files| files as u32),
            };
            (self.file_name(path, &mut fields), rotation)
        } else {
            let rotation = Rotation { file_bytes_max: u64::MAX, daily: false, files_max: 0 };
            (String::new(), rotation)
        };
        let Some(base_dir) = base_dir else {
            self.problem(place, &format!("{path}.settings.base_dir"), "it is missing", "give a directory");
            return None;
        };
        if let Some((place, work_dir)) = fields.work_dir.take()
            && work_dir != base_dir
        {
            let path = format!("{path}.sweeper.settings.work_dir");
            let what = format!("it is {}, and the logs are in {}", work_dir.display(), base_dir.display());
            self.problem(place, &path, what, "give the base_dir, or leave it out");
        }
        self.others(path, fields, of_service, "FILE");
        Some(FileLog { base_dir, file_name, rotation })
    }

    fn file_name(&mut self, path: &str, fields: &mut Fields) -> String {
        let Some((text, place)) = fields.settings.remove("file_name") else { return FILE_NAME.to_owned() };
        if text.is_empty() || text.contains('/') || text == "." || text == ".." {
            let what = format!("it is {text:?}");
            self.problem(place, &format!("{path}.settings.file_name"), what, "give the name of a file in base_dir");
        }
        text
    }

    fn as_json(&mut self, path: &str, fields: &mut Fields, of_service: bool) -> bool {
        // Lines of jobs have a form of their own, in which they are read back.
        of_service && self.word(path, fields, "format", &["text", "json"]) == Some("json")
    }

    /// Takes a setting that is one of some words.
    fn word(&mut self, path: &str, fields: &mut Fields, key: &str, words: &[&'static str]) -> Option<&'static str> {
        let (text, place) = fields.settings.remove(key)?;
        let word = words.iter().copied().find(|word| word.eq_ignore_ascii_case(&text));
        if word.is_none() {
            let remedy = format!("give {}", words.get(..2).unwrap_or(words).join(" or "));
            self.problem(place, &format!("{path}.settings.{key}"), format!("it is {text:?}"), remedy);
        }
        word
    }

    /// Takes a setting that is a number within bounds.
    fn number(&mut self, path: &str, fields: &mut Fields, key: &str, bounds: (u64, u64)) -> Option<u64> {
        let (text, place) = fields.settings.remove(key)?;
        let number = text.parse().ok().filter(|number| (bounds.0..=bounds.1).contains(number));
        if number.is_none() {
            let remedy = format!("give {} to {}", bounds.0, bounds.1);
            self.problem(place, &format!("{path}.settings.{key}"), format!("it is {text:?}"), remedy);
        }
        number
    }

    /// Complains of the settings that nobody took.
    fn others(&mut self, path: &str, fields: Fields, of_service: bool, backend: &str) {
        let known: Vec<&str> = SETTINGS
            .iter()
            .filter(|setting| setting.backend.contains(backend) && (of_service || !setting.of_service))
            .map(|setting| setting.key)
            .collect();
        for (key, (_, place)) in fields.settings {
            let remedy = match did_you_mean(&key, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None if known.is_empty() => format!("{backend} has no settings: remove it"),
                None => format!("known for {backend} are {}", known.join(", ")),
            };
            self.problem(place, &format!("{path}.settings.{key}"), "it is not known", remedy);
        }
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
            "settings" => fields.settings = reading.settings(file, path, node),
            _ => reading.each(file, path, node, &SWEEPER, &mut |reading, key, path, place, node| match key {
                "settings" => {
                    reading.each(file, path, node, &SWEEPER_SETTINGS, &mut |reading, _, path, place, node| {
                        let text = reading.scalar(place, path, node);
                        fields.work_dir = text.map(|text| (place.to_owned(), PathBuf::from(text)));
                    });
                }
                "duration" => {
                    let days = reading.positive(place, path, node, "give days, at least 1", limits::LOG_DAYS_MAX);
                    fields.kept = days.map(|days| Duration::from_secs(days * 86_400));
                }
                _ => fields.kept_bytes_max = reading.positive(place, path, node, "give bytes, at least 1", u64::MAX),
            }),
        });
        fields
    }

    fn positive(&mut self, place: &str, path: &str, node: &Node, remedy: &str, most: u64) -> Option<u64> {
        let text = self.scalar(place, path, node)?;
        let number = text.parse::<u64>().ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            self.problem(place, path, format!("it is {text:?}"), remedy);
        }
        number
    }

    /// The settings of a logger; which of them are known depends on its name, which may stand below them.
    fn settings(&mut self, file: &str, path: &str, node: &Node) -> BTreeMap<String, (String, String)> {
        let mut settings = BTreeMap::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let place = format!("{file}:{}", entry.key_line);
                    if let Some(text) = self.scalar(&place, &format!("{path}.{}", entry.key), &entry.node) {
                        settings.insert(entry.key.clone(), (text, place));
                    }
                }
            }
            Value::Nothing => {}
            Value::Scalar(_) | Value::List(_) => {
                self.problem(format!("{file}:{}", node.line), path, "it is no mapping", "give keys and values");
            }
        }
        settings
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
