//! Which jobs are meant: what a list shows and what a bulk action acts on.
//!
//! Whether a job is meant is decided here, by [`Query::matches`], for every store; how to find such jobs without looking
//! at all of them is each store's own affair.

use std::sync::Arc;

use crate::job::{Job, Kind, Status};
use crate::{JobId, Name, Time};

/// Which jobs to list.
///
/// Order: without a status, or by name, tag or upstream: newest first; a status beside one of these three only filters.
/// Newest first is the order of (submission time, id), descending, or that in which the store took the jobs in,
/// reversed: the two agree when both rise from insert to insert, as a clock and [`JobId::generate`] do, and a store may
/// follow the one that it has for nothing (SQLite the second). By status alone: in that set's own order, the one the service works in: Pending by
/// name, then first to be claimed first (suspects among the others); Scheduled and retrying by due time; Running by the
/// next time the service looks at them; final by expiry, latest first (then id, descending). Ties by id, ascending where
/// nothing else is said. Kind, time and text only filter.
/// A filter without an index of its own looks at no more than [`crate::limits::SCAN_MAX`] rows a page: the page may
/// then be short, or empty, and still have a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only jobs of this status.
    pub status: Option<Status>,
    /// Only Scheduled jobs that failed before.
    pub retrying: bool,
    /// Only jobs of this name.
    pub name: Option<Name>,
    /// Only jobs with this tag.
    pub tag: Option<Arc<str>>,
    /// Only executions (sub jobs) of this job or policy.
    pub upstream: Option<JobId>,
    /// Only jobs of this kind.
    pub kind: Option<Kind>,
    /// Only jobs submitted at this time or later.
    pub since: Option<Time>,
    /// Only jobs submitted before this time.
    pub until: Option<Time>,
    /// Only jobs that have this text in their id, name, parameters, error or check-in, whatever the case of its ASCII
    /// letters.
    pub text: Option<Arc<str>>,
    /// The cursor of the page before.
    pub cursor: Option<String>,
    /// Jobs per page, 1 to [`crate::limits::LIST_MAX`].
    pub limit: usize,
}

/// A page of jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

impl Query {
    /// Whether a job is one of those asked for, wherever the page stands.
    pub fn matches(&self, job: &Job) -> bool {
        let Query { status, retrying, name, tag, upstream, kind, since, until, text, cursor: _, limit: _ } = self;
        let spec = &job.spec;
        status.is_none_or(|status| status == job.state.status)
            && (!retrying || job.is_retrying())
            && name.as_ref().is_none_or(|name| *name == spec.name)
            && tag.as_ref().is_none_or(|tag| spec.tags.contains(tag))
            && upstream.as_ref().is_none_or(|upstream| spec.upstream.as_ref() == Some(upstream))
            && kind.is_none_or(|kind| kind == spec.kind)
            && since.is_none_or(|since| spec.enqueued_at >= since)
            && until.is_none_or(|until| spec.enqueued_at < until)
            && text.as_ref().is_none_or(|text| has_text(job, text))
    }

    /// Whether it asks for every job there is.
    pub fn is_everything(&self) -> bool {
        *self == Query { cursor: self.cursor.clone(), limit: self.limit, ..Query::default() }
    }
}

fn has_text(job: &Job, text: &str) -> bool {
    let Job { id, spec, state } = job;
    let check_in = state.check_in.as_ref().map(|check_in| &*check_in.message);
    let always = [id.as_str(), spec.name.as_str(), &spec.parameters];
    always.into_iter().chain(state.error.as_deref()).chain(check_in).any(|within| contains(within, text))
}

/// Whether `within` holds `text`, whatever the case of ASCII letters. Copies nothing: parameters may be large, and a page
/// looks through many.
fn contains(within: &str, text: &str) -> bool {
    let Some(first) = text.as_bytes().first() else { return true };
    let mut rest = within.as_bytes();
    while let Some(at) = rest.iter().position(|byte| byte.eq_ignore_ascii_case(first)) {
        let from = rest.get(at..).unwrap_or_default();
        if from.get(..text.len()).is_some_and(|part| part.eq_ignore_ascii_case(text.as_bytes())) {
            return true;
        }
        rest = from.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_anywhere_in_any_case() {
        for (within, text) in [("abc", ""), ("abc", "BC"), ("aab", "ab"), ("{\"Größe\":1}", "größe"), ("x", "x")] {
            assert!(contains(within, text), "{text:?} in {within:?}");
        }
        for (within, text) in [("abc", "d"), ("", "a"), ("ab", "abc"), ("Ö", "ö")] {
            assert!(!contains(within, text), "{text:?} in {within:?}");
        }
    }

    #[test]
    fn a_query_that_only_turns_pages_asks_for_everything() {
        let paged = Query { cursor: Some("n~1".to_owned()), limit: 7, ..Query::default() };
        assert!(paged.is_everything());
        assert!(!Query { kind: Some(Kind::Generic), ..paged }.is_everything());
    }
}
