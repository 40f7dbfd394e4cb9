//! Jobs come in.
//!
//! The common job is new, and so is its key: the first try takes that for granted and costs one round trip. If something
//! is in the way, what is there is read and decided from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jobservice_core::notices::Notices;
use jobservice_core::store::{Inserted, NewJob, Result};
use jobservice_core::{JobId, Name, StoreError, Time, limits};

use crate::link::text;
use crate::store::{RedisStore, Shard};
use crate::work::{Tries, Work};

/// A submission as it is remembered: the field of `idem`.
pub(crate) fn submission(name: &Name, key: &str) -> String {
    format!("{name} {key}")
}

/// What is remembered of it: the id and the expiry.
pub(crate) fn remembered(text: &str) -> Result<(JobId, Time)> {
    let damaged = || StoreError::Damaged { what: format!("{text:?} is no remembered submission") };
    let (id, expires_at) = text.split_once(' ').ok_or_else(damaged)?;
    let id = JobId::new(id).map_err(|_| damaged())?;
    Ok((id, Time::from_millis(expires_at.parse().map_err(|_| damaged())?)))
}

/// What is known before the jobs of a batch are decided on.
#[derive(Default)]
struct Known {
    /// Remembered submissions by field, as text.
    submissions: HashMap<String, Option<String>>,
    /// Ids that policies, or jobs of other shards, have.
    taken: HashSet<JobId>,
    /// Whether it was read, or is taken for granted.
    is_read: bool,
}

impl RedisStore {
    /// Inserts jobs, each answered on its own; those of a shard in one step.
    pub(crate) async fn insert_all(&self, jobs: Vec<NewJob>, now: Time) -> Result<Vec<Inserted>> {
        if self.shards.len() == 1 {
            return self.insert_into(0, jobs, HashSet::new(), now).await;
        }
        let mut by_shard: BTreeMap<usize, Vec<(usize, NewJob)>> = BTreeMap::new();
        let mut answers = vec![Inserted::LeaseLost; jobs.len()];
        for (at, mut new) in jobs.into_iter().enumerate() {
            let number = self.shard_number(&new.job.spec.name);
            // A caller elsewhere is looked at before: the two are no one step, and a run that loses its lease in between
            // has launched its last job.
            if let Some(lease) = new.launched_by.take() {
                let shard = self.shard_with(&lease.id).await?;
                if shard.number == number {
                    new.launched_by = Some(lease);
                } else if !Work::new(shard, now).get(&lease.id).await?.is_some_and(|job| job.is_held_by(&lease)) {
                    continue;
                }
            }
            by_shard.entry(number).or_default().push((at, new));
        }
        for (number, jobs) in by_shard {
            let (places, jobs): (Vec<usize>, Vec<NewJob>) = jobs.into_iter().unzip();
            let foreign: Vec<JobId> = jobs.iter().map(|new| new.job.id.clone()).collect();
            let taken = self.point(number, &foreign).await?;
            let inserted = self.insert_into(number, jobs, taken, now).await?;
            let refused = |(at, id): (usize, &JobId)| {
                inserted.get(at).filter(|answer| **answer != Inserted::Created).map(|_| id.clone())
            };
            let refused: Vec<JobId> = foreign.iter().enumerate().filter_map(refused).collect();
            self.unpoint(number, &refused.iter().collect::<Vec<_>>()).await?;
            for (at, answer) in places.into_iter().zip(inserted) {
                if let Some(place) = answers.get_mut(at) {
                    *place = answer;
                }
            }
        }
        Ok(answers)
    }

    async fn insert_into(
        &self,
        number: usize,
        jobs: Vec<NewJob>,
        taken: HashSet<JobId>,
        now: Time,
    ) -> Result<Vec<Inserted>> {
        let no_lane = || StoreError::Damaged { what: format!("there is no shard {number}") };
        self.lanes.get(number).ok_or_else(no_lane)?.insert(jobs, taken, now).await
    }
}

/// Jobs that were submitted together.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) jobs: &'a [NewJob],
    /// Those whose id another shard's job or policy has.
    pub(crate) taken: &'a HashSet<JobId>,
    pub(crate) now: Time,
}

/// Inserts groups of jobs into a shard in one step; the answers by group.
pub(crate) async fn insert_groups(
    shard: &Shard,
    notices: &Notices,
    groups: &[Group<'_>],
) -> Result<Vec<Vec<Inserted>>> {
    let Some(Group { now, .. }) = groups.first() else { return Ok(Vec::new()) };
    let mut tries = Tries::default();
    loop {
        let mut work = Work::new(shard, *now);
        let mut known = if tries.is_first() {
            Known::default()
        } else {
            Known::read(&mut work, groups.iter().flat_map(|group| group.jobs)).await?
        };
        let mut answers = Vec::with_capacity(groups.len());
        for Group { jobs, taken, now } in groups {
            known.taken.extend(taken.iter().cloned());
            answers.push(insert_batch(&mut work, jobs, &mut known, *now).await?);
        }
        if let Some(committed) = work.commit(&mut tries).await? {
            committed.news.tell(notices);
            return Ok(answers);
        }
    }
}

impl Known {
    /// Reads all that may be in the way, in two round trips.
    async fn read(work: &mut Work<'_>, jobs: impl Iterator<Item = &NewJob> + Clone) -> Result<Known> {
        let ids: Vec<JobId> = jobs.clone().map(|new| new.job.id.clone()).collect();
        work.load(&ids).await?;
        let keys = work.keys();
        let mut pipe = redis::pipe();
        for new in jobs.clone() {
            pipe.cmd("EXISTS").arg(keys.policy(&new.job.id)).arg(keys.pointer(&new.job.id));
            let field = new.idempotency_key.as_ref().map(|key| submission(&new.job.spec.name, key));
            pipe.cmd("HGET").arg(keys.submissions()).arg(field.unwrap_or_default());
        }
        let answers = work.link().pipe(&pipe, "insert").await?;
        let mut known = Known { is_read: true, ..Known::default() };
        for (new, answer) in jobs.zip(answers.chunks_exact(2)) {
            let [is_policy, remembered] = answer else { continue };
            if *is_policy != redis::Value::Int(0) {
                known.taken.insert(new.job.id.clone());
            }
            if let Some(key) = &new.idempotency_key {
                let stored = text(remembered)?.map(str::to_owned);
                known.submissions.insert(submission(&new.job.spec.name, key), stored);
            }
        }
        Ok(known)
    }
}

/// Inserts a batch into a step, each answered on its own: the earlier wins a key.
pub(crate) async fn insert_new(work: &mut Work<'_>, jobs: &[NewJob], now: Time) -> Result<Vec<Inserted>> {
    let mut known = Known::read(work, jobs.iter()).await?;
    insert_batch(work, jobs, &mut known, now).await
}

async fn insert_batch(work: &mut Work<'_>, jobs: &[NewJob], known: &mut Known, now: Time) -> Result<Vec<Inserted>> {
    let mut answers = Vec::with_capacity(jobs.len());
    for new in jobs {
        answers.push(insert_one(work, new, known, now).await?);
    }
    Ok(answers)
}

/// Inserts one job. The order of the looks matters to who repeats a call: first whether this very submission is known, by
/// its key or by its id, only then whether another job is in its way.
async fn insert_one(work: &mut Work<'_>, new: &NewJob, known: &mut Known, now: Time) -> Result<Inserted> {
    let NewJob { job, idempotency_key, launched_by } = new;
    if let Some(lease) = launched_by {
        let caller = work.get(&lease.id).await?;
        if !caller.is_some_and(|caller| caller.is_held_by(lease)) {
            return Ok(Inserted::LeaseLost);
        }
        work.must_stand(&lease.id);
    }
    let keys = work.keys();
    let remember = idempotency_key.as_ref().map(|key: &Arc<str>| submission(&job.spec.name, key));
    let mut stored = None;
    if let Some(field) = &remember {
        stored = known.submissions.get(field).cloned().flatten();
        if let Some((id, expires_at)) = stored.as_deref().map(remembered).transpose()?
            && expires_at > now
        {
            return Ok(Inserted::Repeated(id));
        }
    }
    if !known.is_read {
        work.assume_absent(&job.id);
    }
    if known.taken.contains(&job.id) || work.get(&job.id).await?.is_some() {
        must_be_new(work, new, known, false);
        return Ok(Inserted::IdTaken);
    }
    if let (true, Some(unique)) = (job.state.holds_key, job.spec.unique) {
        if !known.is_read {
            work.assume_holder(&unique.digest, None);
        }
        if let Some(holder) = work.holder(&unique.digest).await? {
            must_be_new(work, new, known, true);
            return Ok(Inserted::Duplicate(holder));
        }
    }
    if work.has_pointers() {
        work.check([b"x", keys.pointer(&job.id).as_bytes()]);
    }
    if let Some(field) = remember {
        let (hash, due) = (keys.submissions(), keys.submissions_due());
        let first = known.submissions.get(&field).is_none_or(|now| *now == stored);
        if first {
            work.check([b"f", hash.as_bytes(), field.as_bytes(), stored.as_deref().unwrap_or("").as_bytes()]);
        }
        let expires_at = (now + limits::IDEMPOTENCY_KEPT).as_millis();
        let value = format!("{} {expires_at}", job.id);
        work.command([b"HSET", hash.as_bytes(), field.as_bytes(), value.as_bytes()]);
        work.command([b"ZADD", due.as_bytes(), expires_at.to_string().as_bytes(), field.as_bytes()]);
        known.submissions.insert(field, Some(value));
    }
    work.add(job.clone());
    Ok(Inserted::Created)
}

/// A job that is refused because of another one of its batch writes nothing, so nothing would check what was taken for
/// granted of it: that its submission, and if so asked its id, are not known. Each of these would come first in the answer.
fn must_be_new(work: &mut Work<'_>, new: &NewJob, known: &Known, id: bool) {
    if known.is_read {
        return;
    }
    let (keys, job) = (work.keys(), &new.job);
    if id {
        work.check([b"n", job.id.as_str().as_bytes()]);
        if work.has_pointers() {
            work.check([b"x", keys.pointer(&job.id).as_bytes()]);
        }
    }
    if let Some(field) = new.idempotency_key.as_ref().map(|key| submission(&job.spec.name, key))
        && !known.submissions.contains_key(&field)
    {
        work.check([b"f", keys.submissions().as_bytes(), field.as_bytes(), b""]);
    }
}
