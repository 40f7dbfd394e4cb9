//! What chance alone hardly ever reaches: ten releases, three crashes, and late reports about jobs that went through it.
//!
//! A scenario is the life of one job, which has a name of its own, as a list of steps. The generator mixes the steps with
//! random operations, so other jobs come and go meanwhile. A step whose job is not as it expects is passed over.

use std::time::Duration;

use jobservice_core::Time;
use jobservice_core::job::{Job, LeaseKey};
use jobservice_core::lifecycle::Outcome;
use jobservice_core::limits::RELEASES_MAX;
use jobservice_core::store::{Action, Report};

use super::op::Op;
use crate::bench::{failed, fatal, ok, seconds};
use crate::rng::Rng;

/// One step in the life of a scenario's job.
#[derive(Clone, Debug)]
pub enum Step {
    /// It is inserted.
    Insert {
        /// How many of its runs may fail.
        max_fails: u32,
        /// How long a run may take.
        timeout: Option<Duration>,
    },
    /// It is claimed, for so long.
    Claim(Duration),
    /// Its run ends so.
    Finish(Outcome),
    /// Its run is given back.
    Release,
    /// Somebody who never had its lease gives it back.
    ForeignRelease,
    /// Somebody who never had its lease reports this.
    ForeignFinish(Outcome),
    /// The report that ended its last lease is sent again.
    Repeat,
    /// Somebody steers it.
    Control(Action),
    /// Time passes.
    Advance(Duration),
    /// Time passes until the service must look at its run.
    UntilReaped,
    /// Time passes until it is due.
    UntilDue,
    /// A sweep.
    Promote,
    /// A sweep.
    Reap,
}

/// A life, drawn at random from those that lead to rare cells.
pub fn draw(rng: &mut Rng) -> Vec<Step> {
    match rng.below(7) {
        0 | 1 => releases(rng),
        2 | 3 => crashes(rng),
        4 => timeout(rng),
        5 => signals(rng),
        _ => reports(rng),
    }
}

const SHORT: Duration = seconds(5);
const LONG: Duration = seconds(600);

fn stop_or_cancel(rng: &mut Rng, grace: Duration) -> Step {
    Step::Control(if rng.chance(50) { Action::Stop(grace) } else { Action::Cancel(grace) })
}

/// Ten releases are free; then the job may end in each way, and somebody gives it back once more.
fn releases(rng: &mut Rng) -> Vec<Step> {
    let ending = rng.below(6);
    let mut steps = vec![Step::Insert { max_fails: if ending == 1 { 1 } else { 3 }, timeout: None }];
    for _ in 0..RELEASES_MAX {
        steps.extend([Step::Claim(LONG), Step::Release]);
    }
    steps.push(Step::ForeignRelease);
    match ending {
        0 => steps.extend([Step::Claim(LONG), Step::Release, Step::Repeat, Step::ForeignRelease]),
        1 => steps.extend([Step::Claim(LONG), Step::Release, Step::Repeat]),
        2 => steps.extend([Step::Claim(LONG), Step::Finish(ok())]),
        3 => steps.extend([Step::Claim(LONG), Step::Finish(failed("broken")), Step::ForeignRelease]),
        _ => {}
    }
    steps.extend([Step::ForeignRelease, stop_or_cancel(rng, LONG), Step::ForeignRelease]);
    steps
}

/// Up to three workers are lost; in between the job may end in each way, and sweeps look at it all the while.
fn crashes(rng: &mut Rng) -> Vec<Step> {
    let crash = [Step::Claim(SHORT), Step::UntilReaped, Step::Reap];
    let mut steps = vec![Step::Insert { max_fails: 3, timeout: None }];
    steps.extend(crash.clone());
    steps.push(Step::Reap);
    let twice = rng.chance(60);
    if twice {
        steps.extend(crash.clone());
        steps.extend([Step::Reap, Step::UntilDue, Step::Promote, Step::Reap]);
    }
    match rng.below(5) {
        0 if twice => steps.extend(crash),
        0 | 1 => steps.extend([Step::Claim(LONG), Step::Finish(ok())]),
        2 => steps.extend([Step::Claim(LONG), Step::Finish(fatal("broken"))]),
        3 => steps.extend([Step::Claim(LONG), Step::Finish(failed("broken")), Step::Reap]),
        _ => {}
    }
    steps.extend([Step::Reap, stop_or_cancel(rng, LONG), Step::Reap]);
    steps
}

/// A run goes over its timeout, or would, had it not been signalled.
fn timeout(rng: &mut Rng) -> Vec<Step> {
    let mut steps = vec![
        Step::Insert { max_fails: rng.between(1, 2) as u32, timeout: Some(seconds(3)) },
        Step::Claim(LONG),
        Step::Reap,
    ];
    if rng.chance(50) {
        steps.push(stop_or_cancel(rng, LONG));
    }
    steps.extend([Step::Advance(seconds(9)), Step::Reap, Step::Repeat]);
    steps
}

/// A run is signalled, once or twice, and does not obey, or fails, or dies.
fn signals(rng: &mut Rng) -> Vec<Step> {
    let grace = if rng.chance(50) { seconds(2) } else { LONG };
    let mut steps = vec![
        Step::Insert { max_fails: 3, timeout: None },
        Step::Claim(SHORT),
        stop_or_cancel(rng, grace),
        stop_or_cancel(rng, grace),
    ];
    match rng.below(4) {
        0 => steps.extend([Step::UntilReaped, Step::Reap]),
        1 => steps.push(Step::Release),
        2 => steps.push(Step::Finish(failed("killed"))),
        _ => steps.push(Step::Finish(ok())),
    }
    steps.extend([Step::Repeat, stop_or_cancel(rng, grace), Step::Control(Action::Retry { next_due: None })]);
    steps
}

/// Reports of each sort come twice, late, and from strangers, at every point of a life with a failure.
fn reports(rng: &mut Rng) -> Vec<Step> {
    let late = |rng: &mut Rng| match rng.below(5) {
        0 => Step::ForeignRelease,
        1 => Step::ForeignFinish(Outcome::Stopped),
        2 => Step::ForeignFinish(Outcome::Cancelled),
        3 => Step::ForeignFinish(failed("late")),
        _ => Step::Repeat,
    };
    let mut steps = vec![Step::Insert { max_fails: rng.between(1, 3) as u32, timeout: None }, late(rng)];
    for _ in 0..3 {
        steps.extend([Step::Claim(LONG), late(rng), Step::Finish(failed("broken")), Step::Repeat, late(rng)]);
        steps.extend([Step::UntilDue, Step::Promote, late(rng)]);
    }
    steps.extend([stop_or_cancel(rng, LONG), late(rng), Step::Control(Action::Retry { next_due: None }), late(rng)]);
    steps
}

impl Step {
    /// The operation that this step is for its job as it is; none if it makes no sense for it. An insert and a claim are
    /// the generator's to make.
    pub fn op(&self, job: &Job, now: Time) -> Option<Op> {
        let foreign = LeaseKey { id: job.id.clone(), attempt: job.state.attempt, nonce: u64::MAX };
        Some(match self {
            Step::Insert { .. } | Step::Claim(_) => return None,
            Step::Finish(outcome) => Op::Finish(vec![Report { lease: job.lease_key()?, outcome: outcome.clone() }]),
            Step::Release => Op::Release { leases: vec![job.lease_key()?], jitter: 3 },
            Step::ForeignRelease => Op::Release { leases: vec![foreign], jitter: 3 },
            Step::ForeignFinish(outcome) => Op::Finish(vec![Report { lease: foreign, outcome: outcome.clone() }]),
            Step::Repeat => repeat(job)?,
            Step::Control(action) => Op::Control { id: job.id.clone(), action: *action },
            Step::Advance(by) => Op::Advance(*by),
            Step::UntilReaped => Op::Advance(job.state.reap_at()?.since(now)),
            Step::UntilDue => Op::Advance(job.state.run_at?.since(now)),
            Step::Promote => Op::Promote(10_000),
            Step::Reap => Op::Reap { limit: 10_000, jitter: 5 },
        })
    }
}

/// The report that ended the last lease of a job, as its worker would send it again; what it said does not matter any
/// more.
pub fn repeat(job: &Job) -> Option<Op> {
    use jobservice_core::job::EndedHow;
    let ended = job.state.ended.as_ref()?;
    let lease = LeaseKey { id: job.id.clone(), attempt: ended.attempt, nonce: ended.nonce };
    match ended.how {
        EndedHow::Released => Some(Op::Release { leases: vec![lease], jitter: 1 }),
        EndedHow::Finished | EndedHow::Reaped | EndedHow::Aborted => {
            Some(Op::Finish(vec![Report { lease, outcome: ok() }]))
        }
    }
}
