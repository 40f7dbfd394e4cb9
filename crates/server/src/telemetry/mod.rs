//! The service's own log: what it says of itself, to standard streams, files and backends of the user's own. Events inside
//! a running job go to that job's log as well.

mod file;
mod own;

use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use jobservice::logger::{self, Level};
use jobservice_core::{Clock, SystemClock};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::backends::Backends;
use crate::config::{Logger, LoggerKind};

use file::{Kept, RotatingFile};
use own::OwnLog;

/// Which events a logger writes.
type Wanted = Box<dyn Filter<Registry> + Send + Sync>;

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// Lines that may wait for a standard stream; more are dropped. A terminal that is held, or a container's log that nobody
/// reads, must not hold up who logs: the keeper of the leases, requests, jobs.
const WAITING_MAX: usize = 2_000;

/// Dropping it writes what still waits.
pub(crate) struct Log {
    _streams: Vec<WorkerGuard>,
}

/// Starts the service's log. `RUST_LOG`, if set, beats the levels of the configuration.
pub(crate) fn start(loggers: &[Logger], backends: &Backends) -> Result<Log> {
    let mut layers: Vec<Lines> = vec![logger::layer().boxed()];
    let mut streams = Vec::new();
    for logger in loggers {
        layers.push(layer(logger, backends, &mut streams)?);
    }
    tracing_subscriber::registry().with(layers).try_init().context("the process has a log already")?;
    Ok(Log { _streams: streams })
}

/// Lets a thread of its own wait for a stream.
fn apart(stream: impl io::Write + Send + 'static, streams: &mut Vec<WorkerGuard>) -> NonBlocking {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_MAX).thread_name("log");
    let (writer, guard) = builder.finish(stream);
    streams.push(guard);
    writer
}

fn layer(logger: &Logger, backends: &Backends, streams: &mut Vec<WorkerGuard>) -> Result<Lines> {
    let filter: Wanted = match std::env::var("RUST_LOG") {
        Ok(rules) if !rules.is_empty() => {
            Box::new(EnvFilter::try_new(&rules).with_context(|| format!("RUST_LOG is {rules:?}"))?)
        }
        _ => Box::new(level(logger.level)),
    };
    let as_json = logger.as_json;
    Ok(match &logger.kind {
        LoggerKind::StdOutput { to_stderr: true } => lines(apart(io::stderr(), streams), as_json, filter),
        LoggerKind::StdOutput { to_stderr: false } => lines(apart(io::stdout(), streams), as_json, filter),
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
fn lines<W>(writer: W, as_json: bool, filter: Wanted) -> Lines
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
