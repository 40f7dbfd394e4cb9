//! Draws what operations are about: jobs, policies and their ticks.

use jobservice_core::job::{Job, Kind, LeaseKey, Retention, Spec};
use jobservice_core::policy::{Misfire, Overlap, Policy, PolicySpec};
use jobservice_core::store::NewJob;
use jobservice_core::unique::{Scope, Unique, digest_key};
use jobservice_core::{JobId, Name, Time};

use super::generator::{Generator, NAMES};
use super::op::Op;
use super::view::View;
use crate::bench::{name, seconds};

/// The tags that jobs have.
pub(super) const TAGS: [&str; 3] = ["nightly", "eu", "Größe 1"];

/// What a job without any wish asks for.
pub(crate) fn spec(named: &str, now: Time) -> Spec {
    Spec {
        name: name(named),
        kind: Kind::Generic,
        parameters: "{ \"width\":  1.50 }".into(),
        priority: 0,
        unique: None,
        max_fails: 3,
        timeout: None,
        hook: None,
        upstream: None,
        tags: Vec::new(),
        retention: Retention::default(),
        enqueued_at: now,
    }
}

/// A job, now and then with an id, a unique key or an idempotency key that another one has.
pub(super) fn job(generator: &mut Generator, view: &View) -> NewJob {
    let now = generator.now;
    let upstream = upstream(generator, view);
    let taken = if generator.rng.chance(3) { generator.known_id() } else { None };
    let id = taken.unwrap_or_else(|| generator.id());
    let rng = &mut generator.rng;
    let mut spec = spec(rng.pick(&NAMES).unwrap(), now);
    if rng.chance(30) {
        spec.priority = rng.below(10) as u8;
    }
    let key = rng.below(2) as u8;
    spec.unique = rng.chance(30).then(|| unique(&spec.name, key, rng.chance(50)));
    spec.max_fails = rng.between(1, 5) as u32;
    spec.timeout = rng.chance(25).then(|| rng.seconds(1, 20));
    spec.hook = rng.chance(50).then(|| "http://hooks.example/jobs".into());
    spec.upstream = upstream;
    spec.tags = TAGS.iter().filter(|_| rng.chance(15)).map(|tag| (*tag).into()).collect();
    spec.retention = match rng.below(10) {
        0 => Retention::all(0),
        1..=3 => Retention::all(rng.between(1, 100) as u32),
        _ => Retention::default(),
    };
    let run_at = rng.chance(30).then(|| now + rng.seconds(0, 60));
    let idempotency_key = rng.chance(25).then(|| format!("submission-{}", rng.below(3)).into());
    // Mostly a run that still holds its lease, sometimes one that lost it.
    let runs = view.runs();
    let launched_by = rng.pick(&runs).filter(|_| rng.chance(10)).map(|(_, lease)| lease.clone());
    let launched_by = launched_by.map(|lease| if rng.chance(20) { LeaseKey { nonce: 0, ..lease } } else { lease });
    NewJob { job: Job::submitted(id, spec, run_at, now), idempotency_key, launched_by }
}

/// The name is part of what a key is made of: a store may keep its parts apart by it.
fn unique(name: &Name, key: u8, until_start: bool) -> Unique {
    let scope = if until_start { Scope::UntilStart } else { Scope::UntilFinal };
    Unique { digest: digest_key(name, &key.to_string()), scope }
}

/// A parent: mostly none, else a policy or a job.
fn upstream(generator: &mut Generator, view: &View) -> Option<JobId> {
    let policies: Vec<JobId> = view.policies.keys().cloned().collect();
    match generator.rng.below(20) {
        0 | 1 => generator.rng.pick(&policies).cloned(),
        2 => generator.known_id(),
        _ => None,
    }
}

/// A policy: new, or the change of one with its key.
pub(super) fn put_policy(generator: &mut Generator, view: &View) -> Op {
    let now = generator.now;
    let taken: Vec<JobId> = view.policies.keys().chain(view.jobs.keys()).cloned().collect();
    let taken = if generator.rng.chance(5) { generator.rng.pick(&taken).cloned() } else { None };
    let id = taken.unwrap_or_else(|| generator.id());
    let rng = &mut generator.rng;
    let declared: Vec<&Policy> = view.policies.values().filter(|policy| policy.spec.schedule_key.is_some()).collect();
    if let Some(again) = rng.pick(&declared).filter(|_| rng.chance(30)) {
        // A restart declares its schedules again.
        return Op::PutPolicy(Box::new(Policy::submitted(id, (*again.spec).clone(), Some(now + seconds(30)), now)));
    }
    let spec = PolicySpec {
        schedule_key: rng.chance(70).then(|| format!("schedule-{}", rng.below(4)).into()),
        name: name(rng.pick(&NAMES).unwrap()),
        parameters: "{}".into(),
        cron: (*rng.pick(&["@every 10s", "0 * * * * *"]).unwrap()).into(),
        timezone: "UTC".into(),
        misfire: *rng.pick(&[Misfire::Skip, Misfire::Last, Misfire::All]).unwrap(),
        overlap: *rng.pick(&[Overlap::Allow, Overlap::Skip, Overlap::Queue, Overlap::Replace]).unwrap(),
        priority: rng.below(2) as u8,
        max_fails: 3,
        timeout: None,
        hook: rng.chance(50).then(|| "http://hooks.example/jobs".into()),
        unique: rng.chance(20).then_some(Scope::UntilFinal),
        unique_key: None,
        tags: Vec::new(),
        retention: Retention::default(),
    };
    let next_due = rng.chance(90).then(|| now + rng.seconds(0, 60));
    Op::PutPolicy(Box::new(Policy::submitted(id, spec, next_due, now)))
}

/// A tick: mostly the one that is due, else one that is early, stale, or of a policy that there is not.
pub(super) fn fire(generator: &mut Generator, view: &View) -> Option<Op> {
    let policies: Vec<&Policy> = view.policies.values().collect();
    let due: Vec<&Policy> = policies
        .iter()
        .copied()
        .filter(|policy| policy.state.next_due.is_some_and(|due| due <= generator.now))
        .collect();
    let policy = if generator.rng.chance(80) { generator.rng.pick(&due) } else { generator.rng.pick(&policies) };
    let policy = *policy?;
    let mut expected_due = policy.state.next_due.unwrap_or(generator.now);
    if generator.rng.chance(10) {
        expected_due = expected_due + seconds(1);
    }
    let count = *generator.rng.pick(&[0, 1, 1, 1, 2, 3]).unwrap();
    let executions: Vec<NewJob> = (0..count).map(|_| execution(generator, policy)).collect();
    let tick = generator.tick(expected_due, &executions);
    let id = if generator.rng.chance(2) { generator.id() } else { policy.id.clone() };
    Some(Op::Fire { id, tick, executions })
}

fn execution(generator: &mut Generator, policy: &Policy) -> NewJob {
    let now = generator.now;
    let mut spec = spec(policy.spec.name.as_str(), now);
    spec.kind = Kind::Scheduled;
    spec.hook.clone_from(&policy.spec.hook);
    spec.upstream = Some(policy.id.clone());
    let digest = digest_key(&policy.spec.name, "policy");
    spec.unique = policy.spec.unique.map(|scope| Unique { digest, scope });
    Job::submitted(generator.id(), spec, Some(now), now).into()
}
