//! The records of running jobs as last committed or written by the open transaction, so that a finish reads nothing.
//!
//! A read cache of rows that only the writer changes, never a truth of its own: whatever is not here is read from the
//! table, on a rollback all of it is dropped, and the audit compares it with the rows.

use std::collections::HashMap;

use jobservice_core::JobId;
use jobservice_core::job::Status;

use crate::row::Record;

/// More than the slots of any pool; past it jobs are read again when they end.
const RECORDS_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Running {
    records: HashMap<JobId, Record>,
}

impl Running {
    /// Takes a record out, to change it. Who does not put it back has it read again the next time.
    pub(crate) fn take(&mut self, id: &JobId) -> Option<Record> {
        self.records.remove(id)
    }

    /// Keeps a record if its job runs.
    pub(crate) fn keep(&mut self, record: Record) {
        if record.job.state.status == Status::Running && self.records.len() < RECORDS_MAX {
            self.records.insert(record.job.id.clone(), record);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
    }

    /// All that is kept.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }
}
