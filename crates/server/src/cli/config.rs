//! `jobservice config`: looks at the configuration without starting anything.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::args::ConfigCommand;
use super::{FAILED, print};
use crate::config::{Config, DEFAULT_FILE, Sources, schema};
use crate::http::{Certificate, chain};

/// Carries out one of the commands. `sources` collects file, environment and flags.
pub(crate) fn config(command: &ConfigCommand, sources: impl Fn(Option<&Path>) -> Result<Sources>) -> Result<ExitCode> {
    match command {
        ConfigCommand::Check { config } => check(&sources(config.as_deref())?),
        ConfigCommand::Show { default: true, .. } => {
            print::text(DEFAULT_FILE).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        ConfigCommand::Show { config, json, .. } => {
            let config = Config::read(&sources(config.as_deref())?)?;
            if *json {
                print::pretty(&config.effective.json(&config.warnings))?;
            } else {
                print::text(&config.effective.yaml())?;
                warn(&config);
            }
            Ok(ExitCode::SUCCESS)
        }
        ConfigCommand::Schema => {
            print::pretty(&schema())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(sources: &Sources) -> Result<ExitCode> {
    match Config::read(sources) {
        Ok(config) => {
            warn(&config);
            if let Some(Err(error)) = config.https.as_ref().map(Certificate::load) {
                print::note(&format!("warning: the service would not start: {}", chain(&error)));
            }
            print::line("the configuration is valid")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            print::note(&format!("error: {error}"));
            Ok(FAILED.into())
        }
    }
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        print::note(&format!("warning: {warning}"));
    }
}
