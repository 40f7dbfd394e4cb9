//! Jobs run: claim, extend, finish, release, check in.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::inner::{Happened, Inner};
use crate::job::{Job, LeaseKey, Status};
use crate::lifecycle::Event;
use crate::share::{self, Share};
use crate::store::{CheckedIn, Claim, Extended, Finished, Held};
use crate::{JobId, Name, PoolId, Time};

impl Inner {
    /// Takes jobs: first each name's share of the slots in the order of the plan, then a second round for what is left.
    pub(super) fn claim(&mut self, ask: &Claim, now: Time) -> Vec<Job> {
        let (mut room, shares, weight_total) = self.open_names(ask);
        let plan = share::plan(shares, weight_total, ask.slots, ask.seed);
        let event = Event::Claim { pool: ask.pool.clone(), nonce: ask.nonce, until: ask.until, grace: ask.grace };
        let mut suspects = ask.suspects;
        let mut jobs = Vec::new();
        let first_round = plan.iter().map(|(name, part)| (name, *part));
        let second_round = plan.iter().map(|(name, _)| (name, u32::MAX));
        for (name, part) in first_round.chain(second_round) {
            let Some(room) = room.get_mut(name) else { continue };
            for _ in 0..part.min(*room) {
                if jobs.len() >= ask.slots as usize {
                    return jobs;
                }
                let Some(job) = self.claim_first(name, &mut suspects, &event, now) else { break };
                *room -= 1;
                jobs.push(job);
            }
        }
        jobs
    }

    /// The names asked for that have work which may run now: the room of each below its limit, its weight, and the sum
    /// of the weights of all names asked for. An operator's word beats the code's.
    fn open_names(&self, ask: &Claim) -> (BTreeMap<Name, u32>, Vec<Share>, u64) {
        let mut room = BTreeMap::new();
        let mut shares = Vec::new();
        let mut weight_total = 0;
        for asked in &*ask.names {
            let options = self.options(&asked.name);
            let weight = options.weight.unwrap_or(asked.weight);
            weight_total += u64::from(weight);
            let ready = self.indexes.ready.get(&asked.name).and_then(|ready| ready.first(ask.suspects));
            if options.paused || ready.is_none() {
                continue;
            }
            let running = self.indexes.number(&asked.name, Status::Running);
            let below = match options.max_concurrency.or(asked.max_concurrency) {
                Some(limit) => u64::from(limit).saturating_sub(running),
                None => u64::from(u32::MAX),
            };
            if below > 0 && room.insert(asked.name.clone(), u32::try_from(below).unwrap_or(u32::MAX)).is_none() {
                shares.push(Share { name: asked.name.clone(), weight });
            }
        }
        (room, shares, weight_total)
    }

    /// Takes the first job of a name's queue; a suspect only if none was taken before.
    fn claim_first(&mut self, name: &Name, suspects: &mut bool, event: &Event, now: Time) -> Option<Job> {
        let (_, _, id) = self.indexes.ready.get(name)?.first(*suspects)?.clone();
        let Happened::Is(_) = self.happen(&id, event, now) else { return None };
        let job = self.jobs.get(&id)?.clone();
        *suspects &= job.state.crashes == 0;
        Some(job)
    }

    /// Extends leases, and names those of the pool that it did not list.
    pub(super) fn extend(&mut self, pool: &PoolId, leases: &[LeaseKey], until: Time, now: Time) -> Extended {
        let mut answer = Extended::default();
        for lease in leases {
            // Whether it was long enough already does not matter: what counts is who holds it after that.
            self.happen(&lease.id, &Event::Extend { lease: lease.clone(), until }, now);
            let held = self.jobs.get(&lease.id).filter(|job| job.is_held_by(lease));
            answer.leases.push(held.map_or(Held::Lost, |job| Held::Held(job.state.signal.map(|state| state.signal))));
        }
        let listed: HashSet<&LeaseKey> = leases.iter().collect();
        let held = self.indexes.held(pool).filter_map(|id| self.jobs.get(id)?.lease_key());
        answer.unlisted = held.filter(|lease| !listed.contains(lease)).collect();
        answer
    }

    /// Applies the end of a run as its worker reports it: a finish or a release.
    pub(super) fn end_run(&mut self, id: &JobId, event: &Event, now: Time) -> Finished {
        use crate::lifecycle::Refusal::{Illegal, LeaseLost, NotYet, Repeated, Unchanged};
        match self.happen(id, event, now) {
            Happened::Is(status) | Happened::Refused(Repeated(status)) => Finished::Applied(status),
            Happened::Refused(LeaseLost | Unchanged | NotYet(_) | Illegal { .. })
            | Happened::Gone
            | Happened::KeyTaken(_)
            | Happened::NotFound => Finished::LeaseLost,
        }
    }

    /// Records a progress message.
    pub(super) fn check_in(&mut self, lease: &LeaseKey, message: Arc<str>, now: Time) -> CheckedIn {
        let event = Event::CheckIn { lease: lease.clone(), message };
        match (self.happen(&lease.id, &event, now), self.jobs.get(&lease.id)) {
            (Happened::Is(_), Some(job)) => CheckedIn::Noted(job.state.signal.map(|state| state.signal)),
            _ => CheckedIn::LeaseLost,
        }
    }
}
