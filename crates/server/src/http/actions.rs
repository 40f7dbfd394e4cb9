//! The same to all jobs that a filter means.
//!
//! One call does a bounded part and says where to go on: a million jobs are some hundred calls, each short, so that no
//! proxy gives up, the client can show how far it is, and nothing has to be remembered between calls. Other calls get
//! their turn after every few jobs (see [`jobservice::Controller::act_on`]).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use jobservice::{Bulk, BulkBounds, BulkDone};
use jobservice_core::store::Query;

use super::App;
use super::body::Payload;
use super::error::{ApiError, Invalid, Reason};
use super::extract::Params;
use super::filter::{self, FILTERS};
use super::json::Fields;
use super::routes::json;
use super::write::Writer;

/// Jobs of one call, unless the body says less.
const JOBS_MAX: usize = 10_000;

/// About how long one call may take: well below the time after which clients give up.
const TIME_MAX: Duration = Duration::from_secs(5);

pub(super) async fn act(State(app): State<Arc<App>>, body: Payload) -> Result<Response<Body>, ApiError> {
    let now = app.controller.clock().now();
    let mut fields = Fields::of_body(&body)?;
    let bulk = action(&mut fields)?;
    let filter = filter(&mut fields, now)?;
    let jobs = match fields.integer::<usize>("limit")? {
        None => JOBS_MAX,
        Some(jobs) if (1..=JOBS_MAX).contains(&jobs) => jobs,
        Some(jobs) => {
            return Err(Invalid::new("limit", format!("it is {jobs}"), format!("give 1 to {JOBS_MAX}")).into());
        }
    };
    let done = app.controller.act_on(&filter, bulk, BulkBounds { jobs, time: TIME_MAX }).await?;

    let BulkDone { matched, done, signalled, unchanged, refused, next } = done;
    let mut answer = Writer::with_capacity(256);
    answer.open();
    answer.text("action", bulk.as_str());
    for (key, count) in
        [("matched", matched), ("done", done), ("signalled", signalled), ("unchanged", unchanged), ("refused", refused)]
    {
        answer.integer(key, i64::try_from(count).unwrap_or(i64::MAX));
    }
    if let Some(next) = &next {
        answer.text("next", next);
    }
    answer.close();
    Ok(json(answer))
}

fn action(fields: &mut Fields<'_>) -> Result<Bulk, ApiError> {
    let Some(word) = fields.string("action")?.filter(|word| !word.is_empty()) else {
        return Err(Invalid::new("action", "it is missing", "give stop, cancel, retry or delete").into());
    };
    Bulk::ALL.into_iter().find(|bulk| word.eq_ignore_ascii_case(bulk.as_str())).ok_or_else(|| {
        let found: String = word.chars().take(40).collect();
        ApiError::new(Reason::UnknownAction, format!("action: {found:?} is none of stop, cancel, retry and delete"))
    })
}

/// The filter with its cursor. One that means every job must say so: a body that was cut short or mistyped must not stop
/// all there is.
fn filter(fields: &mut Fields<'_>, now: jobservice_core::Time) -> Result<Query, ApiError> {
    let remedy = "give status, name, tag, upstream, kind, since, until or q; {\"all\": true} means every job";
    let Some(mut given) = fields.object("filter", "filter.")? else {
        return Err(Invalid::new("filter", "it is missing", remedy).into());
    };
    let all = given.boolean("all")?.unwrap_or(false);
    let mut params = Params::of(given.texts()?, "filter.");
    let mut query = filter::read(&mut params, now)?;
    let known: Vec<&str> = FILTERS.into_iter().chain(["all"]).collect();
    params.none_left(&known)?;
    if query.is_everything() != all {
        let problem = if all { "all is true, and there are other filters" } else { "it is empty" };
        return Err(Invalid::new("filter", problem, remedy).into());
    }
    query.cursor = fields.string("cursor")?.filter(|cursor| !cursor.is_empty()).map(Into::into);
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Query, String> {
        let mut fields = Fields::of_body(body.as_bytes()).map_err(|error| error.to_string())?;
        filter(&mut fields, jobservice_core::Time::from_seconds(1_767_614_400)).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn every_job_is_meant_only_if_that_is_said() {
        for bad in
            ["{}", r#"{"filter": {}}"#, r#"{"filter": {"all": false}}"#, r#"{"filter": {"all": true, "name": "a"}}"#]
        {
            assert!(read(bad).unwrap_err().contains("filter"), "{bad}");
        }
        assert!(read(r#"{"filter": {"all": true}, "cursor": "n~7"}"#).unwrap().is_everything());
    }

    #[test]
    fn filters_are_those_of_a_list_with_numbers_as_numbers() {
        let query = read(r#"{"filter": {"status": "pending", "since": 1767614000, "until": "5m"}}"#).unwrap();
        assert!(query.status.is_some() && query.since < query.until);
        assert!(read(r#"{"filter": {"stauts": "pending"}}"#).unwrap_err().contains("filter.stauts"));
        assert!(read(r#"{"filter": {"status": ["pending"]}}"#).unwrap_err().contains("filter.status"));
    }
}
