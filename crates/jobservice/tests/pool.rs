//! The pool when things go wrong: lost answers, a store that is away, a pool that was taken for dead, poison jobs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test speaks")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{Bench, CAP, Noop, Script, Stage, Wait, eventually, stage, tick};
use jobservice::core::job::{Job as Record, Kind, Retention, Spec, Status};
use jobservice::core::limits::{EXTEND_EVERY, GRACE, LEASE};
use jobservice::core::store::{Claim, NameAsk};
use jobservice::core::{Clock, JobId, ManualClock, Name, PoolId, Store};
use jobservice::logger::{JobLogs, LogBackend, LogError, LogPiece};
use jobservice::prelude::*;
use jobservice::testing::MemoryStore;
use jobservice_conformance::faulty::{Faulty, Rates};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const AWAY: Rates = Rates { lost: 0, refused: 100, delayed: 0 };

/// A store that can fail, and the one beneath.
fn faulty(seed: u64) -> (Arc<Faulty>, Arc<dyn Store>) {
    let (faulty, inner) = faulty_by_value(seed);
    (Arc::new(faulty), inner)
}

fn faulty_by_value(seed: u64) -> (Faulty, Arc<dyn Store>) {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    (Faulty::new(Arc::clone(&inner), Rates::default(), seed), inner)
}

fn spec(name: &str, parameters: &str, clock: &ManualClock) -> Spec {
    Spec {
        name: Name::new(name).unwrap(),
        kind: Kind::Generic,
        parameters: parameters.into(),
        priority: 0,
        unique: None,
        max_fails: 4,
        timeout: None,
        hook: None,
        upstream: None,
        tags: Vec::new(),
        retention: Retention::default(),
        enqueued_at: clock.now(),
    }
}

/// Goal: whatever answers are lost, each job runs once and nothing is counted. Method: every third call of the pool and of
/// the sweeps fails, before or after it was carried out; the clock stands still, so no lease ends meanwhile. The store is one
/// that wants one exchange at a time, or two: then each is for half of the slots.
#[tokio::test]
async fn lost_answers_strand_no_job_and_run_none_twice() {
    const JOBS: usize = 100;
    for seed in 1..=10 {
        let (store, inner) = faulty_by_value(seed);
        let store = Arc::new(store.with_rounds(1 + seed as usize % 2));
        let (stage, mut script) = stage();
        let clock = Arc::new(ManualClock::default());
        let t = Bench::on(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&clock), |builder| {
            builder.with(stage).register::<Noop>().workers(10)
        })
        .await;
        store.set_rates(Rates::HARSH);
        for n in 0..JOBS {
            let job = Record::submitted(
                JobId::generate(),
                spec("noop", &format!(r#"{{"n":{n}}}"#), &clock),
                None,
                clock.now(),
            );
            inner.insert(vec![job.into()], clock.now()).await.unwrap();
        }

        let mut heard = Vec::new();
        for _ in 0..JOBS {
            // A name and its number, whichever attempt: a claim whose answer was lost took one.
            heard.push(script.next().await.split(" attempt").next().unwrap().to_owned());
        }
        heard.sort();
        let mut expected: Vec<String> = (0..JOBS).map(|n| format!("noop {n}")).collect();
        expected.sort();
        assert_eq!(heard, expected, "seed {seed}");
        t.until_stats("through", |stats| stats.leased == 0).await;
        store.set_rates(Rates::default());

        let counts = inner.counts().await.unwrap();
        let success = counts.iter().find(|(status, _)| *status == Status::Success).map(|(_, count)| *count);
        assert_eq!(success, Some(JOBS as u64), "seed {seed}: {counts:?}");
        let list = jobservice::core::store::Query { limit: JOBS, ..Default::default() };
        for job in inner.list(&list).await.unwrap().jobs {
            assert_eq!((job.state.fails, job.state.crashes), (0, 0), "seed {seed}: {job:?}");
        }
        let (lost, refused) = store.faults();
        assert!(lost + refused > 5, "seed {seed}: only {lost} answers and {refused} calls were lost");
        assert!(script.heard.try_recv().is_err(), "seed {seed}: a job ran twice");
        t.end().await;
    }
}

/// Goal: free slots alone make no claims; only what is told, what ends and the safety tick do. Method: two jobs run on and
/// on, of which the second was told of while the first ran; most slots are free, and the store wants two exchanges at a time.
#[tokio::test]
async fn pool_with_free_slots_and_nothing_to_claim_is_quiet() {
    let (store, _) = faulty_by_value(1);
    let store = Arc::new(store.with_rounds(2));
    let (stage, mut script) = stage();
    let t = Bench::on(Arc::clone(&store) as Arc<dyn Store>, Arc::default(), |builder| {
        builder.with(stage).register::<Wait>().workers(10)
    })
    .await;
    for _ in 0..2 {
        t.service.submit(Wait {}).await.unwrap();
        assert_eq!(script.next().await, "began 1");
    }

    let (before, began) = (store.calls("claim"), tokio::time::Instant::now());
    for _ in 0..200 {
        tick().await;
    }

    let claims = store.calls("claim") - before;
    let most = 10 + 10 * began.elapsed().as_secs();
    assert!(claims <= most, "{claims} claims in {:?}", began.elapsed());
    script.go();
    t.end().await;
}

#[tokio::test]
async fn outcomes_are_kept_while_the_store_is_away_and_no_more_jobs_are_taken() {
    let (store, inner) = faulty(1);
    let (stage, mut script) = stage();
    let t = Bench::on(Arc::clone(&store) as Arc<dyn Store>, Arc::default(), |builder| {
        builder.with(stage).register::<Wait>().workers(3)
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(t.service.submit(Wait {}).await.unwrap().job.id);
    }
    for _ in 0..3 {
        assert_eq!(script.next().await, "began 1");
    }

    store.set_rates(AWAY);
    script.go();
    t.until_stats("ended", |stats| stats.running == 0).await;
    // Many tries later nothing has changed.
    eventually("tried again", || if store.faults().1 > 12 { Ok(()) } else { Err(format!("{:?}", store.faults())) })
        .await;
    let stats = t.service.stats().unwrap();
    assert_eq!((stats.claimed, stats.finished, stats.leased), (3, 0, 3));
    store.set_rates(Rates::default());

    for id in ids {
        let watch = inner.notices().watch(&id);
        loop {
            let changed = watch.changed();
            let job = inner.get(&id).await.unwrap().unwrap();
            if job.state.status == Status::Success {
                assert_eq!(job.state.attempt, 1);
                break;
            }
            tokio::time::timeout(CAP, changed).await.unwrap();
        }
    }
    t.end().await;
}

/// Tells what it hears when it goes on: of its check-in and of its interrupts.
#[derive(Serialize, Deserialize)]
struct Zombie {
    after: String,
}

impl Job for Zombie {
    const NAME: &'static str = "zombie";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
        ctx.logger().info(format!("attempt {} begins", ctx.attempt()));
        stage.tell(format!("began {}", ctx.attempt()));
        if ctx.attempt() > 1 {
            return ctx.set_result(&"by the second");
        }
        stage.wait().await;
        match self.after.as_str() {
            "finish" => {}
            "check in" => {
                let refused = ctx.check_in("late").await.is_err();
                stage.tell(format!("refused {refused}"));
            }
            _ => {
                ctx.signalled().await;
            }
        }
        ctx.set_result(&"by the first")
    }
}

/// As [`Zombie`], on a thread of its own: it goes on whatever becomes of its run, and writes into the log.
#[derive(Serialize, Deserialize)]
struct DeafZombie {}

impl BlockingJob for DeafZombie {
    const NAME: &'static str = "deaf-zombie";

    fn run(self, ctx: Context) -> Result<(), Failure> {
        let stage = ctx.state::<Arc<Stage>>().ok_or("no stage")?;
        ctx.logger().info(format!("attempt {} begins", ctx.attempt()));
        stage.tell(format!("began {}", ctx.attempt()));
        while !stage.may_go() {
            std::thread::yield_now();
        }
        ctx.logger().info("too late");
        stage.tell("logged");
        Ok(())
    }
}

/// Two services on one store: the first can lose it, the second takes over.
struct Pair {
    first: Bench,
    second: Bench,
    between: Arc<Faulty>,
    script: Script,
    logs: Arc<Lines>,
}

#[derive(Default)]
struct Lines(Mutex<String>);

#[async_trait]
impl LogBackend for Lines {
    fn name(&self) -> &'static str {
        "LINES"
    }

    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let mut lines = self.0.lock();
        for piece in &pieces {
            lines.push_str(&String::from_utf8_lossy(&piece.bytes));
        }
        pieces.iter().map(|_| Ok(())).collect()
    }
}

impl Pair {
    async fn start() -> Pair {
        let (between, inner) = faulty(1);
        let (stage, script) = stage();
        let clock = Arc::new(ManualClock::default());
        let logs = Arc::new(Lines::default());
        let backend = Arc::clone(&logs) as Arc<dyn LogBackend>;
        let first = Bench::on(Arc::clone(&between) as Arc<dyn Store>, Arc::clone(&clock), |builder| {
            builder
                .with(Arc::clone(&stage))
                .register::<Zombie>()
                .register_blocking::<DeafZombie>()
                .log_backends(JobLogs::builder().backend(backend))
                .pool_name("first")
        })
        .await;
        let second =
            Bench::on(inner, clock, |builder| builder.with(stage).register::<Noop>().pool_name("second")).await;
        Pair { first, second, between, script, logs }
    }

    /// The first service's job runs, then its pool is cut off for three leases. Meanwhile another pool runs the job.
    async fn job_that_moved(&mut self, after: &str) -> Record {
        let name = if after == "log" { DeafZombie::NAME } else { Zombie::NAME };
        let submitted = if after == "log" {
            self.first.service.submit_blocking(DeafZombie {}).await.unwrap()
        } else {
            self.first.service.submit(Zombie { after: after.to_owned() }).await.unwrap()
        };
        assert_eq!(self.script.next().await, "began 1");
        self.first.service.controller().logs().flush().await;
        self.between.set_rates(AWAY);
        let clock = Arc::clone(&self.second.clock);
        for _ in 0..9 {
            clock.advance(LEASE / 3);
        }
        self.second.until(submitted.id(), "reaped", |job| job.state.crashes == 1).await;

        let claim = Claim {
            pool: PoolId::new("third/1").unwrap(),
            names: [NameAsk { name: Name::new(name).unwrap(), weight: 1, max_concurrency: None }].into(),
            slots: 1,
            suspects: true,
            nonce: 77,
            seed: 0,
            until: clock.now() + Duration::from_secs(3600),
            grace: GRACE,
        };
        let claimed = self.second.store.claim(&claim, clock.now()).await.unwrap();
        let moved = claimed.into_iter().next().expect("the job waits");
        assert_eq!((&moved.id, moved.state.attempt), (submitted.id(), 2));
        moved
    }

    /// The first pool is back; the job must be as the other pool left it.
    async fn back(&self) {
        self.between.set_rates(Rates::default());
        self.first.clock.advance(EXTEND_EVERY);
        self.first.until_stats("revoked", |stats| stats.leased == 0 && stats.running == 0).await;
    }

    async fn end(self) {
        self.first.end().await;
        self.second.end().await;
    }
}

#[tokio::test]
async fn pool_that_was_taken_for_dead_cannot_finish_its_job() {
    let mut pair = Pair::start().await;
    let moved = pair.job_that_moved("finish").await;

    pair.script.go();
    pair.first.until_stats("ended", |stats| stats.running == 0).await;
    pair.back().await;

    assert_eq!(pair.second.store.get(&moved.id).await.unwrap().unwrap(), moved);
    assert_eq!(pair.first.service.stats().unwrap().lost, 1);
    pair.end().await;
}

#[tokio::test]
async fn run_whose_lease_was_lost_is_dropped() {
    let mut pair = Pair::start().await;
    let moved = pair.job_that_moved("nothing").await;

    pair.back().await;

    assert_eq!(pair.second.store.get(&moved.id).await.unwrap().unwrap(), moved);
    pair.end().await;
}

/// Goal: what a run writes after its lease was lost does not get into the log of the run that replaced it. Method: code
/// that nobody can drop, for it blocks its thread.
#[tokio::test]
async fn log_of_a_run_whose_lease_was_lost_is_closed() {
    let mut pair = Pair::start().await;
    let moved = pair.job_that_moved("log").await;
    pair.back().await;

    pair.script.go();

    assert_eq!(pair.script.next().await, "logged");
    let logs = pair.first.service.controller().logs();
    logs.flush().await;
    let lines = pair.logs.0.lock().clone();
    assert!(lines.contains("attempt 1 begins") && !lines.contains("too late"), "{lines}");
    assert_eq!(pair.second.store.get(&moved.id).await.unwrap().unwrap(), moved);
    pair.end().await;
}

#[tokio::test]
async fn check_in_of_a_run_whose_lease_was_lost_is_refused() {
    let mut pair = Pair::start().await;
    let moved = pair.job_that_moved("check in").await;

    // Only the check-in: an extend that came through first would drop the run before it could tell.
    pair.between.set_rates_of("check_in", Rates::default());
    pair.script.go();

    assert_eq!(pair.script.next().await, "refused true");
    pair.between.set_rates(Rates::default());
    pair.first.until_stats("revoked", |stats| stats.leased == 0).await;
    assert_eq!(pair.second.store.get(&moved.id).await.unwrap().unwrap(), moved);
    pair.end().await;
}

/// Goal: a job that may have killed its worker cannot take others like it along. Method: four jobs, each lost once.
#[tokio::test]
async fn pool_runs_one_suspect_at_a_time() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let mut ids = Vec::new();
    for _ in 0..4 {
        let job = Record::submitted(JobId::generate(), spec("wait", "{}", &clock), None, clock.now());
        ids.push(job.id.clone());
        store.insert(vec![job.into()], clock.now()).await.unwrap();
    }
    let claim = Claim {
        pool: PoolId::new("dead/1").unwrap(),
        names: [NameAsk { name: Name::new("wait").unwrap(), weight: 1, max_concurrency: None }].into(),
        slots: 4,
        suspects: true,
        nonce: 1,
        seed: 0,
        until: clock.now() + LEASE,
        grace: GRACE,
    };
    assert_eq!(store.claim(&claim, clock.now()).await.unwrap().len(), 4);
    clock.advance(LEASE);
    store.reap(10, 0, clock.now()).await.unwrap();

    let (stage, mut script) = stage();
    let t = Bench::on(store, clock, |builder| builder.with(stage).register::<Wait>().workers(4)).await;
    assert_eq!(script.next().await, "began 2");
    let fresh = t.service.submit(Wait {}).await.unwrap();
    assert_eq!(script.next().await, "began 1", "a job that never crashed need not wait");
    let stats = t.until_stats("busy", |stats| stats.running == 2).await;
    assert_eq!(stats.claimed, 2);

    script.go();
    for id in &ids {
        t.until_status(id, Status::Success).await;
    }
    t.until_status(fresh.id(), Status::Success).await;
    t.end().await;
}

#[derive(Serialize, Deserialize)]
struct Single {}

impl Job for Single {
    const NAME: &'static str = "single";
    const MAX_CONCURRENCY: Option<u32> = Some(1);

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let running = ctx.state::<Arc<Mutex<u32>>>().ok_or("no count")?;
        *running.lock() += 1;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let together = *running.lock();
        *running.lock() -= 1;
        if together == 1 { Ok(()) } else { Err(format!("{together} run together"))? }
    }
}

#[tokio::test]
async fn limit_of_a_name_holds_and_its_jobs_follow_each_other_at_once() {
    let running = Arc::new(Mutex::new(0_u32));
    let t = Bench::start(|builder| builder.with(running).register::<Single>().workers(8)).await;

    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(t.service.submit(Single {}).await.unwrap().job.id);
    }

    for id in ids {
        assert_eq!(t.until_final(&id).await.state.status, Status::Success);
    }
    t.end().await;
}

#[tokio::test]
async fn service_that_is_dropped_gives_its_jobs_back() {
    let (stage, mut script) = stage();
    let t = Bench::start(|builder| builder.with(stage).register::<Wait>()).await;
    let submitted = t.service.submit(Wait {}).await.unwrap();
    assert_eq!(script.next().await, "began 1");
    let Bench { service, store, .. } = t;

    drop(service);

    let began = tokio::time::Instant::now();
    loop {
        let job = store.get(submitted.id()).await.unwrap().unwrap();
        if job.state.status == Status::Pending {
            assert_eq!((job.state.releases, job.state.crashes), (1, 0));
            break;
        }
        assert!(began.elapsed() < CAP, "the job was not given back: {job:?}");
        tick().await;
    }
}

#[tokio::test]
async fn service_without_workers_submits_and_promotes_and_runs_nothing() {
    let t = Bench::start(|builder| builder.register::<Noop>().workers(0)).await;
    assert!(t.service.stats().is_none());

    let submitted = t.service.submit(Noop { n: 1 }).after(5.seconds()).await.unwrap();
    t.clock.advance(Duration::from_secs(5));

    t.until_status(submitted.id(), Status::Pending).await;
    t.end().await;
}

#[derive(Serialize, Deserialize)]
struct Bad {}

impl Job for Bad {
    const NAME: &'static str = "not a name";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test]
async fn mistakes_in_the_registered_jobs_are_all_told_at_the_start() {
    let builder = Service::builder().store(Arc::new(MemoryStore::new()));
    let started = builder.register::<Bad>().register::<Noop>().register::<Noop>().start().await;

    let error = started.err().expect("it does not start").to_string();
    assert!(error.contains("\"not a name\"") && error.contains("job noop is registered twice"), "{error}");
    assert!(Service::builder().start().await.is_err());
}
