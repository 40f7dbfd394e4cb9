//! Whose turn it is: how many messages are on their way to which host, what waits for a free place, and which hosts are
//! left alone for a while.
//!
//! A host that is slow or dead must cost the others nothing. It gets a few places (`per_host`), its messages a short
//! queue; what does not fit goes back to the store for as long as the queue will take. Hosts that did not answer last time,
//! or never did yet, share half of all places and half of the queue, so that any number of dead ones leaves the other half
//! free. After [`FAILURES_MAX`] failures in a row a host gets one probe a minute. What began before the host last answered
//! well says nothing new: many time-outs that end together are no row.
//!
//! No clock and no store in here: time is an argument, what has to be done is an answer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::{JobId, Time};

/// Failures in a row, over at least this time, after which a host is taken for dead. A receiver that starts again refuses
/// many connections in a moment.
const FAILURES_MAX: u32 = 20;
const FAILING_MIN: Duration = Duration::from_secs(5);

/// How often a host that is taken for dead is tried.
const PROBE_EVERY: Duration = Duration::from_secs(60);

/// Jobs of a dead host come back over this long after the next probe, the longer it is dead the more: each costs the
/// store two writes for nothing.
const SPREAD_MIN: Duration = Duration::from_secs(5);
const SPREAD_MAX: Duration = Duration::from_secs(5 * 60);

/// The longest that one answer may keep a whole host waiting.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Jobs that may wait in memory, over all hosts, and for each place of a host.
const WAITING_MAX: usize = 512;
const WAITING_PER_PLACE: usize = 8;

/// For how long what finds no place in a queue goes back to the store.
const BACK_MIN: Duration = Duration::from_millis(100);
const BACK_MAX: Duration = Duration::from_secs(30);

/// Hosts that are remembered.
const HOSTS_MAX: usize = 10_000;

/// A job whose turn it is, with what `W` knows of it.
#[derive(Debug)]
pub(super) struct Work<W> {
    pub(super) id: JobId,
    pub(super) host: Arc<str>,
    pub(super) what: W,
}

/// How a delivery ended, as far as the host is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered like somebody who is well.
    Well,
    /// It did not.
    Ill { asked: Option<Duration> },
    /// It was not asked.
    None,
}

/// The hosts.
#[derive(Debug)]
pub(super) struct Hosts<W> {
    known: HashMap<Arc<str>, Host<W>>,
    /// Hosts with waiting jobs, the one whose turn it is first.
    turns: VecDeque<Arc<str>>,
    places: usize,
    per_host: usize,
    sending: usize,
    sending_doubtful: usize,
    waiting: usize,
    waiting_doubtful: usize,
}

#[derive(Debug)]
struct Host<W> {
    waiting: VecDeque<Work<W>>,
    sending: usize,
    /// Whether it answered well last time.
    proven: bool,
    failures: u32,
    /// When the first of these began.
    failing_since: Time,
    /// When it last answered well.
    well_at: Option<Time>,
    /// Since when it is taken for dead, and when it is tried next.
    dead: Option<(Time, Time)>,
    paused_until: Time,
    /// How long an answer takes, smoothed.
    takes: Duration,
    /// When what went back to the store last will have its place.
    back_until: Time,
    used_at: Time,
}

impl<W> Host<W> {
    fn new(now: Time) -> Host<W> {
        Host {
            waiting: VecDeque::new(),
            sending: 0,
            proven: false,
            failures: 0,
            failing_since: now,
            well_at: None,
            dead: None,
            paused_until: now,
            takes: Duration::from_millis(50),
            back_until: now,
            used_at: now,
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.sending == 0
    }
}

impl<W> Hosts<W> {
    pub(super) fn new(places: usize, per_host: usize) -> Hosts<W> {
        Hosts {
            known: HashMap::new(),
            turns: VecDeque::new(),
            places: places.max(2),
            per_host: per_host.max(1),
            sending: 0,
            sending_doubtful: 0,
            waiting: 0,
            waiting_doubtful: 0,
        }
    }

    /// How many more jobs may be taken from the store.
    pub(super) fn room(&self) -> usize {
        WAITING_MAX.saturating_sub(self.waiting)
    }

    /// Puts a job in the queue of its host, or answers until when it goes back to the store. `random` spreads those that
    /// go back.
    pub(super) fn place(&mut self, work: Work<W>, random: u32, now: Time) -> Result<(), (Work<W>, Time)> {
        if !self.known.contains_key(&work.host) && self.known.len() >= HOSTS_MAX {
            self.forget_idle(now);
        }
        let host = self.known.entry(Arc::clone(&work.host)).or_insert_with(|| Host::new(now));
        host.used_at = now;
        if let Some((since, probe_at)) = host.dead {
            if now < probe_at || !host.is_idle() {
                let spread = now.since(since).clamp(SPREAD_MIN, SPREAD_MAX);
                return Err((work, probe_at.max(now) + spread * (random % 1000) / 1000));
            }
            // This one is the probe.
            host.dead = Some((since, now + PROBE_EVERY));
        } else if now < host.paused_until {
            let until = host.paused_until;
            return Err((work, until + Duration::from_millis(u64::from(random % 2000))));
        }
        let half = WAITING_MAX / 2;
        let is_full = host.waiting.len() >= self.per_host * WAITING_PER_PLACE
            || self.waiting >= WAITING_MAX
            || (!host.proven && self.waiting_doubtful >= half);
        if is_full {
            let pause = host.takes / u32::try_from(self.per_host).unwrap_or(1);
            let ahead = pause * u32::try_from(host.waiting.len()).unwrap_or(u32::MAX);
            host.back_until = host.back_until.max(now + ahead.max(BACK_MIN)) + pause;
            // Beyond the most, all come back together; so they are spread.
            let most = BACK_MAX / 2 + BACK_MAX / 2 * (random % 1000) / 1000;
            host.back_until = host.back_until.min(now + BACK_MAX);
            return Err((work, host.back_until.min(now + most)));
        }
        if host.waiting.is_empty() {
            self.turns.push_back(Arc::clone(&work.host));
        }
        self.waiting += 1;
        self.waiting_doubtful += usize::from(!host.proven);
        host.waiting.push_back(work);
        Ok(())
    }

    /// The next job to send, if there is a place for one.
    pub(super) fn next(&mut self) -> Option<Work<W>> {
        if self.sending >= self.places {
            return None;
        }
        for _ in 0..self.turns.len() {
            let key = self.turns.pop_front()?;
            let Some(host) = self.known.get_mut(&key) else { continue };
            let has_place = host.sending < self.per_host && (host.proven || self.sending_doubtful < self.places / 2);
            let work = if has_place { host.waiting.pop_front() } else { None };
            let proven = host.proven;
            host.sending += usize::from(work.is_some());
            if !host.waiting.is_empty() {
                self.turns.push_back(key);
            }
            if let Some(work) = work {
                self.sending += 1;
                self.waiting -= 1;
                if !proven {
                    self.sending_doubtful += 1;
                    self.waiting_doubtful -= 1;
                }
                return Some(work);
            }
        }
        None
    }

    /// A delivery to this host has ended. Answers with what waited for a host that is now left alone, and until when it
    /// goes back to the store.
    pub(super) fn ended(
        &mut self,
        key: &str,
        sign: Sign,
        took: Duration,
        random: u32,
        now: Time,
    ) -> Vec<(Work<W>, Time)> {
        let Some(host) = self.known.get_mut(key) else { return Vec::new() };
        self.sending -= 1;
        self.sending_doubtful -= usize::from(!host.proven);
        host.sending -= 1;
        host.used_at = now;
        let was = host.proven;
        match sign {
            Sign::Well => {
                (host.proven, host.failures, host.dead, host.well_at) = (true, 0, None, Some(now));
                host.takes = (host.takes * 7 + took) / 8;
            }
            Sign::Ill { asked } => {
                host.takes = (host.takes * 7 + took) / 8;
                if let Some(asked) = asked {
                    host.paused_until = host.paused_until.max(now + asked.min(PAUSE_MAX));
                }
                let began = now - took;
                if host.well_at.is_none_or(|well_at| well_at <= began) {
                    host.proven = false;
                    host.failing_since = if host.failures == 0 { began } else { host.failing_since.min(began) };
                    host.failures = host.failures.saturating_add(1);
                }
                let is_row = host.failures >= FAILURES_MAX && now.since(host.failing_since) >= FAILING_MIN;
                if is_row || host.dead.is_some() {
                    let since = host.dead.map_or(now, |(since, _)| since);
                    host.dead = Some((since, now + PROBE_EVERY));
                }
            }
            Sign::None => {}
        }
        // The others on their way count as what the host counts as now.
        if was != host.proven {
            let (sending, waiting) = (host.sending, host.waiting.len());
            if was {
                self.sending_doubtful += sending;
                self.waiting_doubtful += waiting;
            } else {
                self.sending_doubtful -= sending;
                self.waiting_doubtful -= waiting;
            }
        }
        let until = match host.dead {
            Some((_, probe_at)) => probe_at,
            None if now < host.paused_until => host.paused_until,
            None => return Vec::new(),
        };
        let back = std::mem::take(&mut host.waiting);
        self.waiting -= back.len();
        self.waiting_doubtful -= if host.proven { 0 } else { back.len() };
        self.turns.retain(|turn| **turn != *key);
        let step = Duration::from_millis(u64::from(random % 500));
        back.into_iter().zip(1..).map(|(work, number)| (work, until + step * number)).collect()
    }

    /// All that waits, which then waits no more.
    pub(super) fn drain(&mut self) -> Vec<Work<W>> {
        self.turns.clear();
        (self.waiting, self.waiting_doubtful) = (0, 0);
        self.known.values_mut().flat_map(|host| std::mem::take(&mut host.waiting)).collect()
    }

    /// Forgets hosts that nothing is going on with: the one not used for longest first, down to half.
    fn forget_idle(&mut self, now: Time) {
        let mut idle: Vec<(Duration, Arc<str>)> = self
            .known
            .iter()
            .filter(|(_, host)| host.is_idle())
            .map(|(key, host)| (now.since(host.used_at), Arc::clone(key)))
            .collect();
        idle.sort_by(|a, b| b.cmp(a));
        for (_, key) in idle.into_iter().take(HOSTS_MAX / 2) {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
#[path = "hosts_test.rs"]
mod tests;
