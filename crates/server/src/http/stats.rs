//! The worker pools, as in the original: also the answer to "can this service serve?".

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

use super::error::ApiError;
use super::routes::json;
use super::write::Writer;
use super::{App, views};

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
