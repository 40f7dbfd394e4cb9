//! Random operations: the store and the reference side by side. See [`crate::model`].

use crate::bench::Bench;
use crate::counts::{is_replay, is_soak, seeds};
use crate::model::{self, Model, Reached};

super::cases! { $ random:
    any_sequence_of_calls_is_answered_as_by_the_reference,
    restarts_change_nothing,
}

/// Operations of each seed.
const OPERATIONS: usize = 500;

/// How often each cell of the lifecycle table and each kind of answer is reached at the least, over all seeds of a soak.
const REACHED_MIN: u64 = 20;

async fn any_sequence_of_calls_is_answered_as_by_the_reference(t: &Bench) {
    let mut reached = Reached::default();
    for seed in seeds(24, 200) {
        let t = t.another().await;
        model::run(&t.store, seed, OPERATIONS, &mut reached).await;
    }

    println!("cells of the lifecycle table reached:\n{}", reached.cells.table());
    println!("answers:\n{}", reached.answers.table());
    let least = match (is_replay(), is_soak()) {
        (true, _) => 0,
        (false, true) => REACHED_MIN,
        (false, false) => 1,
    };
    let missing = reached.missing(least);
    assert!(missing.is_empty(), "reached less than {least} times:\n{}", missing.join("\n"));
}

/// Only for stores that outlive their value: closed and opened again, they go on as if nothing had been.
async fn restarts_change_nothing(t: &Bench) {
    for seed in seeds(3, 20) {
        let mut store = t.another().await;
        let mut model = Model::new(seed).await;
        for number in 1..=OPERATIONS / 2 {
            let now = model.now();
            let (op, expected) = model.step(&mut Reached::default()).await;
            let found = op.ask(&store.store, now).await.unwrap();
            assert!(found.agrees(&expected), "seed {seed}, operation {number}: {op:?} is answered {found:?}");
            if number % 50 == 0 {
                let Some(reopened) = store.reopened().await else { return };
                store = reopened;
                let compared = crate::dump::compare(&model.reference, &store.store).await;
                compared.unwrap_or_else(|difference| panic!("seed {seed}, operation {number}: {difference}"));
            }
        }
    }
}
