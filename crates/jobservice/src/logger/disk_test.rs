//! What an ill disk does to job logs, and what it must not do to jobs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::bench_test::LogBench;
use super::{FileLogs, LogBackend, StoreLogs};

/// A file system of 8 MiB that can be filled; none where we may not mount.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(dir.path()).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(SmallDisk { dir });
        }
        eprintln!("not allowed to mount a tmpfs: the full disk is not tested here");
        None
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all room there is; answers with the file that takes it.
    fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        for bytes in [1024 * 1024, 4096] {
            loop {
                let mut file = std::fs::File::options().create(true).append(true).open(&ballast).unwrap();
                if std::io::Write::write_all(&mut file, &vec![1; bytes]).is_err() {
                    break;
                }
            }
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.dir.path()).status().ok();
    }
}

/// Goal: a full disk costs lines, which are counted and marked, and nothing else; room made is used again.
async fn full_disk_costs_lines_only(disk: &SmallDisk, backend: Arc<dyn LogBackend>) {
    let name = backend.name().to_owned();
    let t = LogBench::on(backend).await;
    let (lease, log) = t.run().await;
    log.info("before");
    t.logs.flush().await;
    let ballast = disk.fill();
    let long = "x".repeat(50_000);
    for _ in 0..20 {
        log.info(&long);
        timeout(Duration::from_secs(3), t.logs.flush()).await.unwrap();
    }
    // A run that ends meanwhile is not held up.
    let (_, other) = t.run().await;
    other.info(&long);
    timeout(Duration::from_secs(3), other.close()).await.unwrap();
    let lost = t.logs.stats().lines_lost;
    assert!(lost > 1, "{name}");
    let text = t.read_all(&lease.id).await.unwrap();
    assert!(text.contains("before") && text.ends_with('\n'), "{name}: what is there is readable, without half a line");

    std::fs::remove_file(ballast).unwrap();
    log.info("after");
    log.close().await;
    let text = t.read_all(&lease.id).await.unwrap();
    assert!(text.ends_with("[INFO] after\n"), "{name}");
    assert!(text.contains(" log lines lost here: the log could not be written ---\n"), "{name}");
    assert_eq!(t.logs.stats().lines_lost, lost, "{name}");
    t.logs.shutdown().await;
}

#[tokio::test]
async fn full_disk_costs_lines_of_files_only() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = Arc::new(FileLogs::open(disk.path().join("logs")).unwrap());
    full_disk_costs_lines_only(&disk, backend).await;
}

#[tokio::test]
async fn full_disk_costs_lines_of_the_store_only() {
    let Some(disk) = SmallDisk::mount() else { return };
    let backend = Arc::new(StoreLogs::open(disk.path().join("logs.db")).unwrap());
    full_disk_costs_lines_only(&disk, backend).await;
}

#[tokio::test]
async fn removed_directory_costs_the_old_lines_only() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("logs");
    let backends: [Arc<dyn LogBackend>; 2] =
        [Arc::new(FileLogs::open(&sub).unwrap()), Arc::new(StoreLogs::open(sub.join("logs.db")).unwrap())];
    for backend in backends {
        std::fs::create_dir_all(&sub).unwrap();
        let t = LogBench::on(backend).await;
        let (lease, log) = t.run().await;
        log.info("lost");
        t.logs.flush().await;
        std::fs::remove_dir_all(&sub).unwrap();
        log.info("after");
        log.close().await;
        let text = t.read_all(&lease.id).await.unwrap();
        assert!(text.ends_with("[INFO] after\n") && !text.contains("] lost"), "{text}");
        assert_eq!(t.logs.stats().lines_lost, 0);
        t.logs.shutdown().await;
    }
}
