//! People steer: stop, cancel, retry, delete, options of names.

use jobservice_core::job::Status;
use jobservice_core::lifecycle::{Event, Refusal};
use jobservice_core::store::{Act, Acted, Action, Controlled, Deleted, NameOptions, OptionsChange, Query, Result};
use jobservice_core::{JobId, Name, Time};

use crate::claim::{read_options, write_options};
use crate::link::text;
use crate::policy::{Stored, delete_policy};
use crate::store::RedisStore;
use crate::work::{Happened, Tries, Work};

impl RedisStore {
    /// Stops, cancels or retries a job or a policy.
    pub(crate) async fn control_one(&self, id: &JobId, action: Action, now: Time) -> Result<Controlled> {
        let shard = self.shard_with(id).await?;
        let mut tries = Tries::default();
        loop {
            let mut work = Work::new(shard, now);
            let answer = match work.load_or_policy(id).await? {
                Some(text) => {
                    let stored = Stored::read(id, text)?;
                    self.control_policy(&mut work, shard, &stored, action, now).await?
                }
                None => control_job(&mut work, id, action).await?,
            };
            if self.commit(shard, work, &mut tries).await? {
                return Ok(answer);
            }
        }
    }

    /// Removes a job or a policy. Its idempotency key stays until its time is over: a client that repeats the submission
    /// gets the id that it was given, also after the job is gone, instead of a second run.
    pub(crate) async fn delete_one(&self, id: &JobId, now: Time) -> Result<Deleted> {
        let shard = self.shard_with(id).await?;
        let mut tries = Tries::default();
        loop {
            let mut work = Work::new(shard, now);
            let policy = work.load_or_policy(id).await?.map(|text| Stored::read(id, text)).transpose()?;
            let answer = match &policy {
                Some(stored) => delete_policy(&mut work, stored).await?,
                None => deleted(&work.happen(id, &Event::Delete).await?),
            };
            if self.commit(shard, work, &mut tries).await? {
                if policy.is_some() && answer == Deleted::Gone {
                    self.unpoint(shard.number, &[id]).await?;
                }
                return Ok(answer);
            }
        }
    }

    /// Does the same to many jobs that a list found a moment ago.
    pub(crate) async fn act_on(&self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>> {
        let mut answers = vec![Acted::Passed; ids.len()];
        for (shard, places) in self.by_shard(ids.iter()).await? {
            let mut tries = Tries::default();
            loop {
                let mut work = Work::new(shard, now);
                let these: Vec<JobId> = places.iter().filter_map(|at| ids.get(*at).cloned()).collect();
                work.load(&these).await?;
                let mut acted = Vec::with_capacity(these.len());
                for id in &these {
                    let is_meant = work.job(id).is_some_and(|job| filter.matches(job));
                    acted.push(match act {
                        _ if !is_meant => Acted::Passed,
                        Act::Control(action) => Acted::Controlled(control_job(&mut work, id, action).await?),
                        Act::Delete => Acted::Deleted(deleted(&work.happen(id, &Event::Delete).await?)),
                    });
                }
                if self.commit(shard, work, &mut tries).await? {
                    for (at, answer) in places.iter().zip(acted) {
                        if let Some(place) = answers.get_mut(*at) {
                            *place = answer;
                        }
                    }
                    break;
                }
            }
        }
        Ok(answers)
    }

    /// Changes what an operator says of a name. Options that say nothing are not kept.
    pub(crate) async fn change_options(&self, name: &Name, change: OptionsChange) -> Result<NameOptions> {
        let shard = self.shard_of(name)?;
        let key = shard.keys.names();
        let mut tries = Tries::default();
        loop {
            let mut work = Work::new(shard, Time::MAX);
            let mut get = redis::cmd("HGET");
            get.arg(&key).arg(name.as_str());
            let answer = shard.link.send(&get, "set options").await?;
            let before = text(&answer)?.unwrap_or_default();
            let options = change.apply(read_options(before)?);
            let after = if options == NameOptions::default() { String::new() } else { write_options(&options) };
            if after != before {
                work.check([b"f", key.as_bytes(), name.as_str().as_bytes(), before.as_bytes()]);
                if after.is_empty() {
                    work.command([b"HDEL", key.as_bytes(), name.as_str().as_bytes()]);
                } else {
                    work.command([b"HSET", key.as_bytes(), name.as_str().as_bytes(), after.as_bytes()]);
                }
            }
            // It may have been resumed, or its limit raised.
            work.news.ready = true;
            if self.commit(shard, work, &mut tries).await? {
                self.options.lock().insert(name.clone(), after);
                return Ok(options);
            }
        }
    }
}

/// Lets a person's action happen to a job.
pub(crate) async fn control_job(work: &mut Work<'_>, id: &JobId, action: Action) -> Result<Controlled> {
    let event = match action {
        Action::Stop(grace) => Event::Stop { grace },
        Action::Cancel(grace) => Event::Cancel { grace },
        Action::Retry { .. } => Event::Retry,
    };
    Ok(match work.happen(id, &event).await? {
        // Only a running job takes a signal; the others are done with at once.
        Happened::Is(Status::Running) => Controlled::Signalled,
        Happened::Is(status) => Controlled::Done(status),
        Happened::KeyTaken(holder) => Controlled::Duplicate(holder),
        Happened::Refused(Refusal::Illegal { status, .. }) => Controlled::Refused(status),
        Happened::Refused(Refusal::Unchanged | Refusal::LeaseLost | Refusal::Repeated(_) | Refusal::NotYet(_)) => {
            work.job(id).map_or(Controlled::NotFound, |job| Controlled::Unchanged(job.state.status))
        }
        Happened::NotFound | Happened::Gone => Controlled::NotFound,
    })
}

fn deleted(happened: &Happened) -> Deleted {
    match happened {
        Happened::Gone => Deleted::Gone,
        Happened::Is(status) | Happened::Refused(Refusal::Illegal { status, .. }) => Deleted::Refused(*status),
        Happened::NotFound | Happened::KeyTaken(_) | Happened::Refused(_) => Deleted::NotFound,
    }
}
