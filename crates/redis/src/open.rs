//! Opens a store: reads the options, connects, looks at what it has found.

use std::sync::Arc;

use jobservice_core::notices::Notices;
use parking_lot::Mutex;

use crate::checks::{self, Warnings};
use crate::clock::RedisClock;
use crate::epoch::Epoch;
use crate::keys::{Keys, LAYOUT};
use crate::lane::Lane;
use crate::link::home::Home;
use crate::link::target::Target;
use crate::link::{Link, Opener, Replicas};
use crate::listen::listen;
use crate::options::{Durability, OpenError, Options};
use crate::pulse::{self, Made};
use crate::store::{RedisStore, Shard};
use crate::view::View;
use crate::wake::Wake;

/// Opens a store as the options say.
pub(crate) async fn open(options: &Options) -> Result<Arc<RedisStore>, OpenError> {
    let (link, opener) = link(options).await?;
    let warnings = Warnings::default();
    checks::check(&link, &warnings).await?;
    let count = options.shards.max(1);
    let notices: Arc<Notices> = Arc::default();
    let wake = Arc::new(Wake::new(Arc::clone(&notices), View::new(options.view_age, count)));
    let shard = |number| {
        let keys = Keys::new(&options.namespace, number, count);
        Arc::new(Shard { number, link: link.clone(), keys, wake: Arc::clone(&wake), epoch: Epoch::new() })
    };
    let shards: Vec<Arc<Shard>> = (0..count).map(shard).collect();
    let channels: Vec<String> = shards.iter().map(|shard| shard.keys.wake()).collect();
    let connections = link.connections();
    let connect = |source| OpenError::Connect { target: opener.target.to_string(), source };
    let (home, subscriber, wanted) = (Arc::clone(link.home()), opener.clone(), channels.clone());
    // Heard from here on: who has connected misses nothing.
    let subscribed = home.run(async move { subscriber.subscribe(&wanted).await }).await;
    let messages = subscribed.ok_or_else(gone)?.map_err(connect)?;
    home.spawn(listen(opener, connections, channels, Arc::clone(&wake), messages));
    let lanes = {
        let _home = home.enter();
        shards.iter().map(|shard| Lane::start(Arc::clone(shard), Arc::clone(&notices))).collect()
    };
    let store = Arc::new(RedisStore {
        link,
        clock: Arc::new(RedisClock::new()),
        warnings,
        wake,
        lanes,
        shards,
        notices,
        held: Mutex::default(),
        options: Mutex::default(),
    });
    // The first is slow: the script is not known there yet. Of the others the quickest counts.
    for _ in 0..3 {
        let Made { shards, layout } = store.pulse().await?;
        if layout != LAYOUT {
            return Err(OpenError::Layout { stored: layout, known: LAYOUT });
        }
        if shards != count {
            return Err(OpenError::Shards { stored: shards, configured: count });
        }
    }
    home.spawn(pulse::beat(Arc::downgrade(&store), store.link.connections()));
    Ok(store)
}

fn gone() -> OpenError {
    OpenError::Thread(std::io::Error::other("it ended"))
}

/// Whether a node has made a store there, and what is not as it should be.
pub(crate) async fn is_used(options: &Options) -> Result<(bool, Vec<String>), OpenError> {
    let (link, _) = link(options).await?;
    let warnings = Warnings::default();
    checks::check(&link, &warnings).await?;
    let mut exists = redis::cmd("EXISTS");
    exists.arg(Keys::new(&options.namespace, 0, options.shards.max(1)).epoch());
    let is_used = link.send(&exists, "look whether it is used").await? != redis::Value::Int(0);
    Ok((is_used, warnings.all()))
}

/// Connects as the options say.
async fn link(options: &Options) -> Result<(Link, Opener), OpenError> {
    let target = Target::parse(&options.url)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if !(1..=64).contains(&options.namespace.len()) || !options.namespace.chars().all(is_plain) {
        return Err(OpenError::Namespace(options.namespace.clone()));
    }
    let authorities = match &options.authorities {
        Some(path) => {
            Some(std::fs::read(path).map_err(|source| OpenError::Authorities { path: path.clone(), source })?)
        }
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
    let connected = Link::connect(opener.clone(), replicas, home).await;
    let link = connected.map_err(|source| OpenError::Connect { target: shown, source })?;
    Ok((link, opener))
}
