//! A service whose jobs leave marks: what the tests of several nodes run. Each job adds lines to the one file that all
//! nodes share (`MARKS`), so that the file says what ran where, in which order, and what ran at the same time.
//!
//! A line is `<what> <pid> <name> <id> <attempt> <uptime>`, where what is `begin`, `end`, `cut` (asked to end early) or
//! `dropped` (ended from outside). The uptime of the machine in seconds is the one clock that no test sets.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use jobservice::prelude::*;
use serde::Deserialize;

/// What a job is to do.
#[derive(Deserialize)]
struct Parameters {
    /// How long the first attempt takes.
    #[serde(default)]
    milliseconds: u64,
    /// How long later attempts take; none for as long as the first.
    #[serde(default)]
    again_milliseconds: Option<u64>,
}

/// Adds a line: one write at the end of the file, which does not mix with those of others.
fn mark(what: &str, ctx: &Context) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime.split(' ').next().unwrap_or("0");
    let line = format!("{what} {} {} {} {} {uptime}\n", std::process::id(), ctx.name(), ctx.id(), ctx.attempt());
    let file = std::env::var_os("MARKS").unwrap_or_else(|| "marks".into());
    let written =
        OpenOptions::new().create(true).append(true).open(file).and_then(|mut to| to.write_all(line.as_bytes()));
    if let Err(error) = written {
        // A run that leaves no mark would be taken for one that never was.
        eprintln!("cannot leave a mark: {error}");
        std::process::abort();
    }
}

/// Marks a run that is dropped before its end.
struct Dropped<'a>(Option<&'a Context>);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if let Some(ctx) = self.0 {
            mark("dropped", ctx);
        }
    }
}

async fn run(parameters: Parameters, ctx: Context) -> Result<(), Failure> {
    mark("begin", &ctx);
    let mut dropped = Dropped(Some(&ctx));
    let first = parameters.milliseconds;
    let milliseconds = if ctx.attempt() > 1 { parameters.again_milliseconds.unwrap_or(first) } else { first };
    let signalled =
        milliseconds > 0 && tokio::time::timeout(Duration::from_millis(milliseconds), ctx.signalled()).await.is_ok();
    dropped.0 = None;
    // Before the report: whoever sees the job final sees its mark.
    mark(if signalled { "cut" } else { "end" }, &ctx);
    if signalled { Err(Failure::interrupted()) } else { Ok(()) }
}

/// As many at once as there are workers.
#[derive(Deserialize)]
struct Mark(Parameters);

impl Job for Mark {
    const NAME: &'static str = "mark";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        run(self.0, ctx).await
    }
}

/// Three at once, over all nodes.
#[derive(Deserialize)]
struct Limited(Parameters);

impl Job for Limited {
    const NAME: &'static str = "limited";
    const MAX_CONCURRENCY: Option<u32> = Some(3);

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        run(self.0, ctx).await
    }
}

fn main() -> ExitCode {
    jobservice_server::run(Registry::new().register::<Mark>().register::<Limited>())
}
