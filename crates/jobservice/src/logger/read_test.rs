use std::sync::Arc;
use std::time::Duration;

use jobservice_core::JobId;
use tokio::time::timeout;

use jobservice_conformance::redis_server::RedisServer;

use super::bench_test::{LogBench, read_all, redis_logs};
use super::{FileLogs, LogBackend, ReadFrom, StoreLogs};

/// A line must be visible within this time after it was written.
const VISIBLE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn line_is_read_at_once_while_the_job_runs() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    assert_eq!(t.read_all(&lease.id).await, None);
    for n in 0..50 {
        log.info(format_args!("line {n}"));
        let text = timeout(VISIBLE, t.read_all(&lease.id)).await.unwrap().unwrap();
        assert!(text.ends_with(&format!("line {n}\n")), "{text}");
    }
}

#[tokio::test]
async fn reading_on_from_an_offset_gives_what_is_new() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("one");
    let first = t.logs.read(&lease.id, ReadFrom::Offset(0), 10_000).await.unwrap().unwrap();
    assert!(first.is_last() && first.next_offset == first.bytes.len() as u64);
    log.info("two");
    let second = t.logs.read(&lease.id, ReadFrom::Offset(first.next_offset), 10_000).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&second.bytes).ends_with("two\n"));
    assert_eq!(second.offset, first.next_offset);
    let nothing = t.logs.read(&lease.id, ReadFrom::Offset(second.next_offset), 10).await.unwrap().unwrap();
    assert!(nothing.bytes.is_empty() && nothing.is_last());
}

#[tokio::test]
async fn tails_begin_at_a_line() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    let long = "x".repeat(60_000);
    for n in 0..20 {
        log.info(format_args!("line {n:02} {long}"));
    }
    let tail = |from| read_all(&t.logs, &lease.id, from);
    for (lines, begins) in
        [(1, "line 19"), (3, "line 17"), (20, "line 00"), (21, "--- attempt"), (u64::MAX, "--- attempt")]
    {
        let text = tail(ReadFrom::TailLines(lines)).await.unwrap();
        assert!(text.lines().next().unwrap().contains(begins), "{lines}");
        assert_eq!(text.lines().count() as u64, lines.min(21));
    }
    assert_eq!(tail(ReadFrom::TailLines(0)).await.unwrap(), "");
    let whole = tail(ReadFrom::Offset(0)).await.unwrap();
    for bytes in [70_000_u64, 130_000] {
        let text = tail(ReadFrom::TailBytes(bytes)).await.unwrap();
        assert!(text.len() as u64 <= bytes && text.starts_with("2026-") && whole.ends_with(&text));
        assert_eq!(text.lines().count() as u64, bytes / 60_040);
    }
    // A line longer than what is asked for is given in part.
    assert_eq!(tail(ReadFrom::TailBytes(100)).await.unwrap().len(), 100);
    assert_eq!(tail(ReadFrom::TailBytes(u64::MAX)).await.unwrap(), whole);
    assert_eq!(tail(ReadFrom::TailBytes(0)).await.unwrap(), "");
}

/// What keeps logs in a directory, and a Redis that must live as long.
async fn backends(dir: &tempfile::TempDir) -> (RedisServer, Vec<Arc<dyn LogBackend>>) {
    let (server, redis) = redis_logs().await;
    let backends: Vec<Arc<dyn LogBackend>> = vec![
        Arc::new(FileLogs::open(dir.path().join("logs")).unwrap()),
        Arc::new(StoreLogs::open(dir.path().join("logs.db")).unwrap()),
        redis,
    ];
    (server, backends)
}

#[tokio::test]
async fn cut_is_marked_with_what_is_missing_and_offsets_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, backends) = backends(&dir).await;
    for backend in backends {
        let name = backend.name().to_owned();
        let t = LogBench::on(backend).await;
        let (lease, log) = t.run().await;
        let line = "y".repeat(1000);
        let mut reader = 0;
        for n in 0..24_000 {
            log.info(format_args!("{n:05} {line}"));
            if n % 4000 == 0 {
                t.logs.flush().await;
            }
            if n == 3000 {
                // In the head; and one who reads on after the middle was dropped.
                reader = t.logs.read(&lease.id, ReadFrom::Offset(0), 1).await.unwrap().unwrap().end;
            }
        }
        t.logs.flush().await;

        let text = t.read_all(&lease.id).await.unwrap();
        let (head, tail) = text.split_once("--- ").unwrap().1.split_once("\n--- ").unwrap();
        let missing: u64 = tail.split_once(" bytes cut here").unwrap().0.parse().unwrap();
        let end = t.logs.read(&lease.id, ReadFrom::Offset(0), 1).await.unwrap().unwrap().end;
        let mark = "--- ".len() + tail.find('\n').unwrap() + 1;
        assert_eq!(text.len() as u64 + missing, end + mark as u64, "{name}: all bytes are there or counted");
        assert!(text.len() <= 10 * 1024 * 1024 + mark, "{name}");
        assert!(text.len() >= 8 * 1024 * 1024, "{name}: {}", text.len());
        assert!(head.contains(" 00000 y") && tail.contains(" 23999 y"), "{name}");
        let on = read_all(&t.logs, &lease.id, ReadFrom::Offset(reader)).await.unwrap();
        assert!(text.ends_with(&on) && on.contains(" bytes cut here"), "{name}");
        // An offset inside what was dropped: the mark says how much of it is missing from there.
        let inside = t.logs.read(&lease.id, ReadFrom::Offset(7_000_000), 100).await.unwrap().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&inside.bytes),
            format!("--- {} bytes cut here: the log is larger than its limit ---\n", inside.next_offset - 7_000_000)
        );
        // A tail that reaches over the cut.
        let lines = text.lines().count() as u64 - 10;
        let over = read_all(&t.logs, &lease.id, ReadFrom::TailLines(lines)).await.unwrap();
        assert!(text.ends_with(&over) && over.contains(" bytes cut here"), "{name}");
        t.logs.shutdown().await;
    }
}

#[tokio::test]
async fn follower_gets_lines_as_they_are_written_until_the_job_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, backends) = backends(&dir).await;
    for backend in backends {
        let t = LogBench::on(backend).await;
        let (lease, log) = t.run().await;
        let mut follower = t.logs.follow(&lease.id, ReadFrom::Offset(0));
        let mut text = String::new();
        for n in 0..20 {
            log.info(format_args!("line {n}"));
            while !text.ends_with(&format!("line {n}\n")) {
                let chunk = timeout(VISIBLE, follower.next()).await.expect("visible within a second").unwrap();
                text.push_str(std::str::from_utf8(&chunk.unwrap().bytes).unwrap());
            }
        }
        let rest = tokio::spawn(async move {
            let mut rest = String::new();
            while let Some(chunk) = follower.next().await.unwrap() {
                rest.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
            }
            rest
        });
        log.info("last words");
        log.close().await;
        t.jobs.finish_ok(&lease).await;
        let rest = timeout(Duration::from_secs(5), rest).await.expect("ends with the job").unwrap();
        assert!(rest.ends_with("last words\n"));
        assert_eq!(text + &rest, t.read_all(&lease.id).await.unwrap());
        t.logs.shutdown().await;
    }
}

#[tokio::test]
async fn follower_waits_for_a_job_that_has_no_log_yet_and_ends_with_one_that_never_wrote() {
    let t = LogBench::new().await;
    let id = t.jobs.job("copy").insert().await;
    let mut follower = t.logs.follow(&id, ReadFrom::Offset(0));
    let followed = tokio::spawn(async move { follower.next().await });
    tokio::task::yield_now().await;
    assert!(!followed.is_finished());
    t.jobs.stop(&id).await;
    let end = timeout(Duration::from_secs(5), followed).await.expect("ends with the job").unwrap();
    assert_eq!(end.unwrap(), None);

    let unknown = JobId::new("no-such-job").unwrap();
    let end = timeout(Duration::from_secs(5), t.logs.follow(&unknown, ReadFrom::Offset(0)).next()).await.unwrap();
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn follower_goes_on_over_a_retry() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    let mut follower = t.logs.follow(&lease.id, ReadFrom::TailLines(1));
    log.info("first");
    log.close().await;
    t.jobs.finish_failed(&lease).await;
    let first = timeout(VISIBLE, follower.next()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first.bytes).ends_with("first\n"));

    t.jobs.advance(Duration::from_secs(100));
    t.jobs.promote().await;
    let again = t.jobs.claim_one("copy").await;
    let log = t.open(&again.lease_key().unwrap());
    log.info("second");
    let second = timeout(VISIBLE, follower.next()).await.unwrap().unwrap().unwrap();
    let text = String::from_utf8_lossy(&second.bytes);
    assert!(text.starts_with("--- attempt 2") && text.ends_with("second\n"), "{text}");
}

#[tokio::test]
async fn changed_tells_of_new_lines() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    let changed = t.logs.changed(&lease.id);
    log.info("news");
    timeout(VISIBLE, changed).await.unwrap();
}

#[tokio::test]
async fn log_is_read_back_from_the_first_backend_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut backends: Vec<Arc<dyn LogBackend>> = vec![
        Arc::new(FileLogs::open(dir.path().join("logs")).unwrap()),
        Arc::new(StoreLogs::open(dir.path().join("logs.db")).unwrap()),
    ];
    let store = backends.pop().unwrap();
    let file = backends.pop().unwrap();
    let old = LogBench::on(Arc::clone(&store)).await;
    let (lease, log) = old.run().await;
    log.info("written before the files");
    log.close().await;

    let new = LogBench::with(super::core::Limits::default(), vec![]).await;
    let logs = super::JobLogs::builder()
        .backend(file)
        .backend(store)
        .build(Arc::clone(&new.jobs.store), Arc::clone(&new.jobs.clock) as _)
        .unwrap();
    let text = read_all(&logs, &lease.id, ReadFrom::Offset(0)).await.unwrap();
    assert!(text.ends_with("written before the files\n"));
}

#[tokio::test]
async fn log_of_a_pruned_job_is_gone_from_all_backends() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, backends) = backends(&dir).await;
    for backend in backends {
        let t = LogBench::on(backend).await;
        let (lease, log) = t.run().await;
        log.info("soon gone");
        log.close().await;
        t.jobs.finish_ok(&lease).await;
        assert!(t.read_all(&lease.id).await.is_some());

        t.logs.remove(&[lease.id.clone(), JobId::new("no-such-job").unwrap()]).await.unwrap();
        assert_eq!(t.read_all(&lease.id).await, None);
        t.logs.remove(&[lease.id]).await.unwrap();
        t.logs.shutdown().await;
    }
}

/// Goal: a log whose job vanished without it (a crash between the two) goes at last, and no other does.
#[tokio::test]
async fn sweep_finds_logs_whose_jobs_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, redis) = redis_logs().await;
    let in_file: Arc<dyn LogBackend> = Arc::new(StoreLogs::open(dir.path().join("logs.db")).unwrap());
    for backend in [in_file, redis] {
        sweep_finds_what_is_gone(backend).await;
    }
}

async fn sweep_finds_what_is_gone(backend: Arc<dyn LogBackend>) {
    let t = LogBench::on(backend).await;
    let (gone, gone_log) = t.run().await;
    let (kept, kept_log) = t.run().await;
    for (lease, log) in [(&gone, gone_log), (&kept, kept_log)] {
        log.info("line");
        log.close().await;
        t.jobs.finish_ok(lease).await;
    }
    t.jobs.delete(&gone.id).await;

    assert_eq!(t.logs.sweep().await.unwrap().logs, 0, "it was written a moment ago");
    t.jobs.advance(Duration::from_secs(26 * 3600));
    t.store_is_away(true);
    assert_eq!(t.logs.sweep().await.unwrap().logs, 0, "nobody knows whether its job is gone");
    t.store_is_away(false);
    assert_eq!(t.logs.sweep().await.unwrap().logs, 1);
    assert_eq!(t.read_all(&gone.id).await, None);
    assert!(t.read_all(&kept.id).await.is_some());
}
