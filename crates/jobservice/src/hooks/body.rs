//! The message: the original's form, `{"job_id", "status", "check_in"?, "metadata": {the job}}`.
//!
//! It is composed when it is sent, from the job as it is then; what the event is about (status, attempt, time, check-in,
//! error) is as it was when it happened.

use jobservice_core::Job;
use jobservice_core::job::Status;
use jobservice_core::lifecycle::HookEvent;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Message<'a> {
    job_id: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    check_in: Option<&'a str>,
    metadata: Metadata<'a>,
}

/// The job. Names and order are those of the original; times are seconds since the epoch.
#[derive(Serialize)]
struct Metadata<'a> {
    id: &'a str,
    status: Status,
    name: &'a str,
    kind: &'static str,
    unique: bool,
    ref_link: String,
    enqueue_time: i64,
    update_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check_in: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check_in_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    die_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a RawValue>,
    attempt: u32,
    fails: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [std::sync::Arc<str>],
}

/// The id of a message: the same for each try of the same event.
pub(super) fn id(job: &Job, event: &HookEvent) -> String {
    format!("evt_{}_{}", job.id, event.seq)
}

/// The body. What goes in and what comes out of the job may be confidential: it is there only if the operator says so.
pub(super) fn compose(job: &Job, event: &HookEvent, with_parameters: bool) -> serde_json::Result<Vec<u8>> {
    let (spec, state) = (&job.spec, &job.state);
    let parameters = if with_parameters { Some(raw(&spec.parameters)?) } else { None };
    let result = match &state.result {
        Some(result) if with_parameters && event.status == Status::Success => Some(raw(result)?),
        _ => None,
    };
    // A later message would tell of the future.
    let last = state.check_in.as_ref().filter(|check_in| check_in.at <= event.at);
    let check_in = event.check_in.as_deref().map(|message| (message, event.at));
    let check_in = check_in.or_else(|| last.map(|last| (&*last.message, last.at)));
    serde_json::to_vec(&Message {
        job_id: job.id.as_str(),
        status: event.status,
        check_in: event.check_in.as_deref(),
        metadata: Metadata {
            id: job.id.as_str(),
            status: event.status,
            name: spec.name.as_str(),
            kind: spec.kind.as_str(),
            unique: spec.unique.is_some(),
            ref_link: format!("/api/v1/jobs/{}", job.id),
            enqueue_time: spec.enqueued_at.as_seconds(),
            update_time: event.at.as_seconds(),
            run_at: state.run_at.map(jobservice_core::Time::as_seconds),
            check_in: check_in.map(|(message, _)| message),
            check_in_at: check_in.map(|(_, at)| at.as_seconds()),
            die_at: (event.status == Status::Error).then_some(event.at.as_seconds()),
            hook_status: spec.hook.as_deref(),
            upstream_job_id: spec.upstream.as_ref().map(jobservice_core::JobId::as_str),
            parameters,
            attempt: event.attempt,
            fails: state.fails,
            error: event.error.as_deref(),
            priority: spec.priority,
            result,
            tags: &spec.tags,
        },
    })
}

/// JSON that stays as it is, byte for byte.
fn raw(text: &str) -> serde_json::Result<&RawValue> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jobservice_core::job::{CheckIn, Kind, Retention, Spec};
    use jobservice_core::{JobId, Name, Time};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Time = Time::from_seconds(1_767_614_400);

    fn job() -> Job {
        let spec = Spec {
            name: Name::new("demo").unwrap(),
            kind: Kind::Generic,
            parameters: r#"{"password": 1.0e+0}"#.into(),
            priority: 0,
            unique: None,
            max_fails: 4,
            timeout: None,
            hook: Some("http://h/".into()),
            upstream: None,
            tags: vec!["a".into()],
            retention: Retention::default(),
            enqueued_at: NOW,
        };
        let mut job = Job::submitted(JobId::new("12345678").unwrap(), spec, None, NOW);
        job.state.status = Status::Error;
        job.state.check_in = Some(CheckIn { message: "60%".into(), at: NOW + Duration::from_secs(2) });
        job.state.fails = 1;
        job
    }

    fn event(status: Status, after: u64) -> HookEvent {
        let at = NOW + Duration::from_secs(after);
        HookEvent { seq: 2, status, attempt: 1, at, check_in: None, error: None }
    }

    #[test]
    fn message_has_the_original_form_and_tells_of_the_time_of_the_event() {
        let mut check_in = event(Status::Running, 1);
        check_in.check_in = Some("30%".into());

        let body: Value = serde_json::from_slice(&compose(&job(), &check_in, false).unwrap()).unwrap();

        let expected = json!({
            "job_id": "12345678", "status": "running", "check_in": "30%",
            "metadata": {
                "id": "12345678", "status": "running", "name": "demo", "kind": "Generic", "unique": false,
                "ref_link": "/api/v1/jobs/12345678", "enqueue_time": 1_767_614_400, "update_time": 1_767_614_401,
                "check_in": "30%", "check_in_at": 1_767_614_401, "hook_status": "http://h/", "attempt": 1, "fails": 1,
                "priority": 0, "tags": ["a"],
            },
        });
        assert_eq!(body, expected);
        assert_eq!(id(&job(), &check_in), "evt_12345678_2");
    }

    #[test]
    fn death_is_told_with_its_time_and_reason() {
        let mut death = event(Status::Error, 3);
        death.error = Some("no disk".into());

        let body: Value = serde_json::from_slice(&compose(&job(), &death, false).unwrap()).unwrap();

        let metadata = &body["metadata"];
        assert_eq!((&metadata["die_at"], &metadata["error"]), (&json!(1_767_614_403), &json!("no disk")));
        assert_eq!((&metadata["check_in"], &body["check_in"]), (&json!("60%"), &Value::Null));
    }

    #[test]
    fn parameters_and_result_are_told_only_if_asked_for_and_then_byte_for_byte() {
        let mut job = job();
        job.state.result = Some(Arc::from("[1.50]"));
        let success = event(Status::Success, 3);
        let text = |with| String::from_utf8(compose(&job, &success, with).unwrap()).unwrap();

        assert!(!text(false).contains("password") && !text(false).contains("1.50"));
        assert!(
            text(true).contains(r#""parameters":{"password": 1.0e+0}"#) && text(true).contains(r#""result":[1.50]"#)
        );
    }
}
