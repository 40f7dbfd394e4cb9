//! The doctor's look at a Redis and what is in it: the nodes' view, from beside them.

use anyhow::{Context as _, Result};
use jobservice_core::Store as _;
use jobservice_redis::{Options, RedisStore};

use super::doctor::{audit, jobs, pools, queue};
use super::findings::Findings;
use crate::http::chain;

/// Looks whether it can be used, what it holds and who uses it. No job is touched, and nothing made where there is nothing.
pub(super) fn look(options: &Options, findings: &mut Findings) {
    // On a thread of its own: the command line already is in a runtime, which cannot wait for another one.
    let looked = std::thread::scope(|scope| scope.spawn(|| look_within(options, findings)).join());
    match looked {
        Ok(Ok(())) => {}
        Ok(Err(error)) => findings.broken("store", format!("{error:#}"), "look at Redis: see docs/scaling.md"),
        Err(_panic) => findings.broken("store", "looking at it failed", "report it"),
    }
}

fn look_within(options: &Options, findings: &mut Findings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot look at Redis")?;
    runtime.block_on(async {
        let opened = match RedisStore::is_used(options).await {
            Ok((true, _)) => RedisStore::connect(options).await,
            Ok((false, warnings)) => {
                for warning in warnings {
                    findings.warning("store", warning, "see docs/scaling.md");
                }
                let what = format!("no node has used the namespace {:?} of this Redis yet", options.namespace);
                findings.warning("store", what, "start the service, or correct redis_url or namespace");
                return Ok(());
            }
            Err(error) => Err(error),
        };
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                findings.broken("store", chain(&error), "nodes cannot use this Redis: see docs/scaling.md");
                return Ok(());
            }
        };
        let warnings = store.warnings();
        if warnings.is_empty() {
            findings.ok("store", "Redis answers, and is set as it should be");
        }
        for warning in warnings {
            findings.warning("store", warning, "see docs/scaling.md");
        }
        let now = store.clock().now();
        jobs(store.counts().await?, findings);
        let nodes = store.beat(None, now).await?;
        for stats in store.names().await? {
            queue(&stats, &nodes, now, true, findings);
        }
        pools(&nodes, now, findings);
        audit(&store.audit().await?, findings);
        Ok(())
    })
}
