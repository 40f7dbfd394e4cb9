//! The configuration: defaults, then the YAML file, then the environment, then flags; the last one that speaks wins.
//!
//! Reading it touches nothing: text in, a [`Config`] or a list of all that is wrong with it out, each complaint with its
//! place (file and line, variable, or flag), its field, and what to do.

mod loggers;
mod options;
mod schedules;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use loggers::{Logger, LoggerKind};
pub(crate) use options::did_you_mean;
pub(crate) use schedules::Declared;

use jobservice_core::limits;
use options::{OPTIONS, SECRET_ENV, Use};
use yaml::{Node, Value};

/// Where the service keeps its data unless told otherwise.
pub(crate) const DATA_DIR: &str = "jobservice-data";

/// The variable that names the data directory, for the service and for the command line beside it.
pub(crate) const DATA_DIR_ENV: &str = "JOB_SERVICE_DATA_DIR";

const PORT: u16 = 9443;
const WORKERS: u32 = 10;

/// Jobs at once, at most: each may be a thread.
const WORKERS_MAX: u32 = 10_000;

/// Secrets shorter than this can be guessed.
const SECRET_CHARS_MIN: usize = 16;

/// How the service is to run.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The address to listen on.
    pub(crate) bind: IpAddr,
    /// The port; 0 lets the system choose one.
    pub(crate) port: u16,
    /// How many jobs run at once.
    pub(crate) workers: u32,
    /// Where secret, endpoint and, by default, the store are.
    pub(crate) data_dir: PathBuf,
    /// The store's file.
    pub(crate) store_path: PathBuf,
    /// The secrets of `CORE_SECRET`; none if one is to be made.
    pub(crate) secrets: Option<Vec<String>>,
    /// Where the service's own log goes.
    pub(crate) loggers: Vec<Logger>,
    /// Where the logs of jobs go.
    pub(crate) job_loggers: Vec<Logger>,
    /// How long a running job may take to obey a stop, a cancel or its timeout.
    pub(crate) grace: Duration,
    /// How long running jobs may take to end at shutdown.
    pub(crate) shutdown_grace: Duration,
    /// Whether `demo` can be submitted.
    pub(crate) has_demo: bool,
    /// Whether `noop` can be submitted.
    pub(crate) has_noop: bool,
    /// The periodic jobs that are declared.
    pub(crate) schedules: Vec<Declared>,
    /// What was given and has no effect.
    pub(crate) warnings: Vec<String>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The file's name and text.
    pub(crate) file: Option<(PathBuf, String)>,
    /// The environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Flags, by name (`--port`).
    pub(crate) flags: Vec<(&'static str, String)>,
}

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    place: String,
    field: String,
    what: String,
    remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// All that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not valid:{}", lines(.0))]
pub(crate) struct ConfigError(pub(crate) Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  " + &problem.to_string())
}

/// A value and where it was given.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    place: String,
}

/// The options given so far, and what is wrong with them.
#[derive(Debug, Default)]
struct Reading {
    given: BTreeMap<&'static str, Given>,
    loggers: Option<Vec<Logger>>,
    job_loggers: Option<Vec<Logger>>,
    schedules: Vec<Declared>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads the configuration.
    pub(crate) fn read(sources: &Sources) -> Result<Config, ConfigError> {
        let mut reading = Reading::default();
        if let Some((path, text)) = &sources.file {
            reading.file(path, text);
        }
        reading.env(&sources.env);
        for (flag, text) in &sources.flags {
            if let Some(option) = OPTIONS.iter().find(|option| option.flag == *flag) {
                reading.given.insert(option.path, Given { text: text.clone(), place: format!("flag {flag}") });
            }
        }
        let secrets = reading.secrets(&sources.env);
        reading.finish(secrets, sources.file.is_some())
    }
}

impl Reading {
    fn problem(&mut self, place: impl Into<String>, field: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem {
            place: place.into(),
            field: field.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    fn file(&mut self, path: &Path, text: &str) {
        let file = path.display().to_string();
        match yaml::parse(text) {
            Ok(node) => {
                self.node(&file, "", &node);
                if !self.schedules.is_empty()
                    && let Err(error) = schedules::add_parameters(&mut self.schedules, text)
                {
                    self.problem(file, "schedules", error, "correct it at that place");
                }
            }
            Err(error) => self.problem(file, "", format!("it is not valid YAML: {error}"), "correct it at that place"),
        }
    }

    /// Takes a part of the file whose keys stand under `path`.
    fn node(&mut self, file: &str, path: &str, node: &Node) {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => return,
            Value::Scalar(_) | Value::List(_) => {
                let keys = options::keys_under(path).join(", ");
                let field = if path.is_empty() { "the file" } else { path };
                self.problem(format!("{file}:{}", node.line), field, "it is no mapping", format!("give keys: {keys}"));
                return;
            }
        };
        for entry in entries {
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            let place = format!("{file}:{}", entry.key_line);
            match options::of_path(&path) {
                Some(option) => self.option(option, &path, place, &entry.node, file),
                None if options::keys_under(&path).is_empty() => self.unknown(&path, place),
                None => self.node(file, &path, &entry.node),
            }
        }
    }

    fn option(&mut self, option: &'static options::Opt, path: &str, place: String, node: &Node, file: &str) {
        match option.used {
            Use::Refused => {
                self.problem(place, path, "it is not served yet by this version", "remove it, or use a newer version");
            }
            Use::Ignored => self.warnings.push(format!("{place}: {path} has no effect in this version")),
            Use::Served if path == "loggers" => self.loggers = Some(self.read_loggers(file, path, node)),
            Use::Served if path == "job_loggers" => self.job_loggers = Some(self.read_loggers(file, path, node)),
            Use::Served if path == "schedules" => self.schedules = self.read_schedules(file, node),
            Use::Served => match &node.value {
                Value::Scalar(text) => {
                    self.given.insert(option.path, Given { text: text.clone(), place });
                }
                Value::Nothing => {}
                Value::List(_) | Value::Map(_) => self.problem(place, path, "it is not a single value", "give one"),
            },
        }
    }

    fn unknown(&mut self, path: &str, place: String) {
        let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
        let known = options::keys_under(above);
        let remedy = match did_you_mean(key, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("known here are {}", known.join(", ")),
        };
        self.problem(place, path, "it is not known", remedy);
    }

    fn env(&mut self, env: &BTreeMap<String, String>) {
        let known: Vec<&str> = OPTIONS.iter().map(|option| option.env).filter(|env| !env.is_empty()).collect();
        for (name, text) in env.iter().filter(|(_, text)| !text.is_empty()) {
            match OPTIONS.iter().find(|option| option.env == name) {
                Some(option) if option.used == Use::Served => {
                    self.given.insert(option.path, Given { text: text.clone(), place: format!("variable {name}") });
                }
                Some(_) => self.warnings.push(format!("variable {name} has no effect in this version")),
                None if name.starts_with(options::ENV_PREFIX) => {
                    let meant = did_you_mean(name, known.iter().copied());
                    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                    self.warnings.push(format!("variable {name} is not known and has no effect{meant}"));
                }
                None => {}
            }
        }
    }

    fn secrets(&mut self, env: &BTreeMap<String, String>) -> Option<Vec<String>> {
        let text = env.get(SECRET_ENV)?;
        let secrets: Vec<String> =
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
        if secrets.is_empty() {
            self.warnings.push(format!("variable {SECRET_ENV} is empty: a secret is generated instead"));
            return None;
        }
        if secrets.iter().any(|secret| secret.bytes().any(|byte| !(b'!'..=b'~').contains(&byte))) {
            self.problem(
                format!("variable {SECRET_ENV}"),
                "",
                "a secret holds characters that no header can carry",
                "use printable ASCII without spaces",
            );
        }
        if secrets.iter().any(|secret| secret.len() < SECRET_CHARS_MIN) {
            self.warnings.push(format!(
                "variable {SECRET_ENV}: a secret of less than {SECRET_CHARS_MIN} characters can be guessed"
            ));
        }
        Some(secrets)
    }

    /// Takes an option that was given and reads it.
    fn take<T>(&mut self, path: &'static str, remedy: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let Given { text, place } = self.given.remove(path)?;
        let read = read(text.trim());
        if read.is_none() {
            let found: String = text.chars().take(80).collect();
            self.problem(place, path, format!("it is {found:?}"), remedy);
        }
        read
    }

    fn finish(mut self, secrets: Option<Vec<String>>, has_file: bool) -> Result<Config, ConfigError> {
        let place_of = |reading: &Reading, path| reading.given.get(path).map(|given| given.place.clone());
        let bind_place = place_of(&self, "bind");
        self.take("protocol", "this version serves http only; put a proxy before it for https", |text| {
            text.eq_ignore_ascii_case("http").then_some(())
        });
        self.take("worker_pool.backend", "this version serves sqlite only", |text| {
            text.eq_ignore_ascii_case("sqlite").then_some(())
        });
        let port = self.take("port", "give 0 to 65535; 0 lets the system choose", |text| text.parse().ok());
        let workers = self.take("worker_pool.workers", &format!("give 1 to {WORKERS_MAX}"), |text| {
            text.parse().ok().filter(|workers| (1..=WORKERS_MAX).contains(workers))
        });
        let grace = self.take("worker_pool.grace_seconds", "give 1 to 3600", seconds);
        let shutdown_grace = self.take("worker_pool.shutdown_grace_seconds", "give 1 to 3600", seconds);
        let bind = self.take("bind", "give an IP address like 127.0.0.1, 0.0.0.0 or ::", |text| match text {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            text => text.trim_matches(['[', ']']).parse().ok(),
        });
        let not_empty = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let data_dir = self.take("data_dir", "give a directory", not_empty);
        let store_path = self.take("worker_pool.sqlite.path", "give a file", not_empty);
        let has_demo = self.take("built_in_jobs.demo", "give true or false", boolean);
        let has_noop = self.take("built_in_jobs.noop", "give true or false", boolean);

        let default_bind = if has_file && secrets.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let bind = bind.unwrap_or(IpAddr::V4(default_bind));
        if !bind.is_loopback() && secrets.is_none() {
            self.problem(
                bind_place.unwrap_or_else(|| "default".to_owned()),
                "bind",
                format!("a public address needs a secret, and {bind} is one"),
                format!("set {SECRET_ENV}, or bind to loopback"),
            );
        }
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        let data_dir = data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR));
        Ok(Config {
            bind,
            port: port.unwrap_or(PORT),
            workers: workers.unwrap_or(WORKERS),
            store_path: store_path.unwrap_or_else(|| data_dir.join("jobs.db")),
            data_dir,
            secrets,
            loggers: self.loggers.unwrap_or_else(Logger::default_of_service),
            job_loggers: self.job_loggers.unwrap_or_else(Logger::default_of_jobs),
            grace: grace.unwrap_or(limits::GRACE),
            shutdown_grace: shutdown_grace.unwrap_or(limits::SHUTDOWN_GRACE),
            has_demo: has_demo.unwrap_or(true),
            has_noop: has_noop.unwrap_or(true),
            schedules: self.schedules,
            warnings: self.warnings,
        })
    }
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|seconds| (1..=3600).contains(seconds)).map(Duration::from_secs)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod config_test;
