//! The one list of options: what each is called in the file, in the environment and on the command line.

/// What becomes of an option that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is used.
    Served,
    /// The original or a later version of ours uses it; giving it is no mistake, but it has no effect.
    Ignored,
    /// Leaving it without effect would mislead: the service does not start.
    Refused,
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
}

const fn served(path: &'static str, env: &'static str, flag: &'static str) -> Opt {
    Opt { path, env, flag, used: Use::Served }
}

const fn ignored(path: &'static str, env: &'static str) -> Opt {
    Opt { path, env, flag: "", used: Use::Ignored }
}

const fn refused(path: &'static str, env: &'static str) -> Opt {
    Opt { path, env, flag: "", used: Use::Refused }
}

/// The name of the secret's variable. It is in no file on purpose.
pub(super) const SECRET_ENV: &str = "CORE_SECRET";

/// Variables of ours begin so; one that is not in the list is warned of.
pub(super) const ENV_PREFIX: &str = "JOB_SERVICE_";

/// All options.
pub(super) const OPTIONS: &[Opt] = &[
    served("protocol", "JOB_SERVICE_PROTOCOL", ""),
    served("bind", "JOB_SERVICE_BIND", "--bind"),
    served("port", "JOB_SERVICE_PORT", "--port"),
    served("data_dir", "JOB_SERVICE_DATA_DIR", "--data-dir"),
    served("worker_pool.workers", "JOB_SERVICE_POOL_WORKERS", "--workers"),
    served("worker_pool.backend", "JOB_SERVICE_POOL_BACKEND", ""),
    served("worker_pool.sqlite.path", "JOB_SERVICE_POOL_SQLITE_PATH", ""),
    served("worker_pool.grace_seconds", "JOB_SERVICE_GRACE_SECONDS", ""),
    served("worker_pool.shutdown_grace_seconds", "JOB_SERVICE_SHUTDOWN_GRACE_SECONDS", ""),
    served("built_in_jobs.demo", "JOB_SERVICE_BUILT_IN_DEMO", ""),
    served("built_in_jobs.noop", "JOB_SERVICE_BUILT_IN_NOOP", ""),
    served("loggers", "", ""),
    served("job_loggers", "", ""),
    served("schedules", "", ""),
    // With `protocol: http` and `backend: sqlite` these have no effect in the original either.
    ignored("https_config.cert", "JOB_SERVICE_HTTPS_CERT"),
    ignored("https_config.key", "JOB_SERVICE_HTTPS_KEY"),
    ignored("worker_pool.redis_pool.redis_url", "JOB_SERVICE_POOL_REDIS_URL"),
    ignored("worker_pool.redis_pool.namespace", "JOB_SERVICE_POOL_REDIS_NAMESPACE"),
    ignored("worker_pool.redis_pool.*", "JOB_SERVICE_POOL_REDIS_CONN_IDLE_TIMEOUT_SECOND"),
    ignored("core_server", "CORE_URL"),
    ignored("max_retrieve_size_mb", ""),
    ignored("metric.*", ""),
    ignored("reaper.*", ""),
    // Whoever gives these relies on them.
    refused("hooks.*", ""),
    refused("context.*", ""),
];

/// Other names for options, from the original's documentation.
pub(super) const ALIASES: &[(&str, &str)] = &[("worker_pool.worker_pool", "worker_pool.workers")];

/// The option of a path in the file.
pub(super) fn of_path(path: &str) -> Option<&'static Opt> {
    let path = ALIASES.iter().find(|(alias, _)| *alias == path).map_or(path, |(_, path)| *path);
    OPTIONS.iter().find(|option| option.path == path).or_else(|| {
        OPTIONS.iter().find(|option| {
            option
                .path
                .strip_suffix('*')
                .is_some_and(|stem| path.starts_with(stem) || stem.trim_end_matches('.') == path)
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

/// The word among `known` that somebody who wrote `word` may have meant.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    // Two letters that changed places count as two changes.
    let near = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|known| (distance(&word, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many letters must be added, taken away or changed to make `a` of `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (above, from) in a.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (to, up) in b.chars().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(from != to)).min(left + 1).min(up + 1);
            diagonal = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_options() {
        assert_eq!(of_path("worker_pool.worker_pool").unwrap().path, "worker_pool.workers");
        assert_eq!(of_path("worker_pool.redis_pool.redis_url").unwrap().env, "JOB_SERVICE_POOL_REDIS_URL");
        assert_eq!(of_path("metric.enabled").unwrap().used, Use::Ignored);
        assert_eq!(of_path("hooks").unwrap().used, Use::Refused);
        assert!(of_path("worker_pool").is_none() && of_path("prot").is_none());
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
    }
}
