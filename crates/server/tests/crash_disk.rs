//! Goal: a disk that is full or ill loses nothing that was acknowledged and says so clearly.
//! Must show (g) of the spine, second half. The full disk needs root (a tmpfs is mounted), the ill one gcc (a shim that
//! makes fsync fail); CI has both, and a test that cannot run says so and fails.

mod chaos;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chaos::{Context as _, Result, Service, Setup, ensure, now, pause, status};
use serde_json::json;

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: usize) -> Result<SmallDisk> {
        let dir = tempfile::tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(dir.path())
            .status()
            .context("mount")?;
        ensure!(mounted.success(), "cannot mount a tmpfs: this test needs root");
        Ok(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_intake_finishes_work_and_recovers() -> Result<()> {
    let disk = SmallDisk::mount(160)?;
    let data = disk.0.path().join("data");
    std::fs::create_dir(&data)?;
    let mut service = Service::start(&Setup::real(&data, 4)).await?;
    let api = service.api();

    // Work that is under way when the disk fills up, and a filler that is taken away later.
    let mut acknowledged = Vec::new();
    for _ in 0..8 {
        acknowledged.push(api.submit("demo", json!({"image": "demo:1", "seconds": 3}), json!({})).await?);
    }
    fill(&disk.0.path().join("filler"), 1 << 20)?;

    let large = json!({"image": "demo:1", "seconds": 0, "padding": "x".repeat(100 << 10)});
    let mut refusal = None;
    for _ in 0..2000 {
        match api.submit("noop", large.clone(), json!({})).await {
            Ok(id) => acknowledged.push(id),
            Err(error) => {
                refusal = Some(error.to_string());
                break;
            }
        }
    }
    let refusal = refusal.context("the disk never filled up")?;
    ensure!(refusal.starts_with("507") && refusal.contains("\"reason\""), "not a clear refusal: {refusal}");
    ensure!(service.ended()?.is_none(), "the service ended on a full disk");

    // Reading and finishing go on.
    for id in &acknowledged[..8] {
        let job = api.wait_final(id, Duration::from_secs(20)).await?;
        ensure!(status(&job) == "success", "work under way did not finish on a full disk: {job}");
    }

    std::fs::remove_file(disk.0.path().join("filler"))?;
    let freed = now();
    loop {
        match api.submit("noop", json!({}), json!({})).await {
            Ok(id) => {
                acknowledged.push(id);
                break;
            }
            Err(error) => ensure!(freed.elapsed() < Duration::from_secs(5), "no recovery within 5 s: {error}"),
        }
        pause(Duration::from_millis(50)).await; // bounded poll
    }
    let recovered = freed.elapsed();

    service.kill()?;
    let service = Service::start(&Setup::real(&data, 4)).await?;
    for id in &acknowledged {
        service.api().wait_final(id, Duration::from_secs(20)).await?;
    }
    println!(
        "{} acknowledged around a full disk, 0 lost; intake again {recovered:?} after space came back",
        acknowledged.len()
    );
    Ok(())
}

/// Fills the disk but for `left` bytes.
fn fill(path: &Path, left: usize) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    let block = vec![0u8; 1 << 16];
    let mut written = 0u64;
    while file.write_all(&block).is_ok() {
        written += block.len() as u64;
    }
    file.set_len(written.saturating_sub(left as u64))?;
    Ok(())
}

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* fsync and fdatasync fail with EIO while the file named by FSYNC_FAILS exists. */
static int ill(void) {
    const char *flag = getenv("FSYNC_FAILS");
    return flag && access(flag, F_OK) == 0;
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (ill()) { errno = EIO; return -1; }
    return real(fd);
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (ill()) { errno = EIO; return -1; }
    return real(fd);
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_closes_the_store_and_nothing_acknowledged_is_lost() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data)?;
    let (source, shim, flag) = (dir.path().join("shim.c"), dir.path().join("shim.so"), dir.path().join("ill"));
    std::fs::write(&source, SHIM)?;
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status()?;
    ensure!(built.success(), "gcc cannot build the shim");
    let path = |path: &Path| path.display().to_string();
    let setup = Setup::real(&data, 4).env("LD_PRELOAD", path(&shim)).env("FSYNC_FAILS", path(&flag));

    let mut service = Service::start(&setup).await?;
    let api = service.api();
    let mut acknowledged = Vec::new();
    for _ in 0..50 {
        acknowledged.push(api.submit("noop", json!({}), json!({})).await?);
    }

    std::fs::write(&flag, "")?;
    let refused = api.submit("noop", json!({}), json!({})).await;
    let ended = service.wait(Duration::from_secs(10)).await?;
    ensure!(refused.is_err(), "a job was acknowledged although its fsync failed");
    let refusal = refused.map_or_else(|error| error.to_string(), |_| String::new());
    ensure!(!ended.success(), "the process must end non-zero: {ended}");
    let log = std::fs::read_to_string(data.join("service.log"))?;
    ensure!(log.contains("closed after a failed write"), "the service log does not say why it ended: {log}");

    std::fs::remove_file(&flag)?;
    let service = Service::start(&setup).await?;
    for id in &acknowledged {
        service.api().wait_final(id, Duration::from_secs(20)).await?;
    }
    println!(
        "{} acknowledged before the failed fsync, 0 lost; refused with {refusal:?}; ended with {ended}",
        acknowledged.len()
    );
    Ok(())
}
