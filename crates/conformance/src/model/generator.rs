//! Draws the next operation: mostly sensible, sometimes late, doubled, forged or about what is not there.
//!
//! The generator sees the reference's records ([`View`]) and remembers leases, so that it can be late on purpose. It draws
//! from its seed and the reference's answers alone: the same seed gives the same operations on every store.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use jobservice_core::job::{Job, LeaseKey, Status};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::policy::{PolicyEvent, Tick};
use jobservice_core::store::{
    Act, Action, Claim, NameAsk, NewJob, Node, OptionsChange, PolicyQuery, Query, Report, Settled,
};
use jobservice_core::{JobId, PoolId, Time};

use super::make;
use super::op::{Answer, Op};
use super::scenario::{self, Step};
use super::view::View;
use crate::bench::{name, pool_id, seconds};
use crate::rng::Rng;

/// The names of the jobs that come and go at random.
pub const NAMES: [&str; 4] = ["copy", "move", "scan", "sweep"];

/// The pools. The first two are incarnations of one name.
const POOLS: [&str; 3] = ["web/01", "web/02", "api/01"];

/// Leases and reports that are remembered to be late with.
const REMEMBERED_MAX: usize = 64;

/// The generator.
pub struct Generator {
    pub(super) rng: Rng,
    /// The present.
    pub now: Time,
    number: u64,
    /// Jobs that there are or were.
    pub(super) known: Vec<JobId>,
    /// Leases that were given, whatever became of them.
    leases: VecDeque<LeaseKey>,
    /// Hook events that were taken.
    taken: VecDeque<(JobId, u32)>,
    /// What the job of the present scenario, which has this name, has yet to live through.
    scenario: (String, VecDeque<Step>),
    scenarios: u64,
}

impl Generator {
    /// The operations of `seed`, from this instant on.
    pub fn new(seed: u64, now: Time) -> Generator {
        Generator {
            rng: Rng::new(seed),
            now,
            number: 0,
            known: Vec::new(),
            leases: VecDeque::new(),
            taken: VecDeque::new(),
            scenario: (String::new(), VecDeque::new()),
            scenarios: 0,
        }
    }

    /// The next operation.
    pub fn next(&mut self, view: &View) -> Op {
        if self.scenario.1.is_empty() && self.rng.chance(8) {
            self.scenarios += 1;
            self.scenario = (format!("scenario-{}", self.scenarios), scenario::draw(&mut self.rng).into());
        }
        while !self.scenario.1.is_empty() && self.rng.chance(70) {
            if let Some(op) = self.step(view) {
                return op;
            }
        }
        self.random(view)
    }

    /// Learns from the reference's answer.
    pub fn learn(&mut self, op: &Op, answer: &Answer) {
        match (op, answer) {
            (Op::Advance(by), _) => self.now = self.now + *by,
            (Op::Insert(jobs) | Op::Fire { executions: jobs, .. }, _) => {
                self.known.extend(jobs.iter().map(|job| job.job.id.clone()));
            }
            (Op::Claim(_), Answer::Claimed(jobs)) => self.leases.extend(jobs.iter().filter_map(Job::lease_key)),
            (Op::TakeEvents { .. }, Answer::Events(taken)) => {
                for taken in taken {
                    self.taken.extend(taken.events.iter().map(|event| (taken.job.id.clone(), event.seq)));
                }
            }
            _ => {}
        }
        while self.leases.len() > REMEMBERED_MAX {
            self.leases.pop_front();
        }
        while self.taken.len() > REMEMBERED_MAX {
            self.taken.pop_front();
        }
    }

    /// The scenario's next step, if it makes sense.
    fn step(&mut self, view: &View) -> Option<Op> {
        let step = self.scenario.1.pop_front()?;
        let named = self.scenario.0.clone();
        match step {
            Step::Insert { max_fails, timeout } => {
                let mut spec = make::spec(&named, self.now);
                (spec.max_fails, spec.timeout) = (max_fails, timeout);
                spec.hook = self.rng.chance(50).then(|| "http://hooks.example/jobs".into());
                let job = Job::submitted(self.id(), spec, None, self.now);
                Some(Op::Insert(vec![job.into()]))
            }
            Step::Claim(lease) => Some(Op::Claim(Claim {
                pool: self.pool(),
                names: [NameAsk { name: name(&named), weight: 1, max_concurrency: None }].into(),
                slots: 1,
                suspects: true,
                nonce: self.rng.next(),
                seed: self.rng.next(),
                until: self.now + lease,
                grace: seconds(2),
            })),
            other => other.op(view.named(&named)?, self.now),
        }
    }

    fn random(&mut self, view: &View) -> Op {
        loop {
            let op = match self.rng.below(151) {
                0..=9 => Some(self.insert(view)),
                10..=25 => Some(self.claim()),
                26..=30 => Some(self.extend(view)),
                31..=46 => self.finish(view),
                47..=50 => self.repeat(view),
                51..=53 => self.release(view),
                54..=58 => self.check_in(view),
                59..=68 => self.stranger(view),
                69..=78 => self.control(view),
                79..=81 => self.known_id().map(Op::Delete),
                82..=83 => Some(self.set_options()),
                84..=89 => Some(Op::Promote(self.limit())),
                90..=96 => Some(Op::Reap { limit: self.limit(), jitter: self.rng.next() as u32 }),
                97..=99 => Some(Op::Prune(self.limit())),
                100..=103 => Some(make::put_policy(self, view)),
                104..=108 => make::fire(self, view),
                109..=110 => self.change_policy(view),
                111 => Some(self.policies()),
                112..=116 => Some(Op::TakeEvents { until: self.now + self.rng.seconds(1, 30) }),
                117..=121 => self.settle(),
                122 => self.known_id().map(Op::Get),
                123..=125 => Some(self.list(view)),
                126 => Some(if self.rng.chance(50) { Op::Counts } else { Op::Names }),
                127..=130 => self.explain(view),
                131..=133 => Some(self.beat()),
                134..=135 => self.resend(),
                136 => self.known_id().map(Op::Kept),
                137..=139 => self.act(view),
                140 => Some(Op::Shrink(self.rng.between(1, 3) as usize)),
                141..=142 => Some(self.minutes()),
                _ => Some(self.advance()),
            };
            // Nothing to do it to: draw again.
            if let Some(op) = op {
                return op;
            }
        }
    }

    /// An id never given before; later ones sort later, but for a few, as those of several nodes would.
    pub(super) fn id(&mut self) -> JobId {
        self.number += 1;
        let scrambled = if self.rng.chance(20) { self.rng.below(1000) } else { 500 };
        JobId::new(format!("job-{scrambled:03}-{:06}", self.number)).unwrap()
    }

    fn pool(&mut self) -> PoolId {
        pool_id(self.rng.pick(&POOLS).unwrap())
    }

    /// The id of a job that there is or was, lately or long ago.
    pub(super) fn known_id(&mut self) -> Option<JobId> {
        let recent = self.known.len().saturating_sub(20);
        let from = if self.rng.chance(70) { recent } else { 0 };
        self.rng.pick(&self.known[from..]).cloned()
    }

    fn limit(&mut self) -> usize {
        if self.rng.chance(70) { 10_000 } else { self.rng.between(1, 3) as usize }
    }

    fn insert(&mut self, view: &View) -> Op {
        let count = self.rng.between(1, 3);
        Op::Insert((0..count).map(|_| make::job(self, view)).collect())
    }

    fn claim(&mut self) -> Op {
        let mut names: Vec<NameAsk> = Vec::new();
        for named in NAMES {
            if self.rng.chance(70) {
                let max_concurrency = self.rng.chance(20).then(|| self.rng.between(0, 3) as u32);
                names.push(NameAsk { name: name(named), weight: self.rng.between(1, 10_000) as u32, max_concurrency });
            }
        }
        let lease = *self.rng.pick(&[5, 5, 60, 600]).unwrap();
        Op::Claim(Claim {
            pool: self.pool(),
            names: names.into(),
            slots: self.rng.below(8) as u32,
            suspects: self.rng.chance(70),
            nonce: self.rng.next(),
            seed: self.rng.next(),
            until: self.now + seconds(lease),
            grace: self.rng.seconds(0, 5),
        })
    }

    /// A lease: of a run, or of one that is over, or of none.
    fn lease(&mut self, view: &View) -> Option<LeaseKey> {
        let runs = view.runs();
        let current = self.rng.pick(&runs).map(|(_, lease)| lease.clone());
        let old = self.leases.get(self.rng.below(REMEMBERED_MAX as u64) as usize).cloned();
        match self.rng.below(20) {
            0..=13 => current.or(old),
            14..=17 => old.or(current),
            18 => current.or(old).map(|lease| LeaseKey { nonce: lease.nonce ^ 1, ..lease }),
            _ => current.or(old).map(|lease| LeaseKey { attempt: lease.attempt + 1, ..lease }),
        }
    }

    fn leases(&mut self, view: &View) -> Vec<LeaseKey> {
        let count = self.rng.between(1, 3);
        (0..count).filter_map(|_| self.lease(view)).collect()
    }

    fn extend(&mut self, view: &View) -> Op {
        let pool = self.pool();
        let mut leases: Vec<LeaseKey> = Vec::new();
        for (holder, lease) in view.runs() {
            if holder == pool && self.rng.chance(80) {
                leases.push(lease);
            }
        }
        if self.rng.chance(30) {
            leases.extend(self.leases(view));
        }
        Op::Extend { pool, leases, until: self.now + self.rng.seconds(0, 60) }
    }

    fn outcome(&mut self) -> Outcome {
        match self.rng.below(12) {
            0..=3 => Outcome::Ok { result: self.rng.chance(30).then(|| "{\"pages\": 3}".into()) },
            4..=6 => Outcome::Failed {
                error: "no disk".into(),
                retryable: true,
                retry_after: self.rng.chance(50).then(|| self.rng.seconds(0, 20)),
                jitter: self.rng.next() as u32,
            },
            7 => Outcome::Failed { error: "no such image".into(), retryable: false, retry_after: None, jitter: 0 },
            8 => Outcome::Stopped,
            9 => Outcome::Cancelled,
            _ => Outcome::Snooze { until: self.now + self.rng.seconds(0, 30) },
        }
    }

    fn finish(&mut self, view: &View) -> Option<Op> {
        let leases = self.leases(view);
        let reports: Vec<Report> = leases.into_iter().map(|lease| Report { lease, outcome: self.outcome() }).collect();
        (!reports.is_empty()).then_some(Op::Finish(reports))
    }

    fn repeat(&mut self, view: &View) -> Option<Op> {
        scenario::repeat(view.pick(&mut self.rng, |job| job.state.ended.is_some())?)
    }

    fn release(&mut self, view: &View) -> Option<Op> {
        let leases = self.leases(view);
        (!leases.is_empty()).then(|| Op::Release { leases, jitter: self.rng.next() as u32 })
    }

    fn check_in(&mut self, view: &View) -> Option<Op> {
        let lease = self.lease(view)?;
        Some(Op::CheckIn { lease, message: self.message() })
    }

    fn message(&mut self) -> Arc<str> {
        format!("{}%", self.rng.below(100)).into()
    }

    /// Any report about a job of any status, under a lease that it never gave, or not lately.
    fn stranger(&mut self, view: &View) -> Option<Op> {
        let status = *self.rng.pick(&Status::ALL)?;
        let job = view.pick(&mut self.rng, |job| job.state.status == status)?;
        let attempt = self.rng.between(0, u64::from(job.state.attempt) + 1) as u32;
        let lease = LeaseKey { id: job.id.clone(), attempt, nonce: self.rng.next() };
        Some(match self.rng.below(6) {
            0 => Op::CheckIn { lease, message: self.message() },
            1 => Op::Extend { pool: self.pool(), leases: vec![lease], until: self.now + seconds(60) },
            2 => Op::Release { leases: vec![lease], jitter: 7 },
            _ => Op::Finish(vec![Report { lease, outcome: self.outcome() }]),
        })
    }

    fn control(&mut self, view: &View) -> Option<Op> {
        let live = view.pick(&mut self.rng, |job| !job.state.status.is_final()).map(|job| job.id.clone());
        let held: HashSet<[u8; 32]> = view.jobs.values().filter(|job| job.state.holds_key).filter_map(digest).collect();
        // Now and then one whose key another job holds.
        let blocked = self.rng.chance(30);
        let dead = view.pick(&mut self.rng, |job| {
            matches!(job.state.status, Status::Error | Status::Cancelled)
                && (!blocked || digest(job).is_some_and(|digest| held.contains(&digest)))
        });
        let dead = dead.map(|job| job.id.clone());
        let policies: Vec<JobId> = view.policies.keys().cloned().collect();
        let id = match self.rng.below(10) {
            0..=3 => live,
            4 => self.rng.pick(&policies).cloned(),
            5 => Some(self.id()),
            6 | 7 => dead,
            _ => self.known_id(),
        }?;
        let grace = self.rng.seconds(0, 60);
        let action = match self.rng.below(3) {
            _ if blocked => Action::Retry { next_due: None },
            0 => Action::Stop(grace),
            1 => Action::Cancel(grace),
            _ => Action::Retry { next_due: self.rng.chance(80).then(|| self.now + seconds(30)) },
        };
        Some(Op::Control { id, action })
    }

    fn set_options(&mut self) -> Op {
        let mut change = OptionsChange::default();
        if self.rng.chance(50) {
            // Mostly on again, so that most of the time there is work for everybody.
            change.paused = Some(self.rng.chance(20));
        }
        if self.rng.chance(50) {
            change.max_concurrency = Some(self.rng.chance(50).then(|| self.rng.between(0, 3) as u32));
        }
        if self.rng.chance(50) {
            change.weight = Some(self.rng.chance(60).then(|| self.rng.between(1, 10_000) as u32));
        }
        Op::SetOptions { name: name(self.rng.pick(&NAMES).unwrap()), change }
    }

    fn change_policy(&mut self, view: &View) -> Option<Op> {
        let policies: Vec<JobId> = view.policies.keys().cloned().collect();
        let id = self.rng.pick(&policies)?.clone();
        let event = match self.rng.below(3) {
            0 => PolicyEvent::FireFailed("store is full".into()),
            paused => PolicyEvent::Pause { paused: paused == 1, next_due: Some(self.now + seconds(30)) },
        };
        Some(Op::ChangePolicy { id, event })
    }

    fn policies(&mut self) -> Op {
        let due_by = self.rng.chance(50).then_some(self.now);
        let schedule_key = self.rng.chance(20).then(|| format!("schedule-{}", self.rng.below(4)).into());
        let limit = self.rng.between(1, 5) as usize;
        Op::Policies(PolicyQuery { id: None, schedule_key, due_by, after: self.known_id(), limit })
    }

    fn settle(&mut self) -> Option<Op> {
        let at = self.rng.below(REMEMBERED_MAX as u64) as usize;
        let (id, seq) = self.taken.get(at).cloned()?;
        let at = self.now + self.rng.seconds(0, 60);
        let settled = match self.rng.below(20) {
            0..=11 => Settled::Done,
            12..=16 => Settled::Retry { at, error: "503".into() },
            17..=18 => Settled::Later { at },
            _ => Settled::Gone { error: "410".into() },
        };
        Some(Op::Settle { id, seq, settled })
    }

    fn resend(&mut self) -> Option<Op> {
        let at = self.rng.below(REMEMBERED_MAX as u64) as usize;
        let (id, seq) = self.taken.get(at).cloned()?;
        // Some that the job never had.
        let seq = if self.rng.chance(20) { seq + 100 } else { seq };
        // Some of a job that never was.
        let id = if self.rng.chance(15) { JobId::new("never-was").ok()? } else { id };
        Some(Op::Resend { id, seq })
    }

    fn list(&mut self, view: &View) -> Op {
        let mut query = Query { limit: *self.rng.pick(&[1, 3, 7, 100]).unwrap(), ..Query::default() };
        if self.rng.chance(50) {
            query.status = self.rng.pick(&Status::ALL).copied();
        }
        query.retrying = self.rng.chance(10);
        if self.rng.chance(25) {
            query.name = self.rng.pick(&NAMES).map(|text| name(text));
        }
        if self.rng.chance(15) {
            query.tag = self.rng.pick(&make::TAGS).map(|tag| (*tag).into());
        }
        if self.rng.chance(15) {
            query.upstream =
                view.pick(&mut self.rng, |job| job.spec.upstream.is_some()).and_then(|job| job.spec.upstream.clone());
        }
        Op::List(query)
    }

    /// The same to a few jobs, of which not all are meant.
    fn act(&mut self, view: &View) -> Option<Op> {
        let Op::List(filter) = self.list(view) else { return None };
        let count = self.rng.between(1, 4);
        let ids: Vec<JobId> = (0..count).filter_map(|_| self.known_id()).collect();
        let act = match self.rng.below(4) {
            0 => Act::Control(Action::Stop(seconds(2))),
            1 => Act::Control(Action::Cancel(seconds(2))),
            2 => Act::Control(Action::Retry { next_due: None }),
            _ => Act::Delete,
        };
        Some(Op::Act { ids, filter, act })
    }

    fn minutes(&mut self) -> Op {
        let name = if self.rng.chance(50) { self.rng.pick(&NAMES).map(|text| name(text)) } else { None };
        // No further back than is kept: when the older ones go is a store's own affair.
        Op::Minutes { name, from: self.now - self.rng.seconds(0, 6 * 24 * 3600) }
    }

    fn explain(&mut self, view: &View) -> Option<Op> {
        let status = if self.rng.chance(80) { Status::Pending } else { Status::Scheduled };
        // Suspects are few, and say something that no other job does.
        let crashed = self.rng.chance(40);
        let suspect = view.pick(&mut self.rng, |job| job.state.status == Status::Pending && job.state.crashes > 0);
        let suspect = suspect.filter(|_| crashed).map(|job| job.id.clone());
        let waiting = view.pick(&mut self.rng, |job| job.state.status == status).map(|job| job.id.clone());
        let waiting = suspect.or(waiting);
        let id = if self.rng.chance(90) { waiting } else { self.known_id() };
        let limit = self.rng.chance(25).then(|| self.rng.between(1, 3) as u32);
        let asks = NAMES.iter().map(|text| NameAsk { name: name(text), weight: 1, max_concurrency: limit });
        Some(Op::Explain { id: id?, code: asks.collect() })
    }

    fn beat(&mut self) -> Op {
        if self.rng.chance(30) {
            return Op::Beat(None);
        }
        let names = NAMES.iter().filter(|_| self.rng.chance(60)).map(|text| name(text)).collect();
        let pool = self.pool();
        Op::Beat(Some(Node {
            started_at: Time::from_seconds(1),
            beat_at: self.now,
            names,
            concurrency: 10,
            host: format!("host of {pool}"),
            pid: 7,
            pool,
        }))
    }

    fn advance(&mut self) -> Op {
        Op::Advance(match self.rng.below(100) {
            0..=59 => self.rng.seconds(0, 5),
            60..=84 => self.rng.seconds(5, 20),
            85..=94 => self.rng.seconds(60, 300),
            95..=97 => self.rng.seconds(3600, 7200),
            // Idempotency keys and hook events go, and so do jobs with a short retention.
            _ => self.rng.seconds(24 * 3600, 4 * 24 * 3600),
        })
    }

    /// Policy ticks come from here too: a wish to fire with so many executions.
    pub(super) fn tick(&mut self, expected_due: Time, executions: &[NewJob]) -> Tick {
        Tick {
            expected_due,
            version: None,
            next_due: self.rng.chance(90).then(|| self.now + self.rng.seconds(1, 60)),
            executions: executions.len(),
            skipped: if self.rng.chance(70) { 0 } else { self.rng.between(1, 5) },
        }
    }
}

fn digest(job: &Job) -> Option<[u8; 32]> {
    job.spec.unique.map(|unique| unique.digest)
}
