//! Goal: a failover by a partition of the network costs nothing that was acknowledged (`durability: replica`), or what it
//! costs is told (`local`).
//! Method: three network namespaces on a switch. In the first are the primary, a sentinel and the node with its clients,
//! so that all of them stay together when it is cut off: the worst case, as the old primary goes on answering. In the
//! second are the replica and a sentinel, in the third a sentinel. Must show (e) of the issue about Redis.
//!
//! The test runs itself a second time inside the first namespace. Without root it is skipped, and says so.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;
mod nodes;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chaos::{Context as _, Result, bail, count, ensure, now, pause};
use jobservice_conformance::redis_server::{APPEND_ONLY, RedisServer};
use nodes::load::Load;
use nodes::{Cluster, PATIENCE, until};
use serde_json::json;
use tempfile::TempDir;

/// Says to the second run in which namespaces it is: what their names begin with.
const INSIDE: &str = "JOBSERVICE_NETNS";

const PORT: &str = "6379";
const SENTINEL_PORT: &str = "26379";

/// How long the first namespace is cut off: sentinels act after a second and a little.
const CUT: Duration = Duration::from_secs(8);

#[test]
fn a_partition_loses_nothing_that_a_replica_has() -> Result<()> {
    in_namespaces("a_partition_loses_nothing_that_a_replica_has", "replica")
}

#[test]
fn what_a_partition_loses_without_is_told() -> Result<()> {
    in_namespaces("what_a_partition_loses_without_is_told", "local")
}

fn in_namespaces(test: &str, durability: &str) -> Result<()> {
    if let Ok(names) = std::env::var(INSIDE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        for _ in 0..count(1, 5) {
            runtime.block_on(partition(&names, durability))?;
        }
        return Ok(());
    }
    let names = match Namespaces::new() {
        Ok(names) => names,
        Err(why) => {
            println!("SKIPPED: there can be no network namespaces here (it takes root and ip of iproute2): {why:#}");
            return Ok(());
        }
    };
    let mut again = within(&names.0, "1", &std::env::current_exe()?.display().to_string());
    let status = again.args(["--exact", test, "--nocapture"]).env(INSIDE, &names.0).status()?;
    ensure!(status.success(), "inside of the namespaces: {status}");
    Ok(())
}

/// Three namespaces on a switch, which is in a fourth; gone when it is dropped.
struct Namespaces(String);

impl Namespaces {
    fn new() -> Result<Namespaces> {
        let names = Namespaces(format!("js{}", std::process::id()));
        let hub = format!("{}hub", names.0);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "switch", "up"])?;
        for number in ["1", "2", "3"] {
            let (space, cable) = (format!("{}{number}", names.0), format!("cable{number}"));
            ip(&["netns", "add", &space])?;
            ip(&["-n", &hub, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &cable, "master", "switch", "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{}/24", address(number)), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(names)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for part in ["hub", "1", "2", "3"] {
            // One that was not made cannot be removed.
            ip(&["netns", "del", &format!("{}{part}", self.0)]).ok();
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("ip")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

fn address(number: &str) -> String {
    format!("10.213.77.{number}")
}

/// A program in the namespace of that number.
fn within(names: &str, number: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("{names}{number}"), program]);
    command
}

/// Plugs the cable of the first namespace out of the switch, or in again. Its own addresses stay, so that what is inside
/// goes on talking to one another.
fn plug(names: &str, state: &str) -> Result<()> {
    ip(&["-n", &format!("{names}hub"), "link", "set", "cable1", state])
}

/// A Redis or a sentinel in a namespace, killed when it is dropped.
struct Process {
    child: Child,
    _dir: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start(names: &str, number: &str, config: &str, args: &[&str]) -> Result<Process> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("redis.conf");
    std::fs::write(&file, format!("dir {}\nprotected-mode no\n{config}\n", dir.path().display()))?;
    // ip becomes setpriv and then the server: the child is the server itself.
    let mut server = within(names, number, "setpriv");
    server.args(["--pdeathsig", "KILL", "redis-server"]).arg(file).args(args);
    let child = server.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    Ok(Process { child, _dir: dir })
}

/// What a server answers, asked from within its own namespace.
fn ask(names: &str, number: &str, port: &str, command: &[&str]) -> Result<String> {
    let output = within(names, number, "redis-cli").args(["-p", port]).args(command).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn partition(names: &str, durability: &str) -> Result<()> {
    let settings = "save ''\nappendonly yes\nappendfsync always\nrepl-timeout 5\nrepl-ping-replica-period 1\nrepl-diskless-sync-delay 0";
    let _primary = start(names, "1", settings, &["--port", PORT])?;
    let follow = format!("{settings}\nreplicaof {} {PORT}", address("1"));
    let _replica = start(names, "2", &follow, &["--port", PORT])?;
    let follows = async || Ok(ask(names, "2", PORT, &["INFO", "replication"])?.contains("master_link_status:up"));
    until(PATIENCE, "the replica follows", follows).await?;
    let watch = format!(
        "sentinel monitor main {} {PORT} 2\nsentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000",
        address("1")
    );
    let mut sentinels = Vec::new();
    for number in ["1", "2", "3"] {
        sentinels.push(start(names, number, &watch, &["--sentinel", "--port", SENTINEL_PORT])?);
    }
    for number in ["1", "2", "3"] {
        until(PATIENCE, "the sentinels know each other and the replica", async || {
            let master = ask(names, number, SENTINEL_PORT, &["SENTINEL", "MASTER", "main"])?;
            let fields: Vec<&str> = master.lines().collect();
            let field = |name| fields.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
            Ok(field("num-other-sentinels") == Some("2") && field("num-slaves") == Some("1"))
        })
        .await?;
    }

    // Its own Redis is not used by any node: they are told the sentinels.
    let mut cluster = Cluster::on(RedisServer::on_a_port(&APPEND_ONLY))?;
    let hosts: Vec<String> = ["1", "2", "3"].map(|number| format!("{}:{SENTINEL_PORT}", address(number))).into();
    let url = format!("redis+sentinel://{}/main", hosts.join(","));
    let set = |setup: chaos::Setup| {
        setup.env("JOB_SERVICE_POOL_REDIS_URL", url).env("JOB_SERVICE_POOL_REDIS_DURABILITY", durability)
    };
    cluster.add(4, set).await?;
    let load = Load::start(&cluster, 1);
    pause(Duration::from_secs(2)).await;

    plug(names, "down")?;
    let cut = now();
    until(CUT, "the replica takes over", async || {
        Ok(ask(names, "2", PORT, &["INFO", "replication"])?.contains("role:master"))
    })
    .await?;
    let promoted = cut.elapsed();
    let alone = (durability == "replica").then_some(cluster.api(0));
    if let Some(api) = alone {
        let asked = now();
        let job = json!({"job": {"name": "mark", "metadata": {"kind": "Generic"}}});
        let answer = api.ask("POST", "/jobs", Some(job)).await?;
        ensure!(answer.status == 503 && answer.retry_after.is_some(), "taken in without a replica: {answer:?}");
        ensure!(asked.elapsed() < Duration::from_secs(3), "503 only after {:?}", asked.elapsed());
    }
    pause(CUT.saturating_sub(cut.elapsed())).await;
    plug(names, "up")?;
    let healed = now();
    until(PATIENCE, "the old primary follows the new one", async || {
        Ok(ask(names, "1", PORT, &["INFO", "replication"])?.contains("role:slave"))
    })
    .await?;
    until(PATIENCE, "the node serves again", async || {
        Ok(cluster.api(0).submit("mark", json!({}), json!({})).await.is_ok())
    })
    .await?;
    let served = healed.elapsed();
    pause(Duration::from_secs(1)).await;
    let (acknowledged, unanswered) = load.stop().await;
    cluster.drained(0, Duration::from_secs(60)).await?;
    cluster.all_run()?;

    let there: std::collections::HashSet<String> =
        cluster.api(0).list("").await?.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)).collect();
    let lost = acknowledged.iter().filter(|id| !there.contains(*id)).count();
    println!(
        "durability {durability}: {lost} of {} acknowledged lost, {unanswered} not acknowledged; promoted after {promoted:?}, \
         served {served:?} after the cut ended",
        acknowledged.len()
    );
    if durability == "replica" {
        ensure!(lost == 0, "{lost} lost");
    } else {
        ensure!(lost > 0, "nothing was lost, so nothing was shown: was the network cut?");
        let ready = reqwest::get(format!("{}/readyz", cluster.node(0).url)).await?.text().await?;
        ensure!(ready.contains("degraded") && ready.contains("older state"), "{lost} lost, and it says {ready}");
    }
    Ok(())
}
