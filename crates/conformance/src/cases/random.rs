//! Random operations: the store and the reference side by side. See [`crate::model`].

use crate::bench::Bench;
use crate::counts::{is_replay, is_soak, seeds};
use crate::model::{self, Reached};

super::cases! { $ random:
    any_sequence_of_calls_is_answered_as_by_the_reference,
}

/// Operations of each seed.
const OPERATIONS: usize = 500;

/// How often each cell of the lifecycle table and each kind of answer is reached at the least, over all seeds of a soak.
const REACHED_MIN: u64 = 20;

async fn any_sequence_of_calls_is_answered_as_by_the_reference(t: &Bench) {
    let mut reached = Reached::default();
    for seed in seeds(20, 200) {
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
