//! Request bodies: how long they may take, how large they may be, and how much of them may be in memory at once.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use futures_util::future::poll_fn;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::App;
use super::error::{ApiError, Invalid, Reason};

/// A body may pause this long.
const IDLE: Duration = Duration::from_secs(10);

/// A body must be complete this long after its first pause.
const TOTAL: Duration = Duration::from_secs(30);

/// Bytes of request bodies in memory at once, over all connections.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of a body that is too large, so much is still read and dropped, so that a client that sends all before it reads the
/// answer gets to read it. Beyond it the connection breaks.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// The largest body of the route; none of ours is without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit(pub(super) usize);

/// A request body that fails when it comes too slowly.
#[derive(Debug)]
pub(super) struct TimedBody<B> {
    body: B,
    timer: Option<Timer>,
}

/// Exists once the body paused: most come with their head, and cost no timer.
#[derive(Debug)]
struct Timer {
    end: Instant,
    sleep: Pin<Box<Sleep>>,
    paused: bool,
}

/// A body that failed because it came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
struct TooSlow;

impl<B> TimedBody<B> {
    pub(super) fn new(body: B) -> TimedBody<B> {
        TimedBody { body, timer: None }
    }
}

impl<B> HttpBody for TimedBody<B>
where
    B: HttpBody + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = B::Data;
    type Error = axum::BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, axum::BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(timer) = &mut this.timer {
                timer.paused = false;
                // A drip may always be there before the timer is.
                if timer.end <= Instant::now() {
                    return Poll::Ready(Some(Err(TooSlow.into())));
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timer = this.timer.get_or_insert_with(|| {
            let now = Instant::now();
            Timer { end: now + TOTAL, sleep: Box::pin(sleep_until(now + IDLE)), paused: true }
        });
        if !timer.paused {
            timer.paused = true;
            let until = timer.end.min(Instant::now() + IDLE);
            timer.sleep.as_mut().reset(until);
        }
        match timer.sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(TooSlow.into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The room for bytes of request bodies.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) fn new() -> Arc<Budget> {
        Arc::new(Budget(AtomicUsize::new(IN_FLIGHT_BYTES_MAX)))
    }
}

/// Room that was taken; dropping it gives it back.
#[derive(Debug)]
struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Room {
    fn none(budget: &Arc<Budget>) -> Room {
        Room { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Makes the room at least `bytes` large, if there is so much.
    fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.bytes);
        let take = |left: usize| left.checked_sub(more);
        match self.budget.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take) {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(_) => Err(ApiError::busy()),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

/// A whole request body. Its bytes count as in memory until it is dropped.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Bytes,
    _room: Room,
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl FromRequest<Arc<App>> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Payload, ApiError> {
        // A route without a limit in the table takes no body.
        let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
        read(request.into_body(), limit, &app.budget).await
    }
}

async fn read(mut body: Body, limit: usize, budget: &Arc<Budget>) -> Result<Payload, ApiError> {
    let announced = body.size_hint();
    let mut room = Room::none(budget);
    if announced.lower() > limit as u64 {
        return Err(drain(body, 0, limit).await);
    }
    room.grow_to(announced.lower() as usize)?;

    let Some(first) = next(&mut body).await? else { return Ok(Payload { bytes: Bytes::new(), _room: room }) };
    if first.len() as u64 == announced.lower() && announced.exact().is_some() {
        // The usual case: all in one piece, no copy.
        return Ok(Payload { bytes: first, _room: room });
    }
    let mut whole = Vec::with_capacity(announced.lower() as usize);
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        if whole.len() + bytes.len() > limit {
            let read = whole.len() + bytes.len();
            drop(whole);
            return Err(drain(body, read, limit).await);
        }
        room.grow_to(whole.len() + bytes.len())?;
        whole.extend_from_slice(&bytes);
        piece = next(&mut body).await?;
    }
    Ok(Payload { bytes: whole.into(), _room: room })
}

/// The next piece of a body; trailers are of no interest.
async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { return Ok(None) };
        match frame {
            Ok(frame) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

fn failed(error: &axum::Error) -> ApiError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            let seconds = (IDLE.as_secs(), TOTAL.as_secs());
            return ApiError::new(
                Reason::BodyTimeout,
                format!("the body may pause for {} s and take {} s in all", seconds.0, seconds.1),
            );
        }
        cause = error.source();
    }
    Invalid::new("body", "it broke off", "send as many bytes as announced").into()
}

/// Reads on a little, and says that the body is too large.
async fn drain(mut body: Body, mut read: usize, limit: usize) -> ApiError {
    while read < limit + DRAIN_BYTES_MAX {
        match next(&mut body).await {
            Ok(Some(bytes)) => read += bytes.len(),
            Ok(None) => break,
            Err(error) => return error,
        }
    }
    ApiError::new(Reason::BodyTooLarge, format!("this route takes bodies of at most {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_given_back_and_never_overdrawn() {
        let budget = Budget::new();
        let held = read(Body::from(vec![0; 1000]), 1000, &budget).await.unwrap();
        assert_eq!(budget.0.load(Ordering::Acquire), IN_FLIGHT_BYTES_MAX - 1000);

        let mut rest = Room::none(&budget);
        rest.grow_to(IN_FLIGHT_BYTES_MAX - 1000).unwrap();
        let refused = read(Body::from("x"), 1000, &budget).await;
        assert!(format!("{refused:?}").contains("Busy"));

        drop((held, rest));
        assert_eq!(budget.0.load(Ordering::Acquire), IN_FLIGHT_BYTES_MAX);
    }

    #[tokio::test]
    async fn too_large_is_refused_whether_announced_or_not() {
        let budget = Budget::new();
        let announced = read(Body::from(vec![0; 11]), 10, &budget).await;
        let pieces = futures_util::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>("x")));
        let streamed = read(Body::from_stream(pieces), 10, &budget).await;

        for refused in [announced, streamed] {
            assert!(format!("{refused:?}").contains("BodyTooLarge"));
        }
        let pieces = futures_util::stream::iter(["ab", "cd"].map(Ok::<_, std::io::Error>));
        assert_eq!(&*read(Body::from_stream(pieces), 10, &budget).await.unwrap(), b"abcd");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_or_drips_fails() {
        let silent = futures_util::stream::pending::<Result<&str, std::io::Error>>();
        let started = Instant::now();
        let failed = read(Body::new(TimedBody::new(Body::from_stream(silent))), 10, &Budget::new()).await;
        assert!(format!("{failed:?}").contains("BodyTimeout"));
        assert_eq!(started.elapsed().as_secs(), IDLE.as_secs());

        let drip = futures_util::stream::unfold((), |()| async {
            tokio::time::advance(Duration::from_secs(9)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        });
        let started = Instant::now();
        let slow = TimedBody::new(Body::from_stream(drip));
        let failed = read(Body::new(slow), 1000, &Budget::new()).await;
        assert!(format!("{failed:?}").contains("BodyTimeout"), "{failed:?}");
        assert!(started.elapsed() < TOTAL + 2 * IDLE, "{:?}", started.elapsed());
    }
}
