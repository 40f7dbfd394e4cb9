//! Identifiers: of jobs, of job names, of worker pools. All are checked where they enter and cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?} is not valid: {rule}")]
pub struct InvalidId {
    /// What was to be read: "job id", "job name", "pool id".
    pub what: &'static str,
    /// The text that was found, cut to 80 characters.
    pub found: String,
    /// What a valid one looks like.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads the identifier, refusing text that does not have its form.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    return Ok(Self(Arc::from(text)));
                }
                Err(InvalidId { what: $what, found: text.chars().take(80).collect(), rule: $rule })
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// The id of a job or a policy: 8 to 64 letters, digits, `_` or `-`, so that it is safe in a path, a key and a log.
    /// Ours are UUIDv7 ([`JobId::generate`]); ids brought along from other systems keep their text.
    JobId,
    "job id",
    "8 to 64 letters, digits, '_' or '-'",
    |text| (8..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
);

text_id!(
    /// The name of a job: which code runs it. 1 to 128 letters, digits, `_`, `.`, `:` or `-`.
    Name,
    "job name",
    "1 to 128 letters, digits, '_', '.', ':' or '-'",
    |text| (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
);

text_id!(
    /// The identity of a worker pool: its name, `/`, and a random incarnation, so that a restarted pool of the same
    /// name is another pool. 3 to 160 characters.
    PoolId,
    "pool id",
    "a name, '/' and an incarnation, 3 to 160 letters, digits, '_', '.', ':', '-'",
    |text| (3..=160).contains(&text.len())
        && text.split_once('/').is_some_and(|(name, incarnation)| !name.is_empty() && !incarnation.is_empty())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-' | b'/'))
);

impl JobId {
    /// A new id: a UUIDv7, so that ids made later by one process sort later.
    pub fn generate() -> JobId {
        let mut buffer = uuid::Uuid::encode_buffer();
        JobId(Arc::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer)))
    }
}

impl PoolId {
    /// The pool named `name` in its incarnation `incarnation` (random, made at start).
    pub fn incarnation(name: &str, incarnation: u64) -> Result<PoolId, InvalidId> {
        PoolId::new(format!("{name}/{incarnation:016x}"))
    }

    /// The name without the incarnation.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_could_leave_a_directory_or_forge_a_key() {
        for bad in ["", "short", "../../../etc/passwd", "a/b/c/d/e", "id with space", "nul\0nul\0nul", &"x".repeat(65)]
        {
            assert!(JobId::new(bad).is_err(), "{bad:?}");
        }
        assert!(JobId::new("0198c8f2-7a3e-7bb0-8000-aaaaaaaaaaaa").is_ok());
        assert!(Name::new("").is_err() && Name::new("a b").is_err() && Name::new("image:resize.v2").is_ok());
    }

    #[test]
    fn generated_ids_are_valid_and_sort_by_age() {
        let ids: Vec<JobId> = (0..1000).map(|_| JobId::generate()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| JobId::new(id.as_str()).is_ok()));
    }

    #[test]
    fn pool_id_knows_its_name() {
        let pool = PoolId::incarnation("web-1", 7).unwrap();
        assert_eq!((pool.name(), pool.as_str()), ("web-1", "web-1/0000000000000007"));
    }
}
