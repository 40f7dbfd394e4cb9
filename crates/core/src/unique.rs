//! Unique jobs: what makes two jobs the same, and for how long.

use serde::{Deserialize, Serialize};

/// The claim of a job to be the only one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unique {
    /// SHA-256 over the job's name and its parameters in canonical form, or over its own `unique_key`.
    pub digest: [u8; 32],
    /// For how long the key is held.
    pub scope: Scope,
}

/// How long a unique job holds its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Until the job is final: at most one waits or runs.
    #[default]
    UntilFinal,
    /// Until it is first claimed: one may wait while another runs.
    UntilStart,
}
