//! A policy as it is stored: JSON of its three parts.

use std::sync::Arc;

use jobservice_core::policy::{Policy, PolicySpec, PolicyState};
use jobservice_core::store::Result;
use jobservice_core::{JobId, StoreError};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Written<'a> {
    id: &'a JobId,
    spec: &'a PolicySpec,
    state: &'a PolicyState,
}

#[derive(Deserialize)]
struct Stored {
    id: JobId,
    spec: PolicySpec,
    state: PolicyState,
}

/// The policy as text.
pub(crate) fn write(policy: &Policy) -> Result<String> {
    let Policy { id, spec, state } = policy;
    serde_json::to_string(&Written { id, spec, state })
        .map_err(|error| StoreError::Damaged { what: format!("policy {id} cannot be written: {error}") })
}

/// Reads a policy.
pub(crate) fn read(text: &str) -> Result<Policy> {
    let Stored { id, spec, state } = serde_json::from_str(text)
        .map_err(|error| StoreError::Damaged { what: format!("a policy cannot be read: {error}") })?;
    Ok(Policy { id, spec: Arc::new(spec), state })
}
