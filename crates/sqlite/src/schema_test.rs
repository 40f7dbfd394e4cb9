//! How a file comes to be, grows up, and is refused.

use super::*;

fn version(conn: &Connection) -> i64 {
    conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn fresh(directory: &tempfile::TempDir) -> Connection {
    Connection::open(directory.path().join("jobs.db")).unwrap()
}

#[test]
fn a_new_file_has_the_newest_schema_and_gives_free_pages_back() {
    let directory = tempfile::tempdir().unwrap();
    let conn = open_writer(&directory.path().join("jobs.db")).unwrap();

    assert_eq!(version(&conn), i64::try_from(MIGRATIONS.len()).unwrap());
    let text = |pragma| conn.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
    assert_eq!(text("journal_mode"), rusqlite::types::Value::Text("wal".to_owned()));
    assert_eq!(text("auto_vacuum"), rusqlite::types::Value::Integer(2));
    assert_eq!(text("application_id"), rusqlite::types::Value::Integer(i64::from(APPLICATION_ID)));
}

/// Goal: a file of any earlier release becomes one of this release, with what is in it, step by step.
/// Method: the migrations that a file has had are counted; the list given here stands for a release after this one.
#[test]
fn an_older_file_gets_the_migrations_that_it_lacks_and_keeps_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let conn = fresh(&directory);
    let [first] = MIGRATIONS;
    let second = "ALTER TABLE nodes ADD COLUMN zone TEXT";
    migrate(&conn, &[first]).unwrap();
    let insert = "INSERT INTO nodes (pool, started_at, beat_at, names, concurrency, host, pid) VALUES ('a/1', 0, 0, '[]', 1, '', 1)";
    conn.execute(insert, []).unwrap();

    migrate(&conn, &[first, second]).unwrap();
    migrate(&conn, &[first, second]).unwrap();

    assert_eq!(version(&conn), 2);
    let zone: Option<String> =
        conn.query_row("SELECT zone FROM nodes WHERE pool = 'a/1'", [], |row| row.get(0)).unwrap();
    assert_eq!(zone, None);
}

#[test]
fn a_migration_that_fails_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let conn = fresh(&directory);
    let [first] = MIGRATIONS;
    migrate(&conn, &[first]).unwrap();

    let broken = "ALTER TABLE nodes ADD COLUMN zone TEXT; ALTER TABLE nowhere ADD COLUMN zone TEXT";
    assert!(migrate(&conn, &[first, broken]).is_err());

    assert_eq!(version(&conn), 1);
    assert!(conn.prepare("SELECT zone FROM nodes").is_err());
}

#[test]
fn a_file_of_a_newer_release_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    open_writer(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();

    let refused = open_writer(&path).unwrap_err();

    assert!(matches!(refused, OpenError::NewerSchema { found: 99, .. }), "{refused}");
    assert!(matches!(open_reader(&path).unwrap_err(), OpenError::NewerSchema { found: 99, .. }));
}

#[test]
fn a_file_of_another_program_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    let before = std::fs::read(&path).unwrap();

    assert!(matches!(open_writer(&path).unwrap_err(), OpenError::NotOurs));

    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_reader_does_not_make_a_file_and_cannot_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    assert!(open_reader(&path).is_err());
    drop(open_writer(&path).unwrap());

    let reader = open_reader(&path).unwrap();

    assert!(reader.execute("DELETE FROM jobs", []).is_err());
}
