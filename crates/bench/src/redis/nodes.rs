//! What only several nodes on one Redis show, and what a long time does: how soon a job starts on another node than the one
//! that took it, and how much memory is held after many jobs that were kept for a short time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobservice::RetentionRules;
use jobservice::prelude::*;
use jobservice_core::job::Retention;

use super::ours::STORE;
use super::server::{Aof, Server};
use crate::latency::{self, Ping, Started};
use crate::lifecycle::{runtime, submit_and_run};
use crate::served;
use crate::stats::{now, pause, say, thousands};

/// Parts in which the jobs come; memory is looked at after each, and again when the jobs of it are pruned.
const PARTS: usize = 5;

/// How long jobs are kept there, in seconds.
const KEPT: u32 = 1;

/// Keys that are not of jobs: fewer than these.
const KEYS_LEFT: u64 = 100;

/// How long it may take until all are pruned.
const PRUNED_WITHIN: Duration = Duration::from_secs(60);

/// How long an idle service takes from a submission on one node to the start of the job on another.
pub(crate) fn latency(directory: &Path, aof: Aof) -> anyhow::Result<()> {
    let server = Server::start(directory, aof)?;
    let mut samples = runtime()?.block_on(async {
        let waiter = Started::default();
        let takes = STORE(server.port()).await?;
        let takes = Service::builder().store(takes).workers(0).register::<Ping>().start().await?;
        let runs = Service::builder()
            .store(STORE(server.port()).await?)
            .with(Arc::clone(&waiter))
            .workers(10)
            .register::<Ping>()
            .start()
            .await?;
        let samples = latency::measure(&takes, &waiter).await?;
        takes.shutdown().await;
        runs.shutdown().await;
        anyhow::Ok(samples)
    })?;
    say(format!(
        "idle, submitted on one node and started on another, {} submits: {}",
        latency::SUBMITS,
        samples.summary()
    ));
    Ok(())
}

/// Memory of Redis and of this process while many jobs go through, and when they are pruned.
pub(crate) fn memory(directory: &Path, aof: Aof, jobs: usize) -> anyhow::Result<()> {
    let server = Server::start(directory, aof)?;
    let runtime = runtime()?;
    let service = || async {
        let rules = RetentionRules { default: Retention::all(KEPT), ..RetentionRules::default() };
        anyhow::Ok(Service::builder().store(STORE(server.port()).await?).workers(100).retention(rules))
    };
    say(format!(
        "{} jobs submitted and run, {} at a time, kept for {KEPT} s; MiB of Redis and of the service then, and when all are pruned:",
        thousands(jobs as f64),
        thousands((jobs / PARTS) as f64)
    ));
    let look = || {
        let (redis, own) =
            (server.memory()? as f64 / f64::from(1 << 20), served::resident(std::process::id())? / 1024.0);
        anyhow::Ok(format!("{redis:.1} + {own:.1}"))
    };
    for _ in 0..PARTS {
        let full = runtime.block_on(async {
            submit_and_run(service().await?, jobs / PARTS, None).await?;
            let full = look()?;
            let idle = service().await?.start().await?;
            let started = now();
            // What is left then are the numbers of minutes, nodes and the like.
            while server.keys()? > KEYS_LEFT {
                anyhow::ensure!(started.elapsed() < PRUNED_WITHIN, "{} keys are left", server.keys()?);
                pause(Duration::from_millis(100)).await;
            }
            idle.shutdown().await;
            anyhow::Ok(full)
        })?;
        say(format!("{full}; {}", look()?));
    }
    Ok(())
}
