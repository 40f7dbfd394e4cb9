//! Chores of the repository that need its code. `cargo xtask docs` writes the documents that come from the code;
//! `cargo xtask docs --check` only says whether they are up to date, and fails if not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "usage: cargo xtask docs [--check]";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["docs"] => write_docs(),
        ["docs", "--check"] => check_docs(),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// The documents that come from the code: where each is, and what is to stand there.
fn docs() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (default_file, configuration) = jobservice_server::configuration_documents();
    vec![
        (root.join("docs/LIFECYCLE.md"), jobservice_core::lifecycle::table::render()),
        (root.join("docs/configuration.md"), configuration),
        (root.join("crates/server/config.default.yml"), default_file),
    ]
}

fn write_docs() -> Result<ExitCode> {
    for (path, text) in docs() {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check_docs() -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (path, text) in docs() {
        let written = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if written != text {
            eprintln!("{} is out of date: run `cargo xtask docs`", path.display());
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
