//! The lines of the report.

use anyhow::Context as _;

use super::contestant::Figures;
use super::limits::{Limit, PIPELINES, SCRIPT};
use crate::stats::thousands;

/// Above the rows.
pub(crate) const HEAD: &str = "                                       jobs   drain 100    drain 10  submit+run  bytes (keys) a job that waits  and when done";

/// "SET                 439 560 (16 under way)   612 000 (64 under way)".
pub(crate) fn limit(limit: &Limit) -> String {
    let rates = PIPELINES.iter().zip(&limit.rates);
    let rates = rates.map(|(pipeline, rate)| format!("{:>12} ({pipeline} under way)", thousands(*rate)));
    format!("{:<20}{}", limit.request, rates.collect::<String>())
}

/// A contestant's line under [`HEAD`].
pub(crate) fn row(figures: &Figures) -> String {
    format!(
        "{:<33}{:>10}{:>10}/s{:>10}/s{:>10}/s{:>22} ({:.2}){:>9} ({:.2})",
        figures.name,
        thousands(figures.jobs as f64),
        thousands(figures.drain_100),
        thousands(figures.drain_10),
        thousands(figures.together),
        thousands(figures.waiting.bytes),
        figures.waiting.keys,
        thousands(figures.finished.bytes),
        figures.finished.keys,
    )
}

/// How many times another's figures ours are: of speed, more is better; of bytes, less.
pub(crate) fn ratio(ours: &Figures, other: &Figures) -> String {
    format!(
        "ratio to {}: drain 100 {:.2}, drain 10 {:.2}, submit+run {:.2}; bytes waiting {:.2}, when done {:.2}",
        other.name,
        ours.drain_100 / other.drain_100,
        ours.drain_10 / other.drain_10,
        ours.together / other.together,
        ours.waiting.bytes / other.waiting.bytes,
        ours.finished.bytes / other.finished.bytes,
    )
}

/// How much of what Redis can do at most in calls of scripts ours are.
pub(crate) fn ratio_to_limit(ours: &Figures, limits: &[Limit]) -> anyhow::Result<String> {
    let limit = limits.iter().find(|limit| limit.request == SCRIPT).context("the limit of scripts was not measured")?;
    let most = limit.rates.iter().copied().fold(f64::NAN, f64::max);
    Ok(format!(
        "ratio to {SCRIPT}: drain 100 {:.3}, drain 10 {:.3}, submit+run {:.3}",
        ours.drain_100 / most,
        ours.drain_10 / most,
        ours.together / most
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::contestant::Footprint;

    fn figures(name: &str, factor: f64) -> Figures {
        Figures {
            name: name.to_owned(),
            jobs: 5000,
            drain_100: 10_000.0 * factor,
            drain_10: 5_000.0 * factor,
            together: 4_000.0 * factor,
            waiting: Footprint { bytes: 300.0 / factor, keys: 1.0 },
            finished: Footprint { bytes: 600.0 / factor, keys: 1.0 },
        }
    }

    #[test]
    fn ratios_are_ours_to_the_other() {
        let line = ratio(&figures("ours", 4.0), &figures("other", 1.0));

        assert_eq!(
            line,
            "ratio to other: drain 100 4.00, drain 10 4.00, submit+run 4.00; bytes waiting 0.25, when done 0.25"
        );
    }

    #[test]
    fn the_limit_is_the_best_rate_of_scripts() {
        let limits = [
            Limit { request: "SET", rates: vec![900_000.0, 900_000.0] },
            Limit { request: SCRIPT, rates: vec![400_000.0, 500_000.0] },
        ];

        let line = ratio_to_limit(&figures("ours", 1.0), &limits).unwrap();

        assert_eq!(line, format!("ratio to {SCRIPT}: drain 100 0.020, drain 10 0.010, submit+run 0.008"));
        assert!(ratio_to_limit(&figures("ours", 1.0), &[]).is_err());
    }

    #[test]
    fn a_row_stands_under_the_head() {
        let row = row(&figures("apalis-redis 1.0.0, 1,000 ahead", 1.0));

        assert!(row.len() <= HEAD.len() + 4, "{HEAD}\n{row}");
        assert!(row.contains("10 000/s"), "{row}");
    }
}
