//! Runs end: `finish`. What is written, what is counted, and that a report counts once, whoever sends it how often.

use jobservice_core::job::{AttemptOutcome, EndedHow, LeaseKey, Signal, Status};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::limits::{
    ATTEMPTS_KEPT, CHECK_IN_BYTES_MAX, ERROR_BYTES_MAX, LEASE, PARAMETERS_BYTES_MAX, RESULT_BYTES_MAX,
};
use jobservice_core::retry;
use jobservice_core::store::{Finished, Report};

use crate::bench::{Bench, failed, fatal, lease, ok, pool_id, seconds};

super::cases! { $ finish:
    success_is_final_and_kept_for_its_retention,
    result_is_kept,
    failure_is_scheduled_after_the_backoff,
    backoff_of_the_code_beats_the_default,
    last_failure_is_the_end,
    failure_that_is_not_retryable_is_the_end,
    success_clears_the_error_and_keeps_the_count,
    snoozed_job_runs_later_and_nothing_is_counted,
    job_may_end_itself_as_stopped_or_cancelled,
    signalled_run_that_succeeds_is_a_success,
    signalled_run_that_does_not_succeed_ends_as_signalled,
    report_sent_again_gets_the_same_answer,
    report_sent_again_while_the_next_attempt_runs_gets_the_same_answer,
    report_older_than_the_last_run_is_lost,
    late_finish_after_reap_is_refused,
    finish_after_the_end_of_an_unreaped_lease_counts,
    finish_with_a_foreign_nonce_or_attempt_is_refused,
    finish_of_an_unknown_job_is_lost,
    finish_after_a_release_is_lost,
    reports_of_a_batch_are_answered_one_by_one_in_order,
    same_report_twice_in_a_batch_counts_once,
    two_different_reports_of_one_run_count_once,
    attempts_are_remembered_up_to_a_limit,
    longest_texts_are_kept_whole,
}

async fn success_is_final_and_kept_for_its_retention(t: &Bench) {
    let id = t.job("copy").retention(100).insert().await;
    let lease = t.run_one("copy").await;
    t.advance(seconds(2));

    assert_eq!(t.finish_ok(&lease).await, Finished::Applied(Status::Success));

    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.fails, state.lease), (Status::Success, 0, None));
    assert_eq!((state.finished_at, state.expires_at), (Some(t.now()), Some(t.now() + seconds(100))));
    assert_eq!((state.die_at, state.result), (None, None));
    let ended = state.ended.unwrap();
    assert_eq!((ended.attempt, ended.nonce, ended.how), (1, lease.nonce, EndedHow::Finished));
    assert_eq!((ended.status, ended.at), (Status::Success, t.now()));
}

async fn result_is_kept(t: &Bench) {
    let lease = t.running("copy").await;
    let result = "{ \"pages\": 3,\n\"title\": \"ä\\u0000\" }";

    t.finish(&lease, Outcome::Ok { result: Some(result.into()) }).await;

    assert_eq!(t.get(&lease.id).await.state.result.as_deref(), Some(result), "byte for byte");
}

async fn failure_is_scheduled_after_the_backoff(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(seconds(1));

    let outcome = Outcome::Failed { error: "no disk".into(), retryable: true, retry_after: None, jitter: 17 };
    assert_eq!(t.finish(&lease, outcome).await, Finished::Applied(Status::Scheduled));

    let job = t.get(&lease.id).await;
    assert!(job.is_retrying());
    assert_eq!((job.state.fails, job.state.error.as_deref()), (1, Some("no disk")));
    assert_eq!(job.state.run_at, Some(t.now() + retry::backoff(1, 17)));
    assert_eq!((job.state.finished_at, job.state.expires_at, job.state.die_at), (None, None, None));
}

async fn backoff_of_the_code_beats_the_default(t: &Bench) {
    let lease = t.running("copy").await;

    let outcome =
        Outcome::Failed { error: "busy".into(), retryable: true, retry_after: Some(seconds(7)), jitter: 17 };
    t.finish(&lease, outcome).await;

    assert_eq!(t.get(&lease.id).await.state.run_at, Some(t.now() + seconds(7)));
}

async fn last_failure_is_the_end(t: &Bench) {
    let id = t.job("copy").max_fails(3).retention(100).insert().await;
    for fails in 1..=3 {
        let lease = t.run_one("copy").await;
        let became = t.finish_failed(&lease).await;
        let expected = if fails < 3 { Status::Scheduled } else { Status::Error };
        assert_eq!(became, Finished::Applied(expected), "failure {fails}");
        t.advance(seconds(3600));
        t.promote().await;
    }

    let state = t.get(&id).await.state;
    let died = state.finished_at;
    assert_eq!((state.fails, state.attempt, state.die_at), (3, 3, died));
    assert_eq!(state.expires_at, died.map(|at| at + seconds(100)));
    assert_eq!(state.error.as_deref(), Some("broken"));
    assert_eq!(t.ask(&["copy"]).claim().await, []);
}

async fn failure_that_is_not_retryable_is_the_end(t: &Bench) {
    let lease = t.running("copy").await;

    assert_eq!(t.finish(&lease, fatal("no such image")).await, Finished::Applied(Status::Error));

    let state = t.get(&lease.id).await.state;
    assert_eq!((state.fails, state.error.as_deref(), state.die_at), (1, Some("no such image"), Some(t.now())));
}

async fn success_clears_the_error_and_keeps_the_count(t: &Bench) {
    let first = t.running("copy").await;
    t.finish_failed(&first).await;
    t.advance(seconds(60));
    t.promote().await;

    t.finish_ok(&t.run_one("copy").await).await;

    let state = t.get(&first.id).await.state;
    assert_eq!((state.status, state.error, state.fails), (Status::Success, None, 1));
    assert_eq!(state.attempts[0].error.as_deref(), Some("broken"), "its history keeps it");
}

async fn snoozed_job_runs_later_and_nothing_is_counted(t: &Bench) {
    let id = t.job("copy").max_fails(1).insert().await;
    for attempt in 1..=5 {
        let lease = t.run_one("copy").await;
        let until = t.now() + seconds(100);
        assert_eq!(t.finish(&lease, Outcome::Snooze { until }).await, Finished::Applied(Status::Scheduled));

        let state = t.get(&id).await.state;
        assert_eq!((state.attempt, state.fails, state.run_at), (attempt, 0, Some(until)));
        t.advance(seconds(100));
        t.promote().await;
    }
}

async fn job_may_end_itself_as_stopped_or_cancelled(t: &Bench) {
    let stopped = t.running("copy").await;
    let cancelled = t.running("copy").await;

    assert_eq!(t.finish(&stopped, Outcome::Stopped).await, Finished::Applied(Status::Stopped));
    assert_eq!(t.finish(&cancelled, Outcome::Cancelled).await, Finished::Applied(Status::Cancelled));

    let state = t.get(&stopped.id).await.state;
    assert_eq!((state.fails, state.finished_at, state.die_at), (0, Some(t.now()), None));
}

async fn signalled_run_that_succeeds_is_a_success(t: &Bench) {
    for signal in [Signal::Stop, Signal::Cancel] {
        let lease = signalled_run(t, signal).await;

        assert_eq!(t.finish_ok(&lease).await, Finished::Applied(Status::Success), "we report what happened");
        assert_eq!(t.get(&lease.id).await.state.signal, None);
    }
}

async fn signalled_run_that_does_not_succeed_ends_as_signalled(t: &Bench) {
    for signal in [Signal::Stop, Signal::Cancel] {
        let snooze = Outcome::Snooze { until: t.now() + seconds(1) };
        for outcome in [failed("killed"), fatal("killed"), snooze] {
            let lease = signalled_run(t, signal).await;

            assert_eq!(t.finish(&lease, outcome).await, Finished::Applied(signal.status()));

            let state = t.get(&lease.id).await.state;
            assert_eq!((state.fails, state.signal, state.run_at), (0, None, None));
        }
    }
    let lease = signalled_run(t, Signal::Cancel).await;
    assert_eq!(t.finish(&lease, Outcome::Stopped).await, Finished::Applied(Status::Stopped), "as the job says");
}

/// Goal: a worker that got no answer may send its report again, at any time until the next run ends.
async fn report_sent_again_gets_the_same_answer(t: &Bench) {
    let outcomes = [
        ok(),
        failed("broken"),
        fatal("broken"),
        Outcome::Stopped,
        Outcome::Cancelled,
        Outcome::Snooze { until: t.now() + seconds(50) },
    ];
    for outcome in outcomes {
        let lease = t.running("copy").await;
        let first = t.finish(&lease, outcome.clone()).await;
        let before = t.get(&lease.id).await;
        t.advance(seconds(1));

        assert_eq!(t.finish(&lease, outcome.clone()).await, first, "{outcome:?}");
        assert_eq!(t.get(&lease.id).await, before, "{outcome:?}: nothing is counted twice");
    }
}

async fn report_sent_again_while_the_next_attempt_runs_gets_the_same_answer(t: &Bench) {
    let first = t.running("copy").await;
    t.finish_failed(&first).await;
    t.advance(seconds(60));
    t.promote().await;
    assert_eq!(t.finish_failed(&first).await, Finished::Applied(Status::Scheduled), "while it waits");
    let second = t.run_one("copy").await;
    let before = t.get(&first.id).await;

    assert_eq!(t.finish_failed(&first).await, Finished::Applied(Status::Scheduled), "while it runs again");

    assert_eq!(t.get(&first.id).await, before);
    assert_eq!(t.finish_ok(&second).await, Finished::Applied(Status::Success));
}

async fn report_older_than_the_last_run_is_lost(t: &Bench) {
    let first = t.running("copy").await;
    t.finish_failed(&first).await;
    t.advance(seconds(60));
    t.promote().await;
    t.finish_ok(&t.run_one("copy").await).await;
    let before = t.get(&first.id).await;

    assert_eq!(t.finish_failed(&first).await, Finished::LeaseLost);
    assert_eq!(t.get(&first.id).await, before);
}

/// Goal: a worker that was taken for dead cannot overwrite the run that replaced it.
async fn late_finish_after_reap_is_refused(t: &Bench) {
    let first = t.running("copy").await;
    t.lose_worker().await;
    assert_eq!(t.finish_ok(&first).await, Finished::LeaseLost, "while the job waits");
    let second = t.run_one("copy").await;

    assert_eq!(t.finish_ok(&first).await, Finished::LeaseLost, "while the other runs");
    assert_eq!(t.status(&first.id).await, Status::Running);
    assert_eq!(t.finish(&second, fatal("broken")).await, Finished::Applied(Status::Error));
    assert_eq!(t.finish_ok(&first).await, Finished::LeaseLost, "after its end");
    assert_eq!(t.status(&first.id).await, Status::Error);
}

async fn finish_after_the_end_of_an_unreaped_lease_counts(t: &Bench) {
    let lease = t.running("copy").await;
    t.advance(LEASE * 100);

    assert_eq!(t.finish_ok(&lease).await, Finished::Applied(Status::Success));
    assert_eq!(t.reap().await.moved, 0);
}

async fn finish_with_a_foreign_nonce_or_attempt_is_refused(t: &Bench) {
    let lease = t.running("copy").await;
    let before = t.get(&lease.id).await;

    let foreign = LeaseKey { nonce: lease.nonce ^ 1, ..lease.clone() };
    assert_eq!(t.finish_ok(&foreign).await, Finished::LeaseLost);
    let early = LeaseKey { attempt: 0, ..lease.clone() };
    assert_eq!(t.finish_ok(&early).await, Finished::LeaseLost);
    let future = LeaseKey { attempt: 2, ..lease.clone() };
    assert_eq!(t.finish_ok(&future).await, Finished::LeaseLost);

    assert_eq!(t.get(&lease.id).await, before);
}

async fn finish_of_an_unknown_job_is_lost(t: &Bench) {
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };
    assert_eq!(t.finish_ok(&unknown).await, Finished::LeaseLost);

    let waiting = t.job("copy").insert().await;
    let never_claimed = LeaseKey { id: waiting, attempt: 0, nonce: 0 };
    assert_eq!(t.finish_ok(&never_claimed).await, Finished::LeaseLost);

    let policy = t.policy("copy").put().await;
    assert_eq!(t.finish_ok(&LeaseKey { id: policy, attempt: 1, nonce: 1 }).await, Finished::LeaseLost);
}

async fn finish_after_a_release_is_lost(t: &Bench) {
    let lease = t.running("copy").await;
    t.release(&lease).await;
    let before = t.get(&lease.id).await;

    assert_eq!(t.finish_ok(&lease).await, Finished::LeaseLost);
    assert_eq!(t.get(&lease.id).await, before);
}

async fn reports_of_a_batch_are_answered_one_by_one_in_order(t: &Bench) {
    let succeeds = t.running("copy").await;
    let lost = t.running("copy").await;
    t.release(&lost).await;
    t.stop(&lost.id).await;
    let fails = t.running("copy").await;
    let unknown = LeaseKey { id: t.id(), attempt: 1, nonce: 1 };

    let report = |lease: &LeaseKey, outcome| Report { lease: lease.clone(), outcome };
    let reports = vec![
        report(&unknown, ok()),
        report(&fails, fatal("broken")),
        report(&lost, ok()),
        report(&succeeds, ok()),
    ];
    let answers = t.store.finish(reports, t.now()).await.unwrap();

    let expected = [
        Finished::LeaseLost,
        Finished::Applied(Status::Error),
        Finished::LeaseLost,
        Finished::Applied(Status::Success),
    ];
    assert_eq!(answers, expected);
    assert_eq!(t.store.finish(Vec::new(), t.now()).await.unwrap(), []);
}

async fn same_report_twice_in_a_batch_counts_once(t: &Bench) {
    let lease = t.running("copy").await;
    let report = Report { lease: lease.clone(), outcome: failed("broken") };

    let answers = t.store.finish(vec![report.clone(), report], t.now()).await.unwrap();

    assert_eq!(answers, [Finished::Applied(Status::Scheduled); 2]);
    assert_eq!(t.get(&lease.id).await.state.fails, 1);
}

/// The first that arrives is what happened; the second is told what became of the job.
async fn two_different_reports_of_one_run_count_once(t: &Bench) {
    let lease = t.running("copy").await;

    assert_eq!(t.finish_ok(&lease).await, Finished::Applied(Status::Success));
    assert_eq!(t.finish(&lease, fatal("broken")).await, Finished::Applied(Status::Success));

    assert_eq!(t.status(&lease.id).await, Status::Success);
}

async fn attempts_are_remembered_up_to_a_limit(t: &Bench) {
    let id = t.job("copy").max_fails(100).insert().await;
    for _ in 0..ATTEMPTS_KEPT + 3 {
        let job = t.ask(&["copy"]).pool("web/01").claim().await.pop().unwrap();
        t.advance(seconds(2));
        let outcome = failed(&format!("failure {}", job.state.attempt));
        t.finish(&lease(&job), outcome).await;
        let run_at = t.get(&id).await.state.run_at.unwrap();
        t.advance(run_at.since(t.now()));
        t.promote().await;
    }

    let attempts = t.get(&id).await.state.attempts;

    assert_eq!(attempts.len(), ATTEMPTS_KEPT);
    let (oldest, newest) = (&attempts[0], &attempts[ATTEMPTS_KEPT - 1]);
    assert_eq!((oldest.attempt, newest.attempt as usize), (4, ATTEMPTS_KEPT + 3));
    assert_eq!((newest.pool.clone(), newest.outcome), (pool_id("web/01"), AttemptOutcome::Failed));
    assert_eq!(newest.error.as_deref(), Some("failure 13"));
    assert_eq!(newest.ended_at.since(newest.started_at), seconds(2));
}

/// The longest that are let in; the comparisons do not print them.
async fn longest_texts_are_kept_whole(t: &Bench) {
    let text = |bytes: usize| "ä\n\0".repeat(bytes / 4);
    let (check_in, error, result) = (text(CHECK_IN_BYTES_MAX), text(ERROR_BYTES_MAX), text(RESULT_BYTES_MAX));
    let parameters = format!("\"{}\"", "p".repeat(PARAMETERS_BYTES_MAX - 2));
    let id = t.job("copy").parameters(&parameters).insert().await;
    let lease = t.run_one("copy").await;
    t.check_in(&lease, &check_in).await;
    t.finish(&lease, failed(&error)).await;

    let job = t.get(&id).await;
    assert!(*job.spec.parameters == *parameters);
    assert!(job.state.error.as_deref() == Some(&*error));
    assert!(*job.state.check_in.unwrap().message == *check_in);

    t.advance(seconds(60));
    t.promote().await;
    t.finish(&t.run_one("copy").await, Outcome::Ok { result: Some((*result).into()) }).await;
    assert!(t.get(&id).await.state.result.as_deref() == Some(&*result));
}

async fn signalled_run(t: &Bench, signal: Signal) -> LeaseKey {
    let lease = t.running("copy").await;
    match signal {
        Signal::Stop => t.stop(&lease.id).await,
        Signal::Cancel => t.cancel(&lease.id).await,
    };
    lease
}
