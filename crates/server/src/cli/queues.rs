//! Queues and numbers on the command line.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use jobservice_client::{Client, Queue, QueueChange};
use jobservice_core::Time;

use super::args::Queues;
use super::print;
use crate::duration::show;

pub(super) async fn run(client: &Client, what: Queues) -> Result<ExitCode> {
    match what {
        Queues::List { json } => list(&client.queues().await?, json)?,
        Queues::Pause { name } => {
            let change = QueueChange { paused: Some(true), ..QueueChange::default() };
            list(&[client.set_queue(&name, change).await?], false)?;
        }
        Queues::Resume { name } => {
            let change = QueueChange { paused: Some(false), ..QueueChange::default() };
            list(&[client.set_queue(&name, change).await?], false)?;
        }
        Queues::Set { name, max_concurrency, weight } => {
            if max_concurrency.is_none() && weight.is_none() {
                bail!("nothing to set: give --max-concurrency or --weight");
            }
            let max_concurrency = max_concurrency.map(|limit| limit.0);
            let change = QueueChange { paused: None, max_concurrency, weight: weight.map(|weight| weight.0) };
            list(&[client.set_queue(&name, change).await?], false)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(queues: &[Queue], json: bool) -> Result<()> {
    if json {
        for queue in queues {
            print::line(&serde_json::to_string(queue)?)?;
        }
        return Ok(());
    }
    print::line(&format!(
        "{:<24}  {:<7}  {:>9}  {:>9}  {:>7}  {:>6}  {:>6}  OLDEST",
        "NAME", "STATE", "PENDING", "SCHEDULED", "RUNNING", "LIMIT", "WEIGHT"
    ))?;
    for queue in queues {
        let state = if queue.paused { "paused" } else { "open" };
        let limit = queue.max_concurrency.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let oldest = queue.oldest_pending_ms.map_or_else(String::new, |ms| show(Duration::from_millis(ms)));
        let row = format!(
            "{:<24}  {state:<7}  {:>9}  {:>9}  {:>7}  {limit:>6}  {:>6}  {oldest}",
            queue.name, queue.pending, queue.scheduled, queue.running, queue.weight
        );
        print::line(row.trim_end())?;
        for warning in &queue.warnings {
            print::note(&format!("{}: {warning}", queue.name));
        }
    }
    Ok(())
}

pub(super) async fn pools(client: &Client, json: bool) -> Result<ExitCode> {
    let pools = client.stats().await?;
    if !json {
        print::line(&format!("{:<40}  {:<7}  {:>7}  {:<24}  NAMES", "POOL", "STATE", "WORKERS", "LAST SIGN OF LIFE"))?;
    }
    for pool in &pools {
        if json {
            print::line(&serde_json::to_string(pool)?)?;
            continue;
        }
        let seen = Time::from_seconds(pool.heartbeat_at).to_string();
        let names = pool.job_names.join(" ");
        print::line(&format!(
            "{:<40}  {:<7}  {:>7}  {seen:<24}  {names}",
            pool.worker_pool_id, pool.status, pool.concurrency
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn counts(client: &Client, json: bool) -> Result<ExitCode> {
    let counts = client.counts().await?;
    if json {
        print::line(&serde_json::to_string(&counts)?)?;
    } else {
        for (status, count) in &counts {
            print::line(&format!("{status:<10} {count:>10}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn minutes(client: &Client, name: Option<&str>, since: &str, json: bool) -> Result<ExitCode> {
    let minutes = client.minutes(name, Some(since)).await?;
    if !json {
        print::line(&format!(
            "{:<24}  {:>9}  {:>9}  {:>7}  {:>9}  {:>9}",
            "MINUTE", "SUBMITTED", "SUCCEEDED", "FAILED", "WAITED", "RAN"
        ))?;
    }
    for minute in &minutes {
        if json {
            print::line(&serde_json::to_string(minute)?)?;
            continue;
        }
        let (waited, ran) = (Duration::from_millis(minute.wait_ms), Duration::from_millis(minute.run_ms));
        print::line(&format!(
            "{:<24}  {:>9}  {:>9}  {:>7}  {:>9}  {:>9}",
            Time::from_seconds(minute.time).to_string(),
            minute.submitted,
            minute.succeeded,
            minute.failed,
            show(waited),
            show(ran)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
