//! The suite that every store passes, on Redis.
#![expect(clippy::expect_used, reason = "a test that cannot open its store is over")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use jobservice_conformance::Factory;
use jobservice_conformance::redis_server::RedisServer;
use jobservice_core::Store;
use jobservice_redis::{Options, RedisStore};

/// Stores on one server, each in a namespace of its own.
struct Redis {
    server: RedisServer,
    opened: AtomicU32,
}

impl Redis {
    fn new() -> Redis {
        Redis { server: RedisServer::start(), opened: AtomicU32::new(0) }
    }

    async fn connect(&self, number: u32) -> Arc<dyn Store> {
        let options = Options { url: self.server.url(), namespace: format!("js{number}"), ..Options::default() };
        RedisStore::connect(&options).await.expect("the store opens")
    }
}

#[async_trait]
impl Factory for Redis {
    async fn open(&self) -> Arc<dyn Store> {
        self.connect(self.opened.fetch_add(1, Ordering::Relaxed) + 1).await
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        drop(store);
        Some(self.connect(self.opened.load(Ordering::Relaxed)).await)
    }
}

jobservice_conformance::suite!(Redis::new());
