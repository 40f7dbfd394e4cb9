//! What the doctor found, and how it is told.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::cli::print;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Somebody should look at it.
    Warning,
    /// Something does not work, or soon will not.
    Broken,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Broken => "broken",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at.
    pub(super) check: &'static str,
    /// What was seen.
    pub(super) message: String,
    /// What to do about it; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.push(Level::Ok, check, message, "");
    }

    pub(super) fn warning(&mut self, check: &'static str, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Level::Warning, check, message, remedy);
    }

    pub(super) fn broken(&mut self, check: &'static str, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Level::Broken, check, message, remedy);
    }

    pub(super) fn push(
        &mut self,
        level: Level,
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding { level, check, message: message.into(), remedy: remedy.into() });
    }

    /// The worst.
    fn level(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// Prints them; answers with the exit code: 0 all is well, 1 warnings, 2 something is broken.
    pub(super) fn tell(&self, json: bool) -> Result<ExitCode> {
        let level = self.level();
        if json {
            #[derive(Serialize)]
            struct Report<'a> {
                status: Level,
                findings: &'a [Finding],
            }
            print::line(&serde_json::to_string(&Report { status: level, findings: &self.0 })?)?;
        } else {
            for Finding { level, check, message, remedy } in &self.0 {
                print::line(&format!("{:<8} {check:<10} {message}", level.as_str()))?;
                if !remedy.is_empty() {
                    print::line(&format!("{:<19} {remedy}", ""))?;
                }
            }
        }
        Ok(match level {
            Level::Ok => ExitCode::SUCCESS,
            Level::Warning => 1.into(),
            Level::Broken => 2.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_level_of_all() {
        let mut findings = Findings::default();
        assert_eq!(findings.level(), Level::Ok);
        findings.warning("a", "b", "c");
        findings.ok("a", "b");
        assert_eq!(findings.level(), Level::Warning);
        findings.broken("a", "b", "c");
        assert_eq!(findings.level(), Level::Broken);
    }
}
