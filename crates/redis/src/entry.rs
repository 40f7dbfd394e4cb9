//! A hook event as it is stored, in the hash of its job's outbox.
//!
//! One line of fields, `delivery next_at tries resent_at status attempt at`, times in milliseconds, and after a line break
//! JSON of its texts if it has any. A claim writes such a line itself (`lua/claim.lua`).

use std::fmt::Write as _;
use std::sync::Arc;

use jobservice_core::lifecycle::HookEvent;
use jobservice_core::outbox::{Delivery, OutboxEntry};
use jobservice_core::{JobId, Time};
use serde::{Deserialize, Serialize};

use crate::header::{self, Wrong};

#[derive(Default, Serialize, Deserialize)]
struct Texts {
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    check_in: Option<Arc<str>>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    error: Option<Arc<str>>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    delivery_error: Option<Arc<str>>,
}

/// The entry as text.
pub(crate) fn write(entry: &OutboxEntry) -> Result<String, Wrong> {
    let OutboxEntry { id: _, event, delivery, next_at, tries, error, resent_at } = entry;
    let mut text = format!("{} {} {tries} ", delivery_number(*delivery), next_at.as_millis());
    match resent_at {
        Some(at) => write!(text, "{}", at.as_millis()).ok(),
        None => write!(text, "-").ok(),
    };
    let status = header::status_number(event.status);
    write!(text, " {status} {} {}", event.attempt, event.at.as_millis()).ok();
    if event.check_in.is_some() || event.error.is_some() || error.is_some() {
        let texts =
            Texts { check_in: event.check_in.clone(), error: event.error.clone(), delivery_error: error.clone() };
        text.push('\n');
        text.push_str(&serde_json::to_string(&texts).map_err(|error| format!("an event cannot be written: {error}"))?);
    }
    Ok(text)
}

/// Reads the entry number `seq` of a job.
pub(crate) fn read(id: &JobId, seq: u32, text: &str) -> Result<OutboxEntry, Wrong> {
    read_fields(id, seq, text).ok_or_else(|| format!("event {seq} of job {id} cannot be read: {text:?}"))
}

fn read_fields(id: &JobId, seq: u32, text: &str) -> Option<OutboxEntry> {
    let (line, texts) = text.split_once('\n').unwrap_or((text, ""));
    let texts: Texts = if texts.is_empty() { Texts::default() } else { serde_json::from_str(texts).ok()? };
    let mut fields = line.split(' ');
    let time = |text: &str| text.parse().map(Time::from_millis).ok();
    let delivery = delivery_of(fields.next()?)?;
    let next_at = time(fields.next()?)?;
    let tries = fields.next()?.parse().ok()?;
    let resent_at = match fields.next()? {
        "-" => None,
        text => Some(time(text)?),
    };
    let status = header::status_of(fields.next()?)?;
    let attempt = fields.next()?.parse().ok()?;
    let at = time(fields.next()?)?;
    let event = HookEvent { seq, status, attempt, at, check_in: texts.check_in, error: texts.error };
    Some(OutboxEntry { id: id.clone(), event, delivery, next_at, tries, error: texts.delivery_error, resent_at })
}

const fn delivery_number(delivery: Delivery) -> u8 {
    match delivery {
        Delivery::Waiting => 0,
        Delivery::Delivered => 1,
        Delivery::GivenUp => 2,
        Delivery::Gone => 3,
    }
}

fn delivery_of(text: &str) -> Option<Delivery> {
    let number: u8 = text.parse().ok()?;
    Delivery::ALL.into_iter().find(|delivery| delivery_number(*delivery) == number)
}
