//! On Redis: what Redis itself can do, what others reach on it, what we reach, and what each of us records of a job.
//!
//! Each contestant has a fresh `redis-server` of this bench's own, and the same steps (`contestant.rs`), so that figures of
//! one run may be compared. Whoever records less has less to do: what is recorded is part of the report.

mod contestant;
mod limits;
mod nodes;
mod ours;
mod peers;
mod report;
mod server;

use std::path::Path;

use anyhow::Context as _;

use crate::lifecycle::SUBMITTERS;
use crate::stats::say;
use contestant::Contestant;
use ours::Ours;
use peers::Peer;
use server::{Aof, Server};

/// What of the part `redis` to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// With which durability Redis runs (part redis).
    #[arg(long, value_enum, default_value = "both")]
    aof: AofChoice,

    /// Whom to measure besides (part redis).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    peers: Vec<PeerChoice>,

    /// How often each speed is measured; the median counts (part redis).
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,

    /// How many jobs go through before memory is looked at for the last time (part redis).
    #[arg(long, default_value_t = 1_000_000)]
    memory_jobs: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum AofChoice {
    /// Nothing is written to the disk.
    Off,
    /// An append-only file, forced to the disk once a second.
    Everysec,
    /// The one, then the other.
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PeerChoice {
    All,
    None,
    Bullmq,
    Apalis,
}

impl AofChoice {
    fn modes(self) -> &'static [Aof] {
        match self {
            AofChoice::Off => &[Aof::Off],
            AofChoice::Everysec => &[Aof::EverySecond],
            AofChoice::Both => &[Aof::Off, Aof::EverySecond],
        }
    }
}

pub(crate) fn run(directory: &Path, jobs: usize, options: &Options) -> anyhow::Result<()> {
    // The peers run elsewhere, and find what they need by its whole path.
    let directory = directory.canonicalize().context("the directory of the bench")?;
    let contestants = contestants(&directory, &options.peers)?;
    for &aof in options.aof.modes() {
        say(format!("== on Redis {}, AOF {aof}", server::version()?));
        say("limits: redis-benchmark, 4 connections, requests a second");
        let limits = limits::measure(&Server::start(&directory, aof)?)?;
        for limit in &limits {
            say(report::limit(limit));
        }

        say(format!(
            "no-op jobs a second: those that wait, run by 100 and by 10 workers; submitted one by one by {SUBMITTERS}, run by 100\n{}",
            report::HEAD
        ));
        let mut measured = Vec::new();
        for contestant in &contestants {
            let figures =
                contestant::measure(contestant.as_ref(), &Server::start(&directory, aof)?, jobs, options.rounds.into())
                    .with_context(|| format!("cannot measure {}", contestant.name()))?;
            say(report::row(&figures));
            measured.push(figures);
        }
        match measured.split_last() {
            Some((ours, others)) if ours.name == ours::NAME => {
                for other in others {
                    say(report::ratio(ours, other));
                }
                say(report::ratio_to_limit(ours, &limits)?);
            }
            _ => say(format!("{}: absent, and with it the ratios: this build has no store on Redis", ours::NAME)),
        }
        nodes::latency(&directory, aof)?;
        nodes::memory(&directory, aof, options.memory_jobs)?;
    }
    for contestant in &contestants {
        say(format!("{} records of a job: {}", contestant.name(), contestant.records()));
    }
    Ok(())
}

/// Those that are asked for, brought here ready to run; ours is the last.
fn contestants(directory: &Path, choice: &[PeerChoice]) -> anyhow::Result<Vec<Box<dyn Contestant>>> {
    let wanted = |peer| choice.contains(&peer) || choice.contains(&PeerChoice::All);
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    if wanted(PeerChoice::Bullmq) {
        contestants.push(Box::new(Peer::bullmq(directory)?));
    }
    if wanted(PeerChoice::Apalis) {
        for batch in [peers::Batch::Workers, peers::Batch::Many] {
            contestants.push(Box::new(Peer::apalis(directory, batch)?));
        }
    }
    contestants.push(Box::new(Ours::on(ours::STORE)));
    Ok(contestants)
}
