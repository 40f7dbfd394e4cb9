//! `jobservice hooks`: what became of a job's hook events, sending one again, and verifying a message.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use jobservice::hooks::{Secret, sign};
use jobservice_client::{Client, HookEvent};
use jobservice_core::{Clock as _, SystemClock, Time};

use super::args::{HookAction, Hooks, Verify};
use super::{FAILED, print};

/// A message that is larger is none of ours.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(super) async fn run(client: &Client, args: Hooks) -> Result<ExitCode> {
    match (args.action, args.id) {
        (Some(HookAction::Resend { id, seq }), _) => {
            client.resend_hook(&id, seq).await?;
            print::line(&format!("{id} {seq}: is sent again"))?;
        }
        (Some(HookAction::Verify(verify)), _) => return self::verify(&verify),
        (None, Some(id)) => {
            let events = client.hooks(&id).await?;
            if args.json {
                print::line(&serde_json::to_string(&events)?)?;
            } else {
                events.iter().try_for_each(row)?;
            }
        }
        (None, None) => bail!("say of which job"),
    }
    Ok(ExitCode::SUCCESS)
}

/// One event, for people.
fn row(event: &HookEvent) -> io::Result<()> {
    let at = |seconds: i64| Time::from_seconds(seconds).to_string();
    let what = match &event.check_in {
        Some(check_in) => format!("check-in {check_in:?}"),
        None => event.status.to_string(),
    };
    let became = match event.delivery.as_str() {
        "waiting" => format!("waiting, next try {}", event.next_try.map(at).unwrap_or_default()),
        "delivered" => format!("delivered {}", event.delivered_at.map(at).unwrap_or_default()),
        other => format!("{} {}", other.replace('_', " "), event.given_up_at.map(at).unwrap_or_default()),
    };
    let failure = event.failure.as_ref().map_or_else(String::new, |failure| format!("; last failure: {failure}"));
    let tries = if event.tries == 1 { "1 try".to_owned() } else { format!("{} tries", event.tries) };
    print::line(&print::plain(&format!("{:>4}  {}  {what:<10}  {became}, {tries}{failure}", event.seq, at(event.at))))
}

/// Verifies a message that was received, as it came over the wire.
pub(super) fn verify(args: &Verify) -> Result<ExitCode> {
    let secret = Secret::parse(&args.hook_secret).context("the secret cannot be used")?;
    let bytes = read(args.file.as_deref())?;
    let message = Message::parse(&bytes)?;
    let (id, timestamp) = (message.header("webhook-id")?, message.header("webhook-timestamp")?);
    let now = match (args.any_age, timestamp.trim().parse()) {
        (true, Ok(seconds)) => Time::from_seconds(seconds),
        _ => SystemClock::new().now(),
    };
    match sign::verify(&secret, id, timestamp, message.header("webhook-signature")?, message.body, now) {
        Ok(()) => {
            print::line(&format!("{id}: the signature is good"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            print::note(&format!("{id}: not to be trusted: {why}"));
            Ok(FAILED.into())
        }
    }
}

fn read(path: Option<&Path>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes)?;
        }
        None => {
            io::stdin().lock().take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes)?;
        }
    }
    Ok(bytes)
}

/// A message: header lines, an empty line, the body.
struct Message<'a> {
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl Message<'_> {
    fn parse(bytes: &[u8]) -> Result<Message<'_>> {
        let ends =
            |mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark).map(|at| (at, at + mark.len()));
        let (crlf, lf) = (ends(b"\r\n\r\n"), ends(b"\n\n"));
        let (head, body) = [crlf, lf].into_iter().flatten().min().context(
            "there is no empty line between headers and body; give the message as it came: header lines, an empty line, the body",
        )?;
        let head = std::str::from_utf8(bytes.get(..head).unwrap_or_default()).context("the headers are not UTF-8")?;
        let headers: Vec<_> = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let mut body = bytes.get(body..).unwrap_or_default();
        let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if let Some(length) = length.and_then(|(_, length)| length.parse().ok()) {
            body = body.get(..length).unwrap_or(body);
        }
        Ok(Message { headers, body })
    }

    fn header(&self, name: &str) -> Result<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).with_context(|| format!("there is no header {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_read_as_it_came() {
        let message =
            Message::parse(b"POST / HTTP/1.1\r\nWebhook-Id: evt_1\r\nContent-Length: 3\r\n\r\n{ }\n").unwrap();
        assert_eq!((message.header("webhook-id").unwrap(), message.body), ("evt_1", &b"{ }"[..]));
        assert!(message.header("webhook-signature").is_err());
        assert_eq!(Message::parse(b"a: b\n\n{}\r\n\r\n").unwrap().body, b"{}\r\n\r\n");
        assert!(Message::parse(b"a: b\n{}").is_err());
    }
}
