//! What is done on the host of the store, without the service or beside it: look through it, copy it, put a copy back.

mod backup;
mod doctor;
mod findings;
mod redis;
mod restore;
mod surroundings;
mod tar;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cli::{Cli, print};
use crate::config::{Config, Sources};
use crate::storage::logs_path;

/// What is read of a file at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The parts of a backup, by their names in it.
const JOBS: &str = "jobs.db";
const LOGS: &str = "logs.db";
const MANIFEST: &str = "manifest.json";

/// Looks through the store and its surroundings.
pub(crate) fn doctor(cli: &Cli, sources: Result<Sources>, json: bool) -> Result<ExitCode> {
    doctor::run(cli, sources, json)
}

/// Writes a consistent copy of the store and the job logs to a file.
pub(crate) fn backup(sources: &Sources, file: &Path) -> Result<ExitCode> {
    let places = Places::of(sources)?;
    backup::run(&places, file)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts the data of a backup where the service looks for it.
pub(crate) fn restore(sources: &Sources, file: &Path, force: bool) -> Result<ExitCode> {
    let places = Places::of(sources)?;
    restore::run(&places, file, force)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells how far a long copy is, each time that so much more is done.
struct Progress {
    what: String,
    bytes: u64,
    done: u64,
    told: u64,
}

/// A second or so of a disk.
const TELL_BYTES: u64 = 256 * 1024 * 1024;

impl Progress {
    fn of(what: impl Into<String>, bytes: u64) -> Progress {
        Progress { what: what.into(), bytes, done: 0, told: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.done - self.told >= TELL_BYTES {
            self.told = self.done;
            print::note(&format!("{}: {} of {}", self.what, show_bytes(self.done), show_bytes(self.bytes)));
        }
    }
}

/// Where the data is, as the configuration says.
struct Places {
    data_dir: PathBuf,
    store: PathBuf,
    logs: PathBuf,
}

impl Places {
    fn of(sources: &Sources) -> Result<Places> {
        if Config::is_on_redis(sources) {
            bail!("the jobs are in Redis, which is backed up by its own means: see docs/scaling.md");
        }
        let (data_dir, store) = Config::places(sources)?;
        let logs = logs_path(&store);
        Ok(Places { data_dir, store, logs })
    }
}

/// A file beside another, with a suffix of its own.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// So many bytes, for people.
fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut shown = format!("{bytes} bytes");
    for unit in UNITS {
        amount /= 1024.0;
        if amount < 1.0 {
            break;
        }
        shown = format!("{amount:.1} {unit}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_their_unit() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(show_bytes(bytes), text);
        }
    }
}
