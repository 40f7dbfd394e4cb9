//! Walks over sorted sets in order, several of them as if they were one.
//!
//! A walk reads pages, never a whole set, and goes on from a place (a score and a member), not from a number: what comes
//! and goes meanwhile neither hides a member that stays nor shows one twice. Members of equal score are in the order of
//! their text, in Redis as here.

use std::cmp::Ordering;
use std::collections::VecDeque;

use jobservice_core::store::Result;

use crate::due::scored;
use crate::link::number;
use crate::store::Shard;

/// Members asked of one set at once: at the least, and at the most.
const PAGE: (usize, usize) = (16, 256);

/// Groups whose first pages are asked for together.
const GROUPS_AHEAD: usize = 32;

/// How often a place is looked for anew when members come and go while it is looked for.
const SEARCHES: usize = 8;

/// A place in a sorted set.
pub(crate) type Place = (i64, String);

/// A sorted set to walk over.
pub(crate) struct Source<'a> {
    shard: &'a Shard,
    key: String,
    /// All of a lower group come before all of a higher one.
    group: usize,
    /// What was read and not given out.
    read: VecDeque<Place>,
    /// The place after which it goes on.
    after: Option<Place>,
    is_done: bool,
}

impl<'a> Source<'a> {
    /// A set from this place on, which does not count itself.
    pub(crate) fn new(shard: &'a Shard, key: String, group: usize, after: Option<Place>) -> Source<'a> {
        Source { shard, key, group, read: VecDeque::new(), after, is_done: false }
    }

    fn is_unread(&self) -> bool {
        self.read.is_empty() && !self.is_done
    }
}

/// A member as a walk finds it.
pub(crate) struct Found<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) group: usize,
    pub(crate) score: i64,
    pub(crate) member: String,
}

/// A walk over sets, least first or greatest first.
pub(crate) struct Walk<'a> {
    sources: Vec<Source<'a>>,
    descending: bool,
    page: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(sources: Vec<Source<'a>>, descending: bool) -> Walk<'a> {
        let (least, most) = PAGE;
        let page = (2 * most / sources.len().max(1)).clamp(least, most);
        Walk { sources, descending, page }
    }

    /// Up to `limit` members; fewer only at the end.
    pub(crate) async fn take(&mut self, limit: usize) -> Result<Vec<Found<'a>>> {
        let mut found = Vec::new();
        while found.len() < limit {
            match self.next().await? {
                Some(next) => found.push(next),
                None => break,
            }
        }
        Ok(found)
    }

    async fn next(&mut self) -> Result<Option<Found<'a>>> {
        loop {
            let left = self.sources.iter().filter(|source| !source.read.is_empty() || !source.is_done);
            let Some(group) = left.map(|source| source.group).min() else { return Ok(None) };
            if self.sources.iter().any(|source| source.group == group && source.is_unread()) {
                self.read(group).await?;
                continue;
            }
            let descending = self.descending;
            let of_group = self.sources.iter_mut().filter(|source| source.group == group && !source.read.is_empty());
            let first = of_group.min_by(|a, b| order(descending, a.read.front(), b.read.front()));
            let Some(source) = first else { continue };
            let Some((score, member)) = source.read.pop_front() else { continue };
            return Ok(Some(Found { shard: source.shard, group, score, member }));
        }
    }

    /// Reads a page of each set that has none, from this group on: one round trip a shard.
    async fn read(&mut self, group: usize) -> Result<()> {
        let (descending, page) = (self.descending, self.page);
        let groups = group..group + GROUPS_AHEAD;
        let mut unread: Vec<&mut Source<'a>> =
            self.sources.iter_mut().filter(|source| groups.contains(&source.group) && source.is_unread()).collect();
        while let Some(shard) = unread.first().map(|source| source.shard) {
            let (these, others): (Vec<_>, Vec<_>) =
                unread.into_iter().partition(|source| std::ptr::eq(source.shard, shard));
            let mut pipe = redis::pipe();
            for source in &these {
                let from = source.after.as_ref().map(|(score, _)| score.to_string());
                let from = from.as_deref().unwrap_or(if descending { "+inf" } else { "-inf" });
                if descending {
                    pipe.cmd("ZREVRANGEBYSCORE").arg(&source.key).arg(from).arg("-inf");
                } else {
                    pipe.cmd("ZRANGEBYSCORE").arg(&source.key).arg(from).arg("+inf");
                }
                pipe.arg("WITHSCORES").arg("LIMIT").arg(0).arg(page);
            }
            let answers = shard.link.pipe(&pipe, "list").await?;
            for (source, answer) in these.into_iter().zip(&answers) {
                let members = scored(answer)?;
                let is_last = members.len() < page;
                let mut members = after(members, source.after.as_ref(), descending);
                let mut is_done = is_last;
                if let (true, false, Some(place)) = (members.is_empty(), is_last, &source.after) {
                    // The whole page was of the score of the place, and before it.
                    (members, is_done) = search(source.shard, &source.key, place, descending, page).await?;
                }
                source.is_done = is_done;
                if let Some(last) = members.back() {
                    source.after = Some(last.clone());
                }
                source.read = members;
            }
            unread = others;
        }
        Ok(())
    }
}

/// What comes first.
fn order(descending: bool, a: Option<&Place>, b: Option<&Place>) -> Ordering {
    if descending { b.cmp(&a) } else { a.cmp(&b) }
}

/// Those that come after a place.
fn after(members: Vec<Place>, place: Option<&Place>, descending: bool) -> VecDeque<Place> {
    let comes_after = |member: &Place| place.is_none() || order(descending, place, Some(member)) == Ordering::Less;
    members.into_iter().filter(comes_after).collect()
}

/// The page after a place that many members of the same score come before, and whether it is the last. The place is found
/// by halving; that nothing moved meanwhile is seen by the member before the page.
async fn search(
    shard: &Shard,
    key: &str,
    place: &Place,
    descending: bool,
    page: usize,
) -> Result<(VecDeque<Place>, bool)> {
    let range = if descending { "ZREVRANGE" } else { "ZRANGE" };
    let score = place.0;
    for _ in 0..SEARCHES {
        let mut pipe = redis::pipe();
        pipe.cmd("ZCOUNT").arg(key);
        if descending {
            pipe.arg(format!("({score}")).arg("+inf");
        } else {
            pipe.arg("-inf").arg(format!("({score}"));
        }
        pipe.cmd("ZCOUNT").arg(key).arg(score).arg(score);
        let counts = shard.link.pipe(&pipe, "list").await?;
        let [before, equal] = counts.as_slice() else { break };
        let before = number(before)?.unwrap_or(0);
        // All up to `from` come before the place or are it, none from `to` on does.
        let (mut from, mut to) = (before, before + number(equal)?.unwrap_or(0));
        while from < to {
            let middle = from + (to - from) / 2;
            let mut get = redis::cmd(range);
            get.arg(key).arg(middle).arg(middle).arg("WITHSCORES");
            let member = scored(&shard.link.send(&get, "list").await?)?.pop();
            if member.is_some_and(|member| order(descending, Some(place), Some(&member)) != Ordering::Less) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        let first = (from - 1).max(0);
        let mut get = redis::cmd(range);
        get.arg(key).arg(first).arg(from + page as i64 - 1).arg("WITHSCORES");
        let members = scored(&shard.link.send(&get, "list").await?)?;
        let stands = match members.first() {
            Some(member) => from == 0 || order(descending, Some(place), Some(member)) != Ordering::Less,
            None => from == 0,
        };
        if stands {
            let is_last = members.len() < page + usize::from(from > 0);
            return Ok((after(members, Some(place), descending), is_last));
        }
    }
    // Others change the set faster than it is read: what is passed over now is on the next page of whoever asks again.
    Ok((VecDeque::new(), true))
}
