//! What the crash tests share: the real binary as a child process, a load client that writes down what was
//! acknowledged, and the checks over what is found afterwards.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub use anyhow::{Context, Result, anyhow, bail, ensure};

/// Whether the full counts are asked for (`just soak`).
pub fn soak() -> bool {
    std::env::var_os("JOBSERVICE_SOAK").is_some()
}

/// `full` under `just soak`, else `reduced`.
pub fn count(reduced: usize, full: usize) -> usize {
    if soak() { full } else { reduced }
}

/// Seconds since the epoch, as the service's records show them.
#[expect(clippy::disallowed_methods, reason = "compares with times that the service took from the wall clock")]
pub fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("the wall clock is past 1970").as_millis()).expect("fits")
}

/// A monotonic reading.
#[expect(clippy::disallowed_methods, reason = "tests measure how long the service takes")]
pub fn now() -> Instant {
    Instant::now()
}

/// A bounded poll's pause.
#[expect(clippy::disallowed_methods, reason = "the one pause of bounded polls and of paced load")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await; // bounded poll
}

/// How to start the service.
#[derive(Clone)]
pub struct Setup {
    pub bin: PathBuf,
    pub data: PathBuf,
    pub workers: usize,
    pub env: Vec<(String, String)>,
    /// The configuration file, if there is one.
    pub config: Option<PathBuf>,
    /// Whose certificates are trusted (PEM), if the service is to be reached over https.
    pub authority: Option<String>,
    pub args: Vec<String>,
}

impl Setup {
    pub fn real(data: &Path, workers: usize) -> Setup {
        Setup {
            bin: env!("CARGO_BIN_EXE_jobservice").into(),
            data: data.into(),
            workers,
            env: Vec::new(),
            config: None,
            authority: None,
            args: Vec::new(),
        }
    }

    /// A binary among the package's examples, built together with the tests.
    pub fn example(name: &str, data: &Path, workers: usize) -> Setup {
        Setup { bin: Setup::example_bin(name), ..Setup::real(data, workers) }
    }

    /// Where that is.
    pub fn example_bin(name: &str) -> PathBuf {
        let bin = Path::new(env!("CARGO_BIN_EXE_jobservice")).with_file_name("examples").join(name);
        assert!(
            bin.is_file(),
            "{} is not built: run the tests with `cargo nextest run`, which builds examples",
            bin.display()
        );
        bin
    }

    /// With this configuration file.
    pub fn config(mut self, text: &str) -> Setup {
        let path = self.data.join("config.yml");
        std::fs::write(&path, text).expect("the data directory can be written");
        self.config = Some(path);
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Setup {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, key: &str, value: impl Into<String>) -> Setup {
        self.env.push((key.into(), value.into()));
        self
    }
}

/// The service as a child process. Killed when dropped.
pub struct Service {
    child: Child,
    pub url: String,
    pub secret: String,
    pub ready_after: Duration,
    client: reqwest::Client,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Service {
    /// Starts the service and waits until it says that it is ready.
    pub async fn start(setup: &Setup) -> Result<Service> {
        let endpoint = setup.data.join("endpoint");
        if endpoint.exists() {
            std::fs::remove_file(&endpoint)?;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(setup.data.join("service.log"))?;
        let started = now();
        let mut child = Command::new(&setup.bin)
            .arg("--data-dir")
            .arg(&setup.data)
            .args(["--port", "0", "--workers", &setup.workers.to_string()])
            .args(setup.config.iter().flat_map(|file| [Path::new("-c"), file]))
            .args(&setup.args)
            .env_remove("CORE_SECRET")
            .envs(setup.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", setup.bin.display()))?;
        let mut client = reqwest::Client::builder().timeout(Duration::from_secs(40));
        if let Some(authority) = &setup.authority {
            client = client.tls_certs_only([reqwest::Certificate::from_pem(authority.as_bytes())?]);
        }
        let client = client.build()?;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the service ended at start: {status}; {}", tail(&setup.data.join("service.log")));
            }
            if let Ok(url) = std::fs::read_to_string(&endpoint)
                && url.ends_with('\n')
            {
                let url = url.trim().trim_end_matches("/api/v1").to_owned();
                let ready = client.get(format!("{url}/readyz")).send().await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    let secret = std::fs::read_to_string(setup.data.join("secret"))?.trim().to_owned();
                    return Ok(Service { child, url, secret, ready_after: started.elapsed(), client });
                }
            }
            ensure!(
                started.elapsed() < Duration::from_secs(30),
                "not ready within 30 s: {}",
                tail(&setup.data.join("service.log"))
            );
            pause(Duration::from_millis(2)).await; // bounded poll
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(signal::kill(self.pid(), signal)?)
    }

    /// Whether the process has ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until the process ends, at most `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let started = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(started.elapsed() < limit, "still running after {limit:?}");
            pause(Duration::from_millis(5)).await; // bounded poll
        }
    }

    /// kill -9, and reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub fn api(&self) -> Api {
        Api { client: self.client.clone(), base: format!("{}/api/v1", self.url), secret: self.secret.clone() }
    }

    /// How much processor time the process has used so far.
    pub fn used(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name of the program, in brackets, may hold anything; what follows are numbers: the 12th and 13th are ticks.
        let (_, numbers) = stat.rsplit_once(')').context("a bracket")?;
        let ticks: u64 = numbers.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        // 100 ticks a second on every Linux that we know.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory of the process in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib * 1024)
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let from = text.len().saturating_sub(2000);
    text.get(from..).unwrap_or(&text).to_owned()
}

/// The REST API as the load uses it.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    secret: String,
}

impl Api {
    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .header("Authorization", format!("Harbor-Secret {}", self.secret))
    }

    /// Any request of the API; any answer.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
        let mut request = self.request(method.parse()?, path);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (retry_after, date) = (header("retry-after"), header("date"));
        Ok(Answer { status, retry_after, date, text: answer.text().await? })
    }

    /// Submits; the id if the service answered 202, an error with the answer otherwise.
    pub async fn submit(&self, name: &str, parameters: Value, metadata: Value) -> Result<String> {
        let mut metadata = metadata;
        if metadata.get("kind").is_none() {
            metadata["kind"] = json!("Generic");
        }
        self.submit_job(json!({"name": name, "parameters": parameters, "metadata": metadata})).await
    }

    /// The same with the whole job.
    pub async fn submit_job(&self, job: Value) -> Result<String> {
        let body = json!({ "job": job }).to_string();
        let answer = self.request(reqwest::Method::POST, "/jobs").body(body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == 202, "{status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        Ok(answer["job"]["id"].as_str().context("an id")?.to_owned())
    }

    /// Reads as a client should: a 503 says that the store did not answer in time, as a Redis does not while its disk is
    /// busy, and to ask again.
    async fn read(&self, path: &str) -> Result<reqwest::Response> {
        let started = now();
        loop {
            let answer = self.request(reqwest::Method::GET, path).send().await?;
            if answer.status() != 503 || started.elapsed() > Duration::from_secs(30) {
                return Ok(answer);
            }
            ensure!(answer.headers().contains_key("retry-after"), "a 503 that does not say when to ask again");
            pause(Duration::from_millis(100)).await;
        }
    }

    pub async fn get(&self, id: &str) -> Result<Option<Value>> {
        let answer = self.read(&format!("/jobs/{id}")).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let answer: Value = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
        Ok(Some(answer["job"].clone()))
    }

    pub async fn act(&self, id: &str, action: &str) -> Result<u16> {
        let answer = self
            .request(reqwest::Method::POST, &format!("/jobs/{id}"))
            .body(json!({ "action": action }).to_string())
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }

    /// The hook events of a job.
    pub async fn hooks(&self, id: &str) -> Result<Vec<Value>> {
        let answer = self.read(&format!("/jobs/{id}/hooks")).await?;
        Ok(serde_json::from_str(&answer.error_for_status()?.text().await?)?)
    }

    pub async fn log(&self, id: &str) -> Result<String> {
        let answer = self.read(&format!("/jobs/{id}/log")).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    pub async fn wait_final(&self, id: &str, limit: Duration) -> Result<Value> {
        let started = now();
        loop {
            let answer = self.read(&format!("/jobs/{id}?wait=5s")).await?;
            let answer: Value = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
            if is_final(&answer["job"]) {
                return Ok(answer["job"].clone());
            }
            ensure!(started.elapsed() < limit, "{id} is not final after {limit:?}: {answer}");
        }
    }

    /// All jobs of a status, page by page.
    pub async fn list(&self, query: &str) -> Result<Vec<Value>> {
        let mut jobs = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/jobs?limit=1000&{query}{cursor}");
            let answer = self.read(&path).await?.error_for_status()?;
            let next =
                answer.headers().get("next-cursor").map(|value| value.to_str().map(str::to_owned)).transpose()?;
            let page: Value = serde_json::from_str(&answer.text().await?)?;
            let list = page.as_array().or_else(|| page["jobs"].as_array()).context("a list of jobs")?;
            jobs.extend(list.iter().map(|job| job.get("job").unwrap_or(job).clone()));
            match next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(jobs),
            }
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub date: Option<String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{self:?}"))
    }
}

pub fn status(job: &Value) -> &str {
    job["status"].as_str().unwrap_or("")
}

pub fn is_final(job: &Value) -> bool {
    matches!(status(job), "success" | "error" | "stopped" | "cancelled")
}

/// The p-th percentile of durations.
pub fn percentile(samples: &mut [Duration], p: f64) -> Duration {
    samples.sort_unstable();
    let at = ((samples.len() as f64 * p).ceil() as usize).clamp(1, samples.len().max(1)) - 1;
    samples.get(at).copied().unwrap_or_default()
}
