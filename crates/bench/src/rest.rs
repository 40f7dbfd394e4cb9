//! Durable single submits a second over REST: the real binary, 64 keep-alive connections from this process.
//!
//! The load is written by hand on plain sockets: a general HTTP client would cost as much as the service on a machine
//! with two cores, and the figure would be the client's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::served::Served;
use crate::stats::{Samples, now, say, thousands};

const CONNECTIONS: usize = 64;
const SUBMITS: usize = 200_000;
const WARM_UP: usize = 10_000;

pub(crate) fn run(directory: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(directory)?;
    let served = Served::start(dir.path(), 10)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Scheduled for tomorrow: what is measured is the submit, not the run that competes with it for two cores.
    let later =
        r#"{"job":{"name":"noop","parameters":{"n":1},"metadata":{"kind":"Scheduled","schedule_delay":86400}}}"#;
    let at_once = r#"{"job":{"name":"noop","parameters":{"n":1},"metadata":{"kind":"Generic"}}}"#;
    runtime.block_on(load(&served, later, WARM_UP))?;
    say("== REST: durable single submits, 64 keep-alive connections, load on the same two cores");
    for (what, body) in [("submit alone (scheduled)", later), ("submit and run (noop, 10 workers)", at_once)] {
        let (rate, mut samples) = runtime.block_on(load(&served, body, SUBMITS))?;
        say(format!("{what}: {} submits/s, {}", thousands(rate), samples.summary()));
    }
    Ok(())
}

async fn load(served: &Served, body: &str, submits: usize) -> anyhow::Result<(f64, Samples)> {
    let request = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nHost: bench\r\nAuthorization: Harbor-Secret {}\r\nContent-Length: {}\r\n\r\n{body}",
        served.secret,
        body.len()
    );
    let started = now();
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let (address, request) = (served.address.clone(), request.clone());
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let mut samples = Samples::default();
            for _ in 0..submits / CONNECTIONS {
                let asked = now();
                let status = connection.exchange(request.as_bytes()).await?;
                ensure!(status == 202, "the service answered {status}");
                samples.push(asked.elapsed());
            }
            anyhow::Ok(samples)
        }));
    }
    let mut samples = Samples::default();
    for task in tasks {
        samples.extend(task.await??);
    }
    Ok((samples.len() as f64 / started.elapsed().as_secs_f64(), samples))
}

/// One keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Connection> {
        let stream = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(1 << 16) })
    }

    /// Sends a request and reads the whole answer; its status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the service closed the connection");
            let Some(head) = find(&self.buffer, b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(self.buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
            let length: usize = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .context("an answer without content-length")?
                .trim()
                .parse()?;
            if self.buffer.len() >= head + 4 + length {
                return Ok(text.get(9..12).context("a status line")?.parse()?);
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
