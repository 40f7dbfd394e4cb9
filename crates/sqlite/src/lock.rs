//! One serving process per file.
//!
//! The lock is on a file beside the database, not on the database itself: readers (`doctor`, `backup`, `sqlite3`) stay
//! free to open that. The kernel lets go of it when the process ends, however it ends; so whoever gets it knows that all
//! leases of earlier local pools are those of dead processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::OpenError;

/// A predecessor that is just ending holds the lock for a moment longer: it is waited for, [`TRIES`] times this long.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);
const TRIES: u32 = 100;

/// The lock of a store, held until dropped: while it is held no process serves the store.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The path of a file that goes with the database: its name with `suffix` added, as SQLite names its own.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Lock {
    /// Takes the lock, or says which process has it.
    ///
    /// # Errors
    /// [`OpenError::Served`], or [`OpenError::Lock`] if there is no lock to be had.
    pub fn take(database: &Path) -> Result<Lock, OpenError> {
        let path = beside(database, "-lock");
        let refused = |source| OpenError::Lock { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(refused)?;
        let mut tries = 0;
        let taken = loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(TRY_AGAIN_AFTER); // bounded poll
                }
                taken => break taken,
            }
        };
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: a holder that has not written its number yet is still a holder.
                let holder = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(OpenError::Served { path: database.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(refused)?;
        writeln!(file, "{}", std::process::id()).map_err(refused)?;
        Ok(Lock { _file: file })
    }
}

/// Whether a process holds the lock. Does not take it for longer than the look, and makes no file.
pub(crate) fn is_held(database: &Path) -> std::io::Result<bool> {
    let file = match File::open(beside(database, "-lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
