//! The scripts, one per file, called by hash and loaded where a server does not know them.

use std::sync::LazyLock;

/// A Lua script.
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) hash: String,
}

impl Script {
    fn new(text: String) -> Script {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Script { text, hash }
    }
}

/// Applies a change that ends or moves jobs: allowed while Redis is full, so that it can drain.
pub(crate) static COMMIT: LazyLock<Script> =
    LazyLock::new(|| Script::new(format!("#!lua flags=allow-oom\n{}", include_str!("lua/commit.lua"))));

/// The same for what makes the store larger: refused while Redis is full.
pub(crate) static INTAKE: LazyLock<Script> =
    LazyLock::new(|| Script::new(format!("#!lua\n{}", include_str!("lua/commit.lua"))));

/// Takes jobs for a pool.
pub(crate) static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/claim.lua").to_owned()));

/// A node's pulse.
pub(crate) static PULSE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/pulse.lua").to_owned()));

/// What a claim over several shards has to know.
pub(crate) static PEEK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/peek.lua").to_owned()));

/// Appends to the log of a job: refused while Redis is full.
pub(crate) static LOG_APPEND: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/log_append.lua").to_owned()));

/// Removes the logs of jobs.
pub(crate) static LOG_REMOVE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/log_remove.lua").to_owned()));

/// Finds the keys of a shard.
pub(crate) static KEYS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/keys.lua").to_owned()));
