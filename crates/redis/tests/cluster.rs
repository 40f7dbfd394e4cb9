//! The suite that every store passes, on a cluster of three primaries, in six shards.
#![expect(clippy::expect_used, reason = "a test that cannot open its store is over")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, mpsc};

use async_trait::async_trait;
use jobservice_conformance::Factory;
use jobservice_conformance::redis_server::RedisServer;
use jobservice_core::Store;
use jobservice_redis::{Options, RedisStore};

/// The address of a cluster that all cases share. Its servers live as long as the thread that started them, which is as
/// long as this process.
static CLUSTER: LazyLock<String> = LazyLock::new(|| {
    let (sender, started) = mpsc::channel();
    std::thread::spawn(move || {
        let servers = RedisServer::cluster(3);
        let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        sender.send(format!("redis+cluster://{}", hosts.join(","))).expect("the tests wait for it");
        loop {
            std::thread::park();
        }
    });
    started.recv().expect("the cluster starts")
});

static OPENED: AtomicU32 = AtomicU32::new(0);

/// Stores on the cluster, each in a namespace of its own.
struct Cluster {
    opened: AtomicU32,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { opened: AtomicU32::new(0) }
    }

    async fn connect(&self, number: u32) -> Arc<dyn Store> {
        let options =
            Options { url: CLUSTER.clone(), namespace: format!("js{number}"), shards: 6, ..Options::default() };
        RedisStore::connect(&options).await.expect("the store opens")
    }
}

#[async_trait]
impl Factory for Cluster {
    async fn open(&self) -> Arc<dyn Store> {
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        self.opened.store(number, Ordering::Relaxed);
        self.connect(number).await
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        Some(self.connect(self.opened.load(Ordering::Relaxed)).await)
    }
}

jobservice_conformance::suite!(Cluster::new());
