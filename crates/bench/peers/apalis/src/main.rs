//! apalis-redis as a contestant of `just bench redis`: one step of the measurement on the Redis at PORT, its time as one
//! line of JSON. The steps are those of the trait `Contestant` in `crates/bench/src/redis/contestant.rs`.
//!
//! ```text
//! jobservice-bench-apalis fill PORT JOBS
//! jobservice-bench-apalis drain PORT JOBS WORKERS BATCH
//! jobservice-bench-apalis together PORT JOBS WORKERS BATCH SUBMITTERS
//! ```
//!
//! A worker claims up to BATCH jobs at once and holds those for which it has no room yet. All else is as it comes.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time, and asks what nothing tells it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const QUEUE: &str = "bench";

/// Jobs in a call of `fill`. More than some 8,000 due at once would end the worker: it gives them all to one `RPUSH`.
const BULK: usize = 1000;

/// How often a worker without work looks for some. Nothing wakes it before: a push makes a job due, and what is announced
/// over publish and subscribe are only jobs that are not. Shorter than anybody would set it, to its advantage.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Serialize, Deserialize)]
struct Noop {
    n: usize,
}

/// Counts runs.
struct Done {
    count: AtomicUsize,
    all: usize,
    reached: Notify,
}

async fn noop(_job: Noop, done: Data<Arc<Done>>) -> Result<(), BoxDynError> {
    if done.count.fetch_add(1, Ordering::Relaxed) + 1 == done.all {
        done.reached.notify_one();
    }
    Ok(())
}

type Storage = RedisStorage<Noop, ConnectionManager>;

async fn storage(port: &str, batch: usize) -> anyhow::Result<Storage> {
    let connection = apalis_redis::connect(format!("redis://127.0.0.1:{port}/")).await?;
    Ok(RedisStorage::new(connection).with_config(Config::default().queue(QUEUE).batch_size(batch)))
}

async fn fill(mut storage: Storage, jobs: usize) -> anyhow::Result<()> {
    for from in (0..jobs).step_by(BULK) {
        let bulk = (from..jobs.min(from + BULK)).map(|_| Noop { n: 123_456 }).collect();
        storage.push_bulk(bulk).await?;
    }
    Ok(())
}

/// Runs `jobs` jobs, those that `submit` submits meanwhile or those that wait; returns when all are recorded as done.
async fn run<F>(storage: Storage, jobs: usize, workers: usize, submit: F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let done = Arc::new(Done { count: AtomicUsize::new(0), all: jobs, reached: Notify::new() });
    let mut connection = storage.clone().get_connection().clone();
    let recorded = storage.get_config().done_jobs_set();
    let worker = WorkerBuilder::new("bench")
        .backend(storage.poll_with_interval(LOOK))
        .concurrency(workers)
        .data(Arc::clone(&done))
        .build(noop);
    let ended = async {
        submit.await?;
        done.reached.notified().await;
        loop {
            let count: usize = redis::cmd("SCARD").arg(&recorded).query_async(&mut connection).await?;
            if count >= jobs {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        ended = ended => ended?,
        died = worker.run() => bail!("the worker ended before its jobs: {died:?}"),
    }
    ensure!(done.count.load(Ordering::Relaxed) == jobs, "jobs ran more than once");
    Ok(())
}

async fn submit(storage: Storage, jobs: usize, submitters: usize) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for submitter in 0..submitters {
        let mut storage = storage.clone();
        let share = jobs / submitters + usize::from(submitter < jobs % submitters);
        running.push(tokio::spawn(async move {
            for n in 0..share {
                storage.push(Noop { n }).await?;
            }
            anyhow::Ok(())
        }));
    }
    for submitter in running {
        submitter.await??;
    }
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [step, port, numbers @ ..] = arguments.as_slice() else { bail!("a step and a port are needed") };
    let numbers: Vec<usize> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let jobs = *numbers.first().context("no number of jobs")?;
    let storage = storage(port, numbers.get(2).copied().unwrap_or(BULK)).await?;
    let started = Instant::now();
    match (step.as_str(), numbers.as_slice()) {
        ("fill", [_]) => fill(storage, jobs).await?,
        ("drain", [_, workers, _batch]) => run(storage, jobs, *workers, async { Ok(()) }).await?,
        ("together", [_, workers, _batch, submitters]) => {
            run(storage.clone(), jobs, *workers, submit(storage, jobs, *submitters)).await?;
        }
        _ => bail!("no such step: {arguments:?}"),
    }
    println!(r#"{{"seconds":{}}}"#, started.elapsed().as_secs_f64());
    Ok(())
}
