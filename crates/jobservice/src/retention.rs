//! How long final jobs are kept: by how they ended, by name, and how much room all may take.

use std::collections::BTreeMap;

use jobservice_core::job::Retention;
use jobservice_core::{Name, limits};

/// What is kept for how long. A job takes its time from here when it is submitted, unless its submission gives one; a
/// change holds for jobs that are submitted after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRules {
    /// For names without a rule of their own.
    pub default: Retention,
    /// For single names.
    pub names: BTreeMap<Name, Retention>,
    /// Bytes that the store may take; while it takes more, final jobs go ahead of their time, the next to expire first.
    /// None for no bound.
    pub bytes_max: Option<u64>,
}

impl Default for RetentionRules {
    fn default() -> Self {
        RetentionRules {
            default: Retention::default(),
            names: BTreeMap::new(),
            bytes_max: Some(limits::STORE_BYTES_MAX),
        }
    }
}

impl RetentionRules {
    /// How long jobs of a name are kept.
    pub fn of(&self, name: &Name) -> Retention {
        self.names.get(name).copied().unwrap_or(self.default)
    }
}
