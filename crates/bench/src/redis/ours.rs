//! Our service on Redis, as a contestant.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::BoxFuture;
use jobservice::Service;
use jobservice_core::store::{Inserted, NewJob};
use jobservice_core::{Clock as _, Job, JobId, Name, Store, SystemClock};
use jobservice_redis::{Options, RedisStore};

use super::contestant::Contestant;
use crate::lifecycle::{drain, noop_spec, runtime, submit_and_run};

/// How ours is called in the report.
pub(crate) const NAME: &str = "jobservice";

/// Opens the store on the Redis at a port of this machine.
pub(crate) type Open = fn(u16) -> BoxFuture<'static, anyhow::Result<Arc<dyn Store>>>;

/// The store on Redis, as a service opens it.
pub(crate) const STORE: Open = |port| {
    Box::pin(async move {
        let url = format!("127.0.0.1:{port}");
        let options = Options { url, view_age: Duration::from_secs(1), ..Options::default() };
        Ok(RedisStore::connect(&options).await? as Arc<dyn Store>)
    })
};

const BATCH: usize = 1000;

/// Our service, on a store that is opened anew for each step.
pub(crate) struct Ours {
    open: Open,
}

impl Ours {
    pub(crate) fn on(open: Open) -> Ours {
        Ours { open }
    }
}

impl Contestant for Ours {
    fn name(&self) -> &str {
        NAME
    }

    fn records(&self) -> &'static str {
        "the whole job as REST shows it: name, kind, parameters, priority, tags, limits, all times, attempt, fails, crashes, \
         lease, and how it ended; counted by minute and name. Kept as long as its retention says"
    }

    fn jobs_max(&self) -> usize {
        usize::MAX
    }

    fn fill(&self, port: u16, jobs: usize) -> anyhow::Result<()> {
        runtime()?.block_on(async { fill((self.open)(port).await?, jobs).await })
    }

    fn drain(&self, port: u16, jobs: usize, workers: usize) -> anyhow::Result<Duration> {
        runtime()?.block_on(async {
            let store = (self.open)(port).await?;
            drain(Service::builder().store(store).workers(workers), jobs).await
        })
    }

    fn together(&self, port: u16, jobs: usize) -> anyhow::Result<Duration> {
        runtime()?.block_on(async {
            let store = (self.open)(port).await?;
            submit_and_run(Service::builder().store(store).workers(100), jobs, None).await
        })
    }
}

async fn fill(store: Arc<dyn Store>, jobs: usize) -> anyhow::Result<()> {
    let clock = SystemClock::new();
    let name = Name::new("noop")?;
    for from in (0..jobs).step_by(BATCH) {
        let batch: Vec<NewJob> = (from..jobs.min(from + BATCH))
            .map(|_| Job::submitted(JobId::generate(), noop_spec(&name, clock.now()), None, clock.now()).into())
            .collect();
        let answers = store.insert(batch, clock.now()).await?;
        ensure!(answers.iter().all(|answer| *answer == Inserted::Created), "the store refused jobs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use jobservice_core::memory::MemoryStore;

    use super::*;

    static MEMORY: OnceLock<Arc<MemoryStore>> = OnceLock::new();

    /// The steps as `contestant::measure` calls them, on a store that needs no Redis.
    #[test]
    fn the_steps_run_each_job_once_on_any_store() {
        let ours = Ours::on(|_port| {
            let store: Arc<dyn Store> = Arc::clone(MEMORY.get_or_init(|| Arc::new(MemoryStore::new()))) as _;
            Box::pin(async { Ok(store) })
        });

        ours.fill(0, 1500).unwrap();
        let drained = ours.drain(0, 1500, 10).unwrap();
        let together = ours.together(0, 200).unwrap();

        assert!(drained > Duration::ZERO && together > Duration::ZERO);
    }
}
