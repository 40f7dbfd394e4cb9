//! `STD_OUTPUT`: job logs on the output of the process, for who collects logs there. Cannot be read back.
//!
//! Each line is prefixed with its job's id, and control characters are made visible: an operator's terminal and the
//! collector's parser are not to be steered by a job.
//!
//! A pipe that nobody reads blocks its writer for ever, so a thread of its own does the writing and a batch that finds its
//! queue full is refused: the other backends go on.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{LogBackend, LogError, LogPiece};

/// Batches that may wait while the output is slow. With those of the buffers' bounds that is some megabytes.
const BATCHES_MAX: usize = 16;

/// How long the last lines may take at the end: the reader of a pipe may be gone for good.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Writes job logs to stdout, stderr, or any writer.
pub struct StdOutput {
    work: Mutex<Option<SyncSender<Work>>>,
    /// Why the last write failed, if it did: told by the next append.
    failure: Arc<Mutex<Option<io::Error>>>,
}

enum Work {
    Write(Vec<LogPiece>),
    Flush(oneshot::Sender<()>),
}

impl StdOutput {
    /// To stdout.
    ///
    /// # Errors
    /// [`LogError::Io`] if the system gives no thread.
    pub fn stdout() -> Result<StdOutput, LogError> {
        StdOutput::to(Box::new(io::stdout()))
    }

    /// To stderr.
    ///
    /// # Errors
    /// [`LogError::Io`] if the system gives no thread.
    pub fn stderr() -> Result<StdOutput, LogError> {
        StdOutput::to(Box::new(io::stderr()))
    }

    /// To a writer of your own, which may block.
    ///
    /// # Errors
    /// [`LogError::Io`] if the system gives no thread.
    pub fn to(writer: Box<dyn Write + Send>) -> Result<StdOutput, LogError> {
        let (work, queue) = sync_channel(BATCHES_MAX);
        let failure = Arc::new(Mutex::new(None));
        let failures = Arc::clone(&failure);
        std::thread::Builder::new()
            .name("job-logs-std".to_owned())
            .spawn(move || write_all(writer, &queue, &failures))
            .map_err(|source| LogError::Io { during: "start", path: "the thread of STD_OUTPUT".to_owned(), source })?;
        Ok(StdOutput { work: Mutex::new(Some(work)), failure })
    }

    fn send(&self, work: Work) -> Result<(), LogError> {
        let sender = self.work.lock();
        let Some(sender) = sender.as_ref() else { return Err(LogError::Busy) };
        sender.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => LogError::Busy,
        })
    }
}

#[async_trait]
impl LogBackend for StdOutput {
    fn name(&self) -> &'static str {
        "STD_OUTPUT"
    }

    /// Answers before the lines are written; a write that failed fails the next batch.
    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let count = pieces.len();
        let told = match self.failure.lock().take() {
            Some(source) => Err(LogError::Io { during: "write", path: "the standard output".to_owned(), source }),
            None => self.send(Work::Write(pieces)),
        };
        match told {
            Ok(()) => (0..count).map(|_| Ok(())).collect(),
            Err(error) => {
                let mut answers = vec![Err(error)];
                answers.resize_with(count, || Err(LogError::Busy));
                answers
            }
        }
    }

    async fn shutdown(&self) {
        let (done, written) = oneshot::channel();
        // A full queue is not waited for: nobody reads the output.
        if self.send(Work::Flush(done)).is_ok() {
            drop(tokio::time::timeout(SHUTDOWN_WAIT_MAX, written).await);
        }
        self.work.lock().take();
    }
}

fn write_all(mut writer: Box<dyn Write + Send>, queue: &Receiver<Work>, failure: &Mutex<Option<io::Error>>) {
    let mut text = String::new();
    while let Ok(work) = queue.recv() {
        match work {
            Work::Write(pieces) => {
                text.clear();
                for piece in &pieces {
                    write_piece(&mut text, piece);
                }
                if let Err(error) = writer.write_all(text.as_bytes()).and_then(|()| writer.flush()) {
                    *failure.lock() = Some(error);
                }
                text.shrink_to(64 * 1024);
            }
            // Who asked may have given up.
            Work::Flush(done) => drop(done.send(())),
        }
    }
}

fn write_piece(out: &mut String, piece: &LogPiece) {
    for line in String::from_utf8_lossy(&piece.bytes).lines() {
        out.extend(["[", piece.id.as_str(), "] "]);
        for c in line.chars() {
            if c.is_control() && c != '\t' {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use bytes::Bytes;
    use jobservice_core::{JobId, Name, Time};

    use super::*;

    fn piece(text: &str) -> LogPiece {
        LogPiece {
            id: JobId::new("job-00000001").unwrap(),
            name: Name::new("copy").unwrap(),
            attempt: 1,
            bytes: Bytes::from(text.to_owned()),
            at: Time::from_seconds(0),
        }
    }

    struct Into(Sender<Vec<u8>>);

    impl Write for Into {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_carry_the_job_and_cannot_steer_the_terminal() {
        let (sender, written) = channel();
        let output = StdOutput::to(Box::new(Into(sender))).unwrap();
        let answers = output.append(vec![piece("one \x1b[31mred\ttab\n    two\n")]).await;
        output.shutdown().await;

        assert!(answers.iter().all(Result::is_ok));
        let text = String::from_utf8(written.recv().unwrap()).unwrap();
        assert_eq!(text, "[job-00000001] one \\u{1b}[31mred\ttab\n[job-00000001]     two\n");
    }

    #[tokio::test]
    async fn failed_write_is_told_by_the_next_append() {
        let (sender, written) = channel();
        drop(written);
        let output = StdOutput::to(Box::new(Into(sender))).unwrap();
        output.append(vec![piece("one\n")]).await;
        let (done, flushed) = oneshot::channel();
        output.send(Work::Flush(done)).unwrap();
        flushed.await.unwrap();

        let answers = output.append(vec![piece("two\n"), piece("three\n")]).await;
        assert!(matches!(answers[..], [Err(LogError::Io { .. }), Err(_)]), "{answers:?}");
    }

    #[tokio::test]
    async fn output_that_nobody_reads_holds_nobody_up() {
        let (release, blocked) = channel::<()>();
        struct Blocked(Receiver<()>);
        impl Write for Blocked {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv().ok();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let output = StdOutput::to(Box::new(Blocked(blocked))).unwrap();
        let mut refused = 0;
        for _ in 0..BATCHES_MAX + 10 {
            let answers = output.append(vec![piece("line\n")]).await;
            refused += usize::from(answers[0].is_err());
        }
        drop(release);
        assert!(refused >= 9, "{refused}");
    }
}
