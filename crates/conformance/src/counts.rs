//! How often the random and racing tests repeat themselves, and from which seed.

/// Whether the full counts are wanted: `JOBSERVICE_SOAK=1`, what `just soak` sets.
pub fn is_soak() -> bool {
    std::env::var("JOBSERVICE_SOAK").is_ok_and(|value| value == "1")
}

/// `reduced` in an ordinary run, `full` in a soak.
pub fn times(reduced: u64, full: u64) -> u64 {
    if is_soak() { full } else { reduced }
}

/// The seeds to run: 1 to `reduced` or `full`, or the one that `JOBSERVICE_SEED` names, to replay a failure.
pub fn seeds(reduced: u64, full: u64) -> Vec<u64> {
    match std::env::var("JOBSERVICE_SEED") {
        Ok(text) => vec![text.parse().expect("JOBSERVICE_SEED is a number")],
        Err(_) => (1..=times(reduced, full)).collect(),
    }
}

/// Whether one seed is replayed: then counts over all seeds say nothing.
pub fn is_replay() -> bool {
    std::env::var_os("JOBSERVICE_SEED").is_some()
}
