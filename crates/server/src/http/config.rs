//! The values in effect, secrets masked: what `jobservice config show` says of this process.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};

use super::App;

pub(super) async fn show(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = Response::new(Body::from((app.config)()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
