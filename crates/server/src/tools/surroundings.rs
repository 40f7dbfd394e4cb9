//! What is around the store: the directory, the disk, and the service.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::findings::Findings;
use super::show_bytes;
use crate::cli::{Cli, connect};
use crate::data_dir;

/// With less the store refuses new jobs at any moment.
const DISK_BROKEN: u64 = 64 * 1024 * 1024;

/// With less, or less than a twentieth, somebody should make room in time.
const DISK_LOW: u64 = 1024 * 1024 * 1024;
const DISK_LOW_PART: u64 = 20;

pub(super) fn directory(path: &Path, findings: &mut Findings) {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let remedy = "start the service once, or look at --data-dir and -c: is this the right place?";
            findings.broken("directory", format!("cannot look at {}: {error}", path.display()), remedy);
            return;
        }
    };
    let open_to_others = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
    };
    let secret = data_dir::secret_path(path);
    if open_to_others(&secret) {
        let remedy = "chmod 600 it: the service does not start like this";
        findings.broken("directory", format!("others can read the secret {}", secret.display()), remedy);
    } else if metadata.permissions().mode() & 0o077 != 0 {
        let remedy = "chmod 700 it, unless others are meant to read what jobs were given";
        findings.warning("directory", format!("others can look into {}", path.display()), remedy);
    } else {
        findings.ok("directory", path.display().to_string());
    }
}

pub(super) fn disk(store: &Path, findings: &mut Findings) {
    let directory = store.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let stats = match statvfs(directory) {
        Ok(stats) => stats,
        Err(error) => {
            findings.warning("disk", format!("cannot look at the disk of {}: {error}", directory.display()), "");
            return;
        }
    };
    let free = stats.blocks_available().saturating_mul(stats.fragment_size());
    let all = stats.blocks().saturating_mul(stats.fragment_size());
    let text = format!("{} of {} free", show_bytes(free), show_bytes(all));
    if free < DISK_BROKEN {
        findings.broken("disk", text, "make room: new jobs are refused when it is full");
    } else if free < DISK_LOW || free < all / DISK_LOW_PART {
        findings.warning("disk", text, "make room, or keep jobs and logs for a shorter time");
    } else {
        findings.ok("disk", text);
    }
}

/// Asks the service how it is. `served`: whether a process holds the lock of the store.
pub(super) fn service(cli: &Cli, data_dir: &Path, served: bool, findings: &mut Findings) {
    if !served {
        findings.warning(
            "service",
            "no process serves the store",
            "start it with `jobservice`, unless it is meant to be down",
        );
        return;
    }
    let answer = connect::connect(&cli.general.connect, Some(data_dir)).and_then(|connection| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((connection.client.url().to_owned(), runtime.block_on(connection.client.readiness())?))
    });
    let (url, readiness) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let remedy =
                "it starts, ends, or hangs: look again, then at its log; --url names it if it is not on this host";
            findings.broken("service", format!("a process serves the store, but does not answer: {error:#}"), remedy);
            return;
        }
    };
    let why = readiness.description.unwrap_or_default();
    match readiness.status.as_str() {
        "ok" => findings.ok("service", format!("answers at {url}")),
        "degraded" => findings.warning("service", why, "see docs/operating.md"),
        status => findings.broken("service", format!("it is {status}: {why}"), "look at its log"),
    }
    if readiness.stuck_workers > 0 {
        let message = format!("{} workers are held by jobs that do not end", readiness.stuck_workers);
        findings.warning("service", message, "their code neither yields nor ends: restart the service, and mend them");
    }
}
