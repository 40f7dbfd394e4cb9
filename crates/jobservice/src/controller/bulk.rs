//! The same to all jobs that a filter means, in short steps: however many there are, nobody waits long behind them.

use std::time::Duration;

use jobservice_core::job::Job;
use jobservice_core::store::{Act, Acted, Controlled, Deleted, Query, Result};
use jobservice_core::{JobId, limits};

use super::{Command, Controller};

/// What is done to many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Stop, cancel or retry them.
    Control(Command),
    /// Remove those that are final.
    Delete,
}

impl Bulk {
    /// All of them.
    pub const ALL: [Bulk; 4] =
        [Bulk::Control(Command::Stop), Bulk::Control(Command::Cancel), Bulk::Control(Command::Retry), Bulk::Delete];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Bulk::Control(command) => command.as_str(),
            Bulk::Delete => "delete",
        }
    }
}

/// How much one call may do before it answers with where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkBounds {
    /// Jobs, at most.
    pub jobs: usize,
    /// Time, about.
    pub time: Duration,
}

/// What one call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkDone {
    /// Jobs that were meant, when it was their turn.
    pub matched: u64,
    /// Jobs that have become what was asked for, or are gone.
    pub done: u64,
    /// Running jobs that were told.
    pub signalled: u64,
    /// Jobs to which there was nothing to do.
    pub unchanged: u64,
    /// Jobs whose status, or whose unique key, does not allow it.
    pub refused: u64,
    /// The cursor to go on with; none when all was seen.
    pub next: Option<String>,
}

impl Controller {
    /// Does the same to the jobs that `filter` means, from its cursor on, as far as `bounds` allow.
    ///
    /// Each step finds at most [`limits::ACT_MAX`] jobs and acts on those of them that are still meant. Crash or error in
    /// between: the steps before stand. Safe to repeat, from the same cursor or from the beginning.
    pub async fn act_on(&self, filter: &Query, bulk: Bulk, bounds: BulkBounds) -> Result<BulkDone> {
        let act = match bulk {
            Bulk::Control(command) => Act::Control(self.action(command)),
            Bulk::Delete => Act::Delete,
        };
        let end = self.inner.clock.now() + bounds.time;
        let mut query = filter.clone();
        let mut done = BulkDone::default();
        let mut left = bounds.jobs;
        loop {
            query.limit = left.clamp(1, limits::ACT_MAX);
            let page = self.inner.store.list(&query).await?;
            left = left.saturating_sub(page.jobs.len());
            self.step(&page.jobs, filter, act, &mut done).await?;
            if page.next.is_none() || left == 0 || self.inner.clock.now() >= end {
                done.next = page.next;
                return Ok(done);
            }
            query.cursor = page.next;
        }
    }

    async fn step(&self, jobs: &[Job], filter: &Query, act: Act, done: &mut BulkDone) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone()).collect();
        let answers = self.inner.store.act(&ids, filter, act, self.inner.clock.now()).await?;
        let mut gone = Vec::new();
        for (id, acted) in ids.into_iter().zip(answers) {
            done.matched += u64::from(acted != Acted::Passed);
            match acted {
                Acted::Controlled(Controlled::Done(_)) => done.done += 1,
                Acted::Deleted(Deleted::Gone) => {
                    done.done += 1;
                    gone.push(id);
                }
                Acted::Controlled(Controlled::Signalled) => done.signalled += 1,
                Acted::Controlled(Controlled::Unchanged(_) | Controlled::NotFound)
                | Acted::Deleted(Deleted::NotFound) => done.unchanged += 1,
                Acted::Controlled(Controlled::Refused(_) | Controlled::Duplicate(_))
                | Acted::Deleted(Deleted::Refused(_)) => done.refused += 1,
                Acted::Passed => {}
            }
        }
        self.remove_logs(&gone).await;
        Ok(())
    }
}
