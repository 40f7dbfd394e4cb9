//! Which sets a job is in, by its record alone.

use jobservice_core::Time;
use jobservice_core::job::{Index, Job};

use crate::header;
use crate::keys::Keys;

/// A job's place in a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// In a sorted set, by this score.
    Score(i64),
    /// In a set.
    Member,
}

/// Priorities are this far apart in the scores of waiting jobs: more than the milliseconds until the year 2248.
const PRIORITY_STEP: i64 = 1 << 43;

/// The score of a waiting job: the least is the first to be claimed. Exact in a double.
pub(crate) const fn ready_score(priority: u8, ready_at: Time) -> i64 {
    ((jobservice_core::limits::PRIORITY_MAX as i64 - priority as i64) * PRIORITY_STEP)
        .saturating_add(ready_at.as_millis())
}

/// The priority and the time that a score was made of.
pub(crate) const fn ready_place(score: i64) -> (u8, Time) {
    let priority = jobservice_core::limits::PRIORITY_MAX as i64 - score.div_euclid(PRIORITY_STEP);
    (priority as u8, Time::from_millis(score.rem_euclid(PRIORITY_STEP)))
}

/// The sets that a job is in by its state.
pub(crate) fn sets(keys: &Keys, job: &Job, mut put: impl FnMut(String, Place)) {
    let name = &job.spec.name;
    match job.index() {
        Index::Due { run_at } => {
            put(keys.due(), Place::Score(run_at.as_millis()));
            put(keys.due_of(name), Place::Score(run_at.as_millis()));
        }
        Index::Ready { priority, ready_at, suspect } => {
            let key = if suspect { keys.suspects(name) } else { keys.ready(name) };
            put(key, Place::Score(ready_score(priority, ready_at)));
        }
        Index::Running { reap_at } => put(keys.running(name), Place::Score(reap_at.as_millis())),
        Index::Final { expires_at } => put(keys.kept(job.state.status), Place::Score(expires_at.as_millis())),
    }
    if let Some(upstream) = job.spec.upstream.as_ref().filter(|_| !job.state.status.is_final()) {
        put(keys.live(upstream), Place::Member);
    }
}

/// The claim that a job runs by: in which sorted set it is counted, and its nonce as the member.
pub(crate) fn claim_of(keys: &Keys, job: &Job) -> Option<(String, String)> {
    let lease = job.state.lease.as_ref()?;
    Some((keys.held(&lease.pool), header::nonce(lease.nonce)))
}

/// The sorted sets that a job is in for as long as it exists, by time of submission.
pub(crate) fn lists(keys: &Keys, job: &Job, mut put: impl FnMut(String)) {
    put(keys.by_name(&job.spec.name));
    job.spec.tags.iter().for_each(|tag| put(keys.by_tag(tag)));
    if let Some(upstream) = &job.spec.upstream {
        put(keys.executions(upstream));
    }
}
