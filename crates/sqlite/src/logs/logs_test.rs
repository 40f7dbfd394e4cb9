use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jobservice_core::{JobId, Time};
use tempfile::TempDir;

use super::append::{Cut, Limit, Row, plan};
use super::{Logs, LogsError, Options, Piece, Swept};

const NOON: Time = Time::from_seconds(1_767_614_400);

struct Bench {
    dir: TempDir,
    logs: Logs,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Options::default())
    }

    fn with(options: Options) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path().join("logs.db"), options).unwrap();
        Bench { dir, logs }
    }

    async fn append(&self, id: &str, attempt: u32, text: &str) {
        self.logs.append(vec![piece(id, attempt, text, NOON)]).await.unwrap();
    }

    /// The whole log from `offset` on, with `<n>` where n bytes are missing.
    async fn text(&self, id: &str, offset: u64, limit: usize) -> Option<String> {
        let mut text = String::new();
        let mut at = offset;
        loop {
            let chunk = self.logs.read(&job(id), at, limit).await.unwrap()?;
            if chunk.bytes.is_empty() && chunk.next_offset > at {
                write!(text, "<{}>", chunk.next_offset - at).unwrap();
            }
            text.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
            assert!(chunk.next_offset > at || chunk.next_offset == chunk.end);
            at = chunk.next_offset;
            if at >= chunk.end {
                return Some(text);
            }
        }
    }

    fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let conn = rusqlite::Connection::open(self.dir.path().join("logs.db")).unwrap();
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn job(id: &str) -> JobId {
    JobId::new(format!("job-{id:0>8}")).unwrap()
}

fn piece(id: &str, attempt: u32, text: &str, at: Time) -> Piece {
    Piece { id: job(id), attempt, bytes: Bytes::from(text.to_owned()), at }
}

fn lines(from: usize, until: usize) -> String {
    (from..until).fold(String::new(), |mut text, n| {
        writeln!(text, "{n:09}").unwrap();
        text
    })
}

#[tokio::test]
async fn lines_come_back_byte_for_byte_from_any_offset() {
    let t = Bench::new();
    t.append("1", 1, "--- attempt 1 ---\nfirst \0 line\n").await;
    t.append("1", 1, "second ä\n").await;
    t.append("1", 2, "--- attempt 2 ---\nthird\n").await;

    let all = "--- attempt 1 ---\nfirst \0 line\nsecond ä\n--- attempt 2 ---\nthird\n";
    for limit in [1000, 5] {
        let mut bytes = Vec::new();
        while bytes.len() < all.len() {
            let chunk = t.logs.read(&job("1"), bytes.len() as u64, limit).await.unwrap().unwrap();
            assert_eq!(chunk.next_offset as usize, bytes.len() + chunk.bytes.len());
            bytes.extend(chunk.bytes);
        }
        assert_eq!(bytes, all.as_bytes());
    }
    assert_eq!(t.text("2", 0, 100).await, None);
    assert_eq!(t.sql::<i64>("SELECT count(*) FROM chunk"), 2, "small appends of one attempt share a chunk");
    assert_eq!(t.sql::<i64>("SELECT max(attempt) FROM chunk"), 2);
}

#[tokio::test]
async fn large_log_keeps_head_and_tail_under_stable_offsets() {
    let t = Bench::with(Options { log_bytes_max: 20_000, ..Options::default() });
    t.append("1", 1, "--- attempt 1\n").await;
    for n in 0..100 {
        t.append("1", 1, &lines(n * 50, (n + 1) * 50)).await;
    }

    let extent = t.logs.extent(&job("1")).await.unwrap().unwrap();
    assert_eq!(extent.end, 50_014);
    assert!((9_900..=10_000).contains(&extent.head_end), "{extent:?}");
    assert!((5_000..=10_000).contains(&(extent.end - extent.tail_start)), "{extent:?}");
    let text = t.text("1", 0, 777).await.unwrap();
    let missing = extent.tail_start - extent.head_end;
    let (head, tail) = text.split_once(&format!("<{missing}>")).unwrap();
    assert!(head.starts_with("--- attempt 1\n000000000\n") && head.ends_with('\n'));
    assert!(tail.ends_with("000004999\n") && tail.len() as u64 == extent.end - extent.tail_start);
    // An offset in what was dropped leads to where the log goes on.
    let text = t.text("1", extent.tail_start - 7, 777).await.unwrap();
    assert!(text.starts_with("<7>0000"), "{text}");
    let stored: i64 = t.sql("SELECT sum(length(bytes)) FROM chunk");
    assert_eq!(stored as u64, extent.head_end + extent.end - extent.tail_start);
}

#[tokio::test]
async fn one_append_larger_than_the_limit_keeps_its_ends() {
    let t = Bench::with(Options { log_bytes_max: 20_000, ..Options::default() });
    for (id, first) in [("1", ""), ("2", "--- begun before\n")] {
        if !first.is_empty() {
            t.append(id, 1, first).await;
        }
        t.append(id, 1, &format!("--- {}", lines(0, 10_000))).await;
        let text = t.text(id, 0, 100_000).await.unwrap();
        assert!(text.starts_with(&format!("{first}--- 000000000\n")) && text.ends_with("000009999\n"));
        assert!(text.len() <= 20_020, "{}", text.len());
        assert_eq!(t.logs.extent(&job(id)).await.unwrap().unwrap().end, 100_004 + first.len() as u64);
        // And again: only the newest end stays.
        t.append(id, 1, &lines(10_000, 20_000)).await;
        let text = t.text(id, 0, 100_000).await.unwrap();
        assert!(text.ends_with("000019999\n") && !text.contains("000009999\n") && text.len() <= 20_020);
    }
}

/// Goal: whatever is appended in whatever pieces, what is planned for is whole lines, in order, without gap or overlap.
#[test]
fn plans_cover_every_byte_that_is_kept() {
    let limit = Limit { head: 30_000, tail: 30_000 };
    let mut row = Row::default();
    let mut seed = 7_u64;
    for _ in 0..2000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = lines(0, 1 + (seed >> 33) as usize % 5000);
        let planned = plan(row, bytes.as_bytes(), limit);
        assert_eq!(planned.row.size, row.size + bytes.len() as u64);
        let mut at = planned.grow.clone().map_or(0, |range| range.len() as u64) + row.size;
        for (start, range) in &planned.chunks {
            if *start != at {
                let cut = planned.row.cut.unwrap();
                assert!(*start == cut.tail_start && *start > at, "gap that is no cut");
            }
            assert!(bytes[range.clone()].ends_with('\n'));
            at = start + range.len() as u64;
        }
        assert_eq!(at, planned.row.size);
        if let Some(Cut { head_end, tail_start }) = planned.row.cut {
            assert!(head_end <= limit.head && tail_start >= head_end && tail_start <= planned.row.size);
        }
        row = planned.row;
    }
}

#[tokio::test]
async fn removed_logs_are_gone_and_unknown_ones_no_error() {
    let t = Bench::new();
    for n in 0..600 {
        t.append(&n.to_string(), 1, "--- x\n").await;
    }
    let ids: Vec<JobId> = (0..1000).map(|n| job(&n.to_string())).collect();

    assert_eq!(t.logs.remove(&ids[..500]).await.unwrap(), 500);
    assert_eq!(t.text("499", 0, 100).await, None);
    assert!(t.text("500", 0, 100).await.is_some());
    assert_eq!(t.logs.remove(&ids).await.unwrap(), 100);
    assert_eq!(t.sql::<i64>("SELECT count(*) FROM chunk"), 0);
}

#[tokio::test]
async fn log_that_is_swept_while_its_job_runs_says_so() {
    let t = Bench::new();
    t.append("1", 1, "--- attempt 1\n").await;
    t.logs.remove(&[job("1")]).await.unwrap();
    t.append("1", 1, "later\n").await;
    assert_eq!(t.text("1", 0, 100).await.unwrap(), "--- the lines before this one were removed ---\nlater\n");
}

#[tokio::test]
async fn sweep_goes_by_age_then_by_size_and_gives_space_back() {
    let t = Bench::new();
    let text = format!("--- {}", "x".repeat(100_000)) + "\n";
    let hour = Duration::from_secs(3600);
    for n in 0..30_u32 {
        let piece = piece(&n.to_string(), 1, &text, NOON + hour * n);
        t.logs.append(vec![piece]).await.unwrap();
    }

    let swept = t.logs.sweep(Some(NOON + hour * 10), None).await.unwrap();
    assert_eq!(swept, Swept { logs: 10, bytes: 10 * text.len() as u64 });
    assert_eq!(t.text("9", 0, 10).await, None);
    let swept = t.logs.sweep(None, Some(500_000)).await.unwrap();
    assert!((15..=16).contains(&swept.logs), "{swept:?}");
    assert!(t.text("29", 0, 100).await.is_some());
    let file = t.sql::<i64>("PRAGMA page_count") * 4096;
    assert!(file <= 500_000, "{file}");
    assert_eq!(t.logs.sweep(Some(NOON), Some(500_000)).await.unwrap(), Swept::default());
}

#[tokio::test]
async fn log_written_again_counts_as_young() {
    let t = Bench::new();
    t.append("1", 1, "--- old\n").await;
    t.append("2", 1, "--- old\n").await;
    let later = NOON + Duration::from_secs(5 * 3600);
    t.logs.append(vec![piece("1", 1, "new\n", later)]).await.unwrap();

    assert_eq!(t.logs.idle(later, None, 10).await.unwrap(), vec![job("2")]);
    assert_eq!(t.logs.idle(later, Some(job("2")), 10).await.unwrap(), vec![]);
    assert_eq!(t.logs.sweep(Some(later), None).await.unwrap().logs, 1);
    assert!(t.text("1", 0, 100).await.is_some());
}

#[tokio::test]
async fn room_of_removed_logs_is_given_back_to_the_disk() {
    let t = Bench::new();
    let text = format!("--- {}", "x".repeat(50_000)) + "\n";
    let ids: Vec<JobId> = (0..100).map(|n| job(&n.to_string())).collect();
    for n in 0..100 {
        t.append(&n.to_string(), 1, &text).await;
    }
    let bytes = || std::fs::metadata(t.dir.path().join("logs.db")).unwrap().len();

    t.logs.remove(&ids[1..]).await.unwrap();
    // Answered after the writer is through with the removal before it.
    t.logs.remove(&[]).await.unwrap();

    assert!(bytes() < 1_500_000, "{}", bytes());
    assert!(t.text("0", 0, 100).await.is_some());
}

#[tokio::test]
async fn file_keeps_to_its_size_by_itself() {
    let t = Bench::with(Options { file_bytes_max: 2_000_000, ..Options::default() });
    let text = format!("--- {}", "x".repeat(50_000)) + "\n";
    for n in 0..200 {
        t.append(&n.to_string(), 1, &text).await;
    }
    t.logs.remove(&[]).await.unwrap();
    let in_use = (t.sql::<i64>("PRAGMA page_count") - t.sql::<i64>("PRAGMA freelist_count")) * 4096;
    assert!(in_use < 2_200_000, "{in_use}");
    assert!(t.text("199", 0, 100).await.is_some() && t.text("0", 0, 100).await.is_none());
}

#[tokio::test]
async fn file_that_is_removed_or_damaged_is_made_anew() {
    let t = Bench::new();
    let path = t.dir.path().join("logs.db");
    t.append("1", 1, "--- one\n").await;
    assert!(t.text("1", 0, 100).await.is_some());

    std::fs::remove_file(&path).unwrap();
    assert_eq!(t.text("1", 0, 100).await, None, "the file is gone, and with it the logs");
    t.append("1", 1, "two\n").await;
    assert!(t.text("1", 0, 100).await.unwrap().ends_with("two\n"));

    t.append("2", 1, &format!("--- {}", lines(0, 50_000))).await;
    damage(&path);
    // Who reads finds the damage out, be it at the second look; the next append makes a new file.
    for _ in 0..2 {
        let read = t.logs.read(&job("2"), 0, 500_000).await;
        assert!(read.is_err(), "{read:?}");
    }
    t.append("1", 1, "four\n").await;
    assert!(t.text("1", 0, 100).await.unwrap().ends_with("four\n"));
    assert!(t.dir.path().join("logs.db.damaged").is_file());
}

/// Overwrites the file's content without changing its identity, as a bad disk does.
fn damage(path: &Path) {
    let length = std::fs::metadata(path).unwrap().len();
    std::fs::write(path, vec![0xa5; length.max(64 * 1024) as usize]).unwrap();
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::write(wal, b"").unwrap();
}

#[tokio::test]
async fn damaged_file_does_not_keep_the_service_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/logs.db");
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(&path, vec![1; 100_000]).unwrap();
    let logs = Logs::open(&path, Options::default()).unwrap();
    logs.append(vec![piece("1", 1, "--- one\n", NOON)]).await.unwrap();
    assert!(logs.extent(&job("1")).await.unwrap().is_some());
}

#[tokio::test]
async fn database_of_something_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE precious (x); INSERT INTO precious VALUES (1)").unwrap();
    assert!(matches!(Logs::open(&path, Options::default()), Err(LogsError::NotOurs { .. })));
    assert_eq!(conn.query_row("SELECT count(*) FROM precious", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    drop(conn);

    let path = dir.path().join("newer.db");
    drop(Logs::open(&path, Options::default()).unwrap());
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Logs::open(&path, Options::default()), Err(LogsError::TooNew { found: 99, .. })));
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_calls_after_the_end_are_refused() {
    let t = Bench::new();
    t.append("1", 1, "--- one\n").await;
    t.logs.shutdown().await;
    assert!(matches!(t.logs.append(vec![]).await, Err(LogsError::Closed)));
    let again = Logs::open(t.dir.path().join("logs.db"), Options::default()).unwrap();
    assert!(again.extent(&job("1")).await.unwrap().is_some());
}

#[test]
fn hot_statements_use_their_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.db");
    drop(Logs::open(&path, Options::default()).unwrap());
    let conn = rusqlite::Connection::open(&path).unwrap();
    for sql in [
        "SELECT log FROM log WHERE job = 'x'",
        "SELECT job FROM log WHERE job > 'x' AND hour < 5 ORDER BY job LIMIT 5",
        "SELECT log FROM log INDEXED BY log_by_hour WHERE hour < 5 ORDER BY hour, log LIMIT 5",
        "SELECT min(start) FROM chunk WHERE log = 1 AND start >= 5",
        "SELECT start FROM chunk WHERE log = 1 AND start < 9 AND start >= (SELECT max(start) FROM chunk WHERE log = 1 AND start <= 5) ORDER BY start",
    ] {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.query_map([], |row| row.get::<_, String>(3)).unwrap();
        for step in steps.map(Result::unwrap) {
            assert!(!step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{sql}: {step}");
        }
    }
}

/// Goal: logs leave to the store what it needs to let jobs end on a full disk.
#[tokio::test]
async fn lines_are_refused_when_too_little_is_free() {
    let t = Bench::with(Options { free_bytes_min: u64::MAX, ..Options::default() });

    let refused = t.logs.append(vec![piece("job-0001", 1, "line\n", NOON)]).await.unwrap_err();

    assert!(matches!(refused, LogsError::NoRoom { .. }), "{refused}");
    assert_eq!(t.logs.extent(&job("job-0001")).await.unwrap(), None);
}
