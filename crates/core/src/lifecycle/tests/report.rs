//! What runs report: outcomes, releases, check-ins, extends.

use super::*;

#[test]
fn job_that_succeeds_keeps_its_result_and_drops_its_error() {
    let mut life = Life::running(spec());
    life.finish(failed("disk full"));
    life.due();
    life.claim();
    life.pass(secs(5));

    life.finish(Outcome::Ok { result: Some("42".into()) });

    let state = &life.job.state;
    assert_eq!((state.status, state.result.as_deref(), &state.error), (Status::Success, Some("42"), &None));
    assert_eq!((state.finished_at, state.die_at), (Some(life.now), None));
    assert_eq!(state.expires_at, Some(life.now + secs(3 * 24 * 3600)));
    assert_eq!(state.lease, None);
    let last = state.attempts.last().unwrap();
    assert_eq!((last.attempt, last.outcome, last.ended_at), (2, AttemptOutcome::Success, life.now));
    assert_eq!(last.started_at, life.now - secs(5));
}

#[test]
fn failed_job_waits_for_its_backoff_and_then_stands_where_it_became_due() {
    let mut life = Life::running(spec());
    life.pass(secs(3));

    let change = life.finish(failed("disk full"));

    let state = &life.job.state;
    assert_eq!((state.status, state.fails, state.error.as_deref()), (Status::Scheduled, 1, Some("disk full")));
    assert_eq!(state.run_at, Some(life.now + secs(16)));
    assert_eq!(change.enter, Some(Index::Due { run_at: life.now + secs(16) }));
    assert!(life.job.is_retrying());
    assert_eq!(life.last(), (AttemptOutcome::Failed, Some("disk full")));

    let due_at = life.now + secs(16);
    life.pass(secs(100));
    life.due();
    assert_eq!((life.status(), life.job.state.ready_at), (Status::Pending, due_at));
    assert_eq!(life.job.state.run_at, Some(due_at));
}

#[test]
fn backoff_is_fails_to_the_fourth_plus_15_plus_jitter_times_fails_plus_one() {
    let mut life = Life::begin(Spec { max_fails: 100, ..spec() });
    for fails in 1..100_u64 {
        life.claim();
        let lease = life.lease();
        for jitter in 0..60 {
            let outcome = Outcome::Failed { error: "no".into(), retryable: true, retry_after: None, jitter };
            let change = decide(&life.job, &Event::Finish { lease: lease.clone(), outcome }, life.now).unwrap();
            let wait = fails.pow(4) + 15 + u64::from(jitter % 30) * (fails + 1);
            assert_eq!(change.state.unwrap().run_at, Some(life.now + secs(wait)), "{fails} fails, jitter {jitter}");
        }
        life.finish(failed("no"));
        life.due();
    }
    life.claim();
    life.finish(failed("no"));
    assert_eq!((life.status(), life.job.state.fails), (Status::Error, 100));
}

#[test]
fn job_with_a_backoff_of_its_own_waits_that_long() {
    let mut life = Life::running(spec());

    life.finish(Outcome::Failed { error: "no".into(), retryable: true, retry_after: Some(secs(7)), jitter: 29 });

    assert_eq!(life.job.state.run_at, Some(life.now + secs(7)));
}

#[test]
fn as_many_runs_fail_as_max_fails_says_then_the_job_is_dead() {
    for max_fails in [1, 2, 4] {
        let mut life = Life::begin(Spec { max_fails, ..spec() });
        for _ in 1..max_fails {
            life.claim();
            life.finish(failed("no"));
            assert_eq!(life.status(), Status::Scheduled);
            life.due();
        }
        life.claim();

        let change = life.finish(failed("at last"));

        let state = &life.job.state;
        assert_eq!((state.status, state.fails, state.attempt), (Status::Error, max_fails, max_fails));
        assert_eq!((state.die_at, state.finished_at), (Some(life.now), Some(life.now)));
        assert_eq!(state.expires_at, Some(life.now + secs(30 * 24 * 3600)));
        assert_eq!(change.event.unwrap().error.as_deref(), Some("at last"));
    }
}

#[test]
fn failure_that_is_not_retryable_is_the_last() {
    let mut life = Life::running(spec());

    life.finish(permanent("no such image"));

    let state = &life.job.state;
    assert_eq!((state.status, state.fails, state.error.as_deref()), (Status::Error, 1, Some("no such image")));
}

#[test]
fn snooze_counts_nothing() {
    let mut life = Life::running(spec());
    life.finish(failed("once"));
    life.due();
    life.claim();
    let until = life.now + secs(3600);

    life.finish(Outcome::Snooze { until });

    let state = &life.job.state;
    assert_eq!((state.status, state.run_at), (Status::Scheduled, Some(until)));
    assert_eq!((state.fails, state.crashes, state.releases), (1, 0, 0));
    assert_eq!(life.last(), (AttemptOutcome::Snoozed, None));
}

#[test]
fn job_may_stop_or_cancel_itself() {
    for (outcome, status) in [(Outcome::Stopped, Status::Stopped), (Outcome::Cancelled, Status::Cancelled)] {
        let mut life = Life::running(spec());

        life.finish(outcome);

        assert_eq!(life.status(), status);
        assert_eq!(life.job.state.expires_at, Some(life.now + secs(7 * 24 * 3600)));
        assert_eq!(life.job.state.fails, 0);
    }
}

#[test]
fn late_report_of_a_reaped_run_is_lost_whatever_it_says() {
    let mut life = Life::running(spec());
    let lost = life.lease();
    life.crash();

    for event in reports(&lost, life.now) {
        assert_eq!(life.refuse(event), Refusal::LeaseLost);
    }
    life.claim();
    for event in reports(&lost, life.now) {
        assert_eq!(life.refuse(event), Refusal::LeaseLost);
    }
    life.finish(ok());
    for event in reports(&lost, life.now) {
        assert_eq!(life.refuse(event), Refusal::LeaseLost);
    }
}

#[test]
fn report_needs_attempt_and_nonce() {
    let mut life = Life::running(spec());
    let lease = life.lease();

    let other_nonce = LeaseKey { nonce: lease.nonce + 1, ..lease.clone() };
    let other_attempt = LeaseKey { attempt: lease.attempt + 1, ..lease };

    for event in reports(&other_nonce, life.now).into_iter().chain(reports(&other_attempt, life.now)) {
        assert_eq!(life.refuse(event), Refusal::LeaseLost);
    }
}

#[test]
fn lease_past_its_end_is_good_until_somebody_reaps_it() {
    for report in 0..9 {
        let mut life = Life::running(spec());
        life.pass(LEASE * 100);
        let event = reports(&life.lease(), life.now).swap_remove(report);
        life.step(event);
    }
}

#[test]
fn repeated_finish_gets_the_answer_of_the_first_for_as_long_as_it_is_the_last() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    let again = |outcome| Event::Finish { lease: lease.clone(), outcome };
    life.finish(failed("no"));

    assert_eq!(life.refuse(again(failed("no"))), Refusal::Repeated(Status::Scheduled));
    assert_eq!(life.refuse(again(ok())), Refusal::Repeated(Status::Scheduled), "the first report counts");
    life.due();
    assert_eq!(life.refuse(again(failed("no"))), Refusal::Repeated(Status::Scheduled));
    life.claim();
    assert_eq!(life.refuse(again(failed("no"))), Refusal::Repeated(Status::Scheduled));
    life.finish(ok());
    assert_eq!(life.refuse(again(failed("no"))), Refusal::LeaseLost, "a later run has ended");
    assert_eq!(life.job.state.fails, 1, "nothing is counted twice");
}

#[test]
fn repeated_release_gets_the_answer_of_the_first_and_a_finish_after_it_is_lost() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    life.release();

    let again = Event::Release { lease: lease.clone(), jitter: 0 };
    assert_eq!(life.refuse(again.clone()), Refusal::Repeated(Status::Pending));
    assert_eq!(life.refuse(Event::Finish { lease, outcome: ok() }), Refusal::LeaseLost);
    life.claim();
    assert_eq!(life.refuse(again), Refusal::Repeated(Status::Pending));
    assert_eq!(life.job.state.releases, 1);
}

#[test]
fn repeated_finish_of_a_final_job_is_known_even_after_a_retry_by_hand() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    life.finish(permanent("no"));
    life.step(Event::Retry);

    let again = Event::Finish { lease, outcome: permanent("no") };
    assert_eq!(life.refuse(again), Refusal::Repeated(Status::Error));
    assert_eq!(life.status(), Status::Pending);
}

#[test]
fn released_job_goes_back_to_its_place_in_the_queue() {
    let mut life = Life::begin(spec());
    let place = life.job.index();
    life.pass(secs(60)).claim();
    life.pass(secs(60));

    let change = life.release();

    assert_eq!(change.enter, Some(place));
    let state = &life.job.state;
    assert_eq!((state.releases, state.fails, state.crashes), (1, 0, 0));
    assert_eq!(life.last(), (AttemptOutcome::Released, None));
}

#[test]
fn release_past_the_tenth_counts_as_a_failure() {
    let mut life = Life::begin(Spec { max_fails: 2, ..spec() });
    for releases in 1..=10 {
        life.claim();
        life.release();
        assert_eq!((life.status(), life.job.state.releases), (Status::Pending, releases));
    }
    life.claim();

    life.release();

    let state = &life.job.state;
    assert_eq!((state.status, state.releases, state.fails), (Status::Scheduled, 11, 1));
    assert_eq!(state.run_at, Some(life.now + secs(16)));
    assert_eq!(state.error.as_deref(), Some("given back at shutdown 11 times"));
    assert_eq!(life.last().0, AttemptOutcome::Released);

    life.due();
    life.claim();
    let change = life.release();
    assert_eq!((life.status(), life.job.state.releases), (Status::Error, 12));
    assert_eq!(change.state.unwrap(), life.job.state);
}

#[test]
fn check_in_is_noted_and_reported_and_kept_for_the_next_attempt() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    life.pass(secs(2));

    let change = life.step(Event::CheckIn { lease, message: "50%".into() });

    assert_eq!((change.leave, change.enter), (None, None));
    let event = change.event.unwrap();
    assert_eq!((event.seq, event.status, event.attempt), (2, Status::Running, 1));
    assert_eq!((event.check_in.as_deref(), event.at, event.error), (Some("50%"), life.now, None));
    let check_in = life.job.state.check_in.clone().unwrap();
    assert_eq!((&*check_in.message, check_in.at), ("50%", life.now));

    life.crash();
    life.claim();
    assert_eq!(life.job.state.check_in, Some(check_in));
}

#[test]
fn check_in_of_a_job_without_hook_sends_nothing() {
    let mut life = Life::running(Spec { hook: None, ..spec() });
    let lease = life.lease();

    let change = life.step(Event::CheckIn { lease, message: "50%".into() });

    assert_eq!((change.event, life.job.state.event_seq), (None, 0));
    assert!(life.job.state.check_in.is_some());
}

#[test]
fn what_a_job_says_is_cut_to_its_bound() {
    let long: Arc<str> = "x".repeat(limits::ERROR_BYTES_MAX * 2).into();
    let mut life = Life::running(spec());
    let lease = life.lease();

    let change = life.step(Event::CheckIn { lease, message: Arc::clone(&long) });
    assert!(change.event.unwrap().check_in.unwrap().len() <= limits::CHECK_IN_BYTES_MAX);
    assert!(life.job.state.check_in.as_ref().unwrap().message.len() <= limits::CHECK_IN_BYTES_MAX);

    let change = life.finish(failed(&long));
    assert!(change.event.unwrap().error.unwrap().len() <= limits::ERROR_BYTES_MAX);
    assert!(life.job.state.error.as_ref().unwrap().len() <= limits::ERROR_BYTES_MAX);
    assert!(life.last().1.unwrap().len() <= limits::ERROR_BYTES_MAX);

    life.due();
    life.claim();
    life.step(Event::Stop { grace: GRACE });
    life.finish(failed(&long));
    assert!(life.last().1.unwrap().len() <= limits::ERROR_BYTES_MAX);
}

#[test]
fn extend_makes_the_lease_longer_and_touches_nothing_else() {
    let mut life = Life::running(spec());
    let before = life.job.clone();
    let until = life.now + LEASE * 2;
    life.pass(secs(3));

    let change = life.step(Event::Extend { lease: life.lease(), until });

    let mut expected = before.state.clone();
    expected.lease.as_mut().unwrap().until = until;
    assert_eq!(change.state.as_ref(), Some(&expected), "the version and the time of change stay");
    assert_eq!(change.leave, Some(Index::Running { reap_at: start() + LEASE }));
    assert_eq!(change.enter, Some(Index::Running { reap_at: until }));
    assert_eq!(change.event, None);
}

#[test]
fn extend_never_shortens() {
    let mut life = Life::running(spec());
    let until = life.now + LEASE;

    for until in [until, until - secs(1), life.now] {
        let lease = life.lease();
        assert_eq!(life.refuse(Event::Extend { lease, until }), Refusal::Unchanged);
    }
    assert_eq!(life.job.state.lease.as_ref().unwrap().until, until);
}

#[test]
fn extend_moves_no_job_whose_signal_or_timeout_comes_first() {
    let mut life = Life::running(spec());
    life.step(Event::Stop { grace: secs(1) });

    let change = life.step(Event::Extend { lease: life.lease(), until: life.now + LEASE * 2 });

    assert_eq!((change.leave, change.enter), (None, None));
}

#[test]
fn log_lines_are_accepted_under_the_lease_and_for_a_while_after_its_own_end() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    assert!(accepts_log(&life.job, &lease, life.now + LEASE * 9));
    assert!(!accepts_log(&life.job, &LeaseKey { nonce: 1, ..lease.clone() }, life.now));

    life.finish(failed("no"));
    let ended = life.now;
    assert!(accepts_log(&life.job, &lease, ended + secs(59)));
    assert!(!accepts_log(&life.job, &lease, ended + secs(60)));
    assert!(!accepts_log(&life.job, &LeaseKey { nonce: 1, ..lease.clone() }, ended));

    life.due();
    assert!(accepts_log(&life.job, &lease, ended));
    life.claim();
    assert!(!accepts_log(&life.job, &lease, ended), "a newer attempt exists");
}

#[test]
fn log_lines_of_a_run_that_was_taken_away_are_refused() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    life.crash();
    assert!(!accepts_log(&life.job, &lease, life.now));

    let mut life = Life::running(spec());
    let lease = life.lease();
    life.step(Event::Stop { grace: GRACE });
    life.pass(GRACE).step(Event::GraceExpired);
    assert!(!accepts_log(&life.job, &lease, life.now));
}

#[test]
fn record_remembers_the_last_ten_attempts() {
    let mut life = Life::begin(spec());
    for _ in 0..15 {
        life.claim();
        life.finish(Outcome::Snooze { until: life.now });
        life.due();
    }

    let numbers: Vec<u32> = life.job.state.attempts.iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(numbers, (6..=15).collect::<Vec<u32>>());
}
