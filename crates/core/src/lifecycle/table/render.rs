//! Puts the table on paper: what `docs/LIFECYCLE.md` says.

use std::fmt::{Debug, Write};
use std::time::Duration;

use crate::Time;
use crate::job::{Index, Lease, State, Status};
use crate::lifecycle::table::{Cell, Effect, EventKind, Example, cells};
use crate::lifecycle::{Change, HookEvent};

const INTRO: &str = "\
<!-- Written by `cargo xtask docs` from crates/core/src/lifecycle.rs. Do not edit. -->

# The life of a job

What each event does to a job in each status. Every change of a job is a cell of this table; there is no other place
that changes one. The table is not written by hand: each cell is the answer of `lifecycle::decide` about jobs that were
brought to that status by `lifecycle::decide`, and a test compares this file with the code.

## The table
";

const LEGEND: &str = "
`*` is a report of a run: it counts only if it shows the current lease (id, attempt, nonce). With two entries in a cell
the second is for another job in the same cell; the section of the row shows which.

| cell | meaning |
|---|---|
| a **status** | the job's status becomes this one |
| changed | these fields of the record change, the status stays |
| gone | the record is removed, with all that belongs to it |
| lost | nothing changes: the reporter is told that the lease is no longer its own |
| repeated | nothing changes: the reporter is given the answer of the first time |
| unchanged | nothing changes: the job is as asked already |
| not yet | nothing changes: the event came before its time |
| refused | nothing changes: a job of this status does not allow it |
| (empty) | no job can get there |

## What is written

For each cell that changes something: the fields of the record, the sets that the job leaves and enters, the event for its
hook. All of it is one atomic step of the store. The job of the examples has a hook, a unique key held until it is final,
a timeout of 60 s and four runs that may fail; every step is one second after the one before, and the random part of a
pause is 7. A job without a hook has no events, one that is not unique no key.
";

/// The document, as markdown.
pub fn render() -> String {
    let cells = cells();
    let mut page = String::from(INTRO);
    page.push_str("\n| event |");
    for status in Status::ALL {
        push(&mut page, format_args!(" {status} |"));
    }
    page.push_str("\n|---|");
    page.push_str(&"---|".repeat(Status::ALL.len()));
    page.push('\n');
    for kind in EventKind::ALL {
        push(&mut page, format_args!("| {} |", kind.label()));
        for cell in cells.iter().filter(|cell| cell.kind == kind) {
            push(&mut page, format_args!(" {} |", text(cell)));
        }
        page.push('\n');
    }
    page.push_str(LEGEND);
    for kind in EventKind::ALL {
        let rows: Vec<String> = cells
            .iter()
            .filter(|cell| cell.kind == kind)
            .flat_map(|cell| cell.examples.iter().filter_map(line))
            .collect();
        if rows.is_empty() {
            continue;
        }
        push(&mut page, format_args!("\n### {}\n\n", kind.label()));
        let mut written: Vec<&String> = Vec::new();
        for row in &rows {
            // Two examples may differ in what they come from and not in what they lead to.
            if !written.contains(&row) {
                push(&mut page, format_args!("- {row}\n"));
                written.push(row);
            }
        }
    }
    page
}

fn push(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    page.write_fmt(arguments).unwrap_or_default();
}

/// The text of a cell.
fn text(cell: &Cell) -> String {
    let mut words: Vec<String> = Vec::new();
    for example in &cell.examples {
        let word = word(cell.status, example);
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" / ")
}

fn word(status: Status, example: &Example) -> String {
    match Effect::of(status, &example.answer) {
        Effect::Becomes(status) => format!("**{status}**"),
        Effect::Changes => format!("changed: {}", changed(example).join(", ")),
        Effect::Gone => "gone".to_owned(),
        Effect::Lost => "lost".to_owned(),
        Effect::Repeated => "repeated".to_owned(),
        Effect::Unchanged => "unchanged".to_owned(),
        Effect::NotYet => "not yet".to_owned(),
        Effect::Refused => "refused".to_owned(),
    }
}

/// The fields of the record that an example changes, without those that go with every change.
fn changed(example: &Example) -> Vec<String> {
    let Ok(Change { state: Some(after), .. }) = &example.answer else { return Vec::new() };
    let mut fields = written(&example.job.state, after, example.now);
    fields.retain(|field| !["version", "event_seq", "updated_at"].iter().any(|name| field.starts_with(name)));
    fields.iter().map(|field| field.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// What one example writes; none if nothing.
fn line(example: &Example) -> Option<String> {
    let (before, now) = (&example.job.state, example.now);
    let change = example.answer.as_ref().ok()?;
    let from = match before.signal {
        Some(signal) => format!("{}, signalled to {:?}", before.status, signal.signal).to_lowercase(),
        None => before.status.to_string(),
    };
    let to = change.state.as_ref().map_or_else(|| "gone".to_owned(), |after| after.status.to_string());
    let mut parts = vec![change.state.as_ref().map_or_else(
        || "removes the record".to_owned(),
        |after| format!("writes {}", written(before, after, now).join(", ")),
    )];
    parts.extend(moves(change, now));
    if change.takes_key {
        parts.push("refused as a whole if another job holds its unique key".to_owned());
    }
    parts.push(change.event.as_ref().map_or_else(|| "no hook event".to_owned(), hook));
    Some(format!("{from} → {to}: {}.", parts.join("; ")))
}

fn moves(change: &Change, now: Time) -> Option<String> {
    match (change.leave, change.enter) {
        (Some(leave), Some(enter)) => Some(format!("leaves {}, enters {}", place(leave, now), place(enter, now))),
        (Some(leave), None) => Some(format!("leaves {}", place(leave, now))),
        (None, Some(enter)) => Some(format!("enters {}", place(enter, now))),
        (None, None) => None,
    }
}

fn place(index: Index, now: Time) -> String {
    match index {
        Index::Due { run_at } => format!("due at {}", at(run_at, now)),
        Index::Ready { priority, ready_at, suspect } => {
            let suspect = if suspect { " among the suspects" } else { "" };
            format!("ready{suspect} (priority {priority}, since {})", at(ready_at, now))
        }
        Index::Running { reap_at } => format!("running (to be looked at: {})", at(reap_at, now)),
        Index::Final { expires_at } => format!("final (until {})", at(expires_at, now)),
    }
}

fn hook(event: &HookEvent) -> String {
    let mut text = format!("hook event {}: {}", event.seq, event.status);
    if let Some(message) = &event.check_in {
        push(&mut text, format_args!(", check-in {message:?}"));
    }
    if let Some(error) = &event.error {
        push(&mut text, format_args!(", error {error:?}"));
    }
    text
}

/// An instant, seen from `now`.
fn at(time: Time, now: Time) -> String {
    let (ahead, ago) = (time.since(now), now.since(time));
    if time == now {
        "now".to_owned()
    } else if ahead.is_zero() {
        format!("now - {}", span(ago))
    } else {
        format!("now + {}", span(ahead))
    }
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= DAY && seconds.is_multiple_of(DAY) && duration.subsec_nanos() == 0 {
        return format!("{} days", seconds / DAY);
    }
    format!("{} s", duration.as_secs_f64())
}

const DAY: u64 = 24 * 3600;

/// The fields that differ, each with its new value.
///
/// Taken apart without `..`, so that a new field of the record cannot be forgotten here.
fn written(before: &State, after: &State, now: Time) -> Vec<String> {
    let State {
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
        check_in,
        error,
        result,
        attempts,
    } = after;
    let mut fields = Fields(Vec::new());
    fields.value("status", before.status, *status);
    fields.number("version", before.version, *version);
    fields.number("attempt", before.attempt.into(), (*attempt).into());
    fields.some("lease", before.lease.as_ref(), lease.as_ref(), |lease| held(lease, now));
    fields.some("ended", before.ended.as_ref(), ended.as_ref(), |ended| {
        format!("attempt {}, {:?}, {}", ended.attempt, ended.how, ended.status).to_lowercase()
    });
    fields.number("fails", before.fails.into(), (*fails).into());
    fields.number("crashes", before.crashes.into(), (*crashes).into());
    fields.number("releases", before.releases.into(), (*releases).into());
    fields.number("event_seq", before.event_seq.into(), (*event_seq).into());
    fields.some("signal", before.signal.as_ref(), signal.as_ref(), |signal| {
        format!("{:?} until {}", signal.signal, at(signal.until, now)).to_lowercase()
    });
    fields.value("holds_key", before.holds_key, *holds_key);
    fields.some("ready_at", Some(&before.ready_at), Some(ready_at), |time| at(*time, now));
    for (name, before, after) in [
        ("run_at", &before.run_at, run_at),
        ("started_at", &before.started_at, started_at),
        ("finished_at", &before.finished_at, finished_at),
        ("die_at", &before.die_at, die_at),
        ("expires_at", &before.expires_at, expires_at),
    ] {
        fields.some(name, before.as_ref(), after.as_ref(), |time| at(*time, now));
    }
    fields.some("check_in", before.check_in.as_ref(), check_in.as_ref(), |check_in| format!("{:?}", check_in.message));
    fields.some("error", before.error.as_ref(), error.as_ref(), |error| format!("{error:?}"));
    fields.some("result", before.result.as_ref(), result.as_ref(), ToString::to_string);
    if before.attempts != *attempts {
        let last = attempts.last().map(|last| format!("attempts + ({}, {:?})", last.attempt, last.outcome));
        fields.0.extend(last);
    }
    fields.some("updated_at", Some(&before.updated_at), Some(updated_at), |time| at(*time, now));
    fields.0
}

fn held(lease: &Lease, now: Time) -> String {
    let until = at(lease.until, now);
    match lease.abort_at {
        Some(abort_at) => format!("(nonce {}, until {until}, abort at {})", lease.nonce, at(abort_at, now)),
        None => format!("(nonce {}, until {until})", lease.nonce),
    }
}

struct Fields(Vec<String>);

impl Fields {
    fn value<T: PartialEq + Debug>(&mut self, name: &str, before: T, after: T) {
        if before != after {
            self.0.push(format!("{name} = {after:?}").to_lowercase());
        }
    }

    fn number(&mut self, name: &str, before: u64, after: u64) {
        if after == before + 1 {
            self.0.push(format!("{name} + 1"));
        } else if after != before {
            self.0.push(format!("{name} = {after}"));
        }
    }

    fn some<T: PartialEq>(&mut self, name: &str, before: Option<&T>, after: Option<&T>, show: impl Fn(&T) -> String) {
        match after {
            _ if before == after => {}
            Some(after) => self.0.push(format!("{name} = {}", show(after))),
            None => self.0.push(format!("{name} cleared")),
        }
    }
}
