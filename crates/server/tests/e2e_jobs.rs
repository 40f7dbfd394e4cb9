//! Goal: the life of a job as a client sees it: submit, run, read back, schedule, retry, stop, cancel, log, list.
//! Method: the real binary on a port of its own, driven by our own typed client, and by plain requests where the exact
//! bytes matter.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::time::Duration;

use chaos::{Context as _, Result, Service, Setup, ensure, now, pause};
use futures_util::StreamExt as _;
use jobservice_client::{Action, Client, ListQuery, LogQuery, Submission};
use jobservice_core::{Kind, Status};
use serde_json::{Value, json};

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(data: &tempfile::TempDir) -> Result<(Service, Client)> {
    let service = Service::start(&Setup::real(data.path(), 4)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    Ok((service, client))
}

fn demo(seconds: f64) -> Result<Submission> {
    Ok(Submission::new("demo").parameters(json!({"image": "demo:1", "seconds": seconds}).to_string())?)
}

/// Waits until the job has that status.
async fn until(client: &Client, id: &str, status: Status) -> Result<jobservice_client::Job> {
    let started = now();
    loop {
        let job = client.get(id).await?;
        if job.status == status {
            return Ok(job);
        }
        ensure!(started.elapsed() < PATIENCE, "job {id} is {} and not {status}", job.status);
        pause(Duration::from_millis(5)).await; // bounded poll
    }
}

async fn whole_log(client: &Client, id: &str, query: LogQuery) -> Result<String> {
    let mut log = Box::pin(client.log(id, query).await?);
    let mut text = Vec::new();
    while let Some(piece) = log.next().await {
        text.extend_from_slice(&piece?);
    }
    Ok(String::from_utf8(text)?)
}

fn reason(result: std::result::Result<impl Sized, jobservice_client::Error>) -> String {
    result.err().and_then(|error| error.reason().map(str::to_owned)).unwrap_or_default()
}

#[tokio::test]
async fn a_job_is_submitted_run_and_read_back() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let mut submission = Submission::new("demo").parameters(r#"{"image": "demo:1", "seconds": 2.0e-1 }"#)?;
    submission.metadata.tags = vec!["nightly".to_owned()];
    submission.metadata.priority = Some(7);

    let submitted = client.submit(&submission).await?;
    ensure!(submitted.job.status == Status::Pending && submitted.warnings.is_empty(), "{submitted:?}");
    let job = client.wait(&submitted.job.id, PATIENCE).await?;

    assert_eq!((job.status, job.attempt, job.fails, job.priority), (Status::Success, 1, 0, 7));
    assert_eq!(job.parameters.as_ref().map(|raw| raw.get()), Some(r#"{"image": "demo:1", "seconds": 2.0e-1 }"#));
    assert_eq!((job.check_in.as_deref(), job.tags.as_slice()), (Some("100%"), ["nightly".to_owned()].as_slice()));
    assert_eq!(job.ref_link, format!("/api/v1/jobs/{}", job.id));
    assert!(job.run_ms.is_some_and(|ms| ms >= 200) && job.worker.is_some() && job.attempts.len() == 1, "{job:?}");
    assert!(job.enqueue_time <= job.update_time && job.enqueue_time > 1_700_000_000);
    let log = whole_log(&client, &job.id, LogQuery::default()).await?;
    assert!(log.contains("check in 60%") && log.contains("demo job finished"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_scheduled_job_waits_for_its_time_and_says_so() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let mut submission = Submission::new("noop");
    submission.metadata.kind = Kind::Scheduled;
    submission.metadata.schedule_delay = Some(1);

    let submitted = client.submit(&submission).await?.job;
    let waiting = client.get(&submitted.id).await?;
    let job = client.wait(&submitted.id, PATIENCE).await?;

    let due = submitted.run_at.context("a scheduled job shows when it is due")?;
    assert_eq!(submitted.status, Status::Scheduled);
    assert!(waiting.waiting.is_some_and(|why| why.reason == "due" && why.until == Some(due)));
    assert_eq!((job.status, job.run_at), (Status::Success, Some(due)));
    assert!(job.update_time >= due, "ran at {} and was due at {due}", job.update_time);
    Ok(())
}

#[tokio::test]
async fn a_dead_job_is_run_again_by_a_retry() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let mut submission = demo(30.0)?;
    submission.metadata.timeout = Some(1);
    submission.metadata.max_fails = Some(1);

    let id = client.submit(&submission).await?.job.id;
    let dead = client.wait(&id, PATIENCE).await?;
    client.control(&id, Action::Retry).await?;
    let again = client.wait(&id, PATIENCE).await?;

    assert_eq!((dead.status, dead.fails, dead.attempt), (Status::Error, 1, 1));
    assert!(dead.error.as_ref().is_some_and(|error| error.contains("timed out")), "{dead:?}");
    assert!(dead.die_at.is_some() && dead.attempts.len() == 1);
    assert_eq!((again.status, again.attempt, again.attempts.len()), (Status::Error, 2, 2));
    Ok(())
}

#[tokio::test]
async fn stop_and_cancel_reach_waiting_and_running_jobs() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    for (action, status) in [(Action::Stop, Status::Stopped), (Action::Cancel, Status::Cancelled)] {
        let running = client.submit(&demo(60.0)?).await?.job.id;
        until(&client, &running, Status::Running).await?;
        let mut later = Submission::new("noop");
        later.metadata.kind = Kind::Scheduled;
        later.metadata.schedule_delay = Some(3600);
        let waiting = client.submit(&later).await?.job.id;

        client.control(&waiting, action).await?;
        assert_eq!(client.get(&waiting).await?.status, status);
        client.control(&running, action).await?;
        let asked = now();
        let ended = client.wait(&running, PATIENCE).await?;

        assert_eq!(ended.status, status);
        ensure!(asked.elapsed() < Duration::from_secs(2), "took {:?} to obey", asked.elapsed());
        // Again changes nothing; only the cancelled may be run again.
        client.control(&running, action).await?;
        let retried = client.control(&waiting, Action::Retry).await;
        match action {
            Action::Cancel => {
                retried?;
                assert_eq!(client.wait(&waiting, PATIENCE).await?.status, Status::Success);
            }
            _ => assert_eq!(reason(retried), "illegal_state"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_log_is_followed_while_it_is_written() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let id = client.submit(&demo(2.0)?).await?.job.id;

    let mut log = Box::pin(client.log(&id, LogQuery { follow: true, ..LogQuery::default() }).await?);
    let mut text = String::new();
    let mut seen_while_running = false;
    while let Some(piece) = log.next().await {
        text.push_str(std::str::from_utf8(&piece?)?);
        if text.contains("check in 30%") && !text.contains("check in 100%") {
            seen_while_running |= client.get(&id).await?.status == Status::Running;
        }
    }

    assert!(seen_while_running, "nothing came before the end: {text}");
    assert!(text.contains("demo job finished"), "{text}");
    assert_eq!(client.get(&id).await?.status, Status::Success);
    assert_eq!(whole_log(&client, &id, LogQuery::default()).await?, text);
    let tail = whole_log(&client, &id, LogQuery { tail: Some(80), ..LogQuery::default() }).await?;
    assert!(text.ends_with(&tail) && !tail.is_empty() && tail.len() <= 80, "{tail:?}");
    let rest = whole_log(&client, &id, LogQuery { offset: Some(10), ..LogQuery::default() }).await?;
    assert_eq!(rest, text[10..]);
    Ok(())
}

#[tokio::test]
async fn a_unique_job_has_one_holder_and_an_idempotent_submission_one_job() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let mut unique = Submission::new("noop").parameters(r#"{"a": 1}"#)?;
    unique.metadata.kind = Kind::Scheduled;
    unique.metadata.schedule_delay = Some(3600);
    unique.metadata.unique = true;
    let mut idempotent = Submission::new("noop");
    idempotent.metadata.idempotency_key = Some("build-7".to_owned());

    let holder = client.submit(&unique).await?.job;
    let refused = client.submit(&unique).await.err().context("the second is a duplicate")?;
    let first = client.submit(&idempotent).await?.job.id;
    let second = client.submit(&idempotent).await?.job.id;

    assert!(holder.unique);
    assert_eq!(refused.reason(), Some("duplicate"));
    assert!(refused.to_string().contains(&holder.id), "{refused}");
    assert_eq!(first, second);
    Ok(())
}

#[tokio::test]
async fn lists_are_filtered_and_paged_without_loss() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (service, client) = start(&data).await?;
    let mut ids = Vec::new();
    for n in 0..25 {
        let mut later = Submission::new("noop");
        later.metadata.kind = Kind::Scheduled;
        later.metadata.schedule_delay = Some(3600);
        later.metadata.tags = vec![format!("parity-{}", n % 2)];
        ids.push(client.submit(&later).await?.job.id);
    }
    ids.reverse();

    let mut paged = Vec::new();
    let mut query = ListQuery { limit: Some(10), ..ListQuery::default() };
    let mut pages = 0;
    loop {
        let page = client.list(&query).await?;
        paged.extend(page.jobs.into_iter().map(|job| job.id));
        pages += 1;
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    assert_eq!((&paged, pages), (&ids, 3), "newest first, each once");

    let count = async |query: ListQuery| anyhow::Ok(client.list(&query).await?.jobs.len());
    let all = || ListQuery { limit: Some(100), ..ListQuery::default() };
    assert_eq!(count(ListQuery { tag: Some("parity-1".into()), ..all() }).await?, 12);
    assert_eq!(count(ListQuery { status: Some("SCHEDULED".into()), ..all() }).await?, 25);
    assert_eq!(count(ListQuery { status: Some("retrying".into()), ..all() }).await?, 0);
    assert_eq!(count(ListQuery { name: Some("demo".into()), ..all() }).await?, 0);
    assert_eq!(count(ListQuery { upstream: Some(ids[0].clone()), ..all() }).await?, 0);
    assert_eq!(reason(client.list(&ListQuery { status: Some("lost".into()), ..all() }).await), "invalid_request");
    assert_eq!(reason(client.list(&ListQuery { cursor: Some("bogus".into()), ..all() }).await), "invalid_request");

    let first = reqwest::Client::new()
        .get(format!("{}/api/v1/jobs?limit=10&status=scheduled", service.url))
        .header("Authorization", format!("Bearer {}", service.secret))
        .send()
        .await?;
    let cursor = first.headers()["next-cursor"].to_str()?;
    let link = first.headers()["link"].to_str()?;
    assert_eq!(link, format!("</api/v1/jobs?limit=10&status=scheduled&cursor={cursor}>; rel=\"next\""));
    Ok(())
}

#[tokio::test]
async fn a_final_job_is_deleted_with_its_log_and_no_other_is() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let id = client.submit(&demo(0.1)?).await?.job.id;
    let running = client.submit(&demo(60.0)?).await?.job.id;
    client.wait(&id, PATIENCE).await?;

    client.delete(&id).await?;

    assert_eq!(reason(client.get(&id).await), "unknown_job");
    assert_eq!(reason(client.log(&id, LogQuery::default()).await), "unknown_job");
    assert_eq!(reason(client.delete(&id).await), "unknown_job");
    assert_eq!(reason(client.delete(&running).await), "illegal_state");
    assert_eq!(reason(client.control(&id, Action::Stop).await), "unknown_job");
    client.control(&running, Action::Stop).await?;
    Ok(())
}

#[tokio::test]
async fn stats_and_health_need_no_secret() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (service, _client) = start(&data).await?;
    let get = async |path: &str| anyhow::Ok(reqwest::get(format!("{}{path}", service.url)).await?);

    for path in ["/healthz", "/readyz", "/api/v1/healthz", "/api/v1/readyz"] {
        let answer = get(path).await?;
        assert_eq!((answer.status().as_u16(), answer.text().await?.as_str()), (200, r#"{"status":"ok"}"#), "{path}");
    }
    let started = now();
    let stats = loop {
        let stats: Value = serde_json::from_str(&get("/api/v1/stats").await?.text().await?)?;
        if stats.as_array().is_some_and(|pools| !pools.is_empty()) {
            break stats;
        }
        ensure!(started.elapsed() < PATIENCE, "no pool showed up: {stats}");
        pause(Duration::from_millis(20)).await; // bounded poll
    };
    let pool = &stats[0];
    assert_eq!(
        (&pool["job_names"], &pool["concurrency"], &pool["status"]),
        (&json!(["demo", "noop"]), &json!(4), &json!("healthy"))
    );
    assert!(pool["worker_pool_id"].is_string() && pool["started_at"].as_i64() <= pool["heartbeat_at"].as_i64());
    Ok(())
}

#[tokio::test]
async fn what_is_not_served_yet_or_not_known_is_said_clearly() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (service, client) = start(&data).await?;
    let send = async |job: Value| {
        let answer = reqwest::Client::new()
            .post(format!("{}/api/v1/jobs", service.url))
            .header("Authorization", format!("Harbor-Secret {}", service.secret))
            .body(json!({ "job": job }).to_string())
            .send()
            .await?;
        anyhow::Ok((answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await?)?))
    };

    let (code, hook) =
        send(json!({"name": "noop", "status_hook": "http://169.254.169.254/", "metadata": {"kind": "Generic"}}))
            .await?;
    assert_eq!((code, &hook["reason"]), (400, &json!("invalid_request")));
    let description = hook["description"].as_str().context("a description")?;
    assert!(
        description.starts_with("job.status_hook: leads to 169.254.169.254, which is link-local;"),
        "{description}"
    );
    let (code, unknown) = send(json!({"name": "dmeo", "metadata": {"kind": "Generic"}})).await?;
    assert_eq!((code, &unknown["reason"]), (400, &json!("unknown_name")));
    let description = unknown["description"].as_str().context("a description")?;
    assert!(
        description.contains("did you mean \"demo\"") && description.contains("known are demo, noop"),
        "{description}"
    );
    let (code, warned) =
        send(json!({"name": "noop", "metadata": {"kind": "gEnErIc", "pririty": 1}, "extra": 1})).await?;
    assert_eq!((code, &warned["warnings"]), (202, &json!(["job.metadata.pririty is not known and was ignored"])));
    assert_eq!(client.list(&ListQuery::default()).await?.jobs.len(), 1);
    Ok(())
}
