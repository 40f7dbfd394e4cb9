//! Durable life cycles a second through the library (submit, claim, run, finish), beside a raw SQLite loop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use jobservice::ServiceBuilder;
use jobservice::hooks::{AddressPolicy, HookOptions};
use jobservice::prelude::*;
use jobservice_core::job::{Kind, Retention, Spec};
use jobservice_core::{Name, Time, limits};
use serde::{Deserialize, Serialize};

use crate::raw;
use crate::stats::{now, say, thousands};

pub(crate) const SUBMITTERS: usize = 64;

/// Operations in a transaction of the raw loop: what the service reaches under this load.
const OPERATIONS: usize = 190;

#[derive(Serialize, Deserialize)]
pub(crate) struct Noop {
    n: usize,
}

/// Counts runs, and tells when all have run.
struct Done {
    count: AtomicUsize,
    all: usize,
    reached: tokio::sync::Notify,
}

impl Done {
    fn expecting(all: usize) -> Arc<Done> {
        Arc::new(Done { count: AtomicUsize::new(0), all, reached: tokio::sync::Notify::new() })
    }

    fn ensure_once(&self) -> anyhow::Result<()> {
        ensure!(self.count.load(Ordering::Relaxed) == self.all, "jobs ran more than once");
        Ok(())
    }
}

impl Job for Noop {
    const NAME: &'static str = "noop";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        if let Some(done) = ctx.state::<Arc<Done>>()
            && done.count.fetch_add(1, Ordering::Relaxed) + 1 == done.all
        {
            done.reached.notify_one();
        }
        Ok(())
    }
}

/// Whether the service tells status changes to others.
pub(crate) enum Hooks {
    /// It does not.
    Off,
    /// It would, but no job asks for it.
    On,
    /// Each job has this one.
    OnEachJob(String),
}

/// What the raw loop and the preload store: the same job as the library submits.
pub(crate) fn noop_spec(name: &Name, now: Time) -> Spec {
    Spec {
        name: name.clone(),
        kind: Kind::Generic,
        parameters: r#"{"n":123456}"#.into(),
        priority: 0,
        unique: None,
        max_fails: limits::MAX_FAILS_DEFAULT,
        timeout: None,
        hook: None,
        upstream: None,
        tags: Vec::new(),
        retention: Retention::default(),
        enqueued_at: now,
    }
}

pub(crate) fn run(directory: &Path, jobs: usize, stored: usize) -> anyhow::Result<()> {
    say("== life cycles: submit + claim + run + finish, each commit fsynced");
    for (before, workers) in [(0, 10), (0, 100), (stored, 10), (stored, 100)] {
        let dir = tempfile::tempdir_in(directory)?;
        let path = dir.path().join("jobs.db");
        let limit = raw::run(&dir.path().join("raw.db"), before, jobs, OPERATIONS)?;
        raw::preload(&path, before)?;
        let ours = through_library(&path, jobs, workers, &Hooks::On)?;
        say(format!(
            "{:>9} stored, {workers:>3} workers, {SUBMITTERS} submitters: {:>7}/s; raw loop of {OPERATIONS} operations a \
             transaction: {:>7}/s; ratio {:.2}",
            thousands(before as f64),
            thousands(ours),
            thousands(limit),
            ours / limit
        ));
    }
    Ok(())
}

/// Life cycles a second: all are submitted and run; the clock stops when the last has run and the service has stored all.
pub(crate) fn through_library(path: &Path, jobs: usize, workers: usize, hooks: &Hooks) -> anyhow::Result<f64> {
    let builder = Service::builder().sqlite(path).workers(workers);
    let (builder, hook) = match hooks {
        Hooks::Off => (builder.hooks(None), None),
        Hooks::On => (builder, None),
        Hooks::OnEachJob(url) => (
            builder.hooks(HookOptions {
                policy: Arc::new(AddressPolicy::with_loopback()),
                per_host: 64,
                ..HookOptions::default()
            }),
            Some(url.as_str()),
        ),
    };
    let elapsed = runtime()?.block_on(submit_and_run(builder, jobs, hook))?;
    Ok(jobs as f64 / elapsed.as_secs_f64())
}

/// Where a service is measured: as many threads as the machine has cores.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// How long it takes to submit the jobs one by one, [`SUBMITTERS`] at a time, and to run them all meanwhile.
pub(crate) async fn submit_and_run(
    builder: ServiceBuilder,
    jobs: usize,
    hook: Option<&str>,
) -> anyhow::Result<Duration> {
    let done = Done::expecting(jobs);
    let service = Arc::new(builder.with(Arc::clone(&done)).register::<Noop>().start().await?);
    let started = now();
    let mut submitters = Vec::new();
    for submitter in 0..SUBMITTERS {
        let service = Arc::clone(&service);
        let hook = hook.map(str::to_owned);
        let share = jobs / SUBMITTERS + usize::from(submitter < jobs % SUBMITTERS);
        submitters.push(tokio::spawn(async move {
            for n in 0..share {
                let submit = service.submit(Noop { n });
                match &hook {
                    Some(hook) => submit.hook(hook.clone()).await?,
                    None => submit.await?,
                };
            }
            anyhow::Ok(())
        }));
    }
    for submitter in submitters {
        submitter.await??;
    }
    done.reached.notified().await;
    let elapsed = started.elapsed();
    let service = Arc::into_inner(service).ok_or_else(|| anyhow::anyhow!("the service is still shared"))?;
    service.shutdown().await;
    done.ensure_once()?;
    Ok(elapsed)
}

/// How long a service takes from its start until it has run the jobs that wait in its store.
pub(crate) async fn drain(builder: ServiceBuilder, jobs: usize) -> anyhow::Result<Duration> {
    let done = Done::expecting(jobs);
    let started = now();
    let service = builder.with(Arc::clone(&done)).register::<Noop>().start().await?;
    done.reached.notified().await;
    let elapsed = started.elapsed();
    service.shutdown().await;
    done.ensure_once()?;
    Ok(elapsed)
}
