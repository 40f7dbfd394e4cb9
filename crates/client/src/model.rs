//! What goes over the wire: a submission on its way in, a job on its way out.

use jobservice_core::{Kind, Status};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A job as the service shows it. Times are seconds since the epoch; what has no value is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub status: Status,
    /// Which code runs it.
    pub name: String,
    /// How it came to be.
    pub kind: Kind,
    /// Whether it is the only one of its key.
    pub unique: bool,
    /// The path it is found under.
    pub ref_link: String,
    /// When it was submitted.
    pub enqueue_time: i64,
    /// When it last changed.
    pub update_time: i64,
    /// When it is, or was, due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<i64>,
    /// The cron text of a periodic job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_spec: Option<String>,
    /// The time zone of the cron text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What becomes of a tick while an earlier execution is not final: allow, skip, queue, replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// What becomes of ticks that were missed: skip, last, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfire: Option<String>,
    /// What makes a second submission of a periodic job an update of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_key: Option<String>,
    /// Whether a periodic job is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// The last tick of a periodic job that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fired: Option<i64>,
    /// How many executions its ticks made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<u64>,
    /// How many of its ticks were passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
    /// The last progress message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_in: Option<String>,
    /// When that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_in_at: Option<i64>,
    /// When it failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub die_at: Option<i64>,
    /// Where its status changes are reported to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_status: Option<String>,
    /// The newest of its executions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executions: Vec<String>,
    /// How many executions it has, counted up to 100,000; only on the answer about a single job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executions_total: Option<u64>,
    /// Whether it has executions.
    pub multiple_executions: bool,
    /// The job that launched it, or the policy it is an execution of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_job_id: Option<String>,
    /// Its input, byte for byte as it was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Box<RawValue>>,
    /// How often it was claimed.
    #[serde(default)]
    pub attempt: u32,
    /// How many of its runs failed.
    #[serde(default)]
    pub fails: u32,
    /// Why its last failed run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// 0 to 9, higher first.
    #[serde(default)]
    pub priority: u8,
    /// How long it waited for a worker, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long its last run took, or takes so far, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<u64>,
    /// The pool that runs it, or ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Its last ended attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What it gave back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Labels to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Why it waits; only on the answer about a single job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

/// One attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// Where it ran.
    pub worker: String,
    /// When it began.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: i64,
    /// How: success, failed, stopped, cancelled, snoozed, released, timed_out, worker_lost.
    pub outcome: String,
    /// Why, if it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// due, paused, at_limit, no_worker, suspect, queued.
    pub reason: String,
    /// With `due`: when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// With `at_limit`: how many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// With `at_limit`: how many do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u64>,
    /// With `queued`: how many jobs are before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// A hook event of a job, and what became of it. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEvent {
    /// Its number within the job, from 1.
    pub seq: u32,
    /// The status that it tells.
    pub status: Status,
    /// The attempt at that time.
    pub attempt: u32,
    /// When it happened.
    pub at: i64,
    /// The message, if it is a check-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_in: Option<String>,
    /// Why the job failed, if it tells that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// waiting, delivered, given_up, or gone: the receiver wants no more of this job.
    pub delivery: String,
    /// While it waits: when its turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<i64>,
    /// When the receiver took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<i64>,
    /// When it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<i64>,
    /// How often it was sent.
    pub tries: u32,
    /// Why the last try that failed did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When somebody asked for it to be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resent_at: Option<i64>,
}

/// A job to submit.
#[derive(Clone, Debug, Serialize)]
pub struct Submission {
    /// Which code runs it.
    pub name: String,
    /// Where its status changes are reported to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_hook: Option<String>,
    /// Its input; none sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Box<RawValue>>,
    /// How it is to run.
    pub metadata: Metadata,
}

/// How a job is to run. All but the kind is optional.
#[derive(Clone, Debug, Serialize)]
pub struct Metadata {
    /// Generic, Scheduled with `schedule_delay` or `run_at`, or Periodic with `cron_spec`.
    pub kind: Kind,
    /// Seconds to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_delay: Option<u64>,
    /// When to run, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<i64>,
    /// When it runs again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron_spec: Option<String>,
    /// The time zone of the cron text, an IANA name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What becomes of a tick while an earlier execution is not final: allow, skip, queue, replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// What becomes of ticks that were missed: skip, last, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misfire: Option<String>,
    /// Makes a second submission an update of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_key: Option<String>,
    /// Whether only one such job may exist.
    pub unique: bool,
    /// What makes it the same as another; by default its name and parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// 0 to 9, higher first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// How long one run may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// How many runs may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fails: Option<u32>,
    /// How long it is kept once it is final, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<u64>,
    /// Labels to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Makes the submission safe to repeat for a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Submission {
    /// A job of that name without parameters, to run as soon as a worker is free.
    pub fn new(name: impl Into<String>) -> Submission {
        let metadata = Metadata {
            kind: Kind::Generic,
            schedule_delay: None,
            run_at: None,
            cron_spec: None,
            timezone: None,
            overlap: None,
            misfire: None,
            schedule_key: None,
            unique: false,
            unique_key: None,
            priority: None,
            timeout: None,
            max_fails: None,
            retention: None,
            tags: Vec::new(),
            idempotency_key: None,
        };
        Submission { name: name.into(), status_hook: None, parameters: None, metadata }
    }

    /// With its status changes reported to this URL.
    pub fn status_hook(mut self, url: impl Into<String>) -> Submission {
        self.status_hook = Some(url.into());
        self
    }

    /// With these parameters, given as JSON text, which is kept byte for byte.
    ///
    /// # Errors
    /// [`crate::Error::Unusable`] if the text is not JSON.
    pub fn parameters(mut self, json: impl Into<String>) -> crate::Result<Submission> {
        let raw = RawValue::from_string(json.into())
            .map_err(|error| crate::Error::Unusable { what: "the parameters", problem: error.to_string() })?;
        self.parameters = Some(raw);
        Ok(self)
    }
}

/// The answer to a submission: the job is durable.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// What the service did not understand and ignored, and what may not be meant as it was written.
    pub warnings: Vec<String>,
    /// What became of a Periodic job: created, updated, unchanged.
    pub outcome: Option<String>,
}

/// What can be done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End it for good.
    Stop,
    /// End it; it may be retried.
    Cancel,
    /// Run a dead or cancelled job again.
    Retry,
}

impl Action {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Stop => "stop",
            Action::Cancel => "cancel",
            Action::Retry => "retry",
        }
    }
}

/// Which jobs to list. What is none does not filter.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// A status word, or `retrying`.
    pub status: Option<String>,
    /// Only jobs of this name.
    pub name: Option<String>,
    /// Only jobs with this tag.
    pub tag: Option<String>,
    /// Only executions of this job.
    pub upstream: Option<String>,
    /// Only jobs of this kind: Generic or Scheduled.
    pub kind: Option<String>,
    /// Only jobs submitted at this time or later: seconds since 1970, or how long ago, like `2h`.
    pub since: Option<String>,
    /// Only jobs submitted before this time, in the same forms.
    pub until: Option<String>,
    /// Only jobs with this text in their id, name, parameters, error or check-in.
    pub text: Option<String>,
    /// Jobs per page, 1 to 1000.
    pub limit: Option<usize>,
    /// The cursor of the page before.
    pub cursor: Option<String>,
}

impl ListQuery {
    /// The filters that are given, as they are called on the wire.
    pub(crate) fn filters(&self) -> Vec<(&'static str, &str)> {
        let ListQuery { status, name, tag, upstream, kind, since, until, text, limit: _, cursor: _ } = self;
        let all = [
            ("status", status),
            ("name", name),
            ("tag", tag),
            ("upstream", upstream),
            ("kind", kind),
            ("since", since),
            ("until", until),
            ("q", text),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }
}

/// A page of jobs.
#[derive(Clone, Debug)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The cursor of the next page; none after the last.
    pub next: Option<String>,
}

/// Which part of a job's log to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on until the job is final.
    pub follow: bool,
    /// Only about this many of the last bytes.
    pub tail: Option<u64>,
    /// From this byte on.
    pub offset: Option<u64>,
}

/// One worker pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its id.
    pub worker_pool_id: String,
    /// When it started.
    pub started_at: i64,
    /// When it last gave a sign of life.
    pub heartbeat_at: i64,
    /// The names it runs.
    pub job_names: Vec<String>,
    /// How many jobs it runs at once.
    pub concurrency: u32,
    /// healthy or dead.
    pub status: String,
}
