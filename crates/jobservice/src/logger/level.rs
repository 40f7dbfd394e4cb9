//! How grave a line is.

use std::fmt;

/// How grave a line of a job's log is. The order is that of gravity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For who looks for a mistake.
    Debug,
    /// What happens. The default threshold of a backend.
    #[default]
    Info,
    /// Something is wrong, the job goes on.
    Warning,
    /// Something failed.
    Error,
    /// The job cannot go on.
    Fatal,
}

impl Level {
    /// All of them, the least grave first.
    pub const ALL: [Level; 5] = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Fatal];

    /// The word in a log and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Fatal => "FATAL",
        }
    }

    /// Reads the word, in any case; `warn` is taken for `warning`.
    pub fn parse(text: &str) -> Option<Level> {
        if text.eq_ignore_ascii_case("warn") {
            return Some(Level::Warning);
        }
        Level::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Level;

    #[test]
    fn words_are_read_in_any_case_and_unknown_ones_refused() {
        for level in Level::ALL {
            assert_eq!(Level::parse(&level.to_string().to_lowercase()), Some(level));
        }
        assert_eq!(Level::parse("Warn"), Some(Level::Warning));
        assert_eq!(Level::parse("loud"), None);
        assert!(Level::ALL.is_sorted());
    }
}
