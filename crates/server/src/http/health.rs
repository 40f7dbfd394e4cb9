//! Whether the service lives, and whether it can do its work: for orchestrators and load balancers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use jobservice_core::JobId;

use super::routes::json;
use super::write::Writer;
use super::{App, chain};

/// The process answers, so it lives. Says nothing about the store on purpose: restarting does not mend a full disk.
pub(super) async fn alive() -> Response<Body> {
    says(StatusCode::OK, "ok", None, 0)
}

/// Whether it makes sense to send work here.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    if app.ending.is_cancelled() {
        return says(StatusCode::SERVICE_UNAVAILABLE, "ending", Some("the service is shutting down"), 0);
    }
    let stuck = (app.stuck)();
    // Any read shows that the store answers; this one finds nothing and costs nothing.
    match app.controller.get(&JobId::generate()).await {
        // Degraded is still 200: sending work elsewhere would not make it better when all nodes share the trouble.
        Ok(_) => match (app.degraded)() {
            None => says(StatusCode::OK, "ok", None, stuck),
            Some(why) => says(StatusCode::OK, "degraded", Some(&why), stuck),
        },
        Err(error) => {
            tracing::warn!("not ready: {}", chain(&error));
            says(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some("the store does not answer"), stuck)
        }
    }
}

fn says(code: StatusCode, status: &str, why: Option<&str>, stuck: usize) -> Response<Body> {
    let mut body = Writer::with_capacity(64);
    body.open();
    body.text("status", status);
    if let Some(why) = why {
        body.text("description", why);
    }
    if stuck > 0 {
        body.integer("stuck_workers", stuck as i64);
    }
    body.close();
    let mut response = json(body);
    *response.status_mut() = code;
    response
}
