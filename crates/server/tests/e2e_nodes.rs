//! Goal: several nodes over one Redis are one service: what is said to one holds on all.
//! Method: three real binaries over a Redis of the test's own, driven over HTTP; their jobs leave marks in one file.
//! Must show (b) of the issue about Redis, without the kills.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;
mod nodes;

use std::collections::HashSet;
use std::time::Duration;

use chaos::{Context as _, Result, count, ensure, is_final, now, status};
use nodes::{Cluster, PATIENCE, by_process, concurrency, each_attempt_once, submit_many, until, uptime};
use serde_json::json;

const NODES: usize = 3;

/// Keeps nothing on the disk: nobody kills this Redis.
const MEMORY: [&str; 4] = ["--save", "", "--appendonly", "no"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_submitted_through_one_node_run_on_all_each_once() -> Result<()> {
    let jobs = count(5_000, 100_000);
    let cluster = Cluster::start(&MEMORY, NODES, 10).await?;

    let started = now();
    let ids = submit_many(&cluster.api(0), "mark", &json!({}), jobs).await?;
    cluster.drained(1, Duration::from_secs(600)).await?;
    let took = started.elapsed();

    let marks = cluster.marks.read()?;
    let ran = each_attempt_once(&marks)?;
    let submitted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    ensure!(submitted.len() == jobs && ran == submitted, "{} of {jobs} ran", ran.len());
    ensure!(marks.iter().all(|mark| mark.attempt == 1), "a job ran again although no node died");
    let runs = by_process(&marks);
    println!("{jobs} jobs in {took:?}; by process: {runs:?}");
    let least = runs.values().min().copied().unwrap_or(0);
    ensure!(runs.len() == NODES && least * 20 >= jobs, "they ran on some nodes only, or hardly on one: {runs:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_and_a_cancel_reach_a_running_job_on_any_node_within_a_second() -> Result<()> {
    let cluster = Cluster::start(&MEMORY, NODES, 2).await?;
    let mut slowest: f64 = 0.0;

    for round in 0..count(6, 60) {
        let (action, ends_as) = if round % 2 == 0 { ("stop", "stopped") } else { ("cancel", "cancelled") };
        let from = round % NODES;
        let id = submit_many(&cluster.api(from), "mark", &json!({"milliseconds": 60_000}), 1).await?.remove(0);
        let begun = cluster.marks.wait(PATIENCE, "it begins", |mark| mark.id == id).await?;
        // Never through the node that runs it.
        let through = (cluster.with_pid(begun.pid)? + 1 + round % (NODES - 1)) % NODES;

        let asked = uptime()?;
        ensure!(cluster.api(through).act(&id, action).await? == 204, "{action} of a running job");
        let cut = cluster.marks.wait(PATIENCE, "it ends early", |mark| mark.id == id && mark.what == "cut").await?;
        let job = cluster.api(from).wait_final(&id, PATIENCE).await?;

        ensure!(cut.pid == begun.pid && status(&job) == ends_as, "{action}: {job}");
        slowest = slowest.max(cut.at - asked);
    }
    println!("the slowest took {slowest:.2} s");
    ensure!(slowest <= 1.0, "a stop or cancel took {slowest:.2} s to reach another node");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_and_followed_on_any_node() -> Result<()> {
    let cluster = Cluster::start(&MEMORY, NODES, 2).await?;
    let parameters = json!({"image": "demo:1", "seconds": 1.5});
    let id = cluster.api(0).submit("demo", parameters, json!({})).await?;

    // Followed everywhere while it runs: each reader is answered when the job has ended.
    let follow = |at: usize| {
        let (api, path) = (cluster.api(at), format!("/jobs/{id}/log?follow=true"));
        async move { api.ask("GET", &path, None).await }
    };
    let (first, second, third) = tokio::join!(follow(0), follow(1), follow(2));
    let followed = [first?.text, second?.text, third?.text];
    let job = cluster.api(1).wait_final(&id, PATIENCE).await?;

    ensure!(status(&job) == "success", "{job}");
    for (at, followed) in followed.iter().enumerate() {
        let read = cluster.api(at).log(&id).await?;
        for line in ["demo job running", "check in 30%", "check in 60%", "check in 100%", "demo job finished"] {
            ensure!(read.contains(line), "node {at} does not show {line:?}: {read}");
        }
        ensure!(*followed == read, "followed on node {at}: {followed:?}, and there is {read:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_and_limits_hold_on_all_nodes() -> Result<()> {
    let cluster = Cluster::start(&MEMORY, NODES, 8).await?;

    // A pause said to one node holds on all: other names run on past the jobs that wait.
    let paused = cluster.api(0).ask("PUT", "/queues/mark", Some(json!({"paused": true}))).await?;
    ensure!(paused.status == 200, "{paused:?}");
    let waiting = submit_many(&cluster.api(1), "mark", &json!({}), 30).await?;
    let others = submit_many(&cluster.api(2), "limited", &json!({"milliseconds": 50}), 60).await?;
    for id in &others {
        cluster.api(0).wait_final(id, PATIENCE).await?;
    }
    let marks = cluster.marks.read()?;
    ensure!(marks.iter().all(|mark| mark.name == "limited"), "a paused name ran");
    let shown = cluster.api(2).get(&waiting[0]).await?.context("it is there")?;
    ensure!(shown["status"] == "pending" && shown["waiting"]["reason"] == "paused", "{shown}");

    // The limit of the code held over all three, although each had workers for more.
    let most = concurrency(&marks, "limited");
    ensure!(most == 3, "{most} at once, where the code says 3");

    // The pause ends for all where one is told so; so does a limit begin.
    cluster.api(2).ask("PUT", "/queues/limited", Some(json!({"max_concurrency": 5}))).await?;
    let resumed = cluster.api(1).ask("PUT", "/queues/mark", Some(json!({"paused": false}))).await?;
    ensure!(resumed.status == 200, "{resumed:?}");
    let more = submit_many(&cluster.api(0), "limited", &json!({"milliseconds": 50}), 100).await?;
    for id in waiting.iter().chain(&more) {
        let job = cluster.api(0).wait_final(id, PATIENCE).await?;
        ensure!(status(&job) == "success", "{job}");
    }
    let marks = cluster.marks.read()?;
    each_attempt_once(&marks)?;
    let more: HashSet<&str> = more.iter().map(String::as_str).collect();
    let marks: Vec<_> = marks.into_iter().filter(|mark| more.contains(mark.id.as_str())).collect();
    let most = concurrency(&marks, "limited");
    ensure!(most == 5, "{most} at once, where the operator says 5");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_shows_all_pools_and_any_job() -> Result<()> {
    let mut cluster = Cluster::start(&MEMORY, NODES, 2).await?;
    let id = cluster.api(0).submit("noop", json!({"n": 1}), json!({})).await?;
    cluster.api(0).wait_final(&id, PATIENCE).await?;

    let mut seen = HashSet::new();
    for at in 0..NODES {
        let pools = cluster.api(at).ask("GET", "/stats", None).await?.json()?;
        let pools = pools.as_array().context("a list")?;
        let healthy = pools.iter().filter(|pool| pool["status"] == "healthy" && pool["concurrency"] == 2);
        let ids: Vec<String> = healthy.filter_map(|pool| pool["worker_pool_id"].as_str().map(str::to_owned)).collect();
        ensure!(ids.len() == NODES, "node {at} shows {pools:?}");
        seen.extend(ids);
        let job = cluster.api(at).get(&id).await?.with_context(|| format!("node {at} does not know the job"))?;
        ensure!(is_final(&job) && job["parameters"] == json!({"n": 1}), "{job}");
    }
    ensure!(seen.len() == NODES, "one host, and still as many pools as nodes: {seen:?}");

    // The doctor sees the same from beside them.
    let doctor = |namespace: &str| -> Result<String> {
        let ran = std::process::Command::new(env!("CARGO_BIN_EXE_jobservice"))
            .arg("--data-dir")
            .arg(cluster.data(0))
            .args(["doctor", "--json"])
            .env("JOB_SERVICE_POOL_BACKEND", "redis")
            .env("JOB_SERVICE_POOL_REDIS_URL", format!("redis://127.0.0.1:{}", cluster.redis.port()))
            .env("JOB_SERVICE_POOL_REDIS_NAMESPACE", namespace)
            .output()?;
        let told = String::from_utf8_lossy(&ran.stdout).into_owned();
        // No append-only file, or no store at all, is a warning, and nothing is broken.
        ensure!(ran.status.code() == Some(1), "{told}");
        Ok(told)
    };
    let told = doctor("harbor_job_service")?;
    for word in ["appendonly", "1 success", "3 living pools with 6 workers", "every index is sound"] {
        ensure!(told.contains(word), "{word} is not in {told}");
    }
    // Where no node was it settles nothing for those that may come.
    let told = doctor("unused")?;
    ensure!(told.contains("no node has used the namespace") && told.contains("appendonly"), "{told}");
    let keys = cluster.redis.cli(&["KEYS", "{unused:*"]);
    ensure!(keys.trim().is_empty(), "the doctor has made {keys}");

    // One that was killed is shown as dead, by the others.
    cluster.kill(2)?;
    until(Duration::from_secs(20), "the killed node is shown as dead", async || {
        let pools = cluster.api(0).ask("GET", "/stats", None).await?.json()?;
        let dead = pools.as_array().context("a list")?.iter().filter(|pool| pool["status"] == "dead").count();
        Ok(dead == 1)
    })
    .await
}
