//! A full disk: intake is refused, all else goes on, and intake comes back by itself.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what is wrong by its panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{NOW, ask, job, job_with, sound, succeeded, wait_until};
use jobservice_core::job::Status;
use jobservice_core::store::{Action, Controlled, Finished, Inserted, Query};
use jobservice_core::{Store, StoreError};
use jobservice_sqlite::{Health, Options, SqliteStore};

const MIB: u64 = 1024 * 1024;

/// A file system of its own with a size, which only root may make.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, bytes: u64) -> Option<SmallDisk> {
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "jobservice-test"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(gone.is_ok_and(|status| status.success()), "{} is still mounted", self.0.display());
    }
}

/// Goal: a full disk never loses or blocks what is there already.
/// Method: a small file system, filled to the last byte by jobs with large parameters; then a file beside the store goes.
#[tokio::test]
async fn a_full_disk_refuses_intake_lets_jobs_end_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path(), 48 * MIB) else {
        eprintln!("SKIPPED: cannot mount a small file system here (not root?)");
        return;
    };
    let filler = directory.path().join("filler");
    std::fs::write(&filler, vec![7; 20 * MIB as usize]).unwrap();
    let options = Options { ballast_bytes: 4 * MIB, ..Options::default() };
    let path = directory.path().join("jobs.db");
    let store = SqliteStore::open(&path, options.clone()).unwrap();
    let small: Vec<_> = (0..20).map(|_| job("copy")).collect();
    let ids: Vec<_> = small.iter().map(|new| new.job.id.clone()).collect();
    store.insert(small, NOW).await.unwrap();
    let running = store.claim(&ask("a/1", &["copy"], 10), NOW).await.unwrap();

    let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(100_000));
    let mut stored = 0;
    let refused = loop {
        match store.insert(vec![job_with("large", &large, None)], NOW).await {
            Ok(inserted) => assert_eq!(inserted, [Inserted::Created]),
            Err(error) => break error,
        }
        stored += 1;
        assert!(stored < 1000, "more than a thousand large jobs on a disk of 48 MiB");
    };
    assert!(matches!(refused, StoreError::Full), "{refused:?}");
    assert_eq!(*store.health().borrow(), Health::Full);

    // Intake stays closed, small as it may be; all else goes on.
    assert!(matches!(store.insert(vec![job("copy")], NOW).await, Err(StoreError::Full)));
    assert_eq!(store.get(&ids[0]).await.unwrap().unwrap().state.status, Status::Running);
    assert_eq!(store.list(&Query { limit: 5, ..Query::default() }).await.unwrap().jobs.len(), 5);
    let finished = store.finish(running[..5].iter().map(succeeded).collect(), NOW).await.unwrap();
    assert_eq!(finished, vec![Finished::Applied(Status::Success); 5]);
    let released: Vec<_> = running[5..].iter().map(|job| job.lease_key().unwrap()).collect();
    assert_eq!(store.release(released, 0, NOW).await.unwrap(), vec![Finished::Applied(Status::Pending); 5]);
    let grace = Duration::from_secs(30);
    assert_eq!(store.control(&ids[15], Action::Stop(grace), NOW).await.unwrap(), Controlled::Done(Status::Stopped));
    let again = store.claim(&ask("a/1", &["copy"], 3), NOW).await.unwrap();
    assert_eq!(again.len(), 3);
    sound(&store).await;

    std::fs::remove_file(&filler).unwrap();
    wait_until("the store takes jobs again", async || {
        matches!(store.insert(vec![job("copy")], NOW).await.as_deref(), Ok([Inserted::Created]))
    })
    .await;
    assert_eq!(*store.health().borrow(), Health::Well);
    assert_eq!(std::fs::metadata(directory.path().join("jobs.db-ballast")).unwrap().len(), 4 * MIB);
    sound(&store).await;
    drop(store);

    let store = SqliteStore::open(&path, options).unwrap();
    let counts = store.counts().await.unwrap();
    assert_eq!(counts.iter().map(|(_, jobs)| jobs).sum::<u64>(), 21 + stored);
    sound(&store).await;
    drop(store);
    drop(disk);
}
