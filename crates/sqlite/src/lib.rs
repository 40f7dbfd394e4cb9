//! The embedded store of jobservice: SQLite behind one writer thread with group commit.
//!
//! All state is in one table with partial indexes (`schema/0001_first.sql`); nothing in memory is a truth of its own.
//! * `store`: what callers see. A write is a `call` that goes through the `queue` to the `writer`; a read goes to
//!   a thread of `reads`.
//! * `writer`: batches and commits; `sync`: makes them durable and answers; `fault` and `health`: what happens when
//!   the disk is full or ill.
//! * `session`: the writer's hands. `commit` applies what the rule book decided; `insert`, `claim`, `runs`,
//!   `control`, `due`, `shrink`, `policy`, `outbox`, `nodes` are the verbs; `names` and `running` what it remembers.
//! * `look` and `list`: the reads. `audit`: everything compared with everything;
//!   `inspect`: the same beside a running service. `row`: a record as a row.

mod audit;
mod call;
mod claim;
mod commit;
mod control;
mod due;
mod fault;
mod health;
mod insert;
mod inspect;
mod list;
mod lock;
pub mod logs;
mod look;
mod names;
mod nodes;
mod options;
mod outbox;
mod policy;
mod queue;
mod reads;
mod row;
mod running;
mod runs;
mod schema;
mod session;
mod shrink;
mod store;
mod sync;
mod upkeep;
mod writer;

pub use health::Health;
pub use inspect::{Inspector, Size, is_served};
pub use lock::Lock;
pub use options::{OpenError, Options, WriteHook};
pub use store::SqliteStore;
