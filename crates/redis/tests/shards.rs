//! The suite that every store passes, on a store of six shards on one server.
#![expect(clippy::expect_used, reason = "a test that cannot open its store is over")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use jobservice_conformance::Factory;
use jobservice_conformance::redis_server::RedisServer;
use jobservice_core::Store;
use jobservice_redis::{Options, RedisStore};

/// Stores on one server, each in a namespace of its own.
struct Shards {
    server: RedisServer,
    opened: AtomicU32,
}

impl Shards {
    fn new() -> Shards {
        Shards { server: RedisServer::start(), opened: AtomicU32::new(0) }
    }

    async fn connect(&self, number: u32) -> Arc<dyn Store> {
        let namespace = format!("js{number}");
        let options = Options { url: self.server.url(), namespace, shards: 6, ..Options::default() };
        RedisStore::connect(&options).await.expect("the store opens")
    }
}

#[async_trait]
impl Factory for Shards {
    async fn open(&self) -> Arc<dyn Store> {
        self.connect(self.opened.fetch_add(1, Ordering::Relaxed) + 1).await
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        Some(self.connect(self.opened.load(Ordering::Relaxed)).await)
    }
}

jobservice_conformance::suite!(Shards::new());
