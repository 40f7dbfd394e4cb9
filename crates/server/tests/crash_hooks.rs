//! Goal: every event of every job reaches its hook, in order per job and signed, whatever happens to either side.
//! Method: the real binary with a receiver that answers almost a third of what comes with errors, silence and resets;
//! the service is killed again and again while jobs run and events are on their way, and then everything must have
//! arrived. Signatures are verified by the library of the standard. Must show (d) of the hooks.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chaos::{Api, Context, Result, Service, Setup, count, ensure, now, pause, status, wall_ms};
use jobservice_conformance::receiver::{Message, Receiver, Reply};
use jobservice_conformance::rng::Rng;
use serde_json::{Value, json};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// An event is failed at most this often, so that the pauses between its tries stay short.
const FAULTS_MAX: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_in_order_whatever_is_killed() -> Result<()> {
    let seed =
        std::env::var("JOBSERVICE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| wall_ms() as u64);
    println!("JOBSERVICE_SEED={seed}");
    let (jobs, kills) = (count(300, 2500), count(4, 20));
    let forged = Arc::new(AtomicUsize::new(0));
    let receiver = receiver(seed, Arc::clone(&forged)).await;
    let data = tempfile::tempdir()?;
    let setup = Setup::real(data.path(), 8)
        .env("JOB_SERVICE_HOOK_SECRET", SECRET)
        .env("JOB_SERVICE_HOOK_TIMEOUT_SECONDS", "1")
        .env("JOB_SERVICE_HOOK_PER_HOST", "64");
    let mut rng = Rng::new(seed);

    let mut ids: Vec<String> = Vec::new();
    for round in 0..kills {
        let mut service = Service::start(&setup).await?;
        while ids.len() < jobs * (round + 1) / kills {
            ids.push(submit(&service.api(), &receiver, &mut rng).await?);
        }
        pause(Duration::from_millis(rng.between(100, 2000))).await; // bounded poll
        service.kill()?;
    }
    let service = Service::start(&setup).await?;
    let api = service.api();
    let mut of_jobs: HashMap<String, Vec<Value>> = HashMap::new();
    let started = now();
    for id in &ids {
        loop {
            let job = api.get(id).await?.context("what was acknowledged is there")?;
            let events = api.hooks(id).await?;
            let is_done = chaos::is_final(&job) && events.iter().all(|event| event["delivery"] == "delivered");
            if is_done {
                let last = events.last().context("a job with a hook has events")?;
                ensure!(last["status"].as_str() == Some(status(&job)), "{id} ended as {job}, told was {last}");
                of_jobs.insert(id.clone(), events);
                break;
            }
            ensure!(started.elapsed() < Duration::from_secs(150), "{job} {events:?}");
            pause(Duration::from_millis(50)).await; // bounded poll
        }
    }

    let messages = receiver.messages();
    let mut arrived: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let (mut doubled, mut disordered, mut missing) = (0, 0, 0);
    for message in messages.iter().filter(|message| message.is_taken) {
        let (job, seq) = message.event();
        if seen.insert(message.id()) {
            arrived.entry(job).or_default().push(seq);
        } else {
            doubled += 1;
        }
    }
    for seqs in arrived.values() {
        disordered += usize::from(!seqs.is_sorted());
    }
    for (id, events) in &of_jobs {
        for event in events {
            let seq = event["seq"].as_u64().context("a number")? as u32;
            missing += usize::from(!arrived.get(id.as_str()).is_some_and(|seqs| seqs.contains(&seq)));
        }
    }
    let failed = messages.iter().filter(|message| !message.is_taken).count();
    println!(
        "{kills} kills, {} jobs, {} events arrived in {} messages of which {failed} were failed: {missing} missing, \
         {disordered} jobs out of order, {doubled} doubled, {} forged",
        ids.len(),
        seen.len(),
        messages.len(),
        forged.load(Ordering::SeqCst),
    );
    ensure!(seen.len() >= ids.len() * 2, "each job has two events at least");
    ensure!(failed * 10 > messages.len(), "the receiver was too kind: {failed} of {} failed", messages.len());
    ensure!(missing == 0 && disordered == 0, "{missing} missing, {disordered} out of order");
    ensure!(forged.load(Ordering::SeqCst) == 0, "signatures that are not ours");
    // What was on its way at a kill, or was taken by the receiver and reset or timed out on its way back.
    ensure!(doubled <= seen.len() / 100 + kills * 64, "{doubled} of {} doubled", seen.len());
    Ok(())
}

/// Submits a job: of four one checks in, the others do nothing.
async fn submit(api: &Api, receiver: &Receiver, rng: &mut Rng) -> Result<String> {
    let (name, parameters) =
        if rng.chance(25) { ("demo", json!({"image": "demo:1", "seconds": 0.05})) } else { ("noop", json!({})) };
    let hook = receiver.url("/");
    api.submit_job(json!({
        "name": name, "parameters": parameters, "status_hook": hook, "metadata": {"kind": "Generic"},
    }))
    .await
}

/// A receiver that fails thirty of a hundred messages: a third each by an error, by silence and by a reset. What is not
/// signed as it should be is counted.
async fn receiver(seed: u64, forged: Arc<AtomicUsize>) -> Receiver {
    let theirs = standardwebhooks::Webhook::new(SECRET).expect("a good secret");
    let tries: parking_lot::Mutex<(Rng, HashMap<String, u32>)> =
        parking_lot::Mutex::new((Rng::new(seed), HashMap::new()));
    Receiver::start(move |message: &Message| {
        let headers =
            message.headers.iter().filter(|(name, _)| name.starts_with("webhook-")).map(|(name, value)| {
                (name.parse().expect("a header's name"), value.parse().expect("a header's value"))
            });
        let headers: reqwest::header::HeaderMap = headers.collect();
        if theirs.verify(&message.body, &headers).is_err() {
            forged.fetch_add(1, Ordering::SeqCst);
        }
        let mut tries = tries.lock();
        let (rng, faults) = &mut *tries;
        let faults = faults.entry(message.id().to_owned()).or_default();
        if *faults >= FAULTS_MAX || !rng.chance(30) {
            return Reply::Status(200);
        }
        *faults += 1;
        match rng.below(6) {
            0 => Reply::Status(500),
            1 => Reply::Status(404),
            2 | 3 => Reply::Hang,
            _ => Reply::Reset,
        }
    })
    .await
}
