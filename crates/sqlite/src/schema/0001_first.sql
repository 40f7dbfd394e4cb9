-- The whole state of the service. Times are milliseconds since 1970-01-01 UTC.
-- `seq` is the order in which the store took the jobs in: newest first is the rowid, backwards.

CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    priority        INTEGER NOT NULL,
    status          INTEGER NOT NULL,   -- 0 scheduled 1 pending 2 running 3 error 4 success 5 stopped 6 cancelled 7 set aside as unreadable
    version         INTEGER NOT NULL,
    attempt         INTEGER NOT NULL,
    fails           INTEGER NOT NULL,
    crashes         INTEGER NOT NULL,
    releases        INTEGER NOT NULL,
    event_seq       INTEGER NOT NULL,
    holds_key       INTEGER NOT NULL,
    ready_at        INTEGER NOT NULL,
    run_at          INTEGER,
    started_at      INTEGER,
    finished_at     INTEGER,
    die_at          INTEGER,
    expires_at      INTEGER,
    updated_at      INTEGER NOT NULL,
    lease_nonce     INTEGER,            -- the 64 bits of the nonce, as a signed number
    lease_pool      TEXT,
    lease_until     INTEGER,
    abort_at        INTEGER,
    reap_at         INTEGER,            -- when the service must look at the running job: the least of lease end, grace, timeout
    signal          INTEGER,            -- 0 cancel 1 stop
    signal_until    INTEGER,
    ended_attempt   INTEGER,
    ended_nonce     INTEGER,
    ended_how       INTEGER,            -- 0 finished 1 released 2 reaped 3 aborted
    ended_status    INTEGER,
    ended_at        INTEGER,
    check_in_at     INTEGER,
    kind            INTEGER NOT NULL,   -- 0 generic 1 scheduled 2 periodic
    max_fails       INTEGER NOT NULL,
    timeout_ms      INTEGER,
    enqueued_at     INTEGER NOT NULL,
    success_seconds INTEGER NOT NULL,   -- how long it is kept, by how it ended
    stopped_seconds INTEGER NOT NULL,
    error_seconds   INTEGER NOT NULL,
    scope           INTEGER,            -- 0 until final 1 until start
    digest          BLOB,
    upstream        TEXT,
    hook            TEXT,
    tags            TEXT,               -- JSON array
    check_in        TEXT,
    attempts        TEXT,               -- JSON, oldest first: [[attempt, pool, started_at, ended_at, outcome, error], ..]
    error           TEXT,
    result          TEXT,
    parameters      TEXT    NOT NULL
) STRICT;

-- Each index costs about a microsecond per job that enters it, so there is one per question that must not scan, and it
-- holds only the jobs that the question is about.
CREATE UNIQUE INDEX jobs_id  ON jobs (id);
CREATE INDEX jobs_name       ON jobs (name);
CREATE INDEX jobs_ready      ON jobs (name, priority DESC, ready_at, id) WHERE status = 1 AND crashes = 0;
CREATE INDEX jobs_suspects   ON jobs (name, priority DESC, ready_at, id) WHERE status = 1 AND crashes > 0;
CREATE INDEX jobs_due        ON jobs (run_at, id) WHERE status = 0;
CREATE INDEX jobs_running    ON jobs (name, reap_at, lease_pool) WHERE status = 2;
CREATE INDEX jobs_final      ON jobs (status, expires_at, id) WHERE status >= 3;
CREATE UNIQUE INDEX jobs_key ON jobs (digest) WHERE holds_key = 1;
-- Executions of policies and sub jobs of jobs. A table, not an index: an index is opened by every statement that writes
-- a job, this only by those of executions.
CREATE TABLE executions (
    upstream TEXT    NOT NULL,
    job      INTEGER NOT NULL,
    live     INTEGER NOT NULL,          -- whether it is not final
    PRIMARY KEY (upstream, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX executions_live ON executions (upstream) WHERE live = 1;

CREATE TABLE job_tags (
    tag TEXT    NOT NULL,
    job INTEGER NOT NULL,
    PRIMARY KEY (tag, job)
) STRICT, WITHOUT ROWID;

-- Hook events: those that wait, and the newest of those that are settled. The turn of a job is that of its first
-- waiting event.
CREATE TABLE outbox (
    job       INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    status    INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    delivery  INTEGER NOT NULL,         -- 0 waiting 1 delivered 2 given up 3 gone: the receiver wants no more
    next_at   INTEGER NOT NULL,         -- when its turn comes, or when it was settled
    tries     INTEGER NOT NULL,
    check_in  TEXT,
    error     TEXT,
    failure   TEXT,                     -- why the last delivery failed
    resent_at INTEGER,
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_since ON outbox (coalesce(resent_at, at)) WHERE delivery = 0;

CREATE TABLE outbox_turns (
    job     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL,
    next_at INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_turns_next ON outbox_turns (next_at, id);

CREATE TABLE policies (
    id           TEXT    NOT NULL PRIMARY KEY,
    schedule_key TEXT,
    name         TEXT    NOT NULL,
    active       INTEGER NOT NULL,
    next_due     INTEGER,
    spec         TEXT    NOT NULL,      -- JSON
    state        TEXT    NOT NULL       -- JSON
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX policies_key ON policies (schedule_key) WHERE schedule_key IS NOT NULL;
CREATE INDEX policies_due        ON policies (next_due) WHERE active = 1;

CREATE TABLE idempotency (
    name       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (name, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires_at);

-- What an operator said of a name; no row says nothing.
CREATE TABLE name_options (
    name            TEXT    NOT NULL PRIMARY KEY,
    paused          INTEGER NOT NULL,
    max_concurrency INTEGER,
    weight          INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    pool        TEXT    NOT NULL PRIMARY KEY,
    started_at  INTEGER NOT NULL,
    beat_at     INTEGER NOT NULL,
    names       TEXT    NOT NULL,       -- JSON array
    concurrency INTEGER NOT NULL,
    host        TEXT    NOT NULL,
    pid         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many jobs of a name have a status: written in the transaction of the change, never decided upon (limits are
-- counted from the running jobs), compared with the records by the audit.
CREATE TABLE counts (
    name   TEXT    NOT NULL,
    status INTEGER NOT NULL,
    jobs   INTEGER NOT NULL,
    PRIMARY KEY (name, status)
) STRICT, WITHOUT ROWID;

-- What happened in a minute, for charts.
CREATE TABLE minutes (
    minute    INTEGER NOT NULL,         -- minutes since 1970-01-01 UTC
    name      TEXT    NOT NULL,
    submitted INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed    INTEGER NOT NULL,         -- runs that failed or whose worker was lost
    wait_ms   INTEGER NOT NULL,         -- sum over the runs that began
    run_ms    INTEGER NOT NULL,         -- sum over the runs that ended
    PRIMARY KEY (minute, name)
) STRICT, WITHOUT ROWID;

-- For people with a shell: `sqlite3 jobs.db "select * from readable_jobs limit 5"`.
CREATE VIEW readable_jobs AS
SELECT seq, id, name, priority,
    CASE status WHEN 0 THEN 'scheduled' WHEN 1 THEN 'pending' WHEN 2 THEN 'running' WHEN 3 THEN 'error'
        WHEN 4 THEN 'success' WHEN 5 THEN 'stopped' WHEN 6 THEN 'cancelled' ELSE 'set aside' END AS status,
    attempt, fails, crashes,
    datetime(enqueued_at / 1000, 'unixepoch') AS enqueued,
    datetime(run_at / 1000, 'unixepoch') AS due,
    datetime(started_at / 1000, 'unixepoch') AS started,
    datetime(finished_at / 1000, 'unixepoch') AS finished,
    lease_pool AS pool, check_in, error, parameters
FROM jobs;
