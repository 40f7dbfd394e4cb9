//! The real binary, and what it costs to hold a million waiting jobs: memory and list latency.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jobservice_core::store::{NewJob, OptionsChange};
use jobservice_core::{Clock as _, Job, JobId, Name, Store as _, SystemClock};
use jobservice_sqlite::SqliteStore;

use crate::lifecycle::noop_spec;
use crate::rest::Connection;
use crate::stats::{Samples, now, pause, say, thousands};

const LISTS: usize = 500;

/// The service as a child process; killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    pub(crate) secret: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Served {
    pub(crate) fn start(data: &Path, workers: usize) -> anyhow::Result<Served> {
        let endpoint = data.join("endpoint");
        if endpoint.exists() {
            std::fs::remove_file(&endpoint)?;
        }
        let log = std::fs::File::create(data.join("service.log"))?;
        let child = Command::new(binary()?)
            .arg("--data-dir")
            .arg(data)
            .args(["--port", "0", "--workers", &workers.to_string()])
            .env_remove("CORE_SECRET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut served = Served { child, address: String::new(), secret: String::new() };
        let started = now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        while started.elapsed() < Duration::from_secs(60) {
            if let Some(status) = served.child.try_wait()? {
                bail!("the service ended at start: {status}");
            }
            if let Ok(url) = std::fs::read_to_string(&endpoint)
                && url.ends_with('\n')
            {
                url.trim().trim_start_matches("http://").trim_end_matches("/api/v1").clone_into(&mut served.address);
                std::fs::read_to_string(data.join("secret"))?.trim().clone_into(&mut served.secret);
                return Ok(served);
            }
            runtime.block_on(pause(Duration::from_millis(5)));
        }
        bail!("the service was not ready within a minute");
    }

    /// Resident memory in MiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        Ok(resident(self.child.id())? / 1024.0)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        format!("GET /api/v1{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Harbor-Secret {}\r\n\r\n", self.secret)
    }
}

/// The release binary, built if it is not there or older than the sources: once, so that no later start is measured with it.
fn binary() -> anyhow::Result<PathBuf> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BINARY.get() {
        return Ok(path.clone());
    }
    let built = Command::new("cargo").args(["build", "--release", "--quiet", "--bin", "jobservice"]).status()?;
    ensure!(built.success(), "cargo cannot build the service");
    let bench = std::env::current_exe()?;
    let path = bench.parent().context("the bench binary has no directory")?.join("jobservice");
    Ok(BINARY.get_or_init(|| path).clone())
}

pub(crate) fn run(directory: &Path, stored: usize) -> anyhow::Result<()> {
    let empty = tempfile::tempdir_in(directory)?;
    let idle = Served::start(empty.path(), 10)?;
    say(format!("== memory and lists\nidle, nothing stored: {:.0} MiB resident", idle.memory()?));
    drop(idle);

    let data = tempfile::tempdir_in(directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let started = now();
    runtime.block_on(preload(&data.path().join("jobs.db"), stored))?;
    say(format!("{} waiting jobs stored in {:.1} s", thousands(stored as f64), started.elapsed().as_secs_f64()));

    let started = now();
    let served = Served::start(data.path(), 10)?;
    say(format!("started with them in {:.2} s, {:.0} MiB resident", started.elapsed().as_secs_f64(), served.memory()?));
    for (what, path) in [
        ("newest 50", "/jobs?limit=50"),
        ("pending, 50", "/jobs?status=pending&limit=50"),
        ("by name, 50", "/jobs?name=noop&limit=50"),
        ("by name and status, 50", "/jobs?name=noop&status=pending&limit=50"),
        ("success (none), 50", "/jobs?status=success&limit=50"),
    ] {
        let mut samples = runtime.block_on(async {
            let mut connection = Connection::open(&served.address).await?;
            let request = served.get(path);
            let mut samples = Samples::default();
            for _ in 0..LISTS {
                let asked = now();
                let status = connection.exchange(request.as_bytes()).await?;
                ensure!(status == 200, "{path} answered {status}");
                samples.push(asked.elapsed());
            }
            anyhow::Ok(samples)
        })?;
        say(format!("list {what}: {}", samples.summary()));
    }
    say(format!("after {} lists: {:.0} MiB resident", 5 * LISTS, served.memory()?));
    Ok(())
}

/// Fills a store with Pending jobs of a paused name, so that they stay waiting.
async fn preload(path: &Path, stored: usize) -> anyhow::Result<()> {
    let store = SqliteStore::open(path, jobservice_sqlite::Options::default())?;
    let clock = SystemClock::new();
    let name = Name::new("noop")?;
    store.set_options(&name, OptionsChange { paused: Some(true), ..OptionsChange::default() }, clock.now()).await?;
    for batch in 0..stored.div_ceil(1000) {
        let size = 1000.min(stored - batch * 1000);
        let jobs: Vec<NewJob> = (0..size)
            .map(|_| Job::submitted(JobId::generate(), noop_spec(&name, clock.now()), None, clock.now()).into())
            .collect();
        store.insert(jobs, clock.now()).await?;
    }
    Ok(())
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}
