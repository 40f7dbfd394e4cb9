//! The shared store: any number of nodes on one Redis (or Sentinel, or Cluster).
//!
//! Each job is one record of three fields; sorted sets over the records say who waits, is due, runs, is kept. The rule
//! book decides in Rust; `lua/commit.lua` writes what was decided if what it was decided from still stands (compare and
//! set on the record's header). What must choose jobs inside Redis, a claim, is a script of its own (`lua/claim.lua`),
//! replayed against the rule book by a test.
//!
//! Where to begin: `keys.rs` for the layout, `work.rs` for a step, `claim.rs` for how a job becomes Running.

mod audit;
mod body;
mod checks;
mod claim;
mod clock;
mod control;
mod due;
mod entry;
mod epoch;
mod header;
mod insert;
mod inspect;
mod keys;
mod lane;
mod link;
mod list;
mod listen;
mod locate;
mod logs;
mod look;
mod moves;
mod names;
mod nodes;
mod open;
mod options;
mod outbox;
mod places;
mod policies;
mod policy;
mod policy_text;
mod pulse;
mod record;
mod runs;
mod script;
mod shrink;
mod spread;
mod store;
mod unlisted;
mod upkeep;
mod view;
mod wake;
mod walk;
mod work;

pub use link::target::{Target, TargetError};
pub use logs::{LogExtent, LogPart};
pub use options::{Durability, OpenError, Options};
pub use store::RedisStore;
