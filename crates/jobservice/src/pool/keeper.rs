//! The keeper: extends the leases, brings signals to the runs, and gives up runs whose time is over.
//!
//! It lives on a thread and a runtime of its own, so that nothing that jobs do can keep a lease from being extended. Three
//! tasks, none of which waits for another:
//! * *extend*: every [`limits::EXTEND_EVERY`] all leases, in one call. A lease that is lost revokes its run. Leases that
//!   the store knows and we do not are claims whose answer was lost: they are given back.
//! * *listen*: stops and cancels, pushed by the store. What is missed comes with the next extend.
//! * *watch over time*: interrupts runs at their timeout, gives them up when their grace is over.

use std::sync::Arc;

use jobservice_core::job::LeaseKey;
use jobservice_core::notices::SignalNotice;
use jobservice_core::store::{Held, Result, StoreError};
use jobservice_core::{Time, limits};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

use super::table::Table;
use crate::env::{Env, random_u32};
use crate::run::{Interrupt, Run};
use crate::wait::{self, Backoff};

/// The keeper of a pool.
pub(crate) struct Keeper {
    pub(crate) env: Arc<Env>,
    pub(crate) table: Arc<Table>,
    pub(crate) lost_claim: Arc<Notify>,
    /// Tells *extend* to look now.
    pub(crate) hurry: Arc<Notify>,
}

impl Keeper {
    /// Runs until it is dropped. `signals` were subscribed before the first claim.
    pub(crate) async fn run(self, signals: broadcast::Receiver<SignalNotice>) {
        tokio::join!(self.extend(), self.listen(signals), self.watch_over_time());
    }

    async fn extend(&self) {
        let mut backoff = Backoff::default();
        let mut told = false;
        // Whether a claim may have gone through without us knowing, and no extend has looked since.
        let mut orphans = false;
        // At once: this thread may have been started late, beside runs that are waiting for it.
        let mut next = self.env.clock.now();
        // After a failure, sooner than usual: every lease lasts only so long.
        let mut again = None;
        loop {
            tokio::select! {
                () = wait::until(&self.env.clock, next) => {}
                () = wait::pause(again.unwrap_or_default()), if again.is_some() => {}
                () = self.lost_claim.notified() => orphans = true,
                () = self.hurry.notified() => {}
            }
            again = None;
            let now = self.env.clock.now();
            next = now + limits::EXTEND_EVERY;
            let runs = self.table.runs();
            if runs.is_empty() && !orphans {
                continue;
            }
            match self.extend_all(&runs, now).await {
                Ok(()) => {
                    orphans = false;
                    if std::mem::take(&mut told) {
                        tracing::info!("leases are extended again");
                    }
                    backoff.reset();
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(error = %error, "leases could not be extended, trying on");
                    }
                    again = Some(backoff.step());
                }
            }
        }
    }

    /// Extends the leases of these runs, and gives back those that no run has.
    async fn extend_all(&self, runs: &[Arc<Run>], now: Time) -> Result<()> {
        let leases: Vec<LeaseKey> = runs.iter().map(|run| run.lease().clone()).collect();
        // Crash here: the leases end on their own and the jobs run again elsewhere.
        let extended = self.env.store.extend(&self.env.pool, &leases, now + limits::LEASE, now).await?;
        for (run, held) in runs.iter().zip(extended.leases) {
            self.take_held(run, held);
        }
        self.table.unlisted(&extended.unlisted, now);
        let orphans: Vec<LeaseKey> =
            extended.unlisted.into_iter().filter(|lease| self.table.is_orphan(lease)).collect();
        if orphans.is_empty() { Ok(()) } else { self.give_back(orphans, now).await }
    }

    /// Gives back jobs that nobody runs. If this fails the next extend finds them again.
    async fn give_back(&self, orphans: Vec<LeaseKey>, now: Time) -> Result<()> {
        let count = orphans.len();
        tracing::info!(count, "giving back {count} jobs that were claimed without us hearing of it");
        match self.env.store.release(orphans.clone(), random_u32(), now).await {
            Err(StoreError::Damaged { .. } | StoreError::Invalid(_)) if count > 1 => {}
            answered => return answered.map(drop),
        }
        // One of them cannot be read, and must not keep the others.
        for orphan in orphans {
            if let Err(error) = self.env.store.release(vec![orphan.clone()], random_u32(), now).await {
                let id = &orphan.id;
                tracing::error!(job.id = %id, error = %error, "job {id}, which nobody runs, cannot be given back");
            }
        }
        Ok(())
    }

    fn take_held(&self, run: &Arc<Run>, held: Held) {
        match held {
            Held::Held(None) => {}
            Held::Held(Some(signal)) => self.signal(run, signal.into()),
            // A run that is over has a report on its way; the answer to that decides.
            Held::Lost if run.is_settled() => {}
            Held::Lost => {
                let id = &run.job().id;
                tracing::warn!(job.id = %id, attempt = run.lease().attempt, "the lease of job {id} is lost: its run here ends");
                run.revoke();
            }
        }
    }

    async fn listen(&self, mut signals: broadcast::Receiver<SignalNotice>) {
        loop {
            match signals.recv().await {
                Ok(notice) if notice.pool == self.env.pool => {
                    if let Some(run) = self.table.find(&notice.lease, notice.signal) {
                        self.signal(&run, notice.signal.into());
                    }
                }
                Ok(_) => {}
                // Some were missed; an extend tells of all of them.
                Err(RecvError::Lagged(_)) => self.hurry.notify_one(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn signal(&self, run: &Arc<Run>, interrupt: Interrupt) {
        let until = self.env.clock.now() + self.env.grace;
        run.ask_to_end(interrupt, until);
        self.table.look_by(until);
    }

    async fn watch_over_time(&self) {
        loop {
            // Register before looking: a run that is interrupted meanwhile would be looked at too late.
            let look = self.table.look();
            let next = self.look(self.env.clock.now());
            self.table.looks_at(next);
            // A run that was added between the look and the line above may have found an earlier time to look at.
            let next = self.look(self.env.clock.now()).min(next);
            tokio::select! {
                () = look => {}
                () = wait::until(&self.env.clock, next) => {}
            }
        }
    }

    /// Interrupts and gives up what is due; answers with when the next is.
    fn look(&self, now: Time) -> Time {
        let mut next = Time::MAX;
        for run in self.table.runs() {
            if run.is_settled() {
                continue;
            }
            if let Some(at) = run.timeout_at()
                && !run.was_asked(Interrupt::Timeout)
            {
                if at <= now {
                    let grace = self.env.grace;
                    run.log()
                        .error(format_args!("the run is over its timeout: {} s are left to end", grace.as_secs_f64()));
                    // From when it was due, however late we look: the store counts from there too.
                    run.ask_to_end(Interrupt::Timeout, at + grace);
                } else {
                    next = next.min(at);
                }
            }
            match run.grace_until() {
                Some(until) if until <= now => Keeper::give_up(&run),
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        next
    }

    fn give_up(run: &Arc<Run>) {
        let why = run.interrupt();
        if why != Some(Interrupt::Shutdown) {
            run.log().error("the run did not end in time: it is given up");
        }
        if run.give_up() {
            let id = &run.job().id;
            tracing::info!(job.id = %id, attempt = run.lease().attempt, ?why, "job {id} did not end in time: its run is given up");
        }
    }
}
