use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jobservice_core::{JobId, Name, Time};
use tempfile::TempDir;

use super::super::{LogBackend, LogPiece, ReadLog, Removed, SweepLogs, SweepRule};
use super::{FileLogs, OPEN_MAX};

const NOON: Time = Time::from_seconds(1_767_614_400);

struct Bench {
    dir: TempDir,
    logs: FileLogs,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_limit(10_000)
    }

    fn with_limit(bytes_max: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let logs = FileLogs::with_limit(dir.path().join("logs"), bytes_max).unwrap();
        Bench { dir, logs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("logs").join(name)
    }

    async fn append(&self, id: &str, text: &str) -> bool {
        self.logs.append(vec![piece(id, text)]).await.remove(0).is_ok()
    }

    /// The whole log from `offset` on, with `<n>` where n bytes are missing.
    async fn text(&self, id: &str, offset: u64, limit: usize) -> Option<String> {
        let mut text = String::new();
        let mut at = offset;
        loop {
            let chunk = self.logs.read(&job(id), at, limit).await.unwrap()?;
            if chunk.bytes.is_empty() && chunk.next_offset > at {
                text = format!("{text}<{}>", chunk.next_offset - at);
            }
            text.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
            assert!(chunk.next_offset > at || chunk.next_offset == chunk.end);
            at = chunk.next_offset;
            if at >= chunk.end {
                return Some(text);
            }
        }
    }

    /// Makes a file as old as that, by the clock that starts at [`NOON`].
    fn age(&self, name: &str, age: Duration) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(NOON.as_millis() as u64) - age;
        fs::File::options().append(true).open(self.path(name)).unwrap().set_modified(at).unwrap();
    }
}

fn job(id: &str) -> JobId {
    JobId::new(format!("job-{id:0>8}")).unwrap()
}

fn piece(id: &str, text: &str) -> LogPiece {
    LogPiece {
        id: job(id),
        name: Name::new("copy").unwrap(),
        attempt: 1,
        bytes: Bytes::from(text.to_owned()),
        at: NOON,
    }
}

fn lines(from: usize, until: usize) -> String {
    (from..until).fold(String::new(), |text, n| format!("{text}{n:09}\n"))
}

#[tokio::test]
async fn small_log_is_one_plain_file_that_others_cannot_read() {
    let t = Bench::new();
    assert!(t.append("1", "--- attempt 1\none\n").await);
    assert!(t.append("1", "two\n").await);
    assert_eq!(fs::read_to_string(t.path("job-00000001.log")).unwrap(), "--- attempt 1\none\ntwo\n");
    assert_eq!(t.text("1", 0, 7).await.unwrap(), "--- attempt 1\none\ntwo\n");
    assert_eq!(t.text("2", 0, 7).await, None);
    let mode = fs::metadata(t.path("job-00000001.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0);
    assert_eq!(fs::read_dir(t.path("")).unwrap().count(), 1);
}

#[tokio::test]
async fn large_log_keeps_head_and_tail_in_bounded_space() {
    let t = Bench::new();
    assert!(t.append("1", "--- attempt 1\n").await);
    for n in 0..100 {
        assert!(t.append("1", &lines(n * 50, (n + 1) * 50)).await);
        let used: u64 = fs::read_dir(t.path("job-00000001.tail"))
            .map(|parts| parts.map(|part| part.unwrap().metadata().unwrap().len()).sum())
            .unwrap_or_default();
        assert!(used <= 5_000, "{used}");
    }
    let extent = t.logs.extent(&job("1")).await.unwrap().unwrap();
    assert_eq!(extent.end, 50_014);
    assert!(extent.head_end <= 5_000 && extent.head_end > 4_900, "{extent:?}");
    assert!((3_700..=5_000).contains(&(extent.end - extent.tail_start)), "{extent:?}");
    let text = t.text("1", 0, 333).await.unwrap();
    let (head, tail) = text.split_once(&format!("<{}>", extent.tail_start - extent.head_end)).unwrap();
    assert!(head.starts_with("--- attempt 1\n000000000\n") && head.ends_with('\n'));
    assert!(tail.starts_with("0000") && tail.ends_with("000004999\n"));
    // Who reads the file itself is told where it goes on.
    let file = fs::read_to_string(t.path("job-00000001.log")).unwrap();
    assert!(file.ends_with(".tail ---\n") && file.contains("--- the log goes on in "));
}

#[tokio::test]
async fn log_is_continued_by_a_new_process() {
    let t = Bench::new();
    for n in 0..40 {
        // A backend of its own each time: nothing is known but what is on disk.
        let logs = FileLogs::with_limit(t.path(""), 10_000).unwrap();
        let text = format!("{}{}", if n == 0 { "--- attempt 1\n" } else { "" }, lines(n * 50, (n + 1) * 50));
        assert!(logs.append(vec![piece("1", &text)]).await.remove(0).is_ok());
        // And one that was open all along notices what others wrote.
        if n % 10 == 5 {
            assert!(t.append("1", "").await);
        }
    }
    let text = t.text("1", 0, 100_000).await.unwrap();
    assert!(text.starts_with("--- attempt 1\n000000000\n") && text.ends_with("000001999\n"));
    assert_eq!(t.logs.extent(&job("1")).await.unwrap().unwrap().end, 20_014);
}

#[tokio::test]
async fn one_append_larger_than_the_limit_keeps_its_ends() {
    let t = Bench::new();
    assert!(t.append("1", &format!("--- {}", lines(0, 5000))).await);
    let text = t.text("1", 0, 1000).await.unwrap();
    assert!(
        text.starts_with("--- 000000000\n") && text.ends_with("000004999\n") && text.len() < 10_020,
        "{}",
        text.len()
    );
    assert!(t.append("1", &lines(5000, 10_000)).await);
    let text = t.text("1", 0, 1000).await.unwrap();
    assert!(text.ends_with("000009999\n") && !text.contains("000004999\n") && text.len() < 10_020);
    assert_eq!(text.matches('<').count(), 1, "one cut");
    assert_eq!(t.logs.extent(&job("1")).await.unwrap().unwrap().end, 100_004);
}

#[tokio::test]
async fn many_logs_are_written_with_few_open_files() {
    let t = Bench::new();
    for round in 0..3 {
        for n in 0..OPEN_MAX * 3 {
            assert!(t.append(&n.to_string(), &format!("--- round {round}\n")).await);
        }
    }
    assert!(t.logs.shared.open.lock().logs.len() <= OPEN_MAX);
    for n in [0, OPEN_MAX, OPEN_MAX * 3 - 1] {
        assert_eq!(t.text(&n.to_string(), 0, 1000).await.unwrap(), "--- round 0\n--- round 1\n--- round 2\n");
    }
}

#[tokio::test]
async fn removed_file_or_directory_is_made_anew() {
    let t = Bench::new();
    assert!(t.append("1", "--- attempt 1\none\n").await);
    fs::remove_file(t.path("job-00000001.log")).unwrap();
    assert!(t.append("1", "two\n").await);
    assert_eq!(t.text("1", 0, 1000).await.unwrap(), "--- the lines before this one were removed ---\ntwo\n");

    fs::remove_dir_all(t.path("")).unwrap();
    assert_eq!(t.text("1", 0, 1000).await, None);
    assert!(t.append("1", "three\n").await);
    assert!(t.text("1", 0, 1000).await.unwrap().ends_with("three\n"));
}

#[tokio::test]
async fn removed_tail_is_begun_anew() {
    let t = Bench::new();
    assert!(t.append("1", &format!("--- {}", lines(0, 800))).await);
    fs::remove_dir_all(t.path("job-00000001.tail")).unwrap();
    assert!(t.append("1", "after\n").await);
    assert!(t.text("1", 0, 1000).await.unwrap().ends_with("after\n"));
}

#[tokio::test]
async fn symbolic_links_are_not_followed() {
    let t = Bench::new();
    let secret = t.dir.path().join("secret");
    fs::write(&secret, "--- secret\n").unwrap();
    symlink(&secret, t.path("job-00000001.log")).unwrap();
    assert!(!t.append("1", "--- attempt 1\n").await);
    assert!(t.logs.read(&job("1"), 0, 100).await.is_err());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "--- secret\n");
}

#[tokio::test]
async fn directory_that_cannot_be_written_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(FileLogs::open(file.join("logs")).is_err());
}

#[tokio::test]
async fn remove_takes_head_and_tail() {
    let t = Bench::new();
    assert!(t.append("1", &format!("--- {}", lines(0, 5000))).await);
    assert!(t.append("2", "--- small\n").await);
    assert_eq!(t.logs.remove(&[job("1"), job("2"), job("3")]).await.unwrap(), 2);
    assert_eq!(fs::read_dir(t.path("")).unwrap().count(), 0);
    assert_eq!(t.logs.remove(&[job("1")]).await.unwrap(), 0);
}

// ---- sweeping ----

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn sweep_by_age_takes_only_old_logs_of_ours() {
    let t = Bench::new();
    for id in ["1", "2"] {
        assert!(t.append(id, "--- attempt 1\n").await);
    }
    assert!(t.append("3", &format!("--- {}", lines(0, 5000))).await);
    // Named like a log but not begun like one; begun like one but not named so.
    fs::write(t.path("postgresql.log"), "precious").unwrap();
    fs::write(t.path("notes.txt"), "--- precious").unwrap();
    for name in ["job-00000001.log", "postgresql.log", "notes.txt", "job-00000003.log"] {
        t.age(name, DAY * 8);
    }
    t.age("job-00000002.log", DAY * 6);
    // Its head is old, its tail is not: it is being written.
    let rule = SweepRule { older_than: Some(DAY * 7), bytes_max: None };

    assert_eq!(t.logs.sweep(&rule, NOON).await.unwrap(), Removed { logs: 1, bytes: 14 });
    assert_eq!(t.text("1", 0, 100).await, None);
    for name in ["job-00000002.log", "job-00000003.log", "postgresql.log", "notes.txt"] {
        assert!(t.path(name).symlink_metadata().is_ok(), "{name}");
    }
    assert_eq!(t.logs.sweep(&SweepRule::default(), NOON).await.unwrap(), Removed::default());
}

#[tokio::test]
async fn sweep_by_size_takes_the_oldest_and_no_more_than_needed() {
    let t = Bench::with_limit(1_000_000);
    let text = format!("--- {}", lines(0, 100));
    for n in 0..10_u32 {
        assert!(t.append(&n.to_string(), &text).await);
        t.age(&format!("job-{n:08}.log"), Duration::from_secs(600) * (20 - n));
    }
    let rule = SweepRule { older_than: None, bytes_max: Some(7 * text.len() as u64) };
    assert_eq!(t.logs.sweep(&rule, NOON).await.unwrap(), Removed { logs: 3, bytes: 3 * text.len() as u64 });
    assert!(t.text("2", 0, 100).await.is_none() && t.text("3", 0, 100).await.is_some());
    assert_eq!(t.logs.sweep(&rule, NOON).await.unwrap(), Removed::default());
}

#[tokio::test]
async fn sweep_by_size_spares_what_is_being_written() {
    let t = Bench::with_limit(1_000_000);
    for n in 0..3 {
        assert!(t.append(&n.to_string(), &format!("--- {}", lines(0, 100))).await);
        t.age(&format!("job-{n:08}.log"), Duration::from_secs(10));
    }
    let rule = SweepRule { older_than: None, bytes_max: Some(0) };
    assert_eq!(t.logs.sweep(&rule, NOON).await.unwrap(), Removed::default());
}

#[tokio::test]
async fn tail_whose_head_is_gone_is_swept_too() {
    let t = Bench::new();
    assert!(t.append("1", &format!("--- {}", lines(0, 5000))).await);
    fs::remove_file(t.path("job-00000001.log")).unwrap();
    let rule = SweepRule { older_than: Some(DAY), bytes_max: None };
    let later = Time::from_seconds(4_102_444_800);
    assert_eq!(t.logs.sweep(&rule, later).await.unwrap().logs, 1);
    assert_eq!(fs::read_dir(t.path("")).unwrap().count(), 0);
}

/// Goal: a reader never fails or goes round in circles while the writer drops parts under its eyes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_beside_the_writer_always_goes_on() {
    let t = std::sync::Arc::new(Bench::new());
    assert!(t.append("1", "--- attempt 1\n").await);
    let writer = std::sync::Arc::clone(&t);
    let written = tokio::spawn(async move {
        for n in 0..2000 {
            assert!(writer.append("1", &lines(n * 20, (n + 1) * 20)).await);
        }
    });
    while !written.is_finished() {
        let text = t.text("1", 0, 500).await.unwrap();
        assert!(text.starts_with("--- attempt 1\n"));
    }
    written.await.unwrap();
    assert!(t.text("1", 0, 500).await.unwrap().ends_with("000039999\n"));
}
