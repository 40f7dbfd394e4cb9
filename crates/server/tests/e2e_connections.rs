//! Goal: a connection that speaks no HTTP, or stops halfway, is answered or closed in time, and costs others nothing.
//! Method: plain sockets that send what no client would.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::time::Duration;

use chaos::{Result, Service, Setup, now, pause};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends bytes and reads until the service closes, or the time is up.
async fn raw(service: &Service, bytes: &[u8], limit: Duration) -> Result<(Vec<u8>, bool)> {
    let address = service.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    // The service may have closed before all is sent: then its answer is what counts.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await.is_ok();
    Ok((answer, closed))
}

#[tokio::test]
async fn bytes_that_are_no_http_are_answered_or_cut_off() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = Service::start(&Setup::real(data.path(), 1)).await?;
    let before = service.memory()?;
    let head = "POST /api/v1/jobs HTTP/1.1\r\nHost: h\r\n";
    let auth = format!("Authorization: Harbor-Secret {}\r\n", service.secret);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n".to_vec(), "400"),
        ("no version", b"GET /healthz\r\n\r\n".to_vec(), "400"),
        ("a bad version", b"GET /healthz HTTP/9.9\r\nHost: h\r\n\r\n".to_vec(), "400"),
        ("a control character in a header", format!("{head}X: a\x01b\r\n\r\n").into_bytes(), "400"),
        ("a header without a colon", format!("{head}nonsense\r\n\r\n").into_bytes(), "400"),
        ("a head of 20 KiB", format!("{head}X: {}\r\n\r\n", "x".repeat(20_000)).into_bytes(), "431"),
        ("a path of 20 KiB", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(20_000)).into_bytes(), "4"),
        ("200 headers", format!("{head}{}\r\n", "A: b\r\n".repeat(200)).into_bytes(), "431"),
        ("two lengths", format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab").into_bytes(), "400"),
        ("a negative length", format!("{head}Content-Length: -1\r\n\r\n").into_bytes(), "400"),
        ("a bad chunk", format!("{head}{auth}Transfer-Encoding: chunked\r\n\r\nzz\r\n").into_bytes(), "400"),
        (
            "a chunk that lies",
            format!("{head}{auth}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx").into_bytes(),
            "4",
        ),
        (
            "length and chunks",
            format!("{head}{auth}Content-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\nabcde").into_bytes(),
            "4",
        ),
    ];
    for (what, bytes, expected) in cases {
        let (answer, closed) = raw(&service, &bytes, Duration::from_secs(15)).await?;
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        assert!(closed, "{what}: the connection stays open; {line:?}");
        assert!(line.starts_with(&format!("HTTP/1.1 {expected}")), "{what}: {line:?}");
    }
    assert!(service.api().list("").await?.is_empty());
    assert!(service.memory()?.saturating_sub(before) < 64 << 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stop_halfway_are_closed_and_cost_others_nothing() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = Service::start(&Setup::real(data.path(), 1)).await?;
    let before = service.memory()?;
    let auth = format!("Authorization: Harbor-Secret {}\r\n", service.secret);
    let kinds: [(&str, String); 6] = [
        ("silent", String::new()),
        ("half an HTTP/2 preface", "PRI * HTTP/2.0\r\n".to_owned()),
        ("a whole HTTP/2 preface and nothing more", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("half a head", "GET /api/v1/jobs HTTP/1.1\r\nHost: h\r\nX".to_owned()),
        ("half a body", format!("POST /api/v1/jobs HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 100\r\n\r\n{{\"job\"")),
        ("half a second head", "GET /healthz HT".to_owned()),
    ];
    let started = now();
    let mut waiting = Vec::new();
    for (what, bytes) in &kinds {
        for _ in 0..50 {
            let (what, bytes) = ((*what).to_owned(), bytes.clone());
            let address = service.url.trim_start_matches("http://").to_owned();
            waiting.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                if what == "half a second head" {
                    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await?;
                    stream.read_exact(&mut [0; 15]).await?;
                }
                stream.write_all(bytes.as_bytes()).await?;
                let mut answer = Vec::new();
                let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
                anyhow::Ok((what, answer, closed.is_ok(), now() - started))
            }));
        }
    }
    let api = service.api();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < Duration::from_secs(9) {
        let asked = now();
        api.list("status=running").await?;
        slowest = slowest.max(asked.elapsed());
        pause(Duration::from_millis(20)).await; // bounded poll
    }
    let memory = service.memory()?.saturating_sub(before);

    let mut latest = Duration::ZERO;
    for waiter in waiting {
        let (what, answer, closed, after) = waiter.await??;
        assert!(closed, "{what}: still open after {after:?}");
        latest = latest.max(after);
        if what == "half a body" {
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(text.starts_with("HTTP/1.1 408") && text.contains("\"reason\":\"body_timeout\""), "{text}");
        }
    }
    println!(
        "300 half-open connections: the last closed after {latest:?}, slowest GET meanwhile {slowest:?}, memory +{} KiB",
        memory >> 10
    );
    assert!(latest < Duration::from_secs(15), "{latest:?}");
    assert!(slowest < Duration::from_secs(1), "a GET took {slowest:?} meanwhile");
    assert!(memory < 64 << 20, "memory grew by {memory} bytes");
    assert!(api.list("").await?.is_empty());
    Ok(())
}
