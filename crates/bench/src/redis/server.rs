//! A `redis-server` of this bench's own: a free port, a directory that goes with it, and an end in any case.

use std::fmt;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::stats::{now, pause};

const START: Duration = Duration::from_secs(10);

/// What Redis writes to the disk.
#[derive(Clone, Copy)]
pub(crate) enum Aof {
    Off,
    EverySecond,
}

impl fmt::Display for Aof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Aof::Off => "off",
            Aof::EverySecond => "everysec",
        })
    }
}

/// A running Redis; killed when dropped, its directory removed.
pub(crate) struct Server {
    child: Child,
    port: u16,
    _data: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Starts one that holds nothing.
    pub(crate) fn start(directory: &Path, aof: Aof) -> anyhow::Result<Server> {
        let data = tempfile::tempdir_in(directory)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = bound("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", if matches!(aof, Aof::Off) { "no" } else { "yes" }, "--appendfsync", "everysec"])
            // A rewrite of the file would fall into one contestant's time and not into another's.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server: it needs Debian's redis-server and util-linux")?;
        let mut server = Server { child, port, _data: data };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let started = now();
        while started.elapsed() < START {
            if let Some(status) = server.child.try_wait()? {
                bail!("redis-server ended at start: {status}");
            }
            if server.ask(&["PING"]).is_ok_and(|answer| answer.trim() == "PONG") {
                return Ok(server);
            }
            runtime.block_on(pause(Duration::from_millis(20)));
        }
        bail!("redis-server was not ready within {} s", START.as_secs());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What Redis answers to a command.
    pub(crate) fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        output(Command::new("redis-cli").args(["-e", "-p", &self.port.to_string()]).args(command))
    }

    /// Deletes all that is stored; scripts stay.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        self.ask(&["FLUSHALL", "SYNC"])?;
        Ok(())
    }

    /// Bytes in use, without what waits to be appended to the file.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let info = self.ask(&["INFO", "memory"])?;
        Ok(info_number(&info, "used_memory")?.saturating_sub(info_number(&info, "mem_aof_buffer")?))
    }

    pub(crate) fn keys(&self) -> anyhow::Result<u64> {
        Ok(self.ask(&["DBSIZE"])?.trim().parse()?)
    }
}

/// The version of the `redis-server` that is installed.
pub(crate) fn version() -> anyhow::Result<String> {
    let text = output(Command::new("redis-server").arg("--version"))?;
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.context("redis-server does not say its version")?.to_owned())
}

/// A command that is told to end when this process does, however that ends.
pub(crate) fn bound(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", program]);
    command
}

/// What a command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A number of what `INFO` answers.
fn info_number(info: &str, field: &str) -> anyhow::Result<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("INFO has no {field}"))?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_info_is_that_of_the_whole_field_name() {
        let info = "# Memory\r\nused_memory_peak:3\r\nused_memory:17\r\nmem_aof_buffer:0\r\n";

        assert_eq!(info_number(info, "used_memory").unwrap(), 17);
        assert!(info_number(info, "used").is_err());
    }
}
