//! Runs go on and end: finish, release, check in, extend.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;
use jobservice_core::job::LeaseKey;
use jobservice_core::lifecycle::{Event, Refusal};
use jobservice_core::store::{CheckedIn, Extended, Finished, Held, Report, Result};
use jobservice_core::{JobId, PoolId, Time};

use crate::store::{RedisStore, Shard};
use crate::work::{Happened, Tries, Work};

impl RedisStore {
    /// Records how runs ended.
    pub(crate) async fn finish_runs(&self, reports: Vec<Report>, now: Time) -> Result<Vec<Finished>> {
        let events = reports.into_iter().map(|Report { lease, outcome }| {
            let id = lease.id.clone();
            (id, Event::Finish { lease, outcome })
        });
        self.end_runs(events.collect(), now).await
    }

    /// Gives jobs back unfinished.
    pub(crate) async fn release_runs(&self, leases: Vec<LeaseKey>, jitter: u32, now: Time) -> Result<Vec<Finished>> {
        let events = leases.into_iter().map(|lease| (lease.id.clone(), Event::Release { lease, jitter }));
        self.end_runs(events.collect(), now).await
    }

    async fn end_runs(&self, events: Vec<(JobId, Event)>, now: Time) -> Result<Vec<Finished>> {
        let mut answers = vec![Finished::LeaseLost; events.len()];
        for (shard, places) in self.by_shard(events.iter().map(|(id, _)| id)).await? {
            let mut tries = Tries::default();
            let mut remembers = true;
            loop {
                let mut work = Work::new(shard, now);
                let ids: Vec<JobId> = places.iter().filter_map(|at| Some(events.get(*at)?.0.clone())).collect();
                work.ends_runs();
                self.prepare(&mut work, &ids, remembers && tries.is_first()).await?;
                let mut ended = Vec::with_capacity(places.len());
                for at in &places {
                    let Some((id, event)) = events.get(*at) else { continue };
                    ended.push((*at, end_run(&mut work, id, event).await?));
                }
                // What is refused is not written, so nothing checks what it was refused from: only what was read counts.
                if remembers && ended.iter().any(|(_, answer)| *answer == Finished::LeaseLost) {
                    remembers = false;
                    continue;
                }
                if self.commit(shard, work, &mut tries).await? {
                    for (at, answer) in ended {
                        if let Some(place) = answers.get_mut(at) {
                            *place = answer;
                        }
                    }
                    break;
                }
            }
        }
        // What is lost is not held here any more.
        let mut held = self.held.lock();
        for ((id, _), answer) in events.iter().zip(&answers) {
            if *answer == Finished::LeaseLost {
                held.remove(id);
            }
        }
        Ok(answers)
    }

    /// Puts the records of jobs into a step, as they are remembered if they may be, else as they are read.
    async fn prepare(&self, work: &mut Work<'_>, ids: &[JobId], remembers: bool) -> Result<()> {
        if remembers {
            let held = self.held.lock();
            for id in ids {
                if let Some(record) = held.get(id) {
                    work.assume(record.clone());
                }
            }
        }
        work.load(ids).await
    }

    /// The shards of these ids, each with the places of its ids among them.
    pub(crate) async fn by_shard<'a>(&self, ids: impl Iterator<Item = &'a JobId>) -> Result<Vec<(&Shard, Vec<usize>)>> {
        let ids: Vec<&JobId> = ids.collect();
        let mut found: Vec<(&Shard, Vec<usize>)> = Vec::new();
        for (at, number) in self.numbers_with(&ids).await?.into_iter().enumerate() {
            let shard = self.shard(number)?;
            match found.iter_mut().find(|(known, _)| std::ptr::eq(*known, shard)) {
                Some((_, places)) => places.push(at),
                None => found.push((shard, vec![at])),
            }
        }
        Ok(found)
    }

    /// Records a progress message.
    pub(crate) async fn check_in_run(&self, lease: &LeaseKey, message: Arc<str>, now: Time) -> Result<CheckedIn> {
        let event = Event::CheckIn { lease: lease.clone(), message };
        let shard = self.shard_with(&lease.id).await?;
        let mut tries = Tries::default();
        loop {
            let mut work = Work::new(shard, now);
            self.prepare(&mut work, std::slice::from_ref(&lease.id), tries.is_first()).await?;
            let happened = work.happen(&lease.id, &event).await?;
            let signal = work.job(&lease.id).and_then(|job| job.state.signal).map(|state| state.signal);
            // A check-in moves the job to no other set, but it makes its record and its outbox larger.
            work.is_intake();
            if self.commit(shard, work, &mut tries).await? {
                return Ok(match happened {
                    Happened::Is(_) => CheckedIn::Noted(signal),
                    _ => CheckedIn::LeaseLost,
                });
            }
        }
    }

    /// Extends leases, and names those of the pool that it did not list.
    pub(crate) async fn extend_leases(
        &self,
        pool: &PoolId,
        leases: &[LeaseKey],
        until: Time,
        now: Time,
    ) -> Result<Extended> {
        let mut answer = Extended { leases: vec![Held::Lost; leases.len()], unlisted: Vec::new() };
        let before = join_all(self.shards.iter().map(|shard| self.claims(shard, pool))).await;
        // A shard that is away must not cost the leases on the others.
        let mut trouble = None;
        for (shard, places) in self.by_shard(leases.iter().map(|lease| &lease.id)).await? {
            match self.extend_in(shard, leases, places, until, now).await {
                Ok(held) => {
                    for (at, held) in held {
                        if let Some(place) = answer.leases.get_mut(at) {
                            *place = held;
                        }
                    }
                }
                Err(error) => trouble = Some(error),
            }
        }
        let held = leases.iter().zip(&answer.leases).filter(|(_, answer)| **answer != Held::Lost);
        let held: HashSet<&LeaseKey> = held.map(|(lease, _)| lease).collect();
        for (shard, before) in self.shards.iter().zip(before) {
            let unlisted = match before {
                Ok(before) => self.unlisted(shard, pool, &held, &before, now).await,
                Err(error) => Err(error),
            };
            match unlisted {
                Ok(unlisted) => answer.unlisted.extend(unlisted),
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        // What is lost ends without a report: nobody else would forget it.
        let mut held = self.held.lock();
        for (lease, answer) in leases.iter().zip(&answer.leases) {
            if *answer == Held::Lost && held.get(&lease.id).is_some_and(|record| record.job.is_held_by(lease)) {
                held.remove(&lease.id);
            }
        }
        Ok(answer)
    }

    /// Extends the leases at these places, which are on one shard.
    ///
    /// All in one step, if none of the runs ends meanwhile. Else in halves: leases have nothing to do with one another, and
    /// in a busy pool some run always ends.
    async fn extend_in(
        &self,
        shard: &Shard,
        leases: &[LeaseKey],
        places: Vec<usize>,
        until: Time,
        now: Time,
    ) -> Result<Vec<(usize, Held)>> {
        let mut extended = Vec::with_capacity(places.len());
        let mut parts = vec![(places, Tries::default())];
        while let Some((places, mut tries)) = parts.pop() {
            let mut work = Work::new(shard, now);
            // Read, not remembered: it is the look for signals that other nodes gave.
            let ids: Vec<JobId> = places.iter().filter_map(|at| Some(leases.get(*at)?.id.clone())).collect();
            work.load(&ids).await?;
            let mut held = Vec::with_capacity(places.len());
            for at in &places {
                let Some(lease) = leases.get(*at) else { continue };
                // Whether it was long enough already does not matter: what counts is who holds it after that.
                if work.broken(&lease.id).is_none() {
                    work.happen(&lease.id, &Event::Extend { lease: lease.clone(), until }).await?;
                }
                let job = work.job(&lease.id).filter(|job| job.is_held_by(lease));
                held.push((*at, job.map_or(Held::Lost, |job| Held::Held(job.state.signal.map(|state| state.signal)))));
            }
            if self.commit(shard, work, &mut tries).await? {
                extended.extend(held);
            } else if places.len() > 1 {
                let (some, others) = places.split_at(places.len() / 2);
                parts.push((others.to_vec(), Tries::default()));
                parts.push((some.to_vec(), Tries::default()));
            } else {
                parts.push((places, tries));
            }
        }
        Ok(extended)
    }
}

async fn end_run(work: &mut Work<'_>, id: &JobId, event: &Event) -> Result<Finished> {
    use Refusal::{Illegal, LeaseLost, NotYet, Repeated, Unchanged};
    Ok(match work.happen(id, event).await? {
        Happened::Is(status) | Happened::Refused(Repeated(status)) => Finished::Applied(status),
        Happened::Refused(LeaseLost | Unchanged | NotYet(_) | Illegal { .. })
        | Happened::Gone
        | Happened::KeyTaken(_)
        | Happened::NotFound => Finished::LeaseLost,
    })
}
