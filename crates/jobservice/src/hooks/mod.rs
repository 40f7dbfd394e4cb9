//! Status hooks: each change of a job that has one is told to a URL, in order, at least once, never in the way of the job.
//!
//! The way of an event: the store writes it in the step of the change ([`jobservice_core::outbox`]); [`dispatch`] takes
//! it, on a thread of its own; [`hosts`] says when its host has a place; [`send`] composes ([`body`]), signs ([`sign`]) and
//! sends it to a checked address ([`address`], [`resolve`]); and the store is told what became of it, at the latest tried
//! again by [`schedule`] until [`jobservice_core::limits::HOOK_DEADLINE`].
//!
//! **Crashes.** Between sending and settling: the event is sent again under the same id. Between taking and sending: its
//! hold ends by time, or at once when the same store is opened again.

mod address;
mod body;
mod dispatch;
mod hosts;
mod resolve;
mod schedule;
mod send;
pub mod sign;

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::limits;

pub use address::{AddressPolicy, Refused};
pub use resolve::{Resolver, SystemResolver};
pub use sign::Secret;

pub(crate) use dispatch::Hooks;

/// Messages on their way at once.
const PLACES: usize = 64;

/// Messages on their way to one host at once: enough for a good one, little for one that suffers.
const PER_HOST: usize = 8;

/// How hooks are delivered.
#[derive(Clone)]
pub struct HookOptions {
    /// Where they may go.
    pub policy: Arc<AddressPolicy>,
    /// What they are signed with: the present secret, and before it is forgotten everywhere the one before. None for no
    /// signatures.
    pub secrets: Vec<Secret>,
    /// Whether they tell the job's parameters and result.
    pub include_parameters: bool,
    /// How many are on their way at once.
    pub max_concurrency: usize,
    /// How many of these to one host.
    pub per_host: usize,
    /// How long one delivery may take, at most [`limits::HOOK_TIMEOUT_MAX`].
    pub timeout: Duration,
    /// What looks up names.
    pub resolver: Arc<dyn Resolver>,
}

impl Default for HookOptions {
    fn default() -> Self {
        HookOptions {
            policy: Arc::default(),
            secrets: Vec::new(),
            include_parameters: false,
            max_concurrency: PLACES,
            per_host: PER_HOST,
            timeout: limits::HOOK_TIMEOUT,
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl std::fmt::Debug for HookOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookOptions")
            .field("policy", &self.policy)
            .field("secrets", &self.secrets)
            .field("include_parameters", &self.include_parameters)
            .field("max_concurrency", &self.max_concurrency)
            .field("per_host", &self.per_host)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
