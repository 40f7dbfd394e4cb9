//! Goal: what the configuration says is what the service does: properties, loggers, and what it says of itself.
//! Method: the real binary with a file and variables; a plain socket in the place of the server of properties.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::path::Path;
use std::time::Duration;

use chaos::{Result, Service, Setup, ensure, now, pause};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server of properties that knows one, and answers whoever shows the secret.
async fn core_server() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let bytes = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..bytes]).into_owned();
            let (status, body) = if head.contains("authorization: Harbor-Secret ") {
                ("200 OK", r#"{"email_from": "core@example.com"}"#)
            } else {
                ("401 Unauthorized", "{}")
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    Ok(url)
}

/// What the demo says of the property `email_from`.
async fn property(service: &Service) -> Result<String> {
    let api = service.api();
    let id = api.submit("demo", json!({"image": "demo", "seconds": 0}), json!({})).await?;
    assert_eq!(chaos::status(&api.wait_final(&id, Duration::from_secs(20)).await?), "success");
    let log = api.log(&id).await?;
    Ok(log.lines().find_map(|line| line.split_once("email_from is ")).map(|(_, text)| text.to_owned()).unwrap_or(log))
}

fn with_file(data: &Path, text: &str) -> Result<Setup> {
    std::fs::write(data.join("config.yml"), text)?;
    Ok(Setup { config: Some(data.join("config.yml")), ..Setup::real(data, 2) })
}

#[tokio::test]
async fn jobs_get_properties_from_the_file_the_environment_and_the_core_server_in_this_order() -> Result<()> {
    let core = core_server().await?;
    let data = tempfile::tempdir()?;
    let setup = with_file(data.path(), "loggers: []\n")?.env("CORE_URL", &core);
    let mut service = Service::start(&setup).await?;
    assert_eq!(property(&service).await?, "core@example.com");
    service.kill()?;

    let setup = setup.env("email_from", "environment@example.com");
    let mut service = Service::start(&setup).await?;
    assert_eq!(property(&service).await?, "environment@example.com");
    service.kill()?;

    let text = "context: {email_from: file@example.com}\n";
    let setup = Setup { env: setup.env.clone(), ..with_file(data.path(), text)? };
    let service = Service::start(&setup).await?;
    assert_eq!(property(&service).await?, "file@example.com");
    Ok(())
}

#[tokio::test]
async fn a_running_service_shows_its_configuration_to_administrators_without_secrets() -> Result<()> {
    let data = tempfile::tempdir()?;
    let setup = with_file(data.path(), "context: {smtp_password: canary}\nworker_pool: {workers: 3}\n")?;
    let service = Service::start(&setup).await?;
    let url = format!("{}/api/v1/config", service.url);

    let client = reqwest::Client::new();
    assert_eq!(client.get(&url).send().await?.status(), 401);
    let answer = client.get(&url).header("authorization", format!("Bearer {}", service.secret)).send().await?;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let text = answer.text().await?;

    assert!(!text.contains("canary") && !text.contains(&service.secret), "{text}");
    let shown: Value = serde_json::from_str(&text)?;
    let of =
        |path: &str| shown["options"].as_array().and_then(|all| all.iter().find(|one| one["path"] == path)).cloned();
    let workers = of("worker_pool.workers").expect("workers");
    assert_eq!((&workers["value"], &workers["source"]), (&2.into(), &"flag --workers".into()));
    assert_eq!(of("context").expect("context")["value"]["smtp_password"], "********");
    Ok(())
}

/// Runs a demo and stops it while it works: its log has lines of several levels.
async fn stopped_demo(service: &Service) -> Result<String> {
    let api = service.api();
    let id = api.submit("demo", json!({"image": "demo", "seconds": 600}), json!({})).await?;
    let started = now();
    while api.get(&id).await?.is_none_or(|job| job["check_in"].is_null()) {
        ensure!(started.elapsed() < Duration::from_secs(20), "the job does not run");
        pause(Duration::from_millis(10)).await; // bounded poll
    }
    assert_eq!(api.act(&id, "stop").await?, 204);
    assert_eq!(chaos::status(&api.wait_final(&id, Duration::from_secs(20)).await?), "stopped");
    Ok(id)
}

#[tokio::test]
async fn each_logger_gets_the_lines_of_its_level_in_its_format() -> Result<()> {
    let data = tempfile::tempdir()?;
    let dir = data.path().display();
    let text = format!(
        "loggers:\n  - {{name: STD_OUTPUT, level: ERROR}}\n  \
         - {{name: FILE, level: INFO, settings: {{base_dir: {dir}/own, file_name: own.log, format: json, rotate: day}}}}\n\
         job_loggers:\n  - {{name: FILE, level: WARNING, settings: {{base_dir: {dir}/warnings}}}}\n  \
         - {{name: FILE, level: DEBUG, settings: {{base_dir: {dir}/jobs}}, sweeper: {{duration: 1, bytes_max: 1000000}}}}\n"
    );
    let service = Service::start(&with_file(data.path(), &text)?).await?;
    let api = service.api();
    let id = stopped_demo(&service).await?;

    let own = std::fs::read_to_string(data.path().join("own/own.log"))?;
    let lines: Vec<Value> = own.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    assert!(lines.iter().any(|line| line["level"] == "INFO" && line["workers"] == 2), "{own}");
    assert!(!std::fs::read_to_string(data.path().join("service.log"))?.contains("INFO"));
    let job = |dir: &str| std::fs::read_to_string(data.path().join(dir).join(format!("{id}.log")));
    let (warnings, all) = (job("warnings")?, job("jobs")?);
    assert!(warnings.contains("ending early") && !warnings.contains("check in 30%"), "{warnings}");
    assert!(all.contains("ending early") && all.contains("check in 30%"), "{all}");
    // The first backend that can read back is asked, whatever the others have.
    assert_eq!(api.log(&id).await?, warnings);
    Ok(())
}

#[tokio::test]
async fn a_hangup_ends_nothing() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut service = Service::start(&Setup::real(data.path(), 1)).await?;
    service.signal(Signal::SIGHUP)?;
    let started = now();
    while !std::fs::read_to_string(data.path().join("service.log"))?.contains("SIGHUP: there is nothing to read again")
    {
        ensure!(started.elapsed() < Duration::from_secs(10), "nothing is said of the signal");
        pause(Duration::from_millis(10)).await; // bounded poll
    }
    assert!(service.ended()?.is_none());
    assert!(service.api().list("").await?.is_empty());
    Ok(())
}

/// A program that brings its own backends: the file names them, tells them their settings, and logs are read back from
/// them.
#[tokio::test]
async fn backends_of_ones_own_are_named_by_the_file_and_read_back() -> Result<()> {
    let data = tempfile::tempdir()?;
    let dir = data.path().display();
    let text = format!(
        "job_loggers:\n  - name: STD_OUTPUT\n  - {{name: MEMORY, level: WARNING, settings: {{logs_max: 10}}}}\n\
         loggers:\n  - {{name: NOTES, level: INFO, settings: {{path: {dir}/notes}}}}\n"
    );
    let setup = with_file(data.path(), &text)?;
    let own = Setup { config: setup.config.clone(), ..Setup::example("own_logs", data.path(), 2) };
    let service = Service::start(&own).await?;
    let api = service.api();
    let id = stopped_demo(&service).await?;
    let log = api.log(&id).await?;
    assert!(log.contains("ending early") && !log.contains("check in 30%"), "{log}");
    let notes = std::fs::read_to_string(data.path().join("notes"))?;
    assert!(notes.lines().any(|line| line.starts_with("INFO ") && line.contains("serving http://")), "{notes}");
    drop(service);

    let wrong = text.replace("logs_max: 10", "logs: 10");
    std::fs::write(data.path().join("config.yml"), wrong)?;
    let refused = Service::start(&own).await.err().expect("an unknown setting is refused").to_string();
    assert!(refused.contains("MEMORY") && refused.contains("logs_max"), "{refused}");
    // The binary without them does not know them.
    let unknown = Service::start(&setup).await.err().expect("the name is refused").to_string();
    assert!(unknown.contains("job_loggers[1].name: \"MEMORY\" is not known"), "{unknown}");
    Ok(())
}
