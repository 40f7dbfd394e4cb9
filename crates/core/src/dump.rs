//! The whole state of a store as text, the same for equal states of any store.
//!
//! For snapshots, for the comparison of a store with the model ([`crate::memory`]), for reports of users. A store
//! collects its [`Contents`] in any order; [`render`] sorts them. What a store only derives (counts, ready order) is not
//! here: that it agrees with the records is the business of `audit`. The one derived thing that is, who holds which
//! unique key, comes from the store's own index, so that a difference shows.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Arc;

use crate::job::{Ended, Job, Lease, SignalState, Spec, State};
use crate::lifecycle::HookEvent;
use crate::outbox::OutboxEntry;
use crate::policy::{Policy, PolicySpec, PolicyState};
use crate::store::{NameOptions, Node};
use crate::{JobId, Name, Time};

/// All that a store holds, in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Every record.
    pub jobs: Vec<Job>,
    /// Every policy.
    pub policies: Vec<Policy>,
    /// What operators said of names. Names whose options are the default count as absent.
    pub options: Vec<(Name, NameOptions)>,
    /// Who holds which unique key, from the store's own index of them.
    pub unique: Vec<([u8; 32], JobId)>,
    /// The submissions that are remembered by their idempotency key.
    pub idempotency: Vec<IdempotencyEntry>,
    /// The hook events, those that wait and those that are kept.
    pub outbox: Vec<OutboxEntry>,
    /// The nodes known.
    pub nodes: Vec<Node>,
}

/// A submission that is remembered by the client's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyEntry {
    /// The job's name: keys are kept by name.
    pub name: Name,
    /// The client's key.
    pub key: Arc<str>,
    /// The job that the submission made. It may be gone: the promise is the same id for
    /// [`crate::limits::IDEMPOTENCY_KEPT`], also to a client whose job was deleted meanwhile.
    pub id: JobId,
    /// From then on it counts no more: [`crate::limits::IDEMPOTENCY_KEPT`] after the submission.
    pub expires_at: Time,
}

/// The text.
pub fn render(contents: &Contents) -> String {
    let mut text = Text(String::new());
    let jobs: BTreeMap<_, _> = contents.jobs.iter().map(|job| (&job.id, job)).collect();
    for job in jobs.values() {
        text.job(job);
    }
    let policies: BTreeMap<_, _> = contents.policies.iter().map(|policy| (&policy.id, policy)).collect();
    for policy in policies.values() {
        text.policy(policy);
    }
    let options: BTreeMap<_, _> = contents.options.iter().map(|(name, options)| (name, options)).collect();
    for (name, options) in options {
        if *options == NameOptions::default() {
            continue;
        }
        let NameOptions { paused, max_concurrency, weight } = options;
        text.line("options", name);
        text.field("paused", paused);
        text.some("max_concurrency", max_concurrency.as_ref());
        text.some("weight", weight.as_ref());
    }
    let mut unique: Vec<_> = contents.unique.iter().collect();
    unique.sort();
    for (digest, id) in unique {
        text.line("unique", Hex(digest));
        text.field("held_by", id);
    }
    let mut idempotency: Vec<_> = contents.idempotency.iter().collect();
    idempotency.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
    for IdempotencyEntry { name, key, id, expires_at } in idempotency {
        text.line("idempotency", name);
        text.quoted("key", Some(key));
        text.field("id", id);
        text.field("expires_at", expires_at);
    }
    let mut outbox: Vec<_> = contents.outbox.iter().collect();
    outbox.sort_by(|a, b| (&a.id, a.event.seq).cmp(&(&b.id, b.event.seq)));
    for entry in outbox {
        text.event(entry);
    }
    let nodes: BTreeMap<_, _> = contents.nodes.iter().map(|node| (&node.pool, node)).collect();
    for Node { pool, started_at, beat_at, names, concurrency, host, pid } in nodes.values() {
        text.line("node", pool);
        text.field("started_at", started_at);
        text.field("beat_at", beat_at);
        text.field("concurrency", concurrency);
        text.field("host", format_args!("{host:?}"));
        text.field("pid", pid);
        text.field("names", Joined(names));
    }
    text.end()
}

/// The text as it grows: a line a record, fields as `name=value`, those without a value left out.
struct Text(String);

impl Text {
    fn line(&mut self, what: &str, id: impl Display) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.put(format_args!("{what} {id}"));
    }

    /// Goes on with the record on a further line.
    fn more(&mut self, what: &str) {
        self.put(format_args!("\n  {what}"));
    }

    fn field(&mut self, name: &str, value: impl Display) {
        self.put(format_args!(" {name}={value}"));
    }

    fn some(&mut self, name: &str, value: Option<&impl Display>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    fn quoted(&mut self, name: &str, value: Option<&Arc<str>>) {
        if let Some(value) = value {
            self.field(name, format_args!("{value:?}"));
        }
    }

    fn put(&mut self, what: fmt::Arguments<'_>) {
        self.0.push_str(&fmt::format(what));
    }

    fn end(mut self) -> String {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0
    }

    // The structs below are taken apart by name, so that a new field does not compile until it is shown here.

    fn job(&mut self, job: &Job) {
        let Job { id, spec, state } = job;
        self.line("job", id);
        self.spec(spec);
        self.state(state);
    }

    fn spec(&mut self, spec: &Spec) {
        let Spec {
            name,
            kind,
            parameters,
            priority,
            unique,
            max_fails,
            timeout,
            hook,
            upstream,
            tags,
            retention,
            enqueued_at,
        } = spec;
        self.field("name", name);
        self.field("kind", kind.as_str());
        self.more("spec");
        self.quoted("parameters", Some(parameters));
        self.field("priority", priority);
        if let Some(unique) = unique {
            self.field("unique", Hex(&unique.digest));
            self.field("scope", format_args!("{:?}", unique.scope));
        }
        self.field("max_fails", max_fails);
        self.some("timeout", timeout.map(Millis).as_ref());
        self.quoted("hook", hook.as_ref());
        self.some("upstream", upstream.as_ref());
        self.field("tags", format_args!("{tags:?}"));
        self.retention(*retention);
        self.field("enqueued_at", enqueued_at);
    }

    fn retention(&mut self, retention: crate::job::Retention) {
        let crate::job::Retention { success_seconds, stopped_seconds, error_seconds } = retention;
        self.field("retention", format_args!("{success_seconds}/{stopped_seconds}/{error_seconds}"));
    }

    fn state(&mut self, state: &State) {
        let State {
            status,
            version,
            attempt,
            lease,
            ended,
            fails,
            crashes,
            releases,
            event_seq,
            signal,
            holds_key,
            ready_at,
            run_at,
            started_at,
            finished_at,
            die_at,
            expires_at,
            updated_at,
            check_in,
            error,
            result,
            attempts,
        } = state;
        self.more("state");
        self.field("status", status);
        self.field("version", version);
        self.field("attempt", attempt);
        self.field("fails", fails);
        self.field("crashes", crashes);
        self.field("releases", releases);
        self.field("event_seq", event_seq);
        self.field("holds_key", holds_key);
        self.field("ready_at", ready_at);
        self.some("run_at", run_at.as_ref());
        self.some("started_at", started_at.as_ref());
        self.some("finished_at", finished_at.as_ref());
        self.some("die_at", die_at.as_ref());
        self.some("expires_at", expires_at.as_ref());
        self.field("updated_at", updated_at);
        if let Some(check_in) = check_in {
            self.quoted("check_in", Some(&check_in.message));
            self.field("check_in_at", check_in.at);
        }
        self.quoted("error", error.as_ref());
        self.quoted("result", result.as_ref());
        if let Some(Lease { nonce, pool, until, abort_at }) = lease {
            self.more("lease");
            self.field("nonce", format_args!("{nonce:016x}"));
            self.field("pool", pool);
            self.field("until", until);
            self.some("abort_at", abort_at.as_ref());
        }
        if let Some(SignalState { signal, until }) = signal {
            self.more("signal");
            self.field("signal", format_args!("{signal:?}"));
            self.field("until", until);
        }
        if let Some(Ended { attempt, nonce, how, status, at }) = ended {
            self.more("ended");
            self.field("attempt", attempt);
            self.field("nonce", format_args!("{nonce:016x}"));
            self.field("how", format_args!("{how:?}"));
            self.field("status", status);
            self.field("at", at);
        }
        for crate::job::Attempt { attempt, pool, started_at, ended_at, outcome, error } in attempts {
            self.more("attempt");
            self.field("attempt", attempt);
            self.field("pool", pool);
            self.field("started_at", started_at);
            self.field("ended_at", ended_at);
            self.field("outcome", format_args!("{outcome:?}"));
            self.quoted("error", error.as_ref());
        }
    }

    fn policy(&mut self, policy: &Policy) {
        let Policy { id, spec, state } = policy;
        let PolicySpec {
            schedule_key,
            name,
            parameters,
            cron,
            timezone,
            misfire,
            overlap,
            priority,
            max_fails,
            timeout,
            hook,
            unique,
            unique_key,
            tags,
            retention,
        } = &**spec;
        self.line("policy", id);
        self.field("name", name);
        self.quoted("schedule_key", schedule_key.as_ref());
        self.more("spec");
        self.quoted("cron", Some(cron));
        self.quoted("timezone", Some(timezone));
        self.field("misfire", format_args!("{misfire:?}"));
        self.field("overlap", format_args!("{overlap:?}"));
        self.quoted("parameters", Some(parameters));
        self.field("priority", priority);
        self.field("max_fails", max_fails);
        self.some("timeout", timeout.map(Millis).as_ref());
        self.quoted("hook", hook.as_ref());
        if let Some(scope) = unique {
            self.field("scope", format_args!("{scope:?}"));
        }
        self.quoted("unique_key", unique_key.as_ref());
        self.field("tags", format_args!("{tags:?}"));
        self.retention(*retention);
        let PolicyState {
            ended,
            paused,
            version,
            next_due,
            last_fired,
            fired,
            skipped,
            error,
            enqueued_at,
            updated_at,
        } = state;
        self.more("state");
        if let Some(signal) = ended {
            self.field("ended", format_args!("{signal:?}"));
        }
        self.field("paused", paused);
        self.field("version", version);
        self.some("next_due", next_due.as_ref());
        self.some("last_fired", last_fired.as_ref());
        self.field("fired", fired);
        self.field("skipped", skipped);
        self.quoted("error", error.as_ref());
        self.field("enqueued_at", enqueued_at);
        self.field("updated_at", updated_at);
    }

    fn event(&mut self, entry: &OutboxEntry) {
        let OutboxEntry { id, event, delivery, next_at, tries, error: failure, resent_at } = entry;
        let HookEvent { seq, status, attempt, at, check_in, error } = event;
        self.line("event", id);
        self.field("seq", seq);
        self.field("status", status);
        self.field("attempt", attempt);
        self.field("at", at);
        self.quoted("check_in", check_in.as_ref());
        self.quoted("error", error.as_ref());
        self.field("delivery", delivery.as_str());
        self.field("next_at", next_at);
        self.field("tries", tries);
        self.quoted("failure", failure.as_ref());
        self.some("resent_at", resent_at.as_ref());
    }
}

struct Hex<'a>(&'a [u8; 32]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Millis(std::time::Duration);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

struct Joined<'a>(&'a [Name]);

impl Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}
