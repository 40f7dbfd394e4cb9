//! The suite of promises that every store of jobservice passes.
