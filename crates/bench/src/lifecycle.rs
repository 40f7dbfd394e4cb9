//! Durable life cycles a second through the library (submit, claim, run, finish), beside a raw SQLite loop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use jobservice::hooks::{AddressPolicy, HookOptions};
use jobservice::prelude::*;
use jobservice_core::job::{Kind, Retention, Spec};
use jobservice_core::{Name, Time, limits};
use serde::{Deserialize, Serialize};

use crate::raw;
use crate::stats::{now, say, thousands};

const SUBMITTERS: usize = 64;

/// Operations in a transaction of the raw loop: what the service reaches under this load.
const OPERATIONS: usize = 190;

#[derive(Serialize, Deserialize)]
pub(crate) struct Noop {
    n: usize,
}

struct Done {
    count: AtomicUsize,
    all: usize,
    reached: tokio::sync::Notify,
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let done = Arc::new(Done { count: AtomicUsize::new(0), all: jobs, reached: tokio::sync::Notify::new() });
        let builder = Service::builder().sqlite(path).with(Arc::clone(&done)).workers(workers).register::<Noop>();
        let builder = match hooks {
            Hooks::Off => builder.hooks(None),
            Hooks::On => builder,
            Hooks::OnEachJob(_) => builder.hooks(HookOptions {
                policy: Arc::new(AddressPolicy::with_loopback()),
                per_host: 64,
                ..HookOptions::default()
            }),
        };
        let service = Arc::new(builder.start().await?);
        let started = now();
        let mut submitters = Vec::new();
        for submitter in 0..SUBMITTERS {
            let service = Arc::clone(&service);
            let hook = if let Hooks::OnEachJob(url) = hooks { Some(url.clone()) } else { None };
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
        ensure!(done.count.load(Ordering::Relaxed) == jobs, "jobs ran more than once");
        Ok(jobs as f64 / elapsed.as_secs_f64())
    })
}
