//! What an error of SQLite means for the batch that it happened in.

use jobservice_core::StoreError;
use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::call::Failure;

/// Whom a failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Only the call that it happened in: the others are done without it.
    Call,
    /// All of the batch: the disk is full.
    Full,
    /// All of the batch, this time: another process is writing, memory is short.
    Passing,
    /// Everything from now on.
    Poison,
}

impl Fault {
    /// Judges a failure of a step; of the commit if `committing`.
    pub(crate) fn of(failure: &Failure, committing: bool) -> Fault {
        let Failure::Engine(error) = failure else { return Fault::Call };
        let Some(error) = error.sqlite_error() else { return Fault::Call };
        match (error.code, error.extended_code) {
            // The index of the write-ahead log is a file as well, and does not report a full disk as such.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Fault::Full,
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory, _) => Fault::Passing,
            // What cannot be read concerns who wanted to read it; what cannot be written concerns everybody.
            (ErrorCode::SystemIoFailure, ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ) if !committing => {
                Fault::Call
            }
            (ErrorCode::SystemIoFailure, _) => Fault::Poison,
            _ if committing => Fault::Poison,
            _ => Fault::Call,
        }
    }
}

/// What the caller of the verb `during` is told.
pub(crate) fn tell(failure: Failure, during: &'static str) -> StoreError {
    match failure {
        Failure::Damaged(what) => StoreError::Damaged { what },
        Failure::Invalid(what) => StoreError::Invalid(what),
        Failure::Engine(error) => {
            let code = error.sqlite_error_code();
            if matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
                return StoreError::Damaged { what: error.to_string() };
            }
            StoreError::Unavailable { during, source: Box::new(error) }
        }
    }
}
