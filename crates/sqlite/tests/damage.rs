//! Rows that cannot be read, and files that grew.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what is wrong by its panic")]

mod common;

use std::time::Duration;

use common::{NOW, ask, job, job_with, sound, wait_until};
use jobservice_core::store::{Action, Held, Query};
use jobservice_core::{JobId, Store, StoreError};
use jobservice_sqlite::{Inspector, Options, SqliteStore};

/// Changes rows behind the back of a store that is not open.
fn meddle(path: &std::path::Path, sql: &str, id: &JobId) {
    let conn = rusqlite::Connection::open(path).unwrap();
    assert_eq!(conn.execute(sql, [id.as_str()]).unwrap(), 1);
}

/// Goal: one bad record never blocks a queue or a sweep.
#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let due = NOW + Duration::from_secs(5);
    let mut jobs: Vec<_> = (0..3).map(|_| job("copy")).collect();
    jobs.extend((0..3).map(|_| job_with("move", "{}", Some(due))));
    let ids: Vec<_> = jobs.iter().map(|new| new.job.id.clone()).collect();
    store.insert(jobs, NOW).await.unwrap();
    drop(store);
    meddle(&path, "UPDATE jobs SET tags = 'no JSON' WHERE id = ?1", &ids[0]);
    meddle(&path, "UPDATE jobs SET upstream = 'x y' WHERE id = ?1", &ids[3]);

    let store = SqliteStore::open(&path, Options::default()).unwrap();
    assert!(matches!(store.get(&ids[0]).await, Err(StoreError::Damaged { .. })));
    // A call about the bad record fails, and does no harm to those in the same batch.
    let (bad, good) =
        tokio::join!(store.control(&ids[0], Action::Cancel(Duration::ZERO), NOW), store.insert(vec![job("copy")], NOW));
    assert!(matches!(bad, Err(StoreError::Damaged { .. })));
    assert_eq!(good.unwrap().len(), 1);

    // The bad record stands at the head of the queue.
    assert_eq!(store.claim(&ask("a/1", &["copy"], 1), NOW).await.unwrap().len(), 1);
    assert_eq!(store.claim(&ask("a/1", &["copy"], 5), NOW).await.unwrap().len(), 2);
    assert_eq!(store.promote(10, due).await.unwrap().moved, 2);

    let found = store.audit().await.unwrap();
    assert!(found.iter().any(|line| line.contains("set aside") && line.contains(ids[0].as_str())), "{found:?}");
    assert!(found.iter().any(|line| line.contains("set aside") && line.contains(ids[3].as_str())), "{found:?}");
}

/// Goal: a record that cannot be read costs its own run, not those of its whole pool; and nobody is kept from paging past it.
#[tokio::test]
async fn a_running_record_that_cannot_be_read_loses_its_lease_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    store.insert(vec![job("copy"), job("copy")], NOW).await.unwrap();
    let claimed = store.claim(&ask("a/1", &["copy"], 2), NOW).await.unwrap();
    let leases: Vec<_> = claimed.iter().map(|job| job.lease_key().unwrap()).collect();
    drop(store);
    meddle(&path, "UPDATE jobs SET tags = 'no JSON' WHERE id = ?1", &leases[0].id);

    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let until = NOW + Duration::from_secs(20);
    let extended = store.extend(claimed[0].state.lease.as_ref().map(|lease| &lease.pool).unwrap(), &leases, until, NOW);

    assert_eq!(extended.await.unwrap().leases, [Held::Lost, Held::Held(None)]);
    let page = store.list(&Query { limit: 10, ..Query::default() }).await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&leases[1].id]);
}

/// Goal: disk space comes back after old jobs went, without anybody asking for it.
#[tokio::test]
async fn free_pages_are_given_back_when_the_store_is_idle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(20_000));
    let jobs: Vec<_> = (0..1000).map(|_| job_with("copy", &large, None)).collect();
    let ids: Vec<_> = jobs.iter().map(|new| new.job.id.clone()).collect();
    store.insert(jobs, NOW).await.unwrap();
    for id in &ids {
        store.control(id, Action::Stop(Duration::ZERO), NOW).await.unwrap();
        store.delete(id, NOW).await.unwrap();
    }

    let size = || std::fs::metadata(&path).unwrap().len();
    wait_until("the file has shrunk below 2 MiB", async || size() < 2 * 1024 * 1024).await;
    sound(&store).await;
}

/// What somebody could do to a file, and a word of the sentence that must tell of it.
const PLANTED: [(&str, &str); 16] = [
    ("UPDATE jobs SET finished_at = 5 WHERE id = ?1", "history"),
    ("UPDATE jobs SET status = 4 WHERE id = ?1", "finish"),
    ("UPDATE jobs SET status = 2 WHERE id = ?1", "lease"),
    ("UPDATE jobs SET status = 9 WHERE id = ?1", "cannot be read"),
    ("UPDATE jobs SET lease_pool = 'a/1' WHERE id = ?1", "history"),
    ("UPDATE jobs SET reap_at = 5 WHERE id = ?1", "reap"),
    ("UPDATE jobs SET signal = 1, signal_until = 5 WHERE id = ?1", "history"),
    ("UPDATE jobs SET holds_key = 1 WHERE id = ?1", "unique key"),
    ("UPDATE jobs SET tags = '[\"blue\"]' WHERE id = ?1", "tag"),
    ("UPDATE jobs SET upstream = 'policy-00' WHERE id = ?1", "execution"),
    ("UPDATE jobs SET name = 'other' WHERE id = ?1", "counts"),
    ("INSERT INTO job_tags SELECT 'green', 77 FROM jobs WHERE id = ?1", "tag"),
    ("INSERT INTO executions SELECT 'policy-00', seq, 1 FROM jobs WHERE id = ?1", "execution"),
    ("INSERT INTO outbox SELECT seq, 1, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL FROM jobs WHERE id = ?1", "turn"),
    ("INSERT INTO outbox_turns SELECT seq, id, 0 FROM jobs WHERE id = ?1", "turn"),
    ("INSERT INTO policies SELECT id, NULL, name, 1, NULL, '{}', '{}' FROM jobs WHERE id = ?1", "policy"),
];

/// Goal: the audit is worth something: it finds what was put there for it to find.
#[tokio::test]
async fn the_audit_finds_what_was_planted() {
    let directory = tempfile::tempdir().unwrap();
    for (number, (sql, word)) in PLANTED.into_iter().enumerate() {
        let path = directory.path().join(format!("jobs-{number}.db"));
        let options = Options { ballast_bytes: 0, ..Options::default() };
        let store = SqliteStore::open(&path, options).unwrap();
        let jobs = vec![job("copy"), job("copy")];
        let id = jobs[0].job.id.clone();
        store.insert(jobs, NOW).await.unwrap();
        drop(store);
        assert_eq!(Inspector::open(&path).unwrap().audit().unwrap(), Vec::<String>::new());

        meddle(&path, sql, &id);

        let found = Inspector::open(&path).unwrap().audit().unwrap();
        assert!(found.iter().any(|line| line.contains(word)), "{sql}: {found:?}");
    }
}
