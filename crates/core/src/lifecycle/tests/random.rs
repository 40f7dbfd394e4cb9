//! Random lives: whatever happens in whatever order, the invariants hold and every cell is as the table says.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::table::expected;
use super::*;
use crate::invariant;
use crate::lifecycle::table::{Effect, EventKind, cells, kind};

/// One step of a random life: what to do, whose lease to show, how much time passes before.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    lease: u8,
    pass: u8,
    number: u32,
}

/// The steps of a life: of any sort, or mostly those of a job that is given back, or whose workers die, again and again.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lives = prop_oneof![
        Just((0..24).collect::<Vec<u8>>()),
        Just([2, 12].repeat(60).into_iter().chain(0..24).collect()),
        Just([2, 19, 0].repeat(10).into_iter().chain(0..24).collect()),
    ];
    lives.prop_flat_map(|kinds| {
        let step = (prop::sample::select(kinds), 0..8_u8, 0..12_u8, any::<u32>());
        prop::collection::vec(step.prop_map(|(what, lease, pass, number)| Step { what, lease, pass, number }), 1..120)
    })
}

fn specs() -> impl Strategy<Value = Spec> {
    let scope = prop::option::of(prop_oneof![Just(Scope::UntilFinal), Just(Scope::UntilStart)]);
    (scope, 1..5_u32, any::<bool>(), prop::option::of(1..40_u64)).prop_map(|(scope, max_fails, hook, timeout)| Spec {
        unique: scope.map(unique),
        max_fails,
        hook: hook.then(|| "https://example.com/hook".into()),
        timeout: timeout.map(secs),
        ..spec()
    })
}

/// What a random life has seen.
#[derive(Default)]
struct Seen {
    cells: BTreeSet<(EventKind, Status, Effect)>,
}

fn event(step: Step, life: &Life, leases: &[LeaseKey]) -> Event {
    let number = u64::from(step.number);
    let other = || LeaseKey { id: life.job.id.clone(), attempt: step.number % 4, nonce: number };
    let lease = match step.lease {
        0 => other(),
        1 | 2 => leases.get(number as usize % leases.len().max(1)).cloned().unwrap_or_else(other),
        _ => leases.last().cloned().unwrap_or_else(other),
    };
    let grace = secs(number % 60);
    let finish = |outcome| Event::Finish { lease: lease.clone(), outcome };
    let failed = |retryable| Outcome::Failed { error: "no".into(), retryable, retry_after: None, jitter: step.number };
    match step.what {
        0 | 1 => Event::Due,
        2..=5 => Event::Claim {
            pool: PoolId::incarnation("pool", number % 3).unwrap(),
            nonce: number,
            until: life.now + LEASE,
            grace: secs(number % 20),
        },
        6 => finish(ok()),
        7 => finish(failed(true)),
        8 => finish(failed(number.is_multiple_of(4))),
        9 => finish(Outcome::Stopped),
        10 => finish(Outcome::Cancelled),
        11 => finish(Outcome::Snooze { until: life.now + secs(number % 100) }),
        12 | 13 => Event::Release { lease, jitter: step.number },
        14 => Event::CheckIn { lease, message: "50%".into() },
        15 | 16 => Event::Extend { lease, until: life.now + secs(number % 60) },
        17 => Event::TimedOut { jitter: step.number },
        18 => Event::GraceExpired,
        19 => Event::LeaseExpired { proven: number.is_multiple_of(3) },
        20 => Event::Stop { grace },
        21 => Event::Cancel { grace },
        22 => Event::Retry,
        _ => match number % 8 {
            0 => Event::Delete,
            1 | 2 => Event::Prune,
            _ => Event::Retry,
        },
    }
}

/// Lives through the steps and checks each against the table and the invariants.
fn live(mut life: Life, steps: &[Step], seen: &mut Seen) {
    let mut leases = Vec::new();
    for step in steps {
        let pass = match step.pass {
            0..=5 => 0,
            6..=8 => 1,
            9 => 12,
            10 => 100,
            _ => u64::from(step.number % 4_000_000),
        };
        life.pass(secs(pass));
        let event = event(*step, &life, &leases);
        let before = life.job.clone();
        let kind = kind(&before, &event, life.now);

        let answer = decide(&before, &event, life.now);

        let effect = Effect::of(before.state.status, &answer);
        let allowed = expected(kind, before.state.status);
        assert!(allowed.contains(&effect), "{event:?} of {before:?}: {effect:?}, not one of {allowed:?}");
        seen.cells.insert((kind, before.state.status, effect));
        assert_eq!(answer, decide(&before, &event, life.now), "the same question has the same answer");
        let Ok(change) = answer else { continue };
        let Some(state) = change.state.clone() else {
            assert_eq!((change.leave, change.enter, change.event), (Some(before.index()), None, None));
            return;
        };
        life.job.state = state;
        check(&before, &life.job, &change, &event);
        leases.extend(life.job.lease_key().filter(|lease| leases.last() != Some(lease)));
    }
}

fn check(before: &Job, after: &Job, change: &Change, event: &Event) {
    assert_eq!(invariant::check(after), Vec::<String>::new(), "{event:?} of {before:?}");
    assert_eq!(invariant::transition(before, after), Vec::<String>::new(), "{event:?} of {before:?}");

    let (old, new) = (&before.state, &after.state);
    // The change says all that a store must know.
    let (from, to) = (before.index(), after.index());
    let moves = if from == to { (None, None) } else { (Some(from), Some(to)) };
    assert_eq!((change.leave, change.enter), moves, "{event:?} of {before:?}");
    // One event for each status change and each check-in of a job with a hook, and none else.
    let reports = old.status != new.status || matches!(event, Event::CheckIn { .. });
    assert_eq!(change.event.is_some(), reports && before.spec.hook.is_some());
    assert_eq!(new.event_seq, old.event_seq + u32::from(change.event.is_some()));
    if let Some(event) = &change.event {
        assert_eq!((event.seq, event.status, event.attempt), (new.event_seq, new.status, new.attempt));
    }
    // A lease that ends is remembered, and its report is known again by what became of the job.
    if let (Some(lease), None) = (before.lease_key(), after.lease_key()) {
        let ended = new.ended.as_ref().unwrap();
        assert_eq!((ended.attempt, ended.nonce, ended.status), (lease.attempt, lease.nonce, new.status));
    } else {
        assert_eq!(old.ended, new.ended);
    }
    assert_eq!(new.version, old.version + u64::from(!matches!(event, Event::Extend { .. })));
    assert!(!change.takes_key || new.holds_key && !old.holds_key);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_lives_keep_the_invariants_and_the_table(spec in specs(), steps in steps(), delay in 0..3_u64) {
        let life = if delay == 0 { Life::begin(spec) } else { Life::delayed(spec, secs(delay)) };
        live(life, &steps, &mut Seen::default());
    }
}

fn cases() -> u32 {
    if std::env::var_os("JOBSERVICE_SOAK").is_some() { 200_000 } else { 2_000 }
}

/// Goal: no cell of the table is right only in the examples. Method: random lives with a fixed seed until every cell
/// that has examples was reached with each of its effects.
#[test]
fn random_lives_reach_every_cell() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut missing: BTreeSet<(EventKind, Status, Effect)> = BTreeSet::new();
    for cell in cells() {
        missing.extend(cell.effects().into_iter().map(|effect| (cell.kind, cell.status, effect)));
    }
    for _ in 0..20_000 {
        let (spec, steps) = (specs(), steps()).new_tree(&mut runner).unwrap().current();
        let mut seen = Seen::default();
        live(Life::begin(spec), &steps, &mut seen);
        missing.retain(|cell| !seen.cells.contains(cell));
        if missing.is_empty() {
            return;
        }
    }
    panic!("not reached: {missing:?}");
}
