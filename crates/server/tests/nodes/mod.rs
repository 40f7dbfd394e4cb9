//! What the tests of several nodes share: nodes of `examples/marks.rs` over one Redis, the file with the marks that their
//! jobs leave, and what can be read from it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

pub mod load;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use jobservice_conformance::redis_server::RedisServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::chaos::{Api, Context as _, Result, Service, Setup, ensure, now, pause, wall_ms};

/// Long enough for anything on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes over one Redis, each with a data directory of its own.
pub struct Cluster {
    pub redis: RedisServer,
    pub nodes: Vec<Node>,
    pub marks: Marks,
    dir: TempDir,
}

/// One of them; there is no service while it is killed.
pub struct Node {
    setup: Setup,
    service: Option<Service>,
}

impl Cluster {
    /// A Redis with these arguments and no nodes yet.
    pub fn on(redis: RedisServer) -> Result<Cluster> {
        let dir = tempfile::tempdir()?;
        let marks = Marks { path: dir.path().join("marks") };
        Ok(Cluster { redis, nodes: Vec::new(), marks, dir })
    }

    /// So many nodes with so many workers each, over a Redis with these arguments.
    pub async fn start(redis: &[&str], nodes: usize, workers: usize) -> Result<Cluster> {
        let mut cluster = Cluster::on(RedisServer::on_a_port(redis))?;
        for _ in 0..nodes {
            cluster.add(workers, |setup| setup).await?;
        }
        Ok(cluster)
    }

    /// One node more, changed as the caller likes.
    pub async fn add(&mut self, workers: usize, change: impl FnOnce(Setup) -> Setup) -> Result<()> {
        let data = self.dir.path().join(format!("node-{}", self.nodes.len()));
        std::fs::create_dir(&data)?;
        let setup = Setup::example("marks", &data, workers)
            .env("JOB_SERVICE_POOL_BACKEND", "redis")
            .env("JOB_SERVICE_POOL_REDIS_URL", format!("redis://127.0.0.1:{}", self.redis.port()))
            .env("MARKS", self.marks.path.display().to_string());
        let setup = change(setup);
        let service = Some(Service::start(&setup).await?);
        self.nodes.push(Node { setup, service });
        Ok(())
    }

    pub fn node(&self, at: usize) -> &Service {
        self.nodes[at].service.as_ref().expect("the node runs")
    }

    pub fn api(&self, at: usize) -> Api {
        self.node(at).api()
    }

    /// Which node that process is.
    pub fn with_pid(&self, pid: i32) -> Result<usize> {
        let is = |node: &Node| node.service.as_ref().is_some_and(|service| service.pid().as_raw() == pid);
        self.nodes.iter().position(is).with_context(|| format!("no node is process {pid}"))
    }

    /// kill -9 of a node, which the file with the marks shows from the moment on when it can leave none any more.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let mut service = self.nodes[at].service.take().context("the node runs")?;
        let pid = service.pid();
        service.kill()?;
        let line = format!("killed {pid} - - 0 {}\n", uptime()?);
        OpenOptions::new().create(true).append(true).open(&self.marks.path)?.write_all(line.as_bytes())?;
        Ok(())
    }

    /// Starts a killed node again.
    pub async fn restart(&mut self, at: usize) -> Result<()> {
        let service = Service::start(&self.nodes[at].setup).await?;
        self.nodes[at].service = Some(service);
        Ok(())
    }

    /// The directory of a node.
    pub fn data(&self, at: usize) -> &std::path::Path {
        &self.nodes[at].setup.data
    }

    /// What a node has written into its log.
    pub fn log(&self, at: usize) -> Result<String> {
        Ok(std::fs::read_to_string(self.nodes[at].setup.data.join("service.log"))?)
    }

    /// Every node runs still: none has ended by itself.
    pub fn all_run(&mut self) -> Result<()> {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Some(service) = &mut node.service {
                let ended = service.ended()?;
                ensure!(ended.is_none(), "node {at} has ended: {ended:?}");
            }
        }
        Ok(())
    }

    /// How many jobs wait or run.
    pub async fn unfinished(&self, at: usize) -> Result<u64> {
        let counts = self.api(at).ask("GET", "/stats/counts", None).await?.json()?;
        Ok(["pending", "running", "scheduled"].iter().filter_map(|status| counts[*status].as_u64()).sum())
    }

    /// Waits until no job waits or runs.
    pub async fn drained(&self, at: usize, limit: Duration) -> Result<()> {
        until(limit, "the queue drains", async || Ok(self.unfinished(at).await? == 0)).await
    }
}

/// Polls until it is so.
pub async fn until(limit: Duration, what: &str, mut is: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let started = now();
    while !is().await.with_context(|| what.to_owned())? {
        ensure!(started.elapsed() < limit, "not within {limit:?}: {what}");
        pause(Duration::from_millis(20)).await; // bounded poll
    }
    Ok(())
}

/// Submits jobs in batches through one node; their ids.
pub async fn submit_many(api: &Api, name: &str, parameters: &Value, jobs: usize) -> Result<Vec<String>> {
    let job = json!({"name": name, "parameters": parameters, "metadata": {"kind": "Generic"}});
    let mut ids = Vec::with_capacity(jobs);
    while ids.len() < jobs {
        let batch = Value::Array(vec![job.clone(); (jobs - ids.len()).min(2000)]);
        let answer = api.ask("POST", "/jobs/batch", Some(batch)).await?;
        ensure!(answer.status == 200, "{answer:?}");
        for one in answer.json()?.as_array().context("a list of answers")? {
            ids.push(one["job"]["id"].as_str().with_context(|| one.to_string())?.to_owned());
        }
    }
    Ok(ids)
}

/// How long the machine is up, in seconds: the clock of the marks.
pub fn uptime() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// The file with the marks.
pub struct Marks {
    path: PathBuf,
}

/// One line of it: see `examples/marks.rs`.
#[derive(Clone, Debug)]
pub struct Mark {
    pub what: String,
    pub pid: i32,
    pub name: String,
    pub id: String,
    pub attempt: u64,
    pub at: f64,
}

impl Marks {
    /// All lines, in the order in which they were written.
    pub fn read(&self) -> Result<Vec<Mark>> {
        let text = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        // A line may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| parse(line).with_context(|| format!("{line:?} is no mark"))).collect()
    }

    /// The lines about one job.
    pub fn of(&self, id: &str) -> Result<Vec<Mark>> {
        Ok(self.read()?.into_iter().filter(|mark| mark.id == id).collect())
    }

    /// Waits for a line.
    pub async fn wait(&self, limit: Duration, what: &str, is: impl Fn(&Mark) -> bool) -> Result<Mark> {
        let mut found = None;
        until(limit, what, async || {
            found = self.read()?.into_iter().find(|mark| is(mark));
            Ok(found.is_some())
        })
        .await?;
        found.context("found")
    }
}

fn parse(line: &str) -> Option<Mark> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    Some(Mark {
        what: word()?.to_owned(),
        pid: word()?.parse().ok()?,
        name: word()?.to_owned(),
        id: word()?.to_owned(),
        attempt: word()?.parse().ok()?,
        at: word()?.parse().ok()?,
    })
}

/// How many jobs of a name ran at the same time at the most. The runs of a killed process end when it is dead.
pub fn concurrency(marks: &[Mark], name: &str) -> usize {
    let (mut running, mut most) = (HashMap::<(&str, u64), i32>::new(), 0);
    for mark in marks.iter().filter(|mark| mark.name == name || mark.what == "killed") {
        match mark.what.as_str() {
            "begin" => drop(running.insert((&mark.id, mark.attempt), mark.pid)),
            "killed" => running.retain(|_, pid| *pid != mark.pid),
            _ => drop(running.remove(&(mark.id.as_str(), mark.attempt))),
        }
        most = most.max(running.len());
    }
    most
}

/// How many runs began in each process.
pub fn by_process(marks: &[Mark]) -> BTreeMap<i32, usize> {
    let mut runs = BTreeMap::new();
    for mark in marks.iter().filter(|mark| mark.what == "begin") {
        *runs.entry(mark.pid).or_insert(0) += 1;
    }
    runs
}

/// Each attempt of each job began once at the most; the jobs that began.
pub fn each_attempt_once(marks: &[Mark]) -> Result<HashSet<&str>> {
    let mut seen = BTreeSet::new();
    for mark in marks.iter().filter(|mark| mark.what == "begin") {
        ensure!(seen.insert((mark.id.as_str(), mark.attempt)), "an attempt began twice: {mark:?}");
    }
    Ok(seen.into_iter().map(|(id, _)| id).collect())
}

/// splitmix64: a seeded run can be replayed.
pub struct Random(pub u64);

impl Random {
    /// From `JOBSERVICE_SEED`, else from the time; printed.
    pub fn new() -> Random {
        let given = std::env::var("JOBSERVICE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| wall_ms() as u64);
        println!("JOBSERVICE_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of that many.
    pub fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}
