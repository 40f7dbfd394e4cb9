//! How the store is reached and used, and why it may not open.

use std::path::PathBuf;
use std::time::Duration;

use jobservice_core::StoreError;

use crate::link::target::TargetError;

/// How to reach Redis, and how to use it.
#[derive(Clone)]
pub struct Options {
    /// Where it is, in any of the forms of [`Target`](crate::Target): `host:port`, `redis://`, `rediss://`,
    /// `redis+unix://`, `redis+sentinel://`, `redis+cluster://`. User and password stand in it too.
    pub url: String,
    /// What all keys begin with, so that several services can share a Redis.
    pub namespace: String,
    /// How many parts the store has, each in one slot of a cluster. The same on all nodes, for good.
    pub shards: usize,
    /// When a submission counts as taken in.
    pub durability: Durability,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take. Shorter: a Redis that hangs is noticed sooner. Longer: one that is held up by others,
    /// or by its disk, is not given up.
    pub response_timeout: Duration,
    /// A file with the certificates (PEM) of the authorities that sign the server's, for `rediss://`. None: those that the
    /// system trusts.
    pub authorities: Option<PathBuf>,
    /// How old what is known of due times may be when a sweep is answered without asking Redis. Zero asks always, as
    /// callers need whose clock is not the store's. With a second an idle node sends Redis about one command a second.
    pub view_age: Duration,
}

/// When a submission counts as taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When Redis has it. A failover may lose the submissions of the last moments, and of seconds during a partition.
    #[default]
    Local,
    /// When a replica has it as well. Without one that answers in time submissions are refused, with their outcome
    /// unknown. It makes a loss by failover unlikely; it is no consensus.
    Replica {
        /// How long to wait for the replica.
        timeout: Duration,
    },
}

impl Durability {
    /// Waits for one replica, for a second.
    pub const REPLICA: Durability = Durability::Replica { timeout: Duration::from_secs(1) };
}

impl Default for Options {
    fn default() -> Self {
        Options {
            url: "redis://127.0.0.1:6379".to_owned(),
            namespace: "jobservice".to_owned(),
            shards: 1,
            durability: Durability::default(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            authorities: None,
            view_age: Duration::ZERO,
        }
    }
}

/// Without the address's secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = crate::Target::parse(&self.url).map_or_else(|error| error.to_string(), |target| target.to_string());
        f.debug_struct("Options")
            .field("url", &url)
            .field("namespace", &self.namespace)
            .field("shards", &self.shards)
            .field("durability", &self.durability)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("authorities", &self.authorities)
            .field("view_age", &self.view_age)
            .finish()
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The namespace would end the part of the keys that says where in a cluster they are.
    #[error("namespace: {0:?} is not valid; give one to 64 letters, digits and any of _ . : -")]
    Namespace(String),
    /// The file with the certificates could not be read.
    #[error("authorities: {} cannot be read", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system gave no thread.
    #[error("cannot start the thread of the connection")]
    Thread(#[source] std::io::Error),
    /// Nobody answers there, or not to us.
    #[error("cannot connect to {target}")]
    Connect {
        /// Where, without secrets.
        target: String,
        /// Why.
        #[source]
        source: redis::RedisError,
    },
    /// It is too old.
    #[error("redis {0} is too old: version 7.0 or later is needed")]
    Version(String),
    /// It throws data away when it is full.
    #[error(
        "redis has maxmemory-policy {0}, which throws jobs away when it is full: set maxmemory-policy noeviction, in its \
         configuration or with CONFIG SET"
    )]
    Eviction(String),
    /// What is stored was written by a version that lays it out otherwise.
    #[error(
        "what is in this redis has layout {stored}, and this version reads and writes layout {known}: use the version that wrote it, \
         or another namespace"
    )]
    Layout {
        /// The layout of what is there.
        stored: u32,
        /// Ours.
        known: u32,
    },
    /// The store has another number of parts.
    #[error(
        "the store has {stored} shards and this node is set to {configured}: set it to {stored}; it cannot be changed"
    )]
    Shards {
        /// How many there are.
        stored: usize,
        /// How many this node was told.
        configured: usize,
    },
    /// It did not answer.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
}
