//! What the service itself does to jobs: due, claim, timeouts, grace, lost workers.

use super::*;

#[test]
fn job_with_a_delay_waits_and_one_without_is_ready() {
    let life = Life::delayed(spec(), secs(60));
    assert_eq!(life.job.index(), Index::Due { run_at: start() + secs(60) });

    let life = Life::delayed(spec(), Duration::ZERO);
    assert_eq!(life.job.index(), Index::Ready { priority: 3, ready_at: start(), suspect: false });
    assert_eq!((life.job.state.version, life.job.state.event_seq), (1, 0));
}

#[test]
fn job_is_not_due_before_its_time_and_late_sweeps_do_not_cost_it_its_place() {
    let mut life = Life::delayed(spec(), secs(60));
    let run_at = start() + secs(60);

    life.now = run_at - Duration::from_millis(1);
    assert_eq!(life.refuse(Event::Due), Refusal::NotYet(run_at));

    life.now = run_at + secs(500);
    let change = life.step(Event::Due);
    assert_eq!(change.enter, Some(Index::Ready { priority: 3, ready_at: run_at, suspect: false }));
    assert_eq!(life.job.state.updated_at, life.now);
}

#[test]
fn claim_gives_a_lease_and_counts_the_attempt() {
    let mut life = Life::begin(Spec { timeout: Some(secs(60)), ..spec() });
    life.pass(secs(5));

    let change = life.step(claim_event(77, life.now + LEASE));

    let state = &life.job.state;
    assert_eq!((state.status, state.attempt, state.started_at), (Status::Running, 1, Some(life.now)));
    let lease = state.lease.clone().unwrap();
    assert_eq!((lease.nonce, lease.until), (77, life.now + LEASE));
    assert_eq!(lease.abort_at, Some(life.now + secs(60) + GRACE), "timeout, and the grace to obey it");
    assert_eq!(change.leave, Some(Index::Ready { priority: 3, ready_at: start(), suspect: false }));
    assert_eq!(change.enter, Some(Index::Running { reap_at: life.now + LEASE }));
}

#[test]
fn lost_worker_counts_a_crash_not_a_failure_and_the_third_is_the_last() {
    let mut life = Life::begin(spec());
    let place = life.job.state.ready_at;
    life.pass(secs(5)).claim();

    let change = life.crash();
    let state = &life.job.state;
    assert_eq!((state.status, state.crashes, state.fails), (Status::Pending, 1, 0));
    assert_eq!(change.enter, Some(Index::Ready { priority: 3, ready_at: place, suspect: true }));
    assert_eq!(change.event.unwrap().error.as_deref(), Some("worker lost"));
    assert_eq!(life.last(), (AttemptOutcome::WorkerLost, Some("worker lost")));

    life.claim();
    life.crash();
    let state = &life.job.state;
    assert_eq!((state.status, state.crashes, state.run_at), (Status::Scheduled, 2, Some(life.now + secs(10))));

    life.due();
    life.claim();
    let change = life.crash();
    let state = &life.job.state;
    assert_eq!((state.status, state.crashes, state.fails), (Status::Error, 3, 0));
    assert_eq!((state.error.as_deref(), state.die_at), (Some("worker lost 3 times"), Some(life.now)));
    assert_eq!(change.event.unwrap().error.as_deref(), Some("worker lost 3 times"));
}

#[test]
fn success_after_a_crash_leaves_no_error() {
    let mut life = Life::running(spec());
    life.crash();
    assert_eq!(life.job.state.error.as_deref(), Some("worker lost"));
    life.claim();
    life.finish(ok());
    assert_eq!(life.job.state.error, None);
}

#[test]
fn lease_is_reaped_from_its_end_on_unless_the_worker_is_known_to_be_dead() {
    let mut life = Life::running(spec());
    let until = life.now + LEASE;

    assert_eq!(life.refuse(Event::LeaseExpired { proven: false }), Refusal::NotYet(until));
    life.now = until - Duration::from_millis(1);
    assert_eq!(life.refuse(Event::LeaseExpired { proven: false }), Refusal::NotYet(until));
    let mut proven = life.clone();
    proven.step(Event::LeaseExpired { proven: true });
    assert_eq!(proven.job.state.crashes, 1);
    life.now = until;
    life.step(Event::LeaseExpired { proven: false });
    assert_eq!(life.job.state.ended.as_ref().unwrap().how, EndedHow::Reaped);
}

#[test]
fn extended_lease_is_not_reaped() {
    let mut life = Life::running(spec());
    let until = life.now + LEASE * 2;
    life.step(Event::Extend { lease: life.lease(), until });
    life.pass(LEASE);

    assert_eq!(overdue(&life.job, 0, life.now), None);
    assert_eq!(life.refuse(Event::LeaseExpired { proven: false }), Refusal::NotYet(until));
}

#[test]
fn signalled_job_whose_worker_is_lost_has_ended_as_asked() {
    let mut life = Life::running(spec());
    life.step(Event::Cancel { grace: GRACE });

    life.crash();

    let state = &life.job.state;
    assert_eq!((state.status, state.crashes, state.signal), (Status::Cancelled, 0, None));
    assert_eq!(life.last(), (AttemptOutcome::Cancelled, Some("worker lost")));
}

#[test]
fn deaf_job_is_closed_when_its_grace_has_passed_and_its_report_is_lost() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    assert_eq!(life.refuse(Event::GraceExpired), Refusal::NotYet(Time::MAX), "nobody asked it");
    life.step(Event::Stop { grace: GRACE });
    let until = life.now + GRACE;
    life.now = until - Duration::from_millis(1);
    assert_eq!(life.refuse(Event::GraceExpired), Refusal::NotYet(until));
    life.now = until;

    life.step(Event::GraceExpired);

    assert_eq!((life.status(), life.last().0), (Status::Stopped, AttemptOutcome::Stopped));
    assert_eq!(life.job.state.ended.as_ref().unwrap().how, EndedHow::Aborted);
    for event in reports(&lease, life.now) {
        assert_eq!(life.refuse(event), Refusal::LeaseLost);
    }
}

#[test]
fn job_over_timeout_and_grace_has_failed_and_its_report_is_lost() {
    let mut life = Life::running(Spec { timeout: Some(secs(60)), max_fails: 2, ..spec() });
    let lease = life.lease();
    let abort_at = life.now + secs(60) + GRACE;
    life.step(Event::Extend { lease: lease.clone(), until: abort_at + LEASE });
    assert_eq!(life.job.index(), Index::Running { reap_at: abort_at }, "extending does not put it off");
    life.now = abort_at - Duration::from_millis(1);
    assert_eq!(life.refuse(Event::TimedOut { jitter: 1 }), Refusal::NotYet(abort_at));
    life.now = abort_at;

    life.step(Event::TimedOut { jitter: 1 });

    let state = &life.job.state;
    assert_eq!((state.status, state.fails), (Status::Scheduled, 1));
    assert_eq!(state.run_at, Some(life.now + secs(18)));
    assert_eq!(state.error.as_deref(), Some("timed out after 60 s"));
    assert_eq!(life.last(), (AttemptOutcome::TimedOut, Some("timed out after 60 s")));
    for event in reports(&lease, life.now) {
        assert_eq!(life.refuse(event), Refusal::LeaseLost);
    }

    life.due();
    life.claim();
    life.pass(secs(60) + GRACE).step(Event::TimedOut { jitter: 1 });
    assert_eq!((life.status(), life.job.state.fails), (Status::Error, 2));
}

#[test]
fn signalled_job_over_its_timeout_has_ended_as_asked() {
    let mut life = Life::running(Spec { timeout: Some(secs(60)), ..spec() });
    life.pass(secs(80)).step(Event::Stop { grace: GRACE });

    life.pass(secs(10)).step(Event::TimedOut { jitter: 0 });

    assert_eq!((life.status(), life.job.state.fails), (Status::Stopped, 0));
    assert_eq!(life.last(), (AttemptOutcome::Stopped, Some("timed out after 60 s")));
}

#[test]
fn job_without_timeout_never_times_out() {
    let mut life = Life::running(spec());
    life.pass(secs(1_000_000));
    assert_eq!(life.refuse(Event::TimedOut { jitter: 0 }), Refusal::NotYet(Time::MAX));
}

#[test]
fn overdue_names_what_is_due_grace_first() {
    let jitter = 5;
    let mut life = Life::begin(Spec { timeout: Some(secs(60)), ..spec() });
    assert_eq!(overdue(&life.job, jitter, life.now + secs(9999)), None, "only running jobs are overdue");
    life.claim();
    life.step(Event::Extend { lease: life.lease(), until: life.now + secs(200) });
    life.step(Event::Cancel { grace: secs(95) });

    let at = |seconds| overdue(&life.job, jitter, start() + secs(seconds));
    assert_eq!(at(89), None);
    assert_eq!(at(90), Some(Event::TimedOut { jitter }));
    assert_eq!(at(94), Some(Event::TimedOut { jitter }));
    assert_eq!(at(95), Some(Event::GraceExpired));
    assert_eq!(at(200), Some(Event::GraceExpired));

    let mut life = Life::running(spec());
    life.pass(LEASE);
    assert_eq!(overdue(&life.job, jitter, life.now), Some(Event::LeaseExpired { proven: false }));
}

#[test]
fn place_among_running_jobs_is_the_first_thing_that_can_become_overdue() {
    let mut life = Life::running(Spec { timeout: Some(secs(60)), ..spec() });
    let reap_at = |life: &Life| life.job.state.reap_at();
    assert_eq!(reap_at(&life), Some(start() + LEASE));
    life.step(Event::Extend { lease: life.lease(), until: start() + secs(500) });
    assert_eq!(reap_at(&life), Some(start() + secs(90)));
    life.step(Event::Stop { grace: secs(30) });
    assert_eq!(reap_at(&life), Some(start() + secs(30)));
    for millis in 0..=100 {
        let now = start() + secs(30) - Duration::from_millis(50) + Duration::from_millis(millis);
        assert_eq!(overdue(&life.job, 0, now).is_some(), now >= reap_at(&life).unwrap());
    }
}
