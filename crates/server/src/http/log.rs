//! The text of a job's log, as it is or as it grows.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use jobservice::logger::{Follower, LogError, ReadFrom};
use jobservice_core::JobId;

use super::error::{ApiError, Invalid};
use super::extract::{Id, Params};
use super::{App, chain};

/// How much of a log is in memory at once for one reader.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) async fn read(
    State(app): State<Arc<App>>,
    Id(id): Id,
    mut params: Params,
) -> Result<Response<Body>, ApiError> {
    let follow = params.flag("follow")?;
    let bytes = "a number of bytes";
    let tail: Option<u64> = params.read("tail", bytes, |text| text.parse().ok())?;
    let offset: Option<u64> = params.read("offset", bytes, |text| text.parse().ok())?;
    params.none_left(&["follow", "tail", "offset"])?;
    let from = match (tail, offset) {
        (Some(_), Some(_)) => {
            return Err(Invalid::new("query tail", "there is an offset too", "give one of them").into());
        }
        (Some(tail), None) => ReadFrom::TailBytes(tail),
        (None, offset) => ReadFrom::Offset(offset.unwrap_or(0)),
    };
    if app.controller.get(&id).await?.is_none() {
        return Err(ApiError::unknown_job(&id));
    }
    let body = if follow { followed(&app, &id, from) } else { as_it_is(&app, id, from).await? };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    // Never to be taken for a page: a log holds whatever a job wrote.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Proxies would hold lines back until a buffer is full.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The log up to where it ends now. A job that wrote nothing has an empty one.
async fn as_it_is(app: &Arc<App>, id: JobId, from: ReadFrom) -> Result<Body, ApiError> {
    // The first piece is read before the answer begins: an error can still be one.
    let Some(first) = app.logs.read(&id, from, CHUNK_BYTES).await.map_err(ApiError::internal)? else {
        return Ok(Body::empty());
    };
    if first.is_last() {
        return Ok(Body::from(first.bytes));
    }
    // What is appended from now on is left for the next reader: a job that writes faster than we read has no end.
    let end = first.end;
    let rest = stream::unfold((Arc::clone(app), id, first.next_offset), move |(app, id, at)| async move {
        if at >= end {
            return None;
        }
        let limit = CHUNK_BYTES.min((end - at) as usize);
        let piece = match app.logs.read(&id, ReadFrom::Offset(at), limit).await {
            Ok(None) => return None,
            Ok(Some(chunk)) if chunk.next_offset <= at => return None,
            Ok(Some(chunk)) => Ok((chunk.bytes, chunk.next_offset)),
            Err(error) => Err(error),
        };
        match piece {
            Ok((bytes, next)) => Some((Ok(bytes), (app, id, next))),
            Err(error) => Some((Err(broken(&id, error)), (app, id, end))),
        }
    });
    let whole = futures_util::StreamExt::chain(stream::iter([Ok(first.bytes)]), rest);
    Ok(Body::from_stream(whole))
}

/// The log as it grows, until the job is final. When the service ends before, the answer breaks off: a clean end says
/// that the job has ended.
fn followed(app: &Arc<App>, id: &JobId, from: ReadFrom) -> Body {
    let follower = app.logs.follow(id, from);
    Body::from_stream(pieces(Arc::clone(app), id.clone(), follower))
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the service ends")]
    Ending,
    #[error(transparent)]
    Log(#[from] LogError),
}

fn pieces(app: Arc<App>, id: JobId, follower: Follower) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    stream::unfold(Some((app, id, follower)), |state| async move {
        let (app, id, mut follower) = state?;
        let next = tokio::select! {
            next = follower.next() => next,
            () = app.closing.cancelled() => return Some((Err(Broken::Ending), None)),
        };
        match next {
            Ok(None) => None,
            Ok(Some(chunk)) => Some((Ok(chunk.bytes), Some((app, id, follower)))),
            Err(error) => Some((Err(broken(&id, error).into()), None)),
        }
    })
}

/// An error after the answer began can only break the connection; the log of the service says why.
fn broken(id: &JobId, error: LogError) -> LogError {
    tracing::error!(job.id = %id, "reading the log of job {id} broke off: {}", chain(&error));
    error
}
