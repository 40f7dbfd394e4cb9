//! The accept loop: connections, their time-outs, their number, and how they end.
//!
//! `axum::serve` (0.8) keeps half a header, a silent connection and half a body open for ever; so the loop is ours, on
//! hyper-util. Each connection is one future with a watch over it: the socket notes when it stalls, the service notes
//! when a request begins and ends, and once a second the watch compares that with the limits below. Ticking keeps
//! timers off the path of a request.
//!
//! Under https the handshake comes first, within the time of a head and counted as a connection.
//!
//! At the most connections no more are accepted: the kernel's queue holds the others back until one ends.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::TimedBody;
use super::{Front, answer, tls};

/// Connections at once. Each costs some 30 KiB and a file descriptor.
const CONNECTIONS_MAX: usize = 1024;

/// The head of a request must be complete this long after its first byte; a new connection's first one after its start.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// A connection without a request is closed after this long. Above the 60 s after which common proxies give up theirs,
/// so that it is them who close, and no request meets a closing connection.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(75);

/// A client must take some of its answer this often.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// The head of a request, at most: line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;

/// How often the limits are looked at.
const TICK: Duration = Duration::from_secs(1);

/// After an accept that failed (no file descriptors left) the loop takes a breath.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `closing` is cancelled; then no more connections are accepted, and it ends when all that there are have
/// finished the requests under way. Whoever does not want to wait for that lets the runtime end.
pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    front: Front,
    closing: CancellationToken,
) {
    let builder = Arc::new(builder());
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    while let Some(accepted) = closing.run_until_cancelled(accept(&listener, &slots)).await {
        if let Some((stream, slot)) = accepted {
            let (builder, front, closing) = (Arc::clone(&builder), front.clone(), closing.clone());
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                begin(stream, acceptor, &builder, front, closing).await;
                drop(slot);
            });
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is room for one.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) if is_of_one_connection(&error) => None,
        Err(error) => {
            tracing::error!("cannot accept connections: {error}");
            drop(timeout(ACCEPT_PAUSE, std::future::pending::<()>()).await);
            None
        }
    }
}

/// Whether an accept failed because of the connection that was to be accepted, and says nothing about others.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The watch times heads: hyper's own timer counts the idle time between requests as time for the head.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Makes a connection one of HTTP, by a handshake if it is to be one of TLS, and serves it.
async fn begin(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    builder: &auto::Builder<TokioExecutor>,
    front: Front,
    closing: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("the connection broke before it began: {error}");
        return;
    }
    let Some(acceptor) = acceptor else { return connection(stream, builder, front, closing).await };
    let shaken = timeout(HEAD_MAX, tls::handshake(stream, &acceptor));
    match closing.run_until_cancelled(shaken).await {
        Some(Ok(Ok(stream))) => connection(stream, builder, front, closing).await,
        Some(Ok(Err(error))) => tracing::debug!("a connection ended in its handshake: {error}"),
        Some(Err(_elapsed)) => tracing::debug!("closed a connection: its handshake was not complete in time"),
        None => {}
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    builder: &auto::Builder<TokioExecutor>,
    front: Front,
    closing: CancellationToken,
) {
    let watch = Arc::new(Watch::new());
    let io = WatchedIo { io: TokioIo::new(stream), watch: Arc::clone(&watch) };
    let noted = Arc::clone(&watch);
    let service = service_fn(move |request: Request<Incoming>| {
        let active = Active::begin(&noted, request.version());
        let front = front.clone();
        async move {
            let request = request.map(|body| Body::new(TimedBody::new(body)));
            let response = answer(front, request).await;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _active: active }))
        }
    });

    let mut serving = pin!(builder.serve_connection(io, service));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaving = false;
    let mut told_to_leave = pin!(closing.cancelled());
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection ended: {error}");
                }
                return;
            }
            () = told_to_leave.as_mut(), if !leaving => {
                leaving = true;
                serving.as_mut().graceful_shutdown();
            }
            _ = tick.tick() => {
                if let Some(why) = watch.over_limit() {
                    tracing::debug!("closed a connection: {why}");
                    return;
                }
            }
        }
    }
}

/// What is known of one connection. All times are milliseconds since its start; 0 means "not".
#[derive(Debug)]
struct Watch {
    started: Instant,
    /// Requests that are not answered to the end.
    active: AtomicU32,
    /// Whether there was a request, and so whether the client speaks HTTP at all.
    spoke: AtomicBool,
    /// Whether it is HTTP/2, whose frames between requests are no heads.
    is_http2: AtomicBool,
    /// Since when there is no request.
    idle_since: AtomicU64,
    /// Since when a head is being read.
    head_since: AtomicU64,
    /// Since when the client takes nothing of what is to be written.
    stalled_since: AtomicU64,
}

impl Watch {
    fn new() -> Watch {
        Watch {
            started: Instant::now(),
            active: AtomicU32::new(0),
            spoke: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    /// Notes that bytes came.
    fn read(&self) {
        if self.active.load(Ordering::Relaxed) == 0
            && !self.is_http2.load(Ordering::Relaxed)
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes whether a write found room.
    fn wrote(&self, stalled: bool) {
        let was = self.stalled_since.load(Ordering::Relaxed);
        if stalled && was == 0 {
            self.stalled_since.store(self.now(), Ordering::Relaxed);
        } else if !stalled && was != 0 {
            self.stalled_since.store(0, Ordering::Relaxed);
        }
    }

    /// Why the connection is to be closed, if it is.
    fn over_limit(&self) -> Option<&'static str> {
        let now = self.now();
        let is_over = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        if is_over(&self.stalled_since, WRITE_STALL_MAX) {
            return Some("it does not take its answer");
        }
        if self.active.load(Ordering::Relaxed) > 0 {
            // The body has time-outs of its own.
            return None;
        }
        if is_over(&self.head_since, HEAD_MAX) {
            return Some("the head of a request was not complete in time");
        }
        if !self.spoke.load(Ordering::Relaxed) {
            return (u128::from(now) >= HEAD_MAX.as_millis()).then_some("it never sent a request");
        }
        is_over(&self.idle_since, KEEP_ALIVE_MAX).then_some("it was idle")
    }
}

/// A request from its head to the last byte of its answer.
#[derive(Debug)]
struct Active(Arc<Watch>);

impl Active {
    fn begin(watch: &Arc<Watch>, version: Version) -> Active {
        watch.active.fetch_add(1, Ordering::Relaxed);
        watch.head_since.store(0, Ordering::Relaxed);
        watch.spoke.store(true, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            watch.is_http2.store(true, Ordering::Relaxed);
        }
        Active(Arc::clone(watch))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        }
    }
}

/// The body of an answer, which knows when it ends.
struct Answer {
    body: Body,
    _active: Active,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that notes when it is read and when it stalls.
#[derive(Debug)]
struct WatchedIo<S> {
    io: TokioIo<S>,
    watch: Arc<Watch>,
}

impl<S: AsyncRead + Unpin> Read for WatchedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.watch.read();
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> Write for WatchedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch.wrote(result.is_pending());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes what is written into a buffer of its own: that the client takes nothing shows only here.
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.watch.wrote(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch.wrote(result.is_pending());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets time pass without a sleep: the clock of the test's runtime stands still otherwise.
    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_speaks_or_dawdles_over_a_head_is_closed() {
        let silent = Watch::new();
        pass(9).await;
        assert_eq!(silent.over_limit(), None);
        pass(1).await;
        assert!(silent.over_limit().unwrap().contains("never"));

        let watch = Arc::new(Watch::new());
        drop(Active::begin(&watch, Version::HTTP_11));
        pass(60).await;
        watch.read();
        pass(5).await;
        watch.read();
        assert_eq!(watch.over_limit(), None);
        pass(5).await;
        assert!(watch.over_limit().unwrap().contains("head"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_request_is_let_be_and_idleness_counts_from_its_end() {
        let watch = Arc::new(Watch::new());
        let active = Active::begin(&watch, Version::HTTP_11);
        pass(3600).await;
        assert_eq!(watch.over_limit(), None);

        drop(active);
        pass(74).await;
        assert_eq!(watch.over_limit(), None);
        pass(1).await;
        assert_eq!(watch.over_limit(), Some("it was idle"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off_even_within_a_request() {
        let watch = Arc::new(Watch::new());
        let _active = Active::begin(&watch, Version::HTTP_2);
        watch.wrote(true);
        pass(20).await;
        watch.wrote(false);
        watch.wrote(true);
        pass(29).await;
        assert_eq!(watch.over_limit(), None);
        pass(1).await;
        assert!(watch.over_limit().unwrap().contains("take"));
    }
}
