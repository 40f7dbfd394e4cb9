//! One delivery: a POST, and what the answer means.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::{Time, limits};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use tokio::sync::OnceCell;

use super::HookOptions;
use super::address::{Refused, Target};
use super::resolve::Guarded;
use super::schedule;
use super::sign;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How much is read of an answer: enough to use its connection again in the usual case. It is never shown: it may come from
/// inside the operator's network.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// Connections kept for the next message, per host, and for how long.
const IDLE_MAX: usize = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest text of a failure that is kept.
const FAILURE_BYTES_MAX: usize = 300;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What became of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver has it.
    Delivered,
    /// The receiver wants no more of this job.
    Gone,
    /// The receiver, or what stands before it, is ill or too busy: that may hold for all that is sent to the host.
    Ill { why: String, asked: Option<Duration> },
    /// It was not delivered for a reason that says nothing about the host.
    NotTaken(String),
}

/// Sends messages.
pub(super) struct Sender {
    options: Arc<HookOptions>,
    /// Made for the first message: a service without hooks needs none.
    client: OnceCell<Client>,
}

impl Sender {
    pub(super) fn new(options: Arc<HookOptions>) -> Sender {
        Sender { options, client: OnceCell::new() }
    }

    /// Sends one message.
    pub(super) async fn send(&self, target: &Target, id: &str, body: Vec<u8>, now: Time) -> Answer {
        let client = match self.client.get_or_try_init(|| async { self.client() }).await {
            Ok(client) => client,
            Err(error) => return Answer::NotTaken(format!("cannot make a client: {error}")),
        };
        let Some(headers) = self.headers(id, &body, now) else {
            return Answer::NotTaken("its headers cannot be sent".to_owned());
        };
        let sent = client.post(target.url.clone()).headers(headers).body(body).send().await;
        match sent {
            Ok(answer) => judge(answer, now).await,
            Err(error) => self.failed(&error),
        }
    }

    fn client(&self) -> reqwest::Result<Client> {
        let builder = || {
            let resolver =
                Guarded { policy: Arc::clone(&self.options.policy), resolver: Arc::clone(&self.options.resolver) };
            Client::builder()
                // A redirect would lead past the checks of the address, and a proxy would make the connection for us.
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .dns_resolver(resolver)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(self.options.timeout)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(IDLE_MAX)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .referer(false)
                .user_agent(concat!("jobservice/", env!("CARGO_PKG_VERSION")))
        };
        builder().build().or_else(|error| {
            // Hooks without TLS must not suffer from it; those with it fail, and say so.
            tracing::warn!(error = %error, "no certificate authorities: hooks over https will fail; install ca-certificates");
            builder().tls_certs_only([]).build()
        })
    }

    fn headers(&self, id: &str, body: &[u8], now: Time) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ID, HeaderValue::from_str(id).ok()?);
        headers.insert(TIMESTAMP, HeaderValue::from(now.as_seconds()));
        if !self.options.secrets.is_empty() {
            let signature = sign::sign(&self.options.secrets, id, now, body);
            headers.insert(SIGNATURE, HeaderValue::from_str(&signature).ok()?);
        }
        Some(headers)
    }

    /// Why there was no answer.
    fn failed(&self, error: &reqwest::Error) -> Answer {
        let mut last: &(dyn std::error::Error + 'static) = error;
        let mut next = error.source();
        while let Some(cause) = next {
            if let Some(refused) = cause.downcast_ref::<Refused>() {
                return Answer::NotTaken(format!("the URL {refused}"));
            }
            last = cause;
            next = cause.source();
        }
        let why = if error.is_timeout() && !error.is_connect() {
            format!("did not answer within {} s", self.options.timeout.as_secs())
        } else if error.is_connect() {
            format!("cannot connect: {last}")
        } else {
            format!("no answer: {last}")
        };
        Answer::Ill { why: limits::cut(&why, FAILURE_BYTES_MAX).into_owned(), asked: None }
    }
}

async fn judge(mut answer: reqwest::Response, now: Time) -> Answer {
    let status = answer.status();
    let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|text| schedule::retry_after(text, now));
    let mut read = 0;
    // What the answer says is of no interest; whether it ends tells whether the connection can be used again.
    while read < ANSWER_BYTES_MAX
        && let Ok(Some(piece)) = answer.chunk().await
    {
        read += piece.len();
    }
    let why = format!("answered {}", status.as_u16());
    match status {
        _ if status.is_success() => Answer::Delivered,
        StatusCode::GONE => Answer::Gone,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Answer::Ill { why, asked },
        _ if status.is_server_error() => Answer::Ill { why, asked: None },
        _ if status.is_redirection() => Answer::NotTaken(format!("{why}: redirects are not followed")),
        _ => Answer::NotTaken(why),
    }
}
