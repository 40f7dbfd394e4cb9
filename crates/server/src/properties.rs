//! Properties of the system that jobs run for, fetched from `core_server`.
//!
//! They are fetched in the background and looked up in memory: a job that asks for one never waits for a server. The last
//! good answer is used as long as there is no newer one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jobservice::PropertySource;
use jobservice_core::limits::{PROPERTIES_BYTES_MAX, PROPERTIES_KEPT};
use parking_lot::RwLock;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::http::chain;

/// Where the properties are, on that server.
const PATH: &str = "/api/internal/configurations";

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// After a failure it is asked again sooner than after an answer.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long the start waits for the first answer: jobs that run at once should have it, but the service must not depend on
/// the order in which servers are started.
const START_WAIT_MAX: Duration = Duration::from_secs(3);

/// Why properties could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it did not answer")]
    NoAnswer(#[source] reqwest::Error),
    #[error("it answered {0}")]
    Refused(reqwest::StatusCode),
    #[error("its answer has more than {PROPERTIES_BYTES_MAX} bytes")]
    TooLarge,
    #[error("its answer is no JSON object")]
    NoObject(#[source] serde_json::Error),
}

/// What was fetched last.
#[derive(Debug, Default)]
pub(crate) struct CoreProperties {
    values: RwLock<HashMap<String, String>>,
}

impl PropertySource for CoreProperties {
    fn get(&self, property: &str) -> Option<String> {
        self.values.read().get(property).cloned()
    }
}

impl CoreProperties {
    /// Begins to fetch, and waits a little for the first answer. It goes on until the runtime ends.
    pub(crate) async fn start(server: &str, secret: &str) -> anyhow::Result<Arc<CoreProperties>> {
        let source = Source::new(server, secret)?;
        let properties = Arc::new(CoreProperties::default());
        let (asked, mut first) = watch::channel(false);
        let kept = Arc::clone(&properties);
        tokio::spawn(async move {
            let mut trouble = false;
            loop {
                let fetched = source.fetch().await;
                let pause = kept.take(fetched, &source.url, &mut trouble);
                asked.send_replace(true);
                drop(timeout(pause, std::future::pending::<()>()).await);
            }
        });
        // Late, or never: the service starts all the same.
        drop(timeout(START_WAIT_MAX, first.wait_for(|asked| *asked)).await);
        Ok(properties)
    }

    /// Takes what was fetched, or says once that nothing was. Answers when to ask again.
    fn take(&self, fetched: Result<HashMap<String, String>, FetchError>, url: &str, trouble: &mut bool) -> Duration {
        match fetched {
            Ok(values) => {
                if std::mem::take(trouble) {
                    tracing::info!("properties are fetched from {url} again");
                }
                *self.values.write() = values;
                PROPERTIES_KEPT
            }
            Err(error) => {
                if !std::mem::replace(trouble, true) {
                    let count = self.values.read().len();
                    let error = chain(&error);
                    tracing::warn!(error, "cannot fetch properties from {url}, using the {count} of before: {error}");
                }
                RETRY_AFTER
            }
        }
    }
}

/// Where properties are fetched, and what is shown for it.
struct Source {
    client: reqwest::Client,
    url: String,
    authorization: HeaderValue,
}

impl Source {
    fn new(server: &str, secret: &str) -> anyhow::Result<Source> {
        let mut authorization = HeaderValue::try_from(format!("Harbor-Secret {secret}"))?;
        authorization.set_sensitive(true);
        let builder = || {
            reqwest::Client::builder()
                .timeout(ANSWER_MAX)
                // The secret goes to that server and to no other.
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
        };
        // A system without certificate authorities can still talk to a server without TLS.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let client = client.context("core_server: cannot make a client for it")?;
        Ok(Source { client, url: format!("{server}{PATH}"), authorization })
    }

    async fn fetch(&self) -> Result<HashMap<String, String>, FetchError> {
        let request = self.client.get(&self.url).header(AUTHORIZATION, self.authorization.clone());
        let mut answer = request.send().await.map_err(FetchError::NoAnswer)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Refused(answer.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(FetchError::NoAnswer)? {
            if body.len() + piece.len() > PROPERTIES_BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        let object: Map<String, Value> = serde_json::from_slice(&body).map_err(FetchError::NoObject)?;
        Ok(object.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect())
    }
}

/// A value as the text that a job gets; none for one that is not set.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        value => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request after the other with these bodies, and gives back what was asked.
    async fn server(answers: Vec<(&'static str, String)>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 8192];
                let bytes = stream.read(&mut head).await.unwrap();
                asked.push(String::from_utf8_lossy(&head[..bytes]).into_owned());
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // Who has read enough hangs up.
                drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
            }
            asked
        });
        (url, asked)
    }

    #[tokio::test]
    async fn the_secret_is_shown_and_values_become_text() {
        let body = r#"{"email_from": "a@b", "port": 25, "tls": true, "unset": null, "list": [1]}"#;
        let (url, asked) = server(vec![("200 OK", body.to_owned())]).await;

        let properties = CoreProperties::start(&url, "canary").await.unwrap();

        let get = |key: &str| properties.get(key);
        assert_eq!((get("email_from").as_deref(), get("port").as_deref()), (Some("a@b"), Some("25")));
        assert_eq!((get("tls").as_deref(), get("list").as_deref(), get("unset")), (Some("true"), Some("[1]"), None));
        let asked = asked.await.unwrap().remove(0);
        assert!(asked.starts_with("GET /api/internal/configurations HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Harbor-Secret canary\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn the_last_good_answer_stays_while_there_is_no_better_one() {
        let large = format!("{{\"a\": \"{}\"}}", "x".repeat(PROPERTIES_BYTES_MAX));
        let bad = vec![
            ("500 Internal Server Error", "{}".to_owned()),
            ("302 Found\r\nlocation: /elsewhere", String::new()),
            ("200 OK", "[]".to_owned()),
            ("200 OK", large),
        ];
        let (properties, mut trouble) = (CoreProperties::default(), false);
        let good = Ok([("a".to_owned(), "1".to_owned())].into());
        assert_eq!(properties.take(good, "core", &mut trouble), PROPERTIES_KEPT);
        let count = bad.len();
        let (url, _asked) = server(bad).await;
        let source = Source::new(&url, "s").unwrap();
        for _ in 0..count {
            let fetched = source.fetch().await;
            assert!(fetched.is_err());
            assert_eq!(properties.take(fetched, "core", &mut trouble), RETRY_AFTER);
            assert!(trouble && properties.get("a").is_some());
        }
        assert_eq!(properties.take(Ok(HashMap::new()), "core", &mut trouble), PROPERTIES_KEPT);
        assert!(!trouble && properties.get("a").is_none());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_keeps_nothing_from_starting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let properties = CoreProperties::start(&url, "s").await.unwrap();
        assert_eq!(properties.get("a"), None);
    }
}
