//! The job service with the jobs that come with it. A service with jobs of one's own is as short: see
//! `jobservice_server::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobservice_server::run(jobservice::Registry::new())
}
