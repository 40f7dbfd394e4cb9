//! A service whose jobs misbehave in every way we know: what the poison test runs, and a way to see for yourself how the
//! service takes it. `cargo run -p jobservice-server --example poison`, then submit `panic`, `abort`, `overflow`, `spin`,
//! `block`, `deaf` or `flood`.

use std::process::ExitCode;
use std::time::Duration;

use jobservice::prelude::*;
use serde::Deserialize;

/// Jobs that never end run into this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Fails like an ordinary bug.
#[derive(Deserialize)]
struct Panic {}

impl Job for Panic {
    const NAME: &'static str = "panic";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        panic!("this job panicked on purpose");
    }
}

/// Takes the process with it.
#[derive(Deserialize)]
struct Abort {}

impl Job for Abort {
    const NAME: &'static str = "abort";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        std::process::abort();
    }
}

/// Takes the process with it as well: an overflow of the stack cannot be caught.
#[derive(Deserialize)]
struct Overflow {}

impl Job for Overflow {
    const NAME: &'static str = "overflow";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        let depth = descend(0);
        Err(Failure::permanent(format!("came back from depth {depth}")))
    }
}

#[expect(unconditional_recursion, reason = "the point of this job")]
fn descend(depth: u64) -> u64 {
    std::hint::black_box([depth; 64]).iter().sum::<u64>() + descend(depth + 1)
}

/// Async code that never yields.
#[derive(Deserialize)]
struct Spin {}

impl Job for Spin {
    const NAME: &'static str = "spin";
    const TIMEOUT: Option<Duration> = Some(PATIENCE);

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        loop {
            std::hint::spin_loop();
        }
    }
}

/// Blocking code in an async job.
#[derive(Deserialize)]
struct Block {}

impl Job for Block {
    const NAME: &'static str = "block";
    const TIMEOUT: Option<Duration> = Some(PATIENCE);

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        loop {
            std::thread::park();
        }
    }
}

/// Yields, but never looks whether it is asked to end.
#[derive(Deserialize)]
struct Deaf {}

impl Job for Deaf {
    const NAME: &'static str = "deaf";
    const TIMEOUT: Option<Duration> = Some(PATIENCE);

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        std::future::pending().await
    }
}

/// Writes `POISON_FLOOD_BYTES` (1 GiB unless set) into its log as fast as it can, and succeeds.
#[derive(Deserialize)]
struct Flood {}

impl BlockingJob for Flood {
    const NAME: &'static str = "flood";

    fn run(self, ctx: Context) -> Result<(), Failure> {
        let bytes: u64 =
            std::env::var("POISON_FLOOD_BYTES").ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(1 << 30);
        let line = "x".repeat(1000);
        for _ in 0..bytes / 1000 {
            ctx.logger().info(&line);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    jobservice_server::run(
        Registry::new()
            .register::<Panic>()
            .register::<Abort>()
            .register::<Overflow>()
            .register::<Spin>()
            .register::<Block>()
            .register::<Deaf>()
            .register_blocking::<Flood>(),
    )
}
