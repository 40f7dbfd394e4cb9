//! Goal: a deploy costs nothing: SIGTERM under load ends the process in time, counts no failure, and the work resumes.
//! Must show (g) of the spine, first half.
#![allow(clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::time::Duration;

use chaos::{Api, Result, Service, Setup, count, ensure, now, pause, status};
use nix::sys::signal::Signal;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_counts_no_failure_and_work_resumes() -> Result<()> {
    let rounds = count(3, 20);
    let data = tempfile::tempdir()?;
    let setup = Setup::real(data.path(), 8);
    let mut ids = Vec::new();
    let mut slowest = Duration::ZERO;

    for round in 0..rounds {
        let mut service = Service::start(&setup).await?;
        let api = service.api();
        for n in 0..200 {
            let submitted = match n % 20 {
                // Longer than the shutdown grace would be a job that must be given back: seen in one round in five.
                0 if round % 5 == 0 => {
                    api.submit("demo", json!({"image": "demo:1", "seconds": 40}), json!({"timeout": 120})).await
                }
                1 => api.submit("demo", json!({"image": "demo:1", "seconds": 0.5}), json!({})).await,
                _ => api.submit("noop", json!({}), json!({})).await,
            };
            ids.push(submitted?);
        }
        service.signal(Signal::SIGTERM)?;
        let asked = now();
        let ended = service.wait(Duration::from_secs(31)).await?;
        slowest = slowest.max(asked.elapsed());
        ensure!(ended.success(), "round {round}: ended with {ended}");
        if round % 5 == 4 {
            // A job may be given back ten times for nothing; then each time counts. None gets there here.
            let mut service = Service::start(&setup).await?;
            settle(&service.api()).await?;
            service.signal(Signal::SIGTERM)?;
            service.wait(Duration::from_secs(31)).await?;
        }
    }

    let service = Service::start(&setup).await?;
    let api = service.api();
    settle(&api).await?;
    let mut released = 0;
    for id in &ids {
        let job = api.get(id).await?.ok_or_else(|| chaos::anyhow!("{id} is lost"))?;
        ensure!(matches!(status(&job), "success" | "stopped"), "{job}");
        ensure!(job["fails"].as_u64().unwrap_or(0) == 0, "a shutdown was counted as a failure: {job}");
        released += usize::from(
            job["attempts"]
                .as_array()
                .is_some_and(|attempts| attempts.iter().any(|attempt| attempt["outcome"] == "released")),
        );
    }
    println!(
        "{rounds} SIGTERMs, {} jobs, slowest exit {slowest:?}, {released} jobs given back, 0 failures counted",
        ids.len()
    );
    ensure!(slowest < Duration::from_secs(30), "took {slowest:?} to end");
    Ok(())
}

/// Lets all jobs come to their end. The long ones would take 40 s each: they have shown that they were given back, a stop
/// ends them.
async fn settle(api: &Api) -> Result<()> {
    let started = now();
    loop {
        let running = api.list("status=running").await?;
        for job in running.iter().chain(&api.list("status=pending&name=demo").await?) {
            if job["parameters"]["seconds"] == 40 || job["attempt"].as_u64() > Some(1) {
                api.act(job["id"].as_str().unwrap_or_default(), "stop").await?;
            }
        }
        if running.is_empty()
            && api.list("status=pending").await?.is_empty()
            && api.list("status=scheduled").await?.is_empty()
        {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "jobs still wait a minute after the start");
        pause(Duration::from_millis(100)).await; // bounded poll
    }
}
