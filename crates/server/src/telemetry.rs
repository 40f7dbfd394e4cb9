//! The service's own log: what it says of itself, to a standard stream or a file. Events inside a running job go to that
//! job's log as well.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use jobservice::logger::{self, Level};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Logger, LoggerKind};

/// The file of the service's log, in the directory of the configuration.
const FILE: &str = "jobservice.log";

/// Starts the service's log. `RUST_LOG`, if set, beats the levels of the configuration.
pub(crate) fn start(loggers: &[Logger]) -> Result<()> {
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![logger::layer().boxed()];
    for logger in loggers {
        layers.push(layer(logger)?);
    }
    tracing_subscriber::registry().with(layers).try_init().context("the process has a log already")
}

fn layer(logger: &Logger) -> Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(rules) if !rules.is_empty() => {
            EnvFilter::try_new(&rules).with_context(|| format!("RUST_LOG is {rules:?}"))?
        }
        _ => EnvFilter::new(level(logger.level).to_string()),
    };
    let lines = fmt::layer().with_target(false).with_ansi(false);
    Ok(match &logger.kind {
        LoggerKind::StdOutput { to_stderr: true } => lines.with_writer(io::stderr).with_filter(filter).boxed(),
        LoggerKind::StdOutput { to_stderr: false } => lines.with_writer(io::stdout).with_filter(filter).boxed(),
        LoggerKind::File { base_dir } => {
            fs::create_dir_all(base_dir).with_context(|| format!("cannot make {}", base_dir.display()))?;
            let path = base_dir.join(FILE);
            let file: File = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("cannot write the log {}", path.display()))?;
            lines.with_writer(Mutex::new(file)).with_filter(filter).boxed()
        }
        // The configuration refuses it.
        LoggerKind::Store => LevelFilter::OFF.boxed(),
    })
}

fn level(level: Level) -> LevelFilter {
    match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error | Level::Fatal => LevelFilter::ERROR,
    }
}
