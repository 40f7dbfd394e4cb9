//! Which cells of the lifecycle table the operations reached, and how often.
//!
//! A report, a signal, a delete reach the cell of the job that they name. A sweep reaches a cell of every job: of those
//! that it moves, and of those that it has to leave alone.

use std::collections::BTreeMap;
use std::fmt::Write;

use jobservice_core::job::{Job, Status};
use jobservice_core::lifecycle::table::{self, EventKind};
use jobservice_core::lifecycle::{self, Event};
use jobservice_core::store::Action;
use jobservice_core::{JobId, Time};

use super::op::{Answer, Op};
use super::view::View;

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<(EventKind, Status), u64>);

impl Coverage {
    /// Counts the cells that an operation reached, from what was there before it.
    pub fn record(&mut self, before: &View, op: &Op, answer: &Answer, now: Time) {
        // Calls in batches are steps one after the other: each finds the jobs as the one before left them.
        let mut jobs = before.jobs.clone();
        match op {
            Op::Claim(claim) => {
                let Answer::Claimed(claimed) = answer else { return };
                let event = Event::Claim {
                    pool: claim.pool.clone(),
                    nonce: claim.nonce,
                    until: claim.until,
                    grace: claim.grace,
                };
                let passed_over = before.jobs.values().filter(|job| {
                    job.state.status != Status::Pending && claim.names.iter().any(|ask| ask.name == job.spec.name)
                });
                for job in passed_over {
                    self.count(job, &event, now);
                }
                for job in claimed {
                    self.happen(&mut jobs, &job.id, &event, now);
                }
            }
            Op::Extend { leases, until, .. } => {
                for lease in leases {
                    self.happen(&mut jobs, &lease.id, &Event::Extend { lease: lease.clone(), until: *until }, now);
                }
            }
            Op::Finish(reports) => {
                for report in reports {
                    let event = Event::Finish { lease: report.lease.clone(), outcome: report.outcome.clone() };
                    self.happen(&mut jobs, &report.lease.id, &event, now);
                }
            }
            Op::Release { leases, jitter } => {
                for lease in leases {
                    self.happen(&mut jobs, &lease.id, &Event::Release { lease: lease.clone(), jitter: *jitter }, now);
                }
            }
            Op::CheckIn { lease, message } => {
                let event = Event::CheckIn { lease: lease.clone(), message: message.clone() };
                self.happen(&mut jobs, &lease.id, &event, now);
            }
            Op::Control { id, action } => self.control(before, id, *action, now),
            Op::Delete(id) => self.happen(&mut jobs, id, &Event::Delete, now),
            // A sweep that ends at its limit does not say which jobs it looked at.
            Op::Promote(limit) | Op::Reap { limit, .. } if *limit < before.jobs.len() => {}
            Op::Promote(_) => self.sweep(before, |_| vec![Event::Due], now),
            Op::Reap { jitter, .. } => self.sweep(before, |job| reaping(job, *jitter, now), now),
            Op::Prune(_) => self.sweep(before, |_| vec![Event::Prune], now),
            Op::Advance(_)
            | Op::Insert(_)
            | Op::SetOptions { .. }
            | Op::PutPolicy(_)
            | Op::Fire { .. }
            | Op::ChangePolicy { .. }
            | Op::Policies(_)
            | Op::TakeEvents { .. }
            | Op::Settle { .. }
            | Op::Resend { .. }
            | Op::Kept(_)
            | Op::Get(_)
            | Op::List(_)
            | Op::Counts
            | Op::Names
            | Op::Act { .. }
            | Op::Shrink(_)
            | Op::Explain { .. }
            | Op::Minutes { .. }
            | Op::Beat(_) => {}
        }
    }

    /// A policy that ends takes its executions with it.
    fn control(&mut self, before: &View, id: &JobId, action: Action, now: Time) {
        let event = match action {
            Action::Stop(grace) => Event::Stop { grace },
            Action::Cancel(grace) => Event::Cancel { grace },
            Action::Retry { .. } => Event::Retry,
        };
        if let Some(job) = before.jobs.get(id) {
            self.count(job, &event, now);
        }
        let ends = before.policies.get(id).is_some_and(|policy| policy.state.ended.is_none()) && event != Event::Retry;
        let executions = before.jobs.values().filter(|job| ends && job.spec.upstream.as_ref() == Some(id));
        for job in executions.filter(|job| !job.state.status.is_final()) {
            self.count(job, &event, now);
        }
    }

    fn sweep(&mut self, before: &View, events: impl Fn(&Job) -> Vec<Event>, now: Time) {
        for job in before.jobs.values() {
            for event in events(job) {
                self.count(job, &event, now);
            }
        }
    }

    fn happen(&mut self, jobs: &mut BTreeMap<JobId, Job>, id: &JobId, event: &Event, now: Time) {
        let Some(job) = jobs.get_mut(id) else { return };
        self.count(job, event, now);
        if let Ok(change) = lifecycle::decide(job, event, now)
            && let Some(state) = change.state
        {
            job.state = state;
        }
    }

    fn count(&mut self, job: &Job, event: &Event, now: Time) {
        *self.0.entry((table::kind(job, event, now), job.state.status)).or_default() += 1;
    }

    /// How often a cell was reached.
    pub fn of(&self, kind: EventKind, status: Status) -> u64 {
        self.0.get(&(kind, status)).copied().unwrap_or(0)
    }

    /// The cells that can be reached and were reached less often than `least` times.
    pub fn missing(&self, least: u64) -> Vec<String> {
        let cells = table::cells().into_iter().filter(table::Cell::is_reachable);
        let rare = cells.filter(|cell| self.of(cell.kind, cell.status) < least);
        rare.map(|cell| format!("{} of {}: {}", cell.kind.label(), cell.status, self.of(cell.kind, cell.status)))
            .collect()
    }

    /// The counts as a table; `-` for cells that cannot be reached.
    pub fn table(&self) -> String {
        let mut text = format!("{:>66}", "");
        for status in Status::ALL {
            write!(text, "{:>10}", status.as_str()).expect("a string takes all");
        }
        let mut row = None;
        for cell in table::cells() {
            if row != Some(cell.kind) {
                row = Some(cell.kind);
                write!(text, "\n{:>66}", cell.kind.label()).expect("a string takes all");
            }
            let count = self.of(cell.kind, cell.status);
            let shown = if cell.is_reachable() || count > 0 { count.to_string() } else { "-".to_owned() };
            write!(text, "{shown:>10}").expect("a string takes all");
        }
        text
    }
}

/// What a reap looks at a job for: the event that is due, or all that are not.
fn reaping(job: &Job, jitter: u32, now: Time) -> Vec<Event> {
    match lifecycle::overdue(job, jitter, now) {
        Some(event) => vec![event],
        None => vec![Event::TimedOut { jitter }, Event::GraceExpired, Event::LeaseExpired { proven: false }],
    }
}
