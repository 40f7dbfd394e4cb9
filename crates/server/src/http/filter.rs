//! Which jobs are meant: the filters of a list, in the query of a GET, and of a bulk action, in its body.

use std::sync::Arc;

use jobservice_core::store::Query;
use jobservice_core::{JobId, Kind, Name, Status, Time, limits};

use super::error::ApiError;
use super::extract::Params;

/// The filters there are, for messages.
pub(super) const FILTERS: [&str; 8] = ["status", "name", "tag", "upstream", "kind", "since", "until", "q"];

/// Takes the filters; cursor and limit are left to the caller.
pub(super) fn read(params: &mut Params, now: Time) -> Result<Query, ApiError> {
    let words = "a status: scheduled, pending, running, retrying, error, success, stopped or cancelled";
    // `retrying` is no status of a record: it is Scheduled with failures.
    let (status, retrying) = params
        .read("status", words, |text| match Status::parse(text) {
            Some(status) => Some((Some(status), false)),
            None => text.eq_ignore_ascii_case("retrying").then_some((Some(Status::Scheduled), true)),
        })?
        .unwrap_or_default();
    let when = "a time in seconds since 1970, or how long ago, like 90m or 2d";
    let text = format!("a text of 1 to {} bytes", limits::TEXT_BYTES_MAX);
    let short = |text: &str| (1..=limits::TEXT_BYTES_MAX).contains(&text.len()).then(|| Arc::from(text));
    Ok(Query {
        status,
        retrying,
        name: params.read("name", "a job name", |text| Name::new(text).ok())?,
        tag: params.take("tag").map(Into::into),
        upstream: params.read("upstream", "a job id", |text| JobId::new(text).ok())?,
        // A Periodic job is no job but makes them: it is under /schedules.
        kind: params.read("kind", "Generic or Scheduled; Periodic ones are at /schedules", |text| {
            Kind::parse(text).filter(|kind| *kind != Kind::Periodic)
        })?,
        since: params.read("since", when, |text| time(text, now))?,
        until: params.read("until", when, |text| time(text, now))?,
        text: params.read("q", &text, short)?,
        cursor: None,
        limit: 0,
    })
}

/// A time: seconds since the epoch, or a length of time before now.
pub(super) fn time(text: &str, now: Time) -> Option<Time> {
    match text.parse() {
        Ok(seconds) => Some(Time::from_seconds(seconds)),
        Err(_) => Some(now - crate::duration::parse(text).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_given_as_such_or_as_so_long_ago() {
        let now = Time::from_seconds(1_767_614_400);
        assert_eq!(time("1767614000", now), Some(Time::from_seconds(1_767_614_000)));
        assert_eq!(time("90m", now), Some(now - Duration::from_secs(5400)));
        assert_eq!(time("yesterday", now), None);
    }

    #[test]
    fn every_filter_is_read_and_a_wrong_one_is_named() {
        let now = Time::from_seconds(1_767_614_400);
        let pairs = ["retrying", "copy", "x", "12345678", "scheduled", "2d", "1d", "text"];
        let pairs = FILTERS.iter().zip(pairs).map(|(key, value)| ((*key).to_owned(), value.to_owned())).collect();
        let mut params = Params::of(pairs, "filter.");

        let query = read(&mut params, now).unwrap();

        params.none_left(&FILTERS).unwrap();
        assert!(query.retrying && query.status == Some(Status::Scheduled) && query.kind == Some(Kind::Scheduled));
        assert!(query.name.is_some() && query.tag.is_some() && query.upstream.is_some() && query.text.is_some());
        assert!(query.since < query.until);
        let mut wrong = Params::of(vec![("since".to_owned(), "soon".to_owned())], "filter.");
        assert!(format!("{:?}", read(&mut wrong, now).unwrap_err()).contains("filter.since"));
    }
}
