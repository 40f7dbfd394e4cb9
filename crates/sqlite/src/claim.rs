//! Pools take jobs.
//!
//! What a claim costs depends on the jobs that it takes and on the names that have any, not on the names that are asked
//! for: those are looked through once, when a pool asks for the first time (see [`Asks`]).

use std::collections::HashMap;
use std::sync::Arc;

use jobservice_core::job::{Job, Status};
use jobservice_core::lifecycle::Event;
use jobservice_core::share::{self, Share};
use jobservice_core::store::{Claim, NameAsk};
use jobservice_core::{Name, Time};

use crate::call::Failure;
use crate::commit::Happened;
use crate::names::{Names, Slot};
use crate::row::{self, Record};
use crate::session::Session;

/// Lists of names worked out for claims; a few, for there is one per pool.
const ASKS_MAX: usize = 16;

/// The lists of names that pools asked for lately.
#[derive(Debug, Default)]
pub(crate) struct Asks(Vec<Ask>);

/// One such list, by slot, with the operator's options in it.
#[derive(Debug)]
struct Ask {
    names: Arc<[NameAsk]>,
    options_version: u64,
    weight_total: u64,
    by_slot: HashMap<Slot, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    weight: u32,
    limit: Option<u32>,
    paused: bool,
}

impl Asks {
    /// The list, worked out now unless it was before and no option has changed since.
    fn find(&mut self, wanted: &Arc<[NameAsk]>, names: &mut Names) -> Option<&Ask> {
        let is_current =
            |ask: &Ask, names: &Names| Arc::ptr_eq(&ask.names, wanted) && ask.options_version == names.options_version;
        if let Some(at) = self.0.iter().position(|ask| is_current(ask, names)) {
            return self.0.get(at);
        }
        self.0.retain(|ask| !Arc::ptr_eq(&ask.names, wanted) && ask.options_version == names.options_version);
        if self.0.len() >= ASKS_MAX {
            self.0.remove(0);
        }
        self.0.push(Ask::of(wanted, names));
        self.0.last()
    }
}

impl Ask {
    fn of(wanted: &Arc<[NameAsk]>, names: &mut Names) -> Ask {
        let mut by_slot = HashMap::with_capacity(wanted.len());
        let mut weight_total = 0;
        for asked in &**wanted {
            let slot = names.slot(&asked.name);
            let options = names.get(slot).options;
            let weight = options.weight.unwrap_or(asked.weight);
            weight_total += u64::from(weight);
            let limit = options.max_concurrency.or(asked.max_concurrency);
            by_slot.insert(slot, Asked { weight, limit, paused: options.paused });
        }
        Ask { names: Arc::clone(wanted), options_version: names.options_version, weight_total, by_slot }
    }

    /// The names asked for that may have work and may run it.
    fn open<'a>(&'a self, names: &'a Names, suspects: bool) -> Vec<(Slot, Asked)> {
        let open = |slot: Slot, asked: &Asked| {
            let state = names.get(slot);
            !asked.paused && asked.limit != Some(0) && (state.ready || (suspects && state.suspects))
        };
        if names.hinted().len() < self.by_slot.len() {
            let asked = names.hinted().filter_map(|slot| Some((slot, *self.by_slot.get(&slot)?)));
            return asked.filter(|(slot, asked)| open(*slot, asked)).collect();
        }
        let asked = self.by_slot.iter().map(|(slot, asked)| (*slot, *asked));
        asked.filter(|(slot, asked)| open(*slot, asked)).collect()
    }
}

/// One name during a claim.
struct Visit {
    slot: Slot,
    /// The limit of the name, until it is known how many run; then how many more may.
    limit: Option<u32>,
    room: Option<u32>,
}

impl Session<'_> {
    /// Takes jobs: first each name's share of the slots in the order of the plan, then a second round for what is left.
    pub(crate) fn claim(&mut self, ask: &Claim, now: Time) -> Result<Vec<Job>, Failure> {
        let mut jobs = Vec::new();
        if ask.slots == 0 || self.names.hinted().len() == 0 {
            return Ok(jobs);
        }
        let Some(list) = self.asks.find(&ask.names, &mut self.names) else { return Ok(jobs) };
        let (open, weight_total) = (list.open(&self.names, ask.suspects), list.weight_total);
        if open.is_empty() {
            return Ok(jobs);
        }
        if !self.pools.contains(&ask.pool) {
            self.pools.push(ask.pool.clone());
        }
        let share = |(slot, asked): &(Slot, Asked)| {
            let name = self.names.get(*slot).name.clone();
            Share { name, weight: asked.weight }
        };
        let plan = share::plan(open.iter().map(share).collect(), weight_total, ask.slots, ask.seed);
        let mut visits: HashMap<Name, Visit> = open
            .into_iter()
            .map(|(slot, asked)| (self.names.get(slot).name.clone(), Visit { slot, limit: asked.limit, room: None }))
            .collect();
        let event = Event::Claim { pool: ask.pool.clone(), nonce: ask.nonce, until: ask.until, grace: ask.grace };
        let mut suspects = ask.suspects;
        let first_round = plan.iter().map(|(name, part)| (name, *part));
        let second_round = plan.iter().map(|(name, _)| (name, u32::MAX));
        for (name, part) in first_round.chain(second_round) {
            let left = ask.slots.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
            if left == 0 {
                break;
            }
            let Some(visit) = visits.get_mut(name) else { continue };
            let room = self.room(name, visit)?;
            let wanted = part.min(left).min(room);
            if wanted == 0 {
                continue;
            }
            let taken = self.claim_of(name, visit.slot, wanted, &mut suspects, &event, now, &mut jobs)?;
            visit.room = Some(room.saturating_sub(taken));
        }
        Ok(jobs)
    }

    /// How many more jobs of a name may run: its limit less the leases there are. Never a counter: what a dead worker
    /// holds counts until it is reaped, and nothing can drift.
    fn room(&mut self, name: &Name, visit: &mut Visit) -> Result<u32, Failure> {
        let room = match (visit.room, visit.limit) {
            (Some(room), _) => room,
            (None, None) => u32::MAX,
            (None, Some(limit)) => {
                let running = self.running_of(name)?;
                u32::try_from(u64::from(limit).saturating_sub(running)).unwrap_or(u32::MAX)
            }
        };
        visit.room = Some(room);
        if room == 0 {
            self.names.get_mut(visit.slot).at_limit = true;
        }
        Ok(room)
    }

    /// How many jobs of a name run.
    pub(crate) fn running_of(&mut self, name: &Name) -> Result<u64, Failure> {
        let mut count = self
            .conn
            .prepare_cached("SELECT count(*) FROM jobs INDEXED BY jobs_running WHERE status = 2 AND name = ?1")?;
        Ok(count.query_row([name.as_str()], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Takes up to `wanted` jobs of one name; answers how many.
    #[expect(clippy::too_many_arguments, reason = "a step of `claim`, which holds all of these")]
    fn claim_of(
        &mut self,
        name: &Name,
        slot: Slot,
        wanted: u32,
        suspects: &mut bool,
        event: &Event,
        now: Time,
        jobs: &mut Vec<Job>,
    ) -> Result<u32, Failure> {
        let mut records = Vec::new();
        if self.names.get(slot).ready {
            let asked = wanted as usize;
            let damaged = read_queue(&mut self.hot.ready, name, wanted, &mut records)?;
            if records.len() + damaged.len() < asked {
                self.names.exhausted(slot, false);
            }
            for (seq, why) in damaged {
                self.set_aside(seq, Status::Pending, &why)?;
            }
        }
        if *suspects
            && self.names.get(slot).suspects
            && let Some(suspect) = self.first_suspect(name, slot)?
        {
            let at = records.partition_point(|record: &Record| place(record) < place(&suspect));
            if at < wanted as usize {
                records.insert(at, suspect);
                records.truncate(wanted as usize);
                *suspects = false;
                // What was cut off again stays ready.
                self.names.hint(slot, false);
            }
        }
        let mut taken = 0;
        for mut record in records {
            if let Happened::Is(_) = self.happen_to(&mut record, event, now)? {
                taken += 1;
                jobs.push(record.job.clone());
                self.running.keep(record);
            }
        }
        Ok(taken)
    }

    /// The head of the queue of jobs that crashed before.
    fn first_suspect(&mut self, name: &Name, slot: Slot) -> Result<Option<Record>, Failure> {
        let mut first = self.conn.prepare_cached(&format!(
            "SELECT {} FROM jobs INDEXED BY jobs_suspects WHERE status = 1 AND crashes > 0 AND name = ? \
             ORDER BY priority DESC, ready_at, id LIMIT ?",
            row::columns()
        ))?;
        let mut records = Vec::new();
        let damaged = read_queue(&mut first, name, 1, &mut records)?;
        drop(first);
        if records.is_empty() && damaged.is_empty() {
            self.names.exhausted(slot, true);
        }
        for (seq, why) in damaged {
            self.set_aside(seq, Status::Pending, &why)?;
        }
        Ok(records.pop())
    }
}

/// A job's place in the queue of its name: the least is the first.
fn place(record: &Record) -> (std::cmp::Reverse<u8>, Time, &str) {
    let Job { id, spec, state } = &record.job;
    (std::cmp::Reverse(spec.priority), state.ready_at, id.as_str())
}

/// Reads the head of a queue; answers with the rows that cannot be read and why.
fn read_queue(
    statement: &mut rusqlite::Statement<'_>,
    name: &Name,
    limit: u32,
    records: &mut Vec<Record>,
) -> Result<Vec<(i64, String)>, Failure> {
    let mut damaged = Vec::new();
    let mut rows = statement.query((name.as_str(), limit))?;
    while let Some(row) = rows.next()? {
        match row::read(row, Some(name)) {
            Ok(record) => records.push(record),
            Err(Failure::Damaged(why)) => damaged.push((row.get(0)?, why)),
            Err(failure) => return Err(failure),
        }
    }
    Ok(damaged)
}
