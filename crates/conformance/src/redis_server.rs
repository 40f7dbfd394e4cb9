//! A Redis server of a test's own: on a socket in its own directory, gone when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A `redis-server` process.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server that writes nothing to the disk.
    pub fn start() -> RedisServer {
        RedisServer::with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a server with further arguments.
    pub fn with(args: &[&str]) -> RedisServer {
        let dir = TempDir::new().expect("a temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = RedisServer { dir, args, child: None };
        server.run();
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
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
    #[expect(clippy::disallowed_methods, reason = "how long a process takes to come up is no matter of the store's time")]
    pub fn run(&mut self) {
        // The kernel kills it with the thread that started it, should this process be killed before it can do so.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--port", "0", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts: see scripts/setup.sh");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server does not come up");
            std::thread::yield_now();
        }
    }

    /// Whether it answers a ping, and is not still loading.
    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(self.socket()) else { return false };
        let mut answer = [0; 7];
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG\r\n"
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
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
