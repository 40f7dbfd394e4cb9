//! Unique jobs: what makes two jobs the same, and for how long.
//!
//! Two submissions are the same job if they have the same name and the same `unique_key`, or, without one, the same
//! name and parameters that mean the same: the order of keys in objects, white space and the way a character is written
//! do not matter; the text of numbers does (`1`, `1.0` and `1e0` are three things: to us a number is what its reader
//! makes of it). Both come down to a digest of 32 bytes, and the two sorts never meet in one.

mod json;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Name;
use json::Document;

/// The claim of a job to be the only one with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unique {
    /// SHA-256 over the job's name and its parameters in canonical form, or over its own `unique_key`: from [`digest`]
    /// or [`digest_key`].
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

/// Why a text is not JSON that we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub what: String,
    /// Where, in bytes from the beginning of the text.
    pub at: usize,
}

/// Checks that `text` is JSON that every reader understands in the same way.
///
/// One value and nothing after it, at most [`PARAMETERS_BYTES_MAX`](crate::limits::PARAMETERS_BYTES_MAX) bytes, nested at most
/// [`JSON_DEPTH_MAX`](crate::limits::JSON_DEPTH_MAX) deep, no key twice in an object (readers differ in which one they take), no half of a
/// surrogate pair (Rust and Go cannot keep it). Numbers may have any size, and a string may contain any character,
/// `\u0000` included.
///
/// Needs time and memory in proportion to the text: twelve bytes for each value in it, no tree.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn check_json(text: &str) -> Result<(), JsonError> {
    Document::read(text).map(|_| ())
}

/// The digest of a job that is unique by its parameters.
///
/// SHA-256 over a prefix, the name, a zero byte, and the parameters in canonical form: no white space, the keys of each
/// object in the order of their UTF-8 bytes, in strings only `"`, `\` and control characters escaped (`\u00..`), numbers
/// as they stand.
///
/// # Errors
/// As [`check_json`].
///
/// # Examples
/// ```
/// use jobservice_core::{Name, unique::digest};
///
/// let name = Name::new("resize")?;
/// assert_eq!(digest(&name, r#"{"a": "\u00e9", "b": [1]}"#), digest(&name, r#"{"b":[1],"a":"é"}"#));
/// assert_ne!(digest(&name, "1"), digest(&name, "1.0"));
/// # Ok::<(), jobservice_core::id::InvalidId>(())
/// ```
pub fn digest(name: &Name, parameters: &str) -> Result<[u8; 32], JsonError> {
    let document = Document::read(parameters)?;
    let mut hash = begin("parameters", name);
    document.canonical(&mut |bytes| hash.update(bytes));
    Ok(hash.finalize().into())
}

/// The digest of a job that is unique by a key of its client's own. Keys are of a name: two names may use the same.
pub fn digest_key(name: &Name, key: &str) -> [u8; 32] {
    let mut hash = begin("key", name);
    hash.update(key);
    hash.finalize().into()
}

/// The two sorts begin differently, and neither the sort nor a name contains a zero byte: so no key, whatever is in it,
/// has the digest of parameters.
fn begin(sort: &str, name: &Name) -> Sha256 {
    let mut hash = Sha256::new();
    for part in ["jobservice unique", sort, name.as_str()] {
        hash.update(part);
        hash.update([0]);
    }
    hash
}
