//! What a job that floods costs the process and its neighbours, with the true backends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jobservice_core::limits::LOG_BYTES_MAX;
use tokio::time::timeout;

use super::bench_test::{LogBench, redis_logs};
use super::{FileLogs, JobLog, LogBackend, StoreLogs};

const MIB: u64 = 1024 * 1024;

/// How much is written: enough to need bounds, or as much as the promise says.
fn flood_bytes() -> u64 {
    if std::env::var_os("JOBSERVICE_SOAK").is_some() { 1024 * MIB } else { 64 * MIB }
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

fn flood(log: &JobLog, bytes: u64) -> u64 {
    let text = "z".repeat(960);
    let lines = bytes / 1000;
    for n in 0..lines {
        log.info(format_args!("{n:09} {text}"));
    }
    lines
}

/// Goal: a job that writes 1 GB of log (64 MB outside of a soak) neither grows memory nor delays other jobs, and keeps the
/// first and last lines. Method: it floods on a thread of its own while others write and close all the time.
async fn flood_harms_nobody(backend: Arc<dyn LogBackend>) {
    let t = LogBench::on(backend).await;
    let (lease, log) = t.run().await;
    let before = resident_bytes();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let flooding = std::thread::spawn(move || {
        let lines = flood(&log, flood_bytes());
        over.store(true, Ordering::SeqCst);
        (log, lines)
    });
    let (mut buffered, mut resident, mut neighbours) = (0, 0, 0);
    while !is_over.load(Ordering::SeqCst) {
        let (other, other_log) = t.run().await;
        (0..20).for_each(|n| other_log.info(format_args!("neighbour {n}")));
        timeout(Duration::from_secs(3), other_log.close()).await.expect("a neighbour's end is not held up");
        let text = t.read_all(&other.id).await.unwrap();
        assert_eq!(text.lines().count(), 21, "{text}");
        neighbours += 1;
        buffered = t.logs.stats().bytes_buffered.max(buffered);
        resident = resident_bytes().max(resident);
    }
    let (log, lines) = flooding.join().unwrap();
    timeout(Duration::from_secs(5), log.close()).await.unwrap();

    let text = t.read_all(&lease.id).await.unwrap();
    assert!(text.lines().nth(1).unwrap().contains("[INFO] 000000000 z"));
    assert!(text.lines().last().unwrap().contains(&format!("[INFO] {:09} z", lines - 1)));
    assert!(text.len() <= LOG_BYTES_MAX + 200, "{}", text.len());
    assert!(text.contains(" bytes cut here: "));
    // The buffer of one run, and one that is being written; and the same again as text on its way to the backend.
    assert!(buffered <= 2 * LOG_BYTES_MAX as u64 + MIB, "{buffered}");
    let grown = resident.saturating_sub(before);
    assert!(grown < 120 * MIB, "grown by {} MiB", grown / MIB);
    eprintln!(
        "flood of {} MiB: {neighbours} neighbours, {} MiB buffered at most, resident memory grew by {} MiB, {:?}",
        flood_bytes() / MIB,
        buffered / MIB,
        grown / MIB,
        t.logs.stats()
    );
    t.logs.shutdown().await;
}

#[tokio::test]
async fn flood_into_files_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    flood_harms_nobody(Arc::new(FileLogs::open(dir.path().join("logs")).unwrap())).await;
}

#[tokio::test]
async fn flood_into_the_store_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    flood_harms_nobody(Arc::new(StoreLogs::open(dir.path().join("logs.db")).unwrap())).await;
}

#[tokio::test]
async fn flood_into_redis_harms_nobody() {
    let (_server, redis) = redis_logs().await;
    flood_harms_nobody(redis).await;
}
