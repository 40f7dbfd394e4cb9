//! The loop that takes events and hands them to deliveries, on a thread of its own.
//!
//! Woken by the store's notices, by a delivery that ends, and each second in case a notice was lost. What cannot be sent now
//! goes back to the store at once, so that it never stands before what can.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use jobservice_core::outbox::{JobEvents, Settled};
use jobservice_core::{Clock, JobId, Store, StoreError, Time, limits};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::HookOptions;
use super::address::Target;
use super::body;
use super::hosts::{Hosts, Sign, Work};
use super::schedule;
use super::send::{Answer, Sender};
use crate::env::random_u32;
use crate::wait;
use crate::watchdog::{Fatal, Watchdog};

/// How often the store is looked at although nothing told of events.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Jobs taken at once. Each may have parameters of a quarter of a mebibyte, until they are dropped.
const TAKE_MAX: usize = 128;

/// How long deliveries have to end at shutdown. What is cut off is sent again by the next process.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Threads that look up names; a look-up that hangs keeps one.
const LOOK_UPS_MAX: usize = 32;

/// The delivery on its thread. It ends when this is dropped.
pub(crate) struct Hooks {
    stop: DropGuard,
    ended: watch::Receiver<()>,
}

impl Hooks {
    /// Starts the delivery.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        options: HookOptions,
        fatal: Fatal,
    ) -> io::Result<Hooks> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOK_UPS_MAX).build()?;
        let stop = CancellationToken::new();
        let (ended_sender, ended) = watch::channel(());
        let stopped = stop.clone();
        let watchdog = Watchdog::new(fatal, "the delivery of hooks");
        std::thread::Builder::new().name("jobs-hooks".to_owned()).spawn(move || {
            let _ended = ended_sender;
            runtime.block_on(Dispatcher::new(store, clock, options, stopped).run());
            watchdog.done();
            // Not by dropping it: that would wait for look-ups that hang.
            runtime.shutdown_background();
        })?;
        Ok(Hooks { stop: stop.drop_guard(), ended })
    }

    /// Ends the delivery and waits for that. What is not delivered waits in the store.
    pub(crate) async fn stop(&self) {
        self.stop.token().cancel();
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

/// The events of a job that wait for their delivery.
struct Taken {
    events: JobEvents,
    target: Target,
    /// Until when nobody else may take them.
    held_until: Time,
}

/// How the delivery of a job's events ended.
struct Ended {
    sign: Sign,
    /// How long the last message took.
    took: Duration,
    /// When the job's turn comes again, if it does.
    next_at: Option<Time>,
}

/// A job that is in our hands.
struct InHand {
    host: Arc<str>,
    /// It was taken once more meanwhile: its events have a hold that nobody uses.
    again: bool,
}

struct Dispatcher {
    shared: Arc<Shared>,
    hosts: Hosts<Taken>,
    in_hand: HashMap<JobId, InHand>,
    deliveries: JoinSet<Ended>,
    /// Which delivery is of which job.
    of: HashMap<Id, JobId>,
}

/// What the deliveries have in common.
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    options: Arc<HookOptions>,
    sender: Sender,
    stop: CancellationToken,
}

impl Dispatcher {
    fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: HookOptions, stop: CancellationToken) -> Dispatcher {
        let hosts = Hosts::new(options.max_concurrency, options.per_host);
        let options = Arc::new(options);
        let sender = Sender::new(Arc::clone(&options));
        let shared = Arc::new(Shared { store, clock, options, sender, stop });
        Dispatcher { shared, hosts, in_hand: HashMap::new(), deliveries: JoinSet::new(), of: HashMap::new() }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut backoff = wait::Backoff::default();
        let mut told = false;
        let mut look_at = shared.clock.now();
        // Kept over the turns of the loop, and registered anew before each look: an event that comes while something else
        // is done would otherwise wait for the next look.
        let notices = shared.store.notices();
        let woken = notices.events();
        tokio::pin!(woken);
        while !shared.stop.is_cancelled() {
            let now = shared.clock.now();
            if woken.as_mut().now_or_never().is_some() {
                woken.set(notices.events());
                look_at = now;
            }
            if now >= look_at && self.hosts.room() > 0 {
                match self.look().await {
                    Ok(next) => {
                        look_at = next;
                        backoff.reset();
                        if std::mem::take(&mut told) {
                            tracing::info!("hooks are delivered again");
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(error = %error, "hook events cannot be taken, trying on");
                        }
                        look_at = now + backoff.step();
                    }
                }
            }
            self.begin();
            if self.hosts.room() > 0 && shared.clock.now() >= look_at {
                tokio::task::yield_now().await;
                while let Some(ended) = self.deliveries.try_join_next_with_id() {
                    look_at = look_at.min(self.ended(ended).await);
                }
                continue;
            }
            let has_room = self.hosts.room() > 0;
            tokio::select! {
                Some(ended) = self.deliveries.join_next_with_id() => {
                    look_at = look_at.min(self.ended(ended).await);
                }
                () = woken.as_mut() => {
                    woken.set(notices.events());
                    look_at = now;
                }
                () = wait::until(&shared.clock, look_at), if has_room => {}
                () = shared.stop.cancelled() => {}
            }
        }
        self.stop().await;
    }

    /// Takes what has its turn; answers when to look again.
    async fn look(&mut self) -> Result<Time, StoreError> {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let held_until = now + limits::hook_hold(shared.options.timeout);
        let limit = TAKE_MAX.min(self.hosts.room());
        // Crash here: what was taken comes back when the hold ends.
        let taken = shared.store.take_events(limit, held_until, now).await?;
        let mut next = if taken.len() >= limit { now } else { now + LOOK_EVERY };
        let mut settled = Vec::new();
        for events in taken {
            if let Some((id, seq, what)) = self.sort(events, held_until, now) {
                if let Settled::Later { at } | Settled::Retry { at, .. } = &what {
                    next = next.min(*at);
                }
                settled.push(shared.settle_or_leave(id, seq, what));
            }
        }
        join_all(settled).await;
        Ok(next)
    }

    /// Puts the events of a job in the queue of their host, or answers how they are to be settled instead.
    fn sort(&mut self, mut events: JobEvents, held_until: Time, now: Time) -> Option<(JobId, u32, Settled)> {
        let id = events.job.id.clone();
        if let Some(in_hand) = self.in_hand.get_mut(&id) {
            in_hand.again = true;
            return None;
        }
        let (first, last) = (events.events.first()?.clone(), events.events.last()?.seq);
        if events.gone {
            let error = "the receiver has said that it wants no more (410)".into();
            return Some((id, last, Settled::Gone { error }));
        }
        let policy = &self.shared.options.policy;
        let target = match policy.check_url(events.job.spec.hook.as_deref().unwrap_or_default()) {
            Ok(target) => target,
            // The operator may allow it yet.
            Err(refused) => {
                let at = schedule::next_try(events.tries + 1, None, random_u32(), now);
                return Some((id, first.seq, Settled::Retry { at, error: format!("the URL {refused}").into() }));
            }
        };
        if !self.shared.options.include_parameters {
            // They may be large, and are not told.
            Arc::make_mut(&mut events.job.spec).parameters = "{}".into();
        }
        let host: Arc<str> = target.host.as_str().into();
        let work = Work { id: id.clone(), host: Arc::clone(&host), what: Taken { events, target, held_until } };
        match self.hosts.place(work, random_u32(), now) {
            Ok(()) => {
                self.in_hand.insert(id, InHand { host, again: false });
                None
            }
            Err((_, at)) => Some((id, first.seq, Settled::Later { at })),
        }
    }

    /// Begins as many deliveries as there are places.
    fn begin(&mut self) {
        while let Some(Work { id, what, .. }) = self.hosts.next() {
            let shared = Arc::clone(&self.shared);
            let delivery = self.deliveries.spawn(async move { shared.deliver(what).await });
            self.of.insert(delivery.id(), id);
        }
    }

    /// A delivery has ended; answers when to look again.
    async fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) -> Time {
        let now = self.shared.clock.now();
        let later = now + LOOK_EVERY;
        let (delivery, ended) = match ended {
            Ok((delivery, ended)) => (delivery, ended),
            Err(error) => {
                tracing::error!(error = %error, "a delivery of hook events broke off; they are sent again");
                (error.id(), Ended { sign: Sign::None, took: Duration::ZERO, next_at: None })
            }
        };
        let Some(id) = self.of.remove(&delivery) else { return later };
        let Some(InHand { host, again }) = self.in_hand.remove(&id) else { return later };
        let back = self.hosts.ended(&host, ended.sign, ended.took, random_u32(), now);
        let mut next = ended.next_at.unwrap_or(later).min(later);
        if again {
            self.shared.settle_or_leave(id, u32::MAX, Settled::Later { at: now }).await;
            next = now;
        }
        let shared = Arc::clone(&self.shared);
        let back = back.into_iter().map(|(work, at)| {
            self.in_hand.remove(&work.id);
            shared.settle_or_leave(work.id, u32::MAX, Settled::Later { at })
        });
        join_all(back.collect::<Vec<_>>()).await;
        // There may be room now for what waits in the store.
        if self.hosts.room() > 0 { next } else { later }
    }

    /// Ends: what is on its way may end, what waits goes back.
    async fn stop(mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let waiting = self.hosts.drain().into_iter();
        let waiting: Vec<_> =
            waiting.map(|work| shared.settle_or_leave(work.id, u32::MAX, Settled::Later { at: now })).collect();
        let ends = async {
            join_all(waiting).await;
            while self.deliveries.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ends => {}
            () = wait::pause(STOP_GRACE) => tracing::info!("deliveries of hook events were cut off; they are sent again"),
        }
    }
}

impl Shared {
    /// Sends the events of a job one after the other, as far as that goes.
    async fn deliver(&self, taken: Taken) -> Ended {
        let Taken { events: JobEvents { job, events, mut tries, .. }, target, held_until } = taken;
        let mut ended = Ended { sign: Sign::None, took: Duration::ZERO, next_at: None };
        for event in events {
            let now = self.clock.now();
            if self.stop.is_cancelled() || now + self.options.timeout > held_until {
                // Others may take them before this would have ended.
                self.settle_or_leave(job.id.clone(), event.seq, Settled::Later { at: now }).await;
                ended.next_at = Some(now);
                return ended;
            }
            let answer = match body::compose(&job, &event, self.options.include_parameters) {
                // Receivers compare the time of a message with their own clock on the wall.
                Ok(body) => self.sender.send(&target, &body::id(&job, &event), body, self.clock.wall()).await,
                Err(error) => Answer::NotTaken(format!("the message cannot be composed: {error}")),
            };
            // Crash here: it is sent again, under the same id.
            let after = self.clock.now();
            ended.took = after.since(now);
            let (sign, settled) = judge(answer, tries, after);
            ended.sign = sign;
            tries = 0;
            let goes_on = settled == Settled::Done;
            if let Settled::Retry { at, error } = &settled {
                ended.next_at = Some(*at);
                tracing::debug!(job.id = %job.id, seq = event.seq, host = target.host, "hook of job {}: {error}", job.id);
            }
            if let Settled::Gone { .. } = &settled {
                tracing::info!(job.id = %job.id, "the hook of job {} wants no more events (410)", job.id);
            }
            let is_noted = self.settle(&job.id, event.seq, &settled, held_until).await;
            if !(goes_on && is_noted) {
                return ended;
            }
        }
        ended
    }

    /// Settles, trying again until the hold ends: what is not noted by then is sent again. Answers whether it is noted.
    async fn settle(&self, id: &JobId, seq: u32, settled: &Settled, held_until: Time) -> bool {
        let mut backoff = wait::Backoff::default();
        loop {
            let now = self.clock.now();
            match self.store.settle_event(id, seq, settled.clone(), now).await {
                Ok(()) => return true,
                Err(error) if now >= held_until || self.stop.is_cancelled() => {
                    tracing::warn!(job.id = %id, seq, error = %error, "cannot note what became of a hook event; it is sent again");
                    return false;
                }
                Err(_) => backoff.wait().await,
            }
        }
    }

    /// Settles what was not sent. If that fails the hold ends by itself, which is no harm.
    async fn settle_or_leave(&self, id: JobId, seq: u32, settled: Settled) {
        if let Err(error) = self.store.settle_event(&id, seq, settled, self.clock.now()).await {
            tracing::debug!(job.id = %id, error = %error, "hook events wait until their hold ends");
        }
    }
}

/// What an answer means for the host, and for the event, which had failed `tries` times before.
fn judge(answer: Answer, tries: u32, now: Time) -> (Sign, Settled) {
    let again = |asked, error: String| {
        let at = schedule::next_try(tries.saturating_add(1), asked, random_u32(), now);
        Settled::Retry { at, error: error.into() }
    };
    match answer {
        Answer::Delivered => (Sign::Well, Settled::Done),
        Answer::Gone => (Sign::Well, Settled::Gone { error: "answered 410".into() }),
        Answer::Ill { why, asked } => (Sign::Ill { asked }, again(asked, why)),
        Answer::NotTaken(why) => (Sign::None, again(None, why)),
    }
}
