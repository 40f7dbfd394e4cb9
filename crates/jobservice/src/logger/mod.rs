//! Job logs: what the code of a job says while it runs.
//!
//! A run gets a [`JobLog`] and writes lines with it; `tracing` events inside a running job come along by themselves
//! ([`layer()`]). Lines go to any number of backends: [`StdOutput`] (`STD_OUTPUT`), [`FileLogs`] (`FILE`), [`StoreLogs`]
//! (`STORE`, alias `DB`), or a user's own ([`LogBackend`]). Readers, live ones too, get them back through [`JobLogs`].
//!
//! What holds:
//! * **A log never harms a job.** Writing a line never waits and never fails; a full disk, a missing directory, a flood
//!   cost lines, which are counted ([`JobLogs::stats`]) and marked in the log where that is possible.
//! * **Memory is bounded**: 10 MiB of unwritten lines a run, 64 MiB for all; past these each run still has a small room of
//!   its own, so that a flood takes nothing from the others.
//! * **A line belongs to its run.** Lines of a lost lease are refused; lines after one's own end are accepted for a minute
//!   while no newer attempt exists ([`accepts_log`](jobservice_core::lifecycle::accepts_log)).
//! * **Complete at the end.** [`JobLog::close`] before the report of the end: who sees the end finds the whole log.
//! * **Capped**: of a log larger than [`LOG_BYTES_MAX`](jobservice_core::limits::LOG_BYTES_MAX) the first and the last half
//!   of that are kept, and the cut is marked with the number of bytes that are missing.
//!
//! The way of a line: [`JobLog`] (handle.rs) formats it (line.rs) into the run's bounded buffer (buffer.rs); the flusher
//! (round.rs) fences it and hands it to the backends.

mod backend;
mod buffer;
mod core;
mod file;
mod handle;
mod layer;
mod level;
mod line;
mod read;
mod redis;
mod round;
mod sink;
mod std_output;
mod store;
mod sweep;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::{Clock, JobId, Store};

pub use self::backend::{Extent, LogBackend, LogChunk, LogError, LogPiece, ReadLog, Removed, SweepLogs, SweepRule};
pub use self::file::FileLogs;
pub use self::handle::{JobLog, Run};
pub use self::layer::{InsideJob, JobLogLayer, current, in_current_scope, layer, scope, scope_sync};
pub use self::level::Level;
pub use self::read::{Follower, ReadFrom};
pub use self::redis::RedisLogs;
pub use self::std_output::StdOutput;
pub use self::store::StoreLogs;

use self::core::{Core, Limits};
use self::sink::Sink;

/// How long the end of the service waits for log backends. The ends of the jobs are in the store by then.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(5);

/// The job logs of a service: opens them for runs, reads them for people. Cheap to clone.
#[derive(Clone)]
pub struct JobLogs {
    service: Option<Arc<Service>>,
}

/// Ends the flusher when the last [`JobLogs`] goes.
struct Service {
    core: Arc<Core>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl std::fmt::Debug for JobLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.core().map(|core| core.sinks.iter().map(|sink| sink.backend.name()).collect::<Vec<_>>());
        f.debug_tuple("JobLogs").field(&names.unwrap_or_default()).finish()
    }
}

/// Lines and bytes by what became of them, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Lines written, counted for each backend.
    pub lines_written: u64,
    /// Lines dropped because a run wrote faster than they could be kept, or after the end of the service.
    pub lines_dropped: u64,
    /// Lines refused because their lease was lost.
    pub lines_refused: u64,
    /// Lines that a backend failed to write, counted for each backend.
    pub lines_lost: u64,
    /// Bytes that wait to be written now.
    pub bytes_buffered: u64,
}

/// Collects the backends of [`JobLogs`].
#[derive(Default)]
pub struct JobLogsBuilder {
    sinks: Vec<Sink>,
    limits: Limits,
}

impl JobLogsBuilder {
    /// Adds a backend. Logs are read back from the first one that can.
    pub fn backend(mut self, backend: Arc<dyn LogBackend>) -> Self {
        self.sinks.push(Sink::new(backend));
        self
    }

    /// Sets the threshold of the backend added last: it gets no lines less grave. Default [`Level::Info`].
    pub fn level(mut self, level: Level) -> Self {
        if let Some(last) = self.sinks.last_mut() {
            last.level = level;
        }
        self
    }

    /// Sets how long the backend added last keeps logs. By default they stay as long as their jobs.
    pub fn sweep(mut self, rule: SweepRule) -> Self {
        if let Some(last) = self.sinks.last_mut() {
            last.rule = rule;
        }
        self
    }

    #[cfg(test)]
    fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the flusher. `store` is asked whether a run may still write.
    ///
    /// # Errors
    /// [`LogError::Io`] if the system gives no thread.
    pub fn build(self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<JobLogs, LogError> {
        if self.sinks.is_empty() {
            return Ok(JobLogs::disabled());
        }
        let core = Arc::new(Core::new(self.sinks, store, clock, self.limits));
        let no_thread =
            |source| LogError::Io { during: "start", path: "the thread of the job logs".to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let flusher = Arc::clone(&core);
        std::thread::Builder::new()
            .name("job-logs".to_owned())
            .spawn(move || {
                runtime.spawn(sweep::run(Arc::clone(&flusher)));
                runtime.block_on(flusher.run());
            })
            .map_err(no_thread)?;
        Ok(JobLogs { service: Some(Arc::new(Service { core })) })
    }
}

impl JobLogs {
    /// Job logs with the backends that are added to it.
    pub fn builder() -> JobLogsBuilder {
        JobLogsBuilder::default()
    }

    /// Job logs that keep nothing.
    pub const fn disabled() -> JobLogs {
        JobLogs { service: None }
    }

    fn core(&self) -> Option<&Arc<Core>> {
        self.service.as_ref().map(|service| &service.core)
    }

    /// The log of a run. Costs next to nothing until the first line.
    pub fn open(&self, run: Run) -> JobLog {
        self.core().map_or(JobLog::disabled(), |core| JobLog::new(core, run))
    }

    /// Waits until all lines written before this call are in the logs; at most five seconds.
    pub async fn flush(&self) {
        if let Some(core) = self.core() {
            core.flush().await;
        }
    }

    /// Removes the logs of jobs that are gone, from all backends. Safe to repeat.
    ///
    /// # Errors
    /// The first failure, after all backends were asked.
    pub async fn remove(&self, ids: &[JobId]) -> Result<(), LogError> {
        let mut answer = Ok(());
        for sink in self.core().map(|core| core.sinks.as_slice()).unwrap_or_default() {
            if let Some(sweeper) = sink.backend.sweeper()
                && let Err(error) = sweeper.remove(ids).await
            {
                answer = answer.and(Err(error));
            }
        }
        answer
    }

    /// What became of the lines so far.
    pub fn stats(&self) -> LogStats {
        self.core().map(|core| core.stats()).unwrap_or_default()
    }

    /// Writes what is buffered, shuts the backends down and ends the flusher. Lines written later are dropped. A backend
    /// that hangs is waited for at most five seconds.
    pub async fn shutdown(&self) {
        if let Some(core) = self.core() {
            core.close();
            if tokio::time::timeout(SHUTDOWN_WAIT_MAX, core.until_closed()).await.is_err() {
                tracing::warn!("a log backend hangs: the last lines of job logs may be missing");
            }
        }
    }
}

#[cfg(test)]
mod bench_test;
#[cfg(test)]
mod disk_test;
#[cfg(test)]
mod fence_test;
#[cfg(test)]
mod flood_test;
#[cfg(test)]
mod layer_test;
#[cfg(test)]
mod logger_test;
#[cfg(test)]
mod read_test;
