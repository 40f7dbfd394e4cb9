//! Measures jobservice beside the physical limit of this machine, in the same run: `just bench`.
//!
//! Figures and method stand in `BENCHMARKS.md`. Each part can be run alone: `just bench lifecycle`.

mod cron;
mod hooks;
mod latency;
mod lifecycle;
mod raw;
mod redis;
mod rest;
mod served;
mod stats;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures jobservice beside the physical limit, in the same run.
#[derive(Parser)]
struct Arguments {
    /// Which parts to run; if none is named all but `redis`, which needs Redis, npm and a registry.
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Life cycles per measurement; by default 300,000, on Redis 50,000.
    #[arg(long)]
    jobs: Option<usize>,

    /// Jobs stored beforehand, where a measurement asks for a full store.
    #[arg(long, default_value_t = 1_000_000)]
    stored: usize,

    /// Where the stores are put; a real disk, not a tmpfs, since fsync is what is measured.
    #[arg(long, default_value = "target/bench")]
    directory: std::path::PathBuf,

    #[command(flatten)]
    redis: redis::Options,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Durable life cycles a second through the library, beside the raw loop.
    Lifecycle,
    /// From submit to start on an idle service.
    Latency,
    /// Life cycles with hooks off, on, and with one on each job.
    Hooks,
    /// How late the ticks of 10,000 policies are.
    Cron,
    /// Durable single submits a second over REST.
    Rest,
    /// Memory, and list latency, with a million jobs waiting.
    Million,
    /// On Redis, beside its limits and beside what others reach on it.
    Redis,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.directory)?;
    let jobs = arguments.jobs.unwrap_or(300_000);
    let runs = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    if runs(Part::Lifecycle) {
        lifecycle::run(&arguments.directory, jobs, arguments.stored)?;
    }
    if runs(Part::Hooks) {
        hooks::run(&arguments.directory, jobs)?;
    }
    if runs(Part::Latency) {
        latency::run(&arguments.directory)?;
    }
    if runs(Part::Cron) {
        cron::run(&arguments.directory)?;
    }
    if runs(Part::Rest) {
        rest::run(&arguments.directory)?;
    }
    if runs(Part::Million) {
        served::run(&arguments.directory, arguments.stored)?;
    }
    if arguments.parts.contains(&Part::Redis) {
        redis::run(&arguments.directory, arguments.jobs.unwrap_or(50_000), &arguments.redis)?;
    }
    Ok(())
}
