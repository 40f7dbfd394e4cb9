//! A record as a row, and back.
//!
//! The columns are named once, in the order in which they are bound and read; everything else that mentions one does so
//! in a WHERE or an index. Numbers stand for enums as `schema/0001_first.sql` says.

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{
    Attempt, AttemptOutcome, CheckIn, Ended, EndedHow, Job, Kind, Lease, Retention, Signal, SignalState, Spec, State,
    Status,
};
use jobservice_core::unique::{Scope, Unique};
use jobservice_core::{JobId, Name, PoolId, Time};
use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Row, Statement};

use crate::call::Failure;

/// What never changes, in the order of [`bind_spec`].
pub(crate) const SPEC_COLUMNS: &str = "seq, id, name, priority, kind, max_fails, timeout_ms, enqueued_at, \
     success_seconds, stopped_seconds, error_seconds, scope, digest, upstream, hook, tags, parameters";

/// What a job has from its submission on, in the order of [`bind_beginning`]. All other columns of the state are null
/// until it is claimed or ends.
pub(crate) const BEGINNING_COLUMNS: &str =
    "status, version, attempt, fails, crashes, releases, event_seq, holds_key, ready_at, run_at, updated_at";

/// What comes with its runs and its end, in the order of [`bind_history`].
pub(crate) const HISTORY_COLUMNS: &str = "started_at, finished_at, die_at, expires_at, \
     lease_nonce, lease_pool, lease_until, abort_at, reap_at, signal, signal_until, \
     ended_attempt, ended_nonce, ended_how, ended_status, ended_at, check_in, check_in_at, error, result, attempts";

/// A record and the number of its row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) seq: i64,
    pub(crate) job: Job,
}

/// All columns, as [`read`] wants them.
pub(crate) fn columns() -> String {
    format!("{SPEC_COLUMNS}, {BEGINNING_COLUMNS}, {HISTORY_COLUMNS}")
}

/// Binds values one after the other.
pub(crate) struct Binder<'a, 'c> {
    statement: &'a mut Statement<'c>,
    next: usize,
}

impl<'a, 'c> Binder<'a, 'c> {
    pub(crate) fn new(statement: &'a mut Statement<'c>) -> Self {
        Binder { statement, next: 1 }
    }

    #[inline]
    pub(crate) fn put(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.statement.raw_bind_parameter(self.next, value)?;
        self.next += 1;
        Ok(())
    }

    /// Runs the statement with what was bound; answers how many rows it changed.
    pub(crate) fn execute(self) -> rusqlite::Result<usize> {
        self.statement.raw_execute()
    }
}

fn millis(time: Option<Time>) -> Option<i64> {
    time.map(Time::as_millis)
}

pub(crate) fn bind_spec(binder: &mut Binder<'_, '_>, seq: i64, id: &JobId, spec: &Spec) -> Result<(), Failure> {
    binder.put(seq)?;
    binder.put(id.as_str())?;
    binder.put(spec.name.as_str())?;
    binder.put(spec.priority)?;
    binder.put(kind_number(spec.kind))?;
    binder.put(spec.max_fails)?;
    binder.put(spec.timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)))?;
    binder.put(spec.enqueued_at.as_millis())?;
    binder.put(spec.retention.success_seconds)?;
    binder.put(spec.retention.stopped_seconds)?;
    binder.put(spec.retention.error_seconds)?;
    binder.put(spec.unique.map(|unique| scope_number(unique.scope)))?;
    binder.put(spec.unique.as_ref().map(|unique| unique.digest.as_slice()))?;
    binder.put(spec.upstream.as_ref().map(JobId::as_str))?;
    binder.put(spec.hook.as_deref())?;
    binder.put(if spec.tags.is_empty() { None } else { Some(to_json("tags", &spec.tags)?) })?;
    binder.put(&*spec.parameters)?;
    Ok(())
}

/// In the order of [`BEGINNING_COLUMNS`].
pub(crate) fn bind_beginning(binder: &mut Binder<'_, '_>, state: &State) -> Result<(), Failure> {
    binder.put(status_number(state.status))?;
    binder.put(state.version as i64)?;
    binder.put(state.attempt)?;
    binder.put(state.fails)?;
    binder.put(state.crashes)?;
    binder.put(state.releases)?;
    binder.put(state.event_seq)?;
    binder.put(state.holds_key)?;
    binder.put(state.ready_at.as_millis())?;
    binder.put(millis(state.run_at))?;
    binder.put(state.updated_at.as_millis())?;
    Ok(())
}

/// In the order of [`HISTORY_COLUMNS`].
pub(crate) fn bind_history(binder: &mut Binder<'_, '_>, state: &State) -> Result<(), Failure> {
    binder.put(millis(state.started_at))?;
    binder.put(millis(state.finished_at))?;
    binder.put(millis(state.die_at))?;
    binder.put(millis(state.expires_at))?;
    bind_lease(binder, state)?;
    binder.put(state.signal.map(|signal| signal_number(signal.signal)))?;
    binder.put(state.signal.map(|signal| signal.until.as_millis()))?;
    bind_ended(binder, state.ended.as_ref())?;
    binder.put(state.check_in.as_ref().map(|check_in| &*check_in.message))?;
    binder.put(state.check_in.as_ref().map(|check_in| check_in.at.as_millis()))?;
    binder.put(state.error.as_deref())?;
    binder.put(state.result.as_deref())?;
    bind_attempts(binder, &state.attempts)
}

/// Whether nothing has happened to the job yet, so that [`bind_beginning`] tells all of it.
pub(crate) fn is_beginning(state: &State) -> bool {
    // Taken apart by name, so that a new field does not compile until it is known here.
    let State {
        status,
        version: _,
        attempt: 0,
        lease: None,
        ended: None,
        fails: _,
        crashes: _,
        releases: _,
        event_seq: _,
        signal: None,
        holds_key: _,
        ready_at: _,
        run_at: _,
        started_at: None,
        finished_at: None,
        die_at: None,
        expires_at: None,
        updated_at: _,
        check_in: None,
        error: None,
        result: None,
        attempts,
    } = state
    else {
        return false;
    };
    attempts.is_empty() && waits_for_its_first_claim(*status, 0)
}

/// A job of which this is true has no history. The audit looks whether its columns are null indeed.
fn waits_for_its_first_claim(status: Status, attempt: u32) -> bool {
    attempt == 0 && matches!(status, Status::Scheduled | Status::Pending)
}

/// The lease and, for the index, the time at which the service must look at it.
pub(crate) fn bind_lease(binder: &mut Binder<'_, '_>, state: &State) -> Result<(), Failure> {
    let lease = state.lease.as_ref();
    binder.put(lease.map(|lease| lease.nonce as i64))?;
    binder.put(lease.map(|lease| lease.pool.as_str()))?;
    binder.put(lease.map(|lease| lease.until.as_millis()))?;
    binder.put(lease.and_then(|lease| millis(lease.abort_at)))?;
    binder.put(millis(state.reap_at()))?;
    Ok(())
}

pub(crate) fn bind_ended(binder: &mut Binder<'_, '_>, ended: Option<&Ended>) -> Result<(), Failure> {
    binder.put(ended.map(|ended| ended.attempt))?;
    binder.put(ended.map(|ended| ended.nonce as i64))?;
    binder.put(ended.map(|ended| how_number(ended.how)))?;
    binder.put(ended.map(|ended| status_number(ended.status)))?;
    binder.put(ended.map(|ended| ended.at.as_millis()))?;
    Ok(())
}

/// An attempt as it is stored: by place, for it is written with each job and stays with it.
type StoredAttempt<Pool, Text> = (u32, Pool, i64, i64, AttemptOutcome, Text);

pub(crate) fn bind_attempts(binder: &mut Binder<'_, '_>, attempts: &[Attempt]) -> Result<(), Failure> {
    if attempts.is_empty() {
        binder.put(None::<&str>)?;
        return Ok(());
    }
    let json = match attempts {
        [only] => to_json("attempts", &[stored_attempt(only)])?,
        all => to_json("attempts", &all.iter().map(stored_attempt).collect::<Vec<_>>())?,
    };
    binder.put(json)?;
    Ok(())
}

fn stored_attempt(of: &Attempt) -> StoredAttempt<&str, Option<&str>> {
    let Attempt { attempt, pool, started_at, ended_at, outcome, error } = of;
    (*attempt, pool.as_str(), started_at.as_millis(), ended_at.as_millis(), *outcome, error.as_deref())
}

fn read_attempts(text: &str) -> Result<Vec<Attempt>, Failure> {
    let stored: Vec<StoredAttempt<PoolId, Option<Arc<str>>>> = from_json("attempts", text)?;
    let attempt = |(attempt, pool, started_at, ended_at, outcome, error)| Attempt {
        attempt,
        pool,
        started_at: Time::from_millis(started_at),
        ended_at: Time::from_millis(ended_at),
        outcome,
        error,
    };
    Ok(stored.into_iter().map(attempt).collect())
}

pub(crate) fn to_json<T: serde::Serialize + ?Sized>(what: &str, value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Invalid(format!("{what} cannot be written as JSON: {error}")))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Damaged(format!("{what} cannot be read: {error}")))
}

/// Reads the columns of a row one after the other.
struct Cells<'a, 'r> {
    row: &'a Row<'r>,
    next: usize,
}

impl Cells<'_, '_> {
    #[inline]
    fn get<T: FromSql>(&mut self) -> Result<T, Failure> {
        let value = self.row.get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    fn text(&mut self) -> Result<Option<&str>, Failure> {
        let value = self.row.get_ref(self.next)?;
        self.next += 1;
        value.as_str_or_null().map_err(|error| Failure::Damaged(format!("column {}: {error}", self.next - 1)))
    }

    fn shared(&mut self) -> Result<Option<Arc<str>>, Failure> {
        Ok(self.text()?.map(Arc::from))
    }

    fn time(&mut self) -> Result<Option<Time>, Failure> {
        Ok(self.get::<Option<i64>>()?.map(Time::from_millis))
    }

    fn number<T>(&mut self, what: &str, read: fn(i64) -> Option<T>) -> Result<Option<T>, Failure> {
        let Some(number) = self.get::<Option<i64>>()? else { return Ok(None) };
        read(number).map(Some).ok_or_else(|| Failure::Damaged(format!("{number} is no {what}")))
    }
}

fn needed<T>(what: &str, value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::Damaged(format!("{what} is missing")))
}

fn valid<T>(read: Result<T, jobservice_core::id::InvalidId>) -> Result<T, Failure> {
    read.map_err(|error| Failure::Damaged(error.to_string()))
}

/// Reads a row selected as [`columns`]. `known` saves reading the name again when it was asked for.
pub(crate) fn read(row: &Row<'_>, known: Option<&Name>) -> Result<Record, Failure> {
    let mut cells = Cells { row, next: 0 };
    let seq = cells.get()?;
    let job = read_job(&mut cells, known).map_err(|failure| match failure {
        Failure::Engine(error) if error.sqlite_error().is_some() => Failure::Engine(error),
        other => Failure::Damaged(format!("row {seq}: {other}")),
    })?;
    Ok(Record { seq, job })
}

fn read_job(cells: &mut Cells<'_, '_>, known: Option<&Name>) -> Result<Job, Failure> {
    let id = valid(JobId::new(needed("id", cells.text()?)?))?;
    let name = match (known, needed("name", cells.text()?)?) {
        (Some(known), text) if known.as_str() == text => known.clone(),
        (_, text) => valid(Name::new(text))?,
    };
    let priority = cells.get()?;
    let kind = needed("kind", cells.number("kind", kind_of)?)?;
    let max_fails = cells.get()?;
    let timeout = cells.get::<Option<i64>>()?.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0)));
    let enqueued_at = Time::from_millis(cells.get()?);
    let retention =
        Retention { success_seconds: cells.get()?, stopped_seconds: cells.get()?, error_seconds: cells.get()? };
    let scope = cells.number("scope", scope_of)?;
    let digest: Option<[u8; 32]> = cells.get()?;
    let unique = scope.zip(digest).map(|(scope, digest)| Unique { digest, scope });
    let upstream = cells.text()?.map(JobId::new).map(valid).transpose()?;
    let hook = cells.shared()?;
    let tags = cells.text()?.map(|text| from_json("tags", text)).transpose()?.unwrap_or_default();
    let parameters = needed("parameters", cells.shared()?)?;
    let spec = Spec {
        name,
        kind,
        parameters,
        priority,
        unique,
        max_fails,
        timeout,
        hook,
        upstream,
        tags,
        retention,
        enqueued_at,
    };
    Ok(Job { id, spec: Arc::new(spec), state: read_state(cells)? })
}

fn read_state(cells: &mut Cells<'_, '_>) -> Result<State, Failure> {
    let status = needed("status", cells.number("status", status_of)?)?;
    let mut state = State {
        status,
        version: cells.get::<i64>()? as u64,
        attempt: cells.get()?,
        fails: cells.get()?,
        crashes: cells.get()?,
        releases: cells.get()?,
        event_seq: cells.get()?,
        holds_key: cells.get()?,
        ready_at: Time::from_millis(cells.get()?),
        run_at: cells.time()?,
        updated_at: Time::from_millis(cells.get()?),
        lease: None,
        ended: None,
        signal: None,
        started_at: None,
        finished_at: None,
        die_at: None,
        expires_at: None,
        check_in: None,
        error: None,
        result: None,
        attempts: Vec::new(),
    };
    // Most jobs that are claimed are claimed for the first time.
    if !waits_for_its_first_claim(status, state.attempt) {
        read_history(cells, &mut state)?;
    }
    Ok(state)
}

fn read_history(cells: &mut Cells<'_, '_>, state: &mut State) -> Result<(), Failure> {
    (state.started_at, state.finished_at) = (cells.time()?, cells.time()?);
    (state.die_at, state.expires_at) = (cells.time()?, cells.time()?);

    let nonce: Option<i64> = cells.get()?;
    let pool = cells.text()?.map(PoolId::new).map(valid).transpose()?;
    let (until, abort_at) = (cells.time()?, cells.time()?);
    state.lease = match (nonce, pool, until) {
        (Some(nonce), Some(pool), Some(until)) => Some(Lease { nonce: nonce as u64, pool, until, abort_at }),
        (None, None, None) => None,
        _ => return Err(Failure::Damaged("half a lease".to_owned())),
    };
    // The time to reap at is for the index; it follows from lease and signal.
    cells.time()?;
    let signal = cells.number("signal", signal_of)?;
    state.signal = signal.zip(cells.time()?).map(|(signal, until)| SignalState { signal, until });

    let ended = (cells.get::<Option<u32>>()?, cells.get::<Option<i64>>()?);
    let ended = (ended, cells.number("end of a lease", how_of)?, cells.number("status", status_of)?, cells.time()?);
    state.ended = match ended {
        ((Some(attempt), Some(nonce)), Some(how), Some(status), Some(at)) => {
            Some(Ended { attempt, nonce: nonce as u64, how, status, at })
        }
        ((None, None), None, None, None) => None,
        _ => return Err(Failure::Damaged("half an end of a lease".to_owned())),
    };
    let message = cells.shared()?;
    state.check_in = message.zip(cells.time()?).map(|(message, at)| CheckIn { message, at });
    (state.error, state.result) = (cells.shared()?, cells.shared()?);
    state.attempts = cells.text()?.map(read_attempts).transpose()?.unwrap_or_default();
    Ok(())
}

/// The number of a row that cannot be read: it is in no set, waits for `doctor`, and blocks nobody.
pub(crate) const SET_ASIDE: i64 = 7;

pub(crate) const fn status_number(status: Status) -> i64 {
    match status {
        Status::Scheduled => 0,
        Status::Pending => 1,
        Status::Running => 2,
        Status::Error => 3,
        Status::Success => 4,
        Status::Stopped => 5,
        Status::Cancelled => 6,
    }
}

pub(crate) fn status_of(number: i64) -> Option<Status> {
    Status::ALL.into_iter().find(|status| status_number(*status) == number)
}

const fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Generic => 0,
        Kind::Scheduled => 1,
        Kind::Periodic => 2,
    }
}

fn kind_of(number: i64) -> Option<Kind> {
    [Kind::Generic, Kind::Scheduled, Kind::Periodic].into_iter().find(|kind| kind_number(*kind) == number)
}

const fn scope_number(scope: Scope) -> i64 {
    match scope {
        Scope::UntilFinal => 0,
        Scope::UntilStart => 1,
    }
}

fn scope_of(number: i64) -> Option<Scope> {
    [Scope::UntilFinal, Scope::UntilStart].into_iter().find(|scope| scope_number(*scope) == number)
}

const fn signal_number(signal: Signal) -> i64 {
    match signal {
        Signal::Cancel => 0,
        Signal::Stop => 1,
    }
}

fn signal_of(number: i64) -> Option<Signal> {
    [Signal::Cancel, Signal::Stop].into_iter().find(|signal| signal_number(*signal) == number)
}

const fn how_number(how: EndedHow) -> i64 {
    match how {
        EndedHow::Finished => 0,
        EndedHow::Released => 1,
        EndedHow::Reaped => 2,
        EndedHow::Aborted => 3,
    }
}

fn how_of(number: i64) -> Option<EndedHow> {
    let all = [EndedHow::Finished, EndedHow::Released, EndedHow::Reaped, EndedHow::Aborted];
    all.into_iter().find(|how| how_number(*how) == number)
}
