//! A receiver of hooks: a small HTTP server that writes down what it gets and answers as the test says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How the receiver answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With this status and these header lines, each ending with a line end.
    With(u16, String),
    /// Not at all, and it keeps the connection.
    Hang,
    /// It cuts the connection.
    Reset,
}

/// A message that came.
#[derive(Clone, Debug)]
pub struct Message {
    /// The path and query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// When.
    pub at: Instant,
    /// Whether it was answered with success.
    pub is_taken: bool,
}

impl Message {
    /// A header that must be there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {:?}", self.headers))
    }

    /// The id of the event.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The job and the number of the event, from the id.
    pub fn event(&self) -> (&str, u32) {
        let (job, seq) = self.id().strip_prefix("evt_").unwrap().rsplit_once('_').unwrap();
        (job, seq.parse().unwrap())
    }

    /// The body.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The receiver. It ends when it is dropped.
pub struct Receiver {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Message>>>,
    connections: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// Starts a receiver on loopback that answers each message as `reply` says.
    pub async fn start(reply: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Receiver {
        Receiver::start_on("127.0.0.1:0", reply).await
    }

    /// The same on a given address.
    pub async fn start_on(at: &str, reply: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, connections): (Arc<Mutex<Vec<Message>>>, Arc<AtomicUsize>) = (Arc::default(), Arc::default());
        let shared = (Arc::clone(&log), Arc::clone(&connections), Arc::new(reply));
        let serving = tokio::spawn(async move {
            let (log, connections, reply) = shared;
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                tokio::spawn(serve(stream, log, reply));
            }
        });
        Receiver { address, log, connections, serving }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What came so far, in the order in which it was answered.
    pub fn messages(&self) -> Vec<Message> {
        self.log.lock().clone()
    }

    /// How many messages came so far.
    pub fn count(&self) -> usize {
        self.log.lock().len()
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<Message>>>,
    reply: Arc<impl Fn(&Message) -> Reply + Send + Sync>,
) {
    let mut bytes = Vec::new();
    while let Some(mut message) = read(&mut stream, &mut bytes).await {
        let reply = reply(&message);
        message.is_taken = matches!(reply, Reply::Status(200..=299) | Reply::With(200..=299, _));
        log.lock().push(message);
        let (status, lines) = match reply {
            Reply::Status(status) => (status, String::new()),
            Reply::With(status, lines) => (status, lines),
            Reply::Hang => {
                // Until the other side goes.
                while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
                return;
            }
            Reply::Reset => {
                drop(stream.set_zero_linger());
                return;
            }
        };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{lines}\r\nok");
        if stream.write_all(answer.as_bytes()).await.is_err() || lines.contains("connection: close") {
            return;
        }
    }
}

/// Reads one message; none when the other side has gone.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Message> {
    loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
            let mut lines = text.lines();
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let end = head + 4 + length;
            if bytes.len() >= end {
                let body = bytes[head + 4..end].to_vec();
                bytes.drain(..end);
                return Some(Message { path, headers, body, at: Instant::now(), is_taken: false });
            }
        }
        if !stream.read_buf(bytes).await.is_ok_and(|read| read > 0) {
            return None;
        }
    }
}

/// Waits until `is`, at most half a minute; says `what` it waited for if it never comes.
pub async fn until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        pause(Duration::from_millis(2)).await; // bounded poll
    }
}

/// A pause of a bounded poll.
#[expect(clippy::disallowed_methods, reason = "the one pause of bounded polls")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await; // bounded poll
}
