//! Which jobs this process can run: the typed jobs of the user with their types erased, found by name.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::store::NameAsk;
use jobservice_core::{Name, limits};
use serde::de::DeserializeOwned;

use crate::run::{self, Alive};
use crate::{BlockingJob, Context, Failure, Job};

/// The future of one run.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// What is known of a job's code without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Its name.
    pub name: Name,
    /// How many runs may fail, resolved: at least 1.
    pub max_fails: u32,
    /// The priority of its jobs unless the submission says otherwise.
    pub priority: u8,
    /// Its share of the workers.
    pub weight: u32,
    /// How many may run at once.
    pub max_concurrency: Option<u32>,
    /// How long one run may take unless the submission says otherwise.
    pub timeout: Option<Duration>,
    /// Whether each run has a thread of its own ([`BlockingJob`]).
    pub blocking: bool,
}

/// The jobs that a process can run.
///
/// A mistake (a name that is not valid, a name given twice, a weight out of range) is kept until the service starts and
/// refused then, all of them in one error.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: BTreeMap<Name, Arc<Entry>>,
    problems: Vec<String>,
}

impl Registry {
    /// A registry without jobs.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds an async job.
    pub fn register<J: Job>(mut self) -> Registry {
        let info = self.info(
            J::NAME,
            Asked {
                max_fails: J::MAX_FAILS,
                priority: J::PRIORITY,
                weight: J::WEIGHT,
                max_concurrency: J::MAX_CONCURRENCY,
                timeout: J::TIMEOUT,
                blocking: false,
            },
        );
        self.add(info, Box::new(Async::<J>(PhantomData)));
        self
    }

    /// Adds a blocking job.
    pub fn register_blocking<J: BlockingJob>(mut self) -> Registry {
        let info = self.info(
            J::NAME,
            Asked {
                max_fails: J::MAX_FAILS,
                priority: J::PRIORITY,
                weight: J::WEIGHT,
                max_concurrency: J::MAX_CONCURRENCY,
                timeout: J::TIMEOUT,
                blocking: true,
            },
        );
        self.add(info, Box::new(Blocking::<J>(PhantomData)));
        self
    }

    /// What is known of the job `name`.
    pub fn get(&self, name: &str) -> Option<&JobInfo> {
        self.entries.get(name).map(|entry| &entry.info)
    }

    /// All jobs, by name.
    pub fn jobs(&self) -> impl Iterator<Item = &JobInfo> {
        self.entries.values().map(|entry| &entry.info)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets the job `name` look at its parameters (JSON text), as it would at submission. The error says what is wrong
    /// with them. An unknown name has nothing to say against any parameters.
    pub fn validate(&self, name: &str, parameters: &str) -> Result<(), String> {
        let Some(entry) = self.entries.get(name) else { return Ok(()) };
        entry.validate(parameters)
    }

    /// The name that somebody who wrote `name` may have meant.
    pub fn suggestion(&self, name: &str) -> Option<&Name> {
        suggestion(name, self.entries.keys())
    }

    /// What was wrong with what was registered.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(crate) fn entry(&self, name: &Name) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// What a pool with these jobs claims.
    pub(crate) fn asks(&self) -> Arc<[NameAsk]> {
        self.jobs()
            .map(|info| NameAsk { name: info.name.clone(), weight: info.weight, max_concurrency: info.max_concurrency })
            .collect()
    }

    fn info(&mut self, name: &str, asked: Asked) -> Option<JobInfo> {
        let name = match Name::new(name) {
            Ok(name) => name,
            Err(error) => {
                self.problems.push(error.to_string());
                return None;
            }
        };
        let Asked { max_fails, priority, weight, max_concurrency, timeout, blocking } = asked;
        let mut wrong = |what: String| self.problems.push(format!("job {name}: {what}"));
        if max_fails > limits::MAX_FAILS_MAX {
            wrong(format!("MAX_FAILS is {max_fails}, at most {} are allowed", limits::MAX_FAILS_MAX));
        }
        if priority > limits::PRIORITY_MAX {
            wrong(format!("PRIORITY is {priority}, it must be 0 to {}", limits::PRIORITY_MAX));
        }
        if weight == 0 || weight > limits::WEIGHT_MAX {
            wrong(format!("WEIGHT is {weight}, it must be 1 to {}", limits::WEIGHT_MAX));
        }
        if max_concurrency == Some(0) {
            wrong("MAX_CONCURRENCY is 0: it could never run".to_owned());
        }
        if timeout.is_some_and(|timeout| timeout.is_zero() || timeout > limits::TIMEOUT_MAX) {
            wrong(format!("TIMEOUT must be more than 0 and at most {} days", limits::TIMEOUT_MAX.as_secs() / 86_400));
        }
        let max_fails = if max_fails == 0 { limits::MAX_FAILS_DEFAULT } else { max_fails };
        Some(JobInfo { name, max_fails, priority, weight, max_concurrency, timeout, blocking })
    }

    fn add(&mut self, info: Option<JobInfo>, code: Box<dyn Code>) {
        let Some(info) = info else { return };
        let name = info.name.clone();
        if self.entries.insert(name.clone(), Arc::new(Entry { info, code })).is_some() {
            self.problems.push(format!("job {name} is registered twice"));
        }
    }
}

/// What a job's constants say.
struct Asked {
    max_fails: u32,
    priority: u8,
    weight: u32,
    max_concurrency: Option<u32>,
    timeout: Option<Duration>,
    blocking: bool,
}

/// One registered job.
pub(crate) struct Entry {
    pub(crate) info: JobInfo,
    code: Box<dyn Code>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn validate(&self, parameters: &str) -> Result<(), String> {
        run::caught(|| self.code.validate(parameters)).unwrap_or_else(|panic| Err(panic.message))
    }

    /// The work of one run, without middleware. Its panics are failures.
    pub(crate) fn start(&self, ctx: Context) -> Work {
        self.code.start(ctx)
    }

    pub(crate) fn should_retry(&self, parameters: &str, failure: &Failure) -> bool {
        // A policy that panics has no opinion.
        run::caught(|| self.code.should_retry(parameters, failure)).unwrap_or_else(|_| failure.is_retryable())
    }

    pub(crate) fn backoff(&self, fails: u32) -> Option<Duration> {
        run::caught(|| self.code.backoff(fails)).unwrap_or(None)
    }
}

/// A job with its type erased.
trait Code: Send + Sync {
    fn validate(&self, parameters: &str) -> Result<(), String>;
    fn start(&self, ctx: Context) -> Work;
    fn should_retry(&self, parameters: &str, failure: &Failure) -> bool;
    fn backoff(&self, fails: u32) -> Option<Duration>;
}

struct Async<J>(PhantomData<fn() -> J>);

impl<J: Job> Code for Async<J> {
    fn validate(&self, parameters: &str) -> Result<(), String> {
        read::<J>(parameters).map_err(|error| error.to_string())?.validate()
    }

    fn start(&self, ctx: Context) -> Work {
        Box::pin(run::guarded(ctx.clone(), async move {
            match read::<J>(ctx.parameters()) {
                Ok(job) => job.run(ctx).await,
                Err(error) => Err(misfit(&error)),
            }
        }))
    }

    fn should_retry(&self, parameters: &str, failure: &Failure) -> bool {
        read::<J>(parameters).is_ok_and(|job| job.should_retry(failure))
    }

    fn backoff(&self, fails: u32) -> Option<Duration> {
        J::backoff(fails)
    }
}

struct Blocking<J>(PhantomData<fn() -> J>);

impl<J: BlockingJob> Code for Blocking<J> {
    fn validate(&self, parameters: &str) -> Result<(), String> {
        read::<J>(parameters).map_err(|error| error.to_string())?.validate()
    }

    fn start(&self, ctx: Context) -> Work {
        // The guard moves into the thread: the code lives until the thread is through with it, however early the
        // future that waits for it is dropped.
        let alive = Alive::of(ctx.run());
        Box::pin(async move {
            let thread = tokio::task::spawn_blocking(move || {
                let _alive = alive;
                run::guarded_sync(&ctx.clone(), || match read::<J>(ctx.parameters()) {
                    Ok(job) => job.run(ctx),
                    Err(error) => Err(misfit(&error)),
                })
            });
            // An error here is the runtime shutting down before the thread began.
            thread.await.unwrap_or_else(|_| Err(Failure::interrupted()))
        })
    }

    fn should_retry(&self, parameters: &str, failure: &Failure) -> bool {
        read::<J>(parameters).is_ok_and(|job| job.should_retry(failure))
    }

    fn backoff(&self, fails: u32) -> Option<Duration> {
        J::backoff(fails)
    }
}

/// Reads parameters. `null` and `{}` both mean "none": a unit struct reads only the one, a struct only the other.
fn read<J: DeserializeOwned>(parameters: &str) -> Result<J, serde_json::Error> {
    match (serde_json::from_str(parameters), parameters) {
        (Err(error), "{}") => serde_json::from_str("null").map_err(|_| error),
        (Err(error), "null") => serde_json::from_str("{}").map_err(|_| error),
        (read, _) => read,
    }
}

/// The parameters were looked at when the job was submitted; the code has changed since then.
fn misfit(error: &serde_json::Error) -> Failure {
    Failure::permanent(format!("the parameters do not fit the job: {error}"))
}

/// The known name nearest to `name`, if it is near enough that somebody may have mistyped it.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a Name>) -> Option<&'a Name> {
    let name: String = name.chars().take(128).collect::<String>().to_lowercase();
    let near = name.chars().count().max(3) / 3;
    known
        .map(|known| (strsim::levenshtein(&name, &known.as_str().to_lowercase()), known))
        .filter(|(distance, known)| *distance <= near || (name.len() >= 3 && known.as_str().starts_with(&name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestion_is_near_or_a_beginning_or_nothing() {
        let known: Vec<Name> =
            ["resize", "noop", "image-scan"].into_iter().map(|name| Name::new(name).unwrap()).collect();
        let find = |name| suggestion(name, known.iter()).map(Name::as_str);
        assert_eq!(find("rezise"), Some("resize"));
        assert_eq!(find("RESIZE"), Some("resize"));
        assert_eq!(find("image"), Some("image-scan"));
        assert_eq!(find("transcode"), None);
    }
}
