//! How a job looks from outside. The record's own form stays inside: fields can change there without the API noticing.
//!
//! A field without a value is left out. Always there are id, status, name, kind, unique, ref_link, enqueue_time,
//! update_time and multiple_executions, as in the original, and of ours the numbers attempt, fails and priority, whose
//! zero is a value. Times are seconds since the epoch, rounded down.

use jobservice_core::cron::Schedule;
use jobservice_core::job::{Attempt, AttemptOutcome, Job};
use jobservice_core::policy::{Misfire, Overlap, Policy};
use jobservice_core::store::{Node, Waiting};
use jobservice_core::{JobId, Status, Time};

use super::write::Writer;

/// Where the routes of the API begin.
pub(super) const API: &str = "/api/v1";

/// What is shown of a job beyond its record; only the answer about a single job has it.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// Why it waits.
    pub(super) waiting: Option<Waiting>,
    /// The policy behind a Periodic job.
    pub(super) policy: Option<Policy>,
    /// Whether it has executions.
    pub(super) has_executions: bool,
    /// The newest of its executions.
    pub(super) executions: Vec<JobId>,
    /// How many executions there are, if that is known.
    pub(super) executions_total: Option<usize>,
    /// Whether the parameters are left out.
    pub(super) without_parameters: bool,
}

/// The fields of a job, into an object that the caller opened.
pub(super) fn job(json: &mut Writer, job: &Job, beyond: &Beyond, now: Time) {
    let (spec, state) = (&job.spec, &job.state);
    json.text("id", job.id.as_str());
    json.text("status", state.status.as_str());
    json.text("name", spec.name.as_str());
    json.text("kind", spec.kind.as_str());
    let of_policy = beyond.policy.as_ref();
    let unique = spec.unique.is_some() || of_policy.is_some_and(|policy| policy.spec.unique.is_some());
    json.boolean("unique", unique);
    json.text("ref_link", &format!("{API}/jobs/{}", job.id));
    json.integer("enqueue_time", spec.enqueued_at.as_seconds());
    json.integer("update_time", state.updated_at.as_seconds());
    time(json, "run_at", state.run_at);
    if let Some(policy) = of_policy {
        self::policy(json, policy);
    }
    if let Some(check_in) = &state.check_in {
        json.text("check_in", &check_in.message);
        json.integer("check_in_at", check_in.at.as_seconds());
    }
    time(json, "die_at", state.die_at);
    if let Some(hook) = &spec.hook {
        json.text("hook_status", hook);
    }
    if !beyond.executions.is_empty() {
        json.open_array_under("executions");
        for id in &beyond.executions {
            json.element(id.as_str());
        }
        json.close_array();
    }
    if let Some(total) = beyond.executions_total.filter(|total| *total > 0) {
        json.integer("executions_total", total as i64);
    }
    json.boolean("multiple_executions", beyond.has_executions || !beyond.executions.is_empty());
    if let Some(upstream) = &spec.upstream {
        json.text("upstream_job_id", upstream.as_str());
    }

    if !beyond.without_parameters && !matches!(&*spec.parameters, "" | "null") {
        json.raw("parameters", &spec.parameters);
    }
    json.integer("attempt", i64::from(state.attempt));
    json.integer("fails", i64::from(state.fails));
    if let Some(error) = &state.error {
        json.text("error", error);
    }
    json.integer("priority", i64::from(spec.priority));
    millis(json, "wait_ms", waited(job, now));
    millis(json, "run_ms", ran(job, now));
    if let Some(worker) = worker(job) {
        json.text("worker", worker);
    }
    if !state.attempts.is_empty() {
        json.open_array_under("attempts");
        for ended in &state.attempts {
            attempt(json, ended);
        }
        json.close_array();
    }
    if let Some(result) = &state.result {
        json.raw("result", result);
    }
    if !spec.tags.is_empty() {
        json.open_array_under("tags");
        for tag in &spec.tags {
            json.element(tag);
        }
        json.close_array();
    }
    if let Some(why) = &beyond.waiting {
        waiting(json, why);
    }
}

/// What a Periodic job has beside other jobs: its times, and how it went so far.
fn policy(json: &mut Writer, policy: &Policy) {
    let (spec, state) = (&policy.spec, &policy.state);
    json.text("cron_spec", &spec.cron);
    json.text("timezone", &spec.timezone);
    json.text(
        "overlap",
        match spec.overlap {
            Overlap::Allow => "allow",
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
            Overlap::Replace => "replace",
        },
    );
    json.text(
        "misfire",
        match spec.misfire {
            Misfire::Skip => "skip",
            Misfire::Last => "last",
            Misfire::All => "all",
        },
    );
    if let Some(key) = &spec.schedule_key {
        json.text("schedule_key", key);
    }
    json.boolean("paused", state.paused);
    time(json, "last_fired", state.last_fired);
    json.integer("fired", state.fired as i64);
    json.integer("skipped", state.skipped as i64);
}

/// A policy among schedules, into an object that the caller opened.
pub(super) fn schedule(json: &mut Writer, of: &Policy, now: Time) {
    json.text("id", of.id.as_str());
    json.text("name", of.spec.name.as_str());
    json.text("status", of.status().as_str());
    policy(json, of);
    let next_due = of.state.next_due.filter(|_| of.is_active());
    time(json, "next_due", next_due);
    json.integer("lag_ms", next_due.map_or(0, |due| i64::try_from(now.since(due).as_millis()).unwrap_or(i64::MAX)));
    if let Some(error) = &of.state.error {
        json.text("error", error);
    }
    if let Ok(schedule) = Schedule::parse(&of.spec.cron, &of.spec.timezone) {
        json.text("sentence", &schedule.describe());
    }
    json.text("ref_link", &format!("{API}/jobs/{}", of.id));
}

fn attempt(json: &mut Writer, ended: &Attempt) {
    json.open();
    json.integer("attempt", i64::from(ended.attempt));
    json.text("worker", ended.pool.as_str());
    json.integer("started_at", ended.started_at.as_seconds());
    json.integer("ended_at", ended.ended_at.as_seconds());
    json.text("outcome", outcome(ended.outcome));
    if let Some(error) = &ended.error {
        json.text("error", error);
    }
    json.close();
}

const fn outcome(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Success => "success",
        AttemptOutcome::Failed => "failed",
        AttemptOutcome::Stopped => "stopped",
        AttemptOutcome::Cancelled => "cancelled",
        AttemptOutcome::Snoozed => "snoozed",
        AttemptOutcome::Released => "released",
        AttemptOutcome::TimedOut => "timed_out",
        AttemptOutcome::WorkerLost => "worker_lost",
    }
}

fn waiting(json: &mut Writer, why: &Waiting) {
    json.open_under("waiting");
    match why {
        Waiting::Due(at) => {
            json.text("reason", "due");
            json.integer("until", at.as_seconds());
        }
        Waiting::Paused => json.text("reason", "paused"),
        Waiting::AtLimit { limit, running } => {
            json.text("reason", "at_limit");
            json.integer("limit", i64::from(*limit));
            json.integer("running", *running as i64);
        }
        Waiting::NoWorker => json.text("reason", "no_worker"),
        Waiting::Suspect => json.text("reason", "suspect"),
        Waiting::Queued { position } => {
            json.text("reason", "queued");
            if let Some(position) = position {
                json.integer("position", *position as i64);
            }
        }
    }
    json.close();
}

/// A pool as the original's stats show it.
pub(super) fn pool(json: &mut Writer, node: &Node, now: Time) {
    json.open();
    json.text("worker_pool_id", node.pool.as_str());
    json.integer("started_at", node.started_at.as_seconds());
    json.integer("heartbeat_at", node.beat_at.as_seconds());
    json.open_array_under("job_names");
    for name in &node.names {
        json.element(name.as_str());
    }
    json.close_array();
    json.integer("concurrency", i64::from(node.concurrency));
    json.text("status", if node.is_alive(now) { "healthy" } else { "dead" });
    json.close();
}

fn time(json: &mut Writer, key: &'static str, at: Option<Time>) {
    if let Some(at) = at {
        json.integer(key, at.as_seconds());
    }
}

fn millis(json: &mut Writer, key: &'static str, millis: Option<u128>) {
    if let Some(millis) = millis {
        json.integer(key, i64::try_from(millis).unwrap_or(i64::MAX));
    }
}

/// How long the job waited for a worker: until its last claim, or until now while it waits. None while it waits for its
/// time, and if it ended without ever being claimed.
fn waited(job: &Job, now: Time) -> Option<u128> {
    let state = &job.state;
    let until = match state.status {
        Status::Pending => now,
        Status::Scheduled if state.fails == 0 => return None,
        _ => state.started_at?,
    };
    Some(until.since(state.ready_at).as_millis())
}

/// How long its last attempt took, or takes so far.
fn ran(job: &Job, now: Time) -> Option<u128> {
    let state = &job.state;
    if state.status == Status::Running {
        return Some(now.since(state.started_at?).as_millis());
    }
    let last = state.attempts.last()?;
    Some(last.ended_at.since(last.started_at).as_millis())
}

/// The pool that runs it, or ran it last.
fn worker(job: &Job) -> Option<&str> {
    let lease = job.state.lease.as_ref().map(|lease| &lease.pool);
    lease.or_else(|| job.state.attempts.last().map(|last| &last.pool)).map(jobservice_core::PoolId::as_str)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jobservice_core::job::{CheckIn, Retention, Spec};
    use jobservice_core::{Kind, Name, PoolId};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Time = Time::from_millis(1_767_614_400_999);

    fn submitted() -> Job {
        let spec = Spec {
            name: Name::new("demo").unwrap(),
            kind: Kind::Generic,
            parameters: r#"{"n": 1.0e+0}"#.into(),
            priority: 0,
            unique: None,
            max_fails: 4,
            timeout: None,
            hook: None,
            upstream: None,
            tags: Vec::new(),
            retention: Retention::default(),
            enqueued_at: NOW,
        };
        Job::submitted(JobId::new("12345678").unwrap(), spec, None, NOW)
    }

    fn text(of: &Job, beyond: &Beyond) -> String {
        let mut json = Writer::with_capacity(0);
        json.open();
        job(&mut json, of, beyond, NOW + Duration::from_millis(1500));
        json.close();
        String::from_utf8(json.into_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_new_job_shows_what_it_always_shows_and_its_parameters_byte_for_byte() {
        assert_eq!(
            text(&submitted(), &Beyond::default()),
            concat!(
                r#"{"id":"12345678","status":"pending","name":"demo","kind":"Generic","unique":false,"#,
                r#""ref_link":"/api/v1/jobs/12345678","enqueue_time":1767614400,"update_time":1767614400,"#,
                r#""multiple_executions":false,"parameters":{"n": 1.0e+0},"attempt":0,"fails":0,"priority":0,"wait_ms":1500}"#
            )
        );
    }

    #[test]
    fn a_job_without_parameters_shows_none() {
        for none in ["", "null"] {
            let mut job = submitted();
            Arc::make_mut(&mut job.spec).parameters = none.into();
            assert!(!text(&job, &Beyond::default()).contains("parameters"), "{none:?}");
        }
    }

    #[test]
    fn a_job_with_a_past_shows_all_of_it() {
        let mut job = submitted();
        let spec = Arc::make_mut(&mut job.spec);
        spec.hook = Some("http://h/".into());
        spec.tags = vec!["a".into()];
        spec.upstream = Some(JobId::new("upstream").unwrap());
        let state = &mut job.state;
        state.status = Status::Error;
        state.attempt = 1;
        state.fails = 1;
        state.run_at = Some(NOW);
        state.started_at = Some(NOW + Duration::from_millis(7));
        state.die_at = Some(NOW + Duration::from_secs(2));
        state.error = Some("no \"room\"".into());
        state.result = Some("[1]".into());
        state.check_in = Some(CheckIn { message: "30%".into(), at: NOW });
        state.attempts = vec![Attempt {
            attempt: 1,
            pool: PoolId::new("p/1").unwrap(),
            started_at: NOW + Duration::from_millis(7),
            ended_at: NOW + Duration::from_secs(2),
            outcome: AttemptOutcome::Failed,
            error: Some("no \"room\"".into()),
        }];
        let beyond = Beyond {
            waiting: Some(Waiting::Queued { position: Some(3) }),
            policy: None,
            has_executions: true,
            executions: vec![JobId::new("child-01").unwrap()],
            executions_total: Some(1),
            without_parameters: false,
        };

        let shown: Value = serde_json::from_str(&text(&job, &beyond)).unwrap();

        let expected = json!({
            "id": "12345678", "status": "error", "name": "demo", "kind": "Generic", "unique": false,
            "ref_link": "/api/v1/jobs/12345678", "enqueue_time": 1_767_614_400, "update_time": 1_767_614_400,
            "run_at": 1_767_614_400, "check_in": "30%", "check_in_at": 1_767_614_400, "die_at": 1_767_614_402,
            "hook_status": "http://h/", "executions": ["child-01"], "executions_total": 1,
            "multiple_executions": true, "upstream_job_id": "upstream", "parameters": {"n": 1.0},
            "attempt": 1, "fails": 1, "error": "no \"room\"", "priority": 0, "wait_ms": 7, "run_ms": 1993,
            "worker": "p/1", "result": [1], "tags": ["a"], "waiting": {"reason": "queued", "position": 3},
            "attempts": [{"attempt": 1, "worker": "p/1", "started_at": 1_767_614_401, "ended_at": 1_767_614_402,
                          "outcome": "failed", "error": "no \"room\""}],
        });
        assert_eq!(shown, expected);
    }
}
