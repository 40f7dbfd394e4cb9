//! The example of the README: a typed job, submitted for later, unique, in a service embedded in this process.
//!
//! `cargo run -p jobservice --example resize` keeps its jobs in `jobs.db` in the present directory. The job is due in 90
//! seconds: it waits there, and runs when a service on this file is up then.

use jobservice::logger;
use jobservice::prelude::*;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Serialize, Deserialize)]
struct Resize {
    image: String,
    width: u32,
}

impl Job for Resize {
    const NAME: &'static str = "resize";

    fn validate(&self) -> Result<(), String> {
        if self.width == 0 { Err("width must be at least 1".to_owned()) } else { Ok(()) }
    }

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        ctx.check_in("50%").await?;
        tracing::info!("resized {} to {}", self.image, self.width); // goes to the job's log
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(logger::layer()).init();

    let service = Service::builder().sqlite("jobs.db").register::<Resize>().start().await?;
    let job = service.submit(Resize { image: "cat.png".into(), width: 80 }).after(90.seconds()).unique().await?;
    tracing::info!("job {} is due in 90 seconds", job.id());
    service.shutdown().await;
    Ok(())
}
