//! The worker pools, as in the original: also the answer to "can this service serve?". And numbers: how many jobs there
//! are, and what happened in each minute.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use jobservice_core::{Name, Time, limits, minutes};

use super::error::{ApiError, Invalid};
use super::extract::Params;
use super::filter;
use super::routes::json;
use super::write::Writer;
use super::{App, views};

/// How far back minutes are told unless the query says otherwise.
const MINUTES_DEFAULT: Duration = Duration::from_secs(3600);

pub(super) async fn stats(State(app): State<Arc<App>>) -> Result<Response<Body>, ApiError> {
    let nodes = app.controller.nodes().await?;
    let now = app.controller.clock().now();
    let mut body = Writer::with_capacity(256);
    body.open_array();
    for node in &nodes {
        views::pool(&mut body, node, now);
    }
    body.close_array();
    Ok(json(body))
}

/// How many jobs there are in each status.
pub(super) async fn counts(State(app): State<Arc<App>>, params: Params) -> Result<Response<Body>, ApiError> {
    params.none_left(&[])?;
    let mut answer = Writer::with_capacity(128);
    answer.open();
    for (status, count) in app.controller.counts().await? {
        answer.integer(status.as_str(), i64::try_from(count).unwrap_or(i64::MAX));
    }
    answer.close();
    Ok(json(answer))
}

/// What happened in each minute, of one name or of all together. A week of them at the most.
pub(super) async fn minutes(State(app): State<Arc<App>>, mut params: Params) -> Result<Response<Body>, ApiError> {
    let now = app.controller.clock().now();
    let name = params.read("name", "a job name", |text| Name::new(text).ok())?;
    let when = "a time in seconds since 1970, or how long ago, like 90m or 2d";
    let since = params.read("since", when, |text| filter::time(text, now))?.unwrap_or(now - MINUTES_DEFAULT);
    params.none_left(&["name", "since"])?;
    if minutes::number_of(since) < minutes::oldest_kept(now) {
        let days = limits::MINUTES_KEPT.as_secs() / 86_400;
        let remedy = format!("minutes are kept for {days} days: give a later time");
        return Err(Invalid::new("query since", "it is too long ago", remedy).into());
    }
    let found = app.controller.minutes(name.as_ref(), since).await?;
    let mut answer = Writer::with_capacity(2 + found.len() * 96);
    answer.open_array();
    for minute in &found {
        let bucket = &minute.bucket;
        answer.open();
        answer.integer("time", Time::as_seconds(minute.at));
        for (key, number) in [
            ("submitted", bucket.submitted),
            ("succeeded", bucket.succeeded),
            ("failed", bucket.failed),
            ("wait_ms", bucket.wait_ms),
            ("run_ms", bucket.run_ms),
        ] {
            answer.integer(key, i64::try_from(number).unwrap_or(i64::MAX));
        }
        answer.close();
    }
    answer.close_array();
    Ok(json(answer))
}
