//! Looking up the names of hosts, with the check of what comes out.
//!
//! The check stands between look-up and connection, in the one look-up that there is: a name that is harmless when it is
//! checked and leads inside when it is called (rebinding) gets no further than any other.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{AddressPolicy, Refused};

/// Looks up names.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of a host.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// What the system knows: `/etc/hosts`, DNS.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// A resolver whose answers are checked.
pub(super) struct Guarded {
    pub(super) policy: Arc<AddressPolicy>,
    pub(super) resolver: Arc<dyn Resolver>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, resolver) = (Arc::clone(&self.policy), Arc::clone(&self.resolver));
        Box::pin(async move {
            let host = name.as_str();
            let addresses = resolver.resolve(host).await?;
            // One bad address is enough: who chooses which of them is called is not us.
            for address in &addresses {
                policy.check_address(host, *address)?;
            }
            if addresses.is_empty() {
                let problem = format!("{host} has no address");
                return Err(Refused { problem, remedy: "check the name" }.into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
