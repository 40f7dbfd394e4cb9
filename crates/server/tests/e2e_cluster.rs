//! Goal: the example of a cluster does what its page says, and leaves nothing behind.
//! Method: its script with binaries that are built already, on free ports, driven through its balancer.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use chaos::{Context as _, Result, Setup, ensure, now, pause};
use jobservice_client::{Client, Submission};
use jobservice_conformance::redis_server::free_port;
use jobservice_core::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SECRET: &str = "a-secret-for-the-cluster-example";
const PATIENCE: Duration = Duration::from_secs(30);

/// The script; ended as Ctrl-C ends it, at the latest when it is dropped.
struct Script(Child);

impl Script {
    fn interrupt(&self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits"));
        // One that has ended already needs no ending.
        kill(pid, Signal::SIGINT).ok();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.interrupt();
        drop(self.0.wait());
    }
}

/// Four free ports in a row.
fn free_ports() -> u16 {
    loop {
        let first = free_port();
        if (first..first + 4).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_starts_a_cluster_and_ctrl_c_stops_all_of_it() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let port = free_ports();
    let mut child = Command::new("bash")
        .arg(root.join("examples/cluster/run.sh"))
        .env("CLUSTER_PORT", port.to_string())
        .env("CORE_SECRET", SECRET)
        .env("JOBSERVICE_BIN", env!("CARGO_BIN_EXE_jobservice"))
        .env("BALANCER_BIN", Setup::example_bin("balancer"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("its output is ours")?);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        output.lines().map_while(std::result::Result::ok).try_for_each(|line| sender.send(line))
    });
    let mut script = Script(child);
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.starts_with("Ctrl-C")) {
        said.push(lines.recv_timeout(PATIENCE).with_context(|| format!("it says no more: {said:#?}"))?);
    }
    let data = said.iter().find_map(|line| line.strip_prefix("Ctrl-C stops everything and removes "));
    let data = data.and_then(|line| line.strip_suffix('.')).context("where its data are")?.to_owned();

    // Through the balancer: any node takes it, any node knows it.
    let client = Client::new(&format!("http://127.0.0.1:{port}"), SECRET)?;
    for _ in 0..6 {
        let job = client.submit(&Submission::new("noop")).await?.job;
        ensure!(client.wait(&job.id, PATIENCE).await?.status == Status::Success, "{}", job.id);
    }
    let stats = reqwest::get(format!("http://127.0.0.1:{port}/api/v1/stats")).await?.text().await?;
    ensure!(stats.matches("\"healthy\"").count() == 3, "{stats}");

    // A node dies, by the command that it says: the others serve on, each on a connection of its own.
    let victim: i32 = said
        .iter()
        .find_map(|line| line.trim().strip_prefix("kill -9 ")?.split_whitespace().next()?.parse().ok())
        .context("it says how to kill a node")?;
    let of_victim = format!(", process {victim},");
    let address = said.iter().find(|line| line.contains(&of_victim)).context("it says where that node is")?;
    let address: std::net::SocketAddr = address.split(['/', ',']).nth(2).context("an address")?.parse()?;
    kill(Pid::from_raw(victim), Signal::SIGKILL)?;
    // Until the kernel has closed its socket, connections to it are made and then reset, whoever balances.
    let killed = now();
    while std::net::TcpStream::connect(address).is_ok() {
        ensure!(killed.elapsed() < PATIENCE, "{address} serves on");
        pause(Duration::from_millis(5)).await; // bounded poll
    }
    for _ in 0..6 {
        let client = Client::new(&format!("http://127.0.0.1:{port}"), SECRET)?;
        let job = client.submit(&Submission::new("noop")).await?.job;
        ensure!(client.wait(&job.id, PATIENCE).await?.status == Status::Success, "{}", job.id);
    }

    script.interrupt();
    let interrupted = now();
    while script.0.try_wait()?.is_none() {
        ensure!(interrupted.elapsed() < PATIENCE, "it does not end");
        pause(Duration::from_millis(20)).await; // bounded poll
    }
    ensure!(script.0.wait()?.success(), "it ended with an error");
    for port in port..port + 4 {
        ensure!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "somebody serves port {port} still");
    }
    ensure!(!Path::new(&data).exists(), "{data} is left");
    Ok(())
}
