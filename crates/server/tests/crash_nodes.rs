//! Goal: nodes may die at any moment: nothing acknowledged is lost, what ran runs again soon and once, limits hold.
//! Method: real binaries over a Redis of the test's own, killed or stopped under load; their jobs leave marks in one
//! file, which shows what ran where and what ran at the same time. Must show (b), (c) and (f) of the issue about Redis.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;
mod nodes;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chaos::{Context as _, Result, count, ensure, is_final, now, pause, status};
use jobservice_conformance::redis_server::APPEND_ONLY;
use nix::sys::signal::Signal;
use nodes::load::Load;
use nodes::{Cluster, Mark, PATIENCE, Random, by_process, concurrency, each_attempt_once, submit_many, until};
use serde_json::{Value, json};

const NODES: usize = 3;
const WORKERS: usize = 8;

/// How soon what ran on a killed node runs again.
const AGAIN_SECONDS: f64 = 12.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_nodes_lose_nothing_and_leak_no_limit() -> Result<()> {
    let kills = count(3, 20);
    let mut random = Random::new();
    let mut cluster = Cluster::start(&APPEND_ONLY, NODES, WORKERS).await?;
    let load = Load::start(&cluster, random.next());

    let mut killed: HashMap<i32, f64> = HashMap::new();
    for _ in 0..kills {
        pause(Duration::from_millis(1000 + random.next() % 1500)).await;
        let at = random.below(NODES);
        let pid = cluster.node(at).pid().as_raw();
        cluster.kill(at)?;
        load.aim(at, None);
        killed.insert(pid, nodes::uptime()?);
        pause(Duration::from_millis(random.next() % 1500)).await;
        cluster.restart(at).await?;
        load.aim(at, Some(cluster.api(at)));
    }
    let (acknowledged, unanswered) = load.stop().await;
    cluster.drained(0, Duration::from_secs(120)).await?;
    cluster.all_run()?;
    // No place of the limit is held by the dead: as many as it allows run at once, and no more.
    let last = submit_many(&cluster.api(0), "limited", &json!({"milliseconds": 200}), 30).await?;
    cluster.drained(0, PATIENCE).await?;

    let marks = cluster.marks.read()?;
    each_attempt_once(&marks)?;
    let jobs: HashMap<String, Value> = cluster.api(0).list("").await?.into_iter().filter_map(by_id).collect();
    let runs = by_process(&marks).values().sum::<usize>();
    let (mut again, mut worker_lost, mut slowest) = (0_usize, 0, 0.0_f64);
    for id in &acknowledged {
        let job = jobs.get(id).with_context(|| format!("lost: {id}"))?;
        ensure!(is_final(job), "{job}");
        let lost = job["error"].as_str().is_some_and(|error| error.contains("worker lost"));
        ensure!(status(job) == "success" || (status(job) == "error" && lost), "{job}");
        worker_lost += u32::from(lost);
    }
    for (id, job) in &jobs {
        if job["attempt"].as_u64() == Some(1) {
            continue;
        }
        // The record says that each run but the last was lost with its worker, and the marks that this one was killed.
        let job = cluster.api(0).get(id).await?.with_context(|| format!("lost: {id}"))?;
        let attempts = job["attempts"].as_array().context("attempts")?;
        let before = attempts.len() - usize::from(status(&job) == "success");
        ensure!(attempts[..before].iter().all(|attempt| attempt["outcome"] == "worker_lost"), "{job}");
        let begun: Vec<&Mark> = marks.iter().filter(|mark| mark.id == *id && mark.what == "begin").collect();
        for pair in begun.windows(2) {
            let [first, second] = pair else { continue };
            let at = killed.get(&first.pid).with_context(|| format!("ran again though nobody killed {first:?}"))?;
            again += 1;
            // The second time it waits on purpose, and one with a limit waits for its turn.
            if first.attempt == 1 && second.attempt == 2 && first.name == "mark" {
                slowest = slowest.max(second.at - at);
            }
        }
    }
    let most = concurrency(&marks, "limited");
    let last: HashSet<&str> = last.iter().map(String::as_str).collect();
    let of_last: Vec<Mark> = marks.iter().filter(|mark| last.contains(mark.id.as_str())).cloned().collect();
    println!(
        "{kills} kills, {} acknowledged, {unanswered} unanswered, 0 lost; {runs} runs, {again} of them again ({:.0} ppm), \
         all after a reap, the slowest {slowest:.1} s after the kill; {worker_lost} ended as worker lost; \
         limit 3: {most} at once at the most, {} at the end",
        acknowledged.len(),
        again as f64 * 1e6 / runs as f64,
        concurrency(&of_last, "limited"),
    );
    ensure!(acknowledged.len() > kills * 100, "the load did not load: {} acknowledged", acknowledged.len());
    ensure!(slowest > 0.0, "no kill hit a running job");
    ensure!(slowest <= AGAIN_SECONDS, "a job ran again only {slowest:.1} s after the kill");
    ensure!(most <= 3, "{most} at once, where the limit is 3");
    ensure!(concurrency(&of_last, "limited") == 3, "the limit has leaked");
    Ok(())
}

fn by_id(job: Value) -> Option<(String, Value)> {
    Some((job["id"].as_str()?.to_owned(), job))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_for_three_leases_reports_in_vain_and_goes_on() -> Result<()> {
    const LEASES: Duration = Duration::from_secs(30);
    let mut cluster = Cluster::start(&APPEND_ONLY, 2, 4).await?;

    for _ in 0..count(1, 20) {
        // Jobs that the sleeper would end as soon as it wakes, and one that would go on for long; elsewhere they are short.
        let short = json!({"milliseconds": 3_000, "again_milliseconds": 100});
        let long = json!({"milliseconds": 120_000, "again_milliseconds": 100});
        let mut ids = submit_many(&cluster.api(0), "mark", &short, 6).await?;
        ids.extend(submit_many(&cluster.api(0), "mark", &long, 2).await?);
        let begun = async || {
            let marks = cluster.marks.read()?;
            Ok(marks.iter().filter(|mark| mark.what == "begin" && ids.contains(&mark.id)).count() == ids.len())
        };
        until(PATIENCE, "all of them run", begun).await?;
        let marks = cluster.marks.read()?;
        let ran_long = marks.iter().find(|mark| ids[6..].contains(&mark.id)).context("a long one runs")?;
        let (sleeper, pid) = (cluster.with_pid(ran_long.pid)?, ran_long.pid);
        let waker = 1 - sleeper;
        let slept = now();
        cluster.node(sleeper).signal(Signal::SIGSTOP)?;
        let on_sleeper = |id: &str| marks.iter().any(|mark| mark.id == id && mark.what == "begin" && mark.pid == pid);
        let its: Vec<&String> = ids.iter().filter(|id| on_sleeper(id)).collect();
        ensure!(!its.is_empty(), "nothing runs on the node that sleeps");

        // They run elsewhere, to their end, while it sleeps.
        let mut before = HashMap::new();
        for id in &its {
            let job = cluster.api(waker).wait_final(id, Duration::from_secs(25)).await?;
            ensure!(status(&job) == "success" && job["attempt"] == 2, "{job}");
            ensure!(job["attempts"][0]["outcome"] == "worker_lost", "{job}");
            before.insert((*id).clone(), job);
        }
        // What the other node runs for long itself need not be waited for.
        for id in ids[6..].iter().filter(|id| !its.contains(id)) {
            ensure!(cluster.api(waker).act(id, "stop").await? == 204, "a stop of a running job");
        }
        pause(LEASES.saturating_sub(slept.elapsed())).await;
        let woken = nodes::uptime()?;
        cluster.node(sleeper).signal(Signal::SIGCONT)?;

        // Its runs end: by themselves, or because it learns that they are its own no more.
        let left = async || {
            let marks = cluster.marks.read()?;
            let ended = |id: &str| marks.iter().any(|mark| mark.id == id && mark.pid == pid && mark.what != "begin");
            Ok(its.iter().all(|id| ended(id)))
        };
        until(Duration::from_secs(10), "the runs of the sleeper end", left).await?;
        let marks = cluster.marks.read()?;
        let ends = marks.iter().filter(|mark| mark.pid == pid && mark.what != "begin" && before.contains_key(&mark.id));
        let slowest = ends.map(|mark| mark.at - woken).fold(0.0, f64::max);

        // It runs new jobs, alone, and its late reports have changed nothing.
        cluster.node(waker).signal(Signal::SIGSTOP)?;
        let resumed = submit_many(&cluster.api(sleeper), "mark", &json!({}), 10).await?;
        for id in &resumed {
            let job = cluster.api(sleeper).wait_final(id, PATIENCE).await?;
            ensure!(status(&job) == "success" && job["attempt"] == 1, "{job}");
        }
        cluster.node(waker).signal(Signal::SIGCONT)?;
        for (id, job) in &before {
            let after = cluster.api(sleeper).get(id).await?.context("it is there")?;
            ensure!(after == *job, "a late report was taken: {job} became {after}");
        }
        cluster.all_run()?;
        println!("{} jobs ran elsewhere; the sleeper let the last of them go {slowest:.2} s after it woke", its.len());
        ensure!(slowest <= 1.0, "it let a run that was its own no more go only {slowest:.2} s after it woke");
    }
    Ok(())
}
