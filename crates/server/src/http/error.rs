//! Every way in which a request can fail, and the one table that says how each is answered.
//!
//! The body is `{"code", "err", "description", "reason"}`: the status, a short message, what was wrong with the field and
//! the remedy, and a word for machines that never changes. What lies beneath an error of ours goes to the service's log,
//! once, here, with the id that the answer carries; it is never shown to the client.

use std::borrow::Cow;
use std::fmt;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use jobservice_core::id::InvalidId;
use jobservice_core::{JobId, Status, StoreError};

use super::write::Writer;

/// The header that carries the id under which the service's log tells more.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The body, a parameter of the query or a header is not valid.
    InvalidRequest,
    /// The id does not have the form of one.
    InvalidId,
    /// No pool of this service runs jobs of that name.
    UnknownName,
    /// No secret, or a wrong one.
    Unauthorized,
    /// The secret does not allow this.
    Forbidden,
    /// The request comes from a page of another site.
    CrossSite,
    /// There is nothing under that path.
    UnknownPath,
    /// There is no such job.
    UnknownJob,
    /// There is no such schedule.
    UnknownSchedule,
    /// The job has no such hook event.
    UnknownEvent,
    /// The path does not know the method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTimeout,
    /// A unique job's key is held by another.
    Duplicate,
    /// The job's status does not allow the action.
    IllegalState,
    /// The same request is in use for another job.
    IdTaken,
    /// The body is larger than its route allows.
    BodyTooLarge,
    /// The action is none of ours.
    UnknownAction,
    /// Too many bytes of requests are under way.
    Busy,
    /// The store did not answer.
    StoreUnavailable,
    /// The store has no room.
    StoreFull,
    /// The store is closed or damaged.
    StoreFailed,
    /// A bug, or an error that nobody foresaw.
    Internal,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 22] = [
        Reason::InvalidRequest,
        Reason::InvalidId,
        Reason::UnknownName,
        Reason::Unauthorized,
        Reason::Forbidden,
        Reason::CrossSite,
        Reason::UnknownPath,
        Reason::UnknownJob,
        Reason::UnknownSchedule,
        Reason::UnknownEvent,
        Reason::MethodNotAllowed,
        Reason::BodyTimeout,
        Reason::Duplicate,
        Reason::IllegalState,
        Reason::IdTaken,
        Reason::BodyTooLarge,
        Reason::UnknownAction,
        Reason::Busy,
        Reason::StoreUnavailable,
        Reason::StoreFull,
        Reason::StoreFailed,
        Reason::Internal,
    ];

    /// The table: HTTP status, the word for machines, the short message.
    pub const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Reason::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request", "invalid request"),
            Reason::InvalidId => (StatusCode::BAD_REQUEST, "invalid_id", "invalid id"),
            Reason::UnknownName => (StatusCode::BAD_REQUEST, "unknown_name", "unknown job name"),
            Reason::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "unauthorized"),
            Reason::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "forbidden"),
            Reason::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "request of another site"),
            Reason::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path", "not found"),
            Reason::UnknownJob => (StatusCode::NOT_FOUND, "unknown_job", "no such job"),
            Reason::UnknownSchedule => (StatusCode::NOT_FOUND, "unknown_schedule", "no such schedule"),
            Reason::UnknownEvent => (StatusCode::NOT_FOUND, "unknown_event", "no such hook event"),
            Reason::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed"),
            Reason::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout", "request timed out"),
            Reason::Duplicate => (StatusCode::CONFLICT, "duplicate", "a unique job exists"),
            Reason::IllegalState => (StatusCode::CONFLICT, "illegal_state", "not allowed in this status"),
            Reason::IdTaken => (StatusCode::CONFLICT, "id_taken", "the id is taken"),
            Reason::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "body too large"),
            Reason::UnknownAction => (StatusCode::NOT_IMPLEMENTED, "unknown_action", "unknown action"),
            Reason::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "too busy"),
            Reason::StoreUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "store unavailable"),
            Reason::StoreFull => (StatusCode::INSUFFICIENT_STORAGE, "store_full", "store full"),
            Reason::StoreFailed => (StatusCode::INTERNAL_SERVER_ERROR, "store_failed", "store failed"),
            Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error"),
        }
    }
}

/// A part of a request that is not valid, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// Which part: `job.metadata.kind`, `query limit`, `body`.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) problem: String,
    /// What would be right.
    pub(crate) remedy: String,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Invalid {
        Invalid { field: field.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A request that failed: what the client is told, and what only the log is told.
#[derive(Debug)]
pub(crate) struct ApiError {
    reason: Reason,
    description: Cow<'static, str>,
    existing: Option<JobId>,
    retry_after_seconds: Option<u32>,
    allow: Option<HeaderValue>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    pub(crate) fn new(reason: Reason, description: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError {
            reason,
            description: description.into(),
            existing: None,
            retry_after_seconds: None,
            allow: None,
            cause: None,
        }
    }

    /// Of our making: `cause` goes to the log.
    pub(crate) fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
        let mut error = ApiError::new(Reason::Internal, "something went wrong inside the service");
        error.cause = Some(cause.into());
        error
    }

    pub(crate) fn unknown_job(id: &JobId) -> ApiError {
        ApiError::new(
            Reason::UnknownJob,
            format!("there is no job {id}: it never was, was deleted, or was kept long enough"),
        )
    }

    /// Another job holds the key of a unique one.
    pub(crate) fn duplicate(holder: JobId) -> ApiError {
        let description = format!("job {holder} holds the key of this unique job; wait until it is final, or stop it");
        let mut error = ApiError::new(Reason::Duplicate, description);
        error.existing = Some(holder);
        error
    }

    /// What was asked of a job is not allowed in its status.
    pub(crate) fn illegal_state(id: &JobId, status: Status, action: &str) -> ApiError {
        let remedy = match action {
            "retry" => "only a job in error or cancelled can be retried",
            _ => "only a final job can be deleted: stop it first",
        };
        ApiError::new(Reason::IllegalState, format!("cannot {action} job {id}: it is {status}; {remedy}"))
    }

    /// The body of the answer, as one answer among several. The caller sees to it that [`ApiError::cause`] is logged.
    pub(super) fn write(&self, json: &mut Writer) {
        write_body(json, self.reason, &self.description, self.existing.as_ref());
    }

    /// What lies beneath an error of ours; none if the client is to blame.
    pub(super) fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str) -> ApiError {
        ApiError::new(
            Reason::MethodNotAllowed,
            format!("{path} does not know {method}; the header Allow says what it knows"),
        )
    }

    pub(crate) fn busy() -> ApiError {
        let mut error = ApiError::new(Reason::Busy, "too many bytes of requests are under way; repeat a little later");
        error.retry_after_seconds = Some(1);
        error
    }

    /// The invalid parts of a request, all of them.
    pub(crate) fn invalid(all: &[Invalid]) -> ApiError {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        ApiError::new(Reason::InvalidRequest, all.join(". "))
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> ApiError {
        ApiError::invalid(&[invalid])
    }
}

impl From<InvalidId> for ApiError {
    fn from(invalid: InvalidId) -> ApiError {
        ApiError::new(Reason::InvalidId, invalid.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let (reason, description, retry_after_seconds): (_, Cow<'static, str>, _) = match &error {
            StoreError::Unavailable { .. } => (
                Reason::StoreUnavailable,
                "the store did not answer; whether the call happened is not known: repeat it, a submission with its \
                 Idempotency-Key (without one it may become two jobs)"
                    .into(),
                Some(2),
            ),
            StoreError::Contended { .. } => (
                Reason::StoreUnavailable,
                "others changed the same job again and again: repeat the call".into(),
                Some(1),
            ),
            StoreError::Full => (
                Reason::StoreFull,
                "there is no room for more jobs; nothing was written. Make room and repeat".into(),
                Some(30),
            ),
            StoreError::Invalid(what) => (Reason::InvalidRequest, what.clone().into(), None),
            StoreError::Poisoned => (
                Reason::StoreFailed,
                "the store is closed after a failed write; the service ends and must be started again".into(),
                None,
            ),
            StoreError::Damaged { .. } => {
                (Reason::StoreFailed, "what is stored cannot be right; the service's log says more".into(), None)
            }
            _ => (Reason::Internal, "the store failed in a way that is not known".into(), None),
        };
        let mut answer = ApiError::new(reason, description);
        answer.retry_after_seconds = retry_after_seconds;
        answer.cause = Some(Box::new(error));
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let (status, word, err) = self.reason.row();
        let mut description = self.description;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            let request_id = JobId::generate();
            let cause = self.cause.as_ref().map_or_else(String::new, |cause| chain(cause.as_ref()));
            tracing::error!(request.id = %request_id, reason = word, cause, "request {request_id} failed: {err}: {cause}");
            description = format!("{description} (request {request_id})").into();
            if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
                headers.insert(REQUEST_ID, value);
            }
        } else {
            tracing::debug!(reason = word, "request refused: {err}: {description}");
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, allow);
        }
        match self.reason {
            Reason::Unauthorized => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Harbor-Secret"))),
            // The rest of the body may still be on its way: what follows on this connection could not be read.
            Reason::BodyTimeout | Reason::BodyTooLarge => {
                drop(headers.insert(CONNECTION, HeaderValue::from_static("close")));
            }
            _ => {}
        }

        let mut body = Writer::with_capacity(160 + description.len());
        write_body(&mut body, self.reason, &description, self.existing.as_ref());
        *response.body_mut() = body.into_body();
        response
    }
}

fn write_body(json: &mut Writer, reason: Reason, description: &str, existing: Option<&JobId>) {
    let (status, word, err) = reason.row();
    json.open();
    json.integer("code", i64::from(status.as_u16()));
    json.text("err", err);
    json.text("description", description);
    json.text("reason", word);
    if let Some(existing) = existing {
        json.text("existing_id", existing.as_str());
    }
    json.close();
}

/// An error with all that lies beneath it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.row().1).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[tokio::test]
    async fn what_lies_beneath_is_not_shown() {
        let error = StoreError::Unavailable { during: "insert", source: "password=canary".into() };

        let response = ApiError::from(error).into_response();

        assert_eq!(
            (response.status(), response.headers()["retry-after"].to_str().unwrap()),
            (StatusCode::SERVICE_UNAVAILABLE, "2")
        );
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["code"], &body["reason"]), (&503.into(), &"store_unavailable".into()));
        let description = body["description"].as_str().unwrap();
        assert!(description.contains(&id) && !description.contains("canary"), "{description}");
    }
}
