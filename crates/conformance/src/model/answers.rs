//! Which kinds of answers the operations got: a generator that never meets a duplicate shows nothing about duplicates.

use std::collections::BTreeMap;

use jobservice_core::store::{
    CheckedIn, Controlled, Deleted, Finished, Fired, Held, Inserted, PolicyPut, Resent, Waiting,
};

use super::op::Answer;

/// Every kind of answer that a model run has to meet.
const KINDS: [&str; 38] = [
    "checked in: lost",
    "checked in: noted",
    "control: done",
    "control: duplicate",
    "control: not found",
    "control: refused",
    "control: signalled",
    "control: unchanged",
    "delete: gone",
    "delete: not found",
    "delete: refused",
    "extend: held",
    "extend: lost",
    "extend: unlisted",
    "fire: fired",
    "fire: skipped",
    "fire: stale",
    "fire: waiting",
    "insert: created",
    "insert: duplicate",
    "insert: id taken",
    "insert: lease lost",
    "insert: repeated",
    "put: created",
    "put: id taken",
    "put: unchanged",
    "put: updated",
    "report: applied",
    "report: lost",
    "resend: done",
    "resend: no event",
    "resend: no job",
    "waits: at limit",
    "waits: due",
    "waits: no worker",
    "waits: paused",
    "waits: queued",
    "waits: suspect",
];

/// How often each kind came.
#[derive(Clone, Debug, Default)]
pub struct Answers(BTreeMap<&'static str, u64>);

impl Answers {
    /// Counts the kinds of an answer.
    pub fn record(&mut self, answer: &Answer) {
        match answer {
            Answer::Inserted(inserted) => inserted.iter().for_each(|inserted| self.count(of_insert(inserted))),
            Answer::Finished(finished) => finished.iter().for_each(|finished| {
                self.count(match finished {
                    Finished::Applied(_) => "report: applied",
                    Finished::LeaseLost => "report: lost",
                });
            }),
            Answer::Extended(extended) => {
                for held in &extended.leases {
                    self.count(if *held == Held::Lost { "extend: lost" } else { "extend: held" });
                }
                extended.unlisted.iter().for_each(|_| self.count("extend: unlisted"));
            }
            Answer::CheckedIn(CheckedIn::Noted(_)) => self.count("checked in: noted"),
            Answer::CheckedIn(CheckedIn::LeaseLost) => self.count("checked in: lost"),
            Answer::Controlled(controlled) => self.count(of_control(controlled)),
            Answer::Deleted(Deleted::Gone) => self.count("delete: gone"),
            Answer::Deleted(Deleted::Refused(_)) => self.count("delete: refused"),
            Answer::Deleted(Deleted::NotFound) => self.count("delete: not found"),
            Answer::PolicyPut(put) => self.count(match put {
                PolicyPut::Created => "put: created",
                PolicyPut::Updated(_) => "put: updated",
                PolicyPut::Unchanged(_) => "put: unchanged",
                PolicyPut::IdTaken => "put: id taken",
            }),
            Answer::Resent(resent) => self.count(match resent {
                Resent::Done => "resend: done",
                Resent::NoEvent => "resend: no event",
                Resent::NoJob => "resend: no job",
            }),
            Answer::Fired(fired) => self.count(match fired {
                Fired::Fired(_) => "fire: fired",
                Fired::Skipped => "fire: skipped",
                Fired::Waiting => "fire: waiting",
                Fired::Stale => "fire: stale",
            }),
            Answer::Waiting(Some(waiting)) => self.count(match waiting {
                Waiting::Due(_) => "waits: due",
                Waiting::Paused => "waits: paused",
                Waiting::AtLimit { .. } => "waits: at limit",
                Waiting::NoWorker => "waits: no worker",
                Waiting::Suspect => "waits: suspect",
                Waiting::Queued { .. } => "waits: queued",
            }),
            _ => {}
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// The kinds that came less often than `least` times.
    pub fn missing(&self, least: u64) -> Vec<String> {
        let of = |kind: &str| self.0.get(kind).copied().unwrap_or(0);
        KINDS.iter().filter(|kind| of(kind) < least).map(|kind| format!("{kind}: {}", of(kind))).collect()
    }

    /// The counts, one a line.
    pub fn table(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(|(kind, count)| format!("{kind:>20} {count:>8}")).collect();
        lines.join("\n")
    }
}

fn of_insert(inserted: &Inserted) -> &'static str {
    match inserted {
        Inserted::Created => "insert: created",
        Inserted::Duplicate(_) => "insert: duplicate",
        Inserted::Repeated(_) => "insert: repeated",
        Inserted::IdTaken => "insert: id taken",
        Inserted::LeaseLost => "insert: lease lost",
    }
}

fn of_control(controlled: &Controlled) -> &'static str {
    match controlled {
        Controlled::Done(_) => "control: done",
        Controlled::Signalled => "control: signalled",
        Controlled::Unchanged(_) => "control: unchanged",
        Controlled::Refused(_) => "control: refused",
        Controlled::Duplicate(_) => "control: duplicate",
        Controlled::NotFound => "control: not found",
    }
}
