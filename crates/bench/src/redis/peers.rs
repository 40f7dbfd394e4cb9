//! BullMQ and apalis-redis, each a program of its own below `crates/bench/peers`, brought here on first use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::contestant::Contestant;
use super::server::{bound, output};
use crate::lifecycle::SUBMITTERS;
use crate::stats::say;

/// A peer that takes longer for one step hangs.
const STEP_SECONDS_MAX: u32 = 300;

/// apalis-redis gives all jobs that are due to one `RPUSH`, and Lua passes 8,000 values at most: with more waiting its worker
/// ends.
const APALIS_JOBS_MAX: usize = 5_000;

/// How many jobs a worker of apalis-redis claims at once.
#[derive(Clone, Copy)]
pub(crate) enum Batch {
    /// As many as it can run: no job waits for this worker while another may be idle, as with BullMQ and with us.
    Workers,
    /// A thousand, which is faster.
    Many,
}

impl Batch {
    fn size(self, workers: usize) -> usize {
        match self {
            Batch::Workers => workers,
            Batch::Many => 1000,
        }
    }
}

/// Another job service on Redis.
pub(crate) struct Peer {
    name: String,
    records: &'static str,
    jobs_max: usize,
    /// Of apalis-redis only.
    batch: Option<Batch>,
    /// What to run, with the arguments before the step.
    program: Vec<PathBuf>,
}

/// What a peer prints of a step.
#[derive(Deserialize)]
struct Step {
    seconds: f64,
}

impl Peer {
    /// BullMQ, with its packages installed.
    pub(crate) fn bullmq(directory: &Path) -> anyhow::Result<Peer> {
        let (sources, installed) = (sources("bullmq"), directory.join("bullmq"));
        fs::create_dir_all(&installed)?;
        for file in ["package.json", "package-lock.json", "bench.mjs"] {
            fs::copy(sources.join(file), installed.join(file)).with_context(|| format!("cannot copy {file}"))?;
        }
        let lock = fs::read_to_string(sources.join("package-lock.json"))?;
        let stamp = installed.join("installed");
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&lock) {
            say("installing BullMQ");
            // Without install scripts: the one there is would fetch what its package brings along already.
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"];
            output(Command::new("npm").args(arguments).current_dir(&installed))?;
            // Crash here: no stamp, so the next run installs again.
            fs::write(&stamp, &lock)?;
        }
        Ok(Peer {
            name: format!("BullMQ {}", npm_version(&lock, "bullmq")?),
            records: "a hash with name, data, options, priority, times of submission, start and end, attempts and result; its \
                      id in a list, later in a sorted set; while it runs a lock that names its holder; four events in a \
                      stream that keeps the last 10,000 of all jobs. Kept for good unless told otherwise",
            jobs_max: usize::MAX,
            batch: None,
            program: vec!["node".into(), installed.join("bench.mjs")],
        })
    }

    /// apalis-redis, built.
    pub(crate) fn apalis(directory: &Path, batch: Batch) -> anyhow::Result<Peer> {
        let (sources, built) = (sources("apalis"), directory.join("apalis"));
        let status = Command::new("cargo")
            .args(["build", "--release", "--locked", "--manifest-path"])
            .arg(sources.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&built)
            .status()?;
        ensure!(status.success(), "cargo cannot build apalis-redis");
        let version = cargo_version(&fs::read_to_string(sources.join("Cargo.lock"))?, "apalis-redis")?;
        Ok(Peer {
            name: match batch {
                Batch::Workers => format!("apalis-redis {version}"),
                Batch::Many => format!("apalis-redis {version}, 1,000 ahead"),
            },
            records: match batch {
                Batch::Workers => {
                    "its data in one hash of all jobs; a hash with status, attempts, who runs it, seconds of start and end, \
                     and result; its id in a sorted set of what is due, a list, a set of what its worker holds and one of \
                     what is done. Not the time of submission. Kept for good"
                }
                Batch::Many => "the same",
            },
            jobs_max: APALIS_JOBS_MAX,
            batch: Some(batch),
            program: vec![built.join("release/jobservice-bench-apalis")],
        })
    }

    /// Runs a step with the numbers that it takes.
    fn step(&self, step: &str, port: u16, numbers: &[usize]) -> anyhow::Result<Duration> {
        let text = output(
            bound("timeout")
                .arg(STEP_SECONDS_MAX.to_string())
                .args(&self.program)
                .args([step, &port.to_string()])
                .args(numbers.iter().map(usize::to_string))
                .stderr(Stdio::piped()),
        )?;
        parse(&text)
    }

    /// The arguments of a step that runs jobs.
    fn running(&self, jobs: usize, workers: usize) -> Vec<usize> {
        let batch = self.batch.map(|batch| batch.size(workers));
        [jobs, workers].into_iter().chain(batch).collect()
    }
}

impl Contestant for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn records(&self) -> &'static str {
        self.records
    }

    fn jobs_max(&self) -> usize {
        self.jobs_max
    }

    fn fill(&self, port: u16, jobs: usize) -> anyhow::Result<()> {
        self.step("fill", port, &[jobs])?;
        Ok(())
    }

    fn drain(&self, port: u16, jobs: usize, workers: usize) -> anyhow::Result<Duration> {
        self.step("drain", port, &self.running(jobs, workers))
    }

    fn together(&self, port: u16, jobs: usize) -> anyhow::Result<Duration> {
        let mut numbers = self.running(jobs, 100);
        numbers.push(SUBMITTERS);
        self.step("together", port, &numbers)
    }
}

fn sources(peer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peer)
}

/// The time in what a peer printed, its last line.
fn parse(text: &str) -> anyhow::Result<Duration> {
    let line = text.lines().next_back().context("the peer printed nothing")?;
    let step: Step = serde_json::from_str(line).with_context(|| format!("the peer printed {line}"))?;
    Ok(Duration::try_from_secs_f64(step.seconds)?)
}

/// The version of a package in a lock file of npm.
fn npm_version(lock: &str, package: &str) -> anyhow::Result<String> {
    let lock: serde_json::Value = serde_json::from_str(lock)?;
    let version =
        lock.pointer(&format!("/packages/node_modules~1{package}/version")).and_then(|version| version.as_str());
    Ok(version.with_context(|| format!("the lock file has no {package}"))?.to_owned())
}

/// The version of a package in a lock file of cargo.
fn cargo_version(lock: &str, package: &str) -> anyhow::Result<String> {
    let name = format!("name = \"{package}\"");
    let mut after = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = after.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok(version.with_context(|| format!("the lock file has no {package}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_step_is_the_last_line() {
        assert_eq!(parse("some warning\n{\"seconds\":0.25}\n").unwrap(), Duration::from_millis(250));
        assert!(parse("").is_err());
        assert!(parse("{\"seconds\":-1}").is_err());
    }

    #[test]
    fn versions_come_from_the_lock_files() {
        let npm = r#"{"packages":{"node_modules/bullmq":{"version":"6.7.0"}}}"#;
        let cargo = "[[package]]\nname = \"apalis\"\nversion = \"0.9.9\"\n\n[[package]]\nname = \"apalis-redis\"\nversion = \"1.0.0\"\n";

        assert_eq!(npm_version(npm, "bullmq").unwrap(), "6.7.0");
        assert_eq!(cargo_version(cargo, "apalis-redis").unwrap(), "1.0.0");
        assert!(cargo_version(cargo, "redis").is_err());
    }

    #[test]
    fn the_lock_files_hold_what_is_measured() {
        for (peer, file) in [("bullmq", "package-lock.json"), ("apalis", "Cargo.lock")] {
            let lock = fs::read_to_string(sources(peer).join(file)).unwrap();

            let version =
                if peer == "bullmq" { npm_version(&lock, "bullmq") } else { cargo_version(&lock, "apalis-redis") };

            assert!(version.is_ok(), "{file}");
        }
    }

    /// A lock file with addresses would tie the bench to one registry.
    #[test]
    fn the_lock_of_npm_names_no_host() {
        let lock = fs::read_to_string(sources("bullmq").join("package-lock.json")).unwrap();

        assert!(!lock.contains("://"));
    }
}
