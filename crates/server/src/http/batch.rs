//! Submitting many jobs in one call, each answered on its own.
//!
//! The jobs go to the store a part at a time, so that a large batch does not hold up who submits one job beside it; those
//! of a part whose answer says 202 are durable when the call is answered. A batch is no transaction: what is wrong with
//! one job does not hold up the others.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use jobservice::{Submission, Submitted};
use jobservice_core::{Time, limits};
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::body::Payload;
use super::error::{ApiError, Invalid, Reason, chain};
use super::routes::{SUBMIT_BYTES_MAX, json};
use super::views::{self, Beyond};
use super::write::Writer;
use super::{App, submit};

/// Jobs of one batch.
const JOBS_MAX: usize = 10_000;

/// About what the answer for one job takes.
const ANSWER_BYTES: usize = 448;

/// What became of one job: read with its warnings, or refused.
type Read = Result<(Submission, Vec<String>), ApiError>;

pub(super) async fn submit(State(app): State<Arc<App>>, body: Payload) -> Result<Response<Body>, ApiError> {
    let jobs = elements(&body)?;
    let mut answer = Writer::with_capacity(2 + jobs.len() * ANSWER_BYTES);
    let mut told = false;
    answer.open_array();
    for part in jobs.chunks(limits::BATCH_INSERT_MAX) {
        let mut submissions = Vec::with_capacity(part.len());
        let read: Vec<Result<Vec<String>, ApiError>> = part
            .iter()
            .map(|job| {
                read(job).map(|(submission, warnings)| {
                    submissions.push(submission);
                    warnings
                })
            })
            .collect();
        let mut submitted = app.controller.submit_all(submissions).await.into_iter();
        let now = app.controller.clock().now();
        for read in read {
            let outcome = match read {
                Err(error) => Err(error),
                Ok(warnings) => match submitted.next() {
                    Some(submitted) => submitted.map(|submitted| (submitted, warnings)).map_err(ApiError::from),
                    None => Err(ApiError::internal("fewer jobs were answered than were submitted")),
                },
            };
            match outcome {
                Ok((submitted, warnings)) => write(&mut answer, &submitted, &warnings, now),
                Err(error) => {
                    tell_once(&error, &mut told);
                    error.write(&mut answer);
                }
            }
        }
    }
    answer.close_array();
    Ok(json(answer))
}

/// Trouble of our own goes to the log, once per call: it is the same for all that follow.
fn tell_once(error: &ApiError, told: &mut bool) {
    if let Some(cause) = error.cause()
        && !std::mem::replace(told, true)
    {
        tracing::error!("jobs of a batch failed: {}", chain(cause));
    }
}

/// The parameters are left out: the caller has them, and ten thousand of them may be 16 MiB.
fn write(answer: &mut Writer, submitted: &Submitted, warnings: &[String], now: Time) {
    let policy = submitted.policy.as_ref();
    let policy_shown = policy.map(|put| put.policy.clone());
    let beyond = Beyond { policy: policy_shown, without_parameters: true, ..Beyond::default() };
    answer.open();
    answer.integer("code", 202);
    answer.open_under("job");
    views::job(answer, &submitted.job, &beyond, now);
    answer.close();
    if submitted.repeated {
        answer.boolean("repeated", true);
    }
    if let Some(put) = policy {
        answer.text("outcome", put.put.as_str());
    }
    if !(warnings.is_empty() && submitted.warnings.is_empty()) {
        answer.open_array_under("warnings");
        for warning in warnings.iter().chain(&submitted.warnings) {
            answer.element(warning);
        }
        answer.close_array();
    }
    answer.close();
}

/// Reads one job: as `POST /jobs` takes it, or what stands under `job` there alone.
fn read(job: &RawValue) -> Read {
    let text = job.get().as_bytes();
    if text.len() > SUBMIT_BYTES_MAX {
        return Err(ApiError::new(
            Reason::BodyTooLarge,
            format!("job: it has {} bytes; each job of a batch may have {SUBMIT_BYTES_MAX}", text.len()),
        ));
    }
    submit::read_bare(&HeaderMap::new(), text)
}

/// The elements of the array that the body must be, unread.
fn elements(body: &[u8]) -> Result<Vec<&RawValue>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Invalid::new("body", "it is empty", "send a JSON array of jobs").into());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let wrong = |error: serde_json::Error| {
        Invalid::new(
            "body",
            format!("it is not a JSON array of at most {JOBS_MAX} jobs: {error}"),
            "correct it at that place",
        )
    };
    let elements = deserializer.deserialize_seq(Elements).map_err(wrong)?;
    deserializer.end().map_err(wrong)?;
    Ok(elements)
}

/// Reads an array as its elements' texts, and no more of them than may be: what each takes in memory is more than the two
/// bytes that it may take in the body.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == JOBS_MAX {
                return Err(serde::de::Error::custom("there are more"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_array_of_so_many() {
        assert_eq!(
            elements(b" [ {\"a\": 1.0}, 2 ] ").unwrap().iter().map(|raw| raw.get()).collect::<Vec<_>>(),
            ["{\"a\": 1.0}", "2"]
        );
        assert!(elements(b"[]").unwrap().is_empty());
        for bad in [&b""[..], b"{}", b"[1", b"[1] 2", b"[\xff]"] {
            assert!(elements(bad).is_err(), "{bad:?}");
        }
        let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(elements(many(JOBS_MAX).as_bytes()).unwrap().len(), JOBS_MAX);
        assert!(format!("{:?}", elements(many(JOBS_MAX + 1).as_bytes()).unwrap_err()).contains("there are more"));
    }

    #[test]
    fn a_job_stands_alone_or_under_its_key() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        for text in [
            r#"{"job": {"name": "demo", "parameters": {"n": 1.0}, "metadata": {"kind": "Generic"}}}"#,
            r#"{"name": "demo", "parameters": {"n": 1.0}, "metadata": {"kind": "Generic"}}"#,
            r#"{"name": "demo", "parameters": {"n": 1.0}}"#,
        ] {
            let (submission, warnings) = read(&raw(text)).unwrap();
            assert_eq!((submission.name.as_str(), warnings.len()), ("demo", 0), "{text}");
            assert_eq!(submission.parameters.unwrap().get(), r#"{"n": 1.0}"#);
        }
        for text in ["1", "{}", r#"{"name": 7}"#, r#"{"job": []}"#] {
            assert!(read(&raw(text)).is_err(), "{text}");
        }
    }
}
