//! What people ask for: stop, cancel, retry, delete; and what hooks are told.

use super::*;

#[test]
fn waiting_job_is_stopped_and_cancelled_at_once() {
    for mut life in [Life::begin(spec()), Life::delayed(spec(), secs(60))] {
        let before = life.job.index();
        let mut other = life.clone();

        let change = life.step(Event::Stop { grace: GRACE });
        assert_eq!((life.status(), life.job.state.finished_at), (Status::Stopped, Some(life.now)));
        assert_eq!((change.leave, change.enter), (Some(before), Some(life.job.index())));

        other.step(Event::Cancel { grace: GRACE });
        assert_eq!(other.status(), Status::Cancelled);
        assert_eq!(other.job.state.die_at, None);
    }
}

#[test]
fn signal_to_a_running_job_raises_the_version_and_leaves_the_lease() {
    let mut life = Life::running(spec());
    let (lease, version) = (life.lease(), life.job.state.version);

    let change = life.step(Event::Stop { grace: GRACE });

    assert_eq!(life.job.state.signal, Some(SignalState { signal: Signal::Stop, until: life.now + GRACE }));
    assert_eq!((life.status(), life.job.state.version), (Status::Running, version + 1));
    assert_eq!(change.event, None, "no status changed");
    assert_eq!(life.lease(), lease);
    life.step(Event::CheckIn { lease: lease.clone(), message: "still here".into() });
    life.step(Event::Extend { lease, until: life.now + LEASE * 2 });
}

#[test]
fn stop_overrules_a_cancel_within_the_same_grace_and_never_the_other_way() {
    let mut life = Life::running(spec());
    life.step(Event::Cancel { grace: GRACE });
    let until = life.now + GRACE;
    life.pass(secs(10));

    assert_eq!(life.refuse(Event::Cancel { grace: GRACE }), Refusal::Unchanged);
    life.step(Event::Stop { grace: GRACE });
    assert_eq!(life.job.state.signal, Some(SignalState { signal: Signal::Stop, until }));
    assert_eq!(life.refuse(Event::Cancel { grace: GRACE }), Refusal::Unchanged);
    assert_eq!(life.refuse(Event::Stop { grace: GRACE }), Refusal::Unchanged);
    assert_eq!(life.job.state.signal, Some(SignalState { signal: Signal::Stop, until }));
}

#[test]
fn signalled_run_that_succeeds_all_the_same_is_a_success() {
    for event in [Event::Stop { grace: GRACE }, Event::Cancel { grace: GRACE }] {
        let mut life = Life::running(spec());
        life.step(event);

        life.finish(ok());

        assert_eq!((life.status(), life.job.state.signal), (Status::Success, None));
    }
}

#[test]
fn signalled_run_that_fails_snoozes_or_is_released_ends_as_it_was_asked_to() {
    let signals = [
        (Event::Stop { grace: GRACE }, Status::Stopped, AttemptOutcome::Stopped),
        (Event::Cancel { grace: GRACE }, Status::Cancelled, AttemptOutcome::Cancelled),
    ];
    for (signal, status, outcome) in signals {
        for (report, error) in [(1, Some("no")), (2, Some("no")), (5, None), (6, None)] {
            let mut life = Life::running(spec());
            life.step(signal.clone());
            let event = reports(&life.lease(), life.now + secs(60)).swap_remove(report);

            life.step(event);

            let state = &life.job.state;
            assert_eq!((state.status, state.signal, state.finished_at), (status, None, Some(life.now)));
            assert_eq!((state.fails, state.releases), (0, 0), "nothing is counted");
            assert_eq!(life.last(), (outcome, error));
        }
    }
}

#[test]
fn run_that_says_how_it_ended_is_believed() {
    let mut life = Life::running(spec());
    life.step(Event::Cancel { grace: GRACE });
    life.finish(Outcome::Stopped);
    assert_eq!(life.status(), Status::Stopped);

    let mut life = Life::running(spec());
    life.step(Event::Stop { grace: GRACE });
    life.finish(Outcome::Cancelled);
    assert_eq!(life.status(), Status::Cancelled);
}

#[test]
fn retry_by_hand_begins_anew_but_forgets_no_attempt() {
    let mut life = Life::running(spec());
    let lease = life.lease();
    life.step(Event::CheckIn { lease, message: "half".into() });
    life.crash();
    life.claim();
    life.release();
    life.claim();
    life.finish(permanent("no"));
    let before = life.job.state.clone();
    life.pass(secs(99));

    let change = life.step(Event::Retry);

    let state = &life.job.state;
    assert_eq!((state.status, state.ready_at), (Status::Pending, life.now));
    assert_eq!((state.fails, state.crashes, state.releases), (0, 0, 0));
    assert_eq!((state.die_at, state.finished_at, state.expires_at, state.signal), (None, None, None, None));
    assert_eq!((state.attempt, &state.attempts, &state.check_in), (3, &before.attempts, &before.check_in));
    assert_eq!((state.event_seq, state.version), (before.event_seq + 1, before.version + 1));
    assert_eq!(change.leave, Some(Index::Final { expires_at: before.expires_at.unwrap() }));
    assert_eq!(change.enter, Some(Index::Ready { priority: 3, ready_at: life.now, suspect: false }));
    life.claim();
    assert_eq!(life.job.state.attempt, 4);
}

#[test]
fn cancelled_job_may_be_retried_and_a_stopped_or_successful_one_may_not() {
    let mut life = Life::begin(spec());
    life.step(Event::Cancel { grace: GRACE });
    life.step(Event::Retry);
    assert_eq!(life.status(), Status::Pending);

    life.step(Event::Stop { grace: GRACE });
    assert_eq!(life.refuse(Event::Retry), Refusal::Illegal { status: Status::Stopped, action: "retried" });

    let mut life = Life::running(spec());
    life.finish(ok());
    assert_eq!(life.refuse(Event::Retry), Refusal::Illegal { status: Status::Success, action: "retried" });
}

#[test]
fn key_until_final_is_held_through_failures_crashes_and_releases() {
    let mut life = Life::begin(Spec { unique: Some(unique(Scope::UntilFinal)), ..spec() });
    assert!(life.job.state.holds_key);
    for _ in 0..2 {
        life.claim();
        life.crash();
        assert!(life.job.state.holds_key);
        if life.status() == Status::Scheduled {
            life.due();
        }
    }
    life.claim();
    life.release();
    life.claim();
    life.finish(failed("no"));
    assert!(life.job.state.holds_key);
    life.due();
    life.claim();
    life.step(Event::Stop { grace: GRACE });
    assert!(life.job.state.holds_key);
    life.finish(ok());
    assert!(!life.job.state.holds_key);
}

#[test]
fn every_way_to_end_frees_the_key() {
    let unique = Spec { unique: Some(unique(Scope::UntilFinal)), timeout: Some(secs(1)), max_fails: 1, ..spec() };
    for event in [Event::Stop { grace: GRACE }, Event::Cancel { grace: GRACE }] {
        let mut life = Life::begin(unique.clone());
        life.step(event);
        assert!(!life.job.state.holds_key);
    }
    for outcome in [ok(), failed("no"), permanent("no"), Outcome::Stopped, Outcome::Cancelled] {
        let mut life = Life::running(unique.clone());
        life.finish(outcome);
        assert!(!life.job.state.holds_key);
    }
    for event in [Event::GraceExpired, Event::TimedOut { jitter: 0 }, Event::LeaseExpired { proven: false }] {
        let mut life = Life::running(unique.clone());
        life.step(Event::Cancel { grace: GRACE });
        life.pass(GRACE + secs(1)).step(event);
        assert!(!life.job.state.holds_key);
    }
}

#[test]
fn key_until_start_is_free_from_the_claim_on() {
    let mut life = Life::begin(Spec { unique: Some(unique(Scope::UntilStart)), ..spec() });
    assert!(life.job.state.holds_key);

    life.claim();
    assert!(!life.job.state.holds_key);
    life.finish(failed("no"));
    assert!(!life.job.state.holds_key, "another may have it by now");
    life.due();
    assert!(!life.job.state.holds_key);
    life.claim();
    life.crash();
    assert!(!life.job.state.holds_key);
}

#[test]
fn retry_by_hand_takes_the_key_again_or_not_at_all() {
    for scope in [Scope::UntilFinal, Scope::UntilStart] {
        let mut life = Life::running(Spec { unique: Some(unique(scope)), ..spec() });
        life.finish(permanent("no"));

        let change = life.step(Event::Retry);

        assert!(change.takes_key && life.job.state.holds_key);
    }
    let mut life = Life::running(spec());
    life.finish(permanent("no"));
    let change = life.step(Event::Retry);
    assert!(!change.takes_key && !life.job.state.holds_key);
}

#[test]
fn no_other_change_takes_a_key() {
    for cell in crate::lifecycle::table::cells() {
        for example in cell.examples {
            let takes_key = example.answer.is_ok_and(|change| change.takes_key);
            let retried = matches!(cell.status, Status::Error | Status::Cancelled) && example.event == Event::Retry;
            assert_eq!(takes_key, retried, "{:?} of a {} job", cell.kind, cell.status);
        }
    }
}

#[test]
fn hook_hears_each_status_change_once_and_in_order() {
    let mut life = Life::delayed(spec(), secs(60));
    let mut heard = Vec::new();
    let mut hear = |change: Change| heard.extend(change.event.map(|event| (event.seq, event.status, event.attempt)));
    hear(life.due());
    hear(life.step(claim_event(1, life.now + LEASE)));
    hear(life.step(Event::CheckIn { lease: life.lease(), message: "1".into() }));
    hear(life.step(Event::Extend { lease: life.lease(), until: life.now + LEASE * 2 }));
    hear(life.finish(failed("no")));
    hear(life.due());
    hear(life.step(claim_event(2, life.now + LEASE)));
    hear(life.crash());
    hear(life.step(claim_event(3, life.now + LEASE)));
    hear(life.step(Event::Stop { grace: GRACE }));
    hear(life.finish(Outcome::Stopped));

    assert_eq!(
        heard,
        [
            (1, Status::Pending, 0),
            (2, Status::Running, 1),
            (3, Status::Running, 1), // the check-in
            (4, Status::Scheduled, 1),
            (5, Status::Pending, 1),
            (6, Status::Running, 2),
            (7, Status::Pending, 2),
            (8, Status::Running, 3),
            (9, Status::Stopped, 3),
        ]
    );
    assert_eq!(life.job.state.event_seq, 9);
}

#[test]
fn job_without_hook_has_no_events() {
    let mut life = Life::begin(Spec { hook: None, ..spec() });
    life.claim();
    let change = life.finish(failed("no"));
    assert_eq!((change.event, life.job.state.event_seq), (None, 0));
}

#[test]
fn final_job_is_deleted_at_any_time_and_pruned_from_its_expiry_on() {
    let retention = Retention { success_seconds: 10, stopped_seconds: 20, error_seconds: 30 };
    let ends = [(ok(), 10), (permanent("no"), 30), (Outcome::Stopped, 20), (Outcome::Cancelled, 20)];
    for (outcome, kept) in ends {
        let mut life = Life::running(Spec { retention, ..spec() });
        life.finish(outcome);
        let place = life.job.index();
        let gone = Change { state: None, leave: Some(place), enter: None, event: None, takes_key: false };

        assert_eq!(decide(&life.job, &Event::Delete, life.now), Ok(gone.clone()));
        let expires_at = life.now + secs(kept);
        assert_eq!(decide(&life.job, &Event::Prune, expires_at - secs(1)), Err(Refusal::NotYet(expires_at)));
        assert_eq!(decide(&life.job, &Event::Prune, expires_at), Ok(gone));
    }
}

#[test]
fn job_that_is_not_final_is_neither_deleted_nor_pruned() {
    for mut life in [Life::begin(spec()), Life::delayed(spec(), secs(9)), Life::running(spec())] {
        let status = life.status();
        assert_eq!(life.refuse(Event::Delete), Refusal::Illegal { status, action: "deleted" });
        assert_eq!(life.refuse(Event::Prune), Refusal::Illegal { status, action: "pruned" });
    }
}
