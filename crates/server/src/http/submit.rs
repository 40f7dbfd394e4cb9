//! Submitting a job: the request's shape is checked here, what it says by the controller.
//!
//! The answer is 202 only after the job is durable. The order of the checks is that of the contract: body, name,
//! metadata, kind, when to run, then what the controller knows (bounds, the name, the job's own look at its parameters).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use jobservice::{Submission, SubmitError, Submitted};
use jobservice_core::policy::{Misfire, Overlap};
use jobservice_core::unique::Scope;
use jobservice_core::{Kind, Time};

use super::App;
use super::body::Payload;
use super::error::{ApiError, Invalid, Reason};
use super::json::Fields;
use super::routes::json;
use super::views::{self, Beyond};
use super::write::Writer;
use crate::config::did_you_mean;

/// The largest part of an answer beside the parameters, so that it is written without growing.
const ANSWER_BYTES: usize = 448;

pub(super) async fn submit(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Payload,
) -> Result<Response<Body>, ApiError> {
    let (submission, warnings) = read(&headers, &body, None)?;
    let capacity = ANSWER_BYTES + submission.parameters.as_ref().map_or(0, |parameters| parameters.get().len());
    let submitted = app.controller.submit(submission).await?;
    let repeated = submitted.repeated;
    let mut response = json(answer(&app, submitted, warnings, capacity));
    *response.status_mut() = StatusCode::ACCEPTED;
    if repeated {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What was submitted, what became of it, and what may not be meant so.
pub(super) fn answer(app: &App, submitted: Submitted, mut warnings: Vec<String>, capacity: usize) -> Writer {
    let Submitted { job, policy, warnings: of_schedule, .. } = submitted;
    warnings.extend(of_schedule);
    let (policy, put) = policy.map(|put| (put.policy, put.put)).unzip();
    let beyond = Beyond { policy, ..Beyond::default() };
    let mut answer = Writer::with_capacity(capacity);
    answer.open();
    answer.open_under("job");
    views::job(&mut answer, &job, &beyond, app.controller.clock().now());
    answer.close();
    if let Some(put) = put {
        answer.text("outcome", put.as_str());
    }
    if !warnings.is_empty() {
        answer.open_array_under("warnings");
        for warning in &warnings {
            answer.element(warning);
        }
        answer.close_array();
    }
    answer.close();
    answer
}

/// A job of a batch: what stands under `job` in the body of a single one may stand alone there, and its metadata may be
/// left out.
pub(super) fn read_bare(headers: &HeaderMap, text: &[u8]) -> Result<(Submission, Vec<String>), ApiError> {
    let mut whole = Fields::of_body(text)?;
    if let Some(job) = whole.object("job", "job.")? {
        return read_job(job, headers, None, None);
    }
    let generic = Fields::of_body(br#"{"kind": "Generic"}"#)?.at("job.metadata.");
    read_job(whole.at("job."), headers, Some(generic), None)
}

/// Reads a submission, and what in its metadata is not known. With a `schedule_key` given from elsewhere it is Periodic
/// and has that key.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    schedule_key: Option<&str>,
) -> Result<(Submission, Vec<String>), ApiError> {
    let mut whole = Fields::of_body(body)?;
    let Some(job) = whole.object("job", "job.")? else {
        return Err(Invalid::new("job", "it is missing", "send {\"job\": {\"name\": .., \"metadata\": {..}}}").into());
    };
    read_job(job, headers, None, schedule_key)
}

/// Reads what stands under `job`; `metadata_default` stands for metadata that is missing.
fn read_job<'a>(
    mut job: Fields<'a>,
    headers: &HeaderMap,
    metadata_default: Option<Fields<'a>>,
    schedule_key: Option<&str>,
) -> Result<(Submission, Vec<String>), ApiError> {
    let name = job.string("name")?.filter(|name| !name.is_empty());
    let Some(name) = name else {
        return Err(Invalid::new("job.name", "it is missing", "say which job is to run").into());
    };
    let mut submission = Submission::new(name);
    submission.parameters = job.raw("parameters").map(ToOwned::to_owned);
    submission.hook = job.string("status_hook")?.filter(|hook| !hook.is_empty()).map(Into::into);
    let Some(mut metadata) = job.object("metadata", "job.metadata.")?.or(metadata_default) else {
        return Err(Invalid::new("job.metadata", "it is missing", "send at least {\"kind\": \"Generic\"}").into());
    };
    let mut warnings = when(&mut metadata, &mut submission, schedule_key)?;
    how(&mut metadata, &mut submission, headers)?;
    warnings.extend(metadata.unread().into_iter().map(|field| format!("{field} is not known and was ignored")));
    Ok((submission, warnings))
}

/// Kind, and when the job is to run. Answers what was given and does not count for that kind.
fn when(
    metadata: &mut Fields<'_>,
    submission: &mut Submission,
    schedule_key: Option<&str>,
) -> Result<Vec<String>, ApiError> {
    let word = metadata.string("kind")?;
    let word = word.or_else(|| schedule_key.map(|_| Kind::Periodic.as_str().into()));
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        return Err(Invalid::new("job.metadata.kind", "it is missing", "give Generic, Scheduled or Periodic").into());
    };
    let Some(kind) = Kind::parse(&word) else {
        let found: String = word.chars().take(40).collect();
        return Err(Invalid::new(
            "job.metadata.kind",
            format!("it is {found:?}"),
            "give Generic, Scheduled or Periodic",
        )
        .into());
    };
    submission.kind = kind;
    let delay: Option<u64> = metadata.integer("schedule_delay")?;
    let run_at: Option<i64> = metadata.integer("run_at")?;
    let cron = metadata.string("cron_spec")?.filter(|cron| !cron.is_empty());
    if schedule_key.is_some() && kind != Kind::Periodic {
        return Err(Invalid::new("job.metadata.kind", "a schedule is Periodic", "leave it out").into());
    }

    // Clients of the original send zero and the empty text for what does not apply.
    let mut ignored = Vec::new();
    match kind {
        Kind::Periodic => {
            if cron.is_none() {
                let remedy = "give six fields with the seconds first, five without, or @daily, @every 90s, ..";
                return Err(Invalid::new("job.metadata.cron_spec", "it is missing", remedy).into());
            }
            submission.cron = cron.map(Into::into);
            again(metadata, submission, schedule_key)?;
            ignored.extend(delay.filter(|delay| *delay > 0).map(|_| "schedule_delay"));
            ignored.extend(run_at.filter(|at| *at > 0).map(|_| "run_at"));
            return Ok(without_meaning(metadata, kind, &ignored));
        }
        Kind::Generic => {
            ignored.extend(delay.filter(|delay| *delay > 0).map(|_| "schedule_delay"));
            ignored.extend(run_at.filter(|at| *at > 0).map(|_| "run_at"));
        }
        Kind::Scheduled => match (delay.filter(|delay| *delay > 0 || run_at.is_none()), run_at) {
            (Some(_), Some(_)) => {
                return Err(
                    Invalid::new("job.metadata.run_at", "there is a schedule_delay too", "give one of them").into()
                );
            }
            (None | Some(0), None) => {
                let remedy = "give the seconds to wait, more than 0, or run_at";
                return Err(Invalid::new("job.metadata.schedule_delay", "it is missing or 0", remedy).into());
            }
            (Some(seconds), None) => submission.delay = Some(Duration::from_secs(seconds)),
            (None, Some(seconds)) => submission.run_at = Some(Time::from_seconds(seconds)),
        },
    }
    ignored.extend(cron.map(|_| "cron_spec"));
    let of_policies = ["timezone", "overlap", "misfire", "schedule_key"];
    ignored.extend(of_policies.into_iter().filter(|name| metadata.raw(name).is_some()));
    Ok(without_meaning(metadata, kind, &ignored))
}

fn without_meaning(metadata: &Fields<'_>, kind: Kind, ignored: &[&str]) -> Vec<String> {
    let kind = kind.as_str();
    let sentence = |field| format!("{} has no meaning for kind {kind} and was ignored", metadata.name_of(field));
    ignored.iter().map(|field| sentence(field)).collect()
}

/// What only a Periodic job says.
fn again(metadata: &mut Fields<'_>, submission: &mut Submission, schedule_key: Option<&str>) -> Result<(), ApiError> {
    submission.timezone = metadata.string("timezone")?.filter(|zone| !zone.is_empty()).map(Into::into);
    submission.overlap = one_of(
        metadata,
        "overlap",
        &[("allow", Overlap::Allow), ("skip", Overlap::Skip), ("queue", Overlap::Queue), ("replace", Overlap::Replace)],
    )?;
    let misfires = [("skip", Misfire::Skip), ("last", Misfire::Last), ("all", Misfire::All)];
    submission.misfire = one_of(metadata, "misfire", &misfires)?;
    let in_body = metadata.string("schedule_key")?.filter(|key| !key.is_empty());
    if let (Some(of_path), Some(in_body)) = (schedule_key, &in_body)
        && of_path != in_body
    {
        let problem = "the key in the path is another";
        return Err(Invalid::new("job.metadata.schedule_key", problem, "leave it out").into());
    }
    submission.schedule_key = schedule_key.map(str::to_owned).or_else(|| in_body.map(Into::into));
    Ok(())
}

/// Takes a field that is one of a few words.
fn one_of<T: Copy>(metadata: &mut Fields<'_>, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Invalid> {
    let Some(found) = metadata.string(name)?.filter(|word| !word.is_empty()) else { return Ok(None) };
    if let Some((_, meant)) = words.iter().find(|(word, _)| found.eq_ignore_ascii_case(word)) {
        return Ok(Some(*meant));
    }
    let found: String = found.chars().take(40).collect();
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(Invalid::new(metadata.name_of(name), format!("it is {found:?}"), format!("give one of {}", words.join(", "))))
}

/// Everything else that metadata may say.
fn how(metadata: &mut Fields<'_>, submission: &mut Submission, headers: &HeaderMap) -> Result<(), ApiError> {
    let unique = metadata.boolean("unique")?;
    submission.unique_key = metadata.string("unique_key")?.filter(|key| !key.is_empty()).map(Into::into);
    if unique == Some(false) && submission.unique_key.is_some() {
        return Err(Invalid::new("job.metadata.unique_key", "unique is false", "drop one of them").into());
    }
    submission.unique = unique.unwrap_or(false) || submission.unique_key.is_some();
    submission.unique_scope = match metadata.string("unique_scope")?.as_deref() {
        None | Some("") => None,
        Some("until_final") => Some(Scope::UntilFinal),
        Some("until_start") => Some(Scope::UntilStart),
        Some(other) => {
            let found: String = other.chars().take(40).collect();
            let remedy = "give until_final or until_start";
            return Err(Invalid::new("job.metadata.unique_scope", format!("it is {found:?}"), remedy).into());
        }
    };
    submission.priority = metadata.integer("priority")?;
    submission.max_fails = metadata.integer("max_fails")?;
    submission.timeout = metadata.duration("timeout")?;
    submission.retention_seconds =
        match metadata.duration("retention")? {
            None => None,
            Some(retention) => Some(u32::try_from(retention.as_secs()).map_err(|_| {
                Invalid::new("job.metadata.retention", "it is longer than a hundred years", "give less")
            })?),
        };
    submission.tags = metadata.strings("tags")?;
    submission.idempotency_key = idempotency_key(metadata, headers)?;
    Ok(())
}

fn idempotency_key(metadata: &mut Fields<'_>, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let in_body = metadata.string("idempotency_key")?.filter(|key| !key.is_empty());
    let Some(header) = headers.get("idempotency-key") else { return Ok(in_body.map(Into::into)) };
    let in_header = header
        .to_str()
        .map_err(|_| Invalid::new("header Idempotency-Key", "it is not ASCII text", "give printable ASCII"))?;
    if in_body.is_some_and(|key| key != in_header) {
        let remedy = "give it in one place";
        return Err(Invalid::new("header Idempotency-Key", "metadata.idempotency_key is another", remedy).into());
    }
    Ok(Some(in_header.to_owned()).filter(|key| !key.is_empty()))
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> ApiError {
        match error {
            SubmitError::Invalid(fields) => {
                let fields: Vec<Invalid> =
                    fields.into_iter().map(|f| Invalid::new(format!("job.{}", f.field), f.problem, f.remedy)).collect();
                ApiError::invalid(&fields)
            }
            SubmitError::UnknownName { name, known, suggestion } => {
                let near = || did_you_mean(&name, known.iter().map(String::as_str)).map(str::to_owned);
                let meant =
                    suggestion.or_else(near).map_or_else(String::new, |name| format!("did you mean {name:?}? "));
                let name: String = name.chars().take(80).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                ApiError::new(
                    Reason::UnknownName,
                    format!("job.name: there is no job {name:?}; {meant}known are {known}"),
                )
            }
            SubmitError::Duplicate { holder } => ApiError::duplicate(holder),
            SubmitError::PolicyEnded => {
                ApiError::new(Reason::IllegalState, "the schedule has ended: retry it first, or put it again")
            }
            SubmitError::IdTaken => ApiError::new(Reason::IdTaken, "another job has this id; repeat the submission"),
            SubmitError::Store(error) => error.into(),
            other => ApiError::internal(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(metadata: &str) -> Result<(Submission, Vec<String>), String> {
        let body = format!(r#"{{"job": {{"name": "demo", "parameters": {{"a":1.0}}, "metadata": {metadata}}}}}"#);
        read(&HeaderMap::new(), body.as_bytes(), None).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn everything_that_metadata_can_say_is_read() {
        let (read, warnings) = submission(
            r#"{"kind": "sCHEDULED", "schedule_delay": 90, "unique": true, "unique_key": "k", "unique_scope": "until_start",
                "priority": 9, "timeout": "2m", "max_fails": 3, "retention": "1d", "idempotency_key": "i", "tags": ["a", "b"]}"#,
        )
        .unwrap();

        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!((read.kind, read.delay), (Kind::Scheduled, Some(Duration::from_secs(90))));
        assert_eq!(
            (read.unique, read.unique_key.as_deref(), read.unique_scope),
            (true, Some("k"), Some(Scope::UntilStart))
        );
        assert_eq!((read.priority, read.max_fails, read.timeout), (Some(9), Some(3), Some(Duration::from_secs(120))));
        assert_eq!((read.retention_seconds, read.idempotency_key.as_deref()), (Some(86_400), Some("i")));
        assert_eq!(read.tags, ["a", "b"]);
        assert_eq!(read.parameters.unwrap().get(), r#"{"a":1.0}"#);
    }

    #[test]
    fn what_clients_of_the_original_send_is_taken_without_a_warning() {
        let metadata = r#"{"kind": "Generic", "schedule_delay": 0, "cron_spec": "", "unique": false}"#;
        assert_eq!(submission(metadata).unwrap().1, Vec::<String>::new());
    }

    #[test]
    fn what_does_not_count_is_warned_of() {
        let (_, warnings) =
            submission(r#"{"kind": "Generic", "schedule_delay": 5, "overlap": "skip", "pririty": 1}"#).unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains("job.metadata.pririty is not known")));
    }

    #[test]
    fn everything_that_makes_a_schedule_is_read() {
        let (read, warnings) = submission(
            r#"{"kind": "Periodic", "cron_spec": "0 0 3 * * *", "timezone": "Europe/Berlin", "overlap": "Queue",
                "misfire": "all", "schedule_key": "nightly", "schedule_delay": 0}"#,
        )
        .unwrap();

        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!((read.kind, read.cron.as_deref()), (Kind::Periodic, Some("0 0 3 * * *")));
        assert_eq!((read.timezone.as_deref(), read.schedule_key.as_deref()), (Some("Europe/Berlin"), Some("nightly")));
        assert_eq!((read.overlap, read.misfire), (Some(Overlap::Queue), Some(Misfire::All)));
        for bad in [
            r#"{"kind": "Periodic"}"#,
            r#"{"kind": "Periodic", "cron_spec": "@daily", "overlap": "maybe"}"#,
            r#"{"kind": "Periodic", "cron_spec": "@daily", "misfire": 3}"#,
        ] {
            assert!(submission(bad).unwrap_err().contains("InvalidRequest"), "{bad}");
        }
    }

    #[test]
    fn when_to_run_must_be_said_once() {
        for bad in [
            r#"{"kind": "Scheduled"}"#,
            r#"{"kind": "Scheduled", "schedule_delay": 0}"#,
            r#"{"kind": "Scheduled", "schedule_delay": 1, "run_at": 1}"#,
            r#"{"kind": "Scheduled", "schedule_delay": -1}"#,
            r#"{"kind": "hourly"}"#,
            "{}",
        ] {
            assert!(submission(bad).unwrap_err().contains("InvalidRequest"), "{bad}");
        }
    }

    #[test]
    fn the_key_of_header_and_body_must_agree() {
        let body = br#"{"job": {"name": "demo", "metadata": {"kind": "Generic", "idempotency_key": "a"}}}"#;
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_static("a"));
        assert_eq!(read(&headers, body, None).unwrap().0.idempotency_key.as_deref(), Some("a"));
        headers.insert("idempotency-key", HeaderValue::from_static("b"));
        assert!(read(&headers, body, None).is_err());
    }
}
