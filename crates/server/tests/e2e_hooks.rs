//! Hooks as clients and people at the command line see them.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::process::{Command, Stdio};

use chaos::{Context, Result, Service, Setup, ensure};
use jobservice_conformance::receiver::{Receiver, Reply, until};
use serde_json::json;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Runs a command; answers with its exit code and its output.
async fn cli(data: &std::path::Path, args: &[&str], input: &[u8]) -> Result<(i32, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobservice"));
    command.arg("--data-dir").arg(data).args(args).env_remove("CORE_SECRET").env("JOB_SERVICE_HOOK_SECRET", SECRET);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), &input)?;
        child.wait_with_output()
    });
    let output = output.await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().unwrap_or(-1), text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_listed_sent_again_and_verified() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let service = Service::start(&Setup::real(data, 2).env("JOB_SERVICE_HOOK_SECRET", SECRET)).await?;
    let api = service.api();
    let id = api
        .submit_job(json!({"name": "noop", "status_hook": receiver.url("/"), "metadata": {"kind": "Generic"}}))
        .await?;
    until("two messages", || receiver.count() == 2).await;
    let mut events = api.hooks(&id).await?;
    while events.iter().any(|event| event["delivery"] != "delivered") {
        chaos::pause(std::time::Duration::from_millis(5)).await; // bounded poll
        events = api.hooks(&id).await?;
    }
    let told: Vec<_> = events.iter().map(|event| (&event["seq"], &event["status"], &event["tries"])).collect();
    let expected = [(json!(1), json!("running"), json!(1)), (json!(2), json!("success"), json!(1))];
    assert_eq!(told, expected.iter().map(|(seq, status, tries)| (seq, status, tries)).collect::<Vec<_>>());
    ensure!(events[0]["delivered_at"].is_i64() && events[0].get("next_try").is_none(), "{events:?}");

    let (code, listed) = cli(data, &["hooks", &id], b"").await?;
    ensure!(code == 0 && listed.lines().count() == 2 && listed.contains("success     delivered"), "{code} {listed}");
    let (code, text) = cli(data, &["hooks", "resend", &id, "2"], b"").await?;
    ensure!(code == 0, "{code} {text}");
    until("it came again", || receiver.count() == 3).await;
    let (code, text) = cli(data, &["hooks", "resend", &id, "9"], b"").await?;
    ensure!(code == 1 && text.contains("no hook event 9"), "{code} {text}");

    let message = receiver.messages().pop().context("a message")?;
    let mut wire = b"POST / HTTP/1.1\r\n".to_vec();
    for (name, value) in &message.headers {
        wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(&message.body);
    let (code, text) = cli(data, &["hooks", "verify"], &wire).await?;
    ensure!(code == 0 && text.contains("the signature is good"), "{code} {text}");
    let last = wire.len() - 1;
    wire[last] = b' ';
    let (code, text) = cli(data, &["hooks", "verify"], &wire).await?;
    ensure!(code == 1 && text.contains("not to be trusted"), "{code} {text}");
    Ok(())
}
