//! The user's own log backends: registered under names, so that the configuration file can ask for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use jobservice::logger::{Level, LogBackend};

/// Why a backend could not be made.
pub type BackendError = Box<dyn std::error::Error + Send + Sync>;

/// A place for the service's own log: for backends beside STD_OUTPUT and FILE.
pub trait ServiceLog: Send + Sync + 'static {
    /// Takes one line, which ends with a line feed.
    ///
    /// Called where the line comes into being, in the midst of requests and jobs: it must not wait for long, and has to
    /// bound what it holds. What it does itself must not be logged, or it calls itself.
    fn write(&self, level: Level, line: &str);
}

/// What the configuration file says to a backend, under `settings`.
#[derive(Clone, Debug, Default)]
pub struct LogSettings(BTreeMap<String, String>);

impl LogSettings {
    pub(crate) fn new(settings: &BTreeMap<String, String>) -> LogSettings {
        LogSettings(settings.clone())
    }

    /// A setting, as text; none if it was not given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The keys that were given: a backend should refuse those that it does not know.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

type Make<T> = Box<dyn Fn(&LogSettings) -> Result<Arc<T>, BackendError> + Send + Sync>;

/// All that were registered.
#[derive(Default)]
pub(crate) struct Backends {
    pub(crate) of_jobs: BTreeMap<String, Make<dyn LogBackend>>,
    pub(crate) of_service: BTreeMap<String, Make<dyn ServiceLog>>,
}

impl Backends {
    pub(crate) fn job_log(&self, name: &str, settings: &BTreeMap<String, String>) -> Result<Arc<dyn LogBackend>> {
        make(&self.of_jobs, name, settings)
    }

    pub(crate) fn service_log(&self, name: &str, settings: &BTreeMap<String, String>) -> Result<Arc<dyn ServiceLog>> {
        make(&self.of_service, name, settings)
    }
}

fn make<T: ?Sized>(
    known: &BTreeMap<String, Make<T>>,
    name: &str,
    settings: &BTreeMap<String, String>,
) -> Result<Arc<T>> {
    let make = known.get(name).with_context(|| format!("no log backend {name} is registered"))?;
    make(&LogSettings::new(settings)).map_err(|error| anyhow!(error)).with_context(|| format!("the log backend {name}"))
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends")
            .field("of_jobs", &self.of_jobs.keys())
            .field("of_service", &self.of_service.keys())
            .finish()
    }
}
