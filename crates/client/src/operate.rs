//! Calls of operators: many jobs at once, queues, numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Client, Error, Job, ListQuery, Result};

/// How long the answer to a batch may take: ten thousand jobs on a busy disk.
const BATCH_SECONDS_MAX: u64 = 120;

/// What is done to many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkAction {
    /// End them for good.
    Stop,
    /// End them; they may be retried.
    Cancel,
    /// Run dead or cancelled ones again.
    Retry,
    /// Remove final ones.
    Delete,
}

impl BulkAction {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            BulkAction::Stop => "stop",
            BulkAction::Cancel => "cancel",
            BulkAction::Retry => "retry",
            BulkAction::Delete => "delete",
        }
    }
}

/// What one call of a bulk action did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkDone {
    /// Jobs that the filter meant.
    pub matched: u64,
    /// Jobs that have become what was asked for, or are gone.
    pub done: u64,
    /// Running jobs that were told to end.
    pub signalled: u64,
    /// Jobs to which there was nothing to do.
    pub unchanged: u64,
    /// Jobs that do not allow it.
    pub refused: u64,
    /// The cursor of the next call; none when all was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl BulkDone {
    /// Adds what another call did, and takes its cursor.
    pub fn add(&mut self, other: BulkDone) {
        self.matched += other.matched;
        self.done += other.done;
        self.signalled += other.signalled;
        self.unchanged += other.unchanged;
        self.refused += other.refused;
        self.next = other.next;
    }
}

/// The answer to one job of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// 202 if the job is durable, else the status of the error.
    pub code: u16,
    /// The job, without its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// Whether its idempotency key was known: it is the job of then.
    #[serde(default)]
    pub repeated: bool,
    /// What the service did not understand and ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it was refused, shortly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
    /// Why it was refused, with the field and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The stable word for the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The job in the way of a unique one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_id: Option<String>,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The name of its jobs.
    pub name: String,
    /// Whether none is started.
    pub paused: bool,
    /// Jobs waiting for a worker.
    pub pending: u64,
    /// Jobs waiting for their time.
    pub scheduled: u64,
    /// Jobs running.
    pub running: u64,
    /// Since when the longest waiting job waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending: Option<i64>,
    /// For how long it has waited, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_ms: Option<u64>,
    /// Its share of the workers.
    pub weight: u32,
    /// How many may run at once; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// What the code says; none if the service does not know the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<QueueOptions>,
    /// What an operator says.
    pub operator: QueueOptions,
    /// Living pools that run it.
    pub pools: u64,
    /// What keeps its jobs from running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What somebody says of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueOptions {
    /// Its share of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
}

/// A change of a queue: outer none leaves a field as it is, inner none gives it back to the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueChange {
    /// Pause or resume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// How many may run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<Option<u32>>,
    /// Its share of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Option<u32>>,
}

/// What happened in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minute {
    /// When it began.
    pub time: i64,
    /// Jobs that came in.
    pub submitted: u64,
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that failed or whose worker was lost.
    pub failed: u64,
    /// For how long the runs that began had waited, in all.
    pub wait_ms: u64,
    /// For how long the runs that ended had run, in all.
    pub run_ms: u64,
}

/// Whether the service can do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// ok, degraded, ending or unavailable.
    pub status: String,
    /// What is not well.
    #[serde(default)]
    pub description: Option<String>,
    /// Workers held by code that was given up and does not end.
    #[serde(default)]
    pub stuck_workers: u64,
}

impl Client {
    /// Submits many jobs, each as `POST /jobs` takes it, or what stands under `job` there alone; each is answered on its
    /// own, in order.
    pub async fn batch(&self, jobs: &[Box<RawValue>]) -> Result<Vec<BatchAnswer>> {
        let bytes = jobs.iter().map(|job| job.get().len() + 1).sum::<usize>() + 2;
        let mut body = String::with_capacity(bytes);
        body.push('[');
        for (number, job) in jobs.iter().enumerate() {
            if number > 0 {
                body.push(',');
            }
            body.push_str(job.get());
        }
        body.push(']');
        let mut request = self.request(Method::POST, &["jobs", "batch"]);
        *request.body_mut() = Some(body.into());
        *request.timeout_mut() = Some(Duration::from_secs(BATCH_SECONDS_MAX));
        let answers: Vec<BatchAnswer> = self.json(request).await?;
        if answers.len() != jobs.len() {
            return Err(self.unreadable(format!("it answered for {} jobs of {}", answers.len(), jobs.len())));
        }
        Ok(answers)
    }

    /// Does a part of a bulk action, from `cursor` on. The filter's own cursor and limit do not count; one that filters
    /// nothing means every job.
    pub async fn act(&self, action: BulkAction, filter: &ListQuery, cursor: Option<&str>) -> Result<BulkDone> {
        #[derive(Serialize)]
        struct Body<'a> {
            action: &'a str,
            filter: BTreeMap<&'static str, serde_json::Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<&'a str>,
        }
        let mut given: BTreeMap<&'static str, serde_json::Value> =
            filter.filters().into_iter().map(|(key, value)| (key, value.into())).collect();
        if given.is_empty() {
            given.insert("all", true.into());
        }
        let body = serde_json::to_vec(&Body { action: action.as_str(), filter: given, cursor })
            .map_err(|error| Error::Unusable { what: "the action", problem: error.to_string() })?;
        let mut request = self.request(Method::POST, &["jobs", "actions"]);
        *request.body_mut() = Some(body.into());
        self.json(request).await
    }

    /// All queues.
    pub async fn queues(&self) -> Result<Vec<Queue>> {
        self.json(self.request(Method::GET, &["queues"])).await
    }

    /// One queue.
    pub async fn queue(&self, name: &str) -> Result<Queue> {
        self.json(self.request(Method::GET, &["queues", name])).await
    }

    /// Pauses or resumes a queue, sets or clears its limit and weight.
    pub async fn set_queue(&self, name: &str, change: QueueChange) -> Result<Queue> {
        let body = serde_json::to_vec(&change)
            .map_err(|error| Error::Unusable { what: "the change", problem: error.to_string() })?;
        let mut request = self.request(Method::PUT, &["queues", name]);
        *request.body_mut() = Some(body.into());
        self.json(request).await
    }

    /// How many jobs there are in each status.
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>> {
        self.json(self.request(Method::GET, &["stats", "counts"])).await
    }

    /// What happened in each minute since `since` (seconds since 1970, or how long ago, like `2h`), of one name or of all.
    pub async fn minutes(&self, name: Option<&str>, since: Option<&str>) -> Result<Vec<Minute>> {
        let mut request = self.request(Method::GET, &["stats", "minutes"]);
        for (key, value) in [("name", name), ("since", since)] {
            if let Some(value) = value {
                request.url_mut().query_pairs_mut().append_pair(key, value);
            }
        }
        self.json(request).await
    }

    /// Whether the service can do its work, and what is not well.
    pub async fn readiness(&self) -> Result<Readiness> {
        // Not ready is an answer too: the same body with another status.
        self.json_whatever(self.request(Method::GET, &["readyz"])).await
    }
}
