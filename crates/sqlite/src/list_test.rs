//! How lists are run: each walks its index, however many jobs there are.

use super::*;
use crate::schema;

/// Every statement that a list may run.
fn walks() -> Vec<(String, String)> {
    let status = |status| Query { status: Some(status), ..Query::default() };
    let mut queries = vec![
        Query::default(),
        Query { name: Name::new("a").ok(), ..Query::default() },
        Query { tag: Some("t".into()), ..Query::default() },
        Query { upstream: JobId::new("upstream").ok(), ..Query::default() },
    ];
    queries.extend([Status::Scheduled, Status::Pending, Status::Running, Status::Success].map(status));
    let mut walks = Vec::new();
    for query in queries {
        let order = order(&query);
        let place = match order {
            Order::Newest => Place::Newest { seq: 1 },
            Order::Ready => Place::Ready { name: "a".to_owned(), priority: 0, at: 0, id: "b".to_owned() },
            Order::Due | Order::Running | Order::Final(_) => Place::Timed { at: 0, id: "b".to_owned() },
        };
        let by = [
            query.name.as_ref().map(|_| " by name"),
            query.tag.as_ref().map(|_| " by tag"),
            query.upstream.as_ref().map(|_| " by upstream"),
        ];
        let by: String = by.into_iter().flatten().collect();
        walks.push((format!("{order:?}{by}"), walk(&query, order, None).sql));
        walks.push((format!("{order:?}{by} after a place"), walk(&query, order, Some(&place)).sql));
    }
    walks
}

/// Goal: a page costs the same at a million jobs as at ten.
/// Method: the plan of every list is written down here; a scan of the table or a sort of an unbounded set is not in it.
#[test]
fn each_list_walks_its_index() {
    let directory = tempfile::tempdir().unwrap();
    let conn = schema::open_writer(&directory.path().join("jobs.db")).unwrap();
    let plans: Vec<String> =
        walks().into_iter().map(|(what, sql)| format!("{what}: {}", schema::plan_of(&conn, &sql))).collect();

    assert_eq!(plans, PLANS);
}

/// A scan of an index with a limit is a walk from its start. The running jobs are few enough to be sorted.
const PLANS: [&str; 16] = [
    "Newest: SCAN jobs",
    "Newest after a place: SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)",
    "Newest by name: SEARCH jobs USING INDEX jobs_name (name=?)",
    "Newest by name after a place: SEARCH jobs USING INDEX jobs_name (name=? AND rowid<?)",
    "Newest by tag: SEARCH job_tags USING PRIMARY KEY (tag=?) | SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    "Newest by tag after a place: SEARCH job_tags USING PRIMARY KEY (tag=? AND job<?) | SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    "Newest by upstream: SEARCH executions USING PRIMARY KEY (upstream=?) | SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    "Newest by upstream after a place: SEARCH executions USING PRIMARY KEY (upstream=? AND job<?) | SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    "Due: SCAN jobs USING INDEX jobs_due",
    "Due after a place: SEARCH jobs USING INDEX jobs_due ((run_at,id)>(?,?))",
    "Ready: MERGE (UNION ALL) | LEFT | SCAN jobs USING INDEX jobs_ready \
     | RIGHT | SCAN jobs USING INDEX jobs_suspects",
    "Ready after a place: MERGE (UNION ALL) | LEFT | MERGE (UNION ALL) | LEFT | MERGE (UNION ALL) | LEFT | SEARCH jobs USING INDEX jobs_ready (name=? AND priority=? AND (ready_at,id)>(?,?)) \
     | RIGHT | SEARCH jobs USING INDEX jobs_ready (name=? AND priority<?) \
     | RIGHT | SEARCH jobs USING INDEX jobs_ready (name>?) \
     | RIGHT | MERGE (UNION ALL) | LEFT | MERGE (UNION ALL) | LEFT | SEARCH jobs USING INDEX jobs_suspects (name=? AND priority=? AND (ready_at,id)>(?,?)) \
     | RIGHT | SEARCH jobs USING INDEX jobs_suspects (name=? AND priority<?) \
     | RIGHT | SEARCH jobs USING INDEX jobs_suspects (name>?)",
    "Running: SCAN jobs USING INDEX jobs_running | USE TEMP B-TREE FOR ORDER BY",
    "Running after a place: SCAN jobs USING INDEX jobs_running | USE TEMP B-TREE FOR ORDER BY",
    "Final(Success): SEARCH jobs USING INDEX jobs_final (status=?)",
    "Final(Success) after a place: SEARCH jobs USING INDEX jobs_final (status=? AND (expires_at,id)<(?,?))",
];
