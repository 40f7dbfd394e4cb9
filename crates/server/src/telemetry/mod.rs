//! The service's own log: what it says of itself, to standard streams, files and backends of the user's own. Events inside
//! a running job go to that job's log as well.

mod file;
mod own;

use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jobservice::logger::{self, Level};
use jobservice_core::{Clock, SystemClock};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::backends::Backends;
use crate::config::{Logger, LoggerKind};

use file::{Kept, RotatingFile};
use own::OwnLog;

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts the service's log. `RUST_LOG`, if set, beats the levels of the configuration.
pub(crate) fn start(loggers: &[Logger], backends: &Backends) -> Result<()> {
    let mut layers: Vec<Lines> = vec![logger::layer().boxed()];
    for logger in loggers {
        layers.push(layer(logger, backends)?);
    }
    tracing_subscriber::registry().with(layers).try_init().context("the process has a log already")
}

fn layer(logger: &Logger, backends: &Backends) -> Result<Lines> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(rules) if !rules.is_empty() => {
            EnvFilter::try_new(&rules).with_context(|| format!("RUST_LOG is {rules:?}"))?
        }
        _ => EnvFilter::new(level(logger.level).to_string()),
    };
    let as_json = logger.as_json;
    Ok(match &logger.kind {
        LoggerKind::StdOutput { to_stderr: true } => lines(io::stderr, as_json, filter),
        LoggerKind::StdOutput { to_stderr: false } => lines(io::stdout, as_json, filter),
        LoggerKind::File(settings) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let kept = Kept { age: logger.kept, bytes_max: logger.kept_bytes_max };
            lines(RotatingFile::open(settings, kept, clock)?, as_json, filter)
        }
        LoggerKind::Own { name, settings } => {
            lines(OwnLog::new(backends.service_log(name, settings)?), as_json, filter)
        }
        // The configuration refuses it.
        LoggerKind::Store => LevelFilter::OFF.boxed(),
    })
}

/// One line an event, as text or as a JSON object.
fn lines<W>(writer: W, as_json: bool, filter: EnvFilter) -> Lines
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_target(false).with_ansi(false).with_writer(writer);
    if as_json {
        lines.json().flatten_event(true).with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    }
}

fn level(level: Level) -> LevelFilter {
    match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error | Level::Fatal => LevelFilter::ERROR,
    }
}
