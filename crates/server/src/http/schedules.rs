//! Schedules: the policies behind Periodic jobs, by their `schedule_key` or, without one, by their id.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use jobservice::{Command, Put, SubmitError};
use jobservice_core::cron::Schedule;
use jobservice_core::policy::Policy;
use jobservice_core::store::Deleted;
use jobservice_core::{JobId, limits};

use super::App;
use super::body::Payload;
use super::error::{ApiError, Invalid, Reason};
use super::extract::{Key, Params};
use super::jobs::name_next;
use super::json::Fields;
use super::routes::json;
use super::submit;
use super::views;
use super::write::Writer;

/// Schedules per page unless the query says otherwise.
const LIST_DEFAULT: usize = 100;

/// The times that a preview shows unless it is asked for others.
const PREVIEW_DEFAULT: usize = limits::PREVIEW_MAX;

/// In the order of their ids, which is that in which they were first submitted.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
    mut params: Params,
) -> Result<Response<Body>, ApiError> {
    let in_range = |text: &str| text.parse().ok().filter(|limit| (1..=limits::LIST_MAX).contains(limit));
    let range = format!("a number from 1 to {}", limits::LIST_MAX);
    let limit = params.read("limit", &range, in_range)?.unwrap_or(LIST_DEFAULT);
    let after = params.read("cursor", "a cursor of this list", |text| JobId::new(text).ok())?;
    params.none_left(&["limit", "cursor"])?;
    // One more than fits shows that there is a next page.
    let mut schedules = app.controller.schedules(after, limit + 1).await?;
    let more = schedules.len() > limit;
    schedules.truncate(limit);

    let now = app.controller.clock().wall();
    let mut answer = Writer::with_capacity(2 + schedules.len() * 512);
    answer.open_array();
    for policy in &schedules {
        answer.open();
        views::schedule(&mut answer, policy, now);
        answer.close();
    }
    answer.close_array();
    let mut response = json(answer);
    if let Some(last) = schedules.last().filter(|_| more) {
        name_next(&mut response, &uri, last.id.as_str())?;
    }
    Ok(response)
}

/// One of them.
pub(super) async fn show(State(app): State<Arc<App>>, Key(key): Key) -> Result<Response<Body>, ApiError> {
    let policy = find(&app, &key).await?;
    let mut answer = Writer::with_capacity(512);
    answer.open();
    views::schedule(&mut answer, &policy, app.controller.clock().wall());
    answer.close();
    Ok(json(answer))
}

/// Puts the schedule with this key: makes it, or changes what differs. Safe to repeat.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Key(key): Key,
    headers: HeaderMap,
    body: Payload,
) -> Result<Response<Body>, ApiError> {
    let (submission, warnings) = submit::read(&headers, &body, Some(&key))?;
    let submitted = app.controller.submit(submission).await?;
    let created = submitted.policy.as_ref().is_some_and(|put| put.put == Put::Created);
    let mut response = json(submit::answer(&app, submitted, warnings, 1024));
    if created {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Ends it, with the executions that wait or run, and removes it. Crash between the two: it has ended, and repeating the
/// call removes it.
pub(super) async fn remove(State(app): State<Arc<App>>, Key(key): Key) -> Result<StatusCode, ApiError> {
    let policy = find(&app, &key).await?;
    app.controller.control(&policy.id, Command::Stop).await?;
    match app.controller.delete(&policy.id).await? {
        Deleted::Gone | Deleted::NotFound => Ok(StatusCode::NO_CONTENT),
        // Somebody made it active again in between.
        Deleted::Refused(status) => Err(ApiError::illegal_state(&policy.id, status, "delete")),
    }
}

/// Pauses it, lets it go on, or makes one execution at once.
pub(super) async fn act(State(app): State<Arc<App>>, Key(key): Key, body: Payload) -> Result<Response<Body>, ApiError> {
    let word =
        Fields::of_body(&body)?.string("action")?.filter(|word| !word.is_empty()).map(|word| word.to_lowercase());
    let Some(word) = word else {
        return Err(Invalid::new("action", "it is missing", "give pause, resume or run").into());
    };
    if !["pause", "resume", "run"].contains(&word.as_str()) {
        let found: String = word.chars().take(40).collect();
        let description = format!("action: {found:?} is none of pause, resume and run");
        return Err(ApiError::new(Reason::UnknownAction, description));
    }
    let policy = find(&app, &key).await?;
    if word == "run" {
        let submitted = app.controller.run_now(&policy).await?;
        let mut response = json(submit::answer(&app, submitted, Vec::new(), 1024));
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    let changed = app.controller.pause(&policy.id, word == "pause").await?.ok_or_else(|| unknown(&key))?;
    if changed.state.ended.is_some() {
        return Err(SubmitError::PolicyEnded.into());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// When a cron text would be due, without storing anything.
pub(super) async fn preview(State(app): State<Arc<App>>, body: Payload) -> Result<Response<Body>, ApiError> {
    let mut fields = Fields::of_body(&body)?;
    let Some(cron) = fields.string("cron_spec")?.filter(|cron| !cron.is_empty()) else {
        let remedy = "give six fields with the seconds first, five without, or @daily, @every 90s, ..";
        return Err(Invalid::new("cron_spec", "it is missing", remedy).into());
    };
    let timezone = fields.string("timezone")?.unwrap_or_default();
    let count: usize = fields.integer("count")?.unwrap_or(PREVIEW_DEFAULT);
    if !(1..=limits::PREVIEW_MAX).contains(&count) {
        let remedy = format!("give 1 to {}", limits::PREVIEW_MAX);
        return Err(Invalid::new("count", format!("it is {count}"), remedy).into());
    }
    let schedule = Schedule::parse(&cron, &timezone).map_err(|error| {
        let field = if error.field == Some("time zone") { "timezone" } else { "cron_spec" };
        Invalid::new(field, error.problem, error.remedy)
    })?;

    let mut answer = Writer::with_capacity(1024);
    answer.open();
    answer.text("sentence", &schedule.describe());
    answer.text("timezone", schedule.timezone());
    answer.open_array_under("next");
    for at in schedule.upcoming(app.controller.clock().wall()).take(count) {
        answer.open();
        answer.integer("at", at.as_seconds());
        answer.text("local", &schedule.local(at));
        answer.close();
    }
    answer.close_array();
    answer.open_array_under("warnings");
    for warning in schedule.warnings() {
        answer.element(&warning);
    }
    answer.close_array();
    answer.close();
    Ok(json(answer))
}

async fn find(app: &App, key: &str) -> Result<Policy, ApiError> {
    app.controller.schedule(key).await?.ok_or_else(|| unknown(key))
}

fn unknown(key: &str) -> ApiError {
    let key: String = key.chars().take(80).collect();
    ApiError::new(Reason::UnknownSchedule, format!("there is no schedule with the key or id {key:?}"))
}
