//! What is measured of each contestant, in the same way.

use std::time::Duration;

use super::server::Server;
use crate::stats::Samples;

/// A job service on Redis. Each step begins on what the one before left there.
pub(crate) trait Contestant {
    /// What it is called in the report, with its version.
    fn name(&self) -> &str;

    /// What it writes of a job, and for how long, in words.
    fn records(&self) -> &'static str;

    /// How many jobs it can have waiting.
    fn jobs_max(&self) -> usize;

    /// Leaves `jobs` no-op jobs waiting, however it is fastest. Its time does not count.
    fn fill(&self, port: u16, jobs: usize) -> anyhow::Result<()>;

    /// Runs the `jobs` that wait with so many workers: how long that takes.
    fn drain(&self, port: u16, jobs: usize, workers: usize) -> anyhow::Result<Duration>;

    /// Has `jobs` submitted one by one, each submitter waiting for the answer, while 100 workers run them: how long it takes
    /// until all have run.
    fn together(&self, port: u16, jobs: usize) -> anyhow::Result<Duration>;
}

/// What was measured of one contestant.
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) jobs: usize,
    /// Jobs a second.
    pub(crate) drain_100: f64,
    /// Jobs a second.
    pub(crate) drain_10: f64,
    /// Jobs a second.
    pub(crate) together: f64,
    pub(crate) waiting: Footprint,
    pub(crate) finished: Footprint,
}

/// What one job takes in Redis.
pub(crate) struct Footprint {
    pub(crate) bytes: f64,
    pub(crate) keys: f64,
}

/// Measures a contestant on a Redis where nothing was before; each figure of speed is the median of `rounds`.
pub(crate) fn measure(
    contestant: &dyn Contestant,
    server: &Server,
    jobs: usize,
    rounds: usize,
) -> anyhow::Result<Figures> {
    let jobs = jobs.min(contestant.jobs_max());
    let port = server.port();

    // Scripts stay loaded when all is deleted, so a first job keeps what is there once out of what each job takes.
    contestant.fill(port, 1)?;
    server.clear()?;
    let empty = server.memory()?;
    let footprint = || -> anyhow::Result<Footprint> {
        let bytes = server.memory()?.saturating_sub(empty);
        Ok(Footprint { bytes: bytes as f64 / jobs as f64, keys: server.keys()? as f64 / jobs as f64 })
    };
    contestant.fill(port, jobs)?;
    let waiting = footprint()?;
    contestant.drain(port, jobs, 100)?;
    let finished = footprint()?;

    let drain = |workers| {
        server.clear()?;
        contestant.fill(port, jobs)?;
        contestant.drain(port, jobs, workers)
    };
    let together = || {
        server.clear()?;
        contestant.together(port, jobs)
    };
    Ok(Figures {
        name: contestant.name().to_owned(),
        jobs,
        drain_100: rate(jobs, rounds, || drain(100))?,
        drain_10: rate(jobs, rounds, || drain(10))?,
        together: rate(jobs, rounds, together)?,
        waiting,
        finished,
    })
}

/// Jobs a second, by the median of the times that a step takes.
fn rate(jobs: usize, rounds: usize, step: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<f64> {
    let mut times = Samples::default();
    for _ in 0..rounds {
        times.push(step()?);
    }
    Ok(jobs as f64 / times.percentile(0.5).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_rate_is_by_the_median_of_the_times() {
        let seconds = Cell::new([4, 1, 2].into_iter());

        let rate = rate(100, 3, || {
            let mut left = seconds.take();
            let next = left.next();
            seconds.set(left);
            Ok(Duration::from_secs(next.unwrap()))
        });

        assert!((rate.unwrap() - 50.0).abs() < 0.001);
    }
}
