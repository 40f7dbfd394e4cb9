//! Goal: a policy fires once at each tick, whoever dies, and nobody is taken for dead because its clock is another one.
//! Method: five nodes of one host whose clocks are five minutes apart (libfaketime, which leaves the monotonic clock
//! alone), a policy that is due every two seconds, kills around its ticks. Must show (c) of the issue about Redis.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;
mod nodes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chaos::{Context as _, Result, count, ensure, pause, status, wall_ms};
use jobservice_conformance::redis_server::{APPEND_ONLY, RedisServer};
use nodes::{Cluster, PATIENCE, Random, each_attempt_once, submit_many, until};
use serde_json::json;

const NODES: usize = 5;

/// What a node's clock is ahead of the next one's.
const APART_SECONDS: i64 = 300;

const TICK_SECONDS: i64 = 2;

/// The library that sets the clock of a process, of the Debian package libfaketime.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

fn ahead_seconds(node: usize) -> i64 {
    (node as i64 - 2) * APART_SECONDS
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tick_fires_once_over_kills_and_clocks_that_differ() -> Result<()> {
    let ticks = count(10, 200);
    let mut random = Random::new();
    let library = FAKETIME.iter().find(|path| std::path::Path::new(path).exists());
    let library = library.context("libfaketime is missing: see scripts/setup.sh")?;
    let mut cluster = Cluster::on(RedisServer::on_a_port(&APPEND_ONLY))?;
    for node in 0..NODES {
        let offset = format!("{:+}", ahead_seconds(node));
        let set = |setup: chaos::Setup| {
            setup.env("LD_PRELOAD", *library).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1")
        };
        cluster.add(4, set).await?;
        // The clock is set indeed: it is the one that dates the answers.
        let date = cluster.api(node).ask("GET", "/stats", None).await?.date.context("a date")?;
        let ahead = seconds_of_day(&date)? - (wall_ms() / 1000).rem_euclid(86_400) - ahead_seconds(node);
        let off = (ahead + 43_200).rem_euclid(86_400) - 43_200;
        ensure!(off.abs() <= 5, "node {node} is {off} s off its own clock: {date}");
    }

    // Longer than a lease: with an eye on the wall clock a node would take those of another for dead.
    let long = submit_many(&cluster.api(0), "mark", &json!({"milliseconds": 12_000}), 5).await?;
    let cron = json!({"kind": "Periodic", "cron_spec": format!("*/{TICK_SECONDS} * * * * *")});
    let policy = cluster.api(1).submit("mark", json!({}), cron).await?;
    until(PATIENCE, "it fires", async || Ok(fired(&cluster, &policy).await? > 0)).await?;

    // Node 0 is never killed: it is asked. In the full test one dies at each tick, else at every third.
    let mut killed = HashSet::new();
    let every = count(3, 1);
    let mut seen = 0;
    while seen < ticks {
        let last = seen;
        until(PATIENCE, "the next tick fires", async || {
            seen = fired(&cluster, &policy).await?;
            Ok(seen > last)
        })
        .await?;
        if seen.is_multiple_of(every) {
            // Within half a second around the next tick.
            let to_next = TICK_SECONDS * 1000 - wall_ms().rem_euclid(TICK_SECONDS * 1000);
            let around = to_next - 500 + (random.next() % 1000) as i64;
            pause(Duration::from_millis(around.max(0) as u64)).await;
            let at = 1 + random.below(NODES - 1);
            killed.insert(cluster.node(at).pid().as_raw());
            cluster.kill(at)?;
            cluster.restart(at).await?;
        }
    }
    ensure!(cluster.api(0).act(&policy, "stop").await? == 204, "the policy is stopped");
    let fired = fired(&cluster, &policy).await?;
    for id in &long {
        cluster.api(0).wait_final(id, PATIENCE).await?;
    }
    cluster.drained(0, PATIENCE).await?;

    // One execution for each tick, none left out.
    let executions = cluster.api(0).list(&format!("upstream={policy}")).await?;
    let due: BTreeSet<i64> = executions.iter().filter_map(|job| job["run_at"].as_i64()).collect();
    let (first, last) = (due.first().context("a tick")?, due.last().context("a tick")?);
    let between = ((last - first) / TICK_SECONDS + 1) as usize;
    ensure!(due.iter().all(|at| at % TICK_SECONDS == 0), "a tick at another time: {due:?}");
    ensure!(
        executions.len() == due.len() && due.len() == between && between == fired,
        "{} executions, {} ticks from {first} to {last}, {between} due, {fired} fired",
        executions.len(),
        due.len()
    );

    // Each ran: once, or again because the node was killed on which it ran.
    let marks = cluster.marks.read()?;
    each_attempt_once(&marks)?;
    let mut last_run: HashMap<&str, i32> = HashMap::new();
    let mut again = 0;
    for mark in marks.iter().filter(|mark| mark.what == "begin") {
        if let Some(pid) = last_run.insert(&mark.id, mark.pid) {
            ensure!(killed.contains(&pid), "{} was taken from process {pid}, which lived", mark.id);
            again += 1;
        }
    }
    let of_policy = executions.iter().filter(|job| status(job) == "success" || status(job) == "stopped").count();
    ensure!(of_policy == executions.len(), "an execution ended otherwise: {executions:?}");
    cluster.all_run()?;
    println!(
        "{fired} ticks, {} executions, {} nodes killed, {again} runs again, each from a killed node",
        executions.len(),
        killed.len()
    );
    Ok(())
}

/// How often the policy has fired.
async fn fired(cluster: &Cluster, policy: &str) -> Result<usize> {
    let policy = cluster.api(0).get(policy).await?.context("the policy is there")?;
    Ok(policy["fired"].as_u64().context("a count")? as usize)
}

/// Of a date as HTTP writes it: `Wed, 25 Nov 2026 20:11:41 GMT`.
fn seconds_of_day(date: &str) -> Result<i64> {
    let time = date.split(' ').nth(4).with_context(|| format!("{date:?} has no time"))?;
    let parts: Vec<i64> = time.split(':').map(str::parse).collect::<std::result::Result<_, _>>()?;
    ensure!(parts.len() == 3, "{date:?} has no time");
    Ok(parts[0] * 3600 + parts[1] * 60 + parts[2])
}
