//! The store as its callers see it, over files: what the conformance suite cannot say of a store without them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what is wrong by its panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{NOW, ask, job, sound, succeeded};
use jobservice_core::job::Status;
use jobservice_core::limits::GRACE;
use jobservice_core::store::{Act, Action, Finished, Inserted, Node, Query};
use jobservice_core::{PoolId, Store};
use jobservice_sqlite::{Inspector, OpenError, Options, SqliteStore};

#[tokio::test]
async fn a_job_is_inserted_claimed_and_finished() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("jobs.db"), Options::default()).unwrap();
    let new = job("copy");
    let id = new.job.id.clone();

    assert_eq!(store.insert(vec![new.clone()], NOW).await.unwrap(), [Inserted::Created]);
    assert_eq!(store.get(&id).await.unwrap(), Some(new.job));
    let claimed = store.claim(&ask("a/1", &["copy", "move"], 5), NOW).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(store.get(&id).await.unwrap().as_ref(), claimed.first());
    sound(&store).await;
    let finished = store.finish(vec![succeeded(&claimed[0])], NOW).await.unwrap();
    assert_eq!(finished, [Finished::Applied(Status::Success)]);
    let repeated = store.finish(vec![succeeded(&claimed[0])], NOW).await.unwrap();
    assert_eq!(repeated, [Finished::Applied(Status::Success)]);
    assert_eq!(store.get(&id).await.unwrap().unwrap().state.status, Status::Success);
    sound(&store).await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_the_store_was_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    store.insert(vec![job("copy"), job("copy"), job("move")], NOW).await.unwrap();
    store.claim(&ask("a/1", &["copy"], 1), NOW).await.unwrap();
    let before = store.dump().await.unwrap();
    drop(store);

    let store = SqliteStore::open(&path, Options::default()).unwrap();

    assert_eq!(store.dump().await.unwrap(), before);
    assert_eq!(store.claim(&ask("a/1", &["copy", "move"], 5), NOW).await.unwrap().len(), 2);
    sound(&store).await;
}

/// Goal: who copies the one file after a clean end has everything.
#[tokio::test]
async fn after_a_clean_end_all_is_in_the_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let new = job("copy");
    let id = new.job.id.clone();
    store.insert(vec![new], NOW).await.unwrap();
    assert!(store.get(&id).await.unwrap().is_some());
    assert!(directory.path().join("jobs.db-wal").exists());

    drop(store);

    for gone in ["jobs.db-wal", "jobs.db-shm"] {
        assert!(!directory.path().join(gone).exists(), "{gone} is still there");
    }
}

/// Goal: what a process that was killed left in the log, synced or not, is on the disk before anything is added to it.
#[tokio::test]
async fn after_an_unclean_end_the_log_is_written_back_and_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("jobs.db"), Options::default()).unwrap();
    let new = job("copy");
    let id = new.job.id.clone();
    store.insert(vec![new], NOW).await.unwrap();
    // What lies on the disk now is what a kill would leave.
    let left = tempfile::tempdir().unwrap();
    for file in ["jobs.db", "jobs.db-wal"] {
        std::fs::copy(directory.path().join(file), left.path().join(file)).unwrap();
    }
    let log = left.path().join("jobs.db-wal");
    assert!(std::fs::metadata(&log).unwrap().len() > 0);

    let store = SqliteStore::open(left.path().join("jobs.db"), Options::default()).unwrap();

    assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
    assert!(store.get(&id).await.unwrap().is_some());
}

/// Goal: the log that is synced is the one that SQLite writes, and the lock is that of the file.
#[tokio::test]
async fn a_link_to_the_file_is_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    drop(SqliteStore::open(&path, Options::default()).unwrap());
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();

    let store = SqliteStore::open(&link, Options::default()).unwrap();

    assert_eq!(store.insert(vec![job("copy")], NOW).await.unwrap(), [Inserted::Created]);
    assert!(!directory.path().join("link.db-wal").exists());
    assert!(matches!(SqliteStore::open(&path, Options::default()), Err(OpenError::Served { .. })));
}

#[tokio::test]
async fn hook_events_that_an_earlier_life_held_have_their_turn_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let mut new = job("copy");
    std::sync::Arc::make_mut(&mut new.job.spec).hook = Some("http://hooks.example/".into());
    let id = new.job.id.clone();
    store.insert(vec![new], NOW).await.unwrap();
    store.claim(&ask("a/1", &["copy"], 1), NOW).await.unwrap();
    let held = store.take_events(1, NOW + Duration::from_secs(30), NOW).await.unwrap();
    assert_eq!((held.len(), store.take_events(1, NOW, NOW).await.unwrap()), (1, Vec::new()));
    drop(store);

    let store = SqliteStore::open(&path, Options::default()).unwrap();
    store.reap_previous(NOW).await.unwrap();

    let taken = store.take_events(1, NOW + Duration::from_secs(30), NOW).await.unwrap();
    assert_eq!((taken.len(), &taken[0].job.id, taken[0].events.first()), (1, &id, held[0].events.first()));
    sound(&store).await;
}

#[tokio::test]
async fn leases_of_an_earlier_life_are_given_back_at_once_but_not_those_of_remote_pools() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    store.insert((0..3).map(|_| job("copy")).collect(), NOW).await.unwrap();
    store.claim(&ask("web/1", &["copy"], 1), NOW).await.unwrap();
    store.claim(&ask("remote-x/1", &["copy"], 1), NOW).await.unwrap();
    drop(store);

    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let own = store.claim(&ask("web/2", &["copy"], 1), NOW).await.unwrap();

    assert_eq!(store.reap_previous(NOW).await.unwrap(), 1);
    assert_eq!(store.finish(vec![succeeded(&own[0])], NOW).await.unwrap(), [Finished::Applied(Status::Success)]);
    let again = store.claim(&ask("web/2", &["copy"], 5), NOW).await.unwrap();
    assert_eq!(again.iter().map(|job| job.state.crashes).collect::<Vec<_>>(), [1]);
    sound(&store).await;
}

#[tokio::test]
async fn a_second_serving_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = Arc::new(SqliteStore::open(&path, Options::default()).unwrap());

    let refused = SqliteStore::open(&path, Options::default()).unwrap_err();

    assert!(matches!(refused, OpenError::Served { holder: Some(pid), .. } if pid == std::process::id()), "{refused}");
    drop(store);
    SqliteStore::open(&path, Options::default()).unwrap();
}

#[tokio::test]
async fn a_copy_is_taken_and_looked_at_beside_the_serving_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    store.insert(vec![job("copy"), job("move")], NOW).await.unwrap();
    let copy = directory.path().join("copy.db");

    let inspector = Inspector::open(&path).unwrap();
    inspector.backup(&copy).unwrap();
    store.insert(vec![job("copy")], NOW).await.unwrap();

    assert_eq!(inspector.audit().unwrap(), Vec::<String>::new());
    assert_eq!(inspector.dump().unwrap(), store.dump().await.unwrap());
    let copied = SqliteStore::open(&copy, Options::default()).unwrap();
    assert_eq!(copied.claim(&ask("a/1", &["copy", "move"], 5), NOW).await.unwrap().len(), 2);
    assert!(inspector.backup(&copy).is_err(), "an existing file is not overwritten");
}

/// Goal: what jobs took on the disk comes back once they are gone, by a bound as by their time.
#[tokio::test]
async fn a_file_above_its_bound_is_brought_below_it_and_the_disk_has_the_rest_back() {
    const BOUND: u64 = 2 * 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    let live = job("wait");
    store.insert(vec![live.clone()], NOW).await.unwrap();
    for _ in 0..20 {
        let mut jobs: Vec<_> = (0..100).map(|_| job("copy")).collect();
        for new in &mut jobs {
            Arc::make_mut(&mut new.job.spec).parameters = format!("{{\"text\": \"{}\"}}", "x".repeat(5000)).into();
        }
        store.insert(jobs, NOW).await.unwrap();
        let claimed = store.claim(&ask("a/1", &["copy"], 100), NOW).await.unwrap();
        store.finish(claimed.iter().map(succeeded).collect(), NOW).await.unwrap();
    }

    let mut removed = 0;
    loop {
        let swept = store.shrink(BOUND, 100, NOW).await.unwrap();
        removed += swept.removed.len();
        if !swept.more {
            break;
        }
    }

    assert!((1500..2000).contains(&removed), "no more than needed: {removed} of 2000");
    assert_eq!(store.get(&live.job.id).await.unwrap().map(|job| job.id), Some(live.job.id.clone()));
    sound(&store).await;
    let bytes = || std::fs::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
    // The writer gives pages back when it is idle, a second after the last call.
    for _ in 0..1500 {
        if bytes() <= 2 * BOUND {
            return;
        }
        std::thread::sleep(Duration::from_millis(10)); // bounded poll
    }
    panic!("the file still has {} bytes", bytes());
}

/// Goal: a file that was large once does not stay so because there is always something to do.
#[tokio::test]
async fn free_room_is_given_back_although_calls_keep_coming() {
    const LARGE: u64 = 36 * 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    for _ in 0..16 {
        let mut jobs: Vec<_> = (0..500).map(|_| job("copy")).collect();
        for new in &mut jobs {
            Arc::make_mut(&mut new.job.spec).parameters = format!("\"{}\"", "x".repeat(5000)).into();
        }
        let ids: Vec<_> = jobs.iter().map(|new| new.job.id.clone()).collect();
        store.insert(jobs, NOW).await.unwrap();
        store.act(&ids, &Query::default(), Act::Control(Action::Stop(GRACE)), NOW).await.unwrap();
    }
    while store.shrink(0, 250, NOW).await.unwrap().more {}
    let bytes = || std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let before = bytes();
    assert!(before > LARGE, "{before} bytes");

    // Never as much as a fifth of a second without a call.
    for _ in 0..1000 {
        store.beat(Some(&node()), NOW).await.unwrap();
        if bytes() < before / 2 + LARGE / 8 {
            sound(&store).await;
            return;
        }
        std::thread::sleep(Duration::from_millis(20)); // bounded poll
    }
    panic!("the file has {} bytes, and had {before}", bytes());
}

fn node() -> Node {
    Node {
        pool: PoolId::new("a/1").unwrap(),
        started_at: NOW,
        beat_at: NOW,
        names: Vec::new(),
        concurrency: 1,
        host: "host".to_owned(),
        pid: 1,
    }
}
