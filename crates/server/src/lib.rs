//! The job service as a server: REST API, configuration, command line.
//!
//! A service with jobs of one's own is a `main` that hands them to [`run`]; everything else (flags, configuration, the
//! commands to submit and look at jobs) comes along:
//!
//! ```no_run
//! use jobservice::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Resize {
//!     image: String,
//! }
//!
//! impl Job for Resize {
//!     const NAME: &'static str = "resize";
//!
//!     async fn run(self, ctx: Context) -> Result<(), Failure> {
//!         ctx.check_in("50%").await?;
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     jobservice_server::run(Registry::new().register::<Resize>())
//! }
//! ```
//!
//! With log backends of one's own it is a [`Server`].
#![deny(missing_docs)]

mod app;
mod backends;
mod cli;
mod config;
mod data_dir;
mod duration;
mod http;
mod jobs;
mod properties;
mod storage;
mod telemetry;
mod tools;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jobservice::Registry;
use jobservice::logger::LogBackend;

pub use backends::{BackendError, LogSettings, ServiceLog};
pub use http::{Reason, Role, Route, routes};
pub use jobs::{Demo, Noop};

use backends::Backends;
use cli::{Cli, Command};
use config::{Config, Sources};

/// What is still busy when all has ended (a job that does not yield) is left behind after this.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// Does what the command line says: starts the service, with these jobs and those that come with it, or talks to one.
/// Gives back the exit code of the process.
pub fn run(registry: Registry) -> ExitCode {
    Server::new(registry).run()
}

/// A service with jobs, and log backends, of one's own.
///
/// ```no_run
/// use std::sync::Arc;
/// use jobservice::Registry;
/// use jobservice::logger::FileLogs;
///
/// fn main() -> std::process::ExitCode {
///     jobservice_server::Server::new(Registry::new())
///         // In the file: job_loggers: [{name: SMALL_FILE, settings: {dir: /var/log/jobs}}]
///         .job_log_backend("SMALL_FILE", |settings| {
///             let dir = settings.get("dir").ok_or("settings.dir is missing: give a directory")?;
///             Ok(Arc::new(FileLogs::with_limit(dir, 64 * 1024)?))
///         })
///         .run()
/// }
/// ```
#[derive(Debug, Default)]
pub struct Server {
    registry: Registry,
    backends: Backends,
}

impl Server {
    /// A service with these jobs and those that come with it.
    pub fn new(registry: Registry) -> Server {
        Server { registry, backends: Backends::default() }
    }

    /// Lets the configuration name a backend for the logs of jobs. `make` is called for each logger of that name, with
    /// what its `settings` say. If it can read back or sweep, readers and sweepers use it like those that come with us.
    pub fn job_log_backend(
        mut self,
        name: &str,
        make: impl Fn(&LogSettings) -> Result<Arc<dyn LogBackend>, BackendError> + Send + Sync + 'static,
    ) -> Server {
        self.backends.of_jobs.insert(name.to_owned(), Box::new(make));
        self
    }

    /// Lets the configuration name a backend for the service's own log.
    pub fn service_log_backend(
        mut self,
        name: &str,
        make: impl Fn(&LogSettings) -> Result<Arc<dyn ServiceLog>, BackendError> + Send + Sync + 'static,
    ) -> Server {
        self.backends.of_service.insert(name.to_owned(), Box::new(make));
        self
    }

    /// As [`run`].
    pub fn run(self) -> ExitCode {
        let mut cli = Cli::read();
        let command = cli.command.take();
        let sources = |file: Option<&Path>| self.sources(&cli, file.or(cli.general.serve.config.as_deref()));
        let done = match command {
            Some(Command::Config { command }) => cli::config(&command, sources),
            Some(Command::Doctor { json }) => tools::doctor(&cli, sources(None), json),
            Some(Command::Backup { file }) => sources(None).and_then(|sources| tools::backup(&sources, &file)),
            Some(Command::Restore { file, force }) => {
                sources(None).and_then(|sources| tools::restore(&sources, &file, force))
            }
            Some(command) => talk(&cli, command),
            None => self.serve(&cli),
        };
        done.unwrap_or_else(|error| {
            // Without a standard error there is nobody to tell.
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        })
    }

    fn serve(self, cli: &Cli) -> Result<ExitCode> {
        let config = Config::read(&self.sources(cli, cli.general.serve.config.as_deref())?)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("http")
            .build()
            .context("cannot start the threads of the service")?;
        let ended = runtime.block_on(app::run(self.registry, &self.backends, config));
        runtime.shutdown_timeout(RUNTIME_GRACE);
        ended.map(|()| ExitCode::SUCCESS)
    }

    fn sources(&self, cli: &Cli, file: Option<&Path>) -> Result<Sources> {
        let mut sources = Sources {
            job_backends: self.backends.of_jobs.keys().cloned().collect(),
            service_backends: self.backends.of_service.keys().cloned().collect(),
            ..Sources::default()
        };
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            sources.file = Some((path.to_owned(), text));
        }
        // What is not text is none of ours.
        let texts =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        sources.env = texts.collect();
        let mut flag = |name, text: Option<String>| sources.flags.extend(text.map(|text| (name, text)));
        flag("--port", cli.general.serve.port.map(|port| port.to_string()));
        flag("--bind", cli.general.serve.bind.map(|bind| bind.to_string()));
        flag("--workers", cli.general.serve.workers.map(|workers| workers.to_string()));
        flag("--data-dir", cli.general.data_dir.as_ref().map(|dir| dir.display().to_string()));
        Ok(sources)
    }
}

/// What `cargo xtask docs` makes of the list of options: `config.default.yml` and `docs/configuration.md`.
#[doc(hidden)]
pub fn configuration_documents() -> (String, String) {
    (config::default_file(), config::page())
}

fn talk(cli: &Cli, command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    Ok(runtime.block_on(cli::run(cli, command)))
}
