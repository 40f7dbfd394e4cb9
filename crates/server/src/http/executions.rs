//! The executions of a job or policy, by page number as in the original.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response};
use jobservice_core::limits;
use jobservice_core::store::{Executions, ExecutionsQuery};

use super::App;
use super::error::ApiError;
use super::extract::{Id, Params};
use super::jobs::array;
use super::routes::json;

/// Executions per page unless the query says otherwise: the original's default.
const PAGE_DEFAULT: usize = 25;

/// Newest first. The header `Total-Count` says how many there are on all pages, counted up to
/// [`limits::EXECUTIONS_COUNTED_MAX`].
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Id(id): Id,
    mut params: Params,
) -> Result<Response<Body>, ApiError> {
    let pages = limits::EXECUTIONS_COUNTED_MAX;
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| (1..=pages).contains(number));
    let page_number = params.read("page_number", &format!("a number from 1 to {pages}"), number)?.unwrap_or(1);
    let size = |text: &str| text.parse::<usize>().ok().filter(|size| (1..=limits::LIST_MAX).contains(size));
    let sizes = format!("a number from 1 to {}", limits::LIST_MAX);
    let page_size = params.read("page_size", &sizes, size)?.unwrap_or(PAGE_DEFAULT);
    let live = params.flag("non_dead_only")?;
    params.none_left(&["page_number", "page_size", "non_dead_only"])?;

    let query = ExecutionsQuery { upstream: id.clone(), live, offset: (page_number - 1) * page_size, limit: page_size };
    let Executions { jobs, total } = app.controller.executions(&query).await?;
    // A parent may be gone before its executions; only who has neither is unknown.
    if total == 0 && app.controller.find(&id).await?.is_none() {
        return Err(ApiError::unknown_job(&id));
    }
    let mut response = json(array(&app, &jobs).await?);
    response.headers_mut().insert("total-count", HeaderValue::from(total));
    Ok(response)
}
