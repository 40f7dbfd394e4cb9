//! Everything that a shard holds, read key by key: for the audit and the dump.
//!
//! Read in pages, so that a store at work is not held up; so it is no single instant, and of a store at work the parts may
//! not fit together. Each part says what cannot be read instead of stopping at it.

use std::collections::{BTreeMap, BTreeSet};

use jobservice_core::dump::{Contents, IdempotencyEntry};
use jobservice_core::job::Job;
use jobservice_core::outbox::JobOutbox;
use jobservice_core::policy::Policy;
use jobservice_core::store::{NameOptions, Node, Result};
use jobservice_core::{JobId, Name, StoreError, Time};
use redis::Value;

use crate::claim::read_options;
use crate::insert::remembered;
use crate::link::{self, array, number, text, unexpected};
use crate::script::KEYS;
use crate::store::{RedisStore, Shard};
use crate::{header, nodes, policy_text, record};

/// Keys, or members, looked at in one round trip.
const PAGE: usize = 500;

/// What a shard holds. Keys are without the prefix of the shard.
#[derive(Default)]
pub(crate) struct Everything {
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// Ids of records that are there but cannot be read.
    pub(crate) unread: BTreeSet<JobId>,
    /// Sorted sets: key, member, score.
    pub(crate) sorted: BTreeMap<String, BTreeMap<String, i64>>,
    /// Sets: key, members.
    pub(crate) sets: BTreeMap<String, BTreeSet<String>>,
    /// Digest of a unique key in hex, and who holds it.
    pub(crate) holders: BTreeMap<String, String>,
    /// Field and value of each remembered submission.
    pub(crate) submissions: BTreeMap<String, String>,
    pub(crate) policies: BTreeMap<JobId, Policy>,
    /// Schedule key and id of the policy.
    pub(crate) schedules: BTreeMap<String, String>,
    /// Id of a job or policy that is elsewhere, and the number of the shard.
    pub(crate) pointers: BTreeMap<String, String>,
    pub(crate) outboxes: BTreeMap<JobId, JobOutbox>,
    pub(crate) options: BTreeMap<Name, NameOptions>,
    pub(crate) nodes: Vec<Node>,
    /// `<hour>:<name>` of the hashes of minutes.
    pub(crate) minutes: BTreeSet<String>,
    /// What cannot be read, each thing as a sentence.
    pub(crate) broken: Vec<String>,
}

/// What is under a key.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Record,
    Sorted,
    Set,
    Text,
    Hash,
}

/// What should be under a key; none if it is not of the store's layout. `logs` and the like are kept by others.
fn kind_of(rest: &str) -> Option<Kind> {
    let (kind, is_whole) = match rest.split_once(':') {
        Some((kind, _)) => (kind, false),
        None => (rest, true),
    };
    Some(match (kind, is_whole) {
        ("job", false) => Kind::Record,
        ("due" | "idem_due" | "policies" | "policies_due" | "outbox" | "outbox_since" | "minutes", true)
        | ("ready" | "suspects" | "due" | "running" | "held" | "final" | "by_name" | "by_tag" | "executions", false) => {
            Kind::Sorted
        }
        ("known" | "work" | "busy" | "broken", true) | ("live", false) => Kind::Set,
        ("unique" | "policy" | "at", false) => Kind::Text,
        ("names" | "idem" | "schedules" | "nodes", true) | ("outbox" | "minutes", false) => Kind::Hash,
        _ => return None,
    })
}

impl Kind {
    /// The word of Redis for it.
    const fn type_of(self) -> &'static str {
        match self {
            Kind::Record | Kind::Hash => "hash",
            Kind::Sorted => "zset",
            Kind::Set => "set",
            Kind::Text => "string",
        }
    }

    /// The command that reads a page of it.
    const fn scan(self) -> &'static str {
        match self {
            Kind::Sorted => "ZSCAN",
            Kind::Set => "SSCAN",
            Kind::Record | Kind::Text | Kind::Hash => "HSCAN",
        }
    }
}

impl RedisStore {
    /// The whole state as text.
    pub(crate) async fn dump_all(&self) -> Result<String> {
        let mut contents = Contents::default();
        for shard in &self.shards {
            Everything::read(shard).await?.into_contents(&mut contents);
        }
        Ok(jobservice_core::dump::render(&contents))
    }
}

impl Everything {
    /// Reads all keys of a shard.
    pub(crate) async fn read(shard: &Shard) -> Result<Everything> {
        let mut all = Everything::default();
        let keys: Vec<String> = keys(shard).await?.into_iter().collect();
        for part in keys.chunks(PAGE) {
            let mut pipe = redis::pipe();
            for key in part {
                pipe.cmd("TYPE").arg(key);
            }
            let types = shard.link.pipe(&pipe, "inspect").await?;
            let mut by_kind: Vec<(&str, &str, Kind)> = Vec::with_capacity(part.len());
            for (key, found) in part.iter().zip(&types) {
                let rest = key.strip_prefix(shard.keys.prefix()).unwrap_or_default();
                let Some(kind) = kind_of(rest) else { continue };
                match text(found)?.unwrap_or_default() {
                    found if found == kind.type_of() => by_kind.push((key, rest, kind)),
                    // It went meanwhile.
                    "none" => {}
                    found => all.broken.push(format!("key {rest:?} is a {found} instead of a {}", kind.type_of())),
                }
            }
            all.read_keys(shard, &by_kind).await?;
        }
        Ok(all)
    }

    async fn read_keys(&mut self, shard: &Shard, keys: &[(&str, &str, Kind)]) -> Result<()> {
        let mut pipe = redis::pipe();
        for (key, _, kind) in keys {
            match kind {
                Kind::Record => pipe.cmd("HMGET").arg(key).arg(&["h", "b", "r"]),
                Kind::Text => pipe.cmd("GET").arg(key),
                Kind::Sorted | Kind::Set | Kind::Hash => pipe.cmd(kind.scan()).arg(key).arg(0).arg("COUNT").arg(PAGE),
            };
        }
        let answers = shard.link.pipe(&pipe, "inspect").await?;
        for ((key, rest, kind), answer) in keys.iter().zip(answers) {
            match kind {
                Kind::Record => self.take_record(rest, &answer)?,
                Kind::Text => self.take_text(rest, &answer),
                Kind::Sorted | Kind::Set | Kind::Hash => {
                    let members = rest_of(shard, key, *kind, answer).await?;
                    self.take_members(rest, *kind, &members)?;
                }
            }
        }
        Ok(())
    }

    fn take_record(&mut self, rest: &str, answer: &Value) -> Result<()> {
        let Ok(id) = JobId::new(last(rest)) else {
            self.broken.push(format!("key {rest:?} names no id"));
            return Ok(());
        };
        let fields = array(answer)?;
        if fields.iter().all(|field| *field == Value::Nil) {
            return Ok(());
        }
        match record::read(&id, fields) {
            Ok(record) => {
                self.jobs.insert(id, record.job);
            }
            Err(why) => {
                self.broken.push(format!("the record of job {id} cannot be read: {why}"));
                self.unread.insert(id);
            }
        }
        Ok(())
    }

    fn take_text(&mut self, rest: &str, answer: &Value) {
        let text = match text(answer) {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => return self.broken.push(format!("key {rest:?}: {error}")),
        };
        if rest.starts_with("unique:") {
            self.holders.insert(last(rest).to_owned(), text.to_owned());
            return;
        }
        if rest.starts_with("at:") {
            self.pointers.insert(last(rest).to_owned(), text.to_owned());
            return;
        }
        match policy_text::read(text) {
            Ok(policy) if policy.id.as_str() == last(rest) => {
                self.policies.insert(policy.id.clone(), policy);
            }
            Ok(policy) => self.broken.push(format!("policy {} is stored as {}", policy.id, last(rest))),
            Err(error) => self.broken.push(format!("policy {}: {error}", last(rest))),
        }
    }

    fn take_members(&mut self, rest: &str, kind: Kind, members: &[Value]) -> Result<()> {
        if kind == Kind::Set {
            let set = self.sets.entry(rest.to_owned()).or_default();
            for member in members {
                set.insert(lossy(member));
            }
            return Ok(());
        }
        if kind == Kind::Hash && rest.starts_with("outbox:") {
            self.take_outbox(rest, members);
            return Ok(());
        }
        for pair in members.chunks_exact(2) {
            let [member, value] = pair else { continue };
            let member = lossy(member);
            if kind == Kind::Sorted {
                let score = number(value)?.unwrap_or_default();
                self.sorted.entry(rest.to_owned()).or_default().insert(member, score);
                continue;
            }
            let value = lossy(value);
            match rest {
                "idem" => drop(self.submissions.insert(member, value)),
                "schedules" => drop(self.schedules.insert(member, value)),
                "nodes" => match nodes::read(&member, &value) {
                    Ok(node) => self.nodes.push(node),
                    Err(error) => self.broken.push(error.to_string()),
                },
                "names" => match (Name::new(&member), read_options(&value)) {
                    (Ok(name), Ok(options)) => drop(self.options.insert(name, options)),
                    _ => self.broken.push(format!("the options {value:?} of name {member:?} cannot be read")),
                },
                _ => drop(self.minutes.insert(last(rest).to_owned())),
            }
        }
        Ok(())
    }

    fn take_outbox(&mut self, rest: &str, members: &[Value]) {
        let read = JobId::new(last(rest)).map_err(|error| StoreError::Damaged { what: error.to_string() });
        let read = read.and_then(|id| Ok((record::read_outbox(&id, &Value::Array(members.to_vec()))?, id)));
        match read {
            Ok(((version, outbox), id)) => {
                if version.is_empty() || outbox.is_empty() {
                    self.broken.push(format!("the outbox of job {id} has no version or no events"));
                }
                self.outboxes.insert(id, outbox);
            }
            Err(error) => self.broken.push(format!("the outbox of job {}: {error}", last(rest))),
        }
    }

    /// What of it a dump tells.
    fn into_contents(self, contents: &mut Contents) {
        contents.jobs.extend(self.jobs.into_values());
        contents.policies.extend(self.policies.into_values());
        contents.options.extend(self.options);
        let holder = |(digest, id): (String, String)| Some((header::digest_of(&digest)?, JobId::new(id).ok()?));
        contents.unique.extend(self.holders.into_iter().filter_map(holder));
        let entry = |(field, value): (String, String)| {
            let (name, key) = field.split_once(' ')?;
            let (id, expires_at): (JobId, Time) = remembered(&value).ok()?;
            Some(IdempotencyEntry { name: Name::new(name).ok()?, key: key.into(), id, expires_at })
        };
        contents.idempotency.extend(self.submissions.into_iter().filter_map(entry));
        contents.outbox.extend(self.outboxes.values().flat_map(JobOutbox::entries).cloned());
        contents.nodes.extend(self.nodes);
    }
}

/// All keys of a shard.
async fn keys(shard: &Shard) -> Result<BTreeSet<String>> {
    // Nothing in a prefix means anything in a pattern: a namespace with such characters is refused.
    let pattern = format!("{}*", shard.keys.prefix());
    let mut keys = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = link::call(&KEYS, shard.keys.prefix());
        scan.arg(&cursor).arg(&pattern).arg(PAGE);
        let answer = shard.link.run(&KEYS, &scan, "inspect").await?;
        let (next, found) = page(&answer)?;
        keys.extend(found.iter().map(lossy));
        if next == "0" {
            return Ok(keys);
        }
        next.clone_into(&mut cursor);
    }
}

/// The members in the answer of a first page and of those after it.
async fn rest_of(shard: &Shard, key: &str, kind: Kind, first: Value) -> Result<Vec<Value>> {
    let (mut cursor, mut members) = owned_page(first)?;
    while cursor != "0" {
        let mut scan = redis::cmd(kind.scan());
        scan.arg(key).arg(&cursor).arg("COUNT").arg(PAGE);
        let (next, more) = owned_page(shard.link.send(&scan, "inspect").await?)?;
        members.extend(more);
        cursor = next;
    }
    Ok(members)
}

fn page(answer: &Value) -> Result<(&str, &[Value])> {
    match array(answer)? {
        [cursor, members] => Ok((text(cursor)?.unwrap_or("0"), array(members)?)),
        _ => Err(unexpected("scan", answer)),
    }
}

fn owned_page(answer: Value) -> Result<(String, Vec<Value>)> {
    let (cursor, members) = page(&answer)?;
    Ok((cursor.to_owned(), members.to_vec()))
}

/// What comes after the kind of a key.
fn last(rest: &str) -> &str {
    rest.split_once(':').map_or("", |(_, last)| last)
}

/// A text for people: what is no text in it is shown as such, and then fits nothing.
fn lossy(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        other => format!("{other:?}"),
    }
}
