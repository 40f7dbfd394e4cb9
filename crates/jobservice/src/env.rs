//! What all runs of a pool share.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::{Clock, PoolId, Store};

use crate::Controller;
use crate::logger::JobLogs;
use crate::middleware::Middleware;
use crate::pool::board::Board;

/// What all runs of a pool share.
pub(crate) struct Env {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) logs: JobLogs,
    pub(crate) state: Arc<States>,
    pub(crate) properties: Arc<Properties>,
    pub(crate) middleware: Arc<[Arc<dyn Middleware>]>,
    pub(crate) pool: PoolId,
    /// How long a job may take to obey a stop, a cancel or its timeout.
    pub(crate) grace: Duration,
    pub(crate) board: Board,
    /// What launches sub jobs.
    pub(crate) controller: Controller,
}

/// The user's values that jobs reach by type.
#[derive(Default)]
pub(crate) struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl States {
    /// Adds a value; a second one of the same type takes the place of the first.
    pub(crate) fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// Where [`crate::Context::get`] looks for properties besides the service's own map and the environment.
pub trait PropertySource: Send + Sync + 'static {
    /// The value of a property, if this source knows it. Called from jobs; must not wait for long.
    fn get(&self, property: &str) -> Option<String>;
}

#[derive(Default)]
pub(crate) struct Properties {
    pub(crate) own: HashMap<String, String>,
    /// Asked before the environment.
    pub(crate) sources: Vec<Arc<dyn PropertySource>>,
    /// Asked after it.
    pub(crate) fallbacks: Vec<Arc<dyn PropertySource>>,
}

impl Properties {
    pub(crate) fn get(&self, property: &str) -> Option<String> {
        if let Some(value) = self.own.get(property) {
            return Some(value.clone());
        }
        let known = self.sources.iter().find_map(|source| source.get(property));
        let known = known.or_else(|| std::env::var(property).ok());
        known.or_else(|| self.fallbacks.iter().find_map(|source| source.get(property)))
    }
}

/// A random number for jitter. Without a source of randomness there is no jitter, and that is all.
pub(crate) fn random_u32() -> u32 {
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(&'static str, &'static [&'static str]);

    impl PropertySource for Says {
        fn get(&self, property: &str) -> Option<String> {
            self.1.contains(&property).then(|| self.0.to_owned())
        }
    }

    #[test]
    fn own_properties_come_first_then_sources_the_environment_and_fallbacks() {
        let properties = Properties {
            own: [("a".to_owned(), "own".to_owned())].into(),
            sources: vec![Arc::new(Says("source", &["a", "b"]))],
            fallbacks: vec![Arc::new(Says("fallback", &["a", "b", "c", "PATH"]))],
        };
        let get = |property| properties.get(property);
        assert_eq!((get("a").as_deref(), get("b").as_deref()), (Some("own"), Some("source")));
        assert_eq!((get("c").as_deref(), get("d")), (Some("fallback"), None));
        assert_eq!(get("PATH"), std::env::var("PATH").ok());
    }
}
