//! Goal: what operators do, as they see it: many jobs at once, bulk actions, queues, numbers.
//! Method: the real binary on a port of its own, driven by our own typed client, and by the command line.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use chaos::{Context as _, Result, Service, Setup, count, ensure, now, pause};
use jobservice_client::{BulkAction, BulkDone, Client, ListQuery, QueueChange, Submission};
use jobservice_core::Status;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(data: &Path, workers: usize) -> Result<(Service, Client)> {
    let service = Service::start(&Setup::real(data, workers)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    Ok((service, client))
}

fn raw(job: &Value) -> Result<Box<RawValue>> {
    Ok(RawValue::from_string(job.to_string())?)
}

/// So many jobs that wait an hour.
fn later(name: &str, jobs: usize) -> Result<Vec<Box<RawValue>>> {
    let job = json!({"name": name, "metadata": {"kind": "Scheduled", "schedule_delay": 3600}});
    (0..jobs).map(|_| raw(&job)).collect()
}

/// Bulk action until all is seen.
async fn act(client: &Client, action: BulkAction, filter: &ListQuery) -> Result<BulkDone> {
    let mut all = BulkDone::default();
    loop {
        let cursor = all.next.take();
        all.add(client.act(action, filter, cursor.as_deref()).await?);
        if all.next.is_none() {
            return Ok(all);
        }
    }
}

fn reason(result: std::result::Result<impl Sized, jobservice_client::Error>) -> String {
    result.err().and_then(|error| error.reason().map(str::to_owned)).unwrap_or_default()
}

#[tokio::test]
async fn each_job_of_a_batch_is_answered_on_its_own() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(data.path(), 2).await?;
    let unique =
        json!({"job": {"name": "noop", "metadata": {"kind": "Scheduled", "schedule_delay": 60, "unique": true}}});
    let jobs = [
        json!({"name": "noop", "parameters": {"n": 1}}),
        json!({"job": {"name": "noop", "metadata": {"kind": "Generic", "pririty": 1}}}),
        json!({"name": "nope"}),
        unique.clone(),
        unique,
        json!({"name": "demo", "parameters": {"image": "redis"}}),
        json!(7),
        json!({"name": "noop", "parameters": "x".repeat(300 * 1024)}),
        json!({"name": "noop", "metadata": {"kind": "Generic", "idempotency_key": "k"}}),
        json!({"name": "noop", "metadata": {"kind": "Generic", "idempotency_key": "k"}}),
    ];

    let answers = client.batch(&jobs.iter().map(raw).collect::<Result<Vec<_>>>()?).await?;

    let codes: Vec<u16> = answers.iter().map(|answer| answer.code).collect();
    assert_eq!(codes, [202, 202, 400, 202, 409, 400, 400, 413, 202, 202]);
    let reasons: Vec<&str> = answers.iter().filter_map(|answer| answer.reason.as_deref()).collect();
    assert_eq!(reasons, ["unknown_name", "duplicate", "invalid_request", "invalid_request", "body_too_large"]);
    assert!(answers[1].warnings[0].contains("job.metadata.pririty"), "{:?}", answers[1]);
    let id = |at: usize| answers[at].job.as_ref().map(|job| job.id.clone());
    assert_eq!((answers[4].existing_id.clone(), id(8), answers[9].repeated), (id(3), id(9), true));
    let first = client.wait(&id(0).context("an id")?, PATIENCE).await?;
    assert_eq!((first.status, first.parameters.as_ref().map(|raw| raw.get())), (Status::Success, Some("{\"n\":1}")));

    assert_eq!(client.batch(&[]).await?.len(), 0);
    assert_eq!(reason(client.batch(&later("noop", 10_001)?).await), "invalid_request");
    Ok(())
}

#[tokio::test]
async fn a_bulk_action_reaches_all_that_the_filter_means_and_nothing_else() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(data.path(), 2).await?;
    let many = count(3000, 30_000);
    client
        .batch(
            &later("demo", 10)?
                .iter()
                .map(|_| {
                    raw(&json!({"name": "demo", "parameters": {"image": "demo"},
        "metadata": {"kind": "Scheduled", "schedule_delay": 3600}}))
                })
                .collect::<Result<Vec<_>>>()?,
        )
        .await?;
    for part in later("noop", many)?.chunks(1000) {
        client.batch(part).await?;
    }
    let noop = ListQuery { name: Some("noop".to_owned()), ..ListQuery::default() };

    let cancelled = act(&client, BulkAction::Cancel, &noop).await?;

    assert_eq!((cancelled.matched, cancelled.done, cancelled.refused), (many as u64, many as u64, 0));
    let counts = client.counts().await?;
    assert_eq!((counts["cancelled"], counts["scheduled"]), (many as u64, 10));
    let again = act(&client, BulkAction::Cancel, &noop).await?;
    assert_eq!((again.done, again.unchanged), (0, many as u64));
    let waiting = ListQuery { status: Some("scheduled".to_owned()), ..noop.clone() };
    assert_eq!(act(&client, BulkAction::Stop, &waiting).await?, BulkDone::default());
    let deleted = act(&client, BulkAction::Delete, &ListQuery::default()).await?;
    assert_eq!((deleted.done, deleted.refused), (many as u64, 10));
    assert_eq!(client.counts().await?["cancelled"], 0);
    Ok(())
}

#[tokio::test]
async fn queues_are_paused_limited_and_explained() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(data.path(), 4).await?;
    let set = async |change| client.set_queue("demo", change).await;
    let demo = Submission::new("demo").parameters(r#"{"image": "demo", "seconds": 60}"#)?;

    let paused = set(QueueChange { paused: Some(true), ..QueueChange::default() }).await?;
    assert!(paused.paused && paused.pools == 1 && paused.warnings.is_empty(), "{paused:?}");
    let first = client.submit(&demo).await?.job.id;
    let second = client.submit(&demo).await?.job.id;
    let waits = async |id: &str| Ok::<_, jobservice_client::Error>(client.get(id).await?.waiting.map(|why| why.reason));
    assert_eq!(waits(&first).await?.as_deref(), Some("paused"));
    let queue = client.queue("demo").await?;
    assert!(queue.pending == 2 && queue.oldest_pending_ms.is_some(), "{queue:?}");

    set(QueueChange { paused: Some(false), max_concurrency: Some(Some(1)), weight: Some(Some(7)) }).await?;
    let started = now();
    while client.get(&first).await?.status != Status::Running {
        ensure!(started.elapsed() < PATIENCE, "the first job does not run");
        pause(Duration::from_millis(5)).await; // bounded poll
    }
    assert_eq!(waits(&second).await?.as_deref(), Some("at_limit"));
    let queue = client.queue("demo").await?;
    assert_eq!((queue.running, queue.max_concurrency, queue.weight), (1, Some(1), 7));
    assert_eq!((queue.operator.weight, queue.code.and_then(|code| code.weight)), (Some(7), Some(1000)));
    let cleared =
        set(QueueChange { weight: Some(None), max_concurrency: Some(None), ..QueueChange::default() }).await?;
    assert_eq!((cleared.weight, cleared.max_concurrency), (1000, None));

    let strange = client.set_queue("strange", QueueChange { paused: Some(true), ..QueueChange::default() }).await?;
    assert!(strange.warnings[0].contains("no living pool"), "{strange:?}");
    let names: Vec<String> = client.queues().await?.into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, ["demo", "noop", "strange"]);
    assert_eq!(reason(set(QueueChange { weight: Some(Some(0)), ..QueueChange::default() }).await), "invalid_request");
    assert_eq!(reason(set(QueueChange::default()).await), "invalid_request");
    Ok(())
}

#[tokio::test]
async fn jobs_are_found_and_minutes_told() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(data.path(), 2).await?;
    let plain = client.submit(&Submission::new("noop").parameters(r#"{"who": "Somebody"}"#)?).await?.job.id;
    client.batch(&later("noop", 3)?).await?;
    client.wait(&plain, PATIENCE).await?;

    let found = async |query: ListQuery| {
        Ok::<_, jobservice_client::Error>(
            client.list(&query).await?.jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(),
        )
    };
    let text = |text: &str| ListQuery { text: Some(text.to_owned()), ..ListQuery::default() };
    assert_eq!(found(text("somebody")).await?, std::slice::from_ref(&plain));
    assert_eq!(found(text("nobody")).await?.len(), 0);
    let generic = ListQuery { kind: Some("generic".to_owned()), ..ListQuery::default() };
    assert_eq!(found(generic).await?, std::slice::from_ref(&plain));
    // Periodic ones are no jobs: nothing found would read as nothing there.
    let periodic = found(ListQuery { kind: Some("periodic".to_owned()), ..ListQuery::default() }).await;
    assert!(periodic.is_err_and(|error| error.to_string().contains("/schedules")));
    assert_eq!(found(ListQuery { since: Some("1h".to_owned()), ..ListQuery::default() }).await?.len(), 4);
    assert_eq!(found(ListQuery { until: Some("1h".to_owned()), ..ListQuery::default() }).await?.len(), 0);

    let minutes = client.minutes(Some("noop"), None).await?;
    assert_eq!(minutes.iter().map(|minute| minute.submitted).sum::<u64>(), 4);
    assert_eq!(minutes.iter().map(|minute| minute.succeeded).sum::<u64>(), 1);
    assert_eq!(client.minutes(Some("demo"), Some("2h")).await?.len(), 0);
    assert_eq!(reason(client.minutes(None, Some("30d")).await), "invalid_request");
    Ok(())
}

/// Must show (e) of the whole, first half: a bulk of one name does not hold up another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_starts_within_a_second_beside_a_bulk_of_another_name() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(data.path(), 4).await?;
    let many = count(5_000, 100_000);
    // Each takes a while, so that the bulk is still there when the other comes.
    let bulk = raw(&json!({"name": "demo", "parameters": {"image": "demo", "seconds": 0.2}}))?;
    for part in vec![bulk; many].chunks(5000) {
        client.batch(part).await?;
    }

    let asked = now();
    let other = client.submit(&Submission::new("noop")).await?.job.id;
    let job = client.wait(&other, PATIENCE).await?;

    let left = client.queue("demo").await?.pending;
    println!(
        "beside {left} waiting jobs of a bulk of {many}: waited {:?} ms, done after {:?}",
        job.wait_ms,
        asked.elapsed()
    );
    assert!(left > many as u64 / 2 && job.status == Status::Success, "{left} left, {job:?}");
    assert!(job.wait_ms.is_some_and(|ms| ms < 1000), "it waited {:?} ms", job.wait_ms);
    Ok(())
}

/// Must show (e) of the whole, second half: a limit outlives its holder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_job_of_a_limited_name_starts_soon_after_its_holder_was_killed() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (mut service, client) = start(data.path(), 4).await?;
    client.set_queue("demo", QueueChange { max_concurrency: Some(Some(1)), ..QueueChange::default() }).await?;
    let demo = Submission::new("demo").parameters(r#"{"image": "demo", "seconds": 600}"#)?;
    client.submit(&demo).await?;
    let running = ListQuery { status: Some("running".to_owned()), ..ListQuery::default() };
    let one_runs = async |client: &Client| -> Result<String> {
        let started = now();
        loop {
            let jobs = client.list(&running).await?.jobs;
            ensure!(jobs.len() <= 1, "{} run, and the limit is 1", jobs.len());
            if let Some(job) = jobs.first() {
                return Ok(job.id.clone());
            }
            ensure!(started.elapsed() < PATIENCE, "none runs");
            pause(Duration::from_millis(5)).await; // bounded poll
        }
    };

    for round in 1..=count(2, 10) {
        let client = Client::new(&service.url, &service.secret)?;
        one_runs(&client).await?;
        // One that lost its worker twice waits a while, and three times is the end of it: there is a next one each time.
        client.submit(&demo).await?;
        let killed = now();
        service.kill()?;
        service = Service::start(&Setup::real(data.path(), 4)).await?;
        let client = Client::new(&service.url, &service.secret)?;

        one_runs(&client).await?;

        println!("kill {round}: the next runs after {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(12), "{:?}", killed.elapsed());
    }
    Ok(())
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs a command beside the service of that data directory.
async fn run(data: &Path, args: &[&str]) -> Result<Ran> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobservice"));
    command.arg("--data-dir").arg(data).args(args).env_remove("CORE_SECRET").env_remove("JOBSERVICE_URL");
    // Blocks: on a thread of its own beside the test's service.
    let output: Output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_get_by_with_the_command_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path();
    let (_service, client) = start(data, 2).await?;
    let paused = run(data, &["queues", "pause", "noop"]).await?;
    assert!(paused.code == 0 && paused.out.contains("paused"), "{} {}", paused.out, paused.err);
    let file = data.join("jobs.ndjson");
    let mut lines = "{\"name\": \"noop\", \"parameters\": {\"n\": 1}}\n".repeat(2500);
    lines.push_str("{\"name\": \"nope\"}\n");
    std::fs::write(&file, lines)?;

    let batch = run(data, &["batch", file.to_str().context("a path")?]).await?;
    assert_eq!((batch.code, batch.out.lines().count()), (1, 2500), "{}", batch.err);
    assert!(batch.err.contains("job 2501: ") && batch.err.contains("2500 submitted, 1 refused"), "{}", batch.err);
    assert_eq!(client.queue("noop").await?.pending, 2500);
    let counts = run(data, &["counts"]).await?;
    assert!(counts.out.lines().any(|line| line.split_whitespace().eq(["pending", "2500"])), "{}", counts.out);

    let stopped = run(data, &["stop", "--filter", "name=noop", "--filter", "status=pending"]).await?;
    assert_eq!((stopped.code, stopped.out.as_str()), (0, "stop: 2500 of 2500 done\n"), "{}", stopped.err);
    let limited = run(data, &["queues", "set", "noop", "--max-concurrency", "3"]).await?;
    assert!(limited.code == 0 && client.queue("noop").await?.max_concurrency == Some(3), "{}", limited.err);
    run(data, &["queues", "set", "noop", "--max-concurrency", "code"]).await?;
    assert_eq!(run(data, &["queues", "resume", "noop"]).await?.code, 0);
    let listed = run(data, &["queues", "list", "--json"]).await?;
    let queues: Vec<Value> = listed.out.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    assert!(queues.iter().any(|queue| queue["name"] == "noop" && queue["paused"] == false), "{}", listed.out);
    let pools = run(data, &["stats"]).await?;
    assert!(pools.out.contains("healthy") && pools.out.contains("demo noop"), "{}", pools.out);
    let minutes = run(data, &["minutes", "--name", "noop", "--json"]).await?;
    assert!(minutes.code == 0 && minutes.out.contains("\"submitted\""), "{}", minutes.out);
    assert_eq!(run(data, &["stop", "--filter", "nome=x"]).await?.code, 1);
    assert_eq!(run(data, &["stop"]).await?.code, 2, "neither ids nor a filter");
    Ok(())
}
