//! Looks through everything: each record by itself, and what records say of each other.

use super::indexes::Indexes;
use super::inner::Inner;
use crate::invariant;

impl Inner {
    /// What is wrong, each thing as a sentence.
    pub(super) fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, job) in &self.jobs {
            if *id != job.id {
                wrong.push(format!("job {} is stored as {id}", job.id));
            }
            wrong.extend(invariant::check(job));
        }
        wrong.extend(invariant::unique_keys_have_one_holder(self.jobs.values()));
        if self.indexes != Indexes::of(self.jobs.values()) {
            wrong.push("the indexes are not those of the records".to_owned());
        }
        for (id, events) in self.outbox.by_job() {
            match self.jobs.get(id) {
                Some(job) => wrong.extend(invariant::check_events(job, &events)),
                None => wrong.push(format!("there are hook events of job {id}, which does not exist")),
            }
        }
        wrong.extend(self.outbox.audit());
        for ((name, key), entry) in &self.idempotency {
            if *name != entry.name || *key != entry.key {
                wrong.push(format!("idempotency key {:?} of {} is stored as {key:?} of {name}", entry.key, entry.name));
            }
        }
        wrong.extend(self.audit_policies());
        wrong
    }
}
