//! A typed client of the REST API of `jobservice`: what the command line and the end-to-end tests use.
//!
//! One call is one request; nothing is repeated behind the caller's back, because only the caller knows whether that is
//! safe. A [`Client`] is cheap to clone and keeps its connections.
//!
//! ```no_run
//! # async fn run() -> jobservice_client::Result<()> {
//! use jobservice_client::{Client, Submission};
//! use std::time::Duration;
//!
//! let client = Client::new("http://127.0.0.1:9443", "the secret")?;
//! let submission = Submission::new("demo").parameters(r#"{"image": "demo:1"}"#)?;
//! let submitted = client.submit(&submission).await?;
//! let job = client.wait(&submitted.job.id, Duration::from_secs(30)).await?;
//! println!("{}: {}", job.id, job.status);
//! # Ok(()) }
//! ```
#![deny(missing_docs)]

mod error;
mod model;
mod operate;
mod schedule;
mod trust;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Request, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use error::{Error, Refused, Result};
pub use model::{
    Action, Attempt, HookEvent, Job, ListQuery, LogQuery, Metadata, Page, Pool, Submission, Submitted, Waiting,
};
pub use operate::{BatchAnswer, BulkAction, BulkDone, Minute, Queue, QueueChange, QueueOptions, Readiness};
pub use schedule::{ExecutionsQuery, Preview, PreviewTime, Schedule, ScheduleAction, Schedules};
pub use trust::Trust;

/// How long a connection may take to come about: the service is near.
const CONNECT_SECONDS_MAX: u64 = 5;

/// How long an answer may take, apart from the time that the request asks the service to wait.
const ANSWER_SECONDS_MAX: u64 = 30;

/// How long one call waits for the end of a job: the service answers earlier.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The service's REST API.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: HeaderValue,
}

impl Client {
    /// A client of the service at `url` (with or without `/api/v1`), which shows `secret`. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the URL or the secret cannot be sent.
    pub fn new(url: &str, secret: &str) -> Result<Client> {
        Client::trusting(url, secret, &Trust::System)
    }

    /// The same, for a service under https whose certificate this machine does not trust by itself.
    ///
    /// # Errors
    /// As [`Client::new`], and if the certificates cannot be read.
    pub fn trusting(url: &str, secret: &str, trust: &Trust) -> Result<Client> {
        let unusable = |problem: String| Error::Unusable { what: "the url", problem };
        let root = url.trim().trim_end_matches('/').trim_end_matches("/api/v1");
        let base = Url::parse(&format!("{root}/api/v1/")).map_err(|error| unusable(format!("{url:?}: {error}")))?;
        if base.cannot_be_a_base() || base.host_str().is_none() {
            return Err(unusable(format!("{url:?} is not like http://host:port")));
        }
        let mut authorization = HeaderValue::try_from(format!("Harbor-Secret {secret}"))
            .map_err(|_| Error::Unusable { what: "the secret", problem: "it holds control characters".to_owned() })?;
        authorization.set_sensitive(true);
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
                .tcp_nodelay(true)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
        };
        let http = match trust.config()? {
            Some(config) => builder().tls_backend_preconfigured(config).build(),
            // A system without certificate authorities can still talk to a service without TLS.
            None => builder().build().or_else(|_| builder().tls_certs_only([]).build()),
        };
        let http = http.map_err(|source| Error::NoAnswer { url: base.to_string(), source })?;
        Ok(Client { http, base, authorization })
    }

    /// Where the service is.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// Submits a job. When this has answered, the job is durable.
    pub async fn submit(&self, submission: &Submission) -> Result<Submitted> {
        let mut request = self.request(Method::POST, &["jobs"]);
        *request.body_mut() = Some(Client::submission_body(submission)?.into());
        self.submitted(request).await
    }

    fn submission_body(submission: &Submission) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Body<'a> {
            job: &'a Submission,
        }
        // Not by way of a tree: that would change numbers in the parameters.
        serde_json::to_vec(&Body { job: submission })
            .map_err(|error| Error::Unusable { what: "the submission", problem: error.to_string() })
    }

    async fn submitted(&self, mut request: Request) -> Result<Submitted> {
        #[derive(Deserialize)]
        struct Answer {
            job: Job,
            #[serde(default)]
            warnings: Vec<String>,
            #[serde(default)]
            outcome: Option<String>,
        }
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        let Answer { job, warnings, outcome } = self.json(request).await?;
        Ok(Submitted { job, warnings, outcome })
    }

    /// What is known of a job.
    pub async fn get(&self, id: &str) -> Result<Job> {
        self.job(id, None).await
    }

    /// As [`Client::get`], answered as soon as the job is final, at the latest after `at_most` (the service waits no
    /// longer than a minute): look at the status.
    pub async fn wait(&self, id: &str, at_most: Duration) -> Result<Job> {
        self.job(id, Some(at_most)).await
    }

    async fn job(&self, id: &str, wait: Option<Duration>) -> Result<Job> {
        #[derive(Deserialize)]
        struct Answer {
            job: Job,
        }
        let mut request = self.request(Method::GET, &["jobs", id]);
        if let Some(wait) = wait {
            let wait = wait.min(WAIT_MAX);
            request.url_mut().query_pairs_mut().append_pair("wait", &format!("{}ms", wait.as_millis()));
            *request.timeout_mut() = Some(wait + Duration::from_secs(ANSWER_SECONDS_MAX));
        }
        Ok(self.json::<Answer>(request).await?.job)
    }

    /// A page of jobs.
    pub async fn list(&self, query: &ListQuery) -> Result<Page> {
        let mut request = self.request(Method::GET, &["jobs"]);
        let limit = query.limit.map(|limit| limit.to_string());
        let pages = [("limit", limit.as_deref()), ("cursor", query.cursor.as_deref())];
        let pages = pages.into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (key, value) in query.filters().into_iter().chain(pages) {
            request.url_mut().query_pairs_mut().append_pair(key, value);
        }
        let answer = self.send(request).await?;
        let next = answer.headers().get("next-cursor").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Page { jobs: self.read(answer).await?, next })
    }

    /// Stops, cancels or retries a job. A running one is only told to end: watch it.
    pub async fn control(&self, id: &str, action: Action) -> Result<()> {
        let mut request = self.request(Method::POST, &["jobs", id]);
        *request.body_mut() = Some(format!("{{\"action\": \"{}\"}}", action.as_str()).into());
        self.send(request).await.map(drop)
    }

    /// Removes a final job with all that belongs to it.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, &["jobs", id])).await.map(drop)
    }

    /// The hook events of a job that wait or are kept, in order.
    pub async fn hooks(&self, id: &str) -> Result<Vec<HookEvent>> {
        self.json(self.request(Method::GET, &["jobs", id, "hooks"])).await
    }

    /// Sends a hook event again.
    pub async fn resend_hook(&self, id: &str, seq: u32) -> Result<()> {
        let seq = seq.to_string();
        self.send(self.request(Method::POST, &["jobs", id, "hooks", &seq])).await.map(drop)
    }

    /// The text of a job's log, in pieces as they come. With `follow` it ends when the job has.
    pub async fn log(&self, id: &str, query: LogQuery) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let mut request = self.request(Method::GET, &["jobs", id, "log"]);
        if query.follow {
            request.url_mut().query_pairs_mut().append_pair("follow", "true");
        }
        // The reader takes its time, and a followed log ends with its job: only the head must come in time.
        *request.timeout_mut() = None;
        for (key, value) in [("tail", query.tail), ("offset", query.offset)] {
            if let Some(value) = value {
                request.url_mut().query_pairs_mut().append_pair(key, &value.to_string());
            }
        }
        let head = tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), self.send(request));
        let answer = head.await.map_err(|_| Error::TooSlow { url: self.base.to_string() })??;
        let url = self.base.to_string();
        Ok(answer.bytes_stream().map(move |piece| piece.map_err(|source| Error::NoAnswer { url: url.clone(), source })))
    }

    /// The worker pools.
    pub async fn stats(&self) -> Result<Vec<Pool>> {
        self.json(self.request(Method::GET, &["stats"])).await
    }

    /// Whether the service can do its work now.
    pub async fn is_ready(&self) -> Result<bool> {
        Ok(self.readiness().await?.status != "unavailable")
    }

    fn request(&self, method: Method, path: &[&str]) -> Request {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Segments are escaped, so that an id can never name another resource.
            segments.pop_if_empty().extend(path);
        }
        let mut request = Request::new(method, url);
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        *request.timeout_mut() = Some(Duration::from_secs(ANSWER_SECONDS_MAX));
        request
    }

    /// Reads the body of an answer of whatever status.
    async fn json_whatever<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let no_answer = |source| Error::NoAnswer { url: self.base.to_string(), source };
        let answer = self.http.execute(request).await.map_err(no_answer)?;
        self.read(answer).await
    }

    async fn send(&self, request: Request) -> Result<Response> {
        let no_answer = |source| Error::NoAnswer { url: self.base.to_string(), source };
        let answer = self.http.execute(request).await.map_err(no_answer)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(no_answer)?;
        match serde_json::from_slice::<Refused>(&body) {
            Ok(refused) => Err(Error::Refused(Box::new(refused))),
            Err(_) => Err(self.unreadable(format!("it answered {status} without saying why"))),
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let answer = self.send(request).await?;
        self.read(answer).await
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Result<T> {
        let body = answer.bytes().await.map_err(|source| Error::NoAnswer { url: self.base.to_string(), source })?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error.to_string()))
    }

    fn unreadable(&self, problem: String) -> Error {
        Error::Unreadable { url: self.base.to_string(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_may_end_with_a_slash_or_the_api_path() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/api/v1", " http://h:1/api/v1/\n"] {
            assert_eq!(Client::new(url, "s").unwrap().url(), "http://h:1/api/v1/", "{url:?}");
        }
        assert!(matches!(Client::new("h:1", "s"), Err(Error::Unusable { .. })));
        assert!(matches!(Client::new("http://h", "s\n"), Err(Error::Unusable { .. })));
    }

    #[test]
    fn ids_are_escaped_and_never_name_another_resource() {
        let client = Client::new("http://h:1", "s").unwrap();
        let request = client.request(Method::GET, &["jobs", "a/../b?c#d"]);
        assert_eq!(request.url().as_str(), "http://h:1/api/v1/jobs/a%2F..%2Fb%3Fc%23d");
    }

    #[test]
    fn secret_is_not_shown_by_debug() {
        let client = Client::new("http://h:1", "canary-secret").unwrap();
        assert!(!format!("{client:?}").contains("canary"));
    }
}
