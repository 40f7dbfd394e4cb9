//! What Redis can do at most, by its own benchmark.

use std::process::Command;

use anyhow::Context as _;

use super::server::{Server, output};

/// How many commands are under way on each connection.
pub(crate) const PIPELINES: [usize; 2] = [16, 64];

const REQUESTS: usize = 500_000;

/// A kind of request, and how many of it Redis answers in a second, for each of [`PIPELINES`].
pub(crate) struct Limit {
    pub(crate) request: &'static str,
    pub(crate) rates: Vec<f64>,
}

/// What a job on Redis is made of at least: a value, a place in a list, fields of a record; and the call of a script that
/// does nothing, since changing all of them in one step takes a script.
pub(crate) const SCRIPT: &str = "EVALSHA of nothing";

pub(crate) fn measure(server: &Server) -> anyhow::Result<Vec<Limit>> {
    let script = server.ask(&["SCRIPT", "LOAD", "return 1"])?;
    let requests: [(&'static str, &[&str]); 4] = [
        ("SET", &["-t", "set"]),
        ("LPUSH", &["-t", "lpush"]),
        ("HSET", &["-t", "hset"]),
        (SCRIPT, &["EVALSHA", script.trim(), "0"]),
    ];
    let mut limits = Vec::new();
    for (request, arguments) in requests {
        let mut rates = Vec::new();
        for pipeline in PIPELINES {
            let csv = output(
                Command::new("redis-benchmark")
                    .args(["-p", &server.port().to_string(), "-c", "4", "-P", &pipeline.to_string()])
                    .args(["-n", &REQUESTS.to_string(), "-r", "100000", "-d", "128", "--csv"])
                    .args(arguments),
            )?;
            rates.push(rate(&csv)?);
        }
        limits.push(Limit { request, rates });
    }
    Ok(limits)
}

/// The second column of the only line beneath the head: `"SET","439560.44",..`.
fn rate(csv: &str) -> anyhow::Result<f64> {
    let line = csv.lines().nth(1).context("redis-benchmark printed no figure")?;
    // The request, in the first column, may hold a comma.
    let column = line.split("\",\"").nth(1).with_context(|| format!("not a line of redis-benchmark: {line}"))?;
    Ok(column.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_second_column() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"evalsha a,b 0\",\"460829.50\",\"0.122\"\n";

        assert!((rate(csv).unwrap() - 460_829.5).abs() < 0.001);
    }

    #[test]
    fn a_benchmark_that_printed_no_figure_is_an_error() {
        assert!(rate("\"test\",\"rps\"\n").is_err());
        assert!(rate("\"test\",\"rps\"\nERROR\n").is_err());
    }
}
