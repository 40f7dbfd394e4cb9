//! What must always hold, each as a named predicate.
//!
//! The first part is about one record and is checked three times: by `debug_assert!` in [`crate::lifecycle::decide`] for
//! each record that it makes, by the model test after each step, and by every store's `audit` for what it has stored.
//! The second part is about a record before and after a change, the third about what records say of each other; what
//! only a store can know (is a job in the set that its status says?) is in that store's audit.

use std::collections::BTreeMap;

use crate::job::{Job, Kind, Signal, State, Status};
use crate::lifecycle::HookEvent;
use crate::outbox::OutboxEntry;
use crate::policy::Policy;
use crate::unique::Scope;
use crate::{JobId, limits};

/// The answer of a predicate: a sentence that says what is wrong.
pub type Verdict = Result<(), String>;

fn expect(holds: bool, wrong: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(wrong()) }
}

/// A named predicate about one record.
pub type Predicate = (&'static str, fn(&Job) -> Verdict);

/// Every predicate about one record.
pub const OF_A_JOB: [Predicate; 15] = [
    ("lease_iff_running", lease_iff_running),
    ("finish_time_iff_final", finish_time_iff_final),
    ("expiry_iff_final", expiry_iff_final),
    ("death_time_iff_dead", death_time_iff_dead),
    ("signal_only_while_running", signal_only_while_running),
    ("key_held_iff_within_scope", key_held_iff_within_scope),
    ("due_time_if_scheduled", due_time_if_scheduled),
    ("start_time_iff_claimed", start_time_iff_claimed),
    ("ended_tells_of_the_last_lease", ended_tells_of_the_last_lease),
    ("attempts_are_the_last_ones", attempts_are_the_last_ones),
    ("fails_leave_a_try", fails_leave_a_try),
    ("crashes_leave_a_try", crashes_leave_a_try),
    ("counters_come_from_attempts", counters_come_from_attempts),
    ("error_fits_status", error_fits_status),
    ("spec_is_within_limits", spec_is_within_limits),
];

/// All that is wrong with a record, each thing as a sentence that begins with the job and the predicate.
pub fn check(job: &Job) -> Vec<String> {
    let verdict = |(name, holds): Predicate| {
        holds(job).err().map(|wrong| format!("job {} ({}), {name}: {wrong}", job.id, job.state.status))
    };
    OF_A_JOB.into_iter().filter_map(verdict).collect()
}

/// A job has a lease exactly while it is Running.
pub fn lease_iff_running(job: &Job) -> Verdict {
    let (lease, running) = (job.state.lease.is_some(), job.state.status == Status::Running);
    expect(lease == running, || if lease { "it has a lease".to_owned() } else { "it has no lease".to_owned() })
}

/// The finish time is set exactly while the status is final.
pub fn finish_time_iff_final(job: &Job) -> Verdict {
    let at = job.state.finished_at;
    expect(at.is_some() == job.state.status.is_final(), || format!("its finish time is {at:?}"))
}

/// The expiry is set exactly while the status is final.
pub fn expiry_iff_final(job: &Job) -> Verdict {
    let at = job.state.expires_at;
    expect(at.is_some() == job.state.status.is_final(), || format!("its expiry is {at:?}"))
}

/// The time of death is set exactly while the status is Error.
pub fn death_time_iff_dead(job: &Job) -> Verdict {
    let at = job.state.die_at;
    expect(at.is_some() == (job.state.status == Status::Error), || format!("its time of death is {at:?}"))
}

/// Only a Running job has a signal to obey.
pub fn signal_only_while_running(job: &Job) -> Verdict {
    let signal = job.state.signal;
    expect(signal.is_none() || job.state.status == Status::Running, || format!("it has the signal {signal:?}"))
}

/// The unique key is held exactly while the job is unique and within its scope.
///
/// Until final: while it is not final. Until start: from the submission, and from each retry by hand, to the next claim;
/// a retry after a failure does not take it again, so of a waiting job with attempts both may be true.
pub fn key_held_iff_within_scope(job: &Job) -> Verdict {
    let Job { spec, state, .. } = job;
    let waits = matches!(state.status, Status::Scheduled | Status::Pending);
    let (may, must) = match spec.unique.map(|unique| unique.scope) {
        None => (false, false),
        Some(Scope::UntilFinal) => (!state.status.is_final(), !state.status.is_final()),
        Some(Scope::UntilStart) => (waits, waits && state.attempt == 0),
    };
    expect(may || !state.holds_key, || "it holds a unique key out of its scope".to_owned())?;
    expect(state.holds_key || !must, || "it does not hold its unique key".to_owned())
}

/// A Scheduled job has a due time: without one it would wait for ever.
pub fn due_time_if_scheduled(job: &Job) -> Verdict {
    expect(job.state.status != Status::Scheduled || job.state.run_at.is_some(), || "it has no due time".to_owned())
}

/// The start time is set exactly if the job was ever claimed; a Running one was.
pub fn start_time_iff_claimed(job: &Job) -> Verdict {
    let State { status, attempt, started_at, .. } = &job.state;
    expect(started_at.is_some() == (*attempt > 0), || format!("attempt {attempt} started at {started_at:?}"))?;
    expect(*attempt > 0 || *status != Status::Running, || "it runs but was never claimed".to_owned())
}

/// What is remembered of the end of a lease is about the last lease that ended: the job's last attempt, or, while it
/// runs, the one before that.
pub fn ended_tells_of_the_last_lease(job: &Job) -> Verdict {
    let state = &job.state;
    let ended = state.ended.as_ref().map_or(0, |ended| ended.attempt);
    expect(ended == attempts_ended(state), || format!("attempt {} but the last lease was {ended}", state.attempt))?;
    let became = state.ended.as_ref().map(|ended| ended.status);
    expect(became != Some(Status::Running), || "its last lease ended with the job running".to_owned())
}

/// The attempts that are remembered are the last ones that ended, in order and without a gap, and not too many.
pub fn attempts_are_the_last_ones(job: &Job) -> Verdict {
    let numbers: Vec<u32> = job.state.attempts.iter().map(|attempt| attempt.attempt).collect();
    let ended = attempts_ended(&job.state);
    let kept = u32::try_from(limits::ATTEMPTS_KEPT).unwrap_or(u32::MAX).min(ended);
    expect(numbers.iter().copied().eq(ended - kept + 1..=ended), || {
        format!("{ended} attempts ended and it remembers {numbers:?}")
    })
}

/// How many attempts of a job have ended.
fn attempts_ended(state: &State) -> u32 {
    state.attempt.saturating_sub(u32::from(state.status == Status::Running))
}

/// A job that is not final has a try left: it failed less often than it may. None fails more often than it may.
pub fn fails_leave_a_try(job: &Job) -> Verdict {
    let (fails, max) = (job.state.fails, job.spec.max_fails);
    expect(fails < max || (fails == max && job.state.status.is_final()), || format!("{fails} fails of {max}"))
}

/// A job that is not final has crashed less often than a poison job may.
pub fn crashes_leave_a_try(job: &Job) -> Verdict {
    let (crashes, max) = (job.state.crashes, limits::CRASHES_MAX);
    expect(crashes < max || (crashes == max && job.state.status.is_final()), || format!("{crashes} crashes of {max}"))
}

/// Fails, crashes and releases each come from an attempt, hook events from a change.
pub fn counters_come_from_attempts(job: &Job) -> Verdict {
    let State { version, attempt, fails, crashes, releases, event_seq, .. } = &job.state;
    let ended = attempts_ended(&job.state);
    expect(*fails.max(crashes).max(releases) <= ended, || {
        format!("{fails} fails, {crashes} crashes, {releases} releases of {ended} attempts")
    })?;
    expect(*version > u64::from(*attempt.max(event_seq)), || {
        format!("version {version} is too low for attempt {attempt} and event {event_seq}")
    })
}

/// A dead job says why; one that succeeded has no error; only one that succeeded has a result.
pub fn error_fits_status(job: &Job) -> Verdict {
    let State { status, error, result, .. } = &job.state;
    expect(*status == Status::Success || result.is_none(), || format!("it has the result {result:?}"))?;
    expect(*status != Status::Error || error.is_some(), || "it does not say why it died".to_owned())?;
    expect(*status != Status::Success || error.is_none(), || format!("it has the error {error:?}"))
}

/// What was asked for is within the bounds of the domain.
pub fn spec_is_within_limits(job: &Job) -> Verdict {
    let spec = &job.spec;
    expect(spec.priority <= limits::PRIORITY_MAX, || format!("priority {}", spec.priority))?;
    expect((1..=limits::MAX_FAILS_MAX).contains(&spec.max_fails), || format!("max_fails {}", spec.max_fails))?;
    expect(spec.kind != Kind::Periodic, || "a policy is not a job".to_owned())
}

/// All that is wrong with a change of a record from `before` to `after`, each thing as a sentence.
///
/// The counters never fall, a final status is left by a retry only, and a lease never gets shorter.
pub fn transition(before: &Job, after: &Job) -> Vec<String> {
    let (old, new) = (&before.state, &after.state);
    let claimed = old.status != Status::Running && new.status == Status::Running;
    let retried = old.status.is_final() && new.status == Status::Pending;
    let same_run = old.lease.as_ref().zip(new.lease.as_ref()).filter(|_| old.attempt == new.attempt);
    let stop = |state: &State| state.signal.is_some_and(|signal| signal.signal == Signal::Stop);
    let checks = [
        (before.id == after.id && before.spec == after.spec, "what was asked for changed"),
        (new.version == old.version + 1 || (new.version == old.version && new.status == old.status), "version"),
        (new.attempt == old.attempt + u32::from(claimed), "attempt rises by one at each claim and never else"),
        (new.event_seq == old.event_seq || new.event_seq == old.event_seq + 1, "event_seq"),
        (!old.status.is_final() || new.status == old.status || retried, "a final status is left by a retry only"),
        (
            !retried || matches!(old.status, Status::Error | Status::Cancelled),
            "only dead and cancelled jobs are retried",
        ),
        (!retried || (new.fails, new.crashes, new.releases) == (0, 0, 0), "a retry by hand counts from zero"),
        (retried || new.fails >= old.fails, "fails fell"),
        (retried || new.crashes >= old.crashes, "crashes fell"),
        (same_run.is_none_or(|(old, new)| old.nonce == new.nonce && old.pool == new.pool), "a lease changed hands"),
        (same_run.is_none_or(|(old, new)| new.until >= old.until), "a lease got shorter"),
        (same_run.is_none() || !stop(old) || stop(new), "a stop was weakened"),
        (!claimed || old.status == Status::Pending, "only a Pending job is claimed"),
    ];
    let wrong = checks.into_iter().filter(|(holds, _)| !holds);
    wrong.map(|(_, what)| format!("job {}, {} to {}: {what}", before.id, old.status, new.status)).collect()
}

/// All that is wrong with a policy, each thing as a sentence.
pub fn check_policy(policy: &Policy) -> Vec<String> {
    let Policy { id, spec, state } = policy;
    let checks = [
        (state.ended.is_none() || state.next_due.is_none(), "it has ended and has a due time"),
        (state.fired > 0 || state.last_fired.is_none(), "it fired last but never did"),
        (state.version > 0, "its version is zero"),
        (spec.priority <= limits::PRIORITY_MAX, "its priority is too high"),
        ((1..=limits::MAX_FAILS_MAX).contains(&spec.max_fails), "its max_fails is out of bounds"),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| format!("policy {id}: {what}")).collect()
}

/// No unique key is held by two jobs.
pub fn unique_keys_have_one_holder<'a>(jobs: impl Iterator<Item = &'a Job>) -> Vec<String> {
    let mut holders: BTreeMap<[u8; 32], &JobId> = BTreeMap::new();
    let mut wrong = Vec::new();
    for job in jobs {
        if let (true, Some(unique)) = (job.state.holds_key, job.spec.unique)
            && let Some(other) = holders.insert(unique.digest, &job.id)
        {
            wrong.push(format!("jobs {other} and {} hold the same unique key", job.id));
        }
    }
    wrong
}

/// The undelivered events of a job, in order, are the end of the events that it had: the last is its last one, and a
/// number is missing only where a later check-in took the place of an earlier one.
pub fn events_follow_job(job: &Job, events: &[&HookEvent]) -> Verdict {
    let id = &job.id;
    let Some(last) = events.last() else { return Ok(()) };
    expect(job.spec.hook.is_some(), || format!("job {id} has hook events but no hook"))?;
    expect(last.seq == job.state.event_seq, || {
        format!("job {id} had {} hook events, but the last undelivered one is {}", job.state.event_seq, last.seq)
    })?;
    for (index, pair) in events.windows(2).enumerate() {
        let [a, b] = pair else { continue };
        expect(a.seq < b.seq, || format!("job {id}: hook event {} comes after {}", b.seq, a.seq))?;
        let replaced = events.iter().skip(index + 1).any(|event| event.check_in.is_some());
        expect(a.seq + 1 == b.seq || replaced, || {
            format!("job {id}: hook events {} to {} are lost", a.seq + 1, b.seq)
        })?;
    }
    Ok(())
}

/// Looks through all events of a job that wait or are kept, in their order.
pub fn check_events(job: &Job, entries: &[&OutboxEntry]) -> Vec<String> {
    // One that is sent again has left its place.
    let waiting = entries.iter().filter(|entry| entry.is_waiting() && entry.resent_at.is_none());
    let waiting: Vec<&HookEvent> = waiting.map(|entry| &entry.event).collect();
    [events_follow_job(job, &waiting), kept_events_are_of_the_past(job, entries)]
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

/// What is kept of a job's events is in order, bounded, and of this job.
fn kept_events_are_of_the_past(job: &Job, entries: &[&OutboxEntry]) -> Verdict {
    let id = &job.id;
    let kept = entries.iter().filter(|entry| !entry.is_waiting()).count();
    expect(kept <= limits::HOOK_EVENTS_KEPT, || format!("{kept} settled hook events of job {id} are kept"))?;
    let ordered = entries.is_sorted_by(|a, b| a.event.seq < b.event.seq);
    let last = entries.last().map_or(0, |entry| entry.event.seq);
    expect(ordered && last <= job.state.event_seq, || {
        format!("the hook events of job {id}, which had {}, are not in order up to {last}", job.state.event_seq)
    })
}

#[cfg(test)]
mod tests;
