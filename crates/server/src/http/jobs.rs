//! Jobs that exist: look at one, list many, stop, cancel, retry, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::LINK;
use axum::http::{HeaderValue, Response, StatusCode, Uri};
use jobservice::Command;
use jobservice_core::store::{Controlled, Deleted, Query, Waiting};
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
    let job = match wait {
        Some(wait) => settled(&app, &id, wait.min(WAIT_MAX)).await?,
        None => app.controller.get(&id).await?,
    };
    let job = job.ok_or_else(|| ApiError::unknown_job(&id))?;
    let beyond = beyond(&app, &job).await?;

    let mut answer = Writer::with_capacity(1024 + job.spec.parameters.len());
    answer.open();
    answer.open_under("job");
    views::job(&mut answer, &job, &beyond, app.controller.clock().now());
    answer.close();
    answer.close();
    Ok(json(answer))
}

/// The job once it is final, or as it is when the time is up, or when the service ends.
async fn settled(app: &App, id: &JobId, wait: Duration) -> Result<Option<Job>, ApiError> {
    tokio::select! {
        job = app.controller.wait_final(id, wait) => Ok(job?),
        () = app.closing.cancelled() => Ok(app.controller.get(id).await?),
    }
}

async fn beyond(app: &App, job: &Job) -> Result<Beyond, ApiError> {
    let waiting: Option<Waiting> = match job.state.status {
        Status::Pending | Status::Scheduled => app.controller.explain(&job.id).await?,
        _ => None,
    };
    let query = Query { upstream: Some(job.id.clone()), limit: EXECUTIONS_SHOWN, ..Query::default() };
    let page = app.controller.list(&query).await?;
    let executions: Vec<JobId> = page.jobs.into_iter().map(|job| job.id).collect();
    // More than are shown are not counted: that would cost as much as there are.
    let executions_total = page.next.is_none().then_some(executions.len());
    Ok(Beyond { waiting, executions, executions_total, without_parameters: false })
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

    let mut answer =
        Writer::with_capacity(2 + page.jobs.iter().map(|job| 512 + job.spec.parameters.len()).sum::<usize>());
    answer.open_array();
    for job in &page.jobs {
        answer.open();
        views::job(&mut answer, job, &Beyond::default(), now);
        answer.close();
    }
    answer.close_array();
    let mut response = json(answer);
    if let Some(next) = &page.next {
        let headers = response.headers_mut();
        let cursor = HeaderValue::from_str(next).map_err(ApiError::internal)?;
        let link =
            HeaderValue::from_str(&format!("<{}>; rel=\"next\"", next_page(&uri, next))).map_err(ApiError::internal)?;
        headers.insert("next-cursor", cursor);
        headers.insert(LINK, link);
    }
    Ok(response)
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
