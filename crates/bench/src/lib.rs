//! Benchmarks of jobservice beside the physical limit in the same run.
