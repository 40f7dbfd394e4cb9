//! Redis servers of a test's own: on sockets in their own directories, or on free ports of the loopback where it takes
//! several that talk to each other; gone when they are dropped.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What a server is given to write nothing to the disk.
const IN_MEMORY: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// What a server is given that keeps all that it was told over a kill. With `everysec` it may not: while a sync is under way
/// it answers before it has written, for up to two seconds.
pub const APPEND_ONLY: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

/// How long a server may take to come up, and servers to find each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `redis-server` process.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    args: Vec<String>,
    /// None: it listens on its socket only.
    port: Option<u16>,
    sentinel: bool,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server that writes nothing to the disk.
    pub fn start() -> RedisServer {
        RedisServer::with(&IN_MEMORY)
    }

    /// Starts a server with further arguments.
    pub fn with(args: &[&str]) -> RedisServer {
        RedisServer::new(None, args)
    }

    /// Starts a server that listens on a port of the loopback as well, with further arguments.
    pub fn on_a_port(args: &[&str]) -> RedisServer {
        RedisServer::new(Some(free_port()), args)
    }

    /// Starts a replica of `primary`, which has a port, and waits until it follows.
    ///
    /// # Panics
    /// If it does not.
    pub fn replica_of(primary: &RedisServer, args: &[&str]) -> RedisServer {
        let port = primary.port().to_string();
        let args = [args, &["--replicaof", "127.0.0.1", &port]].concat();
        let replica = RedisServer::on_a_port(&args);
        wait_until("the replica follows", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
        replica
    }

    /// Starts a sentinel that watches over `primary` under the name `main` and acts alone.
    pub fn sentinel_of(primary: &RedisServer) -> RedisServer {
        let dir = TempDir::new().expect("a temporary directory");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n",
            primary.port()
        );
        std::fs::write(dir.path().join("sentinel.conf"), text).expect("the directory is ours");
        let mut server = RedisServer { dir, args: Vec::new(), port: Some(free_port()), sentinel: true, child: None };
        server.run();
        server
    }

    /// Starts a cluster of so many primaries, each on a port, and waits until it serves all slots.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn cluster(primaries: usize) -> Vec<RedisServer> {
        let args = [&IN_MEMORY[..], &["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]].concat();
        let servers: Vec<RedisServer> = (0..primaries).map(|_| RedisServer::on_a_port(&args)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        for server in &servers {
            create.arg(format!("127.0.0.1:{}", server.port()));
        }
        let created = create.args(["--cluster-replicas", "0", "--cluster-yes"]).output().expect("redis-cli runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        for server in &servers {
            wait_until("the cluster serves", || server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        }
        servers
    }

    fn new(port: Option<u16>, args: &[&str]) -> RedisServer {
        let dir = TempDir::new().expect("a temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = RedisServer { dir, args, port, sentinel: false, child: None };
        server.run();
        server
    }

    /// Where it listens: its socket.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Its port.
    ///
    /// # Panics
    /// If it was started without one.
    pub fn port(&self) -> u16 {
        self.port.expect("a server with a port")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the process, again after [`RedisServer::kill`], and waits until it answers.
    ///
    /// # Panics
    /// If there is no `redis-server`, or it does not come up.
    pub fn run(&mut self) {
        // The kernel kills it with the thread that started it, should this process be killed before it can do so.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]);
        if self.sentinel {
            command.arg(self.dir.path().join("sentinel.conf")).arg("--sentinel");
        }
        command.arg("--port").arg(self.port.unwrap_or(0).to_string());
        command.arg("--unixsocket").arg(self.socket()).arg("--dir").arg(self.dir.path()).args(&self.args);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts: see scripts/setup.sh");
        self.child = Some(child);
        wait_until("redis-server comes up", || self.answers());
    }

    /// Whether it answers a ping, and is not still loading.
    fn answers(&self) -> bool {
        let mut answer = [0; 7];
        let Ok(mut stream) = UnixStream::connect(self.socket()) else { return false };
        let is_there = stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok();
        // One that asks for a password has come up too.
        is_there && (&answer == b"+PONG\r\n" || answer.starts_with(b"-NOAUTH"))
    }

    /// Kills the process without warning.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is as dead.
            child.kill().ok();
            child.wait().expect("the process is ours");
        }
    }

    /// Stops the process where it is (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Sends it a command; what it answers, as `redis-cli` shows it.
    ///
    /// # Panics
    /// If there is no `redis-cli`.
    pub fn cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-s").arg(self.socket()).args(command).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).into_owned()
    }

    /// What clients send it from now on for so long, a line for each command, without those that scripts call. Blocks.
    ///
    /// # Panics
    /// If there is no `redis-cli`.
    pub fn commands_within(&self, time: Duration) -> Vec<String> {
        let mut monitor = Command::new("redis-cli")
            .arg("-s")
            .arg(self.socket())
            .arg("MONITOR")
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli runs");
        let (sender, lines) = std::sync::mpsc::channel();
        let output = BufReader::new(monitor.stdout.take().expect("its output is ours"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        // The first line says that it listens.
        lines.recv_timeout(PATIENCE).expect("the monitor begins");
        let (end, mut commands) = (now() + time, Vec::new());
        while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(now())) {
            if !line.contains(" lua] ") {
                commands.push(line);
            }
        }
        // One that has ended already is as dead.
        monitor.kill().ok();
        monitor.wait().expect("the process is ours");
        commands
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for what must come true soon.
///
/// # Panics
/// If it does not.
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !is_true() {
        assert!(now() < deadline, "it takes too long until {what}");
        std::thread::yield_now();
    }
}

/// How long processes take is no matter of the store's time.
#[expect(clippy::disallowed_methods, reason = "it waits for processes")]
fn now() -> Instant {
    Instant::now()
}

/// A port that nobody listens on, below those that the system gives out, so that no connection takes it meanwhile.
///
/// # Panics
/// Never: it looks on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Processes begin at different places; threads of one take turns.
        let number = (std::process::id() as u16).wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        // A node of a cluster talks to the others on this port and 10,000 more.
        let port = 10_000 + number % 10_000;
        let is_free =
            |port| TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpStream::connect(("127.0.0.1", port)).is_err();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}
