//! How long an idle service takes from the call of submit to the first line of the job's code.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jobservice::prelude::*;
use serde::{Deserialize, Serialize};

use crate::stats::{Samples, now, pause, say};

pub(crate) const SUBMITS: usize = 2000;

#[derive(Serialize, Deserialize)]
pub(crate) struct Ping;

pub(crate) type Started = Arc<Mutex<Option<tokio::sync::oneshot::Sender<Instant>>>>;

impl Job for Ping {
    const NAME: &'static str = "ping";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let started = now();
        if let Some(waiter) = ctx.state::<Started>()
            && let Ok(mut waiter) = waiter.lock()
            && let Some(waiter) = waiter.take()
        {
            // The bench waits for each ping before the next: there is always somebody to tell.
            waiter.send(started).ok();
        }
        Ok(())
    }
}

pub(crate) fn run(directory: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut samples = runtime.block_on(async {
        let waiter = Started::default();
        let service = Service::builder()
            .sqlite(dir.path().join("jobs.db"))
            .with(Arc::clone(&waiter))
            .workers(10)
            .register::<Ping>()
            .start()
            .await?;
        let samples = measure(&service, &waiter).await?;
        service.shutdown().await;
        anyhow::Ok(samples)
    })?;
    say(format!("== latency: idle, submit to start, {SUBMITS} submits\n{}", samples.summary()));
    Ok(())
}

/// Submits pings to an idle service, one after the other; they start there or elsewhere.
pub(crate) async fn measure(service: &Service, waiter: &Started) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..SUBMITS {
        let (tell, told) = tokio::sync::oneshot::channel();
        if let Ok(mut waiter) = waiter.lock() {
            *waiter = Some(tell);
        }
        let asked = now();
        service.submit(Ping).await?;
        samples.push(told.await?.saturating_duration_since(asked));
        // Idle again before the next.
        pause(Duration::from_millis(2)).await;
    }
    Ok(samples)
}
