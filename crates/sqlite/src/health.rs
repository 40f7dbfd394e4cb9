//! How the store is, and the ballast that lets a full disk drain.
//!
//! A full disk refuses intake, not endings: a file that is there for nothing else is dropped, and in its room running
//! jobs finish, people stop and delete, and old jobs are pruned. When there is room for it again it is made again, and
//! intake goes on. A write that failed in any other way poisons the store: after a failed fsync the kernel may have
//! thrown the pages away and say "synced" the next time, so nothing that we still could write would be worth a promise.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::lock;

/// How a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Well,
    /// The disk is full: new jobs are refused, all else goes on.
    Full,
    /// A write failed in a way that leaves durability unknown: every write is refused. Only a restart of the process
    /// helps, which should end with a failure: the next one writes all that it finds to the disk before it adds to it.
    Poisoned,
}

/// The health of one store, for who writes it and for who looks at it.
#[derive(Debug)]
pub(crate) struct Doctor(watch::Sender<Health>);

impl Doctor {
    pub(crate) fn new() -> Doctor {
        Doctor(watch::Sender::new(Health::Well))
    }

    pub(crate) fn health(&self) -> Health {
        *self.0.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    /// Notes a change. Poison stays.
    pub(crate) fn set(&self, health: Health) {
        self.0.send_if_modified(|current| {
            let changes = *current != Health::Poisoned && *current != health;
            if changes {
                *current = health;
            }
            changes
        });
    }
}

/// The file that is dropped when the disk is full.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

/// Room beyond the ballast and its like that must be there before intake goes on.
const MARGIN_BYTES: u64 = 1024 * 1024;

impl Ballast {
    pub(crate) fn new(database: &Path, bytes: u64) -> Ballast {
        Ballast { path: lock::beside(database, "-ballast"), bytes }
    }

    /// Makes the file unless it is there; answers whether there was room for it. Where it cannot be made for another
    /// reason the store goes on without: that is no full disk.
    pub(crate) fn make(&self) -> bool {
        if self.bytes == 0 || fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes) {
            return true;
        }
        let Err(error) = self.write() else { return true };
        self.drop_it();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return false;
        }
        tracing::warn!(%error, "going on without the ballast file {}: {error}", self.path.display());
        true
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        match fs4::FileExt::allocate(&file, self.bytes) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // Not every file system can promise room without its being written to.
                io::copy(&mut io::repeat(0).take(self.bytes), &mut file).map(drop)
            }
            allocated => allocated,
        }
    }

    /// Gives its room to others.
    pub(crate) fn drop_it(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove the ballast file {}: {error}", self.path.display());
        }
    }

    /// Whether there is so much room again that the file and as much beside it fit.
    pub(crate) fn has_room(&self) -> bool {
        let directory =
            self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let needed = self.bytes.saturating_mul(2).saturating_add(MARGIN_BYTES);
        fs4::available_space(directory).is_ok_and(|bytes| bytes >= needed)
    }
}
