//! The thread that writes.
//!
//! Each call is one transaction; an append brings the lines of all jobs of that moment, so that is the group commit. An
//! error costs what the call brought and nothing else: the next call begins anew, on a new connection if the file was
//! removed or replaced, on a new file if it is damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jobservice_core::{JobId, Time};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::append::{self, Limit, append};
use super::file::{self, File};
use super::sweep::{self, Removal, Step};
use super::{LogsError, Options, Piece, Swept};

/// The size of the file is looked at after this many bytes, or a 64th of what is allowed if that is less.
const CHECK_EVERY_BYTES: u64 = 4 * 1024 * 1024;

type Answer<T> = oneshot::Sender<Result<T, LogsError>>;

pub(super) enum Work {
    Append { pieces: Vec<Piece>, answer: Answer<()> },
    Remove { ids: Vec<JobId>, answer: Answer<Removal> },
    Sweep { before: Option<Time>, bytes_max: Option<u64>, answer: Answer<Step> },
    Stop { answer: oneshot::Sender<()> },
}

pub(super) struct Writer {
    path: Arc<Path>,
    options: Options,
    file: Option<File>,
    /// Set by whoever finds the file damaged, readers too.
    is_damaged: Arc<AtomicBool>,
    unchecked_bytes: u64,
    /// The hour in which it was last told that logs were removed for their size.
    told_hour: i64,
}

impl Writer {
    pub(super) fn new(path: Arc<Path>, options: Options, file: File, is_damaged: Arc<AtomicBool>) -> Writer {
        Writer { path, options, file: Some(file), is_damaged, unchecked_bytes: 0, told_hour: i64::MIN }
    }

    /// Works until told to stop or nobody is left to send work. An answer that nobody waits for any more is dropped.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        while let Some(work) = queue.blocking_recv() {
            match work {
                Work::Append { pieces, answer } => {
                    let written = self.append(&pieces);
                    let is_written = written.is_ok();
                    drop(answer.send(written));
                    if is_written {
                        self.keep_to_size(&pieces);
                    }
                }
                Work::Remove { ids, answer } => {
                    let removed = self.transact("prune", |conn| sweep::remove(conn, &ids));
                    let freed = removed.as_ref().is_ok_and(|removal| removal.swept.logs > 0);
                    drop(answer.send(removed));
                    if freed {
                        self.give_back(&queue);
                    }
                }
                Work::Sweep { before, bytes_max, answer } => drop(answer.send(self.sweep(before, bytes_max))),
                Work::Stop { answer } => {
                    // Closing the connection writes the log of SQLite back to the file.
                    self.file = None;
                    answer.send(()).ok();
                    return;
                }
            }
        }
    }

    fn append(&mut self, pieces: &[Piece]) -> Result<(), LogsError> {
        self.look_for_room()?;
        let half = self.options.log_bytes_max / 2;
        let limit = Limit { head: half, tail: half };
        self.transact("write", |conn| pieces.iter().try_for_each(|piece| append(conn, piece, limit)))
    }

    /// Whether there is room for lines beside what must stay free.
    fn look_for_room(&self) -> Result<(), LogsError> {
        if self.options.free_bytes_min == 0 {
            return Ok(());
        }
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Where nobody can tell how much is free, nobody knows of a lack of it.
        let Ok(free_bytes) = fs4::available_space(directory.unwrap_or_else(|| Path::new("."))) else { return Ok(()) };
        if free_bytes < self.options.free_bytes_min {
            return Err(LogsError::NoRoom { path: self.path.to_path_buf(), free_bytes });
        }
        Ok(())
    }

    fn sweep(&mut self, before: Option<Time>, bytes_max: Option<u64>) -> Result<Step, LogsError> {
        let swept = self.transact("sweep", |conn| {
            let mut swept = Swept::default();
            if let Some(before) = before {
                swept = sweep::by_age(conn, append::hour(before))?;
            }
            match bytes_max {
                Some(bytes_max) if swept.logs == 0 => sweep::by_size(conn, bytes_max),
                _ => Ok(swept),
            }
        })?;
        let more = swept.logs > 0 || self.with("vacuum", sweep::vacuum)?;
        Ok(Step { swept, more })
    }

    /// Removes the oldest logs if the file has grown too large.
    fn keep_to_size(&mut self, pieces: &[Piece]) {
        let bytes_max = self.options.file_bytes_max;
        self.unchecked_bytes += pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
        if self.unchecked_bytes < CHECK_EVERY_BYTES.min(bytes_max / 64) {
            return;
        }
        self.unchecked_bytes = 0;
        loop {
            match self.transact("sweep", |conn| sweep::by_size(conn, bytes_max)) {
                Ok(swept) if swept.logs > 0 => {
                    let hour = pieces.last().map_or(self.told_hour, |piece| append::hour(piece.at));
                    if std::mem::replace(&mut self.told_hour, hour) != hour {
                        let Swept { logs, bytes } = swept;
                        tracing::warn!(
                            logs,
                            bytes,
                            "job logs take more than {bytes_max} bytes: the oldest are removed"
                        );
                    }
                }
                Ok(_) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot keep the job logs to their size");
                    return;
                }
            }
        }
    }

    /// Gives free pages back to the file system while nobody waits, and at least a step's worth in any case: logs go with
    /// their jobs, and a service that is never idle must not keep the room of its busiest day.
    fn give_back(&mut self, queue: &mpsc::Receiver<Work>) {
        let mut gave = false;
        let given =
            loop {
                let step = self.with("vacuum", |conn| {
                    if sweep::has_much_free(conn)? { sweep::vacuum(conn).map(Some) } else { Ok(None) }
                });
                match step {
                    Ok(more) => {
                        gave |= more.is_some();
                        if more != Some(true) || !queue.is_empty() {
                            break Ok(gave);
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
        // Only when the log of SQLite is written back does the file become shorter.
        let written_back = match given {
            Ok(true) => {
                self.with("write back", |conn| conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())))
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = written_back {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot give back the room of removed job logs");
        }
    }

    fn transact<T>(
        &mut self,
        during: &'static str,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LogsError> {
        self.with(during, |conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            let answer = f(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        })
    }

    fn with<T>(
        &mut self,
        during: &'static str,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LogsError> {
        let file = match self
            .file
            .take()
            .filter(|file| !self.is_damaged.load(Ordering::Acquire) && file.is_current(&self.path))
        {
            Some(file) => file,
            None => self.open()?,
        };
        let answer = f(&file.conn);
        self.file = Some(file);
        answer.map_err(|error| {
            self.is_damaged.fetch_or(file::is_damage(&error), Ordering::AcqRel);
            file::sqlite(during, &self.path)(error)
        })
    }

    fn open(&mut self) -> Result<File, LogsError> {
        if self.is_damaged.swap(false, Ordering::AcqRel) {
            file::move_aside(&self.path)?;
        }
        file::open_or_replace(&self.path)
    }
}
