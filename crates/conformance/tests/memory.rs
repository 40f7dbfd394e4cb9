//! The suite on the reference store.

use std::sync::Arc;

use async_trait::async_trait;
use jobservice_conformance::Factory;
use jobservice_core::Store;
use jobservice_core::memory::MemoryStore;

struct Memory;

#[async_trait]
impl Factory for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }
}

jobservice_conformance::suite!(Memory);
