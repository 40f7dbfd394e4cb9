//! Each predicate finds what it is for: records are broken one field at a time.

use std::time::Duration;

use super::*;
use crate::job::{Ended, EndedHow, Retention, SignalState, Spec};
use crate::lifecycle::{Event, Outcome, decide};
use crate::unique::Unique;
use crate::{Name, PoolId, Time};

const NOW: Time = Time::from_seconds(1_767_614_400);

fn pending() -> Job {
    let spec = Spec {
        name: Name::new("copy").unwrap(),
        kind: Kind::Generic,
        parameters: "{}".into(),
        priority: 0,
        unique: Some(Unique { digest: [1; 32], scope: Scope::UntilFinal }),
        max_fails: 2,
        timeout: None,
        hook: Some("http://hook".into()),
        upstream: None,
        tags: Vec::new(),
        retention: Retention::default(),
        enqueued_at: NOW,
    };
    Job::submitted(JobId::new("job-000001").unwrap(), spec, None, NOW)
}

fn after(job: &Job, event: &Event) -> Job {
    Job { state: decide(job, event, NOW).unwrap().state.unwrap(), ..job.clone() }
}

fn running() -> Job {
    let pool = PoolId::new("pool/1").unwrap();
    let until = NOW + limits::LEASE;
    after(&pending(), &Event::Claim { pool, nonce: 7, until, grace: limits::GRACE })
}

fn dead() -> Job {
    let job = running();
    let outcome = Outcome::Failed { error: "broken".into(), retryable: false, retry_after: None, jitter: 0 };
    after(&job, &Event::Finish { lease: job.lease_key().unwrap(), outcome })
}

/// The predicates that find something.
fn found(job: &Job) -> Vec<&'static str> {
    OF_A_JOB.into_iter().filter(|(_, holds)| holds(job).is_err()).map(|(name, _)| name).collect()
}

fn broken(mut job: Job, damage: impl FnOnce(&mut State)) -> Vec<&'static str> {
    damage(&mut job.state);
    found(&job)
}

#[test]
fn sound_records_pass() {
    for job in [pending(), running(), dead(), after(&dead(), &Event::Retry)] {
        assert_eq!(check(&job), Vec::<String>::new());
    }
}

#[test]
fn each_damage_is_found_by_the_predicate_that_is_named_after_it() {
    let signal = SignalState { signal: Signal::Stop, until: NOW };
    let ended = Ended { attempt: 9, nonce: 1, how: EndedHow::Reaped, status: Status::Pending, at: NOW };

    assert_eq!(broken(running(), |state| state.lease = None), ["lease_iff_running"]);
    assert_eq!(broken(pending(), |state| state.finished_at = Some(NOW)), ["finish_time_iff_final"]);
    assert_eq!(broken(dead(), |state| state.expires_at = None), ["expiry_iff_final"]);
    assert_eq!(broken(pending(), |state| state.die_at = Some(NOW)), ["death_time_iff_dead"]);
    assert_eq!(broken(pending(), |state| state.signal = Some(signal)), ["signal_only_while_running"]);
    assert_eq!(broken(dead(), |state| state.holds_key = true), ["key_held_iff_within_scope"]);
    assert_eq!(broken(running(), |state| state.holds_key = false), ["key_held_iff_within_scope"]);
    assert_eq!(broken(pending(), |state| state.status = Status::Scheduled), ["due_time_if_scheduled"]);
    assert_eq!(broken(running(), |state| state.started_at = None), ["start_time_iff_claimed"]);
    assert_eq!(broken(dead(), |state| state.ended = Some(ended)), ["ended_tells_of_the_last_lease"]);
    assert_eq!(broken(dead(), |state| state.attempts.clear()), ["attempts_are_the_last_ones"]);
    assert_eq!(broken(dead(), |state| state.error = None), ["error_fits_status"]);
    assert!(broken(pending(), |state| state.fails = 2).contains(&"fails_leave_a_try"));
    assert!(broken(pending(), |state| state.crashes = 3).contains(&"crashes_leave_a_try"));
    assert_eq!(broken(pending(), |state| state.releases = 1), ["counters_come_from_attempts"]);
    assert_eq!(broken(pending(), |state| state.event_seq = 1), ["counters_come_from_attempts"]);
}

#[test]
fn spec_out_of_bounds_is_found() {
    let mut job = pending();
    let spec = Spec { priority: 10, ..(*job.spec).clone() };
    job.spec = spec.into();

    assert_eq!(found(&job), ["spec_is_within_limits"]);
    assert_eq!(check(&job), ["job job-000001 (pending), spec_is_within_limits: priority 10"]);
}

#[test]
fn change_that_goes_back_is_found() {
    let (before, job) = (pending(), running());
    assert_eq!(transition(&before, &job), Vec::<String>::new());
    let damaged = |damage: fn(&mut State)| {
        let mut after = job.clone();
        damage(&mut after.state);
        transition(&before, &after).len()
    };

    assert_eq!(damaged(|state| state.version = 1), 1);
    assert_eq!(damaged(|state| state.attempt = 2), 1);
    assert_eq!(damaged(|state| state.event_seq = 3), 1);
    assert_eq!(transition(&dead(), &pending()).len(), 3, "version, attempt, event_seq fall");
    let mut shorter = job.clone();
    shorter.state.lease.as_mut().unwrap().until = NOW;
    assert_eq!(transition(&job, &shorter), ["job job-000001, running to running: a lease got shorter"]);
}

#[test]
fn events_of_a_job_are_its_last_ones() {
    let event = |seq: u32, check_in: bool| HookEvent {
        seq,
        status: Status::Running,
        attempt: 1,
        at: NOW + Duration::from_secs(u64::from(seq)),
        check_in: check_in.then(|| "50%".into()),
        error: None,
    };
    let mut job = running();
    job.state.event_seq = 4;
    let holds = |events: &[HookEvent]| events_follow_job(&job, &events.iter().collect::<Vec<_>>()).is_ok();

    assert!(holds(&[]) && holds(&[event(4, false)]) && holds(&[event(3, false), event(4, false)]));
    assert!(holds(&[event(1, false), event(4, true)]), "two check-ins were replaced");
    assert!(!holds(&[event(3, false)]), "the last one is missing");
    assert!(!holds(&[event(2, false), event(4, false)]), "the third is lost");
    assert!(!holds(&[event(4, false), event(4, false)]));
}

#[test]
fn key_with_two_holders_is_found() {
    let (one, mut two) = (pending(), running());
    assert_eq!(unique_keys_have_one_holder([&one, &dead()].into_iter()), Vec::<String>::new());

    two.id = JobId::new("job-000002").unwrap();

    let wrong = unique_keys_have_one_holder([&one, &two].into_iter());
    assert_eq!(wrong, ["jobs job-000001 and job-000002 hold the same unique key"]);
}
