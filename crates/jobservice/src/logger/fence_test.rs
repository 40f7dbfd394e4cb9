//! Which run's lines are written, which are refused, and when the store is asked.

use std::time::Duration;

use jobservice_core::job::Job;
use jobservice_core::limits::{LATE_LOG, LEASE};

use super::Run;
use super::bench_test::LogBench;

const SECOND: Duration = Duration::from_secs(1);

/// Goal: a worker that was taken for dead cannot write to the log of the run that replaced it.
#[tokio::test]
async fn lines_under_a_lost_lease_are_refused() {
    let t = LogBench::new().await;
    let (first, old) = t.run().await;
    old.info("before the loss");
    t.logs.flush().await;

    t.jobs.advance(LEASE + SECOND);
    t.jobs.reap().await;
    let second = t.jobs.claim_one("copy").await;
    old.info("after the loss");
    let new = t.logs.open(Run::of(&second).unwrap());
    new.info("the new run");
    t.logs.flush().await;

    let text = t.kept.text(&first.id);
    assert!(text.contains("before the loss") && text.contains("the new run"), "{text}");
    assert!(!text.contains("after the loss"), "{text}");
    assert_eq!(t.logs.stats().lines_refused, 1);
    // What comes later is not even buffered.
    old.info("and more");
    assert_eq!((t.logs.stats().lines_refused, t.logs.stats().bytes_buffered), (2, 0));
}

#[tokio::test]
async fn lines_of_a_reaped_run_are_refused_although_nobody_took_over() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    t.jobs.advance(LEASE + SECOND);
    t.jobs.reap().await;
    log.info("zombie");
    log.close().await;
    assert_eq!(t.kept.text(&lease.id), "");
    assert_eq!(t.logs.stats().lines_refused, 1);
}

#[tokio::test]
async fn lease_that_expired_but_was_not_reaped_still_writes() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    t.jobs.advance(LEASE * 3);
    log.info("slow but alive");
    log.close().await;
    assert!(t.kept.text(&lease.id).contains("slow but alive"));
}

#[tokio::test]
async fn late_lines_are_accepted_for_a_minute_after_the_own_end() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("in time");
    log.clone().close().await;
    t.jobs.finish_ok(&lease).await;

    t.jobs.advance(LATE_LOG.saturating_sub(SECOND));
    log.info("late");
    t.logs.flush().await;
    t.jobs.advance(SECOND);
    log.info("too late");
    t.logs.flush().await;

    let text = t.kept.text(&lease.id);
    assert!(text.contains("in time") && text.contains(" late") && !text.contains("too late"), "{text}");
    assert_eq!(t.logs.stats().lines_refused, 1);
}

/// Goal: the trust in a fresh claim ends with the run, not with the second. Method: the next attempt is claimed in the
/// same instant as the first one ended.
#[tokio::test]
async fn late_lines_are_refused_once_a_newer_attempt_exists() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.info("in time");
    log.clone().close().await;
    t.jobs.release(&lease).await;
    let second = t.jobs.claim_one("copy").await;
    assert_eq!(second.state.attempt, 2);
    log.info("late");
    t.logs.flush().await;
    assert!(!t.kept.text(&lease.id).contains("late"));
}

#[tokio::test]
async fn lines_of_a_job_that_is_gone_are_refused() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    t.jobs.finish_ok(&lease).await;
    t.jobs.delete(&lease.id).await;
    log.clone().close().await;
    log.info("late");
    t.logs.flush().await;
    assert_eq!((t.kept.text(&lease.id).as_str(), t.logs.stats().lines_refused), ("", 1));
}

#[tokio::test]
async fn revoked_log_drops_its_lines() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    log.revoke();
    log.info("no longer ours");
    log.close().await;
    assert_eq!((t.kept.text(&lease.id).as_str(), t.logs.stats().lines_refused), ("", 1));
}

#[tokio::test]
async fn store_is_not_asked_about_the_first_second_of_a_claim() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    t.store_is_away(true);
    t.jobs.advance(Duration::from_millis(999));
    log.info("short run");
    log.close().await;
    assert!(t.kept.text(&lease.id).contains("short run"));
    assert_eq!(t.store.faults(), (0, 0));
}

#[tokio::test]
async fn store_is_asked_once_a_second_about_a_longer_run() {
    let t = LogBench::new().await;
    let (lease, _) = t.run().await;
    let log = t.open(&lease);
    log.info("asked");
    t.logs.flush().await;
    t.store_is_away(true);
    for _ in 0..3 {
        log.info("trusted");
        t.logs.flush().await;
    }
    assert_eq!(t.kept.text(&lease.id).matches("trusted").count(), 3);
    t.jobs.advance(SECOND);
    log.info("waits for the store");
    t.logs.flush().await;
    assert!(!t.kept.text(&lease.id).contains("waits"));
    assert!(t.store.faults().1 >= 1);
    t.store_is_away(false);
    log.close().await;
    assert!(t.kept.text(&lease.id).contains("waits"));
}

/// Goal: a timeout shorter than a second is seen. Method: the run is aborted within the second that a claim is trusted.
#[tokio::test]
async fn trust_ends_where_the_record_says_that_the_lease_may_end() {
    let t = LogBench::new().await;
    let id = t.jobs.job("copy").insert().await;
    let job: Job = t.jobs.ask(&["copy"]).lease(Duration::from_millis(300)).claim().await.pop().unwrap();
    let log = t.logs.open(Run::of(&job).unwrap());
    t.jobs.advance(Duration::from_millis(400));
    t.jobs.reap().await;
    log.info("zombie");
    log.close().await;
    assert_eq!(t.kept.text(&id), "");
}

#[tokio::test]
async fn lines_wait_in_order_while_the_store_is_away() {
    let t = LogBench::new().await;
    let (lease, _) = t.run().await;
    let log = t.open(&lease);
    t.store_is_away(true);
    for n in 0..5 {
        log.info(format_args!("line {n}"));
        t.logs.flush().await;
    }
    assert_eq!(t.kept.text(&lease.id), "");
    assert!(t.logs.stats().bytes_buffered > 0);

    t.store_is_away(false);
    log.close().await;
    let text = t.kept.text(&lease.id);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.split_once("[INFO] ")).map(|(_, text)| text).collect();
    assert_eq!(lines, ["line 0", "line 1", "line 2", "line 3", "line 4"]);
    assert_eq!(t.logs.stats().bytes_buffered, 0);
}
