//! The one list of options: path, variable, flag, form, default, bounds and meaning of each.
//!
//! From it come the reading of file, environment and flags, `config.default.yml`, `docs/configuration.md`,
//! `jobservice config show` and `jobservice config schema` (see [`super::reference`]). Nothing else knows an option's name.

use jobservice_core::limits;

/// What becomes of an option that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is used.
    Served,
    /// The original or a later version of ours uses it; giving it is no mistake, but it has no effect.
    Ignored,
}

/// What may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text that is not empty.
    Text,
    /// A file or a directory.
    Path,
    /// An IP address.
    Address,
    /// The URL of an HTTP server.
    Url,
    /// The address of a Redis, in one of its forms.
    RedisUrl,
    /// True or false.
    Switch,
    /// A whole number within bounds, both included.
    Integer(u64, u64),
    /// One of some words, in any case.
    Choice(&'static [&'static str]),
    /// A list of loggers.
    Loggers,
    /// Schedules by key.
    Schedules,
    /// Keys and values, each a single text.
    Properties,
    /// A secret, which is never shown.
    Secret,
    /// A list of hosts and networks, or one text with commas between them.
    Targets,
    /// How long final jobs are kept, and how much room all may take.
    Retention,
    /// Whatever.
    Anything,
}

impl Form {
    /// What to do about a value that is not of this form.
    pub(super) fn remedy(self) -> String {
        match self {
            Form::Text => "give a text that is not empty".to_owned(),
            Form::Path => "give a file or a directory".to_owned(),
            Form::Address => "give an IP address like 127.0.0.1, 0.0.0.0 or ::".to_owned(),
            Form::Url => "give a URL like http://host:8080".to_owned(),
            Form::RedisUrl => REDIS_URL.to_owned(),
            Form::Switch => "give true or false".to_owned(),
            Form::Integer(least, most) => format!("give {least} to {most}"),
            Form::Choice(words) => format!("give {}", words.join(" or ")),
            Form::Loggers => "give a list of loggers, each with a name".to_owned(),
            Form::Schedules => "give keys, each with a name and a cron_spec".to_owned(),
            Form::Properties => "give names and values".to_owned(),
            Form::Secret => {
                "give whsec_ and base64 of 24 to 64 random bytes: echo whsec_$(head -c 32 /dev/urandom | base64)"
                    .to_owned()
            }
            Form::Retention => "give keys: success, stopped, error, bytes_max, names".to_owned(),
            Form::Targets => "give hosts and networks".to_owned(),
            Form::Anything => "give something else".to_owned(),
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// Its path in the file. A path that ends in `.*` stands for everything beneath.
    pub(super) path: &'static str,
    /// Its environment variable; empty if there is none.
    pub(super) env: &'static str,
    /// Its flag; empty if there is none.
    pub(super) flag: &'static str,
    /// What becomes of it.
    pub(super) used: Use,
    /// What may be given.
    pub(super) form: Form,
    /// What holds when nothing is given, as YAML; empty if that depends on other options, or there is nothing.
    pub(super) default: &'static str,
    /// What may be given, as YAML, where there is no default to show.
    pub(super) example: &'static str,
    /// What it does, and what a longer or shorter, larger or smaller value does to the operator. Lines end where the
    /// default file is to break them.
    pub(super) meaning: &'static str,
}

impl Opt {
    const fn new(path: &'static str, env: &'static str, flag: &'static str, used: Use) -> Opt {
        Opt { path, env, flag, used, form: Form::Anything, default: "", example: "", meaning: "" }
    }

    /// Its path, or that of the whole that it stands for.
    pub(super) fn name(&self) -> &'static str {
        self.path.strip_suffix(".*").unwrap_or(self.path)
    }

    const fn form(self, form: Form) -> Opt {
        Opt { form, ..self }
    }

    const fn default(self, default: &'static str) -> Opt {
        Opt { default, ..self }
    }

    const fn example(self, example: &'static str) -> Opt {
        Opt { example, ..self }
    }

    const fn means(self, meaning: &'static str) -> Opt {
        Opt { meaning, ..self }
    }
}

const fn served(path: &'static str, env: &'static str, flag: &'static str) -> Opt {
    Opt::new(path, env, flag, Use::Served)
}

const fn ignored(path: &'static str, env: &'static str) -> Opt {
    Opt::new(path, env, "", Use::Ignored)
}

/// The name of the secret's variable. It is in no file on purpose.
pub(super) const SECRET_ENV: &str = "CORE_SECRET";

/// Variables of ours begin so; one that is not in the list is warned of.
pub(super) const ENV_PREFIX: &str = "JOB_SERVICE_";

/// What to give as the address of a Redis.
const REDIS_URL: &str = "give host:port, host:port,weight,password,database, redis://[user:password@]host:port/database, \
     rediss:// for TLS, redis+unix:///path, redis+sentinel://[user:password@]host:port,host:port/master/database or \
     redis+cluster://[user:password@]host:port,host:port";

/// All options, in the order of the default file.
pub(super) const OPTIONS: &[Opt] = &[
    served("protocol", "JOB_SERVICE_PROTOCOL", "").form(Form::Choice(&["http", "https"])).default("http").means(
        "What the API is served over. https needs `https_config`; the certificate is read again when its files change\n\
         and on SIGHUP, without a connection being dropped.",
    ),
    served("https_config.cert", "JOB_SERVICE_HTTPS_CERT", "").form(Form::Path).example("server.crt").means(
        "The certificate for https, PEM: the service's own first, then those that lead to its root.\n\
         A relative path begins at the directory in which the service is started.",
    ),
    served("https_config.key", "JOB_SERVICE_HTTPS_KEY", "")
        .form(Form::Path)
        .example("server.key")
        .means("The key of that certificate, PEM (PKCS#8, PKCS#1 or SEC1), without a passphrase."),
    served("bind", "JOB_SERVICE_BIND", "--bind").form(Form::Address).example("0.0.0.0").means(
        "The address to listen on. One that is not loopback needs CORE_SECRET.\n\
         Without it: all interfaces if there are a configuration file and CORE_SECRET, else loopback (127.0.0.1).",
    ),
    served("port", "JOB_SERVICE_PORT", "--port").form(Form::Integer(0, 65_535)).default("9443").means(
        "The port to listen on; 0 lets the system choose one, which the file `endpoint` in the data directory then names.",
    ),
    served("data_dir", "JOB_SERVICE_DATA_DIR", "--data-dir").form(Form::Path).default("jobservice-data").means(
        "Where the store, the generated secret and the file `endpoint` are. Only one process at a time may serve it.",
    ),
    served("worker_pool.workers", "JOB_SERVICE_POOL_WORKERS", "--workers")
        .form(Form::Integer(1, limits::WORKERS_MAX as u64))
        .default("10")
        .means(
            "How many jobs run at once. More: more work at a time, and more memory, a thread for each blocking job.\n\
             Fewer: jobs wait longer. `worker_pool.worker_pool` is another name for it.",
        ),
    served("worker_pool.backend", "JOB_SERVICE_POOL_BACKEND", "")
        .form(Form::Choice(&["sqlite", "redis"]))
        .default("sqlite")
        .means("Where jobs are kept: sqlite, embedded and for one node, or redis, for any number of nodes: see docs/scaling.md."),
    served("worker_pool.sqlite.path", "JOB_SERVICE_POOL_SQLITE_PATH", "")
        .form(Form::Path)
        .example("jobservice-data/jobs.db")
        .means("The file of the embedded store. Job logs stand beside it, in logs.db beside jobs.db, else under its own name: a-logs.db\n\
         beside a.db. Without it: jobs.db in the data directory."),
    served("worker_pool.redis_pool.redis_url", "JOB_SERVICE_POOL_REDIS_URL", "")
        .form(Form::RedisUrl)
        .example("localhost:6379")
        .means(
            "The Redis to keep jobs in: `host:port`, `host:port,weight,password,database`, `redis://`, `rediss://` (TLS),\n\
             `redis+unix://`, `redis+sentinel://host,host/master/database` or `redis+cluster://host,host`.",
        ),
    served("worker_pool.redis_pool.shards", "JOB_SERVICE_POOL_REDIS_SHARDS", "")
        .form(Form::Integer(1, 64))
        .default("1")
        .means(
            "How many parts the jobs are kept in, by their names. With a cluster twice as many as it has masters, so that\n\
             all of them work; else 1. The same on all nodes, and it cannot be changed later.",
        ),
    served("worker_pool.redis_pool.durability", "JOB_SERVICE_POOL_REDIS_DURABILITY", "")
        .form(Form::Choice(&["local", "replica"]))
        .default("local")
        .means(
            "When a submission counts as taken in: local, when Redis has it; replica, when a replica has it as well, without\n\
             which submissions are refused. See docs/scaling.md for what each may lose.",
        ),
    served("worker_pool.redis_pool.ca_file", "JOB_SERVICE_POOL_REDIS_CA_FILE", "")
        .form(Form::Path)
        .example("redis-ca.pem")
        .means("The certificates (PEM) of the authorities that sign that of Redis, for rediss://. Without it: the system's."),
    served("worker_pool.redis_pool.namespace", "JOB_SERVICE_POOL_REDIS_NAMESPACE", "")
        .form(Form::Text)
        .default("harbor_job_service")
        .means("What the names of all keys in Redis begin with: services with different ones can share a Redis."),
    served("worker_pool.grace_seconds", "JOB_SERVICE_GRACE_SECONDS", "")
        .form(Form::Integer(1, limits::GRACE_SECONDS_MAX))
        .default("30")
        .means(
            "How long a running job may take to obey a stop, a cancel or its timeout before it is closed whatever its\n\
             code does. Longer: more time to clean up. Shorter: a job that does not obey holds its worker less long.",
        ),
    served("worker_pool.shutdown_grace_seconds", "JOB_SERVICE_SHUTDOWN_GRACE_SECONDS", "")
        .form(Form::Integer(1, limits::GRACE_SECONDS_MAX))
        .default("25")
        .means(
            "How long running jobs may take to end when the service ends; what is left is given back and runs again.\n\
             Longer: fewer jobs run twice. Keep it a few seconds below what your supervisor waits before it kills.",
        ),
    served("built_in_jobs.demo", "JOB_SERVICE_BUILT_IN_DEMO", "")
        .form(Form::Switch)
        .default("true")
        .means("Whether the job `demo` can be submitted: it shows what a job can do."),
    served("built_in_jobs.noop", "JOB_SERVICE_BUILT_IN_NOOP", "")
        .form(Form::Switch)
        .default("true")
        .means("Whether the job `noop` can be submitted: it does nothing, for measuring."),
    served("loggers", "", "")
        .form(Form::Loggers)
        .default("[{name: STD_OUTPUT, level: INFO, settings: {output: stderr, format: text}}]")
        .means(
            "Where the service's own log goes; each backend gets the lines of its level and graver ones (DEBUG, INFO,\n\
             WARNING, ERROR, FATAL). STD_OUTPUT, FILE, or one of your own. See docs/configuration.md for their settings.",
        ),
    served("job_loggers", "", "").form(Form::Loggers).default("[{name: STORE, level: DEBUG}]").means(
        "Where the logs of jobs go; they are read back from the first backend that can. STORE (alias DB: beside the jobs),\n\
         FILE, STD_OUTPUT, or one of your own. Without a sweeper a log stays as long as its job.",
    ),
    served("retention", "", "")
        .form(Form::Retention)
        .default("{success: 3d, stopped: 7d, error: 30d, bytes_max: 1GiB}")
        .means(
            "How long final jobs are kept, by how they ended (stopped stands for cancelled as well); `names:` says the same\n\
             of the jobs of one name. bytes_max bounds the room of all jobs without their logs: above it final jobs go ahead\n\
             of their time. Longer: more to look back at. Shorter: less disk.",
        ),
    served("core_server", "CORE_URL", "").form(Form::Url).example("http://core:8080").means(
        "The server that jobs' properties are fetched from (GET /api/internal/configurations, with the secret). Kept for\n\
         60 s; while it does not answer, the last good answer is used. No user or password in it.",
    ),
    served("schedules", "", "")
        .form(Form::Schedules)
        .example("{nightly: {name: demo, parameters: {image: \"demo:1\"}, cron_spec: \"0 30 2 * * *\", timezone: Europe/Berlin}}")
        .means(
            "Periodic jobs by key, put at each start: made, changed where they differ, or left alone. Each has a name and a\n\
             cron_spec, and may have the other metadata of a submission: parameters, timezone, overlap, misfire, ..",
        ),
    served("context", "", "").form(Form::Properties).example("{email_from: jobs@example.com}").means(
        "Properties that jobs read by name, before the environment and before what `core_server` says.",
    ),
    served("hooks.enabled", "JOB_SERVICE_HOOK_ENABLED", "")
        .form(Form::Switch)
        .default("true")
        .means("Whether status hooks are delivered. If not, jobs that name one are refused."),
    served("hooks.allow", "JOB_SERVICE_HOOK_ALLOW", "").form(Form::Targets).example("[10.0.0.0/8, \"*.internal\"]").means(
        "What hooks may reach besides public addresses: hosts, patterns of hosts, networks. Without a configuration file\n\
         loopback as well. Link-local, multicast and unspecified addresses never.",
    ),
    served("hooks.secret", "JOB_SERVICE_HOOK_SECRET", "")
        .form(Form::Secret)
        .example("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        .means(
            "What messages to hooks are signed with (Standard Webhooks). Without it they are not signed. Make one of your\n\
             own: echo whsec_$(head -c 32 /dev/urandom | base64)",
        ),
    served("hooks.previous_secret", "JOB_SERVICE_HOOK_PREVIOUS_SECRET", "")
        .form(Form::Secret)
        .example("whsec_//////////////////////////////////////////8=")
        .means("The secret before, for receivers that do not have the new one yet: messages are signed with both."),
    served("hooks.include_parameters", "JOB_SERVICE_HOOK_INCLUDE_PARAMETERS", "")
        .form(Form::Switch)
        .default("false")
        .means("Whether messages carry the parameters of the job, which may hold what is not for the receiver."),
    served("hooks.max_concurrency", "JOB_SERVICE_HOOK_MAX_CONCURRENCY", "")
        .form(Form::Integer(1, 1000))
        .default("64")
        .means("Messages on their way at once. More: a backlog is gone sooner. Fewer: fewer sockets."),
    served("hooks.per_host", "JOB_SERVICE_HOOK_PER_HOST", "")
        .form(Form::Integer(1, 1000))
        .default("8")
        .means("Of these, to one host. More: a busy receiver hears sooner. Fewer: a slow one takes less from the others."),
    served("hooks.timeout_seconds", "JOB_SERVICE_HOOK_TIMEOUT_SECONDS", "")
        .form(Form::Integer(1, limits::HOOK_TIMEOUT_MAX.as_secs()))
        .default("10")
        .means("How long a receiver may take to answer. Longer: slow ones succeed. Shorter: they hold up fewer others."),
    ignored("worker_pool.redis_pool.idle_timeout_second", "JOB_SERVICE_POOL_REDIS_CONN_IDLE_TIMEOUT_SECOND"),
    ignored("worker_pool.redis_pool.*", ""),
    ignored("max_retrieve_size_mb", ""),
    ignored("metric.*", ""),
    ignored("reaper.*", ""),
];

/// Other names for options, from the original's documentation.
pub(super) const ALIASES: &[(&str, &str)] = &[("worker_pool.worker_pool", "worker_pool.workers")];

/// The option of a path in the file.
pub(super) fn of_path(path: &str) -> Option<&'static Opt> {
    let path = ALIASES.iter().find(|(alias, _)| *alias == path).map_or(path, |(_, path)| *path);
    OPTIONS.iter().find(|option| option.path == path).or_else(|| {
        OPTIONS.iter().find(|option| {
            option.path.strip_suffix('*').is_some_and(|stem| {
                // The key of a whole section is no option of its own where some keys beneath it are.
                path.starts_with(stem) || (stem.trim_end_matches('.') == path && keys_under(path).is_empty())
            })
        })
    })
}

/// The keys that may stand under a path (`""` for the top of the file).
pub(super) fn keys_under(path: &str) -> Vec<&'static str> {
    let all = OPTIONS.iter().map(|option| option.path).chain(ALIASES.iter().map(|(alias, _)| *alias));
    let mut keys: Vec<&str> = all
        .filter_map(|known| if path.is_empty() { Some(known) } else { known.strip_prefix(path)?.strip_prefix('.') })
        .filter_map(|rest| rest.split('.').next())
        .filter(|key| *key != "*")
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The key that somebody who wrote the last key of this path may have meant.
pub(super) fn meant_by(path: &str) -> Option<&'static str> {
    let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
    did_you_mean(key, keys_under(above))
}

/// Whether a path that only stands for "more of the original's keys" is in all likelihood an option of ours, misspelt.
pub(super) fn is_a_slip(path: &str) -> bool {
    let Some((above, key)) = path.rsplit_once('.') else { return false };
    did_you_mean(key, keys_under(above)).is_some_and(|meant| {
        OPTIONS.iter().any(|option| option.used == Use::Served && option.path == format!("{above}.{meant}"))
    })
}

/// The word among `known` that somebody who wrote `word` may have meant.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    // Two letters that changed places count as two changes.
    let near = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|known| (strsim::levenshtein(&word, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_options() {
        assert_eq!(of_path("worker_pool.worker_pool").unwrap().path, "worker_pool.workers");
        assert_eq!(of_path("worker_pool.redis_pool.redis_url").unwrap().env, "JOB_SERVICE_POOL_REDIS_URL");
        assert_eq!(of_path("worker_pool.redis_pool.dial_timeout").unwrap().used, Use::Ignored);
        assert_eq!(of_path("metric.enabled").unwrap().used, Use::Ignored);
        assert_eq!(of_path("schedules").unwrap().used, Use::Served);
        assert!(of_path("worker_pool").is_none() && of_path("prot").is_none());
        assert!(of_path("worker_pool.redis_pool").is_none());
    }

    #[test]
    fn keys_are_known_level_by_level() {
        assert!(keys_under("worker_pool").starts_with(&["backend", "grace_seconds", "redis_pool"]));
        assert!(keys_under("").contains(&"hooks") && keys_under("nowhere").is_empty());
    }

    #[test]
    fn near_words_are_suggested() {
        assert_eq!(did_you_mean("prot", ["port", "bind"]), Some("port"));
        assert_eq!(did_you_mean("workerpool", keys_under("")), Some("worker_pool"));
        assert_eq!(did_you_mean("elephants", keys_under("")), None);
        assert!(is_a_slip("worker_pool.redis_pool.durabilty") && is_a_slip("worker_pool.redis_pool.shard"));
        for key in ["metric", "metric.port", "worker_pool.redis_pool.idle_timeout_seconds"] {
            assert!(!is_a_slip(key), "{key}");
        }
        for key in ["dial_timeout_second", "pool_size", "password", "database", "max_idle", "tls", "host", "port"] {
            assert!(!is_a_slip(&format!("worker_pool.redis_pool.{key}")), "{key}");
        }
    }

    #[test]
    fn every_option_that_is_served_says_what_it_means_and_what_may_be_given() {
        for option in OPTIONS.iter().filter(|option| option.used == Use::Served) {
            assert!(!option.meaning.is_empty(), "{} has no meaning", option.path);
            let is_section = option.path.ends_with(".*");
            assert!(option.form != Form::Anything || is_section, "{} has no form", option.path);
            assert!(option.default.is_empty() != option.example.is_empty(), "{}: a default or an example", option.path);
        }
    }

    #[test]
    fn no_path_variable_or_flag_is_listed_twice() {
        for name in [|option: &Opt| option.path, |option: &Opt| option.env, |option: &Opt| option.flag] {
            let mut names: Vec<&str> = OPTIONS.iter().map(name).filter(|name| !name.is_empty()).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }
}
