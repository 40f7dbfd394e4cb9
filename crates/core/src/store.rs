//! The store: about twenty verbs, each one atomic step, most of them in batches.
//!
//! A store never decides what a transition means: it reads a record, lets [`crate::lifecycle::decide`] decide, and
//! applies the [`crate::lifecycle::Change`] atomically and durably. What a job's state forbids is an *answer* (an enum
//! below); a [`StoreError`] means that the store itself is ill.
//!
//! **Crash and lost answers.** When a method has answered, its effect is durable. When it has not (crash, time-out,
//! error), the effect happened wholly or not at all. Each method says what calling it again does then. A caller that
//! drops the future of a call must assume that the call went through.
//!
//! `now` is always the caller's: it comes from a [`crate::Clock`] that follows the store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::job::{Job, LeaseKey, Signal, Status};
use crate::lifecycle::Outcome;
use crate::notices::Notices;
use crate::policy::{Policy, PolicyEvent, Tick};
use crate::{JobId, Name, PoolId, Time};

pub use crate::minutes::{Bucket, Minute};
pub use crate::outbox::{Delivery, JobEvents, OutboxEntry, Resent, Settled};
pub use crate::query::{Page, Query};

/// What every method answers with.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Any error beneath a store.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a store could not carry out a call. The state of jobs is never the reason: that is an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine did not answer; the call may or may not have happened. Safe to repeat.
    #[error("store unavailable during {during}")]
    Unavailable {
        /// The verb.
        during: &'static str,
        /// What the engine said.
        #[source]
        source: BoxError,
    },
    /// There is no room for more; nothing was written. Reading and finishing go on. Repeat once room was made.
    #[error("store is full")]
    Full,
    /// Others changed the same job `tries` times in a row. Safe to repeat.
    #[error("job {id} is contended: gave up after {tries} tries")]
    Contended {
        /// The job.
        id: JobId,
        /// How often it was tried.
        tries: u32,
    },
    /// What is stored cannot be right. Not safe to go on with that record: see `jobservice doctor`.
    #[error("store is damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// An earlier write failed in a way that leaves durability unknown. Only a restart of the process helps.
    #[error("store is closed after a failed write")]
    Poisoned,
    /// The caller's query is not valid for this store (a cursor from elsewhere).
    #[error("not a valid query: {0}")]
    Invalid(String),
}

/// Where jobs live.
///
/// Implemented by `MemoryStore` (here), SQLite and Redis; all three pass the same suite (`jobservice-conformance`).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- jobs come in ----

    /// A new id for a job or policy of this name. A store in parts makes one from which it knows where to look.
    fn new_id(&self, name: &Name) -> JobId {
        let _ = name;
        JobId::generate()
    }

    /// Inserts jobs, each answered on its own, all in one step.
    ///
    /// Within a batch the earlier job wins a unique key. Repeating a call whose answer was lost answers
    /// [`Inserted::IdTaken`] for what is there already, or [`Inserted::Repeated`] if an idempotency key was given. So
    /// the key is looked at first, then the id, and only then the unique key. Only a created job's idempotency key is
    /// kept; it stays for its time also if the job is deleted before: the same submission never runs twice.
    ///
    /// A job that another one launches is inserted only while that run holds its lease: what is looked at before
    /// everything else is [`NewJob::launched_by`].
    async fn insert(&self, jobs: Vec<NewJob>, now: Time) -> Result<Vec<Inserted>>;

    // ---- jobs run ----

    /// How many exchanges a pool should have under way at once. One where a call costs no more than its work; more where
    /// it is a round trip, so that the store works on one while the pool works on the answer of another.
    fn rounds(&self) -> usize {
        1
    }

    /// Takes up to `ask.slots` Pending jobs of the names asked for and makes them Running under leases ending at
    /// `ask.until`, in the order of [`crate::share::plan`] between names and priority, ready time, id within one.
    ///
    /// Passes over paused names, names at their limit, and, unless `ask.suspects`, jobs with crashes. Two callers never
    /// get the same job. If the answer is lost, the jobs are Running and nobody runs them: [`Store::extend`] reports
    /// them as unlisted to their pool, and otherwise [`Store::reap`] gives them back when the leases expire.
    async fn claim(&self, ask: &Claim, now: Time) -> Result<Vec<Job>>;

    /// Extends leases of `pool` to `until`, answering for each in order, and names the pool's leases not listed here.
    ///
    /// Safe to repeat. A lease is extended even after its end as long as nobody reaped it. If runs of the pool end meanwhile, a
    /// lease that was not listed may be named only by the next call.
    async fn extend(&self, pool: &PoolId, leases: &[LeaseKey], until: Time, now: Time) -> Result<Extended>;

    /// Records how runs ended, each answered on its own, all in one step.
    ///
    /// Safe to repeat: a report that was accepted before gets the same answer again, nothing is counted twice.
    async fn finish(&self, reports: Vec<Report>, now: Time) -> Result<Vec<Finished>>;

    /// Gives jobs back unfinished at shutdown; `jitter` as in [`Outcome::Failed`]. Safe to repeat.
    async fn release(&self, leases: Vec<LeaseKey>, jitter: u32, now: Time) -> Result<Vec<Finished>>;

    /// Records a progress message of a running job. Repeating it may report it twice to the job's hook.
    async fn check_in(&self, lease: &LeaseKey, message: Arc<str>, now: Time) -> Result<CheckedIn>;

    // ---- people steer ----

    /// Stops, cancels or retries a job or a policy.
    ///
    /// Once a stop or cancel of a waiting job is answered no worker will get it. Of a running one it notes the signal,
    /// which reaches its pool by notice, at the latest by its next extend. Ending a policy ends its waiting executions
    /// and signals its running ones in the same step. Safe to repeat.
    async fn control(&self, id: &JobId, action: Action, now: Time) -> Result<Controlled>;

    /// Removes a final job, or a policy that has ended, with all that belongs to it. Safe to repeat.
    async fn delete(&self, id: &JobId, now: Time) -> Result<Deleted>;

    /// Does the same to many jobs, each answered on its own, all in one step; passes over those that `filter` does not
    /// mean (any more): whoever listed them did so a moment ago. Its cursor and limit do not count. Policies are passed
    /// over. Others wait for the step, so keep `ids` short: see [`crate::limits::ACT_MAX`].
    ///
    /// Repeating a call whose answer was lost finds what it did done: unchanged, gone, or no longer meant.
    async fn act(&self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>>;

    /// Changes what an operator says of a name; fields that are none stay as they are.
    async fn set_options(&self, name: &Name, options: OptionsChange, now: Time) -> Result<NameOptions>;

    // ---- the sweeps: any node may call them at any time, twice, late; each job moves once ----

    /// Makes up to `limit` due jobs Pending, earliest first. One bad record never blocks a sweep.
    async fn promote(&self, limit: usize, now: Time) -> Result<Swept>;

    /// Applies [`crate::lifecycle::overdue`] to up to `limit` Running jobs whose time it is. `jitter` as in
    /// [`Outcome::Failed`].
    async fn reap(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept>;

    /// Removes up to `limit` final jobs past their expiry, hook events past their deadline, idempotency keys past
    /// theirs, nodes long dead, and minutes past [`crate::limits::MINUTES_KEPT`]. A job with waiting events stays until
    /// their deadline; those past it are kept as given up. `limit` is for each of
    /// these kinds, [`Swept::moved`] for all together.
    async fn prune(&self, limit: usize, now: Time) -> Result<Swept>;

    /// Removes up to `limit` final jobs, those first whose expiry is nearest, while the jobs take more than `bytes_max`
    /// on the disk. Jobs with undelivered events stay. [`Swept::more`] says whether it is still too much and there is
    /// something left that may go. What counts as taken is the store's own measure, free room within its files left out.
    /// Safe to repeat.
    async fn shrink(&self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept>;

    // ---- policies ----

    /// Inserts a policy, or updates the one with the same `schedule_key`. Safe to repeat.
    async fn put_policy(&self, policy: Policy, now: Time) -> Result<PolicyPut>;

    /// Fires one tick: compare-and-set of the due time plus the inserts, one step. `executions` are inserted as given
    /// if [`crate::policy::decide_fire`] says so; those refused as duplicates of a unique key are counted as skipped
    /// ([`crate::policy::count_fired`]), and if none is left the answer is [`Fired::Skipped`]. Executions are the jobs
    /// whose `upstream` is the policy; those that are not final overlap, and overlap `replace` stops them before the
    /// inserts with a grace of [`crate::limits::GRACE`].
    /// Safe to repeat: the second call finds the due time moved and answers [`Fired::Stale`].
    async fn fire(&self, id: &JobId, tick: &Tick, executions: Vec<NewJob>, now: Time) -> Result<Fired>;

    /// Applies an event to a policy; none if there is no such policy. `PolicyEvent::End` is not valid here: it goes
    /// through [`Store::control`], which ends its executions too.
    async fn change_policy(&self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>>;

    /// The policies a query asks for, in the order of their ids. One that cannot be read is left out of those that are
    /// due, so that it does not hold up the others; the audit finds it.
    async fn policies(&self, query: &PolicyQuery) -> Result<Vec<Policy>>;

    /// When the next active policy is due of those that are due after `after`: a hint for when to fire next. What is due
    /// before, but did not fire (it waits, or fails), does not count.
    async fn next_due(&self, after: Time) -> Result<Option<Time>>;

    // ---- the outbox ----

    /// Takes the waiting events of up to `limit` jobs whose turn it is, oldest first, and keeps other takers off them
    /// until `until`. A job's events are taken as a whole, so their order holds: its turn is that of its first waiting
    /// event ([`OutboxEntry::next_at`]). A crash after this delays those events to `until` and loses nothing.
    ///
    /// A check-in event takes the place of an earlier one whose turn is not in the future, that is one which nobody
    /// holds and which does not wait for another try.
    async fn take_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>>;

    /// Records what became of the delivery of a job's events up to and including `seq`: they are settled and kept for a
    /// while ([`crate::outbox`]), or all that wait of the job's events wait until the given time. Earlier ones that were sent
    /// again by hand are settled each by itself: one that still waits was sent again meanwhile. Events that joined while
    /// others were held have their turn as soon as those are settled. A crash before this sends the event again: delivery
    /// is at least once. Safe to repeat: what is settled already stays as it is.
    async fn settle_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()>;

    /// Makes an event's turn now, whatever became of it, as if it had never been tried; its deadline counts from now. It
    /// is sent before later events of its job that still wait. One that waits already only has its turn now; if it is on
    /// its way at that moment, it may arrive twice. Safe to repeat.
    async fn resend_event(&self, id: &JobId, seq: u32, now: Time) -> Result<Resent>;

    /// The events of a job that wait or are kept, in order; none if it has none, or does not exist.
    async fn events(&self, id: &JobId) -> Result<Vec<OutboxEntry>>;

    // ---- people look ----

    /// The record of a job.
    async fn get(&self, id: &JobId) -> Result<Option<Job>>;

    /// A page of jobs. See [`Query`] for the order.
    async fn list(&self, query: &Query) -> Result<Page>;

    /// A page of the executions (sub jobs) of a job or policy by number, newest first, with their count. The cost is
    /// bounded: no more than [`crate::limits::EXECUTIONS_COUNTED_MAX`] of them are counted or passed over.
    async fn executions(&self, query: &ExecutionsQuery) -> Result<Executions>;

    /// For each of these ids whether it has executions (sub jobs).
    async fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>>;

    /// How many jobs there are in each status, over all names.
    async fn counts(&self) -> Result<Vec<(Status, u64)>>;

    /// Each name that has options or jobs that are not final, with numbers.
    async fn names(&self) -> Result<Vec<NameStats>>;

    /// Why a job waits, the first reason in the order of [`Waiting`]; none if it does not wait or does not exist. `code`
    /// says which limits the code has, as in a claim; an operator's beats them.
    async fn explain(&self, id: &JobId, code: &Arc<[NameAsk]>, now: Time) -> Result<Option<Waiting>>;

    /// What happened in each minute from that of `from` on, oldest first, to the jobs of `name` or, without one, of all
    /// names together. Minutes in which nothing happened are left out.
    async fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>>;

    // ---- nodes ----

    /// Notes that a node lives and answers with all nodes known, dead ones included for a while.
    async fn beat(&self, node: Option<&Node>, now: Time) -> Result<Vec<Node>>;

    /// The hints of this store: what wakes pools, watchers and hook delivery.
    fn notices(&self) -> &Arc<Notices>;

    // ---- tests and `doctor` ----

    /// Looks through everything and answers with each violation of an invariant as a sentence; empty means sound.
    async fn audit(&self) -> Result<Vec<String>>;

    /// The whole state as text, the same for equal states of any store: for tests, snapshots, reports.
    async fn dump(&self) -> Result<String>;
}

/// A job to insert.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// The record, from [`Job::submitted`].
    pub job: Job,
    /// The client's key for this submission, kept by name for [`crate::limits::IDEMPOTENCY_KEPT`].
    pub idempotency_key: Option<Arc<str>>,
    /// The run that launches it: without its lease nothing is inserted.
    pub launched_by: Option<LeaseKey>,
}

impl From<Job> for NewJob {
    fn from(job: Job) -> NewJob {
        NewJob { job, idempotency_key: None, launched_by: None }
    }
}

/// The answer to the insert of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is stored.
    Created,
    /// It is unique, and this job holds its key.
    Duplicate(JobId),
    /// The same submission (by idempotency key) was stored before under this id.
    Repeated(JobId),
    /// Another job or policy has its id.
    IdTaken,
    /// The run that launches it has lost its lease.
    LeaseLost,
}

/// What a pool asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Who asks.
    pub pool: PoolId,
    /// For jobs of which names. An operator's options in the store beat weight and limit given here.
    pub names: Arc<[NameAsk]>,
    /// How many at the most.
    pub slots: u32,
    /// Whether one job that crashed before may be among them.
    pub suspects: bool,
    /// Random: the nonce of the leases.
    pub nonce: u64,
    /// Random: for the order between names.
    pub seed: u64,
    /// Until when the leases last.
    pub until: Time,
    /// How long a job may take to obey its timeout.
    pub grace: Duration,
}

/// One name that a pool can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAsk {
    /// The name.
    pub name: Name,
    /// Its weight as the code says.
    pub weight: u32,
    /// How many may run at once over all pools, as the code says; none for no limit.
    pub max_concurrency: Option<u32>,
}

/// The answer to an extend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// For each lease given, in order.
    pub leases: Vec<Held>,
    /// Leases of the pool that it did not list: claims whose answer was lost. To be run or released.
    pub unlisted: Vec<LeaseKey>,
}

/// Whether a lease still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It does; the job may have been signalled.
    Held(Option<Signal>),
    /// It does not: the run must end, its reports will be refused.
    Lost,
}

/// How one run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The run.
    pub lease: LeaseKey,
    /// How it ended.
    pub outcome: Outcome,
}

/// The answer to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It counts (now, or when it was first sent); the job became this.
    Applied(Status),
    /// The run is no longer the job's: nothing changed.
    LeaseLost,
}

/// The answer to a check-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedIn {
    /// Noted; the job may have been signalled.
    Noted(Option<Signal>),
    /// The run is no longer the job's: nothing changed.
    LeaseLost,
}

/// What people do to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End it for good; a running job has this long to obey.
    Stop(Duration),
    /// End it; it may be retried.
    Cancel(Duration),
    /// Run a dead or cancelled job again; make a policy active again with this next due time.
    Retry {
        /// Only for policies: the first tick after now.
        next_due: Option<Time>,
    },
}

/// The answer to a control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controlled {
    /// The job has the status asked for.
    Done(Status),
    /// The job runs; the signal is noted.
    Signalled,
    /// There was nothing to do.
    Unchanged(Status),
    /// The job's status does not allow it.
    Refused(Status),
    /// A retry of a unique job whose key is held by this other one.
    Duplicate(JobId),
    /// There is no such job.
    NotFound,
}

/// What is done to many jobs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// As [`Store::control`].
    Control(Action),
    /// As [`Store::delete`].
    Delete,
}

/// The answer to an act on one of many jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acted {
    /// To a control.
    Controlled(Controlled),
    /// To a delete.
    Deleted(Deleted),
    /// It is not meant by the filter (any more): nothing was done.
    Passed,
}

/// The answer to a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// It is not final: stop it first.
    Refused(Status),
    /// There is no such job (any more).
    NotFound,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many records it moved or removed.
    pub moved: usize,
    /// Whether there was more to do than `limit`: call again.
    pub more: bool,
    /// When the next record of this kind will be due, if the store knows: a hint for when to call next.
    pub next_at: Option<Time>,
    /// The jobs that a prune removed: their logs can go too.
    pub removed: Vec<JobId>,
}

/// What an operator says of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameOptions {
    /// No claims while true.
    pub paused: bool,
    /// Beats the code's limit. `Some(0)` lets none run.
    pub max_concurrency: Option<u32>,
    /// Beats the code's weight.
    pub weight: Option<u32>,
}

/// A change of [`NameOptions`]: outer none leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionsChange {
    /// Pause or resume.
    pub paused: Option<bool>,
    /// Set (`Some(Some(n))`) or clear (`Some(None)`) the limit.
    pub max_concurrency: Option<Option<u32>>,
    /// Set or clear the weight.
    pub weight: Option<Option<u32>>,
}

impl OptionsChange {
    /// The options after this change.
    pub fn apply(self, mut options: NameOptions) -> NameOptions {
        if let Some(paused) = self.paused {
            options.paused = paused;
        }
        if let Some(max_concurrency) = self.max_concurrency {
            options.max_concurrency = max_concurrency;
        }
        if let Some(weight) = self.weight {
            options.weight = weight;
        }
        options
    }
}

/// The numbers of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameStats {
    /// The name.
    pub name: Name,
    /// What an operator said of it.
    pub options: NameOptions,
    /// Jobs waiting for a worker.
    pub pending: u64,
    /// Jobs waiting for their time.
    pub scheduled: u64,
    /// Jobs running.
    pub running: u64,
    /// Since when the longest waiting Pending job waits.
    pub oldest_pending: Option<Time>,
}

/// Which executions of a job or policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionsQuery {
    /// Whose.
    pub upstream: JobId,
    /// Only those that are not final.
    pub live: bool,
    /// How many of the newest to pass over.
    pub offset: usize,
    /// How many at most, up to [`crate::limits::LIST_MAX`].
    pub limit: usize,
}

/// A page of executions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Executions {
    /// They themselves.
    pub jobs: Vec<Job>,
    /// How many there are on all pages, counted up to [`crate::limits::EXECUTIONS_COUNTED_MAX`].
    pub total: usize,
}

/// The answer to [`Store::put_policy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyPut {
    /// It is stored.
    Created,
    /// The policy with its `schedule_key`, which has this id, was changed to it.
    Updated(JobId),
    /// The policy with its `schedule_key`, which has this id, is the same.
    Unchanged(JobId),
    /// Another job or policy has its id.
    IdTaken,
}

/// Which policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyQuery {
    /// Only this one.
    pub id: Option<JobId>,
    /// Only that with this key.
    pub schedule_key: Option<Arc<str>>,
    /// Only active ones due at or before this.
    pub due_by: Option<Time>,
    /// Only those with a greater id: the cursor.
    pub after: Option<JobId>,
    /// How many at most.
    pub limit: usize,
}

/// The answer to a fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fired {
    /// The tick fired with these executions.
    Fired(Vec<JobId>),
    /// The tick was skipped and counted.
    Skipped,
    /// An earlier execution is not final and the policy queues: try again later.
    Waiting,
    /// Somebody else fired it, or the policy changed, ended, is paused or gone.
    Stale,
}

/// A node: one worker pool in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The pool.
    pub pool: PoolId,
    /// When it started.
    pub started_at: Time,
    /// When it last gave a sign of life; the store sets it.
    pub beat_at: Time,
    /// The names it runs.
    pub names: Vec<Name>,
    /// Its slots.
    pub concurrency: u32,
    /// Where it runs, for people.
    pub host: String,
    /// Its process, for people.
    pub pid: u32,
}

impl Node {
    /// Whether it gave a sign of life lately.
    pub fn is_alive(&self, now: Time) -> bool {
        now.since(self.beat_at) < crate::limits::NODE_DEAD_AFTER
    }
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its time has not come.
    Due(Time),
    /// An operator paused its name.
    Paused,
    /// As many jobs of its name run as an operator or, if none has said, the code allows.
    AtLimit {
        /// The limit.
        limit: u32,
        /// How many run.
        running: u64,
    },
    /// No living pool runs its name.
    NoWorker,
    /// Its worker was lost before: it waits for a pool that runs no other such job. Never [`Waiting::Queued`].
    Suspect,
    /// It is this far from the head of its name's queue, 0 first, suspects not counted; none beyond
    /// [`crate::limits::POSITION_MAX`].
    Queued {
        /// Jobs before it.
        position: Option<u64>,
    },
}
