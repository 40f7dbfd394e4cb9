//! What the commands print: for people by default, JSON for machines.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use jobservice_client::{Job, Schedule, Waiting};
use jobservice_core::Time;

use crate::duration::show;

/// Prints a line. A reader who went away (`| head`) is no error of ours: it ends the command.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints text as it is.
pub(super) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a piece of a job's log: as it is to a file or another program, without what could steer it to a terminal.
pub(super) fn log(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        // Control characters are single bytes in UTF-8, wherever the piece was cut.
        let shown: Vec<u8> = bytes.iter().map(|byte| if steers(*byte) { b'?' } else { *byte }).collect();
        out.write_all(&shown)?;
    } else {
        out.write_all(bytes)?;
    }
    out.flush()
}

fn steers(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\n' && byte != b'\t'
}

/// Prints a line of progress, beside what is printed.
pub(crate) fn note(text: &str) {
    // Without a standard error there is nobody to tell.
    drop(writeln!(io::stderr().lock(), "{}", plain(text)));
}

/// Prints a job, or anything else, as one line of JSON.
pub(super) fn json(job: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string(job)?)?)
}

/// Prints JSON over several lines, for people and for files.
pub(super) fn pretty(value: &serde_json::Value) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string_pretty(value)?)?)
}

/// Prints a job for people.
pub(super) fn job(job: &Job) -> io::Result<()> {
    let at = |seconds: i64| Time::from_seconds(seconds).to_string();
    let mut rows: Vec<(&str, String)> = vec![
        ("id", job.id.clone()),
        ("status", job.status.to_string()),
        ("name", job.name.clone()),
        ("kind", job.kind.as_str().to_owned()),
        ("submitted", at(job.enqueue_time)),
        ("updated", at(job.update_time)),
    ];
    let mut row = |name, text: Option<String>| rows.extend(text.map(|text| (name, text)));
    row("due", job.run_at.map(at));
    row("schedule", job.cron_spec.as_ref().map(|cron| schedule_of(cron, job)));
    row("waiting", job.waiting.as_ref().map(waiting));
    row("check-in", job.check_in.clone());
    row("error", job.error.clone());
    row("attempt", (job.attempt > 0).then(|| format!("{} ({} failed)", job.attempt, job.fails)));
    row("waited", job.wait_ms.map(|ms| show(Duration::from_millis(ms))));
    row("ran", job.run_ms.map(|ms| show(Duration::from_millis(ms))));
    row("worker", job.worker.clone());
    row("priority", (job.priority > 0).then(|| job.priority.to_string()));
    row("unique", job.unique.then(|| "yes".to_owned()));
    row("tags", (!job.tags.is_empty()).then(|| job.tags.join(", ")));
    row("executions", job.executions_total.map(|total| total.to_string()));
    row("hook", job.hook_status.clone());
    row("upstream", job.upstream_job_id.clone());
    row("parameters", job.parameters.as_ref().map(|parameters| parameters.get().to_owned()));
    row("result", job.result.as_ref().map(|result| result.get().to_owned()));
    for (name, text) in rows {
        line(&format!("{name:<11} {}", plain(&text)))?;
    }
    if job.attempts.len() > 1 {
        line("attempts")?;
        for ended in &job.attempts {
            let error = ended.error.as_ref().map_or_else(String::new, |error| format!(": {}", plain(error)));
            line(&format!("  {:>3}  {}  {}{error}", ended.attempt, at(ended.ended_at), ended.outcome))?;
        }
    }
    Ok(())
}

fn schedule_of(cron: &str, job: &Job) -> String {
    let zone = job.timezone.as_deref().unwrap_or("UTC");
    let key = job.schedule_key.as_ref().map_or_else(String::new, |key| format!(", key {key}"));
    let paused = if job.paused == Some(true) { ", paused" } else { "" };
    format!("{cron} in {zone}{key}{paused}")
}

fn waiting(why: &Waiting) -> String {
    match (why.reason.as_str(), why) {
        ("due", Waiting { until: Some(until), .. }) => format!("until {}", Time::from_seconds(*until)),
        ("paused", _) => "its name is paused".to_owned(),
        ("at_limit", Waiting { limit: Some(limit), .. }) => format!("as many run as may: {limit}"),
        ("no_worker", _) => "no living pool runs its name".to_owned(),
        ("suspect", _) => "alone: its worker was lost before".to_owned(),
        ("queued", Waiting { position: Some(position), .. }) => format!("{position} before it"),
        (reason, _) => reason.to_owned(),
    }
}

/// The head of a list of jobs.
pub(super) fn list_head() -> io::Result<()> {
    line(&format!("{:<36}  {:<9}  {:<20}  {:<24}  {:>7}  NOTE", "ID", "STATUS", "NAME", "UPDATED", "ATTEMPT"))
}

/// One job of a list.
pub(super) fn list_row(job: &Job) -> io::Result<()> {
    let status = if job.status == jobservice_core::Status::Scheduled && job.fails > 0 {
        "retrying"
    } else {
        job.status.as_str()
    };
    let note = job.error.as_ref().or(job.check_in.as_ref()).map(|note| plain(note)).unwrap_or_default();
    let note: String = note.lines().next().unwrap_or_default().chars().take(60).collect();
    let updated = Time::from_seconds(job.update_time).to_string();
    let row = format!("{:<36}  {status:<9}  {:<20}  {updated:<24}  {:>7}  {note}", job.id, job.name, job.attempt);
    line(row.trim_end())
}

/// The head of a list of schedules.
pub(super) fn schedules_head() -> io::Result<()> {
    line(&format!("{:<24}  {:<9}  {:<20}  {:<24}  {:>7}  NOTE", "KEY", "STATUS", "NAME", "NEXT", "FIRED"))
}

/// One schedule of a list.
pub(super) fn schedules_row(schedule: &Schedule) -> io::Result<()> {
    let key = plain(schedule.schedule_key.as_ref().unwrap_or(&schedule.id));
    let status = if schedule.paused { "paused" } else { schedule.status.as_str() };
    let next = schedule.next_due.map_or_else(|| "-".to_owned(), |due| Time::from_seconds(due).to_string());
    let note = schedule.error.as_ref().or(schedule.sentence.as_ref()).map(|note| plain(note)).unwrap_or_default();
    let Schedule { name, fired, .. } = schedule;
    line(format!("{key:<24}  {status:<9}  {name:<20}  {next:<24}  {fired:>7}  {note}").trim_end())
}

/// Prints a schedule for people.
pub(super) fn schedule(schedule: &Schedule) -> io::Result<()> {
    let at = |seconds: i64| Time::from_seconds(seconds).to_string();
    let mut rows: Vec<(&str, String)> = vec![
        ("id", schedule.id.clone()),
        ("status", if schedule.paused { "paused".to_owned() } else { schedule.status.to_string() }),
        ("name", schedule.name.clone()),
        ("schedule", format!("{} in {}", schedule.cron_spec, schedule.timezone)),
    ];
    let mut row = |name, text: Option<String>| rows.extend(text.map(|text| (name, text)));
    row("key", schedule.schedule_key.clone());
    row("meaning", schedule.sentence.clone());
    row("next due", schedule.next_due.map(at));
    row("lag", (schedule.lag_ms > 0).then(|| show(Duration::from_millis(schedule.lag_ms))));
    row("last fired", schedule.last_fired.map(at));
    row("fired", Some(format!("{} ({} skipped)", schedule.fired, schedule.skipped)));
    row("overlap", Some(schedule.overlap.clone()));
    row("misfire", Some(schedule.misfire.clone()));
    row("error", schedule.error.clone());
    for (name, text) in rows {
        line(&format!("{name:<11} {}", plain(&text)))?;
    }
    Ok(())
}

/// Text of a job without what could steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_jobs_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\r\n\tc\u{7}"), "a\u{fffd}[31mb\u{fffd}\n\tc\u{fffd}");
    }
}
