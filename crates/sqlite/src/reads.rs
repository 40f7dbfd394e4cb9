//! Threads that read, beside the writer: each has a read-only connection of its own and sees what was last committed.
//!
//! There are two, by what they are asked: records by id and other small things; and lists and sums, so that a page that
//! has to look at ten thousand rows does not hold up who wants one record. A thread takes all that waits into one short
//! read transaction: a long one would keep the log from beginning anew.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use jobservice_core::StoreError;
use rusqlite::{Connection, Statement};
use tokio::sync::oneshot;

use crate::OpenError;
use crate::call::Failure;
use crate::fault;
use crate::queue::{Closed, Queue, Wait};
use crate::row;
use crate::schema;

/// Reads that may wait for a thread; more make their callers wait.
const WAITING_MAX: usize = 1024;

/// Reads in one transaction.
const TOGETHER_MAX: usize = 64;

/// The connection of a reading thread and its statements.
pub(crate) struct Reader<'c> {
    pub(crate) conn: &'c Connection,
    pub(crate) by_id: Statement<'c>,
    /// The policies of which the log has told that they cannot be read.
    pub(crate) unreadable: BTreeSet<String>,
}

impl<'c> Reader<'c> {
    pub(crate) fn new(conn: &'c Connection) -> rusqlite::Result<Reader<'c>> {
        let by_id = conn.prepare(&format!("SELECT {} FROM jobs WHERE id = ?", row::columns()))?;
        Ok(Reader { conn, by_id, unreadable: BTreeSet::new() })
    }
}

type Read = Box<dyn FnOnce(&mut Reader<'_>) + Send>;

/// One reading thread.
pub(crate) struct Lane {
    reads: Arc<Queue<Read>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub(crate) fn start(path: &Path, name: &str) -> Result<Lane, OpenError> {
        let conn = schema::open_reader(path)?;
        let reads: Arc<Queue<Read>> = Arc::new(Queue::new(WAITING_MAX));
        let queue = Arc::clone(&reads);
        let run = move || {
            let guard = Guard(&queue);
            match Reader::new(&conn) {
                Ok(mut reader) => serve(&mut reader, &queue),
                Err(error) => tracing::error!(%error, "a reader cannot prepare its statements: {error}"),
            }
            drop(guard);
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)?;
        Ok(Lane { reads, thread: Some(thread) })
    }

    /// Runs `read` on the thread.
    pub(crate) async fn read<T, F>(&self, during: &'static str, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |reader| {
            // Whoever asked may have gone.
            drop(reply.send(read(reader).map_err(|failure| fault::tell(failure, during))));
        });
        let gone = || StoreError::Unavailable { during, source: "the reading thread has ended".into() };
        self.reads.send(read).await.map_err(|Closed(_)| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Lane {
    /// Ends the thread and closes its connection. Reads from then on fail.
    pub(crate) fn stop(&mut self) {
        self.reads.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a reading thread has panicked");
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Closes the queue when the thread ends, also by a panic, and drops what waits: its callers learn of it by that.
struct Guard<'a>(&'a Queue<Read>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.take(&mut Vec::new(), usize::MAX);
    }
}

fn serve(reader: &mut Reader<'_>, queue: &Queue<Read>) {
    let mut reads = Vec::new();
    while queue.wait(None) == Wait::Items {
        queue.take(&mut reads, TOGETHER_MAX);
        let together = reads.len() > 1 && reader.conn.execute_batch("BEGIN").is_ok();
        for read in reads.drain(..) {
            // Who asked learns of a panic by having no answer; the others have theirs.
            if catch_unwind(AssertUnwindSafe(|| read(reader))).is_err() {
                tracing::error!("a read has panicked");
            }
        }
        if together && let Err(error) = reader.conn.execute_batch("COMMIT") {
            tracing::warn!(%error, "cannot end a read transaction: {error}");
            if let Err(error) = reader.conn.execute_batch("ROLLBACK")
                && !reader.conn.is_autocommit()
            {
                // What it reads from here on would never change.
                tracing::error!(%error, "a reader ends, its transaction cannot be ended: {error}");
                return;
            }
        }
    }
}
