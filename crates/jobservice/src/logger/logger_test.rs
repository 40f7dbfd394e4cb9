use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jobservice_core::limits::LOG_BYTES_MAX;
use tokio::time::timeout;

use super::bench_test::{Kept, LogBench, eventually};
use super::core::Limits;
use super::{JobLog, JobLogs, Level, LogBackend, LogStats, Run};

const SECOND: Duration = Duration::from_secs(1);

// ---- lines ----

#[tokio::test]
async fn log_of_a_run_has_a_header_and_its_lines() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("begun");
    t.jobs.advance(SECOND / 2);
    log.warning(format_args!("{} of {}\nleft", 1, 2));
    log.close().await;

    let id = &lease.id;
    assert_eq!(
        t.kept.text(id),
        "--- attempt 1 on pool pool/0000000000000001 at 2026-01-05T12:00:00.000Z ---\n\
         2026-01-05T12:00:00.000Z [INFO] begun\n\
         2026-01-05T12:00:00.500Z [WARNING] 1 of 2\n    left\n"
    );
}

#[tokio::test]
async fn each_attempt_has_a_header_of_its_own() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("first");
    log.close().await;
    t.jobs.finish_failed(&lease).await;
    t.jobs.advance(Duration::from_secs(100));
    t.jobs.promote().await;
    let again = t.jobs.claim_one("copy").await;
    let log = t.logs.open(Run::of(&again).unwrap());
    log.info("second");
    log.close().await;

    let text = t.kept.text(&lease.id);
    let headers: Vec<&str> = text.lines().filter(|line| line.starts_with("--- attempt")).collect();
    assert_eq!(headers.len(), 2, "{text}");
    assert!(headers[1].starts_with("--- attempt 2 on pool ") && headers[1].contains(" at 2026-01-05T12:01:40.000Z"));
}

#[tokio::test]
async fn each_backend_gets_the_lines_of_its_level_only() {
    let (warnings, all) = (Arc::new(Kept::default()), Arc::new(Kept::default()));
    let more = vec![
        (Arc::clone(&warnings) as Arc<dyn LogBackend>, Level::Warning),
        (Arc::clone(&all) as Arc<dyn LogBackend>, Level::Debug),
    ];
    let t = LogBench::with(Limits::default(), more).await;
    let (lease, log) = t.run().await;
    for level in Level::ALL {
        log.line(level, format_args!("this is {level}"));
    }
    let (quiet, quiet_log) = t.run().await;
    quiet_log.info("nothing to worry about");
    log.close().await;
    quiet_log.close().await;

    let graver = warnings.text(&lease.id);
    assert_eq!(graver.lines().count(), 4, "{graver}");
    assert!(graver.starts_with("--- attempt 1") && graver.contains("[WARNING] this is WARNING"));
    assert_eq!(all.text(&lease.id), t.kept.text(&lease.id));
    assert_eq!(all.text(&lease.id).lines().count(), 6);
    assert_eq!(warnings.text(&quiet.id), "", "no lines, no header");
}

#[tokio::test]
async fn run_that_writes_nothing_is_known_to_nobody() {
    let t = LogBench::new().await;
    let (_, log) = t.run().await;
    t.store_is_away(true);
    log.close().await;
    t.logs.flush().await;
    assert_eq!(t.kept.appends.load(Ordering::SeqCst), 0);
    assert_eq!(t.store.faults(), (0, 0), "the store was not asked");
}

#[tokio::test]
async fn disabled_logs_take_everything_and_keep_nothing() {
    let log = JobLog::disabled();
    log.fatal("nobody hears");
    assert!(!log.is_enabled(Level::Fatal));
    log.close().await;
    let logs = JobLogs::disabled();
    logs.flush().await;
    logs.shutdown().await;
    assert_eq!(logs.stats(), LogStats::default());
}

// ---- what does not harm a job ----

#[tokio::test]
async fn failed_write_costs_lines_and_leaves_a_mark() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("one");
    t.logs.flush().await;
    t.kept.is_ill.store(true, Ordering::SeqCst);
    log.info("two");
    log.info("three");
    t.logs.flush().await;
    t.kept.is_ill.store(false, Ordering::SeqCst);
    log.info("four");
    log.close().await;

    let text = t.kept.text(&lease.id);
    assert!(!text.contains("two"), "{text}");
    let (_, after) = text.split_once("one\n").unwrap();
    assert!(after.starts_with("--- 2 log lines lost here: the log could not be written ---\n"), "{text}");
    assert_eq!(text.matches("--- attempt").count(), 1);
    let stats = t.logs.stats();
    assert_eq!((stats.lines_written, stats.lines_lost, stats.bytes_buffered), (2, 2, 0));
}

#[tokio::test]
async fn backend_that_panics_or_answers_too_little_costs_only_its_own_lines() {
    struct Bad;
    #[async_trait::async_trait]
    impl LogBackend for Bad {
        fn name(&self) -> &'static str {
            "BAD"
        }

        async fn append(&self, pieces: Vec<super::LogPiece>) -> Vec<Result<(), super::LogError>> {
            assert!(pieces[0].bytes.starts_with(b"never"), "a user's bug");
            Vec::new()
        }
    }
    let t = LogBench::with(Limits::default(), vec![(Arc::new(Bad), Level::Info)]).await;
    let (lease, log) = t.run().await;
    for _ in 0..3 {
        log.info("line");
        t.logs.flush().await;
    }
    log.close().await;
    assert_eq!(t.kept.text(&lease.id).matches("[INFO] line").count(), 3);
    assert_eq!((t.logs.stats().lines_written, t.logs.stats().lines_lost), (3, 3));
}

#[tokio::test]
async fn burst_that_fits_the_log_is_kept_whole_although_nothing_is_written_meanwhile() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    t.kept.gate.forget_permits(usize::MAX);
    let line = "x".repeat(1000);
    for _ in 0..9000 {
        log.info(&line);
    }
    t.kept.gate.add_permits(1000);
    log.close().await;
    assert_eq!(t.kept.text(&lease.id).lines().count(), 9001);
    assert_eq!(t.logs.stats().lines_dropped, 0);
}

/// Goal: a flood costs bounded memory, keeps its first and last lines, and takes nothing from another job.
/// Method: the backend stands still while a job floods and another writes a little.
#[tokio::test]
async fn flood_is_bounded_and_leaves_others_their_room() {
    let limits = Limits { run_bytes_max: 100_000, bytes_max: 150_000, run_bytes_pressed: 20_000, ..Limits::default() };
    let t = LogBench::with(limits, Vec::new()).await;
    let (lease, log) = t.run().await;
    let (other, other_log) = t.run().await;
    t.kept.gate.forget_permits(usize::MAX);
    for n in 0..100_000 {
        log.info(format_args!("flood {n:06}"));
        if n % 1000 == 0 {
            other_log.info(format_args!("calm {n:06}"));
        }
    }
    // Two buffers of the flood (one is being written), one of the other.
    let buffered = t.logs.stats().bytes_buffered;
    assert!(buffered < 250_000, "{buffered}");
    t.kept.gate.add_permits(1000);
    other_log.close().await;
    log.close().await;

    assert_eq!(t.kept.text(&other.id).lines().count(), 101);
    let text = t.kept.text(&lease.id);
    assert!(text.contains("flood 000000\n") && text.ends_with("flood 099999\n"));
    let kept = text.matches("] flood ").count() as u64;
    let marked: u64 =
        text.lines().filter_map(|line| line.strip_prefix("--- ")?.split_once(" lines (")?.0.parse::<u64>().ok()).sum();
    assert_eq!(kept + marked, 100_000, "every line is kept or counted");
    assert_eq!(t.logs.stats().lines_dropped, marked);
    assert_eq!(t.logs.stats().bytes_buffered, 0);
}

#[tokio::test]
async fn many_small_logs_have_room_beside_a_full_memory() {
    let limits = Limits { run_bytes_max: 50_000, bytes_max: 0, run_bytes_pressed: 10_000, ..Limits::default() };
    let t = LogBench::with(limits, Vec::new()).await;
    t.kept.gate.forget_permits(usize::MAX);
    let mut runs = Vec::new();
    for _ in 0..20 {
        let (lease, log) = t.run().await;
        (0..50).for_each(|n| log.info(format_args!("line {n}")));
        runs.push((lease, log));
    }
    t.kept.gate.add_permits(1000);
    t.logs.flush().await;
    for (lease, _) in &runs {
        assert_eq!(t.kept.text(&lease.id).lines().count(), 51);
    }
}

#[tokio::test]
async fn flood_is_written_once_a_second_unless_somebody_waits() {
    let limits = Limits { run_bytes_max: 10_000, flood_pause: Duration::from_secs(3600), ..Limits::default() };
    let t = LogBench::with(limits, Vec::new()).await;
    let (lease, log) = t.run().await;
    for n in 0..1000 {
        log.info(format_args!("flood {n}"));
    }
    t.logs.flush().await;
    let before = t.kept.text(&lease.id).len();
    // Now it has had its write; the next is an hour away.
    log.info("more");
    let (_, other) = t.run().await;
    other.info("a round");
    other.close().await;
    assert_eq!(t.kept.text(&lease.id).len(), before);
    log.close().await;
    assert!(t.kept.text(&lease.id).ends_with("more\n"));
}

#[test]
fn buffer_of_a_run_holds_what_its_log_may_hold() {
    assert_eq!(Limits::default().run_bytes_max, LOG_BYTES_MAX);
}

// ---- when lines are written ----

#[tokio::test]
async fn line_is_written_without_anybody_asking() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("by itself");
    eventually("the line is written", || t.kept.text(&lease.id).contains("by itself")).await;
}

#[tokio::test]
async fn lines_of_many_runs_are_written_together() {
    let t = LogBench::new().await;
    let mut runs = Vec::new();
    for _ in 0..200 {
        runs.push(t.run().await);
    }
    for (_, log) in &runs {
        log.info("line");
    }
    t.logs.flush().await;
    assert!(t.kept.appends.load(Ordering::SeqCst) <= 3);
    for (lease, _) in &runs {
        assert!(t.kept.text(&lease.id).contains("line"));
    }
}

#[tokio::test]
async fn close_does_not_wait_for_ever_for_a_disk_that_hangs() {
    let t = LogBench::new().await;
    let (_, log) = t.run().await;
    t.kept.gate.forget_permits(usize::MAX);
    log.info("hangs");
    timeout(Duration::from_secs(8), log.close()).await.expect("close gives up after five seconds");
    t.kept.gate.add_permits(10);
}

#[tokio::test]
async fn shutdown_writes_what_is_left_and_later_lines_are_dropped() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("last words");
    t.logs.shutdown().await;
    assert!(t.kept.text(&lease.id).ends_with("last words\n"));

    log.info("too late");
    log.close().await;
    t.logs.flush().await;
    assert_eq!((t.logs.stats().lines_dropped, t.logs.stats().bytes_buffered), (1, 0));
    t.logs.shutdown().await;
}

#[tokio::test]
async fn dropping_the_last_logs_writes_what_is_left() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("last words");
    drop(t.logs);
    eventually("the line is written", || t.kept.text(&lease.id).contains("last words")).await;
}

#[tokio::test]
async fn shutdown_gives_up_lines_that_the_store_does_not_judge() {
    let t = LogBench::new().await;
    let (lease, _) = t.run().await;
    let log = t.open(&lease);
    t.store_is_away(true);
    log.info("unjudged");
    t.logs.shutdown().await;
    assert_eq!((t.logs.stats().lines_lost, t.logs.stats().bytes_buffered), (1, 0));
    assert_eq!(t.kept.text(&lease.id), "");
}

/// Goal: no line is lost or doubled however closes, flushes and writes fall together.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lines_of_concurrent_runs_are_complete_and_in_order_when_closed() {
    let t = Arc::new(LogBench::new().await);
    let mut runs = Vec::new();
    for _ in 0..32 {
        let (lease, log) = t.run().await;
        let t = Arc::clone(&t);
        runs.push(tokio::spawn(async move {
            for n in 0..300 {
                log.info(format_args!("{n}"));
                if n % 50 == 0 {
                    tokio::task::yield_now().await;
                }
                if n % 100 == 0 {
                    t.logs.flush().await;
                }
            }
            log.close().await;
            let text = t.kept.text(&lease.id);
            let lines: Vec<String> =
                text.lines().filter_map(|line| line.split_once("] ")).map(|(_, n)| n.to_owned()).collect();
            assert_eq!(lines, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
        }));
    }
    for run in runs {
        run.await.unwrap();
    }
    assert_eq!(t.logs.stats().bytes_buffered, 0);
}
