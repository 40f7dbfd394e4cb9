//! A pool that is busy with short jobs keeps the leases of its long ones, and forgets what it lost.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::Node;
use jobservice_conformance::redis_server::RedisServer;
use jobservice_core::Store as _;
use jobservice_core::job::LeaseKey;
use jobservice_core::store::Held;

const SHORT: u32 = 50;

/// Goal: leases are extended although runs of the same pool end all the time. Method: short jobs are claimed and finished as
/// fast as it goes, while the leases of those and of a long one are extended together a hundred times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_a_long_run_is_extended_beside_many_short_ones() {
    let server = RedisServer::start();
    let node = Arc::new(Node::open(&server.url()).await);
    node.submit("long").await.unwrap();
    let long = node.claim("long", 1).await.unwrap().remove(0).lease_key().unwrap();
    let (held, over) = (Arc::new(parking_lot::Mutex::new(Vec::<LeaseKey>::new())), Arc::new(AtomicBool::new(false)));
    let ended = Arc::new(AtomicU32::new(0));
    let drain = tokio::spawn({
        let (node, held, over, ended) = (Arc::clone(&node), Arc::clone(&held), Arc::clone(&over), Arc::clone(&ended));
        async move {
            while !over.load(Ordering::Relaxed) {
                let jobs = (0..SHORT).map(|_| node.job("short")).collect();
                node.store.insert(jobs, node.now()).await.unwrap();
                let jobs = node.claim("short", SHORT).await.unwrap();
                *held.lock() = jobs.iter().filter_map(jobservice_core::Job::lease_key).collect();
                for job in &jobs {
                    node.finish(std::slice::from_ref(job)).await.unwrap();
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    for n in 1..=100_u64 {
        let mut leases = held.lock().clone();
        leases.push(long.clone());
        let until = node.now() + Duration::from_secs(10 + n);
        let extended = node.store.extend(&node.pool, &leases, until, node.now()).await.unwrap();
        assert_eq!(extended.leases.last(), Some(&Held::Held(None)), "after {n} extends");
    }
    over.store(true, Ordering::Relaxed);
    drain.await.unwrap();

    assert!(ended.load(Ordering::Relaxed) > 100, "it was busy meanwhile: {ended:?}");
    assert_eq!(node.store.audit().await.unwrap(), Vec::<String>::new());
}
