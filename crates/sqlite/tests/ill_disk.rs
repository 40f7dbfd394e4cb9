//! A disk that does not keep what it is given: after a failed sync nothing is promised any more.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says what is wrong by its panic")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{NOW, ask, job, sound, succeeded};
use jobservice_core::{JobId, Store, StoreError};
use jobservice_sqlite::{Health, Options, SqliteStore};

/// Makes the n-th sync of a write-ahead log fail, as the kernel reports a write error of the disk: once. Later ones
/// succeed, which is what makes going on so dangerous.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    static int seen;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    const char *wanted = getenv("FAIL_SYNC");
    if (length < 4 || !wanted) return 0;
    path[length] = 0;
    if (strcmp(path + length - 4, "-wal") != 0) return 0;
    return __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) == atoi(wanted);
}

#define SYNC(name)                                                   \
    int name(int fd) {                                               \
        static int (*real)(int);                                     \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);        \
        if (fails(fd)) { errno = EIO; return -1; }                   \
        return real(fd);                                             \
    }
SYNC(fsync)
SYNC(fdatasync)
"#;

/// The name of the test below, for the child process that runs it alone.
const TEST: &str = "after_a_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost";

/// Works on a store until a write fails; prints what was acknowledged.
async fn work(path: &Path) {
    let options = Options { ballast_bytes: 0, ..Options::default() };
    let store = match SqliteStore::open(path, options) {
        Ok(store) => store,
        Err(error) => return println!("NOT OPENED {error}"),
    };
    for _ in 0..8 {
        let new = job("copy");
        let id = new.job.id.clone();
        if let Err(error) = store.insert(vec![new], NOW).await {
            assert!(matches!(error, StoreError::Poisoned), "{error:?}");
            break;
        }
        println!("ACKNOWLEDGED {id}");
        let Ok(claimed) = store.claim(&ask("a/1", &["copy"], 1), NOW).await else { break };
        if store.finish(claimed.iter().map(succeeded).collect(), NOW).await.is_err() {
            break;
        }
    }
    let health = *store.health().borrow();
    if health != Health::Poisoned {
        return println!("NO FAULT");
    }
    // The next sync would succeed, and would be a lie.
    assert!(matches!(store.insert(vec![job("copy")], NOW).await, Err(StoreError::Poisoned)));
    store.poisoned().await;
    assert_eq!(store.counts().await.unwrap().len(), 7, "reading goes on");
    println!("POISONED");
}

/// Goal: a write that could not be synced is never acknowledged, nor is any after it; what was acknowledged is there.
/// Method: the test runs itself again as a child under a library that fails the n-th sync, for n = 1 and on until a run
/// needs no more syncs than that.
#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    if let Some(path) = std::env::var_os("ILL_DISK_STORE") {
        return work(Path::new(&path)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, shim) = (directory.path().join("shim.c"), directory.path().join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no C compiler to build the library that fails syncs");
        return;
    }
    let mut poisoned = 0;
    for n in 1.. {
        let path = directory.path().join(format!("jobs-{n}.db"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env("ILL_DISK_STORE", &path)
            .env("LD_PRELOAD", &shim)
            .env("FAIL_SYNC", n.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success(), "at sync {n}: {said}\n{}", String::from_utf8_lossy(&child.stderr));
        if said.contains("NOT OPENED") {
            continue;
        }
        let store = SqliteStore::open(&path, Options { ballast_bytes: 0, ..Options::default() }).unwrap();
        for line in said.lines() {
            let Some((_, id)) = line.split_once("ACKNOWLEDGED ") else { continue };
            let id = JobId::new(id).unwrap();
            assert!(store.get(&id).await.unwrap().is_some(), "at sync {n}: {id} was acknowledged and is not there");
        }
        sound(&store).await;
        if said.contains("NO FAULT") {
            break;
        }
        assert!(said.contains("POISONED"), "at sync {n}: {said}");
        poisoned += 1;
        assert!(n < 100, "the work needs more than a hundred syncs");
    }
    assert!(poisoned >= 20, "only {poisoned} syncs were reached");
}
