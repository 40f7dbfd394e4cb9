//! The controller: what is refused and how it is said, unique and repeated submissions, control, waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test speaks")]

mod common;

use std::time::Duration;

use common::{Bench, Noop};
use jobservice::core::JobId;
use jobservice::core::job::{Kind, Status};
use jobservice::core::store::{Controlled, Deleted};
use jobservice::prelude::*;
use jobservice::{Command, Submission};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Serialize, Deserialize)]
struct Resize {
    width: u32,
}

impl Job for Resize {
    const NAME: &'static str = "resize";
    const MAX_FAILS: u32 = 7;

    fn validate(&self) -> Result<(), String> {
        if self.width == 0 { Err("width must be at least 1".to_owned()) } else { Ok(()) }
    }

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Jobs are submitted here and never run.
async fn bench() -> Bench {
    Bench::start(|builder| builder.register::<Resize>().register::<Noop>().workers(0)).await
}

fn resize(parameters: &str) -> Submission {
    let parameters = RawValue::from_string(parameters.to_owned()).unwrap();
    Submission { parameters: Some(parameters), ..Submission::new("resize") }
}

#[tokio::test]
async fn all_bad_fields_are_told_in_one_answer() {
    let t = bench().await;

    let bad = Submission {
        kind: Kind::Scheduled,
        delay: Some(Duration::ZERO),
        priority: Some(10),
        max_fails: Some(101),
        timeout: Some(Duration::ZERO),
        tags: vec![String::new()],
        unique_key: Some(String::new()),
        hook: Some("ftp://example.org".to_owned()),
        ..Submission::new("no such name")
    };
    let Err(SubmitError::Invalid(fields)) = t.service.controller().submit(bad).await else { panic!("it was taken") };

    let fields: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
    let expected = [
        "name",
        "metadata.schedule_delay",
        "status_hook",
        "metadata.priority",
        "metadata.max_fails",
        "metadata.timeout",
        "metadata.unique_key",
        "metadata.tags",
    ];
    assert_eq!(fields, expected);
    t.end().await;
}

#[tokio::test]
async fn periodic_job_must_say_when() {
    let t = bench().await;

    let refused = t.service.controller().submit(Submission { kind: Kind::Periodic, ..resize("{}") }).await;

    assert!(refused.unwrap_err().to_string().contains("metadata.cron_spec: a Periodic job needs to know when"));
    t.end().await;
}

#[tokio::test]
async fn unknown_name_is_told_with_what_may_have_been_meant() {
    let t = bench().await;

    let refused = t.service.controller().submit(Submission::new("rezise")).await;

    let Err(SubmitError::UnknownName { known, suggestion, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((suggestion.as_deref(), known), (Some("resize"), vec!["noop".to_owned(), "resize".to_owned()]));
    t.end().await;
}

#[tokio::test]
async fn job_looks_at_its_own_parameters() {
    let t = bench().await;

    for (parameters, problem) in [(r#"{"width":0}"#, "width must be at least 1"), ("{}", "missing field `width`")] {
        let refused = t.service.controller().submit(resize(parameters)).await.unwrap_err().to_string();
        assert!(refused.contains(problem), "{refused}");
    }
    let submitted = t.service.controller().submit(resize(r#"{ "width" : 1 }"#)).await.unwrap();

    assert_eq!((&*submitted.job.spec.parameters, submitted.job.spec.max_fails), (r#"{ "width" : 1 }"#, 7));
    t.end().await;
}

#[tokio::test]
async fn second_unique_job_is_refused_with_the_holder_and_a_repeated_key_gives_the_first() {
    let t = bench().await;
    let first = t.service.submit(Resize { width: 5 }).unique().await.unwrap();

    let second = t.service.submit(Resize { width: 5 }).unique().await;
    let other = t.service.submit(Resize { width: 6 }).unique().await;

    assert!(matches!(second, Err(SubmitError::Duplicate { holder }) if holder == *first.id()));
    assert!(other.is_ok());

    let first = t.service.submit(Resize { width: 1 }).idempotency_key("k").await.unwrap();
    let again = t.service.submit(Resize { width: 1 }).idempotency_key("k").await.unwrap();
    assert_eq!((first.repeated, again.repeated, again.id()), (false, true, first.id()));
    t.end().await;
}

#[tokio::test]
async fn each_of_many_submissions_is_answered_on_its_own() {
    let t = bench().await;

    let answers = t
        .service
        .controller()
        .submit_all(vec![
            resize(r#"{"width":1}"#),
            Submission::new("nobody"),
            resize(r#"{"width":0}"#),
            resize(r#"{"width":2}"#),
        ])
        .await;

    let told: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(told, [true, false, false, true]);
    assert!(matches!(answers.get(1), Some(Err(SubmitError::UnknownName { .. }))));
    t.end().await;
}

#[tokio::test]
async fn who_waits_for_a_job_hears_of_its_end_or_gets_it_as_it_is() {
    let t = bench().await;
    let submitted = t.service.submit(Resize { width: 5 }).await.unwrap();
    let controller = t.service.controller();

    let waited = controller.wait_final(submitted.id(), Duration::from_millis(1)).await.unwrap().unwrap();
    assert_eq!(waited.state.status, Status::Pending);
    let (waited, cancelled) = tokio::join!(
        controller.wait_final(submitted.id(), common::CAP),
        controller.control(submitted.id(), Command::Cancel)
    );

    assert_eq!(cancelled.unwrap(), Controlled::Done(Status::Cancelled));
    assert_eq!(waited.unwrap().unwrap().state.status, Status::Cancelled);
    assert_eq!(controller.wait_final(&JobId::generate(), common::CAP).await.unwrap(), None);
    assert_eq!(controller.control(submitted.id(), Command::Retry).await.unwrap(), Controlled::Done(Status::Pending));
    assert_eq!(controller.delete(submitted.id()).await.unwrap(), Deleted::Refused(Status::Pending));
    t.end().await;
}
