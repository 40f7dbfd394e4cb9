//! The jobs that come with the service: `demo` shows what a job can do, `noop` shows what the service costs.

use std::time::Duration;

use jobservice::prelude::*;
use serde::{Deserialize, Serialize};

/// How long a demo takes unless it is told.
const SECONDS_DEFAULT: f64 = 5.0;

/// A demo that took longer would be no demo; a bound also keeps the arithmetic of durations sound.
const SECONDS_MAX: f64 = 86_400.0;

/// How far the demo is at each check-in, and which part of its time it takes after it: as in the original's sample.
const STEPS: [(&str, f64); 3] = [("30%", 0.4), ("60%", 0.4), ("100%", 0.2)];

/// The sample job of the original: says how far it is, writes a log, obeys stop and cancel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Demo {
    /// Which image; must begin with "demo", so that there is something to refuse.
    pub image: String,
    /// How long to take.
    #[serde(default = "seconds_default")]
    pub seconds: f64,
}

fn seconds_default() -> f64 {
    SECONDS_DEFAULT
}

impl Job for Demo {
    const NAME: &'static str = "demo";
    const MAX_FAILS: u32 = 3;

    fn validate(&self) -> Result<(), String> {
        if !self.image.starts_with("demo") {
            return Err(format!("image must begin with \"demo\", and is {:?}", self.image));
        }
        if !(0.0..=SECONDS_MAX).contains(&self.seconds) {
            return Err(format!("seconds must be 0 to {SECONDS_MAX}, and is {}", self.seconds));
        }
        Ok(())
    }

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        let log = ctx.logger();
        log.info(format_args!("demo job running: image {}, {} s", self.image, self.seconds));
        if let Some(from) = ctx.get("email_from") {
            log.info(format_args!("property email_from is {from}"));
        }
        for (progress, part) in STEPS {
            log.info(format_args!("check in {progress}"));
            ctx.check_in(progress).await?;
            if let Err(interrupted) = work(&ctx, Duration::from_secs_f64(self.seconds * part)).await {
                log.warning(format_args!("ending early: asked to by {:?}", ctx.interrupt()));
                return Err(interrupted);
            }
        }
        log.info("demo job finished");
        Ok(())
    }
}

/// Pretends to work for that long; ends early when it is asked to.
async fn work(ctx: &Context, duration: Duration) -> Result<(), Failure> {
    match tokio::time::timeout(duration, ctx.signalled()).await {
        Ok(_why) => Err(Failure::interrupted()),
        Err(_elapsed) => Ok(()),
    }
}

/// Does nothing, with whatever it is given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Noop {}

impl Job for Noop {
    const NAME: &'static str = "noop";

    async fn run(self, _ctx: Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_looks_at_its_parameters() {
        let demo = |image: &str, seconds| Demo { image: image.to_owned(), seconds }.validate();
        assert!(demo("demo:1", 5.0).is_ok() && demo("demo", 0.0).is_ok());
        assert!(demo("redis", 5.0).unwrap_err().contains("image"));
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(demo("demo", seconds).unwrap_err().contains("seconds"), "{seconds}");
        }
        assert!(serde_json::from_str::<Demo>("{}").unwrap_err().to_string().contains("image"));
        assert!(serde_json::from_str::<Noop>(r#"{"whatever": [1]}"#).is_ok());
    }
}
