//! Jobs become due: `promote`.

use jobservice_core::job::Status;
use jobservice_core::lifecycle::Outcome;

use crate::bench::{Bench, seconds};

super::cases! { $ promote:
    due_job_becomes_pending,
    job_is_never_early,
    promote_twice_moves_each_job_once,
    earliest_goes_first_within_the_limit,
    promote_tells_when_it_has_to_look_again,
    retry_and_snooze_become_due,
    promote_moves_nothing_but_due_jobs,
    promoted_job_wakes_the_pools,
}

async fn due_job_becomes_pending(t: &Bench) {
    let id = t.job("copy").after(seconds(5)).insert().await;
    let due_at = t.now() + seconds(5);
    t.advance(seconds(5));

    let swept = t.promote().await;

    assert_eq!((swept.moved, swept.more, swept.removed.len()), (1, false, 0));
    let state = t.get(&id).await.state;
    assert_eq!((state.status, state.ready_at, state.run_at), (Status::Pending, due_at, Some(due_at)));
}

async fn job_is_never_early(t: &Bench) {
    let id = t.job("copy").after(seconds(5)).insert().await;
    t.advance(seconds(5) - std::time::Duration::from_millis(1));

    assert_eq!(t.promote().await.moved, 0);
    assert_eq!(t.status(&id).await, Status::Scheduled);
}

async fn promote_twice_moves_each_job_once(t: &Bench) {
    let id = t.job("copy").after(seconds(5)).insert().await;
    t.advance(seconds(60));
    t.promote().await;
    let before = t.get(&id).await;
    t.advance(seconds(60));

    assert_eq!(t.promote().await.moved, 0);
    assert_eq!(t.get(&id).await, before);
}

async fn earliest_goes_first_within_the_limit(t: &Bench) {
    let (b, a) = (t.id(), t.id());
    let third = t.job("copy").after(seconds(3)).insert().await;
    t.job("copy").id(&a).after(seconds(2)).insert().await;
    t.job("copy").id(&b).after(seconds(2)).insert().await;
    let first = t.job("copy").after(seconds(1)).insert().await;
    t.advance(seconds(9));

    let swept = t.store.promote(2, t.now()).await.unwrap();

    assert_eq!((swept.moved, swept.more), (2, true));
    let pending = [t.status(&first).await, t.status(&b).await, t.status(&a).await, t.status(&third).await];
    assert_eq!(pending, [Status::Pending, Status::Pending, Status::Scheduled, Status::Scheduled]);

    let swept = t.store.promote(2, t.now()).await.unwrap();
    assert_eq!(swept.moved, 2);
    assert_eq!(t.store.promote(2, t.now()).await.unwrap().moved, 0);
}

async fn promote_tells_when_it_has_to_look_again(t: &Bench) {
    t.job("copy").after(seconds(5)).insert().await;
    t.job("copy").after(seconds(8)).insert().await;
    let (first, second) = (t.now() + seconds(5), t.now() + seconds(8));

    let hint = t.promote().await.next_at;
    assert!(hint.is_none_or(|at| at == first), "{hint:?}");

    t.advance(seconds(5));
    let hint = t.promote().await.next_at;
    assert!(hint.is_none_or(|at| at == second), "{hint:?}");

    t.advance(seconds(5));
    assert_eq!(t.promote().await.next_at, None, "nothing is scheduled");
}

async fn retry_and_snooze_become_due(t: &Bench) {
    let failed = t.running("copy").await;
    t.finish_failed(&failed).await;
    let snoozed = t.running("copy").await;
    t.finish(&snoozed, Outcome::Snooze { until: t.now() + seconds(60) }).await;
    t.advance(seconds(60));

    assert_eq!(t.promote().await.moved, 2);
    assert_eq!(t.get(&failed.id).await.state.fails, 1, "promoting resets nothing");
    assert_eq!(t.status(&snoozed.id).await, Status::Pending);
}

async fn promote_moves_nothing_but_due_jobs(t: &Bench) {
    let others = [Status::Running, Status::Error, Status::Success, Status::Stopped, Status::Cancelled, Status::Pending];
    let mut jobs = Vec::new();
    for status in others {
        let id = t.bring(t.job("copy").after(seconds(0)), status).await;
        jobs.push(t.get(&id).await);
    }
    t.advance(seconds(7200));

    assert_eq!(t.promote().await.moved, 0);
    for job in jobs {
        assert_eq!(t.get(&job.id).await, job);
    }
}

async fn promoted_job_wakes_the_pools(t: &Bench) {
    t.job("copy").after(seconds(5)).insert().await;
    t.advance(seconds(5));
    let ready = t.store.notices().ready();

    t.promote().await;

    super::notices::told(ready).await;
}
