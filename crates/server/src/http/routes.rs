//! The one table of routes: who may call what, and how much they may send. The router is built from it and from nothing
//! else, so there is no route that the table does not know.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, Response, Uri};
use axum::response::IntoResponse as _;
use axum::routing::{MethodRouter, delete, get, post, put};
use futures_util::future::{Either, Ready, ready};
use tower::{Layer, Service};

use super::auth::Role;
use super::body::BodyLimit;
use super::error::{ApiError, Reason};
use super::{App, actions, batch, config, executions, health, hooks, jobs, log, queues, schedules, stats, submit};

/// A submission: parameters and what stands around them.
pub(super) const SUBMIT_BYTES_MAX: usize = 256 * 1024;

/// Many submissions.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A word or two.
const ACTION_BYTES_MAX: usize = 16 * 1024;

/// One method of one path.
#[derive(Clone, Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with its variable parts in braces.
    pub path: &'static str,
    /// What the caller must be allowed; none for everybody, with or without a secret.
    pub role: Option<Role>,
    /// The largest body; 0 for those that take none.
    pub body_bytes_max: usize,
    handler: fn() -> MethodRouter<Arc<App>>,
}

/// All routes there are.
pub fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Viewer};
    let route = |method, path, role, body_bytes_max, handler| Route { method, path, role, body_bytes_max, handler };
    vec![
        route(Method::POST, "/api/v1/jobs", Some(Operator), SUBMIT_BYTES_MAX, || post(submit::submit)),
        route(Method::GET, "/api/v1/jobs", Some(Viewer), 0, || get(jobs::list)),
        route(Method::POST, "/api/v1/jobs/batch", Some(Operator), BATCH_BYTES_MAX, || post(batch::submit)),
        route(Method::POST, "/api/v1/jobs/actions", Some(Operator), ACTION_BYTES_MAX, || post(actions::act)),
        route(Method::GET, "/api/v1/jobs/{id}", Some(Viewer), 0, || get(jobs::show)),
        route(Method::POST, "/api/v1/jobs/{id}", Some(Operator), ACTION_BYTES_MAX, || post(jobs::control)),
        route(Method::DELETE, "/api/v1/jobs/{id}", Some(Operator), 0, || delete(jobs::remove)),
        route(Method::GET, "/api/v1/jobs/{id}/executions", Some(Viewer), 0, || get(executions::list)),
        route(Method::GET, "/api/v1/schedules", Some(Viewer), 0, || get(schedules::list)),
        route(Method::POST, "/api/v1/schedules/preview", Some(Viewer), ACTION_BYTES_MAX, || post(schedules::preview)),
        route(Method::GET, "/api/v1/schedules/{key}", Some(Viewer), 0, || get(schedules::show)),
        route(Method::PUT, "/api/v1/schedules/{key}", Some(Operator), SUBMIT_BYTES_MAX, || put(schedules::put)),
        route(Method::POST, "/api/v1/schedules/{key}", Some(Operator), ACTION_BYTES_MAX, || post(schedules::act)),
        route(Method::DELETE, "/api/v1/schedules/{key}", Some(Operator), 0, || delete(schedules::remove)),
        route(Method::GET, "/api/v1/jobs/{id}/log", Some(Viewer), 0, || get(log::read)),
        route(Method::GET, "/api/v1/config", Some(Admin), 0, || get(config::show)),
        route(Method::GET, "/api/v1/jobs/{id}/hooks", Some(Viewer), 0, || get(hooks::list)),
        route(Method::POST, "/api/v1/jobs/{id}/hooks/{seq}", Some(Operator), 0, || post(hooks::resend)),
        route(Method::GET, "/api/v1/queues", Some(Viewer), 0, || get(queues::list)),
        route(Method::GET, "/api/v1/queues/{name}", Some(Viewer), 0, || get(queues::show)),
        route(Method::PUT, "/api/v1/queues/{name}", Some(Operator), ACTION_BYTES_MAX, || put(queues::change)),
        route(Method::GET, "/api/v1/stats/counts", Some(Viewer), 0, || get(stats::counts)),
        route(Method::GET, "/api/v1/stats/minutes", Some(Viewer), 0, || get(stats::minutes)),
        route(Method::GET, "/api/v1/stats", None, 0, || get(stats::stats)),
        route(Method::GET, "/api/v1/healthz", None, 0, || get(health::alive)),
        route(Method::GET, "/api/v1/readyz", None, 0, || get(health::ready)),
        route(Method::GET, "/healthz", None, 0, || get(health::alive)),
        route(Method::GET, "/readyz", None, 0, || get(health::ready)),
    ]
}

/// The paths of the routes that need no secret. A list of its own, because it is looked at for each request without a
/// valid one; a test compares it with the table.
const OPEN: [&str; 5] = ["/api/v1/stats", "/api/v1/healthz", "/api/v1/readyz", "/healthz", "/readyz"];

/// Whether a request needs no secret. A HEAD is a GET without the body.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && OPEN.contains(&path)
}

/// The router over the table.
pub(super) fn router(app: Arc<App>) -> Router {
    let mut router: Router<Arc<App>> = Router::new();
    for route in routes() {
        let access = Access { role: route.role, body_bytes_max: route.body_bytes_max };
        router = router.route(route.path, (route.handler)().layer(access));
    }
    router
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            ApiError::method_not_allowed(method.as_str(), uri.path())
        })
        .fallback(|method: Method, uri: Uri| async move {
            let path: String = uri.path().chars().take(200).collect();
            ApiError::new(Reason::UnknownPath, format!("there is nothing at {method} {path}; the API is under /api/v1"))
        })
        .with_state(app)
}

/// Who sent a request, once their secret was found valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) Role);

/// What the table says of a route, applied to each of its requests.
#[derive(Clone, Copy, Debug)]
struct Access {
    role: Option<Role>,
    body_bytes_max: usize,
}

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: *self, inner }
    }
}

#[derive(Clone, Debug)]
struct Guarded<S> {
    access: Access,
    inner: S,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = axum::response::Response, Error = Infallible>,
{
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<axum::response::Response, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Some(needed) = self.access.role {
            let caller = request.extensions().get::<Caller>();
            if !caller.is_some_and(|caller| caller.0.allows(needed)) {
                let refusal =
                    ApiError::new(Reason::Forbidden, format!("this needs the role {needed:?}, which yours is not"));
                return Either::Left(ready(Ok(refusal.into_response())));
            }
        }
        request.extensions_mut().insert(BodyLimit(self.access.body_bytes_max));
        Either::Right(self.inner.call(request))
    }
}

/// An answer with JSON in it.
pub(super) fn json(json: super::write::Writer) -> Response<axum::body::Body> {
    let mut response = Response::new(json.into_body());
    response
        .headers_mut()
        .insert(axum::http::header::CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_routes_are_those_that_the_table_says() {
        let open: Vec<&str> = routes().iter().filter(|route| route.role.is_none()).map(|route| route.path).collect();
        assert_eq!(open, OPEN);
        assert!(routes().iter().all(|route| route.role.is_some() || route.method == Method::GET));
    }

    #[test]
    fn changing_needs_more_than_looking() {
        for route in routes() {
            // A preview changes nothing; its question is too long for a query.
            let changes = route.method != Method::GET && !route.path.ends_with("/preview");
            assert!(!changes || route.role == Some(Role::Operator), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn no_path_and_method_is_listed_twice() {
        let mut keys: Vec<_> = routes().iter().map(|route| (route.path, route.method.to_string())).collect();
        keys.sort();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    /// A route that is not in the table has no role and no limit: nobody but this file may add one.
    #[test]
    fn nothing_but_the_table_adds_routes() {
        let mut sources = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(path) = sources.pop() {
            if path.is_dir() {
                sources.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if !path.ends_with("http/routes.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for adds in [".route(", ".route_service(", ".nest(", ".nest_service(", ".merge("] {
                    assert!(!text.contains(adds), "{} adds a route with {adds}", path.display());
                }
            }
        }
    }
}
