//! Pages of jobs, in the orders that [`Query`] documents.
//!
//! A cursor is the place of the last job looked at, as text. It names a place, not a job, so that the next page goes on
//! rightly also after that job moved or went.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::str::FromStr;

use super::indexes::{Indexes, Place, Timed, range_after};
use super::inner::Inner;
use crate::job::{Index, Job, Status};
use crate::query::Room;
use crate::store::{Executions, ExecutionsQuery, Page, Query, Result, StoreError};
use crate::{JobId, Name, Time, limits};

/// Between the parts of a cursor: in no id, name or number, and safe in a URL.
const SEPARATOR: char = '~';

/// In which order, and with it over which set.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Newest,
    Due,
    Ready,
    Running,
    Kept(Status),
}

/// A place in an order.
#[derive(Clone, Debug, PartialEq)]
enum Cursor {
    Timed(Timed),
    Ready(Name, Place),
}

impl Inner {
    /// One page.
    pub(super) fn list(&self, query: &Query) -> Result<Page> {
        let mut room = Room::of(query);
        let order = order(query);
        let cursor = query.cursor.as_deref().map(|text| order.read(text)).transpose()?;
        let mut ids = self.indexes.ids(query, order, cursor);
        let mut page = Page::default();
        let mut last = None;
        for id in ids.by_ref().take(limits::SCAN_MAX) {
            let Some(job) = self.jobs.get(id) else { continue };
            if query.matches(job) {
                // One more than fits shows that there is a next page.
                if room.is_full() {
                    page.next = last.map(|job| order.write(job));
                    return Ok(page);
                }
                room.take(job);
                page.jobs.push(job.clone());
            }
            last = Some(job);
        }
        if ids.next().is_some() {
            page.next = last.map(|job| order.write(job));
        }
        Ok(page)
    }
}

impl Inner {
    /// A page of the executions of a parent.
    pub(super) fn executions(&self, query: &ExecutionsQuery) -> Executions {
        let ExecutionsQuery { upstream, live, offset, limit } = query;
        let all = self.indexes.by_upstream.get(upstream).into_iter().flatten().rev();
        let all = all.filter_map(|(_, id)| self.jobs.get(id)).filter(|job| !live || !job.state.status.is_final());
        let counted: Vec<&Job> = all.take(limits::EXECUTIONS_COUNTED_MAX).collect();
        let jobs = counted.iter().skip(*offset).take((*limit).min(limits::LIST_MAX)).map(|job| (*job).clone());
        Executions { jobs: jobs.collect(), total: counted.len() }
    }
}

/// Filters with an index of their own rule the order; a status beside them, or an upstream beside a name, only filters.
fn order(query: &Query) -> Order {
    if query.name.is_some() || query.tag.is_some() || query.upstream.is_some() {
        return Order::Newest;
    }
    match query.status {
        None if query.retrying => Order::Due,
        None => Order::Newest,
        Some(Status::Scheduled) => Order::Due,
        Some(Status::Pending) => Order::Ready,
        Some(Status::Running) => Order::Running,
        Some(status @ (Status::Error | Status::Success | Status::Stopped | Status::Cancelled)) => Order::Kept(status),
    }
}

impl Indexes {
    /// The jobs of the narrowest set that has all that the query asks for, in this order, after this place.
    fn ids<'a>(
        &'a self,
        query: &Query,
        order: Order,
        after: Option<Cursor>,
    ) -> Box<dyn Iterator<Item = &'a JobId> + 'a> {
        let after = match after {
            Some(Cursor::Ready(name, place)) => return Box::new(self.ready_after(Some((name, place)))),
            Some(Cursor::Timed(timed)) => Some(timed),
            None => None,
        };
        let set = match order {
            Order::Ready => return Box::new(self.ready_after(None)),
            Order::Due => Some(&self.due),
            Order::Running => Some(&self.running),
            Order::Kept(status) => self.kept.get(&status),
            Order::Newest => match (&query.upstream, &query.tag, &query.name) {
                (Some(upstream), _, _) => self.by_upstream.get(upstream),
                (None, Some(tag), _) => self.by_tag.get(tag),
                (None, None, Some(name)) => self.by_name.get(name),
                (None, None, None) => Some(&self.newest),
            },
        };
        match set {
            None => Box::new(std::iter::empty()),
            Some(set) if order.is_descending() => Box::new(descending(set, after).map(|(_, id)| id)),
            Some(set) => Box::new(range_after(set, after).map(|(_, id)| id)),
        }
    }

    fn ready_after(&self, after: Option<(Name, Place)>) -> impl Iterator<Item = &JobId> {
        let (name, place) = after.unzip();
        let from = name.clone().map_or(Unbounded, Included);
        self.ready
            .range::<Name, _>((from, Unbounded))
            .flat_map(move |(of, ready)| ready.all(place.clone().filter(|_| name.as_ref() == Some(of))))
            .map(|(_, _, id)| id)
    }
}

fn descending(set: &BTreeSet<Timed>, after: Option<Timed>) -> impl Iterator<Item = &Timed> {
    set.range((Unbounded, after.map_or(Unbounded, Excluded))).rev()
}

impl Order {
    fn is_descending(self) -> bool {
        matches!(self, Order::Newest | Order::Kept(_))
    }

    fn letter(self) -> char {
        match self {
            Order::Newest => 'n',
            Order::Due => 'd',
            Order::Ready => 'p',
            Order::Running => 'r',
            Order::Kept(_) => 'k',
        }
    }

    /// The place of a job, as text.
    fn write(self, job: &Job) -> String {
        let (letter, id) = (self.letter(), &job.id);
        let at = match (self, job.index()) {
            (Order::Newest, _) => job.spec.enqueued_at,
            (_, Index::Due { run_at: at } | Index::Running { reap_at: at } | Index::Final { expires_at: at }) => at,
            (_, Index::Ready { priority, ready_at, .. }) => {
                let (at, name) = (ready_at.as_millis(), &job.spec.name);
                return format!("{letter}~{at}~{id}~{priority}~{name}");
            }
        };
        format!("{letter}~{}~{id}", at.as_millis())
    }

    /// Reads a place in this order.
    fn read(self, text: &str) -> Result<Cursor> {
        self.parse(text).ok_or_else(|| StoreError::Invalid(format!("{text:?} is not a cursor of this list")))
    }

    fn parse(self, text: &str) -> Option<Cursor> {
        let mut parts = text.split(SEPARATOR);
        let letter = parts.next()?;
        let at = Time::from_millis(i64::from_str(parts.next()?).ok()?);
        let id = JobId::new(parts.next()?).ok()?;
        let cursor = if self == Order::Ready {
            let priority = u8::from_str(parts.next()?).ok()?;
            Cursor::Ready(Name::new(parts.next()?).ok()?, (Reverse(priority), at, id))
        } else {
            Cursor::Timed((at, id))
        };
        (parts.next().is_none() && letter.chars().eq([self.letter()])).then_some(cursor)
    }
}
