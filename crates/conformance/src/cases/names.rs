//! Names and why their jobs wait: `names`, `set_options`, `explain`.

use std::sync::Arc;

use jobservice_core::JobId;
use jobservice_core::job::Status;
use jobservice_core::limits::{NODE_DEAD_AFTER, POSITION_MAX};
use jobservice_core::store::{NameAsk, NameOptions, NameStats, Node, OptionsChange, Waiting};

use crate::bench::{Bench, name, one, pool_id, seconds};

super::cases! { $ names:
    names_with_work_or_options_are_listed_with_their_numbers,
    name_without_either_is_not_listed,
    oldest_pending_is_since_when_it_waits,
    options_change_field_by_field,
    options_that_say_nothing_are_not_kept,
    explain_tells_when_a_job_is_due,
    explain_tells_that_a_name_is_paused,
    explain_tells_that_a_name_is_at_its_limit,
    explain_knows_the_limit_of_the_code_and_that_the_operators_beats_it,
    explain_tells_that_nobody_runs_a_name,
    explain_tells_that_a_job_is_a_suspect,
    explain_tells_the_place_in_the_queue,
    explain_counts_a_place_only_so_far,
    explain_gives_the_first_reason,
    explain_has_nothing_to_say_of_other_jobs,
}

async fn names_with_work_or_options_are_listed_with_their_numbers(t: &Bench) {
    t.running("copy").await;
    for _ in 0..2 {
        t.job("copy").insert().await;
    }
    for _ in 0..3 {
        t.job("copy").after(seconds(9)).insert().await;
    }
    t.with_status(Status::Scheduled, "delayed").await;
    let options = NameOptions { paused: false, max_concurrency: Some(4), weight: Some(7) };
    let change = OptionsChange { max_concurrency: Some(Some(4)), weight: Some(Some(7)), ..OptionsChange::default() };
    t.store.set_options(&name("unused"), change, t.now()).await.unwrap();

    let mut names = t.store.names().await.unwrap();

    names.sort_by(|a, b| a.name.cmp(&b.name));
    let stats = |named: &str, options, pending, scheduled, running| NameStats {
        name: name(named),
        options,
        pending,
        scheduled,
        running,
        oldest_pending: (pending > 0).then_some(t.now()),
    };
    let none = NameOptions::default();
    let expected = [stats("copy", none, 2, 3, 1), stats("delayed", none, 0, 1, 0), stats("unused", options, 0, 0, 0)];
    assert_eq!(names, expected);
}

async fn name_without_either_is_not_listed(t: &Bench) {
    for status in [Status::Error, Status::Success, Status::Stopped, Status::Cancelled] {
        t.with_status(status, &format!("name-{status}")).await;
    }

    assert_eq!(t.store.names().await.unwrap(), []);
}

async fn oldest_pending_is_since_when_it_waits(t: &Bench) {
    let first = t.now();
    t.job("copy").insert().await;
    t.advance(seconds(5));
    t.job("copy").priority(9).insert().await;
    assert_eq!(one(t.store.names().await.unwrap()).oldest_pending, Some(first), "whatever its priority");

    t.ask(&["copy"]).slots(2).claim().await;
    assert_eq!(one(t.store.names().await.unwrap()).oldest_pending, None);

    t.lose_worker().await;
    assert_eq!(one(t.store.names().await.unwrap()).oldest_pending, Some(first), "a suspect waits as well");
}

async fn options_change_field_by_field(t: &Bench) {
    let copy = name("copy");
    let set = async |change| t.store.set_options(&copy, change, t.now()).await.unwrap();
    let nothing = OptionsChange::default();
    assert_eq!(set(nothing).await, NameOptions::default());

    let expected = NameOptions { paused: true, ..NameOptions::default() };
    assert_eq!(set(OptionsChange { paused: Some(true), ..nothing }).await, expected);
    let expected = NameOptions { max_concurrency: Some(0), ..expected };
    assert_eq!(set(OptionsChange { max_concurrency: Some(Some(0)), ..nothing }).await, expected);
    let expected = NameOptions { weight: Some(10_000), ..expected };
    assert_eq!(set(OptionsChange { weight: Some(Some(10_000)), ..nothing }).await, expected);
    assert_eq!(set(nothing).await, expected, "and again: a change of nothing reads");
    let expected = NameOptions { max_concurrency: None, ..expected };
    assert_eq!(set(OptionsChange { max_concurrency: Some(None), ..nothing }).await, expected);

    assert_eq!(one(t.store.names().await.unwrap()).options, expected);
    let other = t.store.set_options(&name("move"), nothing, t.now()).await.unwrap();
    assert_eq!(other, NameOptions::default(), "of this name only");
}

async fn options_that_say_nothing_are_not_kept(t: &Bench) {
    let empty = t.store.dump().await.unwrap();
    for paused in [true, false] {
        let change = OptionsChange { paused: Some(paused), ..OptionsChange::default() };
        t.store.set_options(&name("copy"), change, t.now()).await.unwrap();
    }

    assert_eq!(t.store.names().await.unwrap(), []);
    assert_eq!(t.store.dump().await.unwrap(), empty);
}

async fn explain_tells_when_a_job_is_due(t: &Bench) {
    let id = t.job("copy").after(seconds(5)).insert().await;
    let due = t.now() + seconds(5);
    assert_eq!(explain(t, &id).await, Some(Waiting::Due(due)));

    t.advance(seconds(60));
    assert_eq!(explain(t, &id).await, Some(Waiting::Due(due)), "overdue: a sweep is late");
}

async fn explain_tells_that_a_name_is_paused(t: &Bench) {
    node(t, "copy").await;
    let id = t.job("copy").insert().await;
    let pause = OptionsChange { paused: Some(true), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), pause, t.now()).await.unwrap();

    assert_eq!(explain(t, &id).await, Some(Waiting::Paused));
}

async fn explain_tells_that_a_name_is_at_its_limit(t: &Bench) {
    node(t, "copy").await;
    t.running("copy").await;
    t.running("copy").await;
    let id = t.job("copy").insert().await;
    limit(t, 2).await;
    assert_eq!(explain(t, &id).await, Some(Waiting::AtLimit { limit: 2, running: 2 }));

    limit(t, 1).await;
    assert_eq!(explain(t, &id).await, Some(Waiting::AtLimit { limit: 1, running: 2 }));

    limit(t, 3).await;
    assert_eq!(explain(t, &id).await, Some(Waiting::Queued { position: Some(0) }));
}

async fn explain_knows_the_limit_of_the_code_and_that_the_operators_beats_it(t: &Bench) {
    node(t, "copy").await;
    t.running("copy").await;
    let id = t.job("copy").insert().await;
    let ask = |named, max_concurrency| NameAsk { name: name(named), weight: 1, max_concurrency };
    let code: Arc<[NameAsk]> = [ask("move", Some(7)), ask("copy", Some(1))].into();
    let explain = async || t.store.explain(&id, &code, t.now()).await.unwrap();
    assert_eq!(explain().await, Some(Waiting::AtLimit { limit: 1, running: 1 }));

    limit(t, 2).await;
    assert_eq!(explain().await, Some(Waiting::Queued { position: Some(0) }));
}

async fn explain_tells_that_nobody_runs_a_name(t: &Bench) {
    let id = t.job("copy").insert().await;
    assert_eq!(explain(t, &id).await, Some(Waiting::NoWorker), "no node at all");
    node(t, "move").await;
    assert_eq!(explain(t, &id).await, Some(Waiting::NoWorker), "none for this name");
    node(t, "copy").await;
    assert_eq!(explain(t, &id).await, Some(Waiting::Queued { position: Some(0) }));

    t.advance(NODE_DEAD_AFTER);

    assert_eq!(explain(t, &id).await, Some(Waiting::NoWorker), "none that lives");
}

async fn explain_tells_that_a_job_is_a_suspect(t: &Bench) {
    let lease = t.running("copy").await;
    t.lose_worker().await;
    node(t, "copy").await;

    assert_eq!(explain(t, &lease.id).await, Some(Waiting::Suspect));
}

async fn explain_tells_the_place_in_the_queue(t: &Bench) {
    node(t, "copy").await;
    let suspect = t.running("copy").await;
    t.lose_worker().await;
    node(t, "copy").await;
    let mut ids = Vec::new();
    for priority in [0, 0, 9] {
        ids.push(t.job("copy").priority(priority).insert().await);
        t.job("move").insert().await;
    }

    for (id, position) in [(&ids[2], 0), (&ids[0], 1), (&ids[1], 2)] {
        assert_eq!(explain(t, id).await, Some(Waiting::Queued { position: Some(position) }));
    }
    assert_eq!(explain(t, &suspect.id).await, Some(Waiting::Suspect), "it is older than all of them and not counted");
}

async fn explain_counts_a_place_only_so_far(t: &Bench) {
    node(t, "copy").await;
    let jobs: Vec<_> = (0..POSITION_MAX + 2).map(|_| t.job("copy").build()).collect();
    let (last_counted, first_beyond) = (jobs[POSITION_MAX].id.clone(), jobs[POSITION_MAX + 1].id.clone());
    t.insert(jobs).await;

    assert_eq!(explain(t, &last_counted).await, Some(Waiting::Queued { position: Some(POSITION_MAX as u64) }));
    assert_eq!(explain(t, &first_beyond).await, Some(Waiting::Queued { position: None }));
}

async fn explain_gives_the_first_reason(t: &Bench) {
    t.running("copy").await;
    t.job("copy").insert().await;
    let lease = t.run_one("copy").await;
    t.advance(seconds(9));
    t.release(&lease).await;
    limit(t, 1).await;
    let pause = OptionsChange { paused: Some(true), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), pause, t.now()).await.unwrap();
    assert_eq!(explain(t, &lease.id).await, Some(Waiting::Paused));

    let resume = OptionsChange { paused: Some(false), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), resume, t.now()).await.unwrap();
    assert_eq!(explain(t, &lease.id).await, Some(Waiting::AtLimit { limit: 1, running: 1 }));

    t.advance(seconds(1));
    t.reap().await;
    assert_eq!(explain(t, &lease.id).await, Some(Waiting::NoWorker));
}

async fn explain_has_nothing_to_say_of_other_jobs(t: &Bench) {
    for status in [Status::Running, Status::Error, Status::Success, Status::Stopped, Status::Cancelled] {
        let id = t.with_status(status, "copy").await;
        assert_eq!(explain(t, &id).await, None, "{status}");
    }
    assert_eq!(explain(t, &t.id()).await, None);
    let policy = t.policy("copy").put().await;
    assert_eq!(explain(t, &policy).await, None);
}

async fn explain(t: &Bench, id: &JobId) -> Option<Waiting> {
    t.store.explain(id, &Arc::default(), t.now()).await.unwrap()
}

async fn limit(t: &Bench, limit: u32) {
    let change = OptionsChange { max_concurrency: Some(Some(limit)), ..OptionsChange::default() };
    t.store.set_options(&name("copy"), change, t.now()).await.unwrap();
}

/// Lets a node beat that runs this name.
async fn node(t: &Bench, named: &str) {
    let node = Node {
        pool: pool_id(&format!("{named}/01")),
        started_at: t.now(),
        beat_at: t.now(),
        names: vec![name("unused"), name(named)],
        concurrency: 10,
        host: "host".to_owned(),
        pid: 1,
    };
    t.store.beat(Some(&node), t.now()).await.unwrap();
}
