//! Goal: a person gets through a job's life with the command line alone, and is told what to do when something is wrong.
//! Method: the real binary as service and as client, its output and exit codes.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::path::Path;
use std::process::{Command, Output};

use chaos::{Context, Result, Service, Setup};
use serde_json::Value;

/// Runs a command beside the service of that data directory.
fn cli(data: &Path, args: &[&str]) -> Result<Ran> {
    let output = Command::new(env!("CARGO_BIN_EXE_jobservice"))
        .arg("--data-dir")
        .arg(data)
        .args(args)
        .env_remove("CORE_SECRET")
        .env_remove("JOBSERVICE_URL")
        .output()?;
    Ok(Ran::of(&output))
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{} {}", self.out, self.err))
    }
}

/// The commands block: each runs on a thread of its own beside the test's service.
async fn run(data: &Path, args: &[&str]) -> Result<Ran> {
    let (data, args) = (data.to_owned(), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    tokio::task::spawn_blocking(move || cli(&data, &args.iter().map(String::as_str).collect::<Vec<_>>())).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_through_its_life_on_the_command_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path();
    let _service = Service::start(&Setup::real(data, 4)).await?;

    let waited =
        run(data, &["submit", "demo", "-p", "image=demo:1", "-p", "seconds=1.5", "--tag", "t", "--wait", "--json"])
            .await?;
    let job = waited.json()?;
    assert_eq!((waited.code, &job["status"], &job["parameters"]["seconds"]), (0, &"success".into(), &1.5.into()));
    for progress in ["submitted", "running (attempt 1)", "check-in", "success (attempt 1)"] {
        assert!(waited.err.contains(progress), "{progress} is not in {}", waited.err);
    }
    let id = job["id"].as_str().context("an id")?.to_owned();

    let shown = run(data, &["get", &id]).await?;
    assert!(
        shown.code == 0
            && shown.out.contains("success")
            && shown.out.contains("{\"image\":\"demo:1\",\"seconds\":1.5}"),
        "{}",
        shown.out
    );
    let log = run(data, &["log", &id]).await?;
    assert!(log.out.contains("demo job finished"), "{}", log.out);
    let tail = run(data, &["log", "-f", "--tail", "100", &id]).await?;
    assert!(log.out.ends_with(&tail.out) && !tail.out.is_empty(), "{}", tail.out);

    let later =
        run(data, &["submit", "noop", "--after", "1h", "--unique", "--idempotency-key", "k", "--priority", "3"])
            .await?;
    let later = later.out.trim().to_owned();
    let listed = run(data, &["list", "--json", "--all"]).await?;
    let ids: Vec<String> = listed
        .out
        .lines()
        .map(|line| Ok(serde_json::from_str::<Value>(line)?["id"].as_str().context("an id")?.to_owned()))
        .collect::<Result<_>>()?;
    assert_eq!(ids, [later.clone(), id.clone()]);
    let table = run(data, &["list", "--status", "scheduled", "--name", "noop"]).await?;
    assert!(table.out.starts_with("ID") && table.out.contains(&later) && !table.out.contains(&id), "{}", table.out);

    let cancelled = run(data, &["cancel", &later]).await?;
    assert_eq!((cancelled.code, cancelled.out), (0, format!("{later} cancel: done\n")));
    let retried = run(data, &["retry", &later, &id]).await?;
    assert_eq!((retried.code, retried.out), (1, format!("{later} retry: done\n")));
    assert!(retried.err.contains(&id) && retried.err.contains("only a job in error or cancelled"), "{}", retried.err);
    let deleted = run(data, &["delete", &id]).await?;
    assert_eq!(deleted.code, 0);
    assert_eq!(run(data, &["get", &id]).await?.code, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_how_a_job_ended() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path();
    let _service = Service::start(&Setup::real(data, 4)).await?;
    let demo = ["submit", "demo", "-p", "{\"image\": \"demo\", \"seconds\": 60}"];
    let with = |more: &[&'static str]| [&demo[..], more].concat();

    let failed = run(data, &with(&["--timeout", "1s", "--max-fails", "1", "--wait"])).await?;
    assert!(failed.code == 1 && failed.err.contains("timed out"), "{} {}", failed.code, failed.err);

    let too_long = run(data, &with(&["--wait=1s", "--json"])).await?;
    assert!(too_long.code == 4 && too_long.err.contains("not final after"), "{} {}", too_long.code, too_long.err);
    let id = too_long.json()?["id"].as_str().context("an id")?.to_owned();
    assert_eq!(run(data, &["stop", &id]).await?.code, 0);

    let ended = run(data, &["submit", "noop", "--after", "1h", "--idempotency-key", "x"]).await?.out;
    run(data, &["stop", ended.trim()]).await?;
    let stopped = run(data, &["submit", "noop", "--after", "1h", "--idempotency-key", "x", "--wait"]).await?;
    assert_eq!(stopped.code, 3, "{}", stopped.err);

    let wrong = run(data, &["submit", "demo", "-p", "image=other"]).await?;
    assert!(wrong.code == 2 && wrong.err.contains("image must begin with"), "{} {}", wrong.code, wrong.err);
    assert_eq!(run(data, &["submit"]).await?.code, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path();

    let none = run(data, &["list"]).await?;
    assert!(none.code == 5 && none.err.contains("Start one with `jobservice`"), "{} {}", none.code, none.err);

    let service = Service::start(&Setup::real(data, 1)).await?;
    let nobody = run(data, &["list", "--url", "http://127.0.0.1:1"]).await?;
    assert!(nobody.code == 5 && nobody.err.contains("is the service running?"), "{} {}", nobody.code, nobody.err);
    let closed = run(data, &["list", "--secret", "wrong"]).await?;
    assert!(closed.code == 1 && closed.err.contains("--secret or CORE_SECRET"), "{} {}", closed.code, closed.err);
    let unnamed = run(data, &["list", "--url", "nonsense"]).await?;
    assert!(unnamed.code == 2 && unnamed.err.contains("nonsense"), "{} {}", unnamed.code, unnamed.err);
    let taken = run(data, &["--port", "0"]).await?;
    assert!(taken.code == 1 && taken.err.contains("is served by another process"), "{} {}", taken.code, taken.err);
    assert!(service.api().list("").await?.is_empty(), "the first service must not have suffered");
    Ok(())
}

#[test]
fn help_teaches_with_examples() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let help = cli(dir.path(), &["--help"])?;
    for word in
        ["Examples:", "jobservice submit demo -p image=demo:1 --wait", "Exit codes:", "JOBSERVICE_URL", "CORE_SECRET"]
    {
        assert!(help.out.contains(word), "{word} is not in {}", help.out);
    }
    assert!(cli(dir.path(), &["submit", "--help"])?.out.contains("--idempotency-key"));
    let typo = cli(dir.path(), &["submt"])?;
    assert!(typo.code == 2 && typo.err.contains("submit"), "{}", typo.err);
    Ok(())
}

#[test]
fn a_bad_configuration_is_refused_with_file_line_and_remedy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yml");
    std::fs::write(&file, "port: 9443\nworker_pool:\n  workrs: 3\n  backend: redis\n")?;
    let refused = cli(&dir.path().join("data"), &["-c", &file.display().to_string()])?;
    assert_eq!(refused.code, 1);
    for word in [
        "config.yml:3: worker_pool.workrs",
        "did you mean workers?",
        "config.yml:4: worker_pool.redis_pool.redis_url: it is missing",
    ] {
        assert!(refused.err.contains(word), "{word} is not in {}", refused.err);
    }
    assert!(!dir.path().join("data").try_exists()?);
    let missing = cli(dir.path(), &["-c", "/no/such/file.yml"])?;
    assert!(missing.code == 1 && missing.err.contains("/no/such/file.yml"), "{}", missing.err);
    Ok(())
}

#[test]
fn the_configuration_can_be_checked_and_shown_without_a_service() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/original-sample.yml");
    let checked = cli(dir.path(), &["config", "check", "-c", sample])?;
    assert_eq!((checked.code, checked.out.as_str()), (0, "the configuration is valid\n"), "{}", checked.err);
    assert!(checked.err.contains("cannot read server.crt") && !checked.err.contains("redis"), "{}", checked.err);
    let loggers = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/original-loggers.yml");
    let checked = cli(dir.path(), &["config", "check", "-c", loggers])?;
    assert_eq!((checked.code, checked.err.as_str()), (0, ""));

    let file = dir.path().join("config.yml");
    let default = cli(dir.path(), &["config", "show", "--default"])?;
    std::fs::write(&file, &default.out)?;
    let file = file.display().to_string();
    assert_eq!(cli(dir.path(), &["config", "check", "-c", &file])?.code, 0);
    let shown = cli(dir.path(), &["--port", "7", "config", "show", "-c", &file])?;
    assert!(shown.code == 0 && shown.out.contains("port: 7 # flag --port\n"), "{} {}", shown.out, shown.err);
    assert_eq!(cli(dir.path(), &["config", "show", "--json"])?.json()?["options"][0]["path"], "protocol");
    assert_eq!(cli(dir.path(), &["config", "schema"])?.json()?["title"], "jobservice");

    std::fs::write(&file, "port: x\nworkers: 1\n")?;
    let bad = cli(dir.path(), &["config", "check", "-c", &file])?;
    assert!(bad.code == 1 && bad.err.contains("config.yml:1: port") && bad.err.contains("config.yml:2: workers"));
    Ok(())
}
