//! Pages of jobs, in the orders that [`Query`] documents.
//!
//! A cursor is the place of the last job looked at, as text. It names a place, not a job, so that the next page goes on
//! rightly also after that job moved or went. Each order has an index; what the index does not answer is looked at row
//! by row, at most [`limits::SCAN_MAX`] of them a page.

use std::str::FromStr;

use jobservice_core::job::Status;
use jobservice_core::store::{Page, Query};
use jobservice_core::{JobId, Name, limits};
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use crate::call::Failure;
use crate::reads::Reader;
use crate::row::{self, Record};

/// Between the parts of a cursor: in no id, name or number, and safe in a URL.
const SEPARATOR: char = '~';

/// In which order, and with it over which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Newest,
    Due,
    Ready,
    Running,
    Final(Status),
}

/// A place in an order, as the values of the columns that it is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Newest { seq: i64 },
    Timed { at: i64, id: String },
    Ready { name: String, priority: i64, at: i64, id: String },
}

/// A statement and its values.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Reader<'_> {
    /// One page.
    pub(crate) fn list(&self, query: &Query) -> Result<Page, Failure> {
        let limit = query.limit.clamp(1, limits::LIST_MAX);
        let order = order(query);
        let place = query.cursor.as_deref().map(|text| order.read(text)).transpose()?;
        let walk = walk(query, order, place.as_ref());
        let mut statement = self.conn.prepare_cached(&walk.sql)?;
        let mut rows = statement.query(params_from_iter(walk.values))?;
        let mut page = Page::default();
        let mut last = None;
        for looked_at in 0.. {
            let Some(row) = rows.next()? else { break };
            // One more than fits, or than may be looked at, shows that there is a next page.
            if looked_at == limits::SCAN_MAX {
                page.next = last;
                break;
            }
            let record = match read_matching(query, row) {
                Err(Failure::Damaged(why)) => {
                    // Nobody could page past it otherwise.
                    tracing::error!(why, "a record is left out of a list, it cannot be read: {why}");
                    None
                }
                record => record?,
            };
            if record.is_some() && page.jobs.len() == limit {
                page.next = last;
                break;
            }
            last = Some(order.write(row)?);
            page.jobs.extend(record.map(|record| record.job));
        }
        Ok(page)
    }
}

/// The record in a row, if the query asks for it. A row that is not asked for is not read.
fn read_matching(query: &Query, row: &Row<'_>) -> Result<Option<Record>, Failure> {
    let Query { status, name, .. } = query;
    if let Some(wanted) = status
        && row.get::<_, i64>("status")? != row::status_number(*wanted)
    {
        return Ok(None);
    }
    if let Some(wanted) = name
        && row.get_ref("name")?.as_str().ok() != Some(wanted.as_str())
    {
        return Ok(None);
    }
    if row.get::<_, i64>("status")? == row::SET_ASIDE {
        return Ok(None);
    }
    let record = row::read(row, name.as_ref())?;
    Ok(query.matches(&record.job).then_some(record))
}

/// Filters with an index of their own rule the order; a status beside them, or an upstream beside a name, only filters.
pub(crate) fn order(query: &Query) -> Order {
    if query.name.is_some() || query.tag.is_some() || query.upstream.is_some() {
        return Order::Newest;
    }
    match query.status {
        None if query.retrying => Order::Due,
        None => Order::Newest,
        Some(Status::Scheduled) => Order::Due,
        Some(Status::Pending) => Order::Ready,
        Some(Status::Running) => Order::Running,
        Some(status @ (Status::Error | Status::Success | Status::Stopped | Status::Cancelled)) => Order::Final(status),
    }
}

/// The statement that walks an order from a place on.
fn walk(query: &Query, order: Order, place: Option<&Place>) -> Walk {
    let columns = row::columns();
    let mut values = Vec::new();
    let sql = match (order, place) {
        (Order::Newest, place) => newest(query, place, &columns, &mut values),
        (Order::Ready, Some(Place::Ready { name, priority, at, id })) => {
            values.extend([Value::Text(name.clone()), (*priority).into(), (*at).into(), Value::Text(id.clone())]);
            ready_after(&columns)
        }
        (Order::Ready, _) => ready_all(&columns),
        (order, place) => timed(order, place, &columns, &mut values),
    };
    let limit = limits::SCAN_MAX + 1;
    Walk { sql: format!("{sql} LIMIT {limit}"), values }
}

/// The orders by a time and the id.
fn timed(order: Order, place: Option<&Place>, columns: &str, values: &mut Vec<Value>) -> String {
    let (set, at, descending) = match order {
        Order::Due => ("INDEXED BY jobs_due WHERE status = 0".to_owned(), "run_at", false),
        // Few enough to be sorted; an index by time would be paid by every job.
        Order::Running => ("INDEXED BY jobs_running WHERE status = 2".to_owned(), "reap_at", false),
        Order::Final(status) => {
            let status = row::status_number(status);
            (format!("INDEXED BY jobs_final WHERE status >= 3 AND status = {status}"), "expires_at", true)
        }
        Order::Newest | Order::Ready => ("WHERE 1".to_owned(), "seq", true),
    };
    let after = match (place, descending) {
        (Some(Place::Timed { .. }), false) => format!("AND ({at}, id) > (?, ?)"),
        (Some(Place::Timed { .. }), true) => format!("AND ({at}, id) < (?, ?)"),
        _ => String::new(),
    };
    if let Some(Place::Timed { at, id }) = place {
        values.extend([(*at).into(), Value::Text(id.clone())]);
    }
    let direction = if descending { "DESC" } else { "ASC" };
    format!("SELECT {columns} FROM jobs {set} {after} ORDER BY {at} {direction}, id {direction}")
}

fn newest(query: &Query, place: Option<&Place>, columns: &str, values: &mut Vec<Value>) -> String {
    let (from, seq) = match (&query.upstream, &query.tag, &query.name) {
        (Some(upstream), _, _) => {
            values.push(Value::Text(upstream.as_str().to_owned()));
            ("executions CROSS JOIN jobs ON seq = job WHERE executions.upstream = ?", "job")
        }
        (None, Some(tag), _) => {
            values.push(Value::Text(tag.to_string()));
            ("job_tags CROSS JOIN jobs ON seq = job WHERE tag = ?", "job")
        }
        (None, None, Some(name)) => {
            values.push(Value::Text(name.as_str().to_owned()));
            ("jobs INDEXED BY jobs_name WHERE name = ?", "seq")
        }
        (None, None, None) => ("jobs WHERE 1", "seq"),
    };
    let after = match place {
        Some(Place::Newest { seq: last }) => {
            values.push((*last).into());
            format!("AND {seq} < ?")
        }
        _ => String::new(),
    };
    let columns = columns.replace(" upstream,", " jobs.upstream,");
    format!("SELECT {columns} FROM {from} {after} ORDER BY {seq} DESC")
}

/// The two queues of every name, merged.
fn ready_all(columns: &str) -> String {
    ready_union(columns, &[""])
}

/// The same from a place on: the rest of its priority, the lower priorities of its name, the names after it. Each part
/// is a range of the index; one condition for all three would have to look at every row.
fn ready_after(columns: &str) -> String {
    ready_union(
        columns,
        &[
            "AND name = ?1 AND priority = ?2 AND (ready_at, id) > (?3, ?4)",
            "AND name = ?1 AND priority < ?2",
            "AND name > ?1",
        ],
    )
}

fn ready_union(columns: &str, ranges: &[&str]) -> String {
    let mut parts = Vec::new();
    for queue in ["jobs_ready WHERE status = 1 AND crashes = 0", "jobs_suspects WHERE status = 1 AND crashes > 0"] {
        for range in ranges {
            parts.push(format!("SELECT {columns} FROM jobs INDEXED BY {queue} {range}"));
        }
    }
    format!("{} ORDER BY name, priority DESC, ready_at, id", parts.join(" UNION ALL "))
}

impl Order {
    fn letter(self) -> char {
        match self {
            Order::Newest => 'n',
            Order::Due => 'd',
            Order::Ready => 'p',
            Order::Running => 'r',
            Order::Final(_) => 'k',
        }
    }

    /// The place of a row, as text.
    fn write(self, row: &Row<'_>) -> Result<String, Failure> {
        let letter = self.letter();
        let at = match self {
            Order::Newest => return Ok(format!("{letter}~{}", row.get::<_, i64>("seq")?)),
            Order::Due => "run_at",
            Order::Ready => "ready_at",
            Order::Running => "reap_at",
            Order::Final(_) => "expires_at",
        };
        let at: i64 = row.get(at)?;
        let id = row.get_ref("id")?.as_str().map_err(rusqlite::Error::from)?;
        if self != Order::Ready {
            return Ok(format!("{letter}~{at}~{id}"));
        }
        let name = row.get_ref("name")?.as_str().map_err(rusqlite::Error::from)?;
        Ok(format!("{letter}~{at}~{id}~{}~{name}", row.get::<_, i64>("priority")?))
    }

    /// Reads a place in this order.
    fn read(self, text: &str) -> Result<Place, Failure> {
        self.parse(text).ok_or_else(|| Failure::Invalid(format!("{text:?} is not a cursor of this list")))
    }

    fn parse(self, text: &str) -> Option<Place> {
        let mut parts = text.split(SEPARATOR);
        if !parts.next()?.chars().eq([self.letter()]) {
            return None;
        }
        let number = i64::from_str(parts.next()?).ok()?;
        let place = if self == Order::Newest {
            Place::Newest { seq: number }
        } else {
            let id = JobId::new(parts.next()?).ok()?.as_str().to_owned();
            if self == Order::Ready {
                let priority = i64::from_str(parts.next()?).ok()?;
                let name = Name::new(parts.next()?).ok()?.as_str().to_owned();
                Place::Ready { name, priority, at: number, id }
            } else {
                Place::Timed { at: number, id }
            }
        };
        parts.next().is_none().then_some(place)
    }
}

#[cfg(test)]
#[path = "list_test.rs"]
mod tests;
