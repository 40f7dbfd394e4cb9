//! Jobs that exist: look at one, list many, stop, cancel, retry, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::LINK;
use axum::http::{HeaderValue, Response, StatusCode, Uri};
use jobservice::{Command, Found};
use jobservice_core::policy::Policy;
use jobservice_core::store::{Controlled, Deleted, Executions, ExecutionsQuery, Query, Waiting};
use jobservice_core::{Job, JobId, Status, Time, limits};

use super::App;
use super::body::Payload;
use super::error::{ApiError, Invalid, Reason};
use super::extract::{Id, Params};
use super::filter::{self, FILTERS};
use super::json::Fields;
use super::routes::json;
use super::views::{self, Beyond};
use super::write::Writer;

/// The longest that an answer is held back: below the minute after which proxies give up.
const WAIT_MAX: Duration = Duration::from_secs(55);

/// Jobs per page unless the query says otherwise.
const LIST_DEFAULT: usize = 50;

/// Executions shown with a job.
const EXECUTIONS_SHOWN: usize = 100;

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Id(id): Id,
    mut params: Params,
) -> Result<Response<Body>, ApiError> {
    let wait = params.read("wait", "a length of time like 30s", |text| crate::duration::parse(text).ok())?;
    params.none_left(&["wait"])?;
    if let Some(wait) = wait {
        settled(&app, &id, wait.min(WAIT_MAX)).await?;
    }
    let found = app.controller.find(&id).await?.ok_or_else(|| ApiError::unknown_job(&id))?;
    let policy = match &found {
        Found::Policy(policy) => Some((**policy).clone()),
        Found::Job(_) => None,
    };
    let job = found.into_job();
    let beyond = beyond(&app, &job, policy).await?;

    let mut answer = Writer::with_capacity(1024 + job.spec.parameters.len());
    answer.open();
    answer.open_under("job");
    views::job(&mut answer, &job, &beyond, app.controller.clock().now());
    answer.close();
    answer.close();
    Ok(json(answer))
}

/// Waits until the job is final, the time is up, or the service ends.
async fn settled(app: &App, id: &JobId, wait: Duration) -> Result<(), ApiError> {
    tokio::select! {
        job = app.controller.wait_final(id, wait) => job.map(drop)?,
        () = app.closing.cancelled() => {}
    }
    Ok(())
}

async fn beyond(app: &App, job: &Job, policy: Option<Policy>) -> Result<Beyond, ApiError> {
    let waiting: Option<Waiting> = match job.state.status {
        Status::Pending | Status::Scheduled if policy.is_none() => app.controller.explain(&job.id).await?,
        _ => None,
    };
    let query = ExecutionsQuery { upstream: job.id.clone(), live: false, offset: 0, limit: EXECUTIONS_SHOWN };
    let Executions { jobs, total } = app.controller.executions(&query).await?;
    let executions: Vec<JobId> = jobs.into_iter().map(|job| job.id).collect();
    Ok(Beyond {
        waiting,
        policy,
        has_executions: total > 0,
        executions,
        executions_total: Some(total),
        without_parameters: false,
    })
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
    mut params: Params,
) -> Result<Response<Body>, ApiError> {
    let now = app.controller.clock().now();
    let query = query(&mut params, now)?;
    let known: Vec<&str> = FILTERS.into_iter().chain(["limit", "cursor"]).collect();
    params.none_left(&known)?;
    let page = app.controller.list(&query).await?;

    let mut response = json(array(&app, &page.jobs).await?);
    if let Some(next) = &page.next {
        name_next(&mut response, &uri, next)?;
    }
    Ok(response)
}

/// Jobs as an array.
pub(super) async fn array(app: &App, jobs: &[Job]) -> Result<Writer, ApiError> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
    let have_executions = app.controller.have_executions(&ids).await?;
    let now = app.controller.clock().now();
    let mut answer = Writer::with_capacity(2 + jobs.iter().map(|job| 512 + job.spec.parameters.len()).sum::<usize>());
    answer.open_array();
    for (job, has_executions) in jobs.iter().zip(have_executions) {
        answer.open();
        views::job(&mut answer, job, &Beyond { has_executions, ..Beyond::default() }, now);
        answer.close();
    }
    answer.close_array();
    Ok(answer)
}

/// Tells where the next page begins.
pub(super) fn name_next(response: &mut Response<Body>, uri: &Uri, next: &str) -> Result<(), ApiError> {
    let cursor = HeaderValue::from_str(next).map_err(ApiError::internal)?;
    let link = format!("<{}>; rel=\"next\"", next_page(uri, next));
    let link = HeaderValue::from_str(&link).map_err(ApiError::internal)?;
    response.headers_mut().insert("next-cursor", cursor);
    response.headers_mut().insert(LINK, link);
    Ok(())
}

fn query(params: &mut Params, now: Time) -> Result<Query, ApiError> {
    let limit = format!("a number from 1 to {}", limits::LIST_MAX);
    let in_range = |text: &str| text.parse().ok().filter(|limit| (1..=limits::LIST_MAX).contains(limit));
    let mut query = filter::read(params, now)?;
    query.cursor = params.take("cursor");
    query.limit = params.read("limit", &limit, in_range)?.unwrap_or(LIST_DEFAULT);
    Ok(query)
}

/// The address of the next page: this one with another cursor.
fn next_page(uri: &Uri, cursor: &str) -> String {
    let kept = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let mut query: Vec<&str> = kept.collect();
    // Cursors are opaque; those of our stores need no escapes, others get them.
    let escaped = cursor.bytes().fold(String::new(), |text, byte| match byte {
        b'-' | b'_' | b'.' | b'~' => text + char::from(byte).encode_utf8(&mut [0; 4]),
        byte if byte.is_ascii_alphanumeric() => text + char::from(byte).encode_utf8(&mut [0; 4]),
        byte => text + &format!("%{byte:02X}"),
    });
    let cursor = format!("cursor={escaped}");
    query.push(&cursor);
    format!("{}?{}", uri.path(), query.join("&"))
}

pub(super) async fn control(State(app): State<Arc<App>>, Id(id): Id, body: Payload) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::of_body(&body)?;
    let word = fields.string("action")?;
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        return Err(Invalid::new("action", "it is missing", "give stop, cancel or retry").into());
    };
    let command = [("stop", Command::Stop), ("cancel", Command::Cancel), ("retry", Command::Retry)]
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name));
    let Some((action, command)) = command else {
        let found: String = word.chars().take(40).collect();
        return Err(ApiError::new(
            Reason::UnknownAction,
            format!("action: {found:?} is none of stop, cancel and retry"),
        ));
    };
    match app.controller.control(&id, command).await? {
        Controlled::Done(_) | Controlled::Signalled | Controlled::Unchanged(_) => Ok(StatusCode::NO_CONTENT),
        Controlled::Refused(status) => Err(ApiError::illegal_state(&id, status, action)),
        Controlled::Duplicate(holder) => Err(ApiError::duplicate(holder)),
        Controlled::NotFound => Err(ApiError::unknown_job(&id)),
    }
}

pub(super) async fn remove(State(app): State<Arc<App>>, Id(id): Id) -> Result<StatusCode, ApiError> {
    match app.controller.delete(&id).await? {
        Deleted::Gone => Ok(StatusCode::NO_CONTENT),
        Deleted::Refused(status) => Err(ApiError::illegal_state(&id, status, "delete")),
        Deleted::NotFound => Err(ApiError::unknown_job(&id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_keeps_the_filters_and_replaces_the_cursor() {
        let uri: Uri = "/api/v1/jobs?status=error&cursor=old&limit=2".parse().unwrap();
        assert_eq!(next_page(&uri, "a/b"), "/api/v1/jobs?status=error&limit=2&cursor=a%2Fb");
        assert_eq!(next_page(&"/api/v1/jobs".parse().unwrap(), "c"), "/api/v1/jobs?cursor=c");
    }
}
