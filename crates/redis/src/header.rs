//! The header of a record: everything a transition changes in most jobs, as one short text that is rewritten as a whole.
//!
//! Three parts, separated by `|`, of fields separated by one space; `-` for what is not there; times in milliseconds:
//!
//! 1. what a claim looks at: `status version mark until attempt event_seq flags timeout ready_at digest`. Mark: the nonce of
//!    the lease while Running, else when the job was last updated. Until: when the lease ends. Flags: `h` it has a hook, `u`
//!    its unique key is to be freed by a claim (then `digest` is that key, in hex), `-` neither.
//! 2. what a claim writes besides, only while Running: `pool abort_at started_at updated_at`. Of a job that succeeded, `pool`
//!    alone: where its last attempt ran, of which the others tell the rest ([`told_attempt`]).
//! 3. the others: `fails crashes releases holds_key run_at started_at finished_at die_at expires_at signal signal_until
//!    ended_attempt ended_nonce ended_how ended_status ended_at`. While Running, `started_at` and the key of a job that is
//!    unique until its start are those of part 2 and of the rule of claims instead.
//!
//! Each change makes the version larger, but for one that extends a lease, which makes `until` later. So the first four
//! fields ([`seen`]) tell whether a record is still the one that a decision was made from; the mark is among them because a
//! record that was removed may come again under the same id, with the same versions.
//!
//! `lua/claim.lua` reads part 1, writes parts 1 and 2, and copies part 3; a test replays it against the rule book.

use std::fmt::Write as _;
use std::time::Duration;

use jobservice_core::job::{
    Attempt, AttemptOutcome, Ended, EndedHow, Job, Lease, Signal, SignalState, Spec, State, Status,
};
use jobservice_core::unique::Scope;
use jobservice_core::{PoolId, Time};

/// What is wrong with a text that should be a record.
pub(crate) type Wrong = String;

/// The header of a job.
pub(crate) fn write(job: &Job) -> String {
    let (spec, state) = (&job.spec, &job.state);
    let mut text = Fields(String::with_capacity(192));
    text.put(status_number(state.status));
    text.put(state.version);
    match &state.lease {
        Some(lease) => text.put(format_args!("{} {}", nonce(lease.nonce), lease.until.as_millis())),
        None => text.put(format_args!("{} -", state.updated_at.as_millis())),
    }
    text.put(state.attempt);
    text.put(state.event_seq);
    let frees = spec.unique.filter(|unique| unique.scope == Scope::UntilStart && state.holds_key);
    text.put(match (&spec.hook, frees) {
        (Some(_), Some(_)) => "hu",
        (Some(_), None) => "h",
        (None, Some(_)) => "u",
        (None, None) => "-",
    });
    text.put(spec.timeout.map_or(0, |timeout| timeout.as_millis()));
    text.put(state.ready_at.as_millis());
    match frees {
        Some(unique) => text.put(hex(&unique.digest)),
        None => text.put("-"),
    }
    text.part();
    if let Some(lease) = &state.lease {
        text.put(&lease.pool);
        text.some(lease.abort_at.map(Time::as_millis));
        text.some(state.started_at.map(Time::as_millis));
        text.put(state.updated_at.as_millis());
    } else if let Some(attempt) = told_attempt(state) {
        text.put(&attempt.pool);
    }
    text.part();
    text.put(state.fails);
    text.put(state.crashes);
    text.put(state.releases);
    text.put(u8::from(state.holds_key));
    let started_at = state.started_at.filter(|_| state.lease.is_none());
    let times = [state.run_at, started_at, state.finished_at, state.die_at, state.expires_at];
    for time in times {
        text.some(time.map(Time::as_millis));
    }
    text.some(state.signal.map(|signal| signal_letter(signal.signal)));
    text.some(state.signal.map(|signal| signal.until.as_millis()));
    match &state.ended {
        Some(ended) => {
            text.put(ended.attempt);
            text.put(nonce(ended.nonce));
            text.put(how_letter(ended.how));
            text.put(status_number(ended.status));
            text.put(ended.at.as_millis());
        }
        None => (0..5).for_each(|_| text.put("-")),
    }
    text.0
}

/// The last attempt, if all but its pool is told by the other fields of the header: that of nearly each job that succeeded.
/// It need not be among those that are stored beside the header.
pub(crate) fn told_attempt(state: &State) -> Option<&Attempt> {
    let last = state.attempts.last().filter(|_| state.status == Status::Success)?;
    let Attempt { attempt, pool: _, started_at, ended_at, outcome, error } = last;
    let is_told = *attempt == state.attempt
        && Some(*started_at) == state.started_at
        && Some(*ended_at) == state.finished_at
        && *outcome == AttemptOutcome::Success
        && error.is_none();
    is_told.then_some(last)
}

/// The first four fields of a header, each with the space after it: what tells a record from all that it was or will be.
pub(crate) fn seen(header: &str) -> &str {
    fields(header, 4)
}

/// A nonce as text.
pub(crate) fn nonce(number: u64) -> String {
    format!("{number:016x}")
}

/// The nonce of the lease that what [`seen`] gave is of, if it is Running.
pub(crate) fn nonce_of(seen: &str) -> Option<&str> {
    let mut fields = seen.split(' ');
    let status = status_of(fields.next()?)?;
    fields.nth(1).filter(|_| status == Status::Running)
}

/// What tells a lease from all others of a job, however often it was extended; of what [`seen`] gave.
pub(crate) fn seen_but_for_until(seen: &str) -> &str {
    fields(seen, 3)
}

fn fields(text: &str, count: usize) -> &str {
    let end = text.match_indices(' ').nth(count - 1).map_or(text.len(), |(at, _)| at + 1);
    text.get(..end).unwrap_or(text)
}

/// Reads a header; `spec` is that of the record. What is not in a header is left empty; of the attempts there is the one that
/// it tells of.
pub(crate) fn read(text: &str, spec: &Spec) -> Result<State, Wrong> {
    let mut parts = text.split('|');
    let (Some(first), Some(part_of_lease), Some(rest), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("header {text:?} has not three parts"));
    };
    let mut first = Reader { what: text, fields: first.split(' ') };
    let status = status_of(first.next()?).ok_or_else(|| first.wrong("status"))?;
    let version = first.number("version")?;
    let mark = first.next()?;
    let until = first.some_time("until")?;
    let attempt = first.number("attempt")?;
    let event_seq = first.number("event_seq")?;
    first.next()?;
    let timeout: u128 = first.number("timeout")?;
    if timeout != spec.timeout.map_or(0, |timeout| Duration::as_millis(&timeout)) {
        return Err(first.wrong("timeout"));
    }
    let ready_at = first.time("ready_at")?;

    let mut lease_fields = Reader { what: text, fields: part_of_lease.split(' ') };
    let (lease, lease_times) = match until {
        None => (None, None),
        Some(until) => {
            let nonce = u64::from_str_radix(mark, 16).map_err(|_| first.wrong("nonce"))?;
            let pool = PoolId::new(lease_fields.next()?).map_err(|error| error.to_string())?;
            let abort_at = lease_fields.some_time("abort_at")?;
            let times = (lease_fields.some_time("started_at")?, lease_fields.time("updated_at")?);
            (Some(Lease { nonce, pool, until, abort_at }), Some(times))
        }
    };
    if lease.is_some() != (status == Status::Running) {
        return Err(format!("header {text:?} is {status} with the wrong lease"));
    }

    let mut rest = Reader { what: text, fields: rest.split(' ') };
    let fails = rest.number("fails")?;
    let crashes = rest.number("crashes")?;
    let releases = rest.number("releases")?;
    let until_start = spec.unique.is_some_and(|unique| unique.scope == Scope::UntilStart);
    // A claim frees the key and copies this part.
    let holds_key = rest.number::<u8>("holds_key")? == 1 && !(status == Status::Running && until_start);
    let run_at = rest.some_time("run_at")?;
    let started_at = rest.some_time("started_at")?;
    let finished_at = rest.some_time("finished_at")?;
    let die_at = rest.some_time("die_at")?;
    let expires_at = rest.some_time("expires_at")?;
    let (started_at, updated_at) = match lease_times {
        Some((started_at, updated_at)) => (started_at, updated_at),
        None => (started_at, Time::from_millis(mark.parse().map_err(|_| first.wrong("updated_at"))?)),
    };
    let signal = match (rest.next()?, rest.some_time("signal_until")?) {
        ("-", None) => None,
        (letter, Some(until)) => {
            let signal = signal_of(letter).ok_or_else(|| rest.wrong("signal"))?;
            Some(SignalState { signal, until })
        }
        _ => return Err(rest.wrong("signal")),
    };
    let ended = match rest.next()? {
        "-" => None,
        attempt => Some(Ended {
            attempt: attempt.parse().map_err(|_| rest.wrong("ended_attempt"))?,
            nonce: rest.hex("ended_nonce")?,
            how: how_of(rest.next()?).ok_or_else(|| rest.wrong("ended_how"))?,
            status: status_of(rest.next()?).ok_or_else(|| rest.wrong("ended_status"))?,
            at: rest.time("ended_at")?,
        }),
    };
    let mut attempts = Vec::new();
    if status == Status::Success && !part_of_lease.is_empty() {
        let (Some(started_at), Some(ended_at)) = (started_at, finished_at) else {
            return Err(rest.wrong("finished_at"));
        };
        let pool = PoolId::new(part_of_lease).map_err(|error| error.to_string())?;
        attempts.push(Attempt { attempt, pool, started_at, ended_at, outcome: AttemptOutcome::Success, error: None });
    }
    Ok(State {
        status,
        version,
        attempt,
        lease,
        ended,
        fails,
        crashes,
        releases,
        event_seq,
        signal,
        holds_key,
        ready_at,
        run_at,
        started_at,
        finished_at,
        die_at,
        expires_at,
        updated_at,
        check_in: None,
        error: None,
        result: None,
        attempts,
    })
}

/// A text of fields as it grows.
struct Fields(String);

impl Fields {
    fn put(&mut self, value: impl std::fmt::Display) {
        if !(self.0.is_empty() || self.0.ends_with('|')) {
            self.0.push(' ');
        }
        // Writing to a string does not fail.
        write!(self.0, "{value}").ok();
    }

    fn some(&mut self, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.put(value),
            None => self.put("-"),
        }
    }

    fn part(&mut self) {
        self.0.push('|');
    }
}

/// Reads fields one after the other.
struct Reader<'a> {
    what: &'a str,
    fields: std::str::Split<'a, char>,
}

impl<'a> Reader<'a> {
    fn wrong(&self, field: &str) -> Wrong {
        format!("header {:?}: {field} cannot be read", self.what)
    }

    fn next(&mut self) -> Result<&'a str, Wrong> {
        self.fields.next().ok_or_else(|| format!("header {:?} is too short", self.what))
    }

    fn number<T: std::str::FromStr>(&mut self, field: &str) -> Result<T, Wrong> {
        self.next()?.parse().map_err(|_| self.wrong(field))
    }

    fn hex(&mut self, field: &str) -> Result<u64, Wrong> {
        u64::from_str_radix(self.next()?, 16).map_err(|_| self.wrong(field))
    }

    fn time(&mut self, field: &str) -> Result<Time, Wrong> {
        self.number(field).map(Time::from_millis)
    }

    fn some_time(&mut self, field: &str) -> Result<Option<Time>, Wrong> {
        match self.next()? {
            "-" => Ok(None),
            text => text.parse().map(Time::from_millis).map(Some).map_err(|_| self.wrong(field)),
        }
    }
}

/// A digest as text.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Reads a digest.
pub(crate) fn digest_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (text.len() == 64).then_some(digest)
}

/// The number of a status, the first field of a header.
pub(crate) const fn status_number(status: Status) -> u8 {
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

/// Reads the number of a status.
pub(crate) fn status_of(text: &str) -> Option<Status> {
    let number: u8 = text.parse().ok()?;
    Status::ALL.into_iter().find(|status| status_number(*status) == number)
}

const fn signal_letter(signal: Signal) -> char {
    match signal {
        Signal::Cancel => 'c',
        Signal::Stop => 's',
    }
}

fn signal_of(text: &str) -> Option<Signal> {
    [Signal::Cancel, Signal::Stop].into_iter().find(|signal| text.chars().eq([signal_letter(*signal)]))
}

const fn how_letter(how: EndedHow) -> char {
    match how {
        EndedHow::Finished => 'f',
        EndedHow::Released => 'r',
        EndedHow::Reaped => 'l',
        EndedHow::Aborted => 'a',
    }
}

fn how_of(text: &str) -> Option<EndedHow> {
    let all = [EndedHow::Finished, EndedHow::Released, EndedHow::Reaped, EndedHow::Aborted];
    all.into_iter().find(|how| text.chars().eq([how_letter(*how)]))
}
