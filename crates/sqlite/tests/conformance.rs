//! The suite that every store passes, on SQLite.
#![expect(clippy::expect_used, reason = "a test that cannot open its store is over")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use jobservice_conformance::Factory;
use jobservice_core::Store;
use jobservice_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

/// Stores in one directory of their own.
struct Sqlite {
    dir: TempDir,
    opened: AtomicU32,
}

impl Sqlite {
    fn new() -> Sqlite {
        Sqlite { dir: TempDir::new().expect("a temporary directory"), opened: AtomicU32::new(0) }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("jobs-{number}.db"))
    }
}

fn open(path: PathBuf) -> Arc<dyn Store> {
    // No ballast: a suite opens thousands of stores.
    let options = Options { ballast_bytes: 0, ..Options::default() };
    Arc::new(SqliteStore::open(path, options).expect("the store opens"))
}

#[async_trait]
impl Factory for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        open(self.path(self.opened.fetch_add(1, Ordering::Relaxed) + 1))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        // Dropping the last handle closes the file.
        drop(store);
        Some(open(self.path(self.opened.load(Ordering::Relaxed))))
    }
}

jobservice_conformance::suite!(Sqlite::new());
