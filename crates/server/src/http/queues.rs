//! Queues: what waits of each name, what its jobs may do, and an operator's word on it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use jobservice::QueueInfo;
use jobservice_core::store::OptionsChange;
use jobservice_core::{Time, limits};

use super::App;
use super::body::Payload;
use super::error::{ApiError, Invalid};
use super::extract::{Params, QueueName};
use super::json::Fields;
use super::routes::json;
use super::write::Writer;

pub(super) async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response<Body>, ApiError> {
    params.none_left(&[])?;
    let queues = app.controller.queues().await?;
    let now = app.controller.clock().now();
    let mut answer = Writer::with_capacity(2 + queues.len() * 256);
    answer.open_array();
    for queue in &queues {
        view(&mut answer, queue, now);
    }
    answer.close_array();
    Ok(json(answer))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    QueueName(name): QueueName,
    params: Params,
) -> Result<Response<Body>, ApiError> {
    params.none_left(&[])?;
    let queue = app.controller.queue(&name).await?;
    Ok(one(&queue, app.controller.clock().now()))
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    QueueName(name): QueueName,
    body: Payload,
) -> Result<Response<Body>, ApiError> {
    let change = read(&body)?;
    app.controller.set_options(&name, change).await?;
    let queue = app.controller.queue(&name).await?;
    Ok(one(&queue, app.controller.clock().now()))
}

fn read(body: &[u8]) -> Result<OptionsChange, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let max_concurrency = fields.nullable_integer::<u32>("max_concurrency")?;
    let weight = fields.nullable_integer::<u32>("weight")?;
    let change = OptionsChange { paused: fields.boolean("paused")?, max_concurrency, weight };
    if let Some(Some(weight)) = change.weight
        && !(1..=limits::WEIGHT_MAX).contains(&weight)
    {
        let remedy = format!("give 1 to {}, or null for that of the code", limits::WEIGHT_MAX);
        return Err(Invalid::new("weight", format!("it is {weight}"), remedy).into());
    }
    if change == OptionsChange::default() {
        return Err(Invalid::new("body", "it changes nothing", "give paused, max_concurrency or weight").into());
    }
    Ok(change)
}

fn one(queue: &QueueInfo, now: Time) -> Response<Body> {
    let mut answer = Writer::with_capacity(256);
    view(&mut answer, queue, now);
    json(answer)
}

fn view(json: &mut Writer, queue: &QueueInfo, now: Time) {
    let QueueInfo { stats, code, pools } = queue;
    json.open();
    json.text("name", stats.name.as_str());
    json.boolean("paused", stats.options.paused);
    for (key, count) in [("pending", stats.pending), ("scheduled", stats.scheduled), ("running", stats.running)] {
        json.integer(key, i64::try_from(count).unwrap_or(i64::MAX));
    }
    if let Some(oldest) = stats.oldest_pending {
        json.integer("oldest_pending", oldest.as_seconds());
        json.integer("oldest_pending_ms", i64::try_from(now.since(oldest).as_millis()).unwrap_or(i64::MAX));
    }
    json.integer("weight", i64::from(queue.weight()));
    number(json, "max_concurrency", queue.max_concurrency());
    if let Some(code) = code {
        json.open_under("code");
        json.integer("weight", i64::from(code.weight));
        number(json, "max_concurrency", code.max_concurrency);
        json.close();
    }
    json.open_under("operator");
    number(json, "weight", stats.options.weight);
    number(json, "max_concurrency", stats.options.max_concurrency);
    json.close();
    json.integer("pools", *pools as i64);
    let warnings = warnings(queue);
    if !warnings.is_empty() {
        json.open_array_under("warnings");
        for warning in warnings {
            json.element(warning);
        }
        json.close_array();
    }
    json.close();
}

fn number(json: &mut Writer, key: &'static str, number: Option<u32>) {
    if let Some(number) = number {
        json.integer(key, i64::from(number));
    }
}

/// What keeps the jobs of a name from running although nobody may know of it.
fn warnings(queue: &QueueInfo) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if queue.pools == 0 {
        warnings.push("no living pool runs this name: its jobs wait until one does");
    }
    if queue.max_concurrency() == Some(0) {
        warnings.push("its limit is 0: none of its jobs may run");
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_sets_clears_or_leaves() {
        let expected = OptionsChange { paused: Some(true), max_concurrency: Some(None), weight: None };
        assert_eq!(read(br#"{"paused": true, "max_concurrency": null}"#).unwrap(), expected);
        assert_eq!(read(br#"{"weight": 10000}"#).unwrap().weight, Some(Some(10_000)));
        for bad in ["{}", r#"{"weight": 0}"#, r#"{"weight": 10001}"#, r#"{"max_concurrency": -1}"#, r#"{"paused": 1}"#]
        {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
