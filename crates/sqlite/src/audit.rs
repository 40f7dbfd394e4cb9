//! Looks through everything: each record by itself, and what rows say of each other.

use std::collections::BTreeMap;

use jobservice_core::dump::{Contents, IdempotencyEntry};
use jobservice_core::job::{Job, Status};
use jobservice_core::outbox::OutboxEntry;
use jobservice_core::{JobId, Name, Time, invariant};
use rusqlite::Connection;

use crate::call::Failure;
use crate::names::read_options;
use crate::row::{self, Record};
use crate::{nodes, outbox, policy};

/// Everything that the file holds, as it is at one instant.
#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    contents: Contents,
    /// What cannot be read.
    broken: Vec<String>,
}

/// Reads everything. In a transaction, so that it is one instant.
fn read(conn: &Connection) -> Result<State, Failure> {
    let mut state = State::default();
    let mut all = conn.prepare(&format!("SELECT {} FROM jobs ORDER BY seq", row::columns()))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        match row::read(row, None) {
            Ok(record) => state.records.push(record),
            Err(Failure::Damaged(why)) => state.broken.push(format!("a record cannot be read: {why}")),
            Err(failure) => return Err(failure),
        }
    }
    let contents = &mut state.contents;
    contents.jobs = state.records.iter().map(|record| record.job.clone()).collect();
    contents.options = read_options(conn)?;
    contents.nodes = nodes::read_all(conn)?;
    let mut policies = conn.prepare(&format!("SELECT {} FROM policies", policy::COLUMNS))?;
    let mut rows = policies.query([])?;
    while let Some(row) = rows.next()? {
        match policy::read(row) {
            Ok(policy) => contents.policies.push(policy),
            Err(Failure::Damaged(why)) => state.broken.push(format!("a policy cannot be read: {why}")),
            Err(failure) => return Err(failure),
        }
    }
    let mut keys =
        conn.prepare("SELECT digest, id FROM jobs INDEXED BY jobs_key WHERE digest IS NOT NULL AND holds_key = 1")?;
    let mut rows = keys.query([])?;
    while let Some(row) = rows.next()? {
        contents.unique.push((row.get(0)?, id(row, 1)?));
    }
    let mut idempotency = conn.prepare("SELECT name, key, id, expires_at FROM idempotency")?;
    let mut rows = idempotency.query([])?;
    while let Some(row) = rows.next()? {
        let expires_at = Time::from_millis(row.get(3)?);
        contents.idempotency.push(IdempotencyEntry {
            name: name(row, 0)?,
            key: row.get(1)?,
            id: id(row, 2)?,
            expires_at,
        });
    }
    let mut events = conn.prepare(&format!(
        "SELECT {}, id FROM (SELECT outbox.*, jobs.id FROM outbox LEFT JOIN jobs ON jobs.seq = job) ORDER BY job, seq",
        outbox::ENTRY_COLUMNS
    ))?;
    let mut rows = events.query([])?;
    while let Some(row) = rows.next()? {
        if row.get_ref(outbox::ENTRY_COLUMNS_COUNT)? == rusqlite::types::ValueRef::Null {
            state.broken.push("there is a hook event of a job that does not exist".to_owned());
            continue;
        }
        contents.outbox.push(outbox::read_entry(row, &id(row, outbox::ENTRY_COLUMNS_COUNT)?)?);
    }
    Ok(state)
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> Result<JobId, Failure> {
    let id = JobId::new(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?);
    id.map_err(|error| Failure::Damaged(error.to_string()))
}

fn name(row: &rusqlite::Row<'_>, column: usize) -> Result<Name, Failure> {
    let name = Name::new(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?);
    name.map_err(|error| Failure::Damaged(error.to_string()))
}

/// The whole state as text.
pub(crate) fn dump(conn: &Connection) -> Result<String, Failure> {
    Ok(jobservice_core::dump::render(&one_instant(conn, read)?.contents))
}

/// What is wrong, each thing as a sentence.
pub(crate) fn audit(conn: &Connection) -> Result<Vec<String>, Failure> {
    one_instant(conn, |conn| {
        let State { records, contents, broken } = read(conn)?;
        let mut wrong = broken;
        wrong.extend(contents.jobs.iter().flat_map(invariant::check));
        wrong.extend(invariant::unique_keys_have_one_holder(contents.jobs.iter()));
        let policies = contents.policies.iter();
        wrong.extend(policies.flat_map(invariant::check_policy));
        wrong.extend(events(&contents));
        wrong.extend(counts(conn, &contents.jobs)?);
        wrong.extend(derived(conn, &records)?);
        for (what, sql) in SENTENCES {
            let mut found = conn.prepare(sql)?;
            let found = found.query_map([], |row| row.get(0)).and_then(Iterator::collect::<Result<Vec<String>, _>>);
            match found {
                Ok(found) => wrong.extend(found.into_iter().map(|which| format!("{what}: {which}"))),
                // A damaged row must not keep the others from being looked at.
                Err(error) => wrong.push(format!("it cannot be seen whether {what}: {error}")),
            }
        }
        // Reads every page, and compares each index with the rows.
        let mut check = conn.prepare("PRAGMA integrity_check")?;
        let found = check.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        wrong.extend(found.into_iter().filter(|line| line != "ok").map(|line| format!("the file: {line}")));
        Ok(wrong)
    })
}

/// What must select nothing, and what it means if it selects something.
const SENTENCES: [(&str, &str); 11] = [
    (
        "the time to reap at is set although the job does not run",
        "SELECT id FROM jobs WHERE reap_at IS NOT NULL AND status <> 2",
    ),
    ("a running job has no time to reap at", "SELECT id FROM jobs WHERE reap_at IS NULL AND status = 2"),
    ("a record was set aside because it could not be read", "SELECT id FROM jobs WHERE status = 7"),
    (
        "a job that was never claimed has a history",
        "SELECT id FROM jobs WHERE attempt = 0 AND status < 2 AND coalesce(started_at, finished_at, die_at, expires_at, \
         lease_nonce, lease_pool, lease_until, abort_at, reap_at, signal, signal_until, ended_attempt, ended_nonce, \
         ended_how, ended_status, ended_at, check_in, check_in_at, error, result, attempts) IS NOT NULL",
    ),
    (
        "an execution is not in the table of executions as its record says",
        "SELECT id FROM jobs WHERE upstream IS NOT NULL AND NOT EXISTS (SELECT 1 FROM executions \
         WHERE executions.upstream = jobs.upstream AND job = seq AND live = (status < 3))",
    ),
    (
        "the table of executions names a job that is none",
        "SELECT job FROM executions WHERE NOT EXISTS (SELECT 1 FROM jobs \
         WHERE seq = job AND jobs.upstream = executions.upstream)",
    ),
    (
        "a tag names a job that does not exist",
        "SELECT tag FROM job_tags WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE seq = job)",
    ),
    (
        "a tag of a job is not in the table of tags, or the other way round",
        "SELECT id FROM jobs WHERE coalesce((SELECT group_concat(tag, char(10)) FROM (SELECT tag FROM job_tags WHERE job = seq \
         ORDER BY tag)), '') <> coalesce((SELECT group_concat(tag, char(10)) FROM (SELECT DISTINCT value AS tag FROM \
         json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END) ORDER BY value)), '')",
    ),
    (
        "the turn of a job's events is not that of its first",
        "SELECT id FROM outbox_turns WHERE next_at IS NOT (SELECT next_at FROM outbox WHERE outbox.job = outbox_turns.job \
         AND delivery = 0 ORDER BY seq LIMIT 1)",
    ),
    (
        "a waiting hook event has no turn",
        "SELECT job || '/' || seq FROM outbox WHERE delivery = 0 AND NOT EXISTS (SELECT 1 FROM outbox_turns \
         WHERE outbox_turns.job = outbox.job)",
    ),
    (
        "the id of a job is the id of a policy as well",
        "SELECT policies.id FROM policies JOIN jobs ON jobs.id = policies.id",
    ),
];

fn events(contents: &Contents) -> Vec<String> {
    let jobs: BTreeMap<&JobId, &Job> = contents.jobs.iter().map(|job| (&job.id, job)).collect();
    let mut of: BTreeMap<&JobId, Vec<&OutboxEntry>> = BTreeMap::new();
    for entry in &contents.outbox {
        of.entry(&entry.id).or_default().push(entry);
    }
    let of = of.into_iter().filter_map(|(id, entries)| Some((jobs.get(id)?, entries)));
    of.flat_map(|(job, entries)| invariant::check_events(job, &entries)).collect()
}

/// The table of counts against the records.
fn counts(conn: &Connection, jobs: &[Job]) -> Result<Option<String>, Failure> {
    let mut counted: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for job in jobs {
        *counted.entry((job.spec.name.as_str().to_owned(), row::status_number(job.state.status))).or_default() += 1;
    }
    let mut stored = conn.prepare("SELECT name, status, jobs FROM counts WHERE jobs <> 0")?;
    let stored = stored.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let stored: BTreeMap<(String, i64), i64> = stored.collect::<Result<_, _>>()?;
    Ok((stored != counted).then(|| format!("the counts {stored:?} should be {counted:?}")))
}

/// What is stored twice for the sake of an index must agree.
fn derived(conn: &Connection, records: &[Record]) -> Result<Vec<String>, Failure> {
    let mut reap_at = conn.prepare("SELECT reap_at FROM jobs WHERE seq = ?1")?;
    let mut wrong = Vec::new();
    for Record { seq, job } in records.iter().filter(|record| record.job.state.status == Status::Running) {
        let stored: Option<i64> = reap_at.query_row([seq], |row| row.get(0))?;
        if stored != job.state.reap_at().map(Time::as_millis) {
            wrong.push(format!("job {}: the time to reap at is {stored:?}", job.id));
        }
    }
    let mut policies =
        conn.prepare(&format!("SELECT {}, active, next_due, schedule_key FROM policies", policy::COLUMNS))?;
    let mut rows = policies.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(policy) = policy::read(row) else { continue };
        let stored: (bool, Option<i64>, Option<String>) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let due = policy.state.next_due.map(Time::as_millis);
        if stored != (policy.is_active(), due, policy.spec.schedule_key.as_deref().map(str::to_owned)) {
            wrong.push(format!("policy {}: the columns {stored:?} are not those of the record", policy.id));
        }
    }
    Ok(wrong)
}

fn one_instant<T>(conn: &Connection, look: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
    conn.execute_batch("BEGIN")?;
    let looked = look(conn);
    conn.execute_batch("ROLLBACK")?;
    looked
}
