//! A Redis server of a test's own: on a socket in its own directory and, if it is asked to, on a port; gone when it is
//! dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A `redis-server` process.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    args: Vec<String>,
    /// Where it listens beside its socket; the same over restarts.
    port: Option<u16>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server that writes nothing to the disk.
    pub fn start() -> RedisServer {
        RedisServer::with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a server with further arguments.
    pub fn with(args: &[&str]) -> RedisServer {
        RedisServer::on(None, args)
    }

    /// Starts a server with further arguments that listens on a free port of this machine as well.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn tcp(args: &[&str]) -> RedisServer {
        RedisServer::on(Some(free_port()), args)
    }

    fn on(port: Option<u16>, args: &[&str]) -> RedisServer {
        let dir = TempDir::new().expect("a temporary directory");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = RedisServer { dir, args, port, child: None };
        server.run();
        server
    }

    /// Where it listens: its port if it has one, else its socket.
    pub fn url(&self) -> String {
        match self.port {
            Some(port) => format!("redis://127.0.0.1:{port}"),
            None => format!("redis+unix://{}", self.socket().display()),
        }
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
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a process takes to come up is no matter of the store's time"
    )]
    pub fn run(&mut self) {
        // The kernel kills it with the thread that started it, should this process be killed before it can do so.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1", "--port"])
            .arg(self.port.unwrap_or(0).to_string())
            .arg("--unixsocket")
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

    /// Asks it something, as `redis-cli` does, and answers with what that prints.
    ///
    /// # Panics
    /// If it does not answer, or with an error.
    pub fn ask(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let output = cli.arg("-s").arg(self.socket()).arg("-e").args(command).output().expect("redis-cli starts");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// The process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
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

/// A port that nobody listens on just now.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
