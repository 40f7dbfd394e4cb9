//! Why a call did not give what was asked for: the service was not reached, it refused, or its answer makes no sense.

use serde::Deserialize;

/// What every call answers with.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. What the caller can do differs: start or find the service, change the request, report a bug.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL, the secret or a value of the request cannot be sent. Nothing was.
    #[error("cannot make a request of {what}: {problem}")]
    Unusable {
        /// What of: "the url", "the secret", "the parameters".
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There was no answer: nobody listens there, or the connection broke. The call may or may not have happened; a
    /// submission with an idempotency key is safe to repeat.
    #[error("no answer from the service at {url}")]
    NoAnswer {
        /// The service's URL.
        url: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// The service took longer than 30 s to begin its answer.
    #[error("no answer from the service at {url} within 30 s")]
    TooSlow {
        /// The service's URL.
        url: String,
    },
    /// The service answered with an error; nothing was changed.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// The answer cannot be read: whoever answers is not this service, or another version of it.
    #[error("the answer of {url} is not one of the job service: {problem}")]
    Unreadable {
        /// The service's URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// The stable word for the reason, if the service gave one: `unknown_job`, `invalid_request`, ...
    pub fn reason(&self) -> Option<&str> {
        match self {
            Error::Refused(refused) => Some(&refused.reason),
            Error::Unusable { .. } | Error::NoAnswer { .. } | Error::TooSlow { .. } | Error::Unreadable { .. } => None,
        }
    }
}

/// The body of an error answer, as the service wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{err}: {description}")]
pub struct Refused {
    /// The HTTP status.
    pub code: u16,
    /// A short message.
    pub err: String,
    /// What was wrong, with the field and the remedy.
    #[serde(default)]
    pub description: String,
    /// A stable word for machines.
    #[serde(default)]
    pub reason: String,
    /// With `duplicate`: the job that holds the key.
    #[serde(default)]
    pub existing_id: Option<String>,
}
