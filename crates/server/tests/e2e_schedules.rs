//! Goal: a schedule's life as a client sees it: submit, fire, page through its executions, pause, run by hand, preview, end.
//! Method: the real binary driven by our own typed client and the command line, and plain requests where words matter.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::process::Command;
use std::time::Duration;

use chaos::{Result, Service, Setup, ensure, now, pause};
use jobservice_client::{Action, Client, Error, ExecutionsQuery, ListQuery, Schedule, ScheduleAction, Submission};
use jobservice_core::{Kind, Status};
use serde_json::{Value, json};

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start(data: &tempfile::TempDir) -> Result<(Service, Client)> {
    let service = Service::start(&Setup::real(data.path(), 4)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    Ok((service, client))
}

fn noop(cron: &str, key: Option<&str>) -> Submission {
    let mut submission = Submission::new("noop");
    submission.metadata.kind = Kind::Periodic;
    submission.metadata.cron_spec = Some(cron.to_owned());
    submission.metadata.schedule_key = key.map(str::to_owned);
    submission
}

/// Waits until the schedule is so.
async fn until(client: &Client, key: &str, is: impl Fn(&Schedule) -> bool) -> Result<Schedule> {
    let started = now();
    loop {
        let schedule = client.schedule(key).await?;
        if is(&schedule) {
            return Ok(schedule);
        }
        ensure!(started.elapsed() < PATIENCE, "never so: {schedule:?}");
        pause(Duration::from_millis(20)).await; // bounded poll
    }
}

/// The status and reason of a refusal.
fn refusal(result: std::result::Result<impl Sized, Error>) -> (u16, String) {
    match result.err() {
        Some(Error::Refused(refused)) => (refused.code, refused.reason.clone()),
        _ => (0, String::new()),
    }
}

#[tokio::test]
async fn a_periodic_job_fires_and_its_executions_are_paged() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;

    let submitted = client.submit(&noop("* * * * * *", None)).await?;
    assert_eq!(submitted.outcome.as_deref(), Some("created"));
    let job = submitted.job;
    assert_eq!(
        (job.kind, job.status, job.cron_spec.as_deref()),
        (Kind::Periodic, Status::Scheduled, Some("* * * * * *"))
    );
    assert!(job.run_at.is_some() && !job.multiple_executions);
    until(&client, &job.id, |schedule| schedule.fired >= 3).await?;
    client.control(&job.id, Action::Stop).await?;

    let shown = client.get(&job.id).await?;
    assert_eq!((shown.status, shown.run_at, shown.multiple_executions), (Status::Stopped, None, true));
    let (all, total) = client.executions(&job.id, ExecutionsQuery::default()).await?;
    assert_eq!((all.len() as u64, shown.executions_total), (total, Some(total)));
    assert_eq!(shown.executions, all.iter().map(|job| job.id.clone()).collect::<Vec<_>>());
    assert!(all.iter().all(|execution| execution.upstream_job_id.as_ref() == Some(&job.id)));
    assert!(all.iter().all(|execution| execution.kind == Kind::Scheduled));
    let second = ExecutionsQuery { page_number: Some(2), page_size: Some(2), non_dead_only: false };
    let (second, of) = client.executions(&job.id, second).await?;
    assert_eq!((of, &second[0].id), (total, &all[2].id));
    let waiting = all.iter().filter(|execution| !execution.status.is_final()).count() as u64;
    let live = ExecutionsQuery { non_dead_only: true, ..ExecutionsQuery::default() };
    assert!(client.executions(&job.id, live).await?.1 <= waiting, "what is final is left out");

    client.control(&job.id, Action::Retry).await?;
    assert!(client.get(&job.id).await?.run_at.is_some(), "active again");
    assert_eq!(refusal(client.delete(&job.id).await), (409, "illegal_state".into()));
    client.delete_schedule(&job.id).await?;
    assert_eq!(refusal(client.get(&job.id).await), (404, "unknown_job".into()));
    assert_eq!(
        refusal(client.executions("no-such-job", ExecutionsQuery::default()).await),
        (404, "unknown_job".into())
    );
    let (left, _) = client.executions(&job.id, ExecutionsQuery::default()).await?;
    assert!(left.len() >= all.len(), "executions outlive their schedule");
    Ok(())
}

#[tokio::test]
async fn a_schedule_is_put_paused_run_by_hand_and_deleted_by_its_key() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (_service, client) = start(&data).await?;
    let mut nightly = noop("0 30 2 * * *", None);
    nightly.metadata.timezone = Some("Europe/Berlin".to_owned());

    let put = client.put_schedule("night/ly", &nightly).await?;
    assert_eq!(put.outcome.as_deref(), Some("created"));
    assert!(put.warnings.iter().any(|warning| warning.contains("there is no 02:30")), "{:?}", put.warnings);
    assert_eq!(client.put_schedule("night/ly", &nightly).await?.outcome.as_deref(), Some("unchanged"));
    nightly.metadata.overlap = Some("skip".to_owned());
    let changed = client.put_schedule("night/ly", &nightly).await?;
    assert_eq!((changed.outcome.as_deref(), changed.job.id.as_str()), (Some("updated"), put.job.id.as_str()));

    let schedule = client.schedule("night/ly").await?;
    assert_eq!(schedule.sentence.as_deref(), Some("At 02:30 every day, in Europe/Berlin."));
    assert_eq!((schedule.lag_ms, schedule.overlap.as_str(), schedule.next_due), (0, "skip", put.job.run_at));
    client.control_schedule("night/ly", ScheduleAction::Pause).await?;
    let paused = client.schedule("night/ly").await?;
    assert!(paused.paused && paused.next_due.is_none());
    let by_hand = client.run_schedule("night/ly").await?;
    let by_hand = client.wait(&by_hand.job.id, PATIENCE).await?;
    assert_eq!((by_hand.status, by_hand.upstream_job_id), (Status::Success, Some(put.job.id.clone())));
    client.control_schedule("night/ly", ScheduleAction::Resume).await?;
    assert_eq!(client.schedule("night/ly").await?.next_due, put.job.run_at);
    assert!(client.list(&ListQuery::default()).await?.jobs.iter().all(|job| job.kind != Kind::Periodic));

    for number in 0..4 {
        client.submit(&noop("@daily", Some(&format!("k{number}")))).await?;
    }
    let first = client.schedules(3, None).await?;
    let second = client.schedules(3, first.next.as_deref()).await?;
    assert_eq!((first.schedules.len(), second.schedules.len(), second.next), (3, 2, None));

    client.delete_schedule("night/ly").await?;
    assert_eq!(refusal(client.schedule("night/ly").await), (404, "unknown_schedule".into()));
    assert_eq!(refusal(client.delete_schedule("night/ly").await), (404, "unknown_schedule".into()));
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_said_with_its_field() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (service, client) = start(&data).await?;
    let send = async |method: reqwest::Method, path: &str, body: Value| {
        let answer = reqwest::Client::new()
            .request(method, format!("{}/api/v1/{path}", service.url))
            .header("Authorization", format!("Harbor-Secret {}", service.secret))
            .body(body.to_string())
            .send()
            .await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    let job = |metadata: Value| json!({"job": {"name": "noop", "metadata": metadata}});
    let (post, put) = (reqwest::Method::POST, reqwest::Method::PUT);
    let wrong = [
        (&post, "jobs", job(json!({"kind": "Periodic"})), 400, "job.metadata.cron_spec"),
        (
            &post,
            "jobs",
            job(json!({"kind": "Periodic", "cron_spec": "61 * * * *"})),
            400,
            "job.metadata.cron_spec: minute",
        ),
        (
            &post,
            "jobs",
            job(json!({"kind": "Periodic", "cron_spec": "@daily", "timezone": "Mars"})),
            400,
            "job.metadata.timezone",
        ),
        (
            &post,
            "jobs",
            job(json!({"kind": "Periodic", "cron_spec": "@daily", "overlap": "x"})),
            400,
            "job.metadata.overlap",
        ),
        (
            &post,
            "jobs",
            job(json!({"kind": "Periodic", "cron_spec": "@daily", "idempotency_key": "x"})),
            400,
            "schedule_key",
        ),
        (
            &put,
            "schedules/a",
            job(json!({"cron_spec": "@daily", "schedule_key": "b"})),
            400,
            "job.metadata.schedule_key",
        ),
        (&put, "schedules/a", job(json!({"cron_spec": "@daily", "kind": "Generic"})), 400, "job.metadata.kind"),
        (&post, "schedules/a", json!({"action": "dance"}), 501, "unknown_action"),
        (&post, "schedules/a", json!({"action": "run"}), 404, "unknown_schedule"),
        (&post, "schedules/preview", json!({"cron_spec": "* * *"}), 400, "cron_spec"),
        (&post, "schedules/preview", json!({"cron_spec": "@daily", "count": 11}), 400, "count"),
    ];
    for (method, path, body, code, says) in wrong {
        let (found, text) = send(method.clone(), path, body.clone()).await?;
        assert!(found == code && text.contains(says), "{path} {body}: {found} {text}");
    }
    let (code, text) = send(post.clone(), "jobs", job(json!({"kind": "Periodic", "cron_spec": "0 3 13 * 5"}))).await?;
    assert!(code == 202 && text.contains("warnings"), "day of month and weekday are warned of: {text}");

    let preview = client.preview("30 2 * * *", Some("Europe/Berlin"), Some(10)).await?;
    assert_eq!((preview.next.len(), preview.sentence.as_str()), (10, "At 02:30 every day, in Europe/Berlin."));
    assert!(preview.next.windows(2).all(|pair| pair[0].at < pair[1].at));
    assert!(preview.next[0].local.contains("T0") && preview.next[0].local.ends_with(":00"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_managed_on_the_command_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().to_owned();
    let _service = Service::start(&Setup::real(&data, 4)).await?;
    let run = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobservice"));
        command.arg("--data-dir").arg(&data).args(args).env_remove("CORE_SECRET").env_remove("JOBSERVICE_URL");
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };

    let nightly = ["submit", "noop", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--schedule-key", "nightly"];
    let (code, id, told) = run(&nightly).await?;
    assert!(code == Some(0) && told.contains("created"), "{told}");
    let (_, job, _) = run(&["get", id.trim()]).await?;
    assert!(job.contains("0 3 * * * in Europe/Berlin, key nightly"), "{job}");

    let (_, list, _) = run(&["schedules", "list"]).await?;
    assert!(list.contains("nightly") && list.contains("At 03:00 every day, in Europe/Berlin."), "{list}");
    assert_eq!(run(&["schedules", "pause", "nightly"]).await?.1, "nightly pause: done\n");
    let (_, shown, _) = run(&["schedules", "show", "nightly"]).await?;
    assert!(shown.contains("paused"), "{shown}");
    let (code, _, told) = run(&["schedules", "run", "nightly"]).await?;
    assert!(code == Some(0) && told.contains("submitted"), "{told}");
    assert_eq!(run(&["schedules", "resume", "nightly"]).await?.0, Some(0));
    let (_, preview, _) = run(&["schedules", "preview", "@hourly", "--count", "3"]).await?;
    assert_eq!(preview.lines().count(), 4, "{preview}");
    assert_eq!(run(&["schedules", "delete", "nightly"]).await?.0, Some(0));
    let (code, _, told) = run(&["schedules", "show", "nightly"]).await?;
    assert!(code == Some(1) && told.contains("no schedule"), "{told}");
    assert_eq!(run(&["submit", "noop", "--cron", "bad"]).await?.0, Some(2));
    Ok(())
}

#[tokio::test]
async fn declared_schedules_are_put_at_start_and_what_is_wrong_is_named() -> Result<()> {
    let data = tempfile::tempdir()?;
    let text = |cron: &str| {
        format!(
            "schedules:\n  nightly:\n    name: demo\n    parameters: {{image: \"demo:1\", seconds: 0.5}}\n    \
             cron_spec: \"{cron}\"\n    timezone: Europe/Berlin\n"
        )
    };
    let mut ids = Vec::new();
    for (cron, next) in [("0 3 * * *", "03:00"), ("0 3 * * *", "03:00"), ("0 4 * * *", "04:00")] {
        let service = Service::start(&Setup::real(data.path(), 2).config(&text(cron))).await?;
        let client = Client::new(&service.url, &service.secret)?;
        let schedule = client.schedule("nightly").await?;
        assert!(schedule.sentence.as_ref().is_some_and(|sentence| sentence.contains(next)), "{schedule:?}");
        let job = client.get(&schedule.id).await?;
        assert_eq!(job.parameters.as_ref().map(|raw| raw.get()), Some(r#"{"image":"demo:1","seconds":0.5}"#));
        ids.push(schedule.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "each start puts the same schedule");

    // Somebody stops it at night, and a restart is not how they meant to begin it again.
    let service = Service::start(&Setup::real(data.path(), 2).config(&text("0 4 * * *"))).await?;
    Client::new(&service.url, &service.secret)?.control(&ids[0], Action::Stop).await?;
    drop(service);
    let service = Service::start(&Setup::real(data.path(), 2).config(&text("0 4 * * *"))).await?;
    let job = Client::new(&service.url, &service.secret)?.get(&ids[0]).await?;
    assert_eq!(job.status.as_str(), "stopped");
    drop(service);

    let wrong = text("0 3 * * *").replace("demo:1", "other").replace("nightly", "unfit")
        + "  unknown:\n    name: nope\n    cron_spec: \"@daily\"\n";
    let refused = Service::start(&Setup::real(data.path(), 2).config(&wrong)).await;
    let said = format!("{:#}", refused.err().expect("it does not start"));
    for expected in ["config.yml:4: schedules.unfit.parameters: ", "config.yml:8: schedules.unknown.name: "] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    Ok(())
}
