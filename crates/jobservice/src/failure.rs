//! Why a run did not succeed, and what is to become of the job.

use std::fmt;
use std::time::Duration;

use jobservice_core::job::Signal;

/// Any error that a job's code comes across.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a run did not succeed.
///
/// Any error becomes one by `?` and is retryable: `std::io::Error`, `anyhow::Error`, a `String`, a `&str`. The text keeps
/// the chain of causes. Like `anyhow::Error`, this type is not a [`std::error::Error`] itself; that is what makes `?` work.
///
/// ```
/// use jobservice::Failure;
///
/// fn read() -> Result<String, Failure> {
///     let text = std::fs::read_to_string("/no/such/file")?;
///     if text.is_empty() {
///         return Err(Failure::permanent("the file is empty"));
///     }
///     Ok(text)
/// }
/// assert!(read().unwrap_err().is_retryable());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    kind: FailureKind,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Another try may succeed.
    Retryable,
    /// Another try cannot succeed.
    Permanent,
    /// The run obeyed a stop or a cancel, or ends its job by itself.
    Obeyed(Signal),
    /// The run ended early because it was interrupted: what follows depends on the interrupt.
    Interrupted,
    /// Not now: run again after this long.
    Snooze(Duration),
}

impl Failure {
    /// A failure that another try may mend: the job runs again after its backoff, unless its tries are used up.
    pub fn retryable(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Retryable, message: message.into() }
    }

    /// A failure that no other try can mend: the job ends in Error at once.
    pub fn permanent(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Permanent, message: message.into() }
    }

    /// The run ended because it was asked to stop, or found that its job should: it becomes Stopped, for good.
    pub fn stopped() -> Failure {
        Failure { kind: FailureKind::Obeyed(Signal::Stop), message: "stopped".to_owned() }
    }

    /// The run ended because it was cancelled: the job becomes Cancelled and may be retried by hand.
    pub fn cancelled() -> Failure {
        Failure { kind: FailureKind::Obeyed(Signal::Cancel), message: "cancelled".to_owned() }
    }

    /// The run ended because [`crate::Context::signalled`] resolved, whatever the reason: after a stop or cancel the job
    /// is Stopped or Cancelled, after its timeout it failed, at a shutdown it goes back to the queue and nothing counts.
    pub fn interrupted() -> Failure {
        Failure { kind: FailureKind::Interrupted, message: "interrupted".to_owned() }
    }

    /// The job should run again after `delay`; nothing is counted.
    pub fn snooze(delay: Duration) -> Failure {
        Failure { kind: FailureKind::Snooze(delay), message: format!("snoozed for {} s", delay.as_secs_f64()) }
    }

    /// Whether another try may mend it.
    pub fn is_retryable(&self) -> bool {
        self.kind == FailureKind::Retryable
    }

    /// What went wrong, with its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Failure {
        let error: BoxError = error.into();
        Failure::retryable(chain(error.as_ref()))
    }
}

/// The error and its causes, joined by colons. A cause whose text its effect already ends with is not said twice.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot fetch the image")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn question_mark_takes_errors_texts_and_anyhow() {
        fn io() -> Result<(), Failure> {
            Err(Outer(std::io::Error::other("connection reset")))?
        }
        fn text() -> Result<(), Failure> {
            Err("no such bucket")?
        }
        fn any() -> Result<(), Failure> {
            Err(anyhow::anyhow!("inner").context("outer"))?
        }
        fn own() -> Result<(), Failure> {
            Err(Failure::stopped())?
        }

        assert_eq!(io().unwrap_err().message(), "cannot fetch the image: connection reset");
        assert_eq!(text().unwrap_err(), Failure::retryable("no such bucket"));
        assert_eq!(any().unwrap_err().message(), "outer: inner");
        assert_eq!(own().unwrap_err(), Failure::stopped());
    }
}
