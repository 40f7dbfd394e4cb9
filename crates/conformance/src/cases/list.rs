//! People look at many: `list`, `counts`.

use jobservice_core::JobId;
use jobservice_core::job::{Job, Status};
use jobservice_core::limits::{INSERT_MAX, SCAN_MAX};
use jobservice_core::store::{Query, StoreError};

use crate::bench::{Bench, list_all, name, seconds};

super::cases! { $ list:
    without_a_filter_the_newest_comes_first,
    by_name_tag_and_upstream_the_newest_comes_first,
    tag_is_matched_whole,
    pending_jobs_come_by_name_in_the_order_of_claims,
    scheduled_jobs_come_by_due_time,
    retrying_jobs_are_those_that_failed_before,
    running_jobs_come_by_when_the_service_looks_at_them,
    final_jobs_come_by_expiry_the_latest_first,
    filters_are_combined,
    jobs_are_found_by_kind_time_and_text,
    filters_that_nothing_matches_list_nothing,
    every_list_is_complete_and_without_doubles_at_any_page_size,
    list_goes_on_where_it_was_while_jobs_come_and_go,
    filter_without_an_index_finds_what_lies_behind_many_rows,
    foreign_cursor_is_not_valid,
    page_is_no_longer_than_its_limit,
    exact_page_has_no_next,
    counts_are_those_of_the_records,
}

async fn without_a_filter_the_newest_comes_first(t: &Bench) {
    let mut newest_first = Vec::new();
    for status in Status::ALL {
        newest_first.insert(0, t.with_status(status, &format!("name-{status}")).await);
        newest_first.insert(0, t.job("same-instant").insert().await);
        t.advance(seconds(1));
    }

    assert_eq!(t.list(Query::default()).await, newest_first);
}

async fn by_name_tag_and_upstream_the_newest_comes_first(t: &Bench) {
    let parent = t.job("parent").insert().await;
    let mut newest_first = Vec::new();
    for number in 0..6 {
        t.job("other").tag("other").insert().await;
        let id = t.job("copy").tag("nightly").tag("eu").upstream(&parent).priority(number).insert().await;
        newest_first.insert(0, id);
        if number % 2 == 0 {
            t.advance(seconds(1));
        }
    }

    for query in [by_name("copy"), by_tag("nightly"), by_tag("eu"), by_upstream(&parent)] {
        assert_eq!(t.list(query.clone()).await, newest_first, "{query:?}");
    }
}

async fn tag_is_matched_whole(t: &Bench) {
    let id = t.job("copy").tag("Größe \"1\", [2]%_").tag("a").insert().await;
    t.job("copy").tag("ab").insert().await;

    assert_eq!(t.list(by_tag("Größe \"1\", [2]%_")).await, [id.clone()]);
    assert_eq!(t.list(by_tag("a")).await, [id]);
    assert_eq!(t.list(by_tag("A")).await, []);
    assert_eq!(t.list(by_tag("%")).await, []);
}

async fn pending_jobs_come_by_name_in_the_order_of_claims(t: &Bench) {
    let suspect = t.job("b").priority(5).insert().await;
    t.claim_one("b").await;
    t.lose_worker().await;
    let late = t.job("b").insert().await;
    let high = t.job("b").priority(9).insert().await;
    let low = t.job("b").priority(3).insert().await;
    t.advance(seconds(1));
    let later = t.job("b").priority(3).insert().await;
    let first_name = t.job("a").insert().await;
    t.job("a").after(seconds(9)).insert().await;

    assert_eq!(t.list(by_status(Status::Pending)).await, [first_name, high, suspect, low, later, late]);
}

async fn scheduled_jobs_come_by_due_time(t: &Bench) {
    let third = t.job("a").after(seconds(30)).insert().await;
    let first = t.job("b").after(seconds(10)).insert().await;
    let second = t.job("c").after(seconds(20)).insert().await;
    let tie = t.job("a").after(seconds(20)).insert().await;
    t.job("a").insert().await;

    assert_eq!(t.list(by_status(Status::Scheduled)).await, [first, second, tie, third]);
}

async fn retrying_jobs_are_those_that_failed_before(t: &Bench) {
    t.job("copy").after(seconds(1)).insert().await;
    let later = t.running("copy").await;
    t.advance(seconds(5));
    let sooner = t.running("copy").await;
    t.finish(&sooner, crate::bench::failed("broken")).await;
    t.advance(seconds(5));
    t.finish(&later, crate::bench::failed("broken")).await;
    let snoozed = t.running("copy").await;
    let until = t.now() + seconds(1);
    t.finish(&snoozed, jobservice_core::lifecycle::Outcome::Snooze { until }).await;

    let retrying = Query { retrying: true, ..Query::default() };
    assert_eq!(t.list(retrying.clone()).await, [sooner.id.clone(), later.id.clone()]);
    let both = Query { status: Some(Status::Scheduled), ..retrying.clone() };
    assert_eq!(t.list(both).await, [sooner.id, later.id]);
    assert_eq!(t.list(Query { status: Some(Status::Pending), ..retrying }).await, []);
}

async fn running_jobs_come_by_when_the_service_looks_at_them(t: &Bench) {
    for _ in 0..3 {
        t.job("copy").insert().await;
    }
    let last = t.ask(&["copy"]).lease(seconds(30)).ids().await.remove(0);
    let first = t.ask(&["copy"]).lease(seconds(10)).ids().await.remove(0);
    let second = t.ask(&["copy"]).lease(seconds(20)).ids().await.remove(0);
    assert_eq!(t.list(by_status(Status::Running)).await, [first.clone(), second.clone(), last.clone()]);

    let grace = jobservice_core::store::Action::Cancel(seconds(5));
    t.store.control(&last, grace, t.now()).await.unwrap();

    assert_eq!(t.list(by_status(Status::Running)).await, [last, first, second]);
}

async fn final_jobs_come_by_expiry_the_latest_first(t: &Bench) {
    let soonest = t.bring(t.job("copy").retention(10), Status::Success).await;
    let latest = t.bring(t.job("copy").retention(30), Status::Success).await;
    let between = t.bring(t.job("copy").retention(20), Status::Success).await;
    let tie = t.bring(t.job("copy").retention(20), Status::Success).await;
    t.with_status(Status::Error, "copy").await;

    assert_eq!(t.list(by_status(Status::Success)).await, [latest, tie, between, soonest]);
}

async fn filters_are_combined(t: &Bench) {
    let parent = t.job("parent").insert().await;
    let mut wanted = Vec::new();
    for _ in 0..3 {
        t.job("copy").tag("x").insert().await;
        t.job("copy").upstream(&parent).insert().await;
        t.job("move").tag("x").upstream(&parent).insert().await;
        t.job("copy").tag("x").upstream(&parent).after(seconds(9)).insert().await;
        wanted.insert(0, t.job("copy").tag("x").upstream(&parent).insert().await);
    }

    let query = Query {
        status: Some(Status::Pending),
        name: Some(name("copy")),
        tag: Some("x".into()),
        upstream: Some(parent),
        ..Query::default()
    };
    assert_eq!(t.list(query).await, wanted);
}

async fn jobs_are_found_by_kind_time_and_text(t: &Bench) {
    let first = t.job("copy").insert().await;
    t.advance(seconds(10));
    let later = t.job("move").after(seconds(5)).insert().await;
    let middle = t.now();
    t.advance(seconds(10));
    let failed = t.bring(t.job("mend"), Status::Error).await;
    let told = t.running("tell").await;
    t.check_in(&told, "Half WAY").await;

    let kind = t.get(&later).await.spec.kind;
    let of_kind: Vec<JobId> =
        t.list(Query::default()).await.into_iter().filter(|id| [&later].contains(&id)).collect();
    assert_eq!(t.list(Query { kind: Some(kind), name: Some(name("move")), ..Query::default() }).await, of_kind);
    let since = Query { since: Some(middle), ..Query::default() };
    assert_eq!(t.list(since).await, [told.id.clone(), failed.clone(), later.clone()]);
    assert_eq!(t.list(Query { until: Some(middle), ..Query::default() }).await, [first.clone()]);
    let between = Query { since: Some(middle), until: Some(middle + seconds(1)), ..Query::default() };
    assert_eq!(t.list(between).await, [later]);
    for (text, found) in [("half way", &told.id), ("BROKEN", &failed), ("copy", &first), (first.as_str(), &first)] {
        let query = Query { text: Some(text.into()), ..Query::default() };
        assert_eq!(t.list(query).await, [found.clone()], "{text}");
    }
    let both = Query { text: Some("half".into()), status: Some(Status::Error), ..Query::default() };
    assert_eq!(t.list(both).await, []);
}

async fn filters_that_nothing_matches_list_nothing(t: &Bench) {
    t.job("copy").tag("x").insert().await;

    for query in [by_name("move"), by_tag("y"), by_upstream(&t.id()), by_status(Status::Running)] {
        assert_eq!(t.list(query.clone()).await, [], "{query:?}");
    }
    let both = Query { status: Some(Status::Success), ..by_name("copy") };
    assert_eq!(t.list(both).await, []);
}

/// Goal: no page boundary loses or doubles a job, in any order, also among equal sort keys.
/// Method: compare each list at the page sizes 1, 2 and 7 with itself at 100.
async fn every_list_is_complete_and_without_doubles_at_any_page_size(t: &Bench) {
    let parent = t.job("parent").insert().await;
    for round in 0..3 {
        for status in Status::ALL {
            let job = t.job(&format!("name-{status}")).tag("x").upstream(&parent).hook();
            t.bring(job, status).await;
            t.job("waiting").tag("x").priority(round).insert().await;
            let failed = t.running(&format!("failing-{status}")).await;
            t.finish_failed(&failed).await;
        }
        if round == 1 {
            t.advance(seconds(1));
        }
    }

    let mut queries = vec![Query::default(), by_tag("x"), by_upstream(&parent), by_name("waiting")];
    queries.push(Query { retrying: true, ..Query::default() });
    queries.push(Query { status: Some(Status::Pending), ..by_tag("x") });
    queries.extend(Status::ALL.map(by_status));
    for query in queries {
        let whole: Vec<Job> = list_all(&t.store, Query { limit: 100, ..query.clone() }).await;
        let mut ids: Vec<&JobId> = whole.iter().map(|job| &job.id).collect();
        ids.sort();
        ids.dedup();
        assert!(whole.len() > 2 && ids.len() == whole.len(), "{query:?} lists {} jobs", whole.len());
        for limit in [1, 2, 7] {
            let paged = list_all(&t.store, Query { limit, ..query.clone() }).await;
            assert_eq!(paged, whole, "{query:?} in pages of {limit}");
        }
    }
}

async fn list_goes_on_where_it_was_while_jobs_come_and_go(t: &Bench) {
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(t.with_status(Status::Success, "copy").await);
    }
    let first = t.store.list(&Query { limit: 2, ..Query::default() }).await.unwrap();
    let seen: Vec<JobId> = first.jobs.into_iter().map(|job| job.id).collect();
    assert_eq!(seen, [ids[5].clone(), ids[4].clone()]);

    t.delete(&ids[4]).await;
    t.delete(&ids[2]).await;
    t.job("copy").insert().await;

    let rest = t.list(Query { cursor: first.next, limit: 2, ..Query::default() }).await;
    assert_eq!(rest, [ids[3].clone(), ids[1].clone(), ids[0].clone()]);
}

/// Goal: a page that looked at as much as it may is short, not the last. Method: the only match is the oldest of so many.
async fn filter_without_an_index_finds_what_lies_behind_many_rows(t: &Bench) {
    let wanted = t.with_status(Status::Stopped, "copy").await;
    t.advance(seconds(1));
    for _ in 0..=SCAN_MAX / INSERT_MAX {
        let jobs: Vec<Job> = (0..INSERT_MAX).map(|_| t.job("copy").build()).collect();
        t.insert(jobs).await;
    }
    let query = Query { status: Some(Status::Stopped), limit: 5, ..by_name("copy") };

    let first = t.store.list(&query).await.unwrap();

    assert!(first.jobs.is_empty() && first.next.is_some(), "as many rows as a page may look at hold no match");
    assert_eq!(t.list(query).await, [wanted]);
}

async fn foreign_cursor_is_not_valid(t: &Bench) {
    for _ in 0..3 {
        t.job("copy").insert().await;
    }
    for cursor in ["", "x", "~~~", "1", "n~", "\0", "💥", "99999999999999999999999999"] {
        for query in [Query::default(), by_status(Status::Pending), by_name("copy")] {
            let asked = Query { cursor: Some(cursor.to_owned()), limit: 2, ..query };
            let answer = t.store.list(&asked).await;
            assert!(matches!(answer, Err(StoreError::Invalid(_))), "{asked:?}: {answer:?}");
        }
    }
}

async fn page_is_no_longer_than_its_limit(t: &Bench) {
    for _ in 0..5 {
        t.job("copy").insert().await;
    }

    let page = t.store.list(&Query { limit: 3, ..Query::default() }).await.unwrap();

    assert_eq!((page.jobs.len(), page.next.is_some()), (3, true));
}

async fn exact_page_has_no_next(t: &Bench) {
    for _ in 0..3 {
        t.job("copy").insert().await;
    }

    let page = t.store.list(&Query { limit: 3, ..Query::default() }).await.unwrap();

    assert_eq!((page.jobs.len(), page.next), (3, None));
}

async fn counts_are_those_of_the_records(t: &Bench) {
    let mut expected = Vec::new();
    for (number, status) in (1..).zip(Status::ALL) {
        for _ in 0..number {
            t.with_status(status, &format!("name-{status}")).await;
        }
        expected.push((status, number));
    }

    let counts = async || {
        let mut counts = t.store.counts().await.unwrap();
        counts.retain(|(_, count)| *count > 0);
        counts.sort();
        counts
    };
    assert_eq!(counts().await, expected);

    for id in t.list(by_status(Status::Stopped)).await {
        t.delete(&id).await;
    }
    expected.retain(|(status, _)| *status != Status::Stopped);
    assert_eq!(counts().await, expected);
}

fn by_status(status: Status) -> Query {
    Query { status: Some(status), ..Query::default() }
}

fn by_name(named: &str) -> Query {
    Query { name: Some(name(named)), ..Query::default() }
}

fn by_tag(tag: &str) -> Query {
    Query { tag: Some(tag.into()), ..Query::default() }
}

fn by_upstream(id: &JobId) -> Query {
    Query { upstream: Some(id.clone()), ..Query::default() }
}
