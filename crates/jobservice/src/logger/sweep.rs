//! Removing old logs, by each backend's rule, and those whose jobs are gone.
//!
//! The log of a job goes with its record ([`JobLogs::remove`]). A crash between the two leaves a log that nobody can ask
//! for; the sweep finds it: not written for a day, and no such job in the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::core::Core;
use super::sink::Sink;
use super::{JobLogs, LogError, Removed};

/// How often logs are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// The first sweep comes soon after the start, when a start is no longer busy.
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(60);

/// Only a log not written for this long is looked at for whether its job is gone.
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Logs looked at per step for whether their jobs are gone.
const ORPHANS_PER_STEP: usize = 500;

/// Sweeps from time to time until the logs are closed.
pub(super) async fn run(core: Arc<Core>) {
    let mut pause = FIRST_SWEEP_AFTER;
    while timeout(pause, core.until_closed()).await.is_err() {
        pause = SWEEP_EVERY;
        for sink in &core.sinks {
            let name = sink.backend.name();
            match sweep(&core, sink).await {
                Ok(removed) if removed.logs > 0 => {
                    let Removed { logs, bytes } = removed;
                    tracing::info!(log.backend = name, logs, bytes, "swept {logs} job logs from {name}");
                }
                Ok(_) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(log.backend = name, error, "cannot sweep the job logs of {name}");
                }
            }
        }
    }
}

async fn sweep(core: &Core, sink: &Sink) -> Result<Removed, LogError> {
    let Some(sweeper) = sink.backend.sweeper() else { return Ok(Removed::default()) };
    let now = core.clock.now();
    let mut removed = sweeper.sweep(&sink.rule, now).await?;
    let mut after = None;
    loop {
        let idle = sweeper.idle(now - ORPHAN_AFTER, after.as_ref(), ORPHANS_PER_STEP).await?;
        let Some(last) = idle.last().cloned() else { return Ok(removed) };
        let mut orphans = Vec::new();
        for id in idle {
            match core.store.get(&id).await {
                Ok(None) => orphans.push(id),
                Ok(Some(_)) => {}
                // Not known to be gone: another time.
                Err(_) => return Ok(removed),
            }
        }
        removed.logs += sweeper.remove(&orphans).await?;
        after = Some(last);
    }
}

impl JobLogs {
    /// Sweeps all backends now. The service does so each hour.
    ///
    /// # Errors
    /// The first failure, after all backends were swept.
    pub async fn sweep(&self) -> Result<Removed, LogError> {
        let mut removed = Removed::default();
        let mut failed = None;
        let Some(core) = self.core() else { return Ok(removed) };
        for sink in &core.sinks {
            match sweep(core, sink).await {
                Ok(more) => {
                    removed.logs += more.logs;
                    removed.bytes += more.bytes;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }
}
