//! A claim over several shards: planned as if they were one.
//!
//! Each shard says what its names have (`lua/peek.lua`); the plan is made over all of them, down to how many jobs each name
//! gives; then each shard takes its part. What others took in between is missing from the answer: the next claim finds
//! what there is.

use std::collections::{BTreeMap, HashMap, VecDeque};

use futures_util::future::join_all;
use jobservice_core::job::Job;
use jobservice_core::share::{self, Share};
use jobservice_core::store::{Claim, NameAsk, Result};
use jobservice_core::{Name, Time};

use crate::claim::{Asked, Suspects, read_options};
use crate::link::{self, array, number, text};
use crate::script::PEEK;
use crate::store::{RedisStore, Shard};

/// What a name has.
struct Seen {
    shard: usize,
    weight: u32,
    ready: u64,
    room: u64,
    limit: Option<u32>,
    options: String,
    /// Waiting jobs before the first suspect, if it has one that may be taken.
    suspect_after: Option<u64>,
    /// Taken so far: waiting jobs, and whether the suspect is among what is taken.
    sound: u64,
    has_suspect: bool,
}

impl Seen {
    fn total(&self) -> u64 {
        self.sound + u64::from(self.has_suspect)
    }

    /// Takes up to `wanted` jobs in the order of the queue; answers how many.
    fn take(&mut self, wanted: u64, suspects: &mut bool) -> u64 {
        let left = self.ready.saturating_sub(self.sound);
        let at = self.suspect_after.map(|before| before.saturating_sub(self.sound).min(left));
        let suspect = at.is_some_and(|at| *suspects && !self.has_suspect && at < wanted);
        let sound = left.min(wanted - u64::from(suspect));
        self.sound += sound;
        self.has_suspect |= suspect;
        *suspects &= !suspect;
        self.room = self.room.saturating_sub(sound + u64::from(suspect));
        sound + u64::from(suspect)
    }
}

impl RedisStore {
    /// Takes jobs from all shards by one plan.
    pub(crate) async fn claim_over_all(&self, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        let mut by_shard: BTreeMap<usize, Vec<&NameAsk>> = BTreeMap::new();
        for asked in &*ask.names {
            by_shard.entry(self.shard_number(&asked.name)).or_default().push(asked);
        }
        let peeks = by_shard.iter().map(|(number, names)| self.peek(*number, names, ask));
        let mut seen: HashMap<Name, Seen> = HashMap::new();
        let mut away = None;
        for peeked in join_all(peeks).await {
            match peeked {
                Ok(found) => seen.extend(found),
                Err(error) => away = Some(error),
            }
        }
        if let Some(error) = away.filter(|_| seen.is_empty()) {
            return Err(error);
        }
        let mut weight_total = 0;
        {
            let known = self.options.lock();
            for asked in &*ask.names {
                let options = known.get(&asked.name).map(|text| read_options(text)).transpose()?.unwrap_or_default();
                weight_total += u64::from(options.weight.unwrap_or(asked.weight));
            }
        }
        let shares = seen.iter().map(|(name, seen)| Share { name: name.clone(), weight: seen.weight }).collect();
        let plan = share::plan(shares, weight_total, ask.slots, ask.seed);

        // The order in which the jobs are taken: names, each with a number.
        let mut visits: Vec<(&Name, u64)> = Vec::new();
        let mut left = u64::from(ask.slots);
        let mut suspects = ask.suspects;
        let first_round = plan.iter().map(|(name, part)| (name, u64::from(*part)));
        let second_round = plan.iter().map(|(name, _)| (name, u64::MAX));
        for (name, part) in first_round.chain(second_round) {
            let Some(seen) = seen.get_mut(name) else { continue };
            let taken = seen.take(part.min(left).min(seen.room), &mut suspects);
            left -= taken;
            if taken > 0 {
                visits.push((name, taken));
            }
        }
        let mut parts: BTreeMap<usize, Vec<Asked>> = BTreeMap::new();
        let mut suspect = None;
        for (name, _) in &plan {
            let Some(seen) = seen.get(name).filter(|seen| seen.total() > 0) else { continue };
            if seen.has_suspect {
                suspect = Some(name.clone());
            }
            parts.entry(seen.shard).or_default().push(Asked {
                name: name.clone(),
                part: u32::try_from(seen.total()).unwrap_or(u32::MAX),
                limit: seen.limit,
                options: seen.options.clone(),
                open: true,
            });
        }
        let claims = parts.into_iter().map(|(number, asked)| {
            let slots = asked.iter().map(|asked| asked.part).sum();
            let suspect = suspect.clone().filter(|name| asked.iter().any(|asked| asked.name == *name));
            let ask = Claim { slots, ..ask.clone() };
            async move {
                let suspects = suspect.map_or(Suspects::None, Suspects::Of);
                let jobs = self.claim_part(self.shard(number)?, &asked, &suspects, &ask, now).await?;
                Ok::<_, jobservice_core::StoreError>(jobs.unwrap_or_default())
            }
        });
        let mut jobs = Vec::new();
        let mut trouble = None;
        for claimed in join_all(claims).await {
            match claimed {
                Ok(claimed) => jobs.extend(claimed),
                Err(error) => trouble = Some(error),
            }
        }
        match trouble {
            // What the others gave runs; what the one took and could not tell is found by the keeper.
            Some(error) if jobs.is_empty() => Err(error),
            _ => Ok(in_order(jobs.into_iter(), &visits)),
        }
    }

    async fn peek(&self, number_of_shard: usize, names: &[&NameAsk], ask: &Claim) -> Result<Vec<(Name, Seen)>> {
        let shard: &Shard = self.shard(number_of_shard)?;
        let mut call = link::call(&PEEK, shard.keys.prefix());
        call.arg(ask.slots);
        for asked in names {
            call.arg(asked.name.as_str());
        }
        let answer = shard.link.run(&PEEK, &call, "claim").await?;
        let mut found = Vec::new();
        for values in array(&answer)?.chunks_exact(5) {
            let [at, ready, running, options, before] = values else { continue };
            let count = |value| Ok::<_, jobservice_core::StoreError>(number(value)?.unwrap_or(0).max(0) as u64);
            let Some(asked) = names.get((count(at)? as usize).wrapping_sub(1)) else { continue };
            let options_text = text(options)?.unwrap_or_default().to_owned();
            let options = read_options(&options_text)?;
            self.options.lock().insert(asked.name.clone(), options_text.clone());
            let limit = options.max_concurrency.or(asked.max_concurrency);
            self.wake.limit(&asked.name, limit.is_some());
            let room = limit.map_or(u64::MAX, |limit| u64::from(limit).saturating_sub(count(running).unwrap_or(0)));
            let suspect_after =
                number(before)?.filter(|before| ask.suspects && *before >= 0).map(|before| before as u64);
            let ready = count(ready)?;
            if options.paused || room == 0 || (ready == 0 && suspect_after.is_none()) {
                continue;
            }
            let weight = options.weight.unwrap_or(asked.weight);
            found.push((
                asked.name.clone(),
                Seen {
                    shard: number_of_shard,
                    weight,
                    ready,
                    room,
                    limit,
                    options: options_text,
                    suspect_after,
                    sound: 0,
                    has_suspect: false,
                },
            ));
        }
        Ok(found)
    }
}

/// The jobs in the order of the visits; those of a name are in the order of its queue.
fn in_order(jobs: impl Iterator<Item = Job>, visits: &[(&Name, u64)]) -> Vec<Job> {
    let mut queues: HashMap<Name, VecDeque<Job>> = HashMap::new();
    for job in jobs {
        queues.entry(job.spec.name.clone()).or_default().push_back(job);
    }
    let mut ordered = Vec::new();
    for (name, count) in visits {
        if let Some(queue) = queues.get_mut(*name) {
            let count = usize::try_from(*count).unwrap_or(usize::MAX).min(queue.len());
            ordered.extend(queue.drain(..count));
        }
    }
    // Whatever was taken in place of what others had taken.
    ordered.extend(queues.into_values().flatten());
    ordered
}
