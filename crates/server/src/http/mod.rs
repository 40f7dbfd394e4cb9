//! The REST API: what comes in over HTTP, who may send it, and how it is answered.
//!
//! The way of a request: [`listen`] (connections and their time-outs) → [`answer`] (panics, pages of other sites, the
//! secret) → the router, built from the one table in [`routes`] → a handler, one file per resource → the controller.
//! Errors all go through the table in [`error`], views of the domain through [`views`].

mod actions;
mod auth;
mod batch;
mod body;
mod config;
mod error;
mod executions;
mod extract;
mod filter;
mod health;
mod hooks;
mod jobs;
mod json;
mod listen;
mod log;
mod queues;
mod routes;
mod schedules;
mod stats;
mod submit;
mod tls;
mod views;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::response::IntoResponse as _;
use futures_util::FutureExt as _;
use jobservice::Controller;
use jobservice::logger::JobLogs;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

pub use auth::Role;
pub use error::Reason;
pub use routes::{Route, routes};

pub(crate) use auth::Secrets;
pub(crate) use error::chain;
pub(crate) use listen::serve;
pub(crate) use tls::Certificate;

use body::Budget;
use error::ApiError;
use routes::Caller;

/// Says what is not well, if anything is, although the service serves.
pub(crate) type Degraded = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// How many workers are held by code that was given up and does not end.
pub(crate) type Stuck = Box<dyn Fn() -> usize + Send + Sync>;

/// The values in effect, as JSON.
pub(crate) type Shown = Box<dyn Fn() -> String + Send + Sync>;

/// What the handlers work with.
pub(crate) struct App {
    controller: Controller,
    logs: JobLogs,
    secrets: Secrets,
    degraded: Degraded,
    stuck: Stuck,
    /// Cancelled when the service begins to end: it is not ready any more.
    ending: CancellationToken,
    /// Cancelled when connections are to end: who waits or follows is answered at once.
    closing: CancellationToken,
    budget: Arc<Budget>,
    config: Shown,
}

impl App {
    pub(crate) fn new(
        controller: Controller,
        secrets: Secrets,
        degraded: Degraded,
        stuck: Stuck,
        ending: CancellationToken,
        closing: CancellationToken,
        config: Shown,
    ) -> Arc<App> {
        let logs = controller.logs().clone();
        Arc::new(App { controller, logs, secrets, degraded, stuck, ending, closing, budget: Budget::new(), config })
    }
}

/// What every connection has: the application, and the router over it.
#[derive(Clone)]
pub(crate) struct Front {
    app: Arc<App>,
    router: Router,
}

impl Front {
    pub(crate) fn new(app: Arc<App>) -> Front {
        let router = routes::router(Arc::clone(&app));
        Front { app, router }
    }
}

/// Answers one request, whatever happens.
async fn answer(front: Front, request: Request) -> Response<Body> {
    match AssertUnwindSafe(route(front, request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            ApiError::internal(format!("a handler panicked: {text}")).into_response()
        }
    }
}

/// The secret is looked at before the path, so that who has none learns nothing of what there is.
async fn route(mut front: Front, mut request: Request) -> Result<Response<Body>, ApiError> {
    auth::refuse_cross_site(request.headers(), request.uri())?;
    match front.app.secrets.role_of(request.headers()) {
        Some(role) => drop(request.extensions_mut().insert(Caller(role))),
        None if routes::is_open(request.method(), request.uri().path()) => {}
        None => {
            return Err(ApiError::new(
                Reason::Unauthorized,
                "send the header Authorization: Harbor-Secret <secret>, with a secret of this service",
            ));
        }
    }
    // A router is always ready, and has no errors of its own.
    let Ok(response) = front.router.call(request).await;
    Ok(response)
}
