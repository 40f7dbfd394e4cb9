//! Must show (g) of the whole: very many jobs come, run and go, and disk and memory have their room back.
//! Method: the real binary; a tenth of the jobs stays, so that there is something to compare with: the size of a backup,
//! which has no free pages. The sweep comes at a start and each minute; a restart saves the minute.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chaos::{Context as _, Result, Service, Setup, count, ensure, now, pause};
use jobservice_client::Client;
use serde_json::json;
use serde_json::value::RawValue;

const PART: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_many_jobs_come_and_go_and_the_room_is_given_back() -> Result<()> {
    let data = tempfile::tempdir()?;
    let data = data.path();
    let many = count(10_000, 1_000_000);
    let mut service = Service::start(&Setup::real(data, 10)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    let raw = |job: serde_json::Value| RawValue::from_string(job.to_string());
    let text = "x".repeat(200);
    // Half of those that run have a log.
    let quiet =
        raw(json!({"name": "noop", "parameters": {"text": text}, "metadata": {"kind": "Generic", "retention": 0}}))?;
    let told = raw(
        json!({"name": "demo", "parameters": {"image": "demo", "seconds": 0}, "metadata": {"kind": "Generic", "retention": 0}}),
    )?;
    let stays = raw(
        json!({"name": "noop", "parameters": {"text": text}, "metadata": {"kind": "Scheduled", "schedule_delay": 86400}}),
    )?;
    let mut part = vec![stays; PART / 10];
    part.resize(PART / 10 + PART * 9 / 20, quiet);
    part.resize(PART, told);

    let mut memory = Vec::new();
    for number in 0..many / PART {
        let answers = client.batch(&part).await?;
        ensure!(answers.iter().all(|answer| answer.code == 202), "not all were taken");
        // Not all at once: what is measured is a service that keeps up.
        waiting_at_most(&client, 20_000).await?;
        if number == many / PART / 4 {
            memory.push(service.memory()?);
        }
    }
    waiting_at_most(&client, 0).await?;
    memory.push(service.memory()?);
    let largest = size(&data.join("jobs.db")) + size(&data.join("jobs.db-wal"));
    service.signal(nix::sys::signal::Signal::SIGTERM)?;
    service.wait(Duration::from_secs(30)).await?;

    let service = Service::start(&Setup::real(data, 10)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    let began = now();
    while client.counts().await?["success"] > 0 {
        ensure!(began.elapsed() < Duration::from_secs(600), "they are not pruned: {:?}", client.counts().await?);
        pause(Duration::from_millis(50)).await; // bounded poll
    }
    let pruned = began.elapsed();
    assert_eq!(client.counts().await?["scheduled"], many as u64 / 10);

    let live = backup_size(data).await?;
    let files = || size(&data.join("jobs.db")) + size(&data.join("logs.db"));
    // Room below this is kept for the next jobs.
    let slack = 3 << 20;
    let began = now();
    while files() > 2 * live + slack {
        ensure!(began.elapsed() < Duration::from_secs(120), "the files have {} bytes, live are {live}", files());
        pause(Duration::from_millis(50)).await; // bounded poll
    }
    println!(
        "{many} jobs: store up to {} MiB; pruned in {pruned:?}; store and logs {} KiB, live {} KiB; logs of both {} and {} KiB; memory {:?} MiB, {} MiB after",
        largest >> 20,
        files() >> 10,
        live >> 10,
        size(&data.join("jobs.db-wal")) >> 10,
        size(&data.join("logs.db-wal")) >> 10,
        memory.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>(),
        service.memory()? >> 20
    );
    assert!(memory[1] < memory[0] + (64 << 20), "memory grew: {memory:?}");
    Ok(())
}

/// Waits until no more than so many jobs wait or run.
async fn waiting_at_most(client: &Client, most: u64) -> Result<()> {
    let began = now();
    loop {
        let counts = client.counts().await?;
        if counts["pending"] + counts["running"] <= most {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(300), "the jobs do not end: {counts:?}");
        pause(Duration::from_millis(20)).await; // bounded poll
    }
}

/// Bytes of a file; none if there is none.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.size())
}

/// What store and logs take without what is free.
async fn backup_size(data: &Path) -> Result<u64> {
    let file = data.join("live.tar");
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobservice"));
    command.arg("--data-dir").arg(data).arg("backup").arg(&file).env_remove("CORE_SECRET");
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(std::fs::metadata(&file).context("a backup")?.len())
}
