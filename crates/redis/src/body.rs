//! The other two fields of a record: the body, which never changes, and the rest, which changes rarely or at the end.
//!
//! The body is a line of JSON followed by the parameters, byte for byte as they were given: no script and no reader
//! encodes them anew. The rest is JSON. Keys are one letter, and what is as by default is left out: there are millions.

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{Attempt, AttemptOutcome, CheckIn, Kind, Retention, Spec, State};
use jobservice_core::unique::{Scope, Unique};
use jobservice_core::{JobId, Name, PoolId, Time};
use serde::{Deserialize, Serialize};

use crate::header::{self, Wrong};

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(rename = "n")]
    name: Name,
    #[serde(rename = "e")]
    enqueued_at: i64,
    #[serde(rename = "k", default, skip_serializing_if = "is_zero")]
    kind: u8,
    #[serde(rename = "p", default, skip_serializing_if = "is_zero")]
    priority: u8,
    #[serde(rename = "f")]
    max_fails: u32,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    unique: Option<(Scope, String)>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    hook: Option<Arc<str>>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    upstream: Option<JobId>,
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Arc<str>>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    retention: Option<(u32, u32, u32)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// The body of a job.
pub(crate) fn write(spec: &Spec) -> Result<Vec<u8>, Wrong> {
    let Retention { success_seconds, stopped_seconds, error_seconds } = spec.retention;
    let retention =
        (spec.retention != Retention::default()).then_some((success_seconds, stopped_seconds, error_seconds));
    let line = Line {
        name: spec.name.clone(),
        enqueued_at: spec.enqueued_at.as_millis(),
        kind: kind_number(spec.kind),
        priority: spec.priority,
        max_fails: spec.max_fails,
        timeout: spec.timeout.map(|timeout| timeout.as_millis() as u64),
        unique: spec.unique.map(|unique| (unique.scope, header::hex(&unique.digest))),
        hook: spec.hook.clone(),
        upstream: spec.upstream.clone(),
        tags: spec.tags.clone(),
        retention,
    };
    let mut body = Vec::with_capacity(96 + spec.parameters.len());
    serde_json::to_writer(&mut body, &line).map_err(|error| format!("a body cannot be written: {error}"))?;
    body.push(b'\n');
    body.extend_from_slice(spec.parameters.as_bytes());
    Ok(body)
}

/// Reads a body.
pub(crate) fn read(body: &str) -> Result<Spec, Wrong> {
    let (line, parameters) = body.split_once('\n').ok_or("a body has no parameters")?;
    let line: Line = serde_json::from_str(line).map_err(|error| format!("a body cannot be read: {error}"))?;
    let unique = match line.unique {
        None => None,
        Some((scope, digest)) => {
            let digest = header::digest_of(&digest).ok_or_else(|| format!("{digest:?} is no digest"))?;
            Some(Unique { digest, scope })
        }
    };
    let retention = |(success_seconds, stopped_seconds, error_seconds)| Retention {
        success_seconds,
        stopped_seconds,
        error_seconds,
    };
    Ok(Spec {
        name: line.name,
        kind: kind_of(line.kind).ok_or_else(|| format!("{} is no kind", line.kind))?,
        parameters: parameters.into(),
        priority: line.priority,
        unique,
        max_fails: line.max_fails,
        timeout: line.timeout.map(Duration::from_millis),
        hook: line.hook,
        upstream: line.upstream,
        tags: line.tags,
        retention: line.retention.map_or_else(Retention::default, retention),
        enqueued_at: Time::from_millis(line.enqueued_at),
    })
}

const fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Generic => 0,
        Kind::Scheduled => 1,
        Kind::Periodic => 2,
    }
}

fn kind_of(number: u8) -> Option<Kind> {
    [Kind::Generic, Kind::Scheduled, Kind::Periodic].into_iter().find(|kind| kind_number(*kind) == number)
}

/// An attempt as it is stored: by place.
type StoredAttempt = (u32, PoolId, i64, i64, AttemptOutcome, Option<Arc<str>>);

#[derive(Default, Serialize, Deserialize)]
struct Rest {
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    check_in: Option<(Arc<str>, i64)>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    error: Option<Arc<str>>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    result: Option<Arc<str>>,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<StoredAttempt>,
}

/// The rest of a job; empty if there is nothing to say.
pub(crate) fn write_rest(state: &State) -> Result<String, Wrong> {
    let State { check_in, error, result, .. } = state;
    let attempts = untold(state);
    if check_in.is_none() && error.is_none() && result.is_none() && attempts.is_empty() {
        return Ok(String::new());
    }
    let stored = |of: &Attempt| -> StoredAttempt {
        let Attempt { attempt, pool, started_at, ended_at, outcome, error } = of;
        (*attempt, pool.clone(), started_at.as_millis(), ended_at.as_millis(), *outcome, error.clone())
    };
    let rest = Rest {
        check_in: check_in.as_ref().map(|check_in| (Arc::clone(&check_in.message), check_in.at.as_millis())),
        error: error.clone(),
        result: result.clone(),
        attempts: attempts.iter().map(stored).collect(),
    };
    serde_json::to_string(&rest).map_err(|error| format!("the rest of a record cannot be written: {error}"))
}

/// Whether two states have the same rest.
pub(crate) fn same_rest(a: &State, b: &State) -> bool {
    a.check_in == b.check_in && a.error == b.error && a.result == b.result && untold(a) == untold(b)
}

/// The attempts that the header does not tell of.
fn untold(state: &State) -> &[Attempt] {
    match (header::told_attempt(state), state.attempts.split_last()) {
        (Some(_), Some((_, others))) => others,
        _ => &state.attempts,
    }
}

/// Reads the rest into a state read from a header. Its attempts come before the one that the header tells of.
pub(crate) fn read_rest(text: &str, state: &mut State) -> Result<(), Wrong> {
    if text.is_empty() {
        return Ok(());
    }
    let rest: Rest =
        serde_json::from_str(text).map_err(|error| format!("the rest of a record cannot be read: {error}"))?;
    state.check_in = rest.check_in.map(|(message, at)| CheckIn { message, at: Time::from_millis(at) });
    (state.error, state.result) = (rest.error, rest.result);
    let attempt = |(attempt, pool, started_at, ended_at, outcome, error): StoredAttempt| Attempt {
        attempt,
        pool,
        started_at: Time::from_millis(started_at),
        ended_at: Time::from_millis(ended_at),
        outcome,
        error,
    };
    state.attempts.splice(..0, rest.attempts.into_iter().map(attempt));
    Ok(())
}
