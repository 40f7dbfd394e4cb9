//! The store is kept below a size: `shrink`. What a job takes is each store's own measure, so the bounds here are none
//! and all.

use jobservice_core::job::Status;

use crate::bench::{Bench, seconds};

super::cases! { $ shrink:
    nothing_goes_while_there_is_room,
    final_jobs_go_the_next_to_expire_first,
    jobs_that_are_not_final_never_go,
    jobs_with_undelivered_events_stay,
    shrink_keeps_to_its_limit_and_says_that_there_is_more,
    shrunk_job_leaves_nothing_behind,
}

async fn nothing_goes_while_there_is_room(t: &Bench) {
    t.with_status(Status::Success, "copy").await;

    let swept = t.store.shrink(u64::MAX, 10, t.now()).await.unwrap();

    assert_eq!((swept.moved, swept.more), (0, false));
}

async fn final_jobs_go_the_next_to_expire_first(t: &Bench) {
    let mut wanted = Vec::new();
    for (retention, status) in [(30, Status::Error), (10, Status::Success), (20, Status::Stopped)] {
        wanted.push((retention, t.bring(t.job("copy").retention(retention), status).await));
    }
    wanted.sort();

    let removed = t.store.shrink(0, 10, t.now()).await.unwrap().removed;

    assert_eq!(removed, wanted.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

async fn jobs_that_are_not_final_never_go(t: &Bench) {
    for status in [Status::Scheduled, Status::Running, Status::Pending] {
        t.bring(t.job("copy").retention(0), status).await;
    }
    t.advance(seconds(3600));

    let swept = t.store.shrink(0, 10, t.now()).await.unwrap();

    assert_eq!((swept.moved, swept.more), (0, false), "too much, but nothing may go");
}

async fn jobs_with_undelivered_events_stay(t: &Bench) {
    let lease = t.hooked_run("copy").await;
    t.finish_ok(&lease).await;
    assert_eq!(t.store.shrink(0, 10, t.now()).await.unwrap().moved, 0, "its hook would be told of nothing");

    for taken in t.take_events().await {
        t.delivered(&taken.job.id, taken.events.last().unwrap().seq).await;
    }
    assert_eq!(t.store.shrink(0, 10, t.now()).await.unwrap().removed, [lease.id]);
}

async fn shrink_keeps_to_its_limit_and_says_that_there_is_more(t: &Bench) {
    for _ in 0..5 {
        t.with_status(Status::Success, "copy").await;
    }

    let mut swept = Vec::new();
    for _ in 0..3 {
        let once = t.store.shrink(0, 2, t.now()).await.unwrap();
        swept.push((once.moved, once.more));
    }

    assert_eq!(swept, [(2, true), (2, true), (1, false)]);
}

async fn shrunk_job_leaves_nothing_behind(t: &Bench) {
    let empty = t.store.dump().await.unwrap();
    let parent = t.with_status(Status::Success, "parent").await;
    t.bring(t.job("copy").tag("x").upstream(&parent).unique(1), Status::Success).await;

    while t.store.shrink(0, 1, t.now()).await.unwrap().moved > 0 {}

    assert_eq!(t.store.dump().await.unwrap(), empty);
}
