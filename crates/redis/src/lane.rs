//! Submissions come together: what arrives while a step is on its way to Redis and back goes with the next one.
//!
//! Nothing waits for a timer: one submission alone goes at once, and the slower Redis, the larger the steps.

use std::collections::HashSet;
use std::sync::Arc;

use jobservice_core::notices::Notices;
use jobservice_core::store::{Inserted, NewJob, Result};
use jobservice_core::{JobId, StoreError, Time};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::insert::{self, Group};
use crate::store::Shard;

/// Steps on their way at once: Redis works on one while the answer of the other is read and the next is made.
const AT_ONCE: usize = 2;

/// Jobs of a step that was put together from several submissions: two milliseconds of Redis.
const JOBS_MAX: usize = 256;

/// Bytes of parameters of such a step, about.
const BYTES_MAX: usize = 1024 * 1024;

/// Submissions that wait for a step. Who comes after them waits to be let in.
const WAITING_MAX: usize = 1024;

/// One submission.
struct Submission {
    jobs: Vec<NewJob>,
    taken: HashSet<JobId>,
    now: Time,
    answer: oneshot::Sender<Result<Vec<Inserted>>>,
}

impl Submission {
    fn group(&self) -> Group<'_> {
        Group { jobs: &self.jobs, taken: &self.taken, now: self.now }
    }
}

/// Where submissions to a shard come together.
pub(crate) struct Lane {
    submissions: mpsc::Sender<Submission>,
}

impl Lane {
    /// Starts a lane on the runtime that this is called on; it ends with its last sender.
    pub(crate) fn start(shard: Arc<Shard>, notices: Arc<Notices>) -> Lane {
        let (submissions, received) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(shard, notices, received));
        Lane { submissions }
    }

    /// Inserts jobs together with whatever else arrives; those of one call in one step.
    pub(crate) async fn insert(&self, jobs: Vec<NewJob>, taken: HashSet<JobId>, now: Time) -> Result<Vec<Inserted>> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable { during: "insert", source: "the store is closed".into() };
        self.submissions.send(Submission { jobs, taken, now, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn run(shard: Arc<Shard>, notices: Arc<Notices>, mut received: mpsc::Receiver<Submission>) {
    let free = Arc::new(Semaphore::new(AT_ONCE));
    let mut kept = None;
    loop {
        let Some(first) = (match kept.take() {
            Some(submission) => Some(submission),
            None => received.recv().await,
        }) else {
            return;
        };
        // Nobody closes the semaphore.
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let mut room = Room::default();
        let mut batch = vec![first];
        for submission in &batch {
            room.take(submission);
        }
        while let Ok(next) = received.try_recv() {
            if !room.has_place_for(&next) {
                kept = Some(next);
                break;
            }
            room.take(&next);
            batch.push(next);
        }
        let (shard, notices) = (Arc::clone(&shard), Arc::clone(&notices));
        tokio::spawn(async move {
            carry_out(&shard, &notices, batch).await;
            drop(permit);
        });
    }
}

/// What a step has taken so far.
#[derive(Default)]
struct Room {
    jobs: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, submission: &Submission) {
        self.jobs += submission.jobs.len();
        self.bytes += bytes(submission);
    }

    fn has_place_for(&self, submission: &Submission) -> bool {
        self.jobs + submission.jobs.len() <= JOBS_MAX && self.bytes + bytes(submission) <= BYTES_MAX
    }
}

fn bytes(submission: &Submission) -> usize {
    submission.jobs.iter().map(|new| new.job.spec.parameters.len()).sum()
}

async fn carry_out(shard: &Shard, notices: &Notices, batch: Vec<Submission>) {
    let groups: Vec<Group<'_>> = batch.iter().map(Submission::group).collect();
    match insert::insert_groups(shard, notices, &groups).await {
        Ok(answers) => {
            for (submission, answer) in batch.into_iter().zip(answers) {
                // Who asked may have gone; the jobs are there all the same.
                submission.answer.send(Ok(answer)).ok();
            }
        }
        // Whatever cannot be read concerns one of them.
        Err(StoreError::Damaged { .. }) if batch.len() > 1 => {
            for submission in batch {
                let answer = insert::insert_groups(shard, notices, &[submission.group()]).await;
                submission.answer.send(answer.map(|answers| answers.into_iter().flatten().collect())).ok();
            }
        }
        Err(error) => {
            for submission in batch {
                submission.answer.send(Err(same(&error))).ok();
            }
        }
    }
}

/// The same error for another who waits.
fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Poisoned => StoreError::Poisoned,
        StoreError::Contended { id, tries } => StoreError::Contended { id: id.clone(), tries: *tries },
        StoreError::Damaged { what } => StoreError::Damaged { what: what.clone() },
        StoreError::Invalid(what) => StoreError::Invalid(what.clone()),
        other => {
            let why = std::error::Error::source(other).map_or_else(|| other.to_string(), ToString::to_string);
            StoreError::Unavailable { during: "insert", source: why.into() }
        }
    }
}
