//! Hints between nodes, over a channel: what a step on one node means to the others.
//!
//! A hint is sent within the step, and only if somebody may need it: whose jobs become ready may be anybody's; that a run
//! has made room matters only where its name has a limit; which jobs changed, only while a node says that somebody there
//! watches any; hook events, only if this node does not deliver them itself. A hint may be lost, so nothing waits for one
//! alone.
//!
//! The text: `<node> <letters>`, then a line for each signal, then one with the jobs that changed.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jobservice_core::job::{LeaseKey, Signal};
use jobservice_core::notices::{Notices, SignalNotice};
use jobservice_core::{JobId, Name, PoolId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::link::now;
use crate::view::View;
use crate::work::News;

/// How often a node with watchers says so.
const WATCH_EVERY: Duration = Duration::from_secs(10);

/// For how long it is believed: three of its words may be lost.
const WATCH_HEARD: Duration = Duration::from_secs(30);

/// For how long a node that has taken hook events counts as one that delivers them.
const DELIVERS_FOR: Duration = Duration::from_secs(5);

/// Jobs named in one hint; who watches one of the others looks later.
const CHANGED_MAX: usize = 500;

/// What a node tells the others, and hears from them.
pub(crate) struct Wake {
    notices: Arc<Notices>,
    pub(crate) view: View,
    /// Who speaks: what a node hears from itself it has told itself already.
    node: String,
    /// Names that have a limit, as far as claims here know.
    limited: Mutex<HashSet<Name>>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Until when others are told which jobs changed.
    watchers_until: Option<Instant>,
    /// When we last said that somebody watches here.
    watched_at: Option<Instant>,
    /// When this node last took hook events to deliver.
    delivered_at: Option<Instant>,
}

/// What one node heard from another.
#[derive(Debug, Default)]
pub(crate) struct Hint {
    pub(crate) news: News,
    /// Somebody there watches jobs.
    pub(crate) watches: bool,
}

impl Wake {
    pub(crate) fn new(notices: Arc<Notices>, view: View) -> Wake {
        // Two nodes of the same number would miss each other's hints until the next look: no more than a loss.
        let node = format!("{:x}", getrandom::u64().unwrap_or(0));
        Wake { notices, view, node, limited: Mutex::default(), heard: Mutex::default() }
    }

    /// What the others are told of a step, if anything.
    pub(crate) fn message(&self, news: &News) -> Option<String> {
        let room = !news.freed.is_empty() && {
            let limited = self.limited.lock();
            news.freed.iter().any(|name| limited.contains(name))
        };
        let (watched, delivers) = {
            let (heard, now) = (self.heard.lock(), now());
            let delivers = heard.delivered_at.is_some_and(|at| now - at < DELIVERS_FOR);
            (heard.watchers_until.is_some_and(|until| now < until), delivers)
        };
        let changed: &[JobId] = if watched { news.changed.get(..CHANGED_MAX).unwrap_or(&news.changed) } else { &[] };
        let letters: String =
            [('r', news.ready || room), ('e', news.events && !delivers), ('p', news.policies), ('x', news.executions)]
                .into_iter()
                .filter_map(|(letter, is_told)| is_told.then_some(letter))
                .collect();
        if letters.is_empty() && changed.is_empty() && news.signals.is_empty() {
            return None;
        }
        let mut message = format!("{} {letters}", self.node);
        for SignalNotice { pool, lease, signal } in &news.signals {
            let signal = if *signal == Signal::Stop { "stop" } else { "cancel" };
            // Writing to a string does not fail.
            write!(message, "\ns {pool} {} {} {} {signal}", lease.id, lease.attempt, lease.nonce).ok();
        }
        if !changed.is_empty() {
            message.push_str("\nc");
            for id in changed {
                message.push(' ');
                message.push_str(id.as_str());
            }
        }
        Some(message)
    }

    /// What a node whose jobs are watched says now and then; none if it is not time, or nobody watches.
    pub(crate) fn watches(&self) -> Option<String> {
        if !self.notices.has_watchers() {
            return None;
        }
        let (mut heard, now) = (self.heard.lock(), now());
        if heard.watched_at.is_some_and(|at| now - at < WATCH_EVERY) {
            return None;
        }
        heard.watched_at = Some(now);
        Some(format!("{} w", self.node))
    }

    /// A step of this node was carried out: what was seen before it does not count any more.
    pub(crate) fn committed(&self, news: &News) {
        self.view.outdated(news);
    }

    /// Whether a node said lately that somebody watches jobs there.
    pub(crate) fn is_watched(&self) -> bool {
        self.heard.lock().watchers_until.is_some_and(|until| now() < until)
    }

    /// Takes what came over the channel, and tells it within this process.
    pub(crate) fn receive(&self, message: &str) {
        let Some(hint) = self.read(message) else { return };
        if hint.watches {
            self.heard.lock().watchers_until = Some(now() + WATCH_HEARD);
        }
        self.view.outdated(&hint.news);
        hint.news.tell(&self.notices);
    }

    /// Hints may have been missed: everybody looks for themselves. Signals come with the next extend.
    pub(crate) fn missed(&self) {
        let news = News { ready: true, events: true, policies: true, executions: true, ..News::default() };
        self.view.outdated(&news);
        self.notices.tell_watchers();
        news.tell(&self.notices);
    }

    /// Notes whether a name has a limit: if it has, others wait for its runs to end.
    pub(crate) fn limit(&self, name: &Name, is_limited: bool) {
        let mut limited = self.limited.lock();
        if !is_limited {
            limited.remove(name);
        } else if !limited.contains(name) {
            limited.insert(name.clone());
        }
    }

    /// This node takes hook events, so no other need be told of its own.
    pub(crate) fn delivers(&self) {
        self.heard.lock().delivered_at = Some(now());
    }

    /// Reads a message of another node; none if it is one's own, or cannot be read, as one of a later version.
    fn read(&self, message: &str) -> Option<Hint> {
        let mut lines = message.split('\n');
        let (node, letters) = lines.next()?.split_once(' ')?;
        if node == self.node {
            return None;
        }
        let mut hint = Hint { watches: letters.contains('w'), ..Hint::default() };
        let news = &mut hint.news;
        news.ready = letters.contains('r');
        news.events = letters.contains('e');
        news.policies = letters.contains('p');
        news.executions = letters.contains('x');
        for line in lines {
            let mut words = line.split(' ');
            match words.next() {
                Some("s") => news.signals.extend(signal(&mut words)),
                Some("c") => news.changed.extend(words.filter_map(|id| JobId::new(id).ok())),
                _ => {}
            }
        }
        Some(hint)
    }
}

fn signal<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<SignalNotice> {
    let pool = PoolId::new(words.next()?).ok()?;
    let id = JobId::new(words.next()?).ok()?;
    let lease = LeaseKey { id, attempt: words.next()?.parse().ok()?, nonce: words.next()?.parse().ok()? };
    let signal = match words.next()? {
        "stop" => Signal::Stop,
        "cancel" => Signal::Cancel,
        _ => return None,
    };
    Some(SignalNotice { pool, lease, signal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake() -> Wake {
        Wake::new(Arc::default(), View::new(Duration::ZERO, 1))
    }

    fn id(text: &str) -> JobId {
        JobId::new(text).unwrap()
    }

    #[test]
    fn what_is_told_is_heard_by_others_and_not_by_oneself() {
        let (here, there) = (wake(), wake());
        let lease = LeaseKey { id: id("job-00001"), attempt: 3, nonce: u64::MAX };
        let notice = SignalNotice { pool: PoolId::incarnation("p", 7).unwrap(), lease, signal: Signal::Stop };
        let news = News { ready: true, executions: true, signals: vec![notice.clone()], ..News::default() };

        let message = here.message(&news).unwrap();
        let heard = there.read(&message).unwrap().news;

        assert!(here.read(&message).is_none());
        assert!(heard.ready && heard.executions && !heard.events && !heard.policies);
        let [signal] = heard.signals.as_slice() else { panic!("{heard:?}") };
        assert_eq!((&signal.pool, &signal.lease, signal.signal), (&notice.pool, &notice.lease, Signal::Stop));
    }

    #[test]
    fn what_nobody_needs_is_not_told() {
        let (here, there) = (wake(), wake());
        let name = Name::new("resize").unwrap();
        let ended = News { freed: vec![name.clone()], changed: vec![id("job-00001")], ..News::default() };
        assert_eq!(here.message(&ended), None);

        here.limit(&name, true);
        let hint = there.read(&here.message(&ended).unwrap()).unwrap();
        assert!(hint.news.ready && hint.news.changed.is_empty());
        here.limit(&name, false);

        here.receive(&format!("{} w", there.node));
        let hint = there.read(&here.message(&ended).unwrap()).unwrap();
        assert_eq!(hint.news.changed, [id("job-00001")]);

        let event = News { events: true, ..News::default() };
        assert!(here.message(&event).is_some());
        here.delivers();
        assert_eq!(here.message(&event), None);
    }

    #[test]
    fn a_node_says_now_and_then_that_somebody_watches() {
        let here = wake();
        assert_eq!(here.watches(), None);
        let _watch = here.notices.watch(&id("job-00001"));
        assert!(here.watches().is_some());
        assert_eq!(here.watches(), None);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let here = wake();
        for message in ["", "x", "x r\ns", "x r\ns p/1 short 1 1 stop", "x r\nz later version\nc ../../etc"] {
            if let Some(hint) = here.read(message) {
                assert!(hint.news.signals.is_empty() && hint.news.changed.is_empty(), "{message}");
            }
        }
    }
}
