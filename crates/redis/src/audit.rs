//! Looks through everything: each record by itself, and whether all sets are those that the records ask for.

use std::collections::{BTreeMap, BTreeSet};

use jobservice_core::job::{Job, Status};
use jobservice_core::outbox::OutboxEntry;
use jobservice_core::store::Result;
use jobservice_core::{JobId, Name, invariant};

use crate::header;
use crate::insert::remembered;
use crate::inspect::Everything;
use crate::keys::Keys;
use crate::places::{Place, claim_of, lists, sets};
use crate::store::RedisStore;
use crate::work::waits_since;

/// The members of a set with their scores; those of a set without scores have none.
type Members = BTreeMap<String, Option<i64>>;

/// Sets that follow from the records of jobs alone: those whose key begins so, or is so.
const OF_JOBS: [&str; 11] = [
    "due",
    "due:",
    "ready:",
    "suspects:",
    "running:",
    "held:",
    "final:",
    "live:",
    "by_name:",
    "by_tag:",
    "executions:",
];

impl RedisStore {
    /// What is wrong, each thing as a sentence.
    ///
    /// Reading everything takes a while, and others may write meanwhile: what was found is looked for a second time, and
    /// only what is still so counts.
    pub(crate) async fn audit_all(&self) -> Result<Vec<String>> {
        let first = self.audit_once().await?;
        if first.is_empty() {
            return Ok(first);
        }
        let second: BTreeSet<String> = self.audit_once().await?.into_iter().collect();
        Ok(first.into_iter().filter(|wrong| second.contains(wrong)).collect())
    }

    async fn audit_once(&self) -> Result<Vec<String>> {
        let mut shards = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            shards.push(Everything::read(shard).await?);
        }
        let mut wrong = Vec::new();
        for (number, (shard, all)) in self.shards.iter().zip(&shards).enumerate() {
            wrong.extend(all.broken.iter().cloned());
            wrong.extend(of_records(all));
            wrong.extend(of_sets(&shard.keys, all));
            wrong.extend(of_names(all));
            wrong.extend(of_events(all));
            wrong.extend(of_policies(all));
            wrong.extend(of_submissions(all));
            wrong.extend(of_minutes(all));
            let set_aside = all.sets.get("broken").into_iter().flatten();
            wrong.extend(set_aside.map(|id| format!("job {id} was set aside because its record could not be read")));
            let elsewhere = all.jobs.values().filter(|job| self.shard_number(&job.spec.name) != number);
            wrong.extend(elsewhere.map(|job| format!("job {} is not in the shard of its name", job.id)));
            for id in all.jobs.keys().chain(all.policies.keys()).filter(|id| self.home(id) != number) {
                let home = shards.get(self.home(id));
                let pointer = home.and_then(|home| home.pointers.get(id.as_str()));
                if pointer.is_none_or(|pointer| *pointer != number.to_string()) {
                    wrong.push(format!("{id} is in shard {number}, where nobody who looks it up is sent"));
                }
            }
        }
        wrong.extend(of_ids(&shards));
        wrong.extend(of_schedules(&shards));
        Ok(wrong)
    }
}

/// Each record by itself, and who holds which unique key.
fn of_records(all: &Everything) -> Vec<String> {
    let mut wrong: Vec<String> = all.jobs.values().flat_map(invariant::check).collect();
    wrong.extend(invariant::unique_keys_have_one_holder(all.jobs.values()));
    let mut holders: BTreeMap<String, &str> = BTreeMap::new();
    for job in all.jobs.values().filter(|job| job.state.holds_key) {
        if let Some(unique) = job.spec.unique {
            holders.insert(header::hex(&unique.digest), job.id.as_str());
        }
    }
    for (digest, id) in &holders {
        let stored = all.holders.get(digest).map(String::as_str);
        if stored != Some(*id) {
            wrong.push(format!("job {id} holds unique key {digest}, but what is stored is {stored:?}"));
        }
    }
    for (digest, id) in all.holders.iter().filter(|(digest, _)| !holders.contains_key(*digest)) {
        if !is_unread(all, id) {
            wrong.push(format!("unique key {digest} is held by job {id}, which does not say so"));
        }
    }
    wrong
}

/// Whether a record is there but cannot be read: which sets it should be in is not known, and it is told of anyway.
fn is_unread(all: &Everything, id: &str) -> bool {
    all.unread.contains(id)
}

/// The sets of jobs against those that the records ask for, both ways.
fn of_sets(keys: &Keys, all: &Everything) -> Vec<String> {
    let mut wanted: BTreeMap<String, Members> = BTreeMap::new();
    for job in all.jobs.values() {
        let mut want = |key: String, place| {
            let key = key.strip_prefix(keys.prefix()).unwrap_or(&key).to_owned();
            let score = if let Place::Score(score) = place { Some(score) } else { None };
            wanted.entry(key).or_default().insert(job.id.as_str().to_owned(), score);
        };
        sets(keys, job, &mut want);
        let submitted = Place::Score(job.spec.enqueued_at.as_millis());
        lists(keys, job, |key| want(key, submitted));
        if let Some((key, nonce)) = claim_of(keys, job) {
            let key = key.strip_prefix(keys.prefix()).unwrap_or(&key).to_owned();
            let runs = wanted.entry(key).or_default().entry(nonce).or_insert(Some(0));
            *runs = runs.map(|runs| runs + 1);
        }
    }
    let is_of_jobs =
        |key: &&String| OF_JOBS.iter().any(|of| if of.ends_with(':') { key.starts_with(of) } else { *key == of });
    let mut found: BTreeMap<String, Members> = BTreeMap::new();
    for (key, members) in all.sorted.iter().filter(|(key, _)| is_of_jobs(key)) {
        found.insert(key.clone(), members.iter().map(|(id, score)| (id.clone(), Some(*score))).collect());
    }
    for (key, members) in all.sets.iter().filter(|(key, _)| is_of_jobs(key)) {
        found.insert(key.clone(), members.iter().map(|id| (id.clone(), None)).collect());
    }
    for (key, claims) in found.iter_mut().filter(|(key, _)| key.starts_with("held:")) {
        pass_unread_runs(claims, wanted.get(key), all.unread.len());
    }
    let mut wrong = Vec::new();
    compare(&wanted, &found, |id| is_unread(all, id), &mut wrong);
    wrong
}

/// Runs whose records cannot be read are counted by their claims still: so many more are right.
fn pass_unread_runs(claims: &mut Members, wanted: Option<&Members>, unread: usize) {
    let mut passed = unread as i64;
    claims.retain(|nonce, runs| {
        let wanted = wanted.and_then(|wanted| wanted.get(nonce)).copied().flatten();
        let more = runs.unwrap_or_default() - wanted.unwrap_or_default();
        if more > 0 && more <= passed {
            passed -= more;
            *runs = wanted;
        }
        runs.is_some()
    });
}

/// Says how sets differ from what they should be.
fn compare(
    wanted: &BTreeMap<String, Members>,
    found: &BTreeMap<String, Members>,
    passes: impl Fn(&str) -> bool,
    wrong: &mut Vec<String>,
) {
    let none = Members::new();
    let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    for key in keys {
        let wanted = wanted.get(key).unwrap_or(&none);
        let found = found.get(key).unwrap_or(&none);
        for (member, score) in wanted {
            match found.get(member) {
                Some(is) if is == score => {}
                Some(is) => wrong.push(format!("{member} is in {key} at {is:?} instead of {score:?}")),
                None => wrong.push(format!("{member} is not in {key}")),
            }
        }
        let more = found.keys().filter(|member| !wanted.contains_key(*member) && !passes(member));
        wrong.extend(more.map(|member| format!("{member} is in {key}, where it does not belong")));
    }
}

/// The hints of names: they may name too many, never too few.
fn of_names(all: &Everything) -> Vec<String> {
    let mut wanted: BTreeSet<(&str, &Name)> = BTreeSet::new();
    for Job { spec, state, .. } in all.jobs.values() {
        match state.status {
            Status::Pending => drop(wanted.insert(("work", &spec.name))),
            Status::Running => drop(wanted.insert(("busy", &spec.name))),
            _ => {}
        }
        wanted.insert(("known", &spec.name));
    }
    let is_missing =
        |(key, name): &(&str, &Name)| !all.sets.get(*key).is_some_and(|names| names.contains(name.as_str()));
    let missing = wanted.into_iter().filter(is_missing);
    missing.map(|(key, name)| format!("there are jobs of name {name}, but it is not in {key}")).collect()
}

/// The hook events, their turns, and since when they wait.
fn of_events(all: &Everything) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut turns, mut since) = (Members::new(), Members::new());
    for (id, outbox) in &all.outboxes {
        let entries: Vec<&OutboxEntry> = outbox.entries().collect();
        match all.jobs.get(id) {
            Some(job) => wrong.extend(invariant::check_events(job, &entries)),
            None if all.unread.contains(id) => {}
            None => wrong.push(format!("there are hook events of job {id}, which does not exist")),
        }
        if let Some(turn) = outbox.turn() {
            turns.insert(id.as_str().to_owned(), Some(turn.as_millis()));
        }
        if let Some(at) = waits_since(outbox) {
            since.insert(id.as_str().to_owned(), Some(at.as_millis()));
        }
    }
    let wanted = BTreeMap::from([("outbox".to_owned(), turns), ("outbox_since".to_owned(), since)]);
    compare(&wanted, &sorted(all, &["outbox", "outbox_since"]), |_| false, &mut wrong);
    wrong
}

/// The policies, and the sets that say which there are and when they are due.
fn of_policies(all: &Everything) -> Vec<String> {
    let mut wrong: Vec<String> = all.policies.values().flat_map(invariant::check_policy).collect();
    let (mut ids, mut due) = (Members::new(), Members::new());
    for (id, policy) in &all.policies {
        ids.insert(id.as_str().to_owned(), Some(0));
        if let Some(at) = policy.state.next_due.filter(|_| policy.is_active()) {
            due.insert(id.as_str().to_owned(), Some(at.as_millis()));
        }
    }
    let wanted = BTreeMap::from([("policies".to_owned(), ids), ("policies_due".to_owned(), due)]);
    compare(&wanted, &sorted(all, &["policies", "policies_due"]), |_| false, &mut wrong);
    wrong
}

/// The remembered submissions and when they are forgotten.
fn of_submissions(all: &Everything) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut due = Members::new();
    for (field, value) in &all.submissions {
        match remembered(value) {
            Ok((_, expires_at)) => drop(due.insert(field.clone(), Some(expires_at.as_millis()))),
            Err(error) => wrong.push(format!("submission {field:?}: {error}")),
        }
    }
    let wanted = BTreeMap::from([("idem_due".to_owned(), due)]);
    compare(&wanted, &sorted(all, &["idem_due"]), |_| false, &mut wrong);
    wrong
}

/// The numbers of minutes: each hour of each name must be known, so that it is forgotten in time.
fn of_minutes(all: &Everything) -> Vec<String> {
    let hours = all.sorted.get("minutes");
    let hour_of = |key: &str| key.split_once(':').and_then(|(hour, _)| hour.parse::<i64>().ok());
    let is_lost =
        |key: &&String| hours.and_then(|hours| hours.get(*key)).map(|first| first.div_euclid(60)) != hour_of(key);
    all.minutes.iter().filter(is_lost).map(|key| format!("the minutes {key:?} are not among the known hours")).collect()
}

/// An id is that of one job or policy, in one shard.
fn of_ids(shards: &[Everything]) -> Vec<String> {
    let mut seen: BTreeSet<&JobId> = BTreeSet::new();
    let ids = shards.iter().flat_map(|all| all.jobs.keys().chain(&all.unread).chain(all.policies.keys()));
    ids.filter(|id| !seen.insert(id)).map(|id| format!("{id} is the id of two jobs or policies")).collect()
}

/// A schedule key is that of one policy, and of the one that says so.
fn of_schedules(shards: &[Everything]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut wanted: BTreeMap<&str, &JobId> = BTreeMap::new();
    for policy in shards.iter().flat_map(|all| all.policies.values()) {
        if let Some(key) = &policy.spec.schedule_key
            && let Some(other) = wanted.insert(key, &policy.id)
        {
            wrong.push(format!("policies {other} and {} have the same schedule key {key:?}", policy.id));
        }
    }
    let found: BTreeMap<&str, &str> =
        shards.iter().flat_map(|all| &all.schedules).map(|(key, id)| (key.as_str(), id.as_str())).collect();
    for (key, id) in &wanted {
        let stored = found.get(key);
        if stored != Some(&id.as_str()) {
            wrong.push(format!("schedule key {key:?} is that of policy {id}, but what is stored is {stored:?}"));
        }
    }
    let more = found.iter().filter(|(key, _)| !wanted.contains_key(*key));
    wrong.extend(more.map(|(key, id)| format!("schedule key {key:?} names policy {id}, which does not say so")));
    wrong
}

/// These sorted sets as they are.
fn sorted(all: &Everything, keys: &[&str]) -> BTreeMap<String, Members> {
    let members = |key: &str| -> Members {
        let members = all.sorted.get(key).into_iter().flatten();
        members.map(|(member, score)| (member.clone(), Some(*score))).collect()
    };
    keys.iter().map(|key| ((*key).to_owned(), members(key))).collect()
}
