//! The pulse of a node: about once a second it asks the store for the time, for its identity, and for what is due.
//!
//! All of it is one small script on each shard, so that a node that has nothing to do sends almost nothing else: the clock
//! follows the store (`clock.rs`), a store that was emptied or is older than it was is noticed (`epoch.rs`), and the
//! sweeps know when they need not look (`view.rs`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use jobservice_core::job::Job;
use jobservice_core::store::Result;
use jobservice_core::{Clock as _, StoreError, Time, limits};
use redis::Value;

use crate::checks;
use crate::clock::{AWAY, Fit, Measured};
use crate::epoch::Pulsed;
use crate::keys::LAYOUT;
use crate::link::{self, Connections, array, number, text, wait};
use crate::script::PULSE;
use crate::store::{RedisStore, Shard};
use crate::view::{Part, Quiet, Seen};
use crate::work::News;

/// How often, unless the view has to be younger.
const EVERY: Duration = Duration::from_secs(1);

/// How seldom at most: a pause longer than [`AWAY`] would count as an outage.
const EVERY_MAX: Duration = Duration::from_secs(2);

/// A store that falls behind by more than this has a clock that somebody has to look at.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// What a shard answered.
struct Answer {
    steady: i64,
    wall: i64,
    id: String,
    steps: i64,
    made: Made,
    /// When the store was back from an outage, and after how long (microseconds).
    resumed: Option<(i64, i64)>,
    seen: Seen,
    /// The shard is not what it was.
    lost: bool,
}

/// How the store was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// Its parts.
    pub(crate) shards: usize,
    /// See [`LAYOUT`].
    pub(crate) layout: u32,
}

/// What a shard is asked to keep.
#[derive(Clone, Copy, Debug)]
enum Keeps {
    /// Its identity.
    Identity,
    /// The time of the store as well, which must not be behind this.
    Time { floor: Option<Time> },
}

/// The pulse, until the store is gone.
pub(crate) async fn beat(store: Weak<RedisStore>, mut connections: Connections) {
    let mut number = connections.number();
    let mut address = None;
    loop {
        let every = match store.upgrade() {
            Some(store) => store.pulse_every(),
            None => return,
        };
        let is_open = tokio::select! {
            () = wait(every) => true,
            is_open = connections.changed() => is_open,
        };
        let Some(store) = store.upgrade().filter(|_| is_open) else { return };
        let now = connections.number();
        if now.is_some() && now != number {
            number = now;
            store.look_again().await;
        }
        let found = store.link.address();
        if let (Some(was), Some(is)) = (&address, &found)
            && was != is
        {
            tracing::warn!(
                "redis was at {was} and is at {is} now: what was submitted just before may be lost unless durability is replica"
            );
        }
        address = found.or(address);
        match store.pulse().await {
            Ok(made) => store.look_at_made(made),
            // Whoever needs the store finds it away as well, and says so.
            Err(error) => tracing::debug!(error = %error, "no pulse"),
        }
        if store.warnings.has("full") && checks::has_room(&store.link).await {
            store.warnings.set("full", None);
        }
        store.say_watches().await;
    }
}

impl RedisStore {
    fn pulse_every(&self) -> Duration {
        let age = self.wake.view.age_max();
        // Sooner than a view is too old, or each time its last moments would be spent asking.
        if age.is_zero() { EVERY } else { (age * 3 / 4).min(EVERY_MAX) }
    }

    /// One pulse on all shards; how the store was made.
    pub(crate) async fn pulse(&self) -> Result<Made> {
        let [first, others @ ..] = self.shards.as_slice() else { return Err(StoreError::Poisoned) };
        let others = join_all(others.iter().map(|shard| self.pulse_on(shard, Keeps::Identity)));
        let (made, others) = tokio::join!(self.pulse_first(first), others);
        others.into_iter().try_for_each(|answer| answer.map(drop))?;
        made
    }

    /// The first shard keeps the time of the store, and how it was made.
    async fn pulse_first(&self, shard: &Shard) -> Result<Made> {
        let asked = self.clock.elapsed();
        let answer = self.pulse_on(shard, Keeps::Time { floor: None }).await?;
        let Answer { steady, wall, made, lost, resumed, .. } = answer;
        let answered = self.clock.elapsed();
        let fit = self.clock.follow(Measured { asked, answered, steady, wall });
        if let Some((at, after)) = resumed {
            self.clock.resumed(at, after);
        }
        match fit {
            Fit::Good => self.warnings.set("clock", None),
            Fit::Behind(by) => {
                // A store that lacks what it was told has said so already.
                if by > BEHIND_MAX && !lost {
                    let seconds = by.as_secs();
                    let text =
                        format!("the time of redis fell behind that of its nodes by {seconds} s: look at its clock");
                    self.warnings.set("clock", Some(text));
                }
                // The store has lost what it must not fall behind, or was set back: a monotonic clock does not run ahead.
                self.pulse_on(shard, Keeps::Time { floor: Some(self.clock.now()) }).await?;
            }
        }
        Ok(made)
    }

    async fn pulse_on(&self, shard: &Shard, keeps: Keeps) -> Result<Answer> {
        let id = format!("{:016x}", getrandom::u64().unwrap_or(0));
        let (shards, floor) = match keeps {
            Keeps::Identity => (String::new(), None),
            Keeps::Time { floor } => (self.shards.len().to_string(), floor),
        };
        let floor = floor.map(|floor| floor.as_millis().saturating_mul(1000).to_string()).unwrap_or_default();
        let looks = !self.wake.view.age_max().is_zero();
        let mut call = link::call(&PULSE, shard.keys.prefix());
        let lease = u64::try_from(limits::LEASE.as_micros()).unwrap_or(u64::MAX);
        call.arg(id)
            .arg(shards)
            .arg(floor)
            .arg(u8::from(looks))
            .arg(shard.epoch.node())
            .arg(AWAY)
            .arg(lease)
            .arg(LAYOUT);
        let (look, sent) = (self.wake.view.begin(link::now()), shard.epoch.sent());
        let answer = shard.link.run(&PULSE, &call, "pulse").await?;
        let mut answer = read(&answer)?;
        if looks {
            self.wake.view.keep(shard.number, look, answer.seen);
        }
        let pulsed = Pulsed { id: &answer.id, steps: answer.steps, wall: answer.wall };
        if let Some(lost) = shard.epoch.take(sent, &pulsed) {
            answer.lost = true;
            let (text, number) = (lost.text(), shard.number);
            tracing::error!(shard = number, "{text}");
            self.warnings.set("epoch", Some(format!("since {}: {text}", self.clock.wall())));
        }
        Ok(answer)
    }

    /// It may be another server since the connection was lost.
    async fn look_again(&self) {
        let text = match checks::check(&self.link, &self.warnings).await {
            Ok(()) => None,
            Err(crate::OpenError::Store(_)) => return,
            Err(error) => Some(error.to_string()),
        };
        self.warnings.set("check", text);
    }

    fn look_at_made(&self, Made { shards: stored, layout }: Made) {
        let configured = self.shards.len();
        let text =
            format!("the store has {stored} shards and this node is set to {configured}: restart it with {stored}");
        self.warnings.set("shards", (stored != configured).then_some(text));
        // Redis was emptied and a node of another version was the first to use it again; or a backup of such was loaded.
        let text = format!(
            "the store has layout {layout} now and this node writes layout {LAYOUT}: nodes of two versions use one redis; stop one kind"
        );
        self.warnings.set("layout", (layout != LAYOUT).then_some(text));
    }

    /// Tells the others that somebody watches jobs here, if it is time.
    async fn say_watches(&self) {
        if let Some(message) = self.wake.watches() {
            self.publish(message).await;
        }
    }

    /// Sends a hint that belongs to no step. It may be lost, as all may.
    async fn publish(&self, message: String) {
        let Some(shard) = self.shards.first() else { return };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(shard.keys.wake()).arg(message);
        if let Err(error) = shard.link.send(&publish, "tell others").await {
            tracing::debug!(error = %error, "a hint could not be sent");
        }
    }

    /// Tells what a claim has changed, here and, if they need to know, elsewhere.
    pub(crate) fn tell_claimed(&self, jobs: &[Job]) {
        if jobs.is_empty() {
            return;
        }
        let mut news = News { events: jobs.iter().any(|job| job.spec.hook.is_some()), ..News::default() };
        if self.notices.has_watchers() || self.wake.is_watched() {
            news.changed = jobs.iter().map(|job| job.id.clone()).collect();
        }
        self.wake.committed(&news);
        if let Some(message) = self.wake.message(&news)
            && let Some(shard) = self.shards.first()
        {
            let (link, channel) = (shard.link.clone(), shard.keys.wake());
            let home = Arc::clone(link.home());
            home.spawn(async move {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(channel).arg(message);
                // A hint may be lost.
                link.send(&publish, "tell others").await.ok();
            });
        }
        news.tell(&self.notices);
    }

    /// Whether it is known, without asking, that nothing of a kind is due; if so, when the next is.
    pub(crate) fn quiet(&self, part: Part, by: Time) -> Option<Quiet> {
        self.wake.view.nothing_due(part, by, link::now())
    }

    /// Whether it is known, without asking, that no job is Pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.wake.view.no_work(link::now())
    }
}

fn read(answer: &Value) -> Result<Answer> {
    let fields = array(answer)?;
    let field = |at: usize| fields.get(at).unwrap_or(&Value::Nil);
    let whole = |at: usize| Ok::<_, StoreError>(number(field(at))?.unwrap_or(0));
    // What there is none of is an empty text, which is no number.
    let maybe = |at: usize| match field(at) {
        Value::BulkString(bytes) if bytes.is_empty() => Ok::<_, StoreError>(None),
        field => number(field),
    };
    let time = |at: usize| Ok::<_, StoreError>(maybe(at)?.map(Time::from_millis));
    let seen =
        Seen { scheduled: time(8)?, running: time(9)?, events: time(10)?, policies: time(11)?, work: whole(12)? > 0 };
    Ok(Answer {
        steady: whole(0)?,
        wall: whole(1)?,
        id: text(field(2))?.unwrap_or_default().to_owned(),
        steps: whole(3)?,
        made: Made {
            shards: usize::try_from(maybe(4)?.unwrap_or(0)).unwrap_or(0),
            layout: u32::try_from(maybe(7)?.unwrap_or(0)).unwrap_or(0),
        },
        resumed: maybe(5)?.zip(maybe(6)?),
        seen,
        lost: false,
    })
}
