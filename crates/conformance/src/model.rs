//! The model test: random operations on the reference store and on the store under test, side by side.
//!
//! Goal: no sequence of calls, sensible or not, makes a store answer or keep anything else than `MemoryStore` does.
//! Method: [`generator`] draws operations from a seed; each is asked of both stores and the answers are compared; every 25
//! operations and at the end their whole states are ([`crate::dump`]), with an audit of both. [`coverage`] counts which
//! cells of the lifecycle table were reached; [`scenario`] steers to those that chance alone does not reach.
//!
//! A failure names its seed; `JOBSERVICE_SEED=n` runs it alone.

pub mod answers;
pub mod coverage;
pub mod generator;
mod make;
pub mod op;
pub mod scenario;
pub mod view;

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use jobservice_core::memory::MemoryStore;
use jobservice_core::store::Store;
use jobservice_core::{Clock, ManualClock, invariant};

pub(crate) use make::spec as plain_spec;

use self::answers::Answers;
use self::coverage::Coverage;
use self::generator::Generator;
use self::op::{Answer, Op};
use self::view::View;

/// After so many operations the whole states are compared.
const COMPARED_EVERY: usize = 25;

/// Operations that a failure shows, the last of them first.
const SHOWN: usize = 8;

/// Bytes of an operation or answer that a failure shows.
const SHOWN_BYTES: usize = 2000;

/// What the operations of one or more runs reached.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// The cells of the lifecycle table.
    pub cells: Coverage,
    /// The kinds of answers.
    pub answers: Answers,
}

impl Reached {
    /// What was reached less often than `least` times.
    pub fn missing(&self, least: u64) -> Vec<String> {
        let mut missing = self.cells.missing(least);
        missing.extend(self.answers.missing(least));
        missing
    }
}

/// The reference and its generator: deterministic, so that two processes that run the same seed see the same.
pub struct Model {
    /// The reference.
    pub reference: Arc<dyn Store>,
    generator: Generator,
    view: View,
}

impl Model {
    /// The model of `seed`, with an empty reference.
    pub async fn new(seed: u64) -> Model {
        let reference: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let view = View::of(&reference).await;
        Model { reference, generator: Generator::new(seed, ManualClock::default().now()), view }
    }

    /// The present of the next operation.
    pub fn now(&self) -> jobservice_core::Time {
        self.generator.now
    }

    /// Draws an operation and does it on the reference, counting what it reached.
    pub async fn step(&mut self, reached: &mut Reached) -> (Op, Answer) {
        let op = self.generator.next(&self.view);
        let answer = op.ask(&self.reference, self.generator.now).await.expect("the reference answers");
        reached.cells.record(&self.view, &op, &answer, self.generator.now);
        reached.answers.record(&answer);
        self.generator.learn(&op, &answer);
        let after = View::of(&self.reference).await;
        for (id, job) in &after.jobs {
            assert_eq!(invariant::check(job), Vec::<String>::new(), "after {op:?}");
            // A life that ended and an id used again are not one change.
            if let Some(before) = self.view.jobs.get(id).filter(|before| before.state.version + 1 == job.state.version)
            {
                assert_eq!(invariant::transition(before, job), Vec::<String>::new(), "by {op:?}");
            }
        }
        self.view = after;
        (op, answer)
    }
}

/// Runs `operations` operations of `seed` on `store`, which is empty, and on the reference.
///
/// # Panics
/// If they differ, with what is needed to find out why.
pub async fn run(store: &Arc<dyn Store>, seed: u64, operations: usize, reached: &mut Reached) {
    let mut model = Model::new(seed).await;
    let mut history: VecDeque<String> = VecDeque::new();
    for number in 1..=operations {
        let now = model.now();
        let (op, expected) = model.step(reached).await;
        history.push_front(format!("{number}. at {now}: {}", shown(&op)));
        history.truncate(SHOWN);
        let found = op.ask(store, now).await;
        let agrees = found.as_ref().is_ok_and(|found| found.agrees(&expected));
        if !agrees {
            fail(seed, &history, &format!("expected {}\nfound    {}", shown(&expected), shown(&found)));
        }
        if (number.is_multiple_of(COMPARED_EVERY) || number == operations)
            && let Err(difference) = crate::dump::compare(&model.reference, store).await
        {
            fail(seed, &history, &difference);
        }
    }
}

fn shown(what: &impl std::fmt::Debug) -> String {
    jobservice_core::limits::cut(&format!("{what:?}"), SHOWN_BYTES).into_owned()
}

fn fail(seed: u64, history: &VecDeque<String>, what: &str) -> ! {
    let mut text = format!("the stores differ; JOBSERVICE_SEED={seed} runs this again\n{what}\nthe last operations:\n");
    for op in history {
        writeln!(text, "{op}").expect("a string takes all");
    }
    panic!("{text}");
}
