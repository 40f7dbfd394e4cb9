//! The configuration: defaults, then the YAML file, then the environment, then flags; the last one that speaks wins.
//!
//! Reading it touches nothing: text in, a [`Config`] or a list of all that is wrong with it out, each complaint with its
//! place (file and line, variable, or flag), its field, and what to do.

mod effective;
mod hooks;
mod logger_settings;
mod loggers;
mod options;
mod reference;
mod retention;
mod schedules;
mod sections;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use effective::Effective;
pub(crate) use loggers::{FileLog, Logger, LoggerKind, Rotation};
pub(crate) use options::did_you_mean;
pub(crate) use reference::{DEFAULT_FILE, default_file, page, schema};
pub(crate) use schedules::Declared;

use effective::Origin;
use jobservice::RetentionRules;
use jobservice::hooks::HookOptions;
use options::{Form, OPTIONS, SECRET_ENV, Use};
use yaml::{Node, Value};

/// Where the service keeps its data unless told otherwise.
pub(crate) const DATA_DIR: &str = "jobservice-data";

/// The variable that names the data directory, for the service and for the command line beside it.
pub(crate) const DATA_DIR_ENV: &str = "JOB_SERVICE_DATA_DIR";

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
    /// The certificate and its key; none if the API is served over plain HTTP.
    pub(crate) https: Option<Https>,
    /// The store's file.
    pub(crate) store_path: PathBuf,
    /// The Redis that jobs are to be kept in; none for the embedded store.
    pub(crate) redis: Option<jobservice_redis::Options>,
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
    /// How long final jobs are kept, and how much room all may take.
    pub(crate) retention: RetentionRules,
    /// Whether `demo` can be submitted.
    pub(crate) has_demo: bool,
    /// Whether `noop` can be submitted.
    pub(crate) has_noop: bool,
    /// The periodic jobs that are declared.
    pub(crate) schedules: Vec<Declared>,
    /// The server that properties are fetched from.
    pub(crate) core_server: Option<String>,
    /// Properties of the file.
    pub(crate) context: BTreeMap<String, String>,
    /// How status hooks are delivered; none if they are off.
    pub(crate) hooks: Option<HookOptions>,
    /// What was given and has no effect.
    pub(crate) warnings: Vec<String>,
    /// All values in effect, secrets masked, and where each came from.
    pub(crate) effective: Effective,
}

/// The files of https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Https {
    /// The certificate chain, PEM.
    pub(crate) cert: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
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
    /// The names of the user's own backends for the service's log.
    pub(crate) service_backends: Vec<String>,
    /// The names of the user's own backends for the logs of jobs.
    pub(crate) job_backends: Vec<String>,
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
    /// What was given for options that are more than one value, as it stands in the file.
    trees: BTreeMap<&'static str, (Value, String)>,
    loggers: Option<Vec<Logger>>,
    job_loggers: Option<Vec<Logger>>,
    schedules: Vec<Declared>,
    context: BTreeMap<String, String>,
    service_backends: Vec<String>,
    job_backends: Vec<String>,
    retention: Option<RetentionRules>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// The options that say where the data is.
const DATA_DIR_OPTION: &str = "data_dir";
const STORE_PATH_OPTION: &str = "worker_pool.sqlite.path";

impl Config {
    /// Reads the configuration.
    pub(crate) fn read(sources: &Sources) -> Result<Config, ConfigError> {
        let mut reading = Reading::of(sources);
        let secrets = reading.secrets(&sources.env);
        reading.finish(secrets, sources.file.is_some())
    }

    /// Whether the jobs are in Redis, whatever is wrong with the rest.
    pub(crate) fn is_on_redis(sources: &Sources) -> bool {
        Reading::of(sources).is_on_redis()
    }

    /// Only where the data is, the data directory and the store's file, whatever is wrong with the rest: who has to look at
    /// a store, or to put one back, need not mend what only the service needs.
    pub(crate) fn places(sources: &Sources) -> Result<(PathBuf, PathBuf), ConfigError> {
        let mut reading = Reading::of(sources);
        let data_dir = reading.path(DATA_DIR_OPTION);
        let store_path = reading.path(STORE_PATH_OPTION);
        let concerns = |problem: &Problem| ["", DATA_DIR_OPTION, STORE_PATH_OPTION].contains(&problem.field.as_str());
        reading.problems.retain(concerns);
        match data_dir {
            Some(data_dir) if reading.problems.is_empty() => {
                let store_path = store_path.unwrap_or_else(|| data_dir.join("jobs.db"));
                Ok((data_dir, store_path))
            }
            _ => Err(ConfigError(reading.problems)),
        }
    }
}

impl Reading {
    /// What was given, before anything of it is read.
    fn of(sources: &Sources) -> Reading {
        let mut reading = Reading {
            service_backends: sources.service_backends.clone(),
            job_backends: sources.job_backends.clone(),
            ..Reading::default()
        };
        if let Some((path, text)) = &sources.file {
            reading.file(path, text);
        }
        reading.env(&sources.env);
        for (flag, text) in &sources.flags {
            if let Some(option) = OPTIONS.iter().find(|option| option.flag == *flag) {
                reading.given.insert(option.path, Given { text: text.clone(), place: format!("flag {flag}") });
            }
        }
        reading
    }

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
                // Where the original has more keys than we list, a slip of the pen would be taken for one of them.
                Some(option) if option.path.ends_with(".*") && options::is_a_slip(&path) => self.unknown(&path, place),
                Some(option) => self.option(option, &path, place, &entry.node, file),
                None if options::keys_under(&path).is_empty() => self.unknown(&path, place),
                None => self.node(file, &path, &entry.node),
            }
        }
    }

    fn option(&mut self, option: &'static options::Opt, path: &str, place: String, node: &Node, file: &str) {
        match option.used {
            Use::Ignored => self.warnings.push(format!("{place}: {path} has no effect in this version")),
            Use::Served if path == hooks::ALLOW => self.hook_targets(place, node, file),
            Use::Served if path == "schedules" => {
                self.trees.insert(option.path, (node.value.clone(), place));
                self.schedules = self.read_schedules(file, node);
            }
            Use::Served if path == "loggers" => {
                self.trees.insert(option.path, (node.value.clone(), place));
                self.loggers = Some(self.read_loggers(file, path, node));
            }
            Use::Served if path == "job_loggers" => {
                self.trees.insert(option.path, (node.value.clone(), place));
                self.job_loggers = Some(self.read_loggers(file, path, node));
            }
            Use::Served if path == "context" => {
                self.trees.insert(option.path, (node.value.clone(), place));
                self.read_context(file, path, node);
            }
            Use::Served if path == "retention" => {
                self.trees.insert(option.path, (node.value.clone(), place));
                self.retention = Some(self.read_retention(file, path, node));
            }
            Use::Served => match &node.value {
                Value::Scalar(text) => {
                    let given = Given { text: text.clone(), place: place.clone() };
                    if let Some(first) = self.given.insert(option.path, given) {
                        let what = format!("it is another name for {}, given at {} already", option.path, first.place);
                        self.problem(place, path, what, "remove one of them");
                    }
                }
                Value::Nothing => {}
                Value::List(_) | Value::Map(_) => self.problem(place, path, "it is not a single value", "give one"),
            },
        }
    }

    fn unknown(&mut self, path: &str, place: String) {
        let remedy = if let Some(meant) = options::meant_by(path) {
            format!("did you mean {meant}?")
        } else {
            let above = path.rsplit_once('.').map_or("", |(above, _)| above);
            format!("known here are {}", options::keys_under(above).join(", "))
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

    /// Reads the value of an option, or its default. None if it has neither, or if what was given is wrong, which is
    /// noted.
    fn take<T>(&mut self, path: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let option = options::of_path(path)?;
        let Some(Given { text, place }) = self.given.get(option.path).cloned() else {
            return if option.default.is_empty() { None } else { read(option.default) };
        };
        let value = read(text.trim());
        if value.is_none() {
            // Not shown: there may be a password in it.
            let found: String = if option.form == Form::RedisUrl {
                "no address of a Redis".to_owned()
            } else if option.form == Form::Url && text.contains('@') {
                "no URL of a server without user and password".to_owned()
            } else {
                format!("{:?}", text.chars().take(80).collect::<String>())
            };
            self.problem(place, path, format!("it is {found}"), option.form.remedy());
        }
        value
    }

    fn integer<T: TryFrom<u64>>(&mut self, path: &str) -> Option<T> {
        let Some(Form::Integer(least, most)) = options::of_path(path).map(|option| option.form) else { return None };
        self.take(path, |text| {
            let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number))?;
            T::try_from(number).ok()
        })
    }

    fn choice(&mut self, path: &str) -> Option<&'static str> {
        let Some(Form::Choice(words)) = options::of_path(path).map(|option| option.form) else { return None };
        self.take(path, |text| words.iter().copied().find(|word| word.eq_ignore_ascii_case(text)))
    }

    fn path(&mut self, path: &str) -> Option<PathBuf> {
        self.take(path, |text| (!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn place(&self, path: &str) -> Option<String> {
        self.given.get(path).map(|given| given.place.clone())
    }

    fn finish(mut self, secrets: Option<Vec<String>>, has_file: bool) -> Result<Config, ConfigError> {
        let https = self.https();
        let redis = self.redis();
        let port = self.integer("port");
        let workers = self.integer("worker_pool.workers");
        let grace = self.integer("worker_pool.grace_seconds").map(Duration::from_secs);
        let shutdown_grace = self.integer("worker_pool.shutdown_grace_seconds").map(Duration::from_secs);
        let bind = self.take("bind", |text| match text {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            text => text.trim_matches(['[', ']']).parse().ok(),
        });
        let data_dir = self.path("data_dir");
        let store_path = self.path("worker_pool.sqlite.path");
        let has_demo = self.take("built_in_jobs.demo", boolean);
        let has_noop = self.take("built_in_jobs.noop", boolean);
        let core_server = self.take("core_server", http_url);
        let hooks = self.hooks(has_file);

        let default_bind = if has_file && secrets.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let bind = bind.unwrap_or(IpAddr::V4(default_bind));
        if !bind.is_loopback() && secrets.is_none() {
            self.problem(
                self.place("bind").unwrap_or_else(|| "default".to_owned()),
                "bind",
                format!("a public address needs a secret, and {bind} is one"),
                format!("set {SECRET_ENV}, or bind to loopback"),
            );
        }
        let loggers = self.loggers.take().unwrap_or_else(Logger::default_of_service);
        let job_loggers = self.job_loggers.take().unwrap_or_else(Logger::default_of_jobs);
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        let config = (|| {
            let data_dir = data_dir?;
            let store_path = store_path.unwrap_or_else(|| data_dir.join("jobs.db"));
            let derived = [("bind", bind.to_string()), ("worker_pool.sqlite.path", store_path.display().to_string())];
            let effective = Effective::new(&self, &derived, secrets.is_some());
            Some(Config {
                bind,
                port: port?,
                https,
                workers: workers?,
                store_path,
                data_dir,
                redis,
                secrets,
                loggers,
                job_loggers,
                grace: grace?,
                shutdown_grace: shutdown_grace?,
                has_demo: has_demo?,
                has_noop: has_noop?,
                retention: self.retention.unwrap_or_default(),
                core_server,
                context: self.context,
                hooks,
                schedules: self.schedules,
                warnings: self.warnings,
                effective,
            })
        })();
        // Without a problem only a default that its own option does not take leaves a value out; a test reads them all.
        config.ok_or(ConfigError(Vec::new()))
    }
}

impl Origin for Reading {
    fn given(&self, path: &str) -> Option<(Value, String)> {
        let scalar = self.given.get(path).map(|given| (Value::Scalar(given.text.clone()), given.place.clone()));
        scalar.or_else(|| self.trees.get(path).cloned())
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The URL of a server. Not with a user or a password: they would be shown where URLs are, and not be sent.
fn http_url(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain)
        .then(|| text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod config_test;
