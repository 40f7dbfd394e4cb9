//! The store: each verb goes to the writer or to a reading thread, and waits for the answer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use async_trait::async_trait;
use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::lifecycle::Event;
use jobservice_core::notices::Notices;
use jobservice_core::policy::{Policy, PolicyEvent, Tick};
use jobservice_core::store::{
    Act, Acted, Action, CheckedIn, Claim, Controlled, Deleted, Executions, ExecutionsQuery, Extended, Finished, Fired,
    Inserted, JobEvents, Minute, NameAsk, NameOptions, NameStats, NewJob, Node, OptionsChange, OutboxEntry, Page,
    PolicyPut, PolicyQuery, Query, Report, Resent, Result, Settled, Store, Swept, Waiting,
};
use jobservice_core::{JobId, Name, PoolId, StoreError, Time};
use tokio::sync::{oneshot, watch};

use crate::call::{Class, Failure, Write};
use crate::health::{Ballast, Doctor, Health};
use crate::lock::Lock;
use crate::queue::{Closed, Queue};
use crate::reads::Lane;
use crate::session::Session;
use crate::writer::{self, Shared};
use crate::{OpenError, Options, audit, fault, lock, nodes, outbox, schema};

/// A [`Store`] in one SQLite file.
///
/// Every answer of a write is given after its transaction was synced to the disk. A read sees a transaction when it is
/// committed, which may be some milliseconds before its sync is done: before anybody was told of it. One process serves a file at a time;
/// others may read it meanwhile. Dropping the last handle waits until what was sent is written, and closes the file.
pub struct SqliteStore {
    path: PathBuf,
    shared: Arc<Shared>,
    /// Records by id and other small reads.
    records: Lane,
    /// Lists and sums.
    lists: Lane,
    writer: Option<JoinHandle<()>>,
    /// Last: whoever gets it next may count on the file being closed.
    _lock: Lock,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .field("health", &self.shared.doctor.health())
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, making it if there is none, and starts the threads that serve it. Blocks for as long as that
    /// takes: some milliseconds, more after an upgrade that changes the schema.
    ///
    /// # Errors
    /// [`OpenError::Served`] if another process serves the file; the rest as their texts say.
    pub fn open(path: impl AsRef<Path>, options: Options) -> std::result::Result<SqliteStore, OpenError> {
        // SQLite follows links and puts its log beside what they lead to; so do we, with the lock as well.
        let given = path.as_ref();
        let path = std::fs::canonicalize(given).unwrap_or_else(|_| given.to_owned());
        let lock = Lock::take(&path)?;
        let Options { queue_max, ballast_bytes, write_hook } = options;
        let conn = schema::open_writer(&path)?;
        let shared = Arc::new(Shared {
            calls: Queue::new(queue_max),
            notices: Arc::default(),
            doctor: Doctor::new(),
            has_executions: Arc::default(),
        });
        let ballast = Ballast::new(&path, ballast_bytes);
        let writer = Some(writer::start(conn, &lock::beside(&path, "-wal"), Arc::clone(&shared), ballast, write_hook)?);
        let records = Lane::start(&path, "sqlite-records");
        let lists = Lane::start(&path, "sqlite-lists");
        match (records, lists) {
            (Ok(records), Ok(lists)) => Ok(SqliteStore { path, shared, records, lists, writer, _lock: lock }),
            (Err(error), _) | (_, Err(error)) => {
                shared.calls.close();
                Err(error)
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the store is, now and on each change. A process that serves a store which is [`Health::Poisoned`] should end
    /// with a failure: only a new one knows again what is on the disk.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.doctor.watch()
    }

    /// Resolves when the store is poisoned.
    pub async fn poisoned(&self) {
        // The sender lives as long as `self`, so this ends with poison only.
        drop(self.health().wait_for(|health| *health == Health::Poisoned).await);
    }

    /// Gives back at once the jobs that earlier incarnations of this process' pools ran when they died; answers how
    /// many. Counted as a crash of each. Hook events that were on their way then have their turn at once, too. To be called once, before the first claim. Leases of pools whose name begins
    /// with `remote` are left to expire by themselves: their workers live elsewhere.
    pub async fn reap_previous(&self, now: Time) -> Result<usize> {
        self.write(Class::Ending, "reap_previous", move |session| session.reap_previous(now)).await
    }

    /// Does `step` in the next transaction.
    async fn write<T, F>(&self, class: Class, during: &'static str, step: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Session<'_>) -> std::result::Result<T, Failure> + Send + 'static,
    {
        if self.shared.doctor.health() == Health::Poisoned {
            return Err(StoreError::Poisoned);
        }
        let (reply, answer) = oneshot::channel();
        let call = Write { class, during, step, answer: None, reply };
        self.shared.calls.send(Box::new(call)).await.map_err(|Closed(_)| StoreError::Poisoned)?;
        // No answer means that the writer has ended with the call in its hands.
        answer.await.map_err(|_| StoreError::Poisoned)?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Before the writer: the last connection to close writes the log back and removes it, which a reader may not.
        self.records.stop();
        self.lists.stop();
        self.shared.calls.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer has panicked");
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn insert(&self, jobs: Vec<NewJob>, now: Time) -> Result<Vec<Inserted>> {
        self.write(Class::Intake, "insert", move |session| session.insert_all(&jobs, now)).await
    }

    async fn claim(&self, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        let ask = ask.clone();
        self.write(Class::Claim, "claim", move |session| session.claim(&ask, now)).await
    }

    async fn extend(&self, pool: &PoolId, leases: &[LeaseKey], until: Time, now: Time) -> Result<Extended> {
        let (pool, leases) = (pool.clone(), leases.to_vec());
        // With the endings: a lease that is not extended is reaped, and then work is done twice.
        self.write(Class::Ending, "extend", move |session| session.extend(&pool, &leases, until, now)).await
    }

    async fn finish(&self, reports: Vec<Report>, now: Time) -> Result<Vec<Finished>> {
        let reports = reports.into_iter();
        let ends: Vec<(JobId, Event)> =
            reports.map(|Report { lease, outcome }| (lease.id.clone(), Event::Finish { lease, outcome })).collect();
        self.write(Class::Ending, "finish", move |session| session.end_runs(&ends, now)).await
    }

    async fn release(&self, leases: Vec<LeaseKey>, jitter: u32, now: Time) -> Result<Vec<Finished>> {
        let leases = leases.into_iter();
        let ends: Vec<(JobId, Event)> =
            leases.map(|lease| (lease.id.clone(), Event::Release { lease, jitter })).collect();
        self.write(Class::Ending, "release", move |session| session.end_runs(&ends, now)).await
    }

    async fn check_in(&self, lease: &LeaseKey, message: Arc<str>, now: Time) -> Result<CheckedIn> {
        let (id, event) = (lease.id.clone(), Event::CheckIn { lease: lease.clone(), message });
        self.write(Class::Upkeep, "check_in", move |session| session.check_in(&id, &event, now)).await
    }

    async fn control(&self, id: &JobId, action: Action, now: Time) -> Result<Controlled> {
        let id = id.clone();
        self.write(Class::Ending, "control", move |session| session.control(&id, action, now)).await
    }

    async fn delete(&self, id: &JobId, now: Time) -> Result<Deleted> {
        let id = id.clone();
        self.write(Class::Ending, "delete", move |session| session.delete(&id, now)).await
    }

    async fn act(&self, ids: &[JobId], filter: &Query, act: Act, now: Time) -> Result<Vec<Acted>> {
        let (ids, filter) = (ids.to_vec(), filter.clone());
        self.write(Class::Ending, "act", move |session| session.act(&ids, &filter, act, now)).await
    }

    async fn set_options(&self, name: &Name, options: OptionsChange, _now: Time) -> Result<NameOptions> {
        let name = name.clone();
        self.write(Class::Upkeep, "set_options", move |session| session.set_options(&name, options)).await
    }

    async fn promote(&self, limit: usize, now: Time) -> Result<Swept> {
        self.write(Class::Upkeep, "promote", move |session| session.promote(limit, now)).await
    }

    async fn reap(&self, limit: usize, jitter: u32, now: Time) -> Result<Swept> {
        self.write(Class::Ending, "reap", move |session| session.reap(limit, jitter, now)).await
    }

    async fn prune(&self, limit: usize, now: Time) -> Result<Swept> {
        self.write(Class::Ending, "prune", move |session| session.prune(limit, now)).await
    }

    async fn shrink(&self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept> {
        self.write(Class::Ending, "shrink", move |session| session.shrink(bytes_max, limit, now)).await
    }

    async fn put_policy(&self, policy: Policy, now: Time) -> Result<PolicyPut> {
        self.write(Class::Intake, "put_policy", move |session| session.put_policy(&policy, now)).await
    }

    async fn fire(&self, id: &JobId, tick: &Tick, executions: Vec<NewJob>, now: Time) -> Result<Fired> {
        let (id, tick) = (id.clone(), tick.clone());
        self.write(Class::Intake, "fire", move |session| session.fire(&id, &tick, &executions, now)).await
    }

    async fn change_policy(&self, id: &JobId, event: &PolicyEvent, now: Time) -> Result<Option<Policy>> {
        let (id, event) = (id.clone(), event.clone());
        self.write(Class::Upkeep, "change_policy", move |session| session.change_policy(&id, &event, now)).await
    }

    async fn policies(&self, query: &PolicyQuery) -> Result<Vec<Policy>> {
        let query = query.clone();
        self.records.read("policies", move |reader| reader.policies(&query)).await
    }

    async fn next_due(&self, after: Time) -> Result<Option<Time>> {
        self.records.read("next_due", move |reader| reader.next_due(after)).await
    }

    async fn take_events(&self, limit: usize, until: Time, now: Time) -> Result<Vec<JobEvents>> {
        self.write(Class::Upkeep, "take_events", move |session| session.take_events(limit, until, now)).await
    }

    async fn settle_event(&self, id: &JobId, seq: u32, settled: Settled, now: Time) -> Result<()> {
        let id = id.clone();
        self.write(Class::Ending, "settle_event", move |session| session.settle_event(&id, seq, &settled, now)).await
    }

    async fn resend_event(&self, id: &JobId, seq: u32, now: Time) -> Result<Resent> {
        let id = id.clone();
        self.write(Class::Upkeep, "resend_event", move |session| session.resend_event(&id, seq, now)).await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<OutboxEntry>> {
        let id = id.clone();
        self.records.read("events", move |reader| outbox::read_of(reader.conn, &id)).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<Job>> {
        let id = id.clone();
        self.records.read("get", move |reader| reader.get(&id)).await
    }

    async fn list(&self, query: &Query) -> Result<Page> {
        let query = query.clone();
        self.lists.read("list", move |reader| reader.list(&query)).await
    }

    async fn executions(&self, query: &ExecutionsQuery) -> Result<Executions> {
        // Most jobs have none, and who looks at one of them waits behind no list.
        if !self.have_executions(std::slice::from_ref(&query.upstream)).await?.contains(&true) {
            return Ok(Executions::default());
        }
        let query = query.clone();
        self.lists.read("executions", move |reader| reader.executions(&query)).await
    }

    async fn have_executions(&self, ids: &[JobId]) -> Result<Vec<bool>> {
        if !self.shared.has_executions.load(Ordering::Acquire) {
            return Ok(vec![false; ids.len()]);
        }
        let ids = ids.to_vec();
        self.records.read("have_executions", move |reader| reader.have_executions(&ids)).await
    }

    async fn counts(&self) -> Result<Vec<(Status, u64)>> {
        self.lists.read("counts", |reader| reader.counts()).await
    }

    async fn names(&self) -> Result<Vec<NameStats>> {
        self.lists.read("names", |reader| reader.names()).await
    }

    async fn explain(&self, id: &JobId, code: &Arc<[NameAsk]>, now: Time) -> Result<Option<Waiting>> {
        let (id, code) = (id.clone(), Arc::clone(code));
        self.records.read("explain", move |reader| reader.explain(&id, &code, now)).await
    }

    async fn minutes(&self, name: Option<&Name>, from: Time) -> Result<Vec<Minute>> {
        let name = name.cloned();
        self.lists.read("minutes", move |reader| reader.minutes(name.as_ref(), from)).await
    }

    async fn beat(&self, node: Option<&Node>, now: Time) -> Result<Vec<Node>> {
        match node.cloned() {
            Some(node) => self.write(Class::Upkeep, "beat", move |session| session.beat(&node, now)).await,
            None => self.records.read("beat", move |reader| nodes::read_known(reader.conn, now)).await,
        }
    }

    fn notices(&self) -> &Arc<Notices> {
        &self.shared.notices
    }

    async fn audit(&self) -> Result<Vec<String>> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "a method's path is not general enough in its lifetime"
        )]
        let mut wrong = self.write(Class::Upkeep, "audit", |session| session.audit_memory()).await?;
        wrong.extend(self.aside("audit", audit::audit).await?);
        Ok(wrong)
    }

    async fn dump(&self) -> Result<String> {
        self.aside("dump", audit::dump).await
    }
}

impl SqliteStore {
    /// Reads everything on a connection and a thread of its own: it may take long, and nobody shall wait behind it.
    async fn aside<T: Send + 'static>(
        &self,
        during: &'static str,
        look: fn(&rusqlite::Connection) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let path = self.path.clone();
        let unavailable = |source| StoreError::Unavailable { during, source };
        let looked = tokio::task::spawn_blocking(move || {
            let conn = schema::open_reader(&path).map_err(|error| unavailable(error.into()))?;
            look(&conn).map_err(|failure| fault::tell(failure, during))
        });
        looked.await.map_err(|error| unavailable(error.into()))?
    }
}
