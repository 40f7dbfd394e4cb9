//! Goal: whatever was answered 202 survives kill -9, final statuses stay, and what ran runs again soon.
//! Method: the real binary under 500 submits/s and 8 workers, killed at random moments and started again; then every
//! acknowledged job is looked up. Must show (c) of the spine.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chaos::{Api, Result, Service, Setup, count, ensure, is_final, now, pause, status, wall_ms};
use serde_json::json;

const SUBMITS_PER_SECOND: u64 = 500;
const SUBMITTERS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9() -> Result<()> {
    let seed =
        std::env::var("JOBSERVICE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| wall_ms() as u64);
    println!("JOBSERVICE_SEED={seed}");
    let kills = count(8, 50);
    let data = tempfile::tempdir()?;
    let setup = Setup::real(data.path(), 8);
    let mut random = Random(seed);

    let mut acknowledged: Vec<String> = Vec::new();
    let mut seen_final: HashMap<String, String> = HashMap::new();
    let mut killed_at: Vec<i64> = Vec::new();
    let mut ready: Vec<Duration> = Vec::new();
    let mut unanswered = 0;

    for _ in 0..kills {
        let mut service = Service::start(&setup).await?;
        ready.push(service.ready_after);
        let load = Load::start(service.api(), random.next());
        pause(Duration::from_millis(500 + random.next() % 1500)).await;
        for job in service.api().list("status=success").await?.into_iter().take(500) {
            seen_final.insert(job["id"].as_str().unwrap_or_default().to_owned(), status(&job).to_owned());
        }
        service.kill()?;
        killed_at.push(wall_ms());
        let (ids, failed) = load.stop().await;
        acknowledged.extend(ids);
        unanswered += failed;
    }

    let service = Service::start(&setup).await?;
    ready.push(service.ready_after);
    let api = service.api();
    let mut jobs = HashMap::new();
    let started = now();
    loop {
        let waiting = api.list("status=pending").await?.len()
            + api.list("status=running").await?.len()
            + api.list("status=scheduled").await?.len();
        if waiting == 0 {
            break;
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "{waiting} jobs still wait a minute after the last kill");
        pause(Duration::from_millis(100)).await; // bounded poll
    }
    for job in api.list("").await? {
        jobs.insert(job["id"].as_str().unwrap_or_default().to_owned(), job);
    }

    let (mut lost, mut changed, mut worker_lost, mut again) = (0, 0, 0, 0);
    let mut slowest_ms = 0;
    for id in &acknowledged {
        let Some(job) = jobs.get(id) else {
            println!("lost: {id}");
            lost += 1;
            continue;
        };
        ensure!(is_final(job), "{job} is not final");
        if status(job) == "error" {
            ensure!(
                job["error"].as_str().is_some_and(|error| error.contains("worker lost")),
                "failed by itself: {job}"
            );
            worker_lost += 1;
        } else {
            ensure!(status(job) == "success", "neither success nor worker lost: {job}");
        }
        let attempts = api_attempts(&api, job).await?;
        for pair in attempts.windows(2) {
            let [first, second] = pair else { continue };
            // The kill that ended the first attempt is the last one before the service noticed.
            let noticed_ms = first.1 * 1000 + 999;
            let killed_ms = killed_at.iter().copied().filter(|at| *at <= noticed_ms).max().unwrap_or(noticed_ms);
            slowest_ms = slowest_ms.max(second.0 * 1000 - killed_ms);
            again += 1;
        }
    }
    for (id, before) in &seen_final {
        if jobs.get(id).map(status) != Some(before) {
            println!("changed: {id} was {before}, is {:?}", jobs.get(id));
            changed += 1;
        }
    }
    let ready_max = ready.iter().max().copied().unwrap_or_default();
    println!(
        "{kills} kills, {} acknowledged, {unanswered} unanswered: {lost} lost, {changed} final statuses changed of {}, \
         {again} runs again (slowest {slowest_ms} ms after the kill), {worker_lost} ended as worker lost, \
         ready again in at most {ready_max:?}",
        acknowledged.len(),
        seen_final.len(),
    );
    ensure!(acknowledged.len() > kills * 100, "the load did not load: {} acknowledged", acknowledged.len());
    ensure!(lost == 0 && changed == 0, "{lost} lost, {changed} changed");
    ensure!(slowest_ms <= 12_000, "a job ran again only {slowest_ms} ms after the kill");
    ensure!(ready_max < Duration::from_secs(2), "ready only after {ready_max:?}");
    Ok(())
}

/// Start and end of each attempt in seconds; the list view may leave attempts out, so jobs that ran more than once are
/// read one by one.
async fn api_attempts(api: &Api, job: &serde_json::Value) -> Result<Vec<(i64, i64)>> {
    if job["attempt"].as_u64().unwrap_or(1) < 2 {
        return Ok(Vec::new());
    }
    let id = job["id"].as_str().unwrap_or_default();
    let Some(job) = api.get(id).await? else { return Ok(Vec::new()) };
    let attempts = job["attempts"].as_array().cloned().unwrap_or_default();
    Ok(attempts
        .iter()
        .filter_map(|attempt| Some((attempt["started_at"].as_i64()?, attempt["ended_at"].as_i64()?)))
        .collect())
}

/// A steady load until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    submitters: Vec<tokio::task::JoinHandle<Vec<String>>>,
    failed: Arc<AtomicU64>,
}

impl Load {
    fn start(api: Api, seed: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicU64::new(0));
        let submitters = (0..SUBMITTERS)
            .map(|submitter| {
                let (api, stop, failed) = (api.clone(), Arc::clone(&stop), Arc::clone(&failed));
                let mut random = Random(seed ^ submitter);
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    let every = Duration::from_micros(1_000_000 * SUBMITTERS / SUBMITS_PER_SECOND);
                    let mut due = now();
                    while !stop.load(Ordering::Relaxed) {
                        // One in fifty runs for a tenth of a second, so that kills hit running jobs.
                        let submitted = if random.next().is_multiple_of(50) {
                            api.submit("demo", json!({"image": "demo:1", "seconds": 0.1}), json!({})).await
                        } else {
                            api.submit("noop", json!({}), json!({})).await
                        };
                        match submitted {
                            Ok(id) => ids.push(id),
                            Err(_) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        due += every;
                        pause(due.saturating_duration_since(now())).await;
                    }
                    ids
                })
            })
            .collect();
        Load { stop, submitters, failed }
    }

    async fn stop(self) -> (Vec<String>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut ids = Vec::new();
        for submitter in self.submitters {
            ids.extend(submitter.await.expect("a submitter does not panic"));
        }
        (ids, self.failed.load(Ordering::Relaxed))
    }
}

/// splitmix64: a seeded run can be replayed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
