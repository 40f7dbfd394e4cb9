//! A node that has nothing to do sends Redis almost nothing, and is there at once when there is something.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Node, now, until};
use jobservice::{Context, Failure, Job, Service};
use jobservice_conformance::redis_server::RedisServer;
use jobservice_redis::Options;
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Runs(AtomicU32);

#[derive(Serialize, Deserialize)]
struct Count {}

impl Job for Count {
    const NAME: &str = "count";

    async fn run(self, context: Context) -> Result<(), Failure> {
        context.state::<Arc<Runs>>().map(|runs| runs.0.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_node_sends_fewer_than_five_commands_a_second() {
    let server = Arc::new(RedisServer::start());
    let options = Options { url: server.url(), view_age: Duration::from_secs(1), ..Options::default() };
    let node = Node::with(options.clone()).await;
    let runs = Arc::new(Runs::default());
    let service = Service::builder()
        .store(Arc::clone(&node.store) as Arc<_>)
        .clock(node.store.clock())
        .with(Arc::clone(&runs))
        .register::<Count>()
        .start()
        .await
        .unwrap();
    // Not quite from the start: it has been at work.
    let ran = async |count: u32| {
        let began = now();
        until(Duration::from_secs(5), "the job runs", async || runs.0.load(Ordering::SeqCst) >= count).await;
        began.elapsed()
    };
    service.submit(Count {}).await.unwrap();
    ran(1).await;

    let seconds = 10;
    let watched = Arc::clone(&server);
    let commands =
        tokio::task::spawn_blocking(move || watched.commands_within(Duration::from_secs(seconds))).await.unwrap();
    println!("{} commands in {seconds} s:\n{}", commands.len(), commands.join("\n"));
    assert!((commands.len() as u64) < 5 * seconds, "{} in {seconds} s", commands.len());

    // From this node and from another: it need not wait for its next look.
    service.submit(Count {}).await.unwrap();
    println!("own job after {:?}", ran(2).await);
    let other = Node::with(options).await;
    let mut worst = Duration::ZERO;
    for count in 3..20 {
        other.submit("count").await.unwrap();
        worst = worst.max(ran(count).await);
    }
    println!("jobs of another node within {worst:?}");
    assert!(worst < Duration::from_millis(500), "{worst:?}");
    service.shutdown().await;
}
