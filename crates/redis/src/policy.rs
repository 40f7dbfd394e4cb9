//! Policies: put, fire, change, end. What each means is said by `jobservice_core::policy`.
//!
//! A policy is one text (`policy_text.rs`) in the shard of its name, where its executions are too. A change compares the
//! whole text, so a tick fires once on any number of nodes, and whoever makes executions makes them of what still stands.
//!
//! An update may give a policy a name of another shard. Then it is removed there and put here, which are two steps: a
//! crash between them forgets it until it is put again, which whoever did not get an answer does. The other order could
//! leave two of it, each firing. Its earlier executions stay where they are; ending the policy finds them there, in steps
//! of their own.

use jobservice_core::job::Signal;
use jobservice_core::lifecycle::Event;
use jobservice_core::policy::{self, Firing, Overlap, Policy, PolicyEvent, PolicyState, Tick};
use jobservice_core::store::{Action, Controlled, Deleted, Fired, Inserted, NewJob, PolicyPut, Result};
use jobservice_core::{JobId, StoreError, Time, limits};

use crate::due::note_broken;
use crate::insert::insert_new;
use crate::link::{array, text};
use crate::policy_text;
use crate::store::{RedisStore, Shard};
use crate::work::{Tries, Work, count, ids};

/// A policy as it was read: a change of it is right only if this text still stands.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    text: String,
    policy: Policy,
}

impl Stored {
    /// Reads the policy that is stored under an id.
    pub(crate) fn read(id: &JobId, text: String) -> Result<Stored> {
        let policy = policy_text::read(&text)?;
        if policy.id != *id {
            return Err(StoreError::Damaged { what: format!("policy {} is stored as {id}", policy.id) });
        }
        Ok(Stored { text, policy })
    }

    async fn get(shard: &Shard, id: &JobId) -> Result<Option<Stored>> {
        let mut get = redis::cmd("GET");
        get.arg(shard.keys.policy(id));
        let answer = shard.link.send(&get, "read a policy").await?;
        text(&answer)?.map(|text| Stored::read(id, text.to_owned())).transpose()
    }

    /// The policy, without what it was read from.
    pub(crate) fn into_policy(self) -> Policy {
        self.policy
    }

    fn with(&self, state: PolicyState) -> Policy {
        Policy { state, ..self.policy.clone() }
    }
}

// ---- put ----

impl RedisStore {
    /// Inserts a policy or updates that with its key.
    ///
    /// Two that bring the same new key at the same moment are compared only if their names are of one shard.
    pub(crate) async fn put_one_policy(&self, policy: Policy, now: Time) -> Result<PolicyPut> {
        let mut tries = Tries::default();
        let number = self.shard_number(&policy.spec.name);
        let shard = self.shard(number)?;
        loop {
            if let Some(stored) = self.policy_by_key(&policy).await? {
                let (from, stored) = stored;
                let id = stored.policy.id.clone();
                let Some(state) = policy::upsert(&stored.policy, &policy.spec, policy.state.next_due, now) else {
                    return Ok(PolicyPut::Unchanged(id));
                };
                let changed = Policy { id: id.clone(), spec: policy.spec.clone(), state };
                let done = if from.number == number {
                    let mut work = Work::new(shard, now);
                    work.is_submission();
                    change(&mut work, &stored, &changed)?;
                    tell_changed(&mut work, &id);
                    self.commit(shard, work, &mut tries).await?
                } else {
                    self.move_policy(from, shard, &stored, &changed, now, &mut tries).await?
                };
                if done {
                    return Ok(PolicyPut::Updated(id));
                }
                continue;
            }
            let ids = std::slice::from_ref(&policy.id);
            if self.point(number, ids).await?.contains(&policy.id) {
                return Ok(PolicyPut::IdTaken);
            }
            // Crash here: a pointer to nothing, which is taken for none.
            let mut work = Work::new(shard, now);
            let is_taken = self.shard_with(&policy.id).await?.number != number
                || work.load_or_policy(&policy.id).await?.is_some()
                || work.job(&policy.id).is_some()
                || work.broken(&policy.id).is_some();
            if is_taken {
                return Ok(PolicyPut::IdTaken);
            }
            create(&mut work, &policy)?;
            work.news.policies = true;
            if self.commit(shard, work, &mut tries).await? {
                return Ok(PolicyPut::Created);
            }
        }
    }

    /// Moves a policy to the shard of its new name, in two steps: see the head of this file.
    async fn move_policy(
        &self,
        from: &Shard,
        to: &Shard,
        stored: &Stored,
        changed: &Policy,
        now: Time,
        tries: &mut Tries,
    ) -> Result<bool> {
        let mut work = Work::new(from, now);
        remove(&mut work, stored).await?;
        if !self.commit(from, work, tries).await? {
            return Ok(false);
        }
        // Crash here: the policy is gone until it is put again.
        self.unpoint(from.number, &[&changed.id]).await?;
        self.point(to.number, std::slice::from_ref(&changed.id)).await?;
        let mut work = Work::new(to, now);
        create(&mut work, changed)?;
        tell_changed(&mut work, &changed.id);
        self.commit(to, work, tries).await
    }

    /// The policy with the same schedule key, and the shard that has it.
    async fn policy_by_key(&self, policy: &Policy) -> Result<Option<(&Shard, Stored)>> {
        let Some(key) = &policy.spec.schedule_key else { return Ok(None) };
        let Some((shard, id)) = self.find_schedule(key).await? else { return Ok(None) };
        if let Some(stored) = Stored::get(shard, &id).await? {
            return Ok(Some((shard, stored)));
        }
        // It went while we looked; or the entry is left over, and would refuse the key for good.
        let mut work = Work::new(shard, Time::MAX);
        let schedules = shard.keys.schedules();
        work.check([b"x", shard.keys.policy(&id).as_bytes()]);
        work.check([b"f", schedules.as_bytes(), key.as_bytes(), id.as_str().as_bytes()]);
        work.command([b"HDEL", schedules.as_bytes(), key.as_bytes()]);
        self.commit(shard, work, &mut Tries::default()).await?;
        Ok(None)
    }

    /// The id of the policy with a schedule key, and the shard that has it.
    pub(crate) async fn find_schedule(&self, key: &str) -> Result<Option<(&Shard, JobId)>> {
        for shard in &self.shards {
            let mut get = redis::cmd("HGET");
            get.arg(shard.keys.schedules()).arg(key);
            if let Some(id) = crate::record::id(&shard.link.send(&get, "look up a schedule").await?)? {
                return Ok(Some((shard, id)));
            }
        }
        Ok(None)
    }
}

// ---- fire and change ----

impl RedisStore {
    /// Fires one tick.
    pub(crate) async fn fire_tick(&self, id: &JobId, tick: &Tick, offered: Vec<NewJob>, now: Time) -> Result<Fired> {
        let shard = self.shard_with(id).await?;
        // Made of a version with a name of another shard: where they would go this policy cannot decide on them.
        if offered.iter().any(|new| self.shard_number(&new.job.spec.name) != shard.number) {
            return Ok(Fired::Stale);
        }
        let foreign: Vec<JobId> = offered.iter().map(|new| new.job.id.clone()).collect();
        let taken = self.point(shard.number, &foreign).await?;
        let (taken, executions): (Vec<NewJob>, Vec<NewJob>) =
            offered.into_iter().partition(|new| taken.contains(&new.job.id));
        let fired = self.fire_on(shard, id, tick, &executions, taken.len(), now).await?;
        let created: &[JobId] = if let Fired::Fired(created) = &fired { created } else { &[] };
        let refused: Vec<&JobId> = foreign.iter().filter(|id| !created.contains(id)).collect();
        self.unpoint(shard.number, &refused).await?;
        Ok(fired)
    }

    async fn fire_on(
        &self,
        shard: &Shard,
        id: &JobId,
        tick: &Tick,
        executions: &[NewJob],
        taken: usize,
        now: Time,
    ) -> Result<Fired> {
        let mut tries = Tries::default();
        loop {
            let Some(stored) = Stored::get(shard, id).await? else { return Ok(Fired::Stale) };
            let mut work = Work::new(shard, now);
            // Under `allow` there may be any number of them, and they do not matter.
            let live = match stored.policy.spec.overlap {
                Overlap::Allow => 0,
                Overlap::Skip | Overlap::Queue | Overlap::Replace => {
                    count_live(&mut work, id).await? + self.live_elsewhere(shard, id).await?
                }
            };
            let (state, stops_earlier) = match policy::decide_fire(&stored.policy, tick, live, now) {
                Firing::Wait => return Ok(Fired::Waiting),
                Firing::Stale => return Ok(Fired::Stale),
                Firing::Skip(state) => {
                    change(&mut work, &stored, &stored.with(state))?;
                    if self.commit(shard, work, &mut tries).await? {
                        return Ok(Fired::Skipped);
                    }
                    continue;
                }
                Firing::Fire { state, stops_earlier } => (state, stops_earlier),
            };
            if stops_earlier {
                // Before the inserts: those that only waited give their unique key back. One that runs holds on to it
                // until it has ended, and the new execution then counts as skipped.
                let stop = Event::Stop { grace: limits::GRACE };
                self.end_elsewhere(shard, id, &stop, now).await?;
                end_live(&mut work, id, &stop).await?;
            }
            let created = insert_executions(&mut work, executions, now).await?;
            let refused = executions.len() + taken - created.len();
            let state = policy::count_fired(&stored.policy.state, state, created.len(), refused);
            change(&mut work, &stored, &stored.with(state))?;
            if self.commit(shard, work, &mut tries).await? {
                return Ok(if created.is_empty() { Fired::Skipped } else { Fired::Fired(created) });
            }
        }
    }

    /// Applies an event to a policy on behalf of the maintenance or an operator.
    pub(crate) async fn change_one_policy(&self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
        if let PolicyEvent::End(_) = event {
            return Err(StoreError::Invalid("a policy is ended by `control`, with its executions".to_owned()));
        }
        let shard = self.shard_with(id).await?;
        let mut tries = Tries::default();
        loop {
            let Some(stored) = Stored::get(shard, id).await? else { return Ok(None) };
            let mut work = Work::new(shard, now);
            let Some(changed) = decide(&mut work, &stored, event, now)? else { return Ok(Some(stored.policy)) };
            if self.commit(shard, work, &mut tries).await? {
                return Ok(Some(changed));
            }
        }
    }
}

/// Inserts what a tick brings along; answers with those that were created.
async fn insert_executions(work: &mut Work<'_>, executions: &[NewJob], now: Time) -> Result<Vec<JobId>> {
    let answers = insert_new(work, executions, now).await?;
    let mut created = Vec::with_capacity(executions.len());
    for (new, answer) in executions.iter().zip(answers) {
        match answer {
            Inserted::Created => created.push(new.job.id.clone()),
            Inserted::Duplicate(_) => {
                // It is skipped because of a holder, which must not have ended meanwhile.
                if let Some(unique) = new.job.spec.unique {
                    work.holder_must_stand(&unique.digest);
                }
            }
            Inserted::Repeated(_) | Inserted::IdTaken | Inserted::LeaseLost => {}
        }
    }
    Ok(created)
}

// ---- what people do to a policy: see `control.rs` ----

impl RedisStore {
    /// Stops, cancels or retries a policy within a step; ending it ends its waiting executions and signals its running
    /// ones.
    pub(crate) async fn control_policy(
        &self,
        work: &mut Work<'_>,
        shard: &Shard,
        stored: &Stored,
        action: Action,
        now: Time,
    ) -> Result<Controlled> {
        let (id, status) = (&stored.policy.id, stored.policy.status());
        let (signal, event) = match action {
            Action::Retry { next_due } => {
                let changed = decide(work, stored, &PolicyEvent::Retry { next_due }, now)?;
                return Ok(changed.map_or(Controlled::Refused(status), |policy| Controlled::Done(policy.status())));
            }
            Action::Stop(grace) => (Signal::Stop, Event::Stop { grace }),
            Action::Cancel(grace) => (Signal::Cancel, Event::Cancel { grace }),
        };
        let Some(ended) = decide(work, stored, &PolicyEvent::End(signal), now)? else {
            return Ok(Controlled::Unchanged(status));
        };
        // Those first: whoever repeats the call because it did not get an answer finds the policy as it was.
        self.end_elsewhere(shard, id, &event, now).await?;
        end_live(work, id, &event).await?;
        Ok(Controlled::Done(ended.status()))
    }

    /// How many live executions a policy has in shards of earlier names.
    async fn live_elsewhere(&self, here: &Shard, id: &JobId) -> Result<usize> {
        let mut live = 0;
        for shard in self.shards.iter().filter(|shard| shard.number != here.number) {
            let mut card = redis::cmd("SCARD");
            card.arg(shard.keys.live(id));
            live += count(&shard.link.send(&card, "count executions").await?)? as usize;
        }
        Ok(live)
    }

    /// Ends these, each shard's in a step of its own.
    async fn end_elsewhere(&self, here: &Shard, id: &JobId, event: &Event, now: Time) -> Result<()> {
        for shard in self.shards.iter().filter(|shard| shard.number != here.number) {
            let mut tries = Tries::default();
            loop {
                let mut work = Work::new(shard, now);
                end_live(&mut work, id, event).await?;
                if self.commit(shard, work, &mut tries).await? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Removes a policy that has ended, within a step.
pub(crate) async fn delete_policy(work: &mut Work<'_>, stored: &Stored) -> Result<Deleted> {
    if stored.policy.state.ended.is_none() {
        return Ok(Deleted::Refused(stored.policy.status()));
    }
    remove(work, stored).await?;
    Ok(Deleted::Gone)
}

/// How many executions of a policy are not final; the step is only right if there are as many when it is done.
async fn count_live(work: &mut Work<'_>, id: &JobId) -> Result<usize> {
    let key = work.keys().live(id);
    let mut card = redis::cmd("SCARD");
    card.arg(&key);
    let live = count(&work.link().send(&card, "count executions").await?)?;
    work.check([b"c", key.as_bytes(), live.to_string().as_bytes()]);
    Ok(live as usize)
}

/// Lets an event happen to all executions of a policy that are not final. The step is only right if these are all of
/// them when it is done: as many as there are then, and each still as it was.
async fn end_live(work: &mut Work<'_>, id: &JobId, event: &Event) -> Result<()> {
    let key = work.keys().live(id);
    let mut members = redis::cmd("SMEMBERS");
    members.arg(&key);
    let answer = work.link().send(&members, "read executions").await?;
    work.check([b"c", key.as_bytes(), array(&answer)?.len().to_string().as_bytes()]);
    let mut live = ids(&answer)?;
    live.sort_unstable();
    work.load(&live).await?;
    for execution in &live {
        if let Some(why) = work.broken(execution) {
            tracing::error!(job = %execution, policy = %id, "an execution cannot be ended, it cannot be read: {why}");
            note_broken(work, execution);
        } else if work.job(execution).is_none() {
            // It went while we looked, or it never was.
            let job = work.keys().job(execution);
            work.check([b"x", job.as_bytes()]);
            work.command([b"SREM", key.as_bytes(), execution.as_str().as_bytes()]);
        } else {
            // One that is signalled already refuses, and that is as good.
            work.must_stand(execution);
            work.happen(execution, event).await?;
        }
    }
    Ok(())
}

// ---- how a policy is written ----

/// Lets the rule book decide what an event does to a policy, and notes it; none if it changes nothing.
fn decide(work: &mut Work<'_>, stored: &Stored, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
    let Some(state) = policy::decide(&stored.policy, event, now) else { return Ok(None) };
    let changed = stored.with(state);
    change(work, stored, &changed)?;
    work.news.changed.push(changed.id.clone());
    work.news.policies |= !matches!(event, PolicyEvent::FireFailed(_));
    Ok(Some(changed))
}

fn tell_changed(work: &mut Work<'_>, id: &JobId) {
    work.news.changed.push(id.clone());
    work.news.policies = true;
}

/// Adds a policy whose id and key are free.
fn create(work: &mut Work<'_>, policy: &Policy) -> Result<()> {
    let keys = work.keys();
    let (id, text) = (policy.id.as_str().as_bytes(), policy_text::write(policy)?);
    work.is_submission();
    work.check([b"n", policy.id.as_str().as_bytes()]);
    if work.has_pointers() {
        work.check([b"x", keys.pointer(&policy.id).as_bytes()]);
    }
    if let Some(key) = &policy.spec.schedule_key {
        let schedules = keys.schedules();
        work.check([b"f", schedules.as_bytes(), key.as_bytes(), b""]);
        work.command([b"HSET", schedules.as_bytes(), key.as_bytes(), id]);
    }
    work.command([b"SET", keys.policy(&policy.id).as_bytes(), text.as_bytes()]);
    work.command([b"ZADD", keys.policies().as_bytes(), b"0", id]);
    write_due(work, policy);
    Ok(())
}

/// Writes a policy anew, if it is still as it was read. Its schedule key does not change.
fn change(work: &mut Work<'_>, stored: &Stored, changed: &Policy) -> Result<()> {
    let key = work.keys().policy(&changed.id);
    work.check([b"g", key.as_bytes(), stored.text.as_bytes()]);
    work.command([b"SET", key.as_bytes(), policy_text::write(changed)?.as_bytes()]);
    write_due(work, changed);
    Ok(())
}

fn write_due(work: &mut Work<'_>, policy: &Policy) {
    let (due, id) = (work.keys().policies_due(), policy.id.as_str().as_bytes());
    match policy.state.next_due.filter(|_| policy.is_active()) {
        Some(at) => work.command([b"ZADD", due.as_bytes(), at.as_millis().to_string().as_bytes(), id]),
        None => work.command([b"ZREM", due.as_bytes(), id]),
    }
}

/// Removes a policy, if it is still as it was read.
async fn remove(work: &mut Work<'_>, stored: &Stored) -> Result<()> {
    let keys = work.keys();
    let (key, id) = (keys.policy(&stored.policy.id), stored.policy.id.as_str().as_bytes());
    work.check([b"g", key.as_bytes(), stored.text.as_bytes()]);
    work.command([b"DEL", key.as_bytes()]);
    work.command([b"ZREM", keys.policies().as_bytes(), id]);
    work.command([b"ZREM", keys.policies_due().as_bytes(), id]);
    if let Some(schedule) = &stored.policy.spec.schedule_key {
        let schedules = keys.schedules();
        let mut get = redis::cmd("HGET");
        get.arg(&schedules).arg(&**schedule);
        // Only its own entry: should the key be another's, that one keeps it.
        if crate::record::id(&work.link().send(&get, "look up a schedule").await?)?.as_ref() == Some(&stored.policy.id)
        {
            work.check([b"f", schedules.as_bytes(), schedule.as_bytes(), id]);
            work.command([b"HDEL", schedules.as_bytes(), schedule.as_bytes()]);
        }
    }
    Ok(())
}
