//! How late ticks are with many policies: spread over the minute, and all due in the same second.
//!
//! The lag of a tick is from its due time to its execution's insert, and to the start of the execution's run, as the
//! records have them.

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jobservice::core::Name;
use jobservice::core::store::Query;
use jobservice::prelude::*;
use serde::{Deserialize, Serialize};

use crate::stats::{Samples, now, pause, say};

const POLICIES: u64 = 10_000;

/// How long ticks that are spread are watched.
const WATCHED: Duration = Duration::from_secs(65);

/// How far ahead the common second of all lies: all policies are there by then.
const AHEAD_SECONDS: i64 = 30;

/// No measurement takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Serialize, Deserialize)]
struct Tock {
    n: u64,
}

impl Job for Tock {
    const NAME: &'static str = "tock";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Ok(())
    }
}

pub(crate) fn run(directory: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        spread(directory).await?;
        together(directory).await
    })
}

async fn start(directory: &Path) -> anyhow::Result<(tempfile::TempDir, Service)> {
    let dir = tempfile::tempdir_in(directory)?;
    let service = Service::builder().sqlite(dir.path().join("jobs.db")).workers(100).register::<Tock>().start().await?;
    Ok((dir, service))
}

async fn put(service: &Service, cron: impl Fn(u64) -> String) -> anyhow::Result<()> {
    let puts = stream::iter(0..POLICIES).map(|n| service.submit(Tock { n }).cron(cron(n)).into_future());
    let mut puts = puts.buffer_unordered(100);
    while let Some(put) = puts.next().await {
        put?;
    }
    Ok(())
}

async fn spread(directory: &Path) -> anyhow::Result<()> {
    let (_dir, service) = start(directory).await?;
    put(&service, |n| format!("{} * * * * *", n % 60)).await?;
    pause(WATCHED).await;
    report(&service, &format!("== cron: {POLICIES} policies, each once a minute, over {} s", WATCHED.as_secs()))
        .await?;
    service.shutdown().await;
    Ok(())
}

async fn together(directory: &Path) -> anyhow::Result<()> {
    let (_dir, service) = start(directory).await?;
    let due = service.controller().clock().wall().as_seconds() + AHEAD_SECONDS;
    let (minute, second) = ((due / 60) % 60, due % 60);
    put(&service, |_| format!("{second} {minute} * * * *")).await?;
    let began = now();
    while finished(&service).await? < POLICIES {
        anyhow::ensure!(began.elapsed() < PATIENCE, "not all ticks ran within {} s", PATIENCE.as_secs());
        pause(Duration::from_millis(200)).await;
    }
    report(&service, &format!("== cron: {POLICIES} policies, all due in the same second")).await?;
    service.shutdown().await;
    Ok(())
}

async fn finished(service: &Service) -> anyhow::Result<u64> {
    let counts = service.controller().counts().await?;
    Ok(counts.into_iter().filter(|(status, _)| status.is_final()).map(|(_, jobs)| jobs).sum())
}

async fn report(service: &Service, what: &str) -> anyhow::Result<()> {
    let (mut inserted, mut started) = (Samples::default(), Samples::default());
    let mut query = Query { name: Some(Name::new(Tock::NAME)?), limit: 1000, ..Query::default() };
    loop {
        let page = service.controller().list(&query).await?;
        for job in page.jobs {
            let Some(due) = job.state.run_at else { continue };
            inserted.push(job.spec.enqueued_at.since(due));
            if let Some(at) = job.state.started_at {
                started.push(at.since(due));
            }
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    let ticks = inserted.len();
    say(format!(
        "{what}: {ticks} ticks\n  due to insert: {}\n  due to start:  {}",
        inserted.summary(),
        started.summary()
    ));
    Ok(())
}
