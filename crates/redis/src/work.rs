//! One step of the store on one shard: records are read, the rule book decides, and what it decided is written if all
//! that was read still stands.
//!
//! This is the only place that writes a record. Which sets a job is in follows from its record ([`sets`]): what a step
//! adds and removes is the difference between what the records were and what they are, so no caller needs to know about
//! indexes. If something changed meanwhile nothing is written, and the caller decides again ([`Tries`]).

use std::collections::{BTreeMap, HashMap};

use jobservice_core::job::{Job, Status};
use jobservice_core::lifecycle::{self, Change, Event, HookEvent, Refusal};
use jobservice_core::minutes::{self, Bucket};
use jobservice_core::notices::{Notices, SignalNotice};
use jobservice_core::outbox::JobOutbox;
use jobservice_core::store::Result;
use jobservice_core::{JobId, Name, StoreError, Time};
use redis::{Cmd, Value};

use crate::epoch::Epoch;
use crate::keys::Keys;
use crate::link::{self, Link, array, number, text};
use crate::moves::{Moves, Words};
use crate::places::{Place, claim_of, lists, sets};
use crate::record::{self, Record};
use crate::script::{COMMIT, INTAKE, Script};
use crate::store::Shard;
use crate::wake::Wake;
use crate::{entry, header};

/// How often a step is decided anew when others change the same records.
const TRIES: u32 = 8;

/// Counts how often a step was tried.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// Whether nothing was tried yet: what is remembered of records may be used.
    pub(crate) fn is_first(&self) -> bool {
        self.0 == 0
    }

    fn again(&mut self, id: Option<JobId>) -> Result<()> {
        self.0 += 1;
        if self.0 < TRIES {
            return Ok(());
        }
        match id {
            Some(id) => Err(StoreError::Contended { id, tries: self.0 }),
            None => Err(StoreError::Unavailable {
                during: "commit",
                source: format!("others changed the same records {} times in a row", self.0).into(),
            }),
        }
    }
}

/// What became of a job by an event.
#[derive(Debug)]
pub(crate) enum Happened {
    /// It has this status now.
    Is(Status),
    /// It is gone.
    Gone,
    /// Nothing.
    Refused(Refusal),
    /// Nothing: this other job holds the unique key that it would need.
    KeyTaken(JobId),
    /// There is no such job.
    NotFound,
}

/// A record within a step.
struct Touched {
    /// As it was read, or as it is assumed to be.
    before: Option<Record>,
    /// As it is to be.
    after: Option<Job>,
    /// Why it cannot be read.
    broken: Option<String>,
}

/// The holder of a unique key within a step.
struct Holder {
    before: Option<JobId>,
    after: Option<JobId>,
}

/// The outbox of a job within a step.
#[derive(Default)]
struct Events {
    /// As it was read, with its version; none if events are only added, which does not need to know the others.
    read: Option<(String, JobOutbox)>,
    /// As it is to be, if it was read.
    after: JobOutbox,
    /// Events added without looking at the others.
    added: Vec<HookEvent>,
}

/// What has to be told once the step is done.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Jobs became ready.
    pub(crate) ready: bool,
    /// Names of which runs ended: there may be room below their limits.
    pub(crate) freed: Vec<Name>,
    pub(crate) events: bool,
    pub(crate) policies: bool,
    pub(crate) executions: bool,
    pub(crate) changed: Vec<JobId>,
    pub(crate) signals: Vec<SignalNotice>,
}

impl News {
    /// Tells it within this process.
    pub(crate) fn tell(self, notices: &Notices) {
        self.changed.iter().for_each(|id| notices.tell_changed(id));
        self.signals.into_iter().for_each(|notice| notices.tell_signal(notice));
        if self.ready || !self.freed.is_empty() {
            notices.tell_ready();
        }
        if self.events {
            notices.tell_events();
        }
        if self.policies {
            notices.tell_policies();
        }
        if self.executions {
            notices.tell_executions();
        }
    }
}

/// A step that was carried out.
pub(crate) struct Committed {
    pub(crate) news: News,
    /// The records as they are now; none for those that are gone.
    pub(crate) records: Vec<(JobId, Option<Record>)>,
}

/// A step as it is decided.
pub(crate) struct Work<'a> {
    link: &'a Link,
    keys: &'a Keys,
    wake: &'a Wake,
    epoch: &'a Epoch,
    now: Time,
    jobs: HashMap<JobId, Touched>,
    order: Vec<JobId>,
    holders: HashMap<[u8; 32], Holder>,
    events: BTreeMap<JobId, Events>,
    minutes: BTreeMap<Name, Bucket>,
    checks: Words,
    records: Words,
    commands: Words,
    pub(crate) news: News,
    /// Whether the step makes the store larger, so that a full Redis refuses it.
    intake: bool,
    /// Whether it must not be lost once it is answered, so that replicas are waited for if the store does so.
    is_durable: bool,
    /// Whether it only records ends of runs.
    ends_runs: bool,
}

impl<'a> Work<'a> {
    /// A step at `now`.
    pub(crate) fn new(shard: &'a Shard, now: Time) -> Work<'a> {
        Work {
            link: &shard.link,
            keys: &shard.keys,
            wake: &shard.wake,
            epoch: &shard.epoch,
            now,
            jobs: HashMap::new(),
            order: Vec::new(),
            holders: HashMap::new(),
            events: BTreeMap::new(),
            minutes: BTreeMap::new(),
            checks: Words::default(),
            records: Words::default(),
            commands: Words::default(),
            news: News::default(),
            intake: false,
            is_durable: false,
            ends_runs: false,
        }
    }

    /// The keys of the shard.
    pub(crate) fn keys(&self) -> &'a Keys {
        self.keys
    }

    /// Whether there are several shards, and so pointers.
    pub(crate) fn has_pointers(&self) -> bool {
        self.keys.has_pointers()
    }

    /// The connection.
    pub(crate) fn link(&self) -> &'a Link {
        self.link
    }

    // ---- what is known ----

    /// Reads records that are not known yet, in one round trip.
    pub(crate) async fn load(&mut self, ids: &[JobId]) -> Result<()> {
        let mut missing: Vec<&JobId> = ids.iter().filter(|id| !self.jobs.contains_key(*id)).collect();
        missing.sort_unstable();
        missing.dedup();
        let read = record::read_all(self.link, self.keys, &missing).await?;
        for (id, read) in missing.into_iter().zip(read) {
            let (before, broken) = match read {
                Ok(before) => (before, None),
                Err(why) => (None, Some(why)),
            };
            self.touch(id.clone(), before, broken);
        }
        Ok(())
    }

    /// Reads a record together with the policy that may have its id instead, as text, in one round trip.
    pub(crate) async fn load_or_policy(&mut self, id: &JobId) -> Result<Option<String>> {
        let (policy, read) = record::read_or_policy(self.link, self.keys, id).await?;
        if !self.jobs.contains_key(id) {
            let (before, broken) = match read {
                Ok(before) => (before, None),
                Err(why) => (None, Some(why)),
            };
            self.touch(id.clone(), before, broken);
        }
        Ok(policy)
    }

    /// Takes a record for what it was when it was last seen: the step fails if it is not.
    pub(crate) fn assume(&mut self, record: Record) {
        if !self.jobs.contains_key(&record.job.id) {
            self.touch(record.job.id.clone(), Some(record), None);
        }
    }

    /// Takes it that there is no such record: the step fails if there is.
    pub(crate) fn assume_absent(&mut self, id: &JobId) {
        if !self.jobs.contains_key(id) {
            self.touch(id.clone(), None, None);
        }
    }

    fn touch(&mut self, id: JobId, before: Option<Record>, broken: Option<String>) {
        let after = before.as_ref().map(|record| record.job.clone());
        self.order.push(id.clone());
        self.jobs.insert(id, Touched { before, after, broken });
    }

    /// A record as it is to be. It must have been loaded or assumed.
    pub(crate) fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)?.after.as_ref()
    }

    /// Why a record cannot be read, if it cannot.
    pub(crate) fn broken(&self, id: &JobId) -> Option<&str> {
        self.jobs.get(id)?.broken.as_deref()
    }

    /// A record, loaded if need be. One that cannot be read is an error.
    pub(crate) async fn get(&mut self, id: &JobId) -> Result<Option<&Job>> {
        if !self.jobs.contains_key(id) {
            self.load(std::slice::from_ref(id)).await?;
        }
        if let Some(why) = self.broken(id) {
            return Err(StoreError::Damaged { what: format!("job {id}: {why}") });
        }
        Ok(self.job(id))
    }

    /// Who holds a unique key.
    pub(crate) async fn holder(&mut self, digest: &[u8; 32]) -> Result<Option<JobId>> {
        if let Some(holder) = self.holders.get(digest) {
            return Ok(holder.after.clone());
        }
        let mut get = redis::cmd("GET");
        get.arg(self.keys.unique(digest));
        let before = record::id(&self.link.send(&get, "look at a unique key").await?)?;
        self.holders.insert(*digest, Holder { before: before.clone(), after: before.clone() });
        Ok(before)
    }

    /// Takes it that nobody, or this job, holds a unique key: the step fails if it is not so.
    pub(crate) fn assume_holder(&mut self, digest: &[u8; 32], holder: Option<&JobId>) {
        self.holders.entry(*digest).or_insert_with(|| Holder { before: holder.cloned(), after: holder.cloned() });
    }

    /// The events of a job, read if need be.
    pub(crate) async fn outbox(&mut self, id: &JobId) -> Result<&mut JobOutbox> {
        if !self.outbox_is_read(id) {
            let (version, outbox) = record::outbox(self.link, self.keys, id).await?;
            self.keep_outbox(id, version, outbox);
        }
        Ok(&mut self.events.entry(id.clone()).or_default().after)
    }

    /// Reads the events of jobs that are not known yet, in one round trip; answers with those that cannot be read, and
    /// why.
    pub(crate) async fn load_outboxes(&mut self, ids: &[JobId]) -> Result<HashMap<JobId, String>> {
        let missing: Vec<&JobId> = ids.iter().filter(|id| !self.outbox_is_read(id)).collect();
        let mut broken = HashMap::new();
        let read = record::outboxes(self.link, self.keys, &missing).await?;
        for (id, read) in missing.into_iter().zip(read) {
            match read {
                Ok((version, outbox)) => self.keep_outbox(id, version, outbox),
                Err(why) => {
                    broken.insert(id.clone(), why);
                }
            }
        }
        Ok(broken)
    }

    fn outbox_is_read(&self, id: &JobId) -> bool {
        self.events.get(id).is_some_and(|events| events.read.is_some())
    }

    fn keep_outbox(&mut self, id: &JobId, version: String, mut outbox: JobOutbox) {
        let events = self.events.entry(id.clone()).or_default();
        events.read = Some((version, outbox.clone()));
        for event in std::mem::take(&mut events.added) {
            outbox.put(id, event);
        }
        events.after = outbox;
    }

    /// The step is only right if the events of a job, which it has read, are still as they were.
    pub(crate) fn outbox_must_stand(&mut self, id: &JobId) {
        if let Some((version, _)) = self.events.get(id).and_then(|events| events.read.as_ref()) {
            let key = self.keys.events(id);
            self.checks.put([b"f", key.as_bytes(), b"v", version.as_bytes()]);
        }
    }

    // ---- what happens ----

    /// Lets the rule book decide what an event does to a job, and notes it.
    pub(crate) async fn happen(&mut self, id: &JobId, event: &Event) -> Result<Happened> {
        let now = self.now;
        let Some(job) = self.get(id).await? else { return Ok(Happened::NotFound) };
        match lifecycle::decide(job, event, now) {
            Ok(change) => self.apply(id, change).await,
            Err(refusal) => Ok(Happened::Refused(refusal)),
        }
    }

    async fn apply(&mut self, id: &JobId, change: Change) -> Result<Happened> {
        let Some(before) = self.job(id).cloned() else { return Ok(Happened::NotFound) };
        let unique = before.spec.unique;
        if let (true, Some(unique)) = (change.takes_key, unique)
            && let Some(holder) = self.holder(&unique.digest).await?
            && holder != *id
        {
            return Ok(Happened::KeyTaken(holder));
        }
        let holds_key = change.state.as_ref().is_some_and(|state| state.holds_key);
        if let Some(unique) = unique.filter(|_| before.state.holds_key != holds_key) {
            self.assume_holder(&unique.digest, Some(id).filter(|_| before.state.holds_key));
            if let Some(holder) = self.holders.get_mut(&unique.digest) {
                if holds_key {
                    holder.after = Some(id.clone());
                } else if holder.after.as_ref() == Some(id) {
                    holder.after = None;
                }
            }
        }
        let Some(state) = change.state else {
            if before.spec.hook.is_some() {
                *self.outbox(id).await? = JobOutbox::default();
            }
            self.put(id, None);
            self.news.changed.push(id.clone());
            return Ok(Happened::Gone);
        };
        let after = Job { state, ..before.clone() };
        let (was, is) = (&before.state, &after.state);
        let status = is.status;
        if status != was.status {
            self.minutes.entry(after.spec.name.clone()).or_default().change(was, is, self.now);
            self.news.changed.push(id.clone());
            self.news.executions |= status.is_final() && after.spec.upstream.is_some();
            self.news.ready |= status == Status::Pending;
            let name = &after.spec.name;
            if was.status == Status::Running && !self.news.freed.contains(name) {
                self.news.freed.push(name.clone());
            }
        }
        if is.signal != was.signal
            && let (Some(signal), Some(lease), Some(key)) = (is.signal, &is.lease, after.lease_key())
        {
            let notice = SignalNotice { pool: lease.pool.clone(), lease: key, signal: signal.signal };
            self.news.signals.push(notice);
        }
        self.put(id, Some(after));
        if let Some(event) = change.event {
            self.put_event(id, event).await?;
        }
        Ok(Happened::Is(status))
    }

    async fn put_event(&mut self, id: &JobId, event: HookEvent) -> Result<()> {
        self.news.events = true;
        // A check-in may take the place of another: the others must be known.
        if event.check_in.is_some() || self.outbox_is_read(id) {
            self.outbox(id).await?.put(id, event);
        } else {
            self.events.entry(id.clone()).or_default().added.push(event);
        }
        Ok(())
    }

    fn put(&mut self, id: &JobId, job: Option<Job>) {
        if let Some(touched) = self.jobs.get_mut(id) {
            touched.after = job;
        }
    }

    /// Adds a new record. The caller has looked, or assumes, that its id and key are free.
    pub(crate) fn add(&mut self, job: Job) {
        let id = job.id.clone();
        self.is_submission();
        self.minutes.entry(job.spec.name.clone()).or_default().submit();
        self.news.ready |= job.state.status == Status::Pending;
        if let (true, Some(unique)) = (job.state.holds_key, job.spec.unique) {
            self.assume_holder(&unique.digest, None);
            if let Some(holder) = self.holders.get_mut(&unique.digest) {
                holder.after = Some(id.clone());
            }
        }
        self.put(&id, Some(job));
    }

    /// The step is only right if this record, which it does not change, is still as it was read.
    pub(crate) fn must_stand(&mut self, id: &JobId) {
        if let Some(Touched { before: Some(record), .. }) = self.jobs.get(id) {
            let (key, seen) = (self.keys.job(id), record.seen.as_bytes());
            self.checks.put([b"h", key.as_bytes(), seen]);
        }
    }

    /// The step is only right if a unique key, which it has looked at, still has the same holder.
    pub(crate) fn holder_must_stand(&mut self, digest: &[u8; 32]) {
        if let Some(Holder { before, .. }) = self.holders.get(digest) {
            let key = self.keys.unique(digest);
            let seen = before.as_ref().map_or("", |id| id.as_str());
            self.checks.put([b"g", key.as_bytes(), seen.as_bytes()]);
        }
    }

    /// The step only records ends of runs: it goes the way of claims, before those that are sent after it, and nothing of it
    /// depends on how long the leases would have lasted.
    pub(crate) fn ends_runs(&mut self) {
        self.ends_runs = true;
    }

    /// The step takes in what must not be lost.
    pub(crate) fn is_submission(&mut self) {
        self.intake = true;
        self.is_durable = true;
    }

    /// The step makes the store larger: it is refused while Redis is full.
    pub(crate) fn is_intake(&mut self) {
        self.intake = true;
    }

    /// A further check: see `lua/commit.lua`.
    pub(crate) fn check<const N: usize>(&mut self, words: [&[u8]; N]) {
        self.checks.put(words);
    }

    /// A further command of the step.
    pub(crate) fn command<const N: usize>(&mut self, words: [&[u8]; N]) {
        self.commands.words.push(N.to_string().into_bytes());
        self.commands.put(words);
    }

    // ---- how it ends ----

    /// Writes all that was decided if all that it was decided from still stands; none if something does not, in which
    /// case nothing was written and the caller decides again.
    pub(crate) async fn commit(mut self, tries: &mut Tries) -> Result<Option<Committed>> {
        let mut sets = Moves::default();
        let mut records = Vec::new();
        let first = self.order.first().cloned();
        for id in std::mem::take(&mut self.order) {
            let Some(Touched { before, after, broken: None }) = self.jobs.remove(&id) else { continue };
            if before.as_ref().map(|record| &record.job) == after.as_ref() {
                continue;
            }
            let written = self.write(&id, before.as_ref(), after, &mut sets)?;
            records.push((id, written));
        }
        self.write_holders();
        self.write_events()?;
        self.write_minutes();
        sets.write(&mut self.commands);
        if self.checks.count + self.records.count + self.commands.count == 0 {
            return Ok(Some(Committed { news: self.news, records }));
        }
        if let Some(message) = self.wake.message(&self.news) {
            let channel = self.keys.wake();
            self.command([b"PUBLISH", channel.as_bytes(), message.as_bytes()]);
        }
        let script: &Script = if self.intake { &INTAKE } else { &COMMIT };
        let mut call: Cmd = link::call(script, self.keys.prefix());
        let sent = self.epoch.sent();
        call.arg(self.epoch.node()).arg(self.checks.count).arg(self.records.count);
        let words = [self.checks.words, self.records.words, self.commands.words];
        words.iter().flatten().for_each(|word| {
            call.arg(word.as_slice());
        });
        let answer = if self.is_durable {
            self.link.run_intake(script, &call, "commit").await?
        } else if self.ends_runs {
            self.link.run_for_pool(script, &call, "commit").await?
        } else {
            self.link.run(script, &call, "commit").await?
        };
        if let Value::Int(steps) = answer {
            self.epoch.answered(sent, steps);
            self.wake.committed(&self.news);
            return Ok(Some(Committed { news: self.news, records }));
        }
        tries.again(first)?;
        Ok(None)
    }

    /// Writes one record if it is still as it was, and notes which sets it leaves and enters.
    fn write(
        &mut self,
        id: &JobId,
        before: Option<&Record>,
        after: Option<Job>,
        moves: &mut Moves,
    ) -> Result<Option<Record>> {
        let key = self.keys.job(id);
        if let Some(before) = before {
            sets(self.keys, &before.job, |key, place| moves.leave(key, id, place));
            moves.claim(claim_of(self.keys, &before.job), -1);
        }
        let Some(after) = after else {
            if let Some(before) = before {
                lists(self.keys, &before.job, |key| moves.leave(key, id, Place::Score(0)));
                self.records.put([b"d", key.as_bytes(), before.seen.as_bytes()]);
            }
            return Ok(None);
        };
        sets(self.keys, &after, |key, place| moves.enter(key, id, place));
        moves.claim(claim_of(self.keys, &after), 1);
        let damaged = |what| StoreError::Damaged { what };
        let text = header::write(&after);
        match before {
            Some(before) if crate::body::same_rest(&before.job.state, &after.state) => {
                self.records.put([b"u", key.as_bytes(), self.seen(before), text.as_bytes()]);
            }
            Some(before) => {
                let rest = crate::body::write_rest(&after.state).map_err(damaged)?;
                self.records.put([b"r", key.as_bytes(), self.seen(before), text.as_bytes(), rest.as_bytes()]);
            }
            None => {
                let score = Place::Score(after.spec.enqueued_at.as_millis());
                lists(self.keys, &after, |key| moves.enter(key, id, score));
                let body = crate::body::write(&after.spec).map_err(damaged)?;
                let rest = crate::body::write_rest(&after.state).map_err(damaged)?;
                if rest.is_empty() {
                    self.records.put([b"n", key.as_bytes(), text.as_bytes(), &body]);
                } else {
                    self.records.put([b"m", key.as_bytes(), text.as_bytes(), &body, rest.as_bytes()]);
                }
            }
        }
        let was = before.map(|before| before.job.state.status);
        moves.name(&after.spec.name, self.keys, was, after.state.status);
        Ok(Some(Record { seen: header::seen(&text).to_owned(), job: after }))
    }

    /// The beginning of a header that must still be there.
    fn seen<'b>(&self, before: &'b Record) -> &'b [u8] {
        let of_lease = self.ends_runs && before.job.state.lease.is_some();
        let seen = before.seen.as_str();
        if of_lease { header::seen_but_for_until(seen) } else { seen }.as_bytes()
    }

    fn write_holders(&mut self) {
        for (digest, Holder { before, after }) in std::mem::take(&mut self.holders) {
            if before == after {
                continue;
            }
            let key = self.keys.unique(&digest);
            let seen = before.as_ref().map_or("", |id| id.as_str());
            self.checks.put([b"g", key.as_bytes(), seen.as_bytes()]);
            match after {
                Some(id) => self.command([b"SET", key.as_bytes(), id.as_str().as_bytes()]),
                None => self.command([b"DEL", key.as_bytes()]),
            }
        }
    }

    fn write_events(&mut self) -> Result<()> {
        let damaged = |what| StoreError::Damaged { what };
        let (turns, since) = (self.keys.turns(), self.keys.waiting_since());
        for (id, Events { read, after, added }) in std::mem::take(&mut self.events) {
            let key = self.keys.events(&id);
            let Some((version, before)) = read else {
                for event in added {
                    let seq = event.seq.to_string();
                    let at = event.at.as_millis().to_string();
                    let entry = entry::write(&jobservice_core::outbox::OutboxEntry::new(id.clone(), event));
                    let entry = entry.map_err(damaged)?;
                    self.command([b"HSET", key.as_bytes(), seq.as_bytes(), entry.as_bytes()]);
                    self.command([b"HINCRBY", key.as_bytes(), b"v", b"1"]);
                    self.command([b"ZADD", turns.as_bytes(), b"NX", at.as_bytes(), id.as_str().as_bytes()]);
                    self.command([b"ZADD", since.as_bytes(), b"LT", at.as_bytes(), id.as_str().as_bytes()]);
                }
                continue;
            };
            if before == after {
                continue;
            }
            self.checks.put([b"f", key.as_bytes(), b"v", version.as_bytes()]);
            match after.turn() {
                Some(turn) => {
                    let turn = turn.as_millis().to_string();
                    self.command([b"ZADD", turns.as_bytes(), turn.as_bytes(), id.as_str().as_bytes()]);
                }
                None => self.command([b"ZREM", turns.as_bytes(), id.as_str().as_bytes()]),
            }
            match waits_since(&after) {
                was if was == waits_since(&before) => {}
                Some(at) => {
                    let at = at.as_millis().to_string();
                    self.command([b"ZADD", since.as_bytes(), at.as_bytes(), id.as_str().as_bytes()]);
                }
                None => self.command([b"ZREM", since.as_bytes(), id.as_str().as_bytes()]),
            }
            if after.is_empty() {
                self.command([b"DEL", key.as_bytes()]);
                continue;
            }
            for gone in before.entries().filter(|entry| after.get(entry.event.seq).is_none()) {
                self.command([b"HDEL", key.as_bytes(), gone.event.seq.to_string().as_bytes()]);
            }
            for entry in after.entries().filter(|entry| before.get(entry.event.seq) != Some(*entry)) {
                let text = entry::write(entry).map_err(damaged)?;
                self.command([b"HSET", key.as_bytes(), entry.event.seq.to_string().as_bytes(), text.as_bytes()]);
            }
            self.command([b"HINCRBY", key.as_bytes(), b"v", b"1"]);
        }
        Ok(())
    }

    fn write_minutes(&mut self) {
        let (hour, minute) = hour_and_minute(self.now);
        for (name, bucket) in std::mem::take(&mut self.minutes) {
            if bucket == Bucket::default() {
                continue;
            }
            let key = self.keys.minutes(hour, name.as_str());
            for (letter, number) in letters(&bucket).into_iter().filter(|(_, number)| *number > 0) {
                let field = format!("{minute}{letter}");
                self.command([b"HINCRBY", key.as_bytes(), field.as_bytes(), number.to_string().as_bytes()]);
            }
            let member = format!("{hour}:{name}");
            let first = (hour * 60 + minute).to_string();
            self.command([b"ZADD", self.keys.hours().as_bytes(), b"LT", first.as_bytes(), member.as_bytes()]);
        }
    }
}

/// From when on the deadline of the waiting event is counted whose deadline is the first; none if nothing waits.
pub(crate) fn waits_since(outbox: &JobOutbox) -> Option<Time> {
    outbox.waiting().map(|entry| entry.resent_at.unwrap_or(entry.event.at)).min()
}

/// The hour of an instant, counted from 1970, and the minute in it: where its numbers are kept.
pub(crate) fn hour_and_minute(now: Time) -> (i64, i64) {
    let minute = minutes::number_of(now);
    (minute.div_euclid(60), minute.rem_euclid(60))
}

/// The numbers of a minute with the letters that they are stored under. `lua/claim.lua` knows `w`.
pub(crate) fn letters(bucket: &Bucket) -> [(char, u64); 5] {
    let Bucket { submitted, succeeded, failed, wait_ms, run_ms } = *bucket;
    [('s', submitted), ('o', succeeded), ('f', failed), ('w', wait_ms), ('r', run_ms)]
}

/// The number in an answer, or an error.
pub(crate) fn count(value: &Value) -> Result<u64> {
    Ok(number(value)?.unwrap_or(0).max(0) as u64)
}

/// The ids in an answer; what is no id is left out.
pub(crate) fn ids(value: &Value) -> Result<Vec<JobId>> {
    let mut ids = Vec::new();
    for member in array(value)? {
        if let Some(id) = text(member)?.and_then(|text| JobId::new(text).ok()) {
            ids.push(id);
        }
    }
    Ok(ids)
}
