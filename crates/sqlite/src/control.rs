//! People steer: stop, cancel, retry, delete, options of names.

use jobservice_core::job::Status;
use jobservice_core::lifecycle::{Event, Refusal};
use jobservice_core::store::{Act, Acted, Action, Controlled, Deleted, NameOptions, OptionsChange, Query};
use jobservice_core::{JobId, Name, Time};

use crate::call::Failure;
use crate::commit::Happened;
use crate::row::Record;
use crate::session::Session;

impl Session<'_> {
    /// Stops, cancels or retries a job or a policy.
    pub(crate) fn control(&mut self, id: &JobId, action: Action, now: Time) -> Result<Controlled, Failure> {
        if let Some(policy) = self.policy(id)? {
            return self.control_policy(policy, action, now);
        }
        let Some(record) = self.take(id)? else { return Ok(Controlled::NotFound) };
        self.control_job(record, action, now)
    }

    fn control_job(&mut self, mut record: Record, action: Action, now: Time) -> Result<Controlled, Failure> {
        let event = match action {
            Action::Stop(grace) => Event::Stop { grace },
            Action::Cancel(grace) => Event::Cancel { grace },
            Action::Retry { .. } => Event::Retry,
        };
        let happened = self.happen_to(&mut record, &event, now)?;
        let stands = record.job.state.status;
        self.running.keep(record);
        Ok(match happened {
            // Only a running job takes a signal; the others are done with at once.
            Happened::Is(Status::Running) => Controlled::Signalled,
            Happened::Is(status) => Controlled::Done(status),
            Happened::KeyTaken(holder) => Controlled::Duplicate(holder),
            Happened::Refused(Refusal::Illegal { status, .. }) => Controlled::Refused(status),
            Happened::Refused(Refusal::Unchanged | Refusal::LeaseLost | Refusal::Repeated(_) | Refusal::NotYet(_)) => {
                Controlled::Unchanged(stands)
            }
            Happened::NotFound | Happened::Gone => Controlled::NotFound,
        })
    }

    /// Removes a job or a policy. Its idempotency key stays until its time is over: a client that repeats the submission
    /// gets the id that it was given, also after the job is gone, instead of a second run.
    pub(crate) fn delete(&mut self, id: &JobId, now: Time) -> Result<Deleted, Failure> {
        if let Some(policy) = self.policy(id)? {
            return self.delete_policy(&policy);
        }
        Ok(deleted(&self.happen(id, &Event::Delete, now)?))
    }

    /// Does the same to many jobs that a list found a moment ago.
    pub(crate) fn act(&mut self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>, Failure> {
        let mut acted = Vec::with_capacity(ids.len());
        for id in ids {
            acted.push(match (self.take(id)?, act) {
                (None, _) => Acted::Passed,
                (Some(record), _) if !filter.matches(&record.job) => {
                    self.running.keep(record);
                    Acted::Passed
                }
                (Some(record), Act::Control(action)) => Acted::Controlled(self.control_job(record, action, now)?),
                (Some(mut record), Act::Delete) => {
                    let happened = self.happen_to(&mut record, &Event::Delete, now)?;
                    let deleted = deleted(&happened);
                    if deleted != Deleted::Gone {
                        self.running.keep(record);
                    }
                    Acted::Deleted(deleted)
                }
            });
        }
        Ok(acted)
    }

    /// Changes what an operator says of a name. Options that say nothing are not kept.
    pub(crate) fn set_options(&mut self, name: &Name, change: OptionsChange) -> Result<NameOptions, Failure> {
        let slot = self.names.slot(name);
        let options = change.apply(self.names.get(slot).options);
        if options == NameOptions::default() {
            self.conn.prepare_cached("DELETE FROM name_options WHERE name = ?1")?.execute([name.as_str()])?;
        } else {
            let NameOptions { paused, max_concurrency, weight } = options;
            let mut put = self.conn.prepare_cached(
                "INSERT OR REPLACE INTO name_options (name, paused, max_concurrency, weight) VALUES (?1, ?2, ?3, ?4)",
            )?;
            put.execute((name.as_str(), paused, max_concurrency, weight))?;
        }
        let state = self.names.get_mut(slot);
        state.options = options;
        // It may have been resumed, or its limit raised.
        self.news.ready |= state.ready || state.suspects;
        self.names.options_version += 1;
        Ok(options)
    }
}

fn deleted(happened: &Happened) -> Deleted {
    match happened {
        Happened::Gone => Deleted::Gone,
        Happened::Is(status) | Happened::Refused(Refusal::Illegal { status, .. }) => Deleted::Refused(*status),
        Happened::NotFound | Happened::KeyTaken(_) | Happened::Refused(_) => Deleted::NotFound,
    }
}
