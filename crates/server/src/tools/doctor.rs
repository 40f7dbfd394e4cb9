//! Is everything as it should be? Looks at the settings, the directory, the disk, the store with its queues and nodes, the
//! job logs and the clock, and asks the service, if one runs. Changes no job.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use jobservice_core::store::{NameStats, Node};
use jobservice_core::{Clock as _, Status, SystemClock, Time};
use jobservice_sqlite::{Inspector, OpenError, is_served, logs};

use super::findings::Findings;
use super::{redis, show_bytes, surroundings};
use crate::cli::Cli;
use crate::config::{Config, Sources};
use crate::duration::show;
use crate::http::{Certificate, chain};
use crate::storage::logs_path;

/// A job that waited longer than this is worth a look.
const PENDING_LONG: Duration = Duration::from_secs(15 * 60);

/// A job that is due is promoted within a second; this much later nobody does it.
const PROMOTED_LATE: Duration = Duration::from_secs(60);

/// The log is written back to the file at 16 MiB; many times that means that somebody reads for very long, or that the
/// service is not there to do it.
const LOG_LARGE: u64 = 256 * 1024 * 1024;

/// Clocks of one host do not differ by more.
const CLOCK_OFF: Duration = Duration::from_secs(5);

/// How many findings of the audit are shown.
const SHOWN: usize = 20;

pub(super) fn run(cli: &Cli, sources: Result<Sources>, json: bool) -> Result<ExitCode> {
    let mut findings = Findings::default();
    let sources = match sources {
        Ok(sources) => sources,
        Err(error) => {
            findings.broken("settings", format!("{error:#}"), "give the file with -c, or none");
            return findings.tell(json);
        }
    };
    match Config::read(&sources) {
        Ok(config) => {
            settings(&config, &mut findings);
            if let Some(redis) = &config.redis {
                surroundings::directory(&config.data_dir, &mut findings);
                redis::look(redis, &mut findings);
                return findings.tell(json);
            }
        }
        Err(error) => {
            findings.broken("settings", error.to_string(), "correct them: the service does not start like this");
            if Config::is_on_redis(&sources) {
                return findings.tell(json);
            }
        }
    }
    // What is wrong with the settings need not keep anybody from looking at the store.
    match Config::places(&sources) {
        Ok((data_dir, store)) => look(cli, &data_dir, &store, &mut findings),
        Err(_) => findings.broken("store", "the settings do not say where it is", "correct them, or give --data-dir"),
    }
    findings.tell(json)
}

/// Whether the service would start with them.
fn settings(config: &Config, findings: &mut Findings) {
    let mut is_ok = true;
    for warning in &config.warnings {
        findings.warning("settings", warning, "");
        is_ok = false;
    }
    if let Some(Err(error)) = config.https.as_ref().map(Certificate::load) {
        findings.broken("settings", chain(&error), "correct https_config: the service does not start like this");
        is_ok = false;
    }
    if is_ok {
        findings.ok("settings", format!("{} workers, data in {}", config.workers, config.data_dir.display()));
    }
}

fn look(cli: &Cli, data_dir: &Path, store_path: &Path, findings: &mut Findings) {
    surroundings::directory(data_dir, findings);
    surroundings::disk(store_path, findings);
    let served = match is_served(store_path) {
        Ok(served) => served,
        Err(error) => {
            findings.broken(
                "store",
                format!("its lock cannot be looked at: {error}"),
                "look at the file's owner and mode",
            );
            false
        }
    };
    surroundings::service(cli, data_dir, served, findings);
    store(store_path, served, findings);
    job_logs(&logs_path(store_path), findings);
}

fn store(path: &Path, served: bool, findings: &mut Findings) {
    if !path.exists() {
        let remedy = "start the service once, or look at --data-dir and -c: is this the right place?";
        findings.broken("store", format!("there is none at {}", path.display()), remedy);
        return;
    }
    let inspector = match Inspector::open(path) {
        Ok(inspector) => inspector,
        Err(error) => {
            let remedy = match error {
                OpenError::OlderSchema { .. } => "start the service once: it brings the file up to date",
                OpenError::NewerSchema { .. } => "use the release that wrote it, or a newer one",
                _ => "restore a backup if it is damaged",
            };
            findings.broken("store", error.to_string(), remedy);
            return;
        }
    };
    let now = SystemClock::new().now();
    let looks = [
        size(&inspector, served, findings),
        queues(&inspector, now, served, findings),
        times(&inspector, now, served, findings),
    ];
    for error in looks.into_iter().filter_map(Result::err) {
        findings.broken("store", format!("{error:#}"), "restore a backup if it is damaged");
    }
    match inspector.audit() {
        Ok(wrong) => audit(&wrong, findings),
        Err(error) => findings.broken("audit", error.to_string(), "restore a backup if it is damaged"),
    }
}

/// What the audit found.
pub(super) fn audit(wrong: &[String], findings: &mut Findings) {
    if wrong.is_empty() {
        findings.ok("audit", "every record and every index is sound");
        return;
    }
    for what in wrong.iter().take(SHOWN) {
        findings.broken("audit", what, "");
    }
    let remedy = "report it with a backup of the store; jobs that are named here may not run as they should";
    findings.broken("audit", format!("{} findings in all", wrong.len()), remedy);
}

fn size(inspector: &Inspector, served: bool, findings: &mut Findings) -> Result<()> {
    let size = inspector.size()?;
    let text = format!(
        "{}, {} of it free, and a log of {}",
        show_bytes(size.file),
        show_bytes(size.free),
        show_bytes(size.log)
    );
    if size.log > LOG_LARGE {
        let remedy = if served {
            "somebody reads for very long: a backup under way, or a shell with an open transaction"
        } else {
            "start the service: it writes the log back"
        };
        findings.warning("size", text, remedy);
    } else {
        findings.ok("size", text);
    }
    Ok(())
}

fn queues(inspector: &Inspector, now: Time, served: bool, findings: &mut Findings) -> Result<()> {
    jobs(inspector.counts()?, findings);
    let nodes = inspector.nodes()?;
    for stats in inspector.names()? {
        queue(&stats, &nodes, now, served, findings);
    }
    if served {
        pools(&nodes, now, findings);
    }
    Ok(())
}

/// How many there are.
pub(super) fn jobs(counts: Vec<(Status, u64)>, findings: &mut Findings) {
    let counts: Vec<String> =
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(status, count)| format!("{count} {status}")).collect();
    findings.ok("jobs", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
}

pub(super) fn queue(stats: &NameStats, nodes: &[Node], now: Time, served: bool, findings: &mut Findings) {
    let NameStats { name, options, pending, oldest_pending, .. } = stats;
    if *pending == 0 {
        return;
    }
    let is_run = nodes.iter().any(|node| node.is_alive(now) && node.names.contains(name));
    if served && !is_run {
        let remedy = "start a service that knows this job, or stop these: jobservice stop --filter name=..";
        findings.warning("queues", format!("{pending} jobs {name} wait, and no living pool runs that name"), remedy);
        return;
    }
    let waited = oldest_pending.map_or(Duration::ZERO, |since| now.since(since));
    if waited < PENDING_LONG {
        return;
    }
    let remedy = if options.paused {
        "the queue is paused: jobservice queues resume"
    } else if options.max_concurrency.is_some() {
        "an operator limits it: jobservice queues list"
    } else {
        "more workers, a greater weight, or a look at what runs: jobservice list --status running"
    };
    let message = format!("{pending} jobs {name} wait, the oldest for {}", show(waited));
    findings.warning("queues", message, remedy);
}

/// A pool that is gone while another of its name lives was restarted: nothing to worry about.
pub(super) fn pools(nodes: &[Node], now: Time, findings: &mut Findings) {
    let living: Vec<&Node> = nodes.iter().filter(|node| node.is_alive(now)).collect();
    for dead in nodes.iter().filter(|node| !node.is_alive(now)) {
        if living.iter().any(|node| node.pool.name() == dead.pool.name()) {
            continue;
        }
        let message = format!(
            "pool {} on {} gave its last sign of life {} ago",
            dead.pool,
            dead.host,
            show(now.since(dead.beat_at))
        );
        findings.warning("nodes", message, "its jobs run elsewhere; it is forgotten after an hour");
    }
    if living.is_empty() {
        findings.warning(
            "nodes",
            "no worker pool lives",
            "a service without workers runs no jobs: see worker_pool.workers",
        );
    } else {
        let slots: u32 = living.iter().map(|node| node.concurrency).sum();
        findings.ok("nodes", format!("{} living pools with {slots} workers", living.len()));
    }
}

fn times(inspector: &Inspector, now: Time, served: bool, findings: &mut Findings) -> Result<()> {
    let (oldest_due, newest) = inspector.oldest_due_and_newest()?;
    if let Some(due) = oldest_due.filter(|due| served && now.since(*due) > PROMOTED_LATE) {
        let message = format!("a job has been due for {} and was not promoted", show(now.since(due)));
        findings.broken("sweeps", message, "the service does not keep up, or its maintenance hangs: see its log");
    }
    let beats = inspector.nodes()?.into_iter().map(|node| node.beat_at);
    let ahead = beats.chain(newest).map(|seen| seen.since(now)).max().unwrap_or_default();
    if ahead > CLOCK_OFF {
        let message = format!("the clock is {} behind what the store has seen", show(ahead));
        findings.warning("clock", message, "it was set back: delays and leases last longer until it has caught up");
    } else {
        findings.ok("clock", format!("{now}"));
    }
    Ok(())
}

fn job_logs(path: &Path, findings: &mut Findings) {
    let Ok(metadata) = std::fs::metadata(path) else {
        findings.ok("job logs", "none in the store");
        return;
    };
    match logs::check(path) {
        Ok(wrong) if wrong.is_empty() => findings.ok("job logs", show_bytes(metadata.len())),
        Ok(wrong) => {
            let message = format!("the file is damaged: {}", wrong.first().map_or("", String::as_str));
            findings.warning(
                "job logs",
                message,
                "the service puts a new one in its place; jobs are not touched by it",
            );
        }
        Err(error) => findings.warning("job logs", error.to_string(), "look at the file's owner and mode"),
    }
}
