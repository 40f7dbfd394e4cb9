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
#![deny(missing_docs)]

mod app;
mod cli;
mod config;
mod data_dir;
mod duration;
mod http;
mod jobs;
mod telemetry;
mod tools;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use jobservice::Registry;

pub use http::{Reason, Role, Route, routes};
pub use jobs::{Demo, Noop};

use cli::{Cli, Command};
use config::{Config, Sources};

/// What is still busy when all has ended (a job that does not yield) is left behind after this.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// Does what the command line says: starts the service, with these jobs and those that come with it, or talks to one.
/// Gives back the exit code of the process.
pub fn run(registry: Registry) -> ExitCode {
    let mut cli = Cli::parse();
    let done = match cli.command.take() {
        Some(Command::Doctor { json }) => tools::doctor(&cli, json),
        Some(Command::Backup { file }) => tools::backup(&cli, &file),
        Some(Command::Restore { file, force }) => tools::restore(&cli, &file, force),
        Some(command) => talk(&cli, command),
        None => serve(registry, &cli),
    };
    done.unwrap_or_else(|error| {
        // Without a standard error there is nobody to tell.
        drop(writeln!(std::io::stderr(), "error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn talk(cli: &Cli, command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    Ok(runtime.block_on(cli::run(cli, command)))
}

fn serve(registry: Registry, cli: &Cli) -> Result<ExitCode> {
    let config = Config::read(&sources(cli)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .context("cannot start the threads of the service")?;
    let ended = runtime.block_on(app::run(registry, config));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    ended.map(|()| ExitCode::SUCCESS)
}

pub(crate) fn sources(cli: &Cli) -> Result<Sources> {
    let mut sources = Sources::default();
    if let Some(path) = &cli.serve.config {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        sources.file = Some((path.clone(), text));
    }
    // What is not text is none of ours.
    let texts =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    sources.env = texts.collect();
    let mut flag = |name, text: Option<String>| sources.flags.extend(text.map(|text| (name, text)));
    flag("--port", cli.serve.port.map(|port| port.to_string()));
    flag("--bind", cli.serve.bind.map(|bind| bind.to_string()));
    flag("--workers", cli.serve.workers.map(|workers| workers.to_string()));
    flag("--data-dir", cli.data_dir.as_ref().map(|dir| dir.display().to_string()));
    Ok(sources)
}
