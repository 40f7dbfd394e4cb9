//! Goal: jobs that kill, hang or flood take nobody with them.
//! Method: a service with seven kinds of poison jobs beside ordinary ones, restarted whenever it dies, as a supervisor
//! would; meanwhile GETs are timed. Must show (f) of the spine.

mod chaos;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chaos::{Api, Result, Service, Setup, count, ensure, now, pause, percentile, soak, status};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Name, and how a job of that name must end: the error it must carry.
const POISON: [(&str, &str); 6] = [
    ("panic", "panicked"),
    ("abort", "worker lost 3 times"),
    ("overflow", "worker lost 3 times"),
    ("spin", "timed out"),
    ("block", "timed out"),
    ("deaf", "timed out"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_jobs_die_alone() -> Result<()> {
    let data = tempfile::tempdir()?;
    let flood_bytes: u64 = if soak() { 1 << 30 } else { 64 << 20 };
    let setup = Setup::example("poison", data.path(), 16)
        .env("JOB_SERVICE_GRACE_SECONDS", "2")
        .env("POISON_FLOOD_BYTES", flood_bytes.to_string());
    let mut service = Service::start(&setup).await?;
    let api = Arc::new(Mutex::new(service.api()));
    let current = |api: &Arc<Mutex<Api>>| api.lock().clone();

    // All at once: ordinary jobs, then the poison, then more ordinary jobs behind it.
    let mut ordinary = Vec::new();
    for n in 0..count(100, 400) {
        ordinary.push(current(&api).submit("demo", json!({"image": "demo:1", "seconds": 0.2}), json!({})).await?);
        if n == 10 {
            let flood = current(&api).submit("flood", json!({}), json!({})).await?;
            ordinary.push(flood);
        }
    }
    let mut poison = Vec::new();
    for (name, error) in POISON {
        // In a moment: the first of them kills the service, and all are to be there by then.
        let metadata = json!({"kind": "Scheduled", "schedule_delay": 1, "max_fails": 1, "priority": 5});
        poison.push((current(&api).submit(name, json!({}), metadata).await?, name, error));
    }

    // Times GETs until told to stop; those that hit a restart are not answered and do not count.
    let done = Arc::new(AtomicBool::new(false));
    let probe = tokio::spawn({
        let (api, done, id) = (Arc::clone(&api), Arc::clone(&done), ordinary[0].clone());
        async move {
            let mut samples = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let api = api.lock().clone();
                let asked = now();
                if api.get(&id).await.is_ok() {
                    samples.push(asked.elapsed());
                }
                pause(Duration::from_millis(10)).await;
            }
            samples
        }
    });

    let started = now();
    let mut restarts = 0;
    let (mut memory_max, mut last) = (0, String::new());
    loop {
        if service.ended()?.is_some() {
            restarts += 1;
            service = loop {
                // A poison job may end it again before it is ready: a supervisor starts it once more.
                match Service::start(&setup).await {
                    Ok(service) => break service,
                    Err(error) if restarts < 20 && error.to_string().contains("SIGABRT") => restarts += 1,
                    Err(error) => return Err(error),
                }
            };
            *api.lock() = service.api();
        }
        memory_max = memory_max.max(service.memory().unwrap_or(0));
        let mut waiting = 0;
        // A request may meet the service in its fall: then the next round looks again.
        for id in ordinary.iter().chain(poison.iter().map(|(id, ..)| id)) {
            match current(&api).get(id).await {
                Ok(Some(job)) if chaos::is_final(&job) => {}
                Ok(Some(job)) => {
                    waiting += 1;
                    last = job.to_string();
                }
                Ok(None) => chaos::bail!("{id} is lost"),
                Err(_) => waiting += 1,
            }
        }
        if waiting == 0 {
            break;
        }
        ensure!(
            started.elapsed() < Duration::from_secs(150),
            "{waiting} jobs not final after 150 s, among them {last}"
        );
        pause(Duration::from_millis(200)).await; // bounded poll
    }
    done.store(true, Ordering::Relaxed);
    let mut samples = probe.await?;
    let p99 = percentile(&mut samples, 0.99);

    let api = current(&api);
    for id in &ordinary {
        let job = api.get(id).await?.unwrap_or(Value::Null);
        ensure!(status(&job) == "success", "an ordinary job did not succeed: {job}");
    }
    for (id, name, error) in &poison {
        let job = api.get(id).await?.unwrap_or(Value::Null);
        ensure!(status(&job) == "error", "{name} is not dead: {job}");
        ensure!(
            job["error"].as_str().is_some_and(|found| found.contains(error)),
            "{name} should have died of {error:?}: {job}"
        );
    }
    println!(
        "{} ordinary jobs succeeded beside {} poison jobs, {restarts} restarts, {flood_bytes} bytes of log from one job; \
         GET p99 {p99:?} of {} samples; memory at most {} MiB; {:?} in all",
        ordinary.len(),
        poison.len(),
        samples.len(),
        memory_max >> 20,
        started.elapsed(),
    );
    // Three each; the first time they may have run side by side, after that each runs as the only suspect.
    ensure!(restarts >= 5, "abort and overflow should have killed the process three times each: {restarts}");
    ensure!(samples.len() > 200 && p99 < Duration::from_millis(100), "GET p99 {p99:?} of {} samples", samples.len());
    ensure!(memory_max < 400 << 20, "memory went up to {memory_max}");
    Ok(())
}
