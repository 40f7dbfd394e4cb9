//! The suite of promises that every store of jobservice passes.
//!
//! A behaviour of a store that is not in this suite does not exist. Each promise is one case, declared once in
//! [`cases`]; a store's crate runs all of them, and cannot leave one out, by one line in one test file:
//!
//! ```ignore
//! jobservice_conformance::suite!(MyFactory::new());
//! ```
//!
//! Beside the cases, which are examples, `suite!` brings:
//! * `race` and `crowd`: the few places where threads meet (stop against claim, finish against reap, 64 submitters of one
//!   unique key), repeated many times over several threads;
//! * `lost_answers`: a small worker pool over [`faulty::Faulty`], a store that loses answers and refuses calls by a seeded
//!   plan: nothing may be counted twice, no job may be stranded;
//! * [`model`]: random operations, applied to `MemoryStore` and to the store under test; every answer and the whole state
//!   are compared, and every cell of the lifecycle table is reached.
//!
//! Stores with files add [`crash`]: a child process is aborted at its n-th write, and what it was promised is looked for.
//!
//! [`receiver`] is what the tests of hooks send to.
//!
//! Each case ends with an audit of the store, which nobody has to remember. No case sleeps: time is a [`ManualClock`],
//! ids and random numbers are counters or come from a seed that is printed when something fails.
//!
//! Environment: `JOBSERVICE_SOAK=1` runs the full counts, `JOBSERVICE_SEED=n` runs the random tests with this one seed.
//!
//! [`ManualClock`]: jobservice_core::ManualClock
#![deny(missing_docs, dead_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unchecked_time_subtraction,
    reason = "this crate is nothing but tests: a panic is how it speaks"
)]
#![allow(clippy::cloned_ref_to_slice_refs, reason = "an expected list reads better as a list than as a slice of one")]

pub mod bench;
pub mod build;
pub mod cases;
pub mod counts;
pub mod crash;
pub mod dump;
pub mod faulty;
pub mod model;
pub mod receiver;
pub mod redis_server;
pub mod rng;
pub mod worker;

pub use bench::{Bench, Factory};
