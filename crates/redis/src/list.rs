//! Pages of jobs, in the orders that [`Query`] documents.
//!
//! A cursor is the place of the last job looked at, as text. It names a place, not a job, so that the next page goes on
//! rightly also after that job moved or went.

use std::collections::BTreeSet;
use std::str::FromStr;

use jobservice_core::job::{Job, Status};
use jobservice_core::query::Room;
use jobservice_core::store::{Page, Query, Result};
use jobservice_core::{JobId, Name, StoreError, Time, limits};

use crate::link::{array, text};
use crate::places::{ready_place, ready_score};
use crate::record;
use crate::store::{RedisStore, Shard};
use crate::walk::{Found, Place, Source, Walk};

/// Between the parts of a cursor: in no id, name or number, and safe in a URL.
const SEPARATOR: char = '~';

/// Records read at once: at the least, and at the most, for each may be large.
const READ: (usize, usize) = (16, 128);

/// In which order, and with it over which sets.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Newest,
    Due,
    Ready,
    Running,
    Kept(Status),
}

/// A place in an order.
#[derive(Clone)]
struct Cursor {
    /// Only in [`Order::Ready`].
    name: Option<Name>,
    place: Place,
}

/// The sets of an order.
struct Sets<'a> {
    walk: Walk<'a>,
    /// The names of the groups, if they have some.
    names: Vec<Name>,
}

impl RedisStore {
    /// One page.
    pub(crate) async fn list_jobs(&self, query: &Query) -> Result<Page> {
        let mut room = Room::of(query);
        let order = order(query);
        let cursor = query.cursor.as_deref().map(|text| order.read(text)).transpose()?;
        let Sets { mut walk, names } = self.sets_of(query, order, cursor).await?;
        let mut page = Page::default();
        let mut last = None;
        let mut looked_at = 0;
        loop {
            let (least, most) = READ;
            let found = walk.take(query.limit.saturating_add(1).clamp(least, most)).await?;
            if found.is_empty() {
                return Ok(page);
            }
            let jobs = read(&found).await?;
            for (found, job) in found.into_iter().zip(jobs) {
                // Newest first: nothing from here on is young enough.
                if order == Order::Newest && query.since.is_some_and(|since| found.score < since.as_millis()) {
                    return Ok(page);
                }
                // One more than fits, or than may be looked at, shows that there is a next page.
                if looked_at == limits::SCAN_MAX {
                    page.next = last;
                    return Ok(page);
                }
                looked_at += 1;
                if let Some(job) = job.filter(|job| query.matches(job)) {
                    if room.is_full() {
                        page.next = last;
                        return Ok(page);
                    }
                    room.take(&job);
                    page.jobs.push(job);
                }
                if JobId::new(&found.member).is_ok() {
                    last = Some(order.write(&found, names.get(found.group)));
                }
            }
        }
    }

    /// The narrowest sets that have all that the query asks for, in this order, after this place.
    async fn sets_of(&self, query: &Query, order: Order, cursor: Option<Cursor>) -> Result<Sets<'_>> {
        let mut sources = Vec::new();
        let mut names = Vec::new();
        let place = cursor.as_ref().map(|cursor| cursor.place.clone());
        let mut everywhere = |key: &dyn Fn(&Shard) -> String, place: Option<Place>| {
            sources.extend(self.shards.iter().map(|shard| Source::new(shard, key(shard), 0, place.clone())));
        };
        match order {
            Order::Newest => {
                // The first place that is old enough.
                let until = query.until.map(|until| (until.as_millis(), String::new()));
                let place = [place, until].into_iter().flatten().min();
                match (&query.upstream, &query.tag, &query.name) {
                    (Some(upstream), _, _) => everywhere(&|shard| shard.keys.executions(upstream), place),
                    (None, Some(tag), _) => everywhere(&|shard| shard.keys.by_tag(tag), place),
                    (None, None, Some(name)) => {
                        let shard = self.shard_of(name)?;
                        sources.push(Source::new(shard, shard.keys.by_name(name), 0, place));
                    }
                    (None, None, None) => {
                        for shard in &self.shards {
                            let known = names_in(shard, shard.keys.known()).await?;
                            let source = |name| Source::new(shard, shard.keys.by_name(name), 0, place.clone());
                            sources.extend(known.iter().map(source));
                        }
                    }
                }
            }
            Order::Due => everywhere(&|shard| shard.keys.due(), place),
            Order::Kept(status) => everywhere(&|shard| shard.keys.kept(status), place),
            Order::Running => {
                for shard in &self.shards {
                    let busy = names_in(shard, shard.keys.busy()).await?;
                    sources
                        .extend(busy.iter().map(|name| Source::new(shard, shard.keys.running(name), 0, place.clone())));
                }
            }
            Order::Ready => {
                let mut waiting = BTreeSet::new();
                for shard in &self.shards {
                    waiting.extend(names_in(shard, shard.keys.work()).await?);
                }
                let from = cursor.as_ref().and_then(|cursor| cursor.name.as_ref());
                names = waiting.into_iter().filter(|name| from.is_none_or(|from| name >= from)).collect();
                for (group, name) in names.iter().enumerate() {
                    let shard = self.shard_of(name)?;
                    let place = place.as_ref().filter(|_| from == Some(name));
                    for key in [shard.keys.ready(name), shard.keys.suspects(name)] {
                        sources.push(Source::new(shard, key, group, place.cloned()));
                    }
                }
            }
        }
        let descending = matches!(order, Order::Newest | Order::Kept(_));
        Ok(Sets { walk: Walk::new(sources, descending), names })
    }
}

/// The names in a set; what is no name is left out.
pub(crate) async fn names_in(shard: &Shard, key: String) -> Result<Vec<Name>> {
    let mut get = redis::cmd("SMEMBERS");
    get.arg(key);
    let answer = shard.link.send(&get, "look").await?;
    Ok(array(&answer)?.iter().filter_map(|name| Name::new(text(name).ok()??).ok()).collect())
}

/// The records of members, in their order. One that went meanwhile, or cannot be read, is passed over: nobody could page
/// past it otherwise.
pub(crate) async fn read(found: &[Found<'_>]) -> Result<Vec<Option<Job>>> {
    let ids: Vec<Option<JobId>> = found.iter().map(|found| JobId::new(&found.member).ok()).collect();
    let mut jobs: Vec<Option<Job>> = vec![None; found.len()];
    let mut done: Vec<&Shard> = Vec::new();
    for Found { shard, .. } in found {
        if done.iter().any(|of| std::ptr::eq(*of, *shard)) {
            continue;
        }
        done.push(shard);
        let of_shard = ids.iter().zip(found).enumerate().filter(|(_, (_, found))| std::ptr::eq(found.shard, *shard));
        let (places, of_shard): (Vec<usize>, Vec<&JobId>) =
            of_shard.filter_map(|(at, (id, _))| Some((at, id.as_ref()?))).unzip();
        let records = record::read_all(&shard.link, &shard.keys, &of_shard).await?;
        for ((at, id), record) in places.into_iter().zip(of_shard).zip(records) {
            match (record, jobs.get_mut(at)) {
                (Ok(Some(record)), Some(place)) => *place = Some(record.job),
                (Err(why), _) => tracing::error!(job = %id, "a record is left out of a list, it cannot be read: {why}"),
                _ => {}
            }
        }
    }
    Ok(jobs)
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

impl Order {
    const fn letter(self) -> char {
        match self {
            Order::Newest => 'n',
            Order::Due => 'd',
            Order::Ready => 'p',
            Order::Running => 'r',
            Order::Kept(_) => 'k',
        }
    }

    /// A place, as text.
    fn write(self, found: &Found<'_>, name: Option<&Name>) -> String {
        let (letter, Found { score, member, .. }) = (self.letter(), found);
        match name {
            Some(name) => {
                let (priority, ready_at) = ready_place(*score);
                format!("{letter}~{}~{member}~{priority}~{name}", ready_at.as_millis())
            }
            None => format!("{letter}~{score}~{member}"),
        }
    }

    /// Reads a place in this order.
    fn read(self, text: &str) -> Result<Cursor> {
        self.parse(text).ok_or_else(|| StoreError::Invalid(format!("{text:?} is not a cursor of this list")))
    }

    fn parse(self, text: &str) -> Option<Cursor> {
        let mut parts = text.split(SEPARATOR);
        let letter = parts.next()?;
        let at = i64::from_str(parts.next()?).ok()?;
        let id = JobId::new(parts.next()?).ok()?.as_str().to_owned();
        let cursor = if self == Order::Ready {
            let priority = u8::from_str(parts.next()?).ok()?;
            let name = Name::new(parts.next()?).ok()?;
            Cursor { name: Some(name), place: (ready_score(priority, Time::from_millis(at)), id) }
        } else {
            Cursor { name: None, place: (at, id) }
        };
        (parts.next().is_none() && letter.chars().eq([self.letter()])).then_some(cursor)
    }
}
