//! Goal: nobody does anything without a secret, and pages of other sites do nothing at all.
//! Method: every route of the table with no secret, with wrong ones and with each good one; then what is no route.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::path::Path;

use chaos::{Result, Service, Setup};
use jobservice_server::{Role, Route, routes};
use reqwest::{Method, Response};
use serde_json::Value;

const OLD: &str = "old-secret-of-sixteen";
const NEW: &str = "new-secret-of-sixteen";

/// A service with two secrets. The harness reads one from the data directory, where the service would not put it.
async fn start(data: &Path) -> Result<Service> {
    std::fs::write(data.join("secret"), OLD)?;
    Service::start(&Setup::real(data, 1).env("CORE_SECRET", format!("{OLD}, {NEW}"))).await
}

async fn send(service: &Service, method: &Method, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut request = reqwest::Client::new().request(method.clone(), format!("{}{path}", service.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

/// The status and the reason of an answer; every error must have the body of one.
async fn outcome(answer: Response) -> Result<(u16, String)> {
    let code = answer.status().as_u16();
    if code < 400 {
        return Ok((code, String::new()));
    }
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body: Value = serde_json::from_str(&answer.text().await?)?;
    assert_eq!(body["code"].as_u64(), Some(code.into()), "{body}");
    for text in ["err", "description", "reason"] {
        assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "no {text} in {body}");
    }
    Ok((code, body["reason"].as_str().unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn every_route_is_closed_without_a_good_secret() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = start(data.path()).await?;
    let mut checked = 0;
    for route in routes() {
        let path = route.path.replace("{id}", "01a20f36-0000-7000-8000-000000000000");
        for bad in
            ["", "Harbor-Secret", "Harbor-Secret wrong", &format!("Harbor-Secret {OLD}x"), &format!("Basic {OLD}"), OLD]
        {
            let headers: &[(&str, &str)] = if bad.is_empty() { &[] } else { &[("authorization", bad)] };
            let answer = send(&service, &route.method, &path, headers).await?;
            let challenges = answer.headers().contains_key("www-authenticate");
            let (code, reason) = outcome(answer).await?;
            match route.role {
                None => assert_eq!(code, 200, "{} {path} {bad:?}", route.method),
                Some(_) => {
                    assert_eq!(
                        (code, reason.as_str(), challenges),
                        (401, "unauthorized", true),
                        "{} {path} {bad:?}",
                        route.method
                    );
                }
            }
            checked += 1;
        }
        for good in [format!("Harbor-Secret {OLD}"), format!("harbor-secret {NEW}"), format!("Bearer {NEW}")] {
            let (code, reason) =
                outcome(send(&service, &route.method, &path, &[("authorization", &good)]).await?).await?;
            assert!(!matches!(code, 401 | 403), "{} {path}: {code} {reason}", route.method);
            checked += 1;
        }
    }
    println!("{} routes, {checked} requests", routes().len());
    Ok(())
}

#[tokio::test]
async fn who_has_no_secret_learns_nothing_of_what_there_is() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = start(data.path()).await?;
    let unknown = [
        (Method::GET, "/"),
        (Method::GET, "/api/v1/nothing"),
        (Method::GET, "/api/v1/stats/"),
        (Method::GET, "//healthz"),
        (Method::POST, "/api/v1/stats"),
        (Method::DELETE, "/healthz"),
        (Method::PUT, "/api/v1/jobs"),
        (Method::OPTIONS, "/api/v1/jobs"),
        (Method::TRACE, "/healthz"),
        (Method::GET, "/api/v1/jobs/../stats/x"),
        (Method::GET, "/%68ealthz"),
    ];
    for (method, path) in unknown {
        let without = outcome(send(&service, &method, path, &[]).await?).await?;
        let with = send(&service, &method, path, &[("authorization", &format!("Bearer {OLD}"))]).await?;
        let allow = with.headers().get("allow").cloned();
        let with = outcome(with).await?;

        assert_eq!(without, (401, "unauthorized".to_owned()), "{method} {path}");
        match with.0 {
            404 => assert_eq!(with.1, "unknown_path", "{method} {path}"),
            405 => assert!(
                with.1 == "method_not_allowed" && allow.is_some_and(|allow| !allow.is_empty()),
                "{method} {path}"
            ),
            code => panic!("{method} {path}: {code}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_even_with_the_secret() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = start(data.path()).await?;
    let secret = format!("Harbor-Secret {OLD}");
    let foreign: [&[(&str, &str)]; 4] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "http://127.0.0.1:1"), ("sec-fetch-site", "same-site")],
    ];
    for route in routes() {
        let path = route.path.replace("{id}", "01a20f36-0000-7000-8000-000000000000");
        for headers in foreign {
            let mut headers = headers.to_vec();
            headers.push(("authorization", &secret));
            let refused = outcome(send(&service, &route.method, &path, &headers).await?).await?;
            assert_eq!(refused, (403, "cross_site".to_owned()), "{} {path}", route.method);
        }
    }
    let own = [("origin", service.url.as_str()), ("sec-fetch-site", "same-origin"), ("authorization", &secret)];
    assert_eq!(send(&service, &Method::GET, "/api/v1/jobs", &own).await?.status(), 200);
    Ok(())
}

#[test]
fn the_table_opens_what_the_contract_says_and_nothing_else() {
    let open: Vec<&str> = routes().iter().filter(|route| route.role.is_none()).map(|route| route.path).collect();
    assert_eq!(open, ["/api/v1/stats", "/api/v1/healthz", "/api/v1/readyz", "/healthz", "/readyz"]);
    // A preview changes nothing; its question is too long for a query.
    let changes = |route: &Route| route.method != Method::GET && !route.path.ends_with("/preview");
    let changing = routes().into_iter().filter(changes);
    assert!(changing.into_iter().all(|route| route.role == Some(Role::Operator)));
}

#[tokio::test]
async fn a_public_address_without_a_secret_is_refused() -> Result<()> {
    let data = tempfile::tempdir()?;
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_jobservice"))
        .args(["--bind", "0.0.0.0", "--port", "0", "--data-dir"])
        .arg(data.path())
        .env_remove("CORE_SECRET")
        .output()?;
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        !ended.status.success() && text.contains("a public address needs a secret") && text.contains("CORE_SECRET"),
        "{text}"
    );
    assert!(std::fs::read_dir(data.path())?.next().is_none(), "nothing may be written before that");
    Ok(())
}
