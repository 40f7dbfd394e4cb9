//! Opens a store: reads the options, connects, looks at what it has found.

use std::sync::Arc;

use crate::link::home::Home;
use crate::link::{Link, Opener, Replicas};
use crate::link::target::Target;
use crate::options::{Durability, OpenError, Options};

/// Connects as the options say.
pub(crate) async fn link(options: &Options) -> Result<Link, OpenError> {
    let target = Target::parse(&options.url)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if !(1..=64).contains(&options.namespace.len()) || !options.namespace.chars().all(is_plain) {
        return Err(OpenError::Namespace(options.namespace.clone()));
    }
    let authorities = match &options.authorities {
        Some(path) => Some(
            std::fs::read(path).map_err(|source| OpenError::Authorities { path: path.clone(), source })?,
        ),
        None => None,
    };
    if target.tls {
        // An error means that the program has chosen one already.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }
    let shown = target.to_string();
    let opener = Opener {
        target,
        authorities,
        connect_timeout: options.connect_timeout,
        response_timeout: options.response_timeout,
    };
    let replicas = match options.durability {
        Durability::Local => None,
        Durability::Replica { timeout } => Some(Replicas { least: 1, timeout }),
    };
    let home = Arc::new(Home::start().map_err(OpenError::Thread)?);
    Link::connect(opener, replicas, home).await.map_err(|source| OpenError::Connect { target: shown, source })
}
