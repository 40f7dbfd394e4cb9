//! Goal: whatever comes in, the answer is the right error with a JSON body, nothing is written, and memory stays
//! bounded.
//! Method: a table of malformed requests over HTTP. What is no HTTP at all stands in `e2e_connections.rs`.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use chaos::{Result, Service, Setup, ensure};
use reqwest::Method;
use serde_json::{Value, json};

/// The largest body of a submission.
const SUBMIT_BYTES_MAX: usize = 256 * 1024;

/// A request and the answer that it must get.
struct Case {
    what: String,
    method: Method,
    path: String,
    body: Vec<u8>,
    code: u16,
    reason: &'static str,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, method: Method, path: &str, body: impl Into<Vec<u8>>, code: u16, reason: &'static str) {
        let body = body.into();
        let start: String = String::from_utf8_lossy(&body).chars().take(120).collect();
        let what = format!("{method} {path} {start}");
        self.0.push(Case { what, method, path: path.to_owned(), body, code, reason });
    }

    /// A body that is no submission.
    fn body(&mut self, body: impl Into<Vec<u8>>) {
        self.add(Method::POST, "/api/v1/jobs", body, 400, "invalid_request");
    }

    /// Metadata that is not right; the kind is Generic unless the fields say otherwise.
    fn metadata(&mut self, fields: &str) {
        let kind = if fields.contains("\"kind\"") { "" } else { "\"kind\": \"Generic\", " };
        self.body(format!("{{\"job\": {{\"name\": \"noop\", \"metadata\": {{{kind}{fields}}}}}}}"));
    }

    /// Parameters that may not be submitted.
    fn parameters(&mut self, parameters: &str) {
        self.body(format!(
            "{{\"job\": {{\"name\": \"noop\", \"parameters\": {parameters}, \"metadata\": {{\"kind\": \"Generic\"}}}}}}"
        ));
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    json_that_is_none(&mut cases);
    fields_of_the_wrong_type(&mut cases);
    values_out_of_range(&mut cases);
    parameters_that_are_ambiguous_or_deep(&mut cases);
    ids(&mut cases);
    queries(&mut cases);
    actions(&mut cases);
    operations(&mut cases);
    methods_and_paths(&mut cases);
    sizes(&mut cases);
    cases.0
}

fn json_that_is_none(cases: &mut Cases) {
    for body in [
        "",
        " ",
        "\n\t",
        "{",
        "}",
        "[",
        "[]",
        "[{}]",
        "null",
        "true",
        "0",
        "\"job\"",
        "{]",
        "{\"job\"}",
        "{\"job\":}",
        "{\"job\":{}",
        "{\"job\":{}}}",
        "{\"job\":{}}{}",
        "{'job':{}}",
        "{job:{}}",
        "{\"job\":{},}",
        "job=demo",
        "<job/>",
        "\u{feff}{\"job\":{}}",
        "{\"job\":{\"name\":\"noop\" \"metadata\":{}}}",
        "{\"job\":{\"name\":\"no\np\"}}",
        "{\"job\":{\"name\":\"\\x\"}}",
        "{\"job\":{\"name\":\"\\ud800\",\"metadata\":{\"kind\":\"Generic\"}}}",
        "{\"job\":NaN}",
        "{\"job\":{\"name\":01}}",
        "{\"job\":{}} //",
        "{/**/}",
    ] {
        cases.body(body);
    }
    for bytes in [
        &b"\xff\xfe{}"[..],
        b"{\"job\":\"\xc3\x28\"}",
        b"\x00",
        b"{\"a\":\"\x00\"}",
        b"\x1f\x8b\x08\x00",
        b"{\"job\":{\"name\":\"\xed\xa0\x80\"}}",
    ] {
        cases.body(bytes);
    }
}

fn fields_of_the_wrong_type(cases: &mut Cases) {
    let wrong = |of: &str| -> Vec<&str> {
        let all = [
            ("\"x\"", "string"),
            ("7", "number"),
            ("1.5", "float"),
            ("true", "boolean"),
            ("[1]", "array"),
            ("{}", "object"),
        ];
        all.iter().filter(|(_, kind)| !of.split(' ').any(|of| of == *kind)).map(|(text, _)| *text).collect()
    };
    for value in wrong("object") {
        cases.body(format!("{{\"job\": {value}}}"));
    }
    for value in wrong("string") {
        cases.body(format!("{{\"job\": {{\"name\": {value}, \"metadata\": {{\"kind\": \"Generic\"}}}}}}"));
        cases.body(format!(
            "{{\"job\": {{\"name\": \"noop\", \"status_hook\": {value}, \"metadata\": {{\"kind\": \"Generic\"}}}}}}"
        ));
        for field in ["kind", "cron_spec", "unique_key", "unique_scope", "idempotency_key"] {
            cases.metadata(&format!("\"{field}\": {value}"));
        }
    }
    for value in wrong("object") {
        cases.body(format!("{{\"job\": {{\"name\": \"noop\", \"metadata\": {value}}}}}"));
    }
    for field in ["priority", "max_fails", "schedule_delay", "run_at"] {
        for value in wrong("number") {
            cases.metadata(&format!("\"{field}\": {value}"));
        }
    }
    for field in ["timeout", "retention"] {
        for value in wrong("number") {
            cases.metadata(&format!("\"{field}\": {value}"));
        }
    }
    for value in wrong("boolean") {
        cases.metadata(&format!("\"unique\": {value}"));
    }
    for value in wrong("") {
        cases.metadata(&format!("\"tags\": {value}"));
    }
}

fn values_out_of_range(cases: &mut Cases) {
    cases.body("{}");
    cases.body("{\"job\": {}}");
    cases.body("{\"job\": null}");
    cases.body("{\"job\": {\"name\": \"noop\"}}");
    cases.body("{\"job\": {\"name\": \"\", \"metadata\": {\"kind\": \"Generic\"}}}");
    cases.body("{\"job\": {\"name\": \"noop\", \"metadata\": {}}}");
    for name in ["a b", "../etc", "näme", "a/b", "x\\u0000y", &"n".repeat(129)] {
        cases.body(format!("{{\"job\": {{\"name\": \"{name}\", \"metadata\": {{\"kind\": \"Generic\"}}}}}}"));
    }
    let long = "k".repeat(257);
    let tag = "t".repeat(129);
    let many: Vec<String> = (0..17).map(|n| format!("\"t{n}\"")).collect();
    for fields in [
        "\"kind\": \"\"",
        "\"kind\": \"hourly\"",
        "\"kind\": \"Scheduled\"",
        "\"kind\": \"Scheduled\", \"schedule_delay\": 0",
        "\"kind\": \"Scheduled\", \"schedule_delay\": -5",
        "\"kind\": \"Scheduled\", \"schedule_delay\": 18446744073709551616",
        "\"kind\": \"Scheduled\", \"schedule_delay\": 18446744073709551615",
        "\"kind\": \"Scheduled\", \"schedule_delay\": 1, \"run_at\": 1",
        "\"kind\": \"Scheduled\", \"run_at\": -1",
        "\"kind\": \"Scheduled\", \"run_at\": 9223372036854775807",
        "\"priority\": 10",
        "\"priority\": -1",
        "\"priority\": 256",
        "\"max_fails\": 101",
        "\"max_fails\": 4294967296",
        "\"timeout\": 0",
        "\"timeout\": -1",
        "\"timeout\": \"soon\"",
        "\"timeout\": \"400d\"",
        "\"retention\": \"5x\"",
        "\"retention\": 4294967296",
        "\"unique_scope\": \"for_ever\"",
        "\"unique\": false, \"unique_key\": \"k\"",
        "\"tags\": [\"\"]",
        &format!("\"tags\": [\"{tag}\"]"),
        &format!("\"tags\": [{}]", many.join(",")),
        &format!("\"unique_key\": \"{long}\""),
        &format!("\"idempotency_key\": \"{long}\""),
    ] {
        cases.metadata(fields);
    }
    let other = |metadata: &str| format!("{{\"job\": {{\"name\": \"noop\", \"metadata\": {metadata}}}}}");
    let unknown = "{\"job\": {\"name\": \"nope\", \"metadata\": {\"kind\": \"Generic\"}}}";
    cases.add(Method::POST, "/api/v1/jobs", unknown, 400, "unknown_name");
    cases.add(Method::POST, "/api/v1/jobs", other("{\"kind\": \"Periodic\"}"), 400, "invalid_request");
    let hook = "{\"job\": {\"name\": \"noop\", \"status_hook\": \"ftp://h\", \"metadata\": {\"kind\": \"Generic\"}}}";
    cases.add(Method::POST, "/api/v1/jobs", hook, 400, "invalid_request");
    cases.add(Method::POST, "/api/v1/jobs/nothing-here/hooks/0", "", 400, "invalid_request");
    cases.add(Method::POST, "/api/v1/jobs/nothing-here/hooks/x", "", 400, "invalid_request");
    cases.add(Method::POST, "/api/v1/jobs/nothing-here/hooks/1", "", 404, "unknown_job");
    cases.add(Method::GET, "/api/v1/jobs/nothing-here/hooks", "", 404, "unknown_job");
    cases.add(Method::GET, "/api/v1/jobs/x/hooks", "", 400, "invalid_id");
    let image =
        "{\"job\": {\"name\": \"demo\", \"parameters\": {\"image\": \"x\"}, \"metadata\": {\"kind\": \"Generic\"}}}";
    cases.body(image);
    cases.body(image.replace("{\"image\": \"x\"}", "{}"));
    cases.body(image.replace("{\"image\": \"x\"}", "[1]"));
    cases.body(image.replace("\"x\"", "\"demo\", \"seconds\": -1"));
}

fn parameters_that_are_ambiguous_or_deep(cases: &mut Cases) {
    cases.parameters("{\"a\": 1, \"a\": 2}");
    cases.parameters("{\"a\": 1, \"\\u0061\": 2}");
    cases.parameters("{\"x\": [{\"b\": {\"c\": 1, \"c\": 1}}]}");
    cases.parameters("[{\"\": 0, \"\": 0}]");
    cases.body("{\"job\": {\"name\": \"noop\", \"name\": \"demo\", \"metadata\": {\"kind\": \"Generic\"}}}");
    cases.body("{\"job\": {\"name\": \"noop\", \"metadata\": {\"kind\": \"Generic\"}}, \"job\": {}}");
    cases.metadata("\"kind\": \"Generic\", \"kind\": \"Scheduled\"");
    for depth in [65, 66, 200, 20_000, 100_000] {
        cases.parameters(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        if depth < 30_000 {
            cases.parameters(&format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
        }
    }
    cases.body("[".repeat(200_000));
    cases.body("{\"a\":".repeat(40_000));
}

fn ids(cases: &mut Cases) {
    let long = "x".repeat(65);
    for id in [
        "short",
        "..%2f..%2fetc%2fpasswd",
        "%00%00%00%00%00%00%00%00",
        "with%20space",
        "a%2Fb%2Fc%2Fd%2Fe",
        "caf%C3%A9-caf%C3%A9",
        "%2e%2e%2f%2e%2e%2f",
        "12345678;rm",
        "12345678'--",
        "%0d%0aSet-Cookie",
        long.as_str(),
    ] {
        for (method, path) in [
            (Method::GET, format!("/api/v1/jobs/{id}")),
            (Method::GET, format!("/api/v1/jobs/{id}/log")),
            (Method::POST, format!("/api/v1/jobs/{id}")),
            (Method::DELETE, format!("/api/v1/jobs/{id}")),
        ] {
            cases.add(method, &path, "{\"action\": \"stop\"}", 400, "invalid_id");
        }
    }
    cases.add(Method::GET, "/api/v1/jobs/%ff%ff%ff%ff%ff%ff%ff%ff", "", 400, "invalid_request");
    let unknown = "/api/v1/jobs/01a20f36-0000-7000-8000-000000000000";
    for (method, path) in [
        (Method::GET, unknown.to_owned()),
        (Method::GET, format!("{unknown}?wait=30s")),
        (Method::GET, format!("{unknown}/log")),
        (Method::GET, format!("{unknown}/log?follow=true")),
        (Method::POST, unknown.to_owned()),
        (Method::DELETE, unknown.to_owned()),
    ] {
        cases.add(method, &path, "{\"action\": \"retry\"}", 404, "unknown_job");
    }
}

fn queries(cases: &mut Cases) {
    for query in [
        "status=lost",
        "status=",
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=ten",
        "limit=1&limit=2",
        "name=a%20b",
        "name=",
        "upstream=short",
        "cursor=bogus",
        "cursor=%00",
        "stauts=error",
        "kind=hourly",
        "since=yesterday",
        "until=",
        "q=",
        "x",
        "status=error&y=1",
        "limit=1%",
        "cursor=eyJhIjoxfQ",
        "limit=18446744073709551616",
    ] {
        // A lone percent sign is taken as it stands by the form encoding: then it is no number.
        cases.add(Method::GET, &format!("/api/v1/jobs?{query}"), "", 400, "invalid_request");
    }
    let job = "/api/v1/jobs/01a20f36-0000-7000-8000-000000000000";
    for query in ["wait=soon", "wait=", "wait=-1s", "wait=1s&wait=2s", "waits=1s"] {
        cases.add(Method::GET, &format!("{job}?{query}"), "", 400, "invalid_request");
    }
    for query in ["follow=maybe", "tail=-1", "tail=x", "offset=1.5", "tail=1&offset=1", "lines=5"] {
        cases.add(Method::GET, &format!("{job}/log?{query}"), "", 400, "invalid_request");
    }
}

fn actions(cases: &mut Cases) {
    let job = "/api/v1/jobs/01a20f36-0000-7000-8000-000000000000";
    for body in [
        "",
        "{}",
        "[]",
        "stop",
        "{\"action\": 1}",
        "{\"action\": null}",
        "{\"action\": \"\"}",
        "{\"action\": [\"stop\"]}",
        "{\"action\": \"stop\", \"action\": \"retry\"}",
    ] {
        cases.add(Method::POST, job, body, 400, "invalid_request");
    }
    for action in ["kill", "pause", "stop ", "st\\u006Fpp", "恐"] {
        cases.add(Method::POST, job, format!("{{\"action\": \"{action}\"}}"), 501, "unknown_action");
    }
}

fn operations(cases: &mut Cases) {
    for body in ["", "{}", "7", "[1", "[] []", "[{},]", "null"] {
        cases.add(Method::POST, "/api/v1/jobs/batch", body, 400, "invalid_request");
    }
    cases.add(Method::POST, "/api/v1/jobs/batch", format!("[{}1]", "1,".repeat(10_000)), 400, "invalid_request");
    // As many elements as fit: what each takes in memory must not add up.
    cases.add(Method::POST, "/api/v1/jobs/batch", format!("[{}1]", "1,".repeat(4_000_000)), 400, "invalid_request");
    cases.add(Method::POST, "/api/v1/jobs/batch", vec![b' '; 16 * 1024 * 1024 + 1], 413, "body_too_large");
    for body in [
        "",
        "{\"filter\": {\"all\": true}}",
        "{\"action\": \"stop\"}",
        "{\"action\": \"stop\", \"filter\": {}}",
        "{\"action\": \"stop\", \"filter\": \"all\"}",
        "{\"action\": \"stop\", \"filter\": {\"all\": true, \"status\": \"pending\"}}",
        "{\"action\": \"stop\", \"filter\": {\"stauts\": \"pending\"}}",
        "{\"action\": \"stop\", \"filter\": {\"status\": [\"pending\"]}}",
        "{\"action\": \"stop\", \"filter\": {\"all\": true}, \"limit\": 0}",
        "{\"action\": \"stop\", \"filter\": {\"all\": true}, \"limit\": 10001}",
        "{\"action\": \"stop\", \"filter\": {\"all\": true}, \"cursor\": \"bogus\"}",
    ] {
        cases.add(Method::POST, "/api/v1/jobs/actions", body, 400, "invalid_request");
    }
    let unknown = "{\"action\": \"pause\", \"filter\": {\"all\": true}}";
    cases.add(Method::POST, "/api/v1/jobs/actions", unknown, 501, "unknown_action");
    for body in ["", "{}", "{\"paused\": 1}", "{\"weight\": 0}", "{\"weight\": 10001}", "{\"max_concurrency\": \"2\"}"]
    {
        cases.add(Method::PUT, "/api/v1/queues/noop", body, 400, "invalid_request");
    }
    cases.add(Method::PUT, "/api/v1/queues/a%20b", "{\"paused\": true}", 400, "invalid_request");
    cases.add(Method::GET, "/api/v1/queues?x=1", "", 400, "invalid_request");
    cases.add(Method::GET, "/api/v1/stats/counts?x=1", "", 400, "invalid_request");
    for query in ["since=30d", "since=soon", "name=a%20b", "minute=1"] {
        cases.add(Method::GET, &format!("/api/v1/stats/minutes?{query}"), "", 400, "invalid_request");
    }
}

fn methods_and_paths(cases: &mut Cases) {
    let job = "/api/v1/jobs/01a20f36-0000-7000-8000-000000000000";
    for (method, path) in [
        (Method::PUT, "/api/v1/jobs"),
        (Method::PATCH, "/api/v1/jobs"),
        (Method::DELETE, "/api/v1/jobs"),
        (Method::OPTIONS, "/api/v1/jobs"),
        (Method::PUT, job),
        (Method::PATCH, job),
        (Method::POST, &format!("{job}/log")),
        (Method::DELETE, &format!("{job}/log")),
        (Method::POST, "/api/v1/stats"),
        (Method::GET, "/api/v1/jobs/batch"),
        (Method::GET, "/api/v1/jobs/actions"),
        (Method::POST, "/api/v1/queues"),
        (Method::DELETE, "/api/v1/queues/noop"),
        (Method::POST, "/healthz"),
    ] {
        cases.add(method, path, "", 405, "method_not_allowed");
    }
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/jobs",
        "/API/V1/JOBS",
        "/api/v1/jobs/",
        "/api/v1//jobs",
        "/favicon.ico",
        "/api/v1/jobs/a/b/c",
        "/%2e%2e/etc/passwd",
        "/api/v1/stats/",
    ] {
        cases.add(Method::GET, path, "", 404, "unknown_path");
    }
}

fn sizes(cases: &mut Cases) {
    let job = "/api/v1/jobs/01a20f36-0000-7000-8000-000000000000";
    let submission = |bytes: usize| {
        let frame =
            "{\"job\": {\"name\": \"noop\", \"parameters\": {\"x\": \"\"}, \"metadata\": {\"kind\": \"Generic\"}}}";
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
    };
    for bytes in [SUBMIT_BYTES_MAX + 1, SUBMIT_BYTES_MAX + 4096, 600_000, 1_000_000] {
        cases.add(Method::POST, "/api/v1/jobs", submission(bytes), 413, "body_too_large");
    }
    cases.add(Method::POST, job, vec![b' '; 16 * 1024 + 1], 413, "body_too_large");
    // What a tree would make a hundred times larger.
    let amplified = |item: &str| format!("{{\"a\": [{}0]}}", item.repeat(200_000 / item.len()));
    for item in ["[0],", "{\"\":0},", "0,", "\"\","] {
        cases.body(amplified(item));
    }
}

#[tokio::test]
async fn malformed_requests_get_the_right_error_and_change_nothing() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = Service::start(&Setup::real(data.path(), 1)).await?;
    let client = reqwest::Client::new();
    let before = service.memory()?;
    let all = cases();
    ensure!(all.len() >= 200, "only {} cases", all.len());

    let mut wrong = Vec::new();
    for case in &all {
        let answer = client
            .request(case.method.clone(), format!("{}{}", service.url, case.path))
            .header("authorization", format!("Harbor-Secret {}", service.secret))
            .body(case.body.clone())
            .send()
            .await?;
        let code = answer.status().as_u16();
        let has_type = answer.headers().get("content-type").is_some_and(|value| value == "application/json");
        let allows = code != 405 || answer.headers().get("allow").is_some_and(|allow| !allow.is_empty());
        let text = answer.text().await?;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let is_error = has_type
            && allows
            && body["code"].as_u64() == Some(code.into())
            && ["err", "description"].iter().all(|field| body[field].as_str().is_some_and(|text| !text.is_empty()));
        if !is_error || code != case.code || body["reason"] != case.reason {
            wrong.push(format!("{}\n    expected {} {}, got {code} {text}", case.what, case.code, case.reason));
        }
    }
    let api = service.api();
    let jobs = api.list("").await?;
    let grown = service.memory()?.saturating_sub(before);
    println!("{} malformed requests, memory grew by {} KiB", all.len(), grown >> 10);

    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(jobs.is_empty(), "something was written: {jobs:?}");
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    let largest = json!({"image": "demo:1", "seconds": 0, "x": "x".repeat(SUBMIT_BYTES_MAX - 200)});
    api.submit("demo", largest, json!({})).await?;
    Ok(())
}
