//! The hook events of a job: what became of them, and sending one again.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use jobservice_core::JobId;
use jobservice_core::outbox::{Delivery, OutboxEntry, Resent};

use super::App;
use super::error::{ApiError, Reason};
use super::extract::{Id, Params, Seq};
use super::routes::json;
use super::write::Writer;

pub(super) async fn list(State(app): State<Arc<App>>, Id(id): Id, params: Params) -> Result<Response<Body>, ApiError> {
    params.none_left(&["none"])?;
    let entries = app.controller.events(&id).await?;
    // A job without events has an empty list; one that does not exist has none.
    if entries.is_empty() && app.controller.get(&id).await?.is_none() {
        return Err(ApiError::unknown_job(&id));
    }
    let mut answer = Writer::with_capacity(2 + entries.len() * 160);
    answer.open_array();
    for entry in &entries {
        event(&mut answer, entry);
    }
    answer.close_array();
    Ok(json(answer))
}

fn event(json: &mut Writer, entry: &OutboxEntry) {
    let OutboxEntry { event, delivery, next_at, tries, error, resent_at, .. } = entry;
    json.open();
    json.integer("seq", i64::from(event.seq));
    json.text("status", event.status.as_str());
    json.integer("attempt", i64::from(event.attempt));
    json.integer("at", event.at.as_seconds());
    if let Some(check_in) = &event.check_in {
        json.text("check_in", check_in);
    }
    if let Some(error) = &event.error {
        json.text("error", error);
    }
    json.text("delivery", delivery.as_str());
    let key = match delivery {
        Delivery::Waiting => "next_try",
        Delivery::Delivered => "delivered_at",
        Delivery::GivenUp | Delivery::Gone => "given_up_at",
    };
    json.integer(key, next_at.as_seconds());
    json.integer("tries", i64::from(*tries) + i64::from(*delivery == Delivery::Delivered));
    if let Some(failure) = error {
        json.text("failure", failure);
    }
    if let Some(resent_at) = resent_at {
        json.integer("resent_at", resent_at.as_seconds());
    }
    json.close();
}

pub(super) async fn resend(State(app): State<Arc<App>>, Id(id): Id, Seq(seq): Seq) -> Result<StatusCode, ApiError> {
    match app.controller.resend_event(&id, seq).await? {
        Resent::Done => Ok(StatusCode::NO_CONTENT),
        Resent::NoEvent => Err(unknown_event(&id, seq)),
        Resent::NoJob => Err(ApiError::unknown_job(&id)),
    }
}

fn unknown_event(id: &JobId, seq: u32) -> ApiError {
    let description =
        format!("job {id} has no hook event {seq}: it never had, or it is no longer kept; GET its hooks lists them");
    ApiError::new(Reason::UnknownEvent, description)
}
