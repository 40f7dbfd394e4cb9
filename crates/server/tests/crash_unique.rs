//! Goal: whatever is killed, a unique key never has two holders, is free once its holder is final, and each 409 names the
//! holder. Method: 50 clients submit unique jobs of 100 keys to the real binary, which is killed with -9 and started again
//! meanwhile; each refusal is looked up; at the end the lives of the jobs of each key, read from the store itself, must not
//! overlap. Must show (c) of the whole original.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chaos::{Result, Service, Setup, count, ensure, now, pause};
use jobservice_client::{Client, Error, Submission};
use jobservice_core::store::Query;
use jobservice_core::{Store as _, Time};
use jobservice_sqlite::{Options, SqliteStore};
use parking_lot::Mutex;

const CLIENTS: usize = 50;
const KEYS: usize = 100;

/// A unique job of that key, which runs for a moment.
fn job(key: usize) -> Result<Submission> {
    let parameters = format!(r#"{{"image": "demo:{key}", "seconds": 0.02}}"#);
    let mut submission = Submission::new("demo").parameters(parameters)?;
    submission.metadata.unique = true;
    Ok(submission)
}

#[derive(Default)]
struct Told {
    submitted: AtomicUsize,
    accepted: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// One client: draws the next submission until all are done. The service it talks to changes with each start.
async fn submit_all(service: Arc<Mutex<Client>>, told: Arc<Told>, submits: usize) {
    loop {
        let number = told.submitted.fetch_add(1, Ordering::Relaxed);
        if number >= submits {
            return;
        }
        let key = number.wrapping_mul(7919) % KEYS;
        let client = service.lock().clone();
        match client.submit(&job(key).expect("a valid submission")).await {
            Ok(_) => drop(told.accepted.fetch_add(1, Ordering::Relaxed)),
            Err(Error::Refused(refused)) if refused.reason == "duplicate" => {
                told.refused.fetch_add(1, Ordering::Relaxed);
                let Some(holder) = &refused.existing_id else {
                    told.wrong.lock().push(format!("key {key}: the refusal names nobody: {refused:?}"));
                    continue;
                };
                match client.get(holder).await {
                    Ok(holder)
                        if holder.parameters.as_ref().is_some_and(|of| of.get().contains(&format!("demo:{key}\""))) => {
                    }
                    Ok(other) => told.wrong.lock().push(format!("key {key}: {} is named, of another key", other.id)),
                    Err(Error::NoAnswer { .. }) => {}
                    Err(error) => told.wrong.lock().push(format!("key {key}: {holder} is named: {error}")),
                }
            }
            Err(Error::NoAnswer { .. }) => {
                told.unanswered.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_millis(20)).await; // bounded poll: the number of submits ends it
            }
            Err(error) => told.wrong.lock().push(format!("key {key}: {error}")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unique_key_has_one_holder_whatever_is_killed() -> Result<()> {
    let (submits, kills) = (count(3000, 10_000), count(3, 10));
    let data = tempfile::tempdir()?;
    let setup = Setup::real(data.path(), 8);
    let mut service = Service::start(&setup).await?;
    let client = Arc::new(Mutex::new(Client::new(&service.url, &service.secret)?));
    let told = Arc::new(Told::default());
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(submit_all(Arc::clone(&client), Arc::clone(&told), submits))).collect();

    for kill in 1..=kills {
        let until = submits * kill / (kills + 1);
        let started = now();
        while told.submitted.load(Ordering::Relaxed) < until {
            ensure!(started.elapsed() < Duration::from_secs(120), "the clients do not get on");
            pause(Duration::from_millis(1)).await; // bounded poll
        }
        service.kill()?;
        service = Service::start(&setup).await?;
        *client.lock() = Client::new(&service.url, &service.secret)?;
    }
    for client in clients {
        client.await?;
    }

    // Each key is free once its holder is final.
    let client = client.lock().clone();
    let started = now();
    for key in 0..KEYS {
        loop {
            match client.submit(&job(key)?).await {
                Ok(last) => break drop(client.wait(&last.job.id, Duration::from_secs(30)).await?),
                Err(Error::Refused(refused)) if refused.reason == "duplicate" => {
                    ensure!(started.elapsed() < Duration::from_secs(90), "key {key} is never free: {refused:?}");
                    pause(Duration::from_millis(20)).await; // bounded poll
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    service.signal(nix::sys::signal::Signal::SIGTERM)?;
    service.wait(Duration::from_secs(30)).await?;

    let store = SqliteStore::open(data.path().join("jobs.db"), Options::default())?;
    let mut lives: BTreeMap<String, Vec<(Time, Time, String)>> = BTreeMap::new();
    let mut query = Query { limit: 1000, ..Query::default() };
    loop {
        let page = store.list(&query).await?;
        for job in page.jobs {
            let ended = job.state.finished_at;
            ensure!(ended.is_some() && !job.state.holds_key, "{} is {}", job.id, job.state.status);
            let life = (job.spec.enqueued_at, ended.unwrap_or(Time::MAX), job.id.to_string());
            lives.entry(job.spec.parameters.to_string()).or_default().push(life);
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    let mut jobs = 0;
    for (key, lives) in &mut lives {
        lives.sort();
        jobs += lives.len();
        for pair in lives.windows(2) {
            ensure!(pair[0].1 <= pair[1].0, "{key} had two holders: {pair:?}");
        }
    }
    let found = store.audit().await?;
    let (accepted, refused) = (told.accepted.load(Ordering::Relaxed), told.refused.load(Ordering::Relaxed));
    println!(
        "{submits} submits on {KEYS} keys by {CLIENTS} clients, {kills} kills: {accepted} accepted, {refused} refused, {} \
         unanswered, {jobs} jobs, no key with two holders",
        told.unanswered.load(Ordering::Relaxed)
    );
    ensure!(told.wrong.lock().is_empty(), "{:?}", told.wrong.lock());
    ensure!(found.is_empty(), "{found:?}");
    ensure!(refused > 100 && accepted > KEYS, "nothing met: {accepted} accepted, {refused} refused");
    Ok(())
}
