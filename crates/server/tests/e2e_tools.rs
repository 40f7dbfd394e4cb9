//! Goal: an operator can ask whether all is well, and takes a copy from a running service that comes back whole.
//! Method: the real binary as service and as tool, under load; what a backup holds is looked through by the doctor.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chaos::{Context as _, Result, Service, Setup, count, ensure, now, pause};
use jobservice_client::{Client, ListQuery, QueueChange, Submission};
use serde_json::Value;

/// As the service makes it: others cannot look into it.
fn private_directory() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir()?)
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

async fn run(data: &Path, args: &[&str]) -> Result<Ran> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobservice"));
    command.arg("--data-dir").arg(data).args(args).env_remove("CORE_SECRET").env_remove("JOBSERVICE_URL");
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}

/// The findings of the doctor that are not as they should be, as "level check: message".
async fn findings(data: &Path) -> Result<(i32, Vec<String>)> {
    let ran = run(data, &["doctor", "--json"]).await?;
    let report: Value = serde_json::from_str(&ran.out).with_context(|| format!("{} {}", ran.out, ran.err))?;
    let findings = report["findings"].as_array().context("findings")?;
    let text = |finding: &Value| {
        let of = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        (of("level") != "ok").then(|| format!("{} {}: {}", of("level"), of("check"), of("message")))
    };
    // How full the disk of the test's machine is, is none of the test's business.
    let found = findings.iter().filter_map(text).filter(|found| !found.contains(" disk: ")).collect();
    Ok((ran.code, found))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_whether_all_is_well_and_what_is_not() -> Result<()> {
    let dir = private_directory()?;
    let data = dir.path();
    let (code, none) = findings(data).await?;
    assert!(code == 2 && none.iter().any(|found| found.contains("broken store: there is none")), "{none:?}");

    let mut service = Service::start(&Setup::real(data, 2)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    let started = now();
    while client.stats().await?.is_empty() {
        ensure!(started.elapsed() < Duration::from_secs(10), "no pool gives a sign of life");
        pause(Duration::from_millis(5)).await; // bounded poll
    }
    let well = findings(data).await?;
    assert_eq!(well.1, Vec::<String>::new());
    let text = run(data, &["doctor"]).await?;
    assert!(text.out.lines().any(|line| line.starts_with("ok       audit")), "{}", text.out);

    service.kill()?;
    let (code, down) = findings(data).await?;
    assert!(code >= 1 && down == ["warning service: no process serves the store"], "{down:?}");

    // Without its log: that holds most of a young store.
    std::fs::remove_file(data.join("jobs.db-wal"))?;
    std::fs::write(data.join("jobs.db"), b"this is no database, whatever its name says")?;
    let (code, broken) = findings(data).await?;
    assert!(code == 2 && broken.iter().any(|found| found.starts_with("broken store")), "{broken:?}");
    let wrong = data.join("wrong.yml");
    std::fs::write(&wrong, "prot: 1\n")?;
    let settings = run(data, &["doctor", "-c", wrong.to_str().context("a path")?]).await?;
    assert!(settings.code == 2 && settings.out.contains("did you mean port?"), "{}", settings.out);

    // Who has the jobs in Redis is not told of a store that is none of theirs, nor given one, also if a line is wrong.
    std::fs::write(&wrong, "worker_pool: {backend: redis, redis_pool: {redis_url: 'h:1', durabilty: replica}}\n")?;
    let wrong = wrong.to_str().context("a path")?;
    let doctor = run(data, &["doctor", "-c", wrong]).await?;
    assert!(doctor.code == 2 && doctor.out.contains("did you mean durability?"), "{}", doctor.out);
    assert!(!doctor.out.contains("jobs.db"), "{}", doctor.out);
    for tool in ["backup", "restore"] {
        let refused = run(data, &[tool, "none.tar", "-c", wrong]).await?;
        assert!(refused.code == 1 && refused.err.contains("the jobs are in Redis"), "{}", refused.err);
    }
    Ok(())
}

/// Must show (h) of the whole, second half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_at_full_speed_restores_to_an_empty_audit() -> Result<()> {
    let dir = private_directory()?;
    let data = dir.path();
    let mut service = Service::start(&Setup::real(data, 4)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    let kept =
        client.submit(&Submission::new("demo").parameters(r#"{"image": "demo", "seconds": 0.01}"#)?).await?.job.id;
    client.wait(&kept, Duration::from_secs(20)).await?;
    let (stop, submitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop, submitted) = (client.clone(), Arc::clone(&stop), Arc::clone(&submitted));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.submit(&Submission::new("noop")).await?;
                    submitted.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, jobservice_client::Error>(())
            })
        })
        .collect();
    let enough = count(500, 50_000);
    let started = now();
    while submitted.load(Ordering::Relaxed) < enough {
        ensure!(started.elapsed() < Duration::from_secs(120), "the load does not come up");
        pause(Duration::from_millis(5)).await; // bounded poll
    }
    let before = submitted.load(Ordering::Relaxed);

    let file = data.join("backup.tar");
    let file = file.to_str().context("a path")?;
    let taken = run(data, &["backup", file]).await?;
    assert!(taken.code == 0 && taken.err.contains("job logs: copied"), "{} {}", taken.out, taken.err);
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await??;
    }
    assert_eq!(run(data, &["backup", file]).await?.code, 1, "an existing file is not overwritten");

    let in_use = run(data, &["restore", file, "--force"]).await?;
    assert!(in_use.code == 1 && in_use.err.contains("stop the service first"), "{}", in_use.err);
    service.kill()?;
    let not_empty = run(data, &["restore", file]).await?;
    assert!(not_empty.code == 1 && not_empty.err.contains("--force"), "{}", not_empty.err);
    let elsewhere = private_directory()?;
    let restored = run(elsewhere.path(), &["restore", file]).await?;
    assert_eq!(restored.code, 0, "{}", restored.err);
    let (_, found) = findings(elsewhere.path()).await?;
    assert_eq!(found, ["warning service: no process serves the store"]);
    let forced = run(data, &["restore", file, "--force"]).await?;
    assert!(forced.code == 0 && forced.err.contains("replaced-"), "{}", forced.err);

    let service = Service::start(&Setup::real(data, 4)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    assert!(run(data, &["log", &kept]).await?.out.contains("demo job finished"), "the logs came with it");
    let counts = client.counts().await?;
    println!("{before} submitted before the backup, {} in it: {counts:?}", counts.values().sum::<u64>());
    assert!(counts.values().sum::<u64>() > before as u64);
    let (_, found) = findings(data).await?;
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_damaged_or_cut_short_is_refused_and_nothing_is_touched() -> Result<()> {
    let dir = private_directory()?;
    let data = dir.path();
    let service = Service::start(&Setup::real(data, 1)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    client.set_queue("noop", QueueChange { paused: Some(true), ..QueueChange::default() }).await?;
    client.submit(&Submission::new("noop")).await?;
    let file = data.join("backup.tar");
    assert_eq!(run(data, &["backup", file.to_str().context("a path")?]).await?.code, 0);
    let whole = std::fs::read(&file)?;
    let mut flipped = whole.clone();
    flipped[600] ^= 1;
    let short = &whole[..whole.len() / 2];

    for bytes in [&flipped[..], short, b"", &whole[..whole.len() - 4096]] {
        let target = tempfile::tempdir()?;
        std::fs::write(target.path().join("keep"), "me")?;
        let bad = data.join("bad.tar");
        std::fs::write(&bad, bytes)?;

        let refused = run(target.path(), &["restore", bad.to_str().context("a path")?, "--force"]).await?;

        assert!(refused.code == 1 && refused.err.contains("cannot read the backup"), "{}", refused.err);
        let left: Vec<_> =
            std::fs::read_dir(target.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        assert!(left.len() <= 2 && left.iter().any(|name| name == "keep"), "{left:?}");
    }
    assert_eq!(client.list(&ListQuery::default()).await?.jobs.len(), 1);
    Ok(())
}

/// Goal: what the configuration says of retention reaches the jobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_kept_as_long_as_the_configuration_says() -> Result<()> {
    let dir = private_directory()?;
    let config = dir.path().join("config.yml");
    std::fs::write(&config, "bind: 127.0.0.1\nretention:\n  success: 1d\n  names:\n    noop: {success: 0s}\n")?;
    let service = Service::start(&Setup::real(dir.path(), 2).arg("-c").arg(config.to_str().context("a path")?)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    let kept = client.submit(&Submission::new("demo").parameters(r#"{"image": "demo", "seconds": 0}"#)?).await?.job.id;
    client.wait(&kept, Duration::from_secs(20)).await?;
    let gone = client.submit(&Submission::new("noop")).await?.job.id;
    drop(client.wait(&gone, Duration::from_secs(20)).await);
    drop(service);

    // The sweep comes at the start, and then each minute.
    let service = Service::start(&Setup::real(dir.path(), 2)).await?;
    let client = Client::new(&service.url, &service.secret)?;
    let started = now();
    while client.get(&gone).await.is_ok() {
        ensure!(started.elapsed() < Duration::from_secs(20), "the job is kept");
        pause(Duration::from_millis(10)).await; // bounded poll
    }
    assert_eq!(client.get(&kept).await?.name, "demo");
    Ok(())
}
