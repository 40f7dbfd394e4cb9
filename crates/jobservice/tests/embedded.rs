//! The service on its embedded store, with the real clock: jobs and logs outlive the process that submitted them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test speaks")]

mod common;

use common::CAP;
use jobservice::core::job::Status;
use jobservice::logger::ReadFrom;
use jobservice::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Say {
    text: String,
}

impl Job for Say {
    const NAME: &'static str = "say";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        ctx.logger().info(&self.text);
        ctx.set_result(&self.text.len())
    }
}

#[tokio::test]
async fn job_of_an_earlier_service_runs_in_the_next_and_its_log_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let first = Service::builder().sqlite(&path).register::<Say>().workers(0).start().await.unwrap();
    let submitted = first.submit(Say { text: "hello".to_owned() }).await.unwrap();
    first.shutdown().await;
    drop(first);

    let second = Service::builder().sqlite(&path).register::<Say>().start().await.unwrap();
    let job = second.controller().wait_final(submitted.id(), CAP).await.unwrap().unwrap();
    assert_eq!((job.state.status, job.state.result.as_deref()), (Status::Success, Some("5")));
    let log = second.controller().logs().read(submitted.id(), ReadFrom::Offset(0), 4096).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&log.bytes).into_owned();
    assert!(text.contains("hello"), "{text}");
    second.shutdown().await;

    assert!(second.controller().store().audit().await.unwrap().is_empty());
}

#[tokio::test]
async fn many_jobs_from_many_submitters_each_succeed_once() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::builder().sqlite(dir.path().join("jobs.db")).register::<Say>().start().await.unwrap();

    let submits = (0..200).map(|n| service.submit(Say { text: format!("job {n}") }).into_future());
    let submitted = futures_util::future::join_all(submits).await;
    for submitted in submitted {
        let job = service.controller().wait_final(submitted.unwrap().id(), CAP).await.unwrap().unwrap();
        assert_eq!((job.state.status, job.state.attempt), (Status::Success, 1));
    }

    service.shutdown().await;
    assert!(service.controller().store().audit().await.unwrap().is_empty());
}
