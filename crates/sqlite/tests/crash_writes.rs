//! SQLite when its process dies at a write.
#![expect(clippy::expect_used, reason = "a test that cannot open its store is over")]

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_conformance::crash::{Abort, Crashing, Point};
use jobservice_core::Store;
use jobservice_sqlite::{Options, SqliteStore, WriteHook};

struct Sqlite;

#[async_trait]
impl Crashing for Sqlite {
    async fn open(&self, dir: &Path, abort: Option<Abort>) -> Arc<dyn Store> {
        let write_hook = abort.map(|abort| Arc::new(AbortAt(abort)) as Arc<dyn WriteHook>);
        let options = Options { ballast_bytes: 0, write_hook, ..Options::default() };
        Arc::new(SqliteStore::open(dir.join("jobs.db"), options).expect("the store opens"))
    }
}

struct AbortAt(Abort);

impl AbortAt {
    fn reached(&self, point: Point, number: u64) {
        if (Abort { point, number }) == self.0 {
            std::process::abort();
        }
    }
}

impl WriteHook for AbortAt {
    fn after_apply(&self, n: u64) {
        self.reached(Point::Applied, n);
    }

    fn before_commit(&self, n: u64) {
        self.reached(Point::BeforeCommit, n);
    }

    fn after_commit(&self, n: u64) {
        self.reached(Point::AfterCommit, n);
    }

    fn after_answer(&self, n: u64) {
        self.reached(Point::AfterAnswer, n);
    }
}

jobservice_conformance::crash_suite!(Sqlite);
