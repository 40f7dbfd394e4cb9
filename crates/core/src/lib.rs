//! The pure domain of `jobservice`: what a job is, how it lives, and what a store must promise.
//!
//! **One job, one record, one rule book.** A job is one [`Job`] record. Every change of it is decided by one pure
//! function, [`lifecycle::decide`]; a [`Store`] makes that decision atomic and durable; everything else (who runs, how
//! many, what is due) is derived from the records. This crate has no runtime, opens no file and no socket: time, ids and
//! randomness are arguments, so that any interleaving can be replayed.
//!
//! Where to look:
//! * [`job`]: the record. [`lifecycle`]: the rule book. [`store`]: the verbs, and what a crash means at each.
//! * [`policy`] and [`cron`]: periodic jobs. [`outbox`]: hook events. [`retry`], [`unique`], [`share`]: the small rules.
//! * [`memory`]: the readable reference store and the model of the tests. [`invariant`]: what must always hold.
//! * [`query`]: which jobs are meant. [`minutes`]: what happened when, for charts.
//! * [`limits`]: every bound, with its reason.
#![deny(missing_docs)]

pub mod cron;
pub mod dump;
pub mod id;
pub mod invariant;
pub mod job;
pub mod lifecycle;
pub mod limits;
pub mod memory;
pub mod minutes;
pub mod notices;
pub mod outbox;
pub mod policy;
pub mod query;
pub mod retry;
pub mod share;
pub mod store;
pub mod time;
pub mod unique;

pub use id::{JobId, Name, PoolId};
pub use job::{Job, Kind, Spec, State, Status};
pub use store::{Store, StoreError};
pub use time::{Clock, ManualClock, SystemClock, Time};
