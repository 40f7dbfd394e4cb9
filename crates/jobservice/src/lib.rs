//! Durable background jobs: write a job as a type, run it now, later, or on a schedule.

pub mod logger;
