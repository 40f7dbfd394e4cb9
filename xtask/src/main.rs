//! Chores of the repository: `cargo xtask docs` writes the documents that come from the code.
fn main() {}
