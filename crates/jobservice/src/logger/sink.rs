//! A backend together with what the service knows of it: threshold, rule for sweeping, and how ill it is.

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::Time;
use parking_lot::Mutex;

use super::{Level, LogBackend, LogError, SweepRule};

/// How long a backend that goes on failing is not reported again.
const REPORT_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Sink {
    pub(super) backend: Arc<dyn LogBackend>,
    pub(super) level: Level,
    pub(super) rule: SweepRule,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    /// When its failing was last reported; none while it is well.
    reported_at: Option<Time>,
    /// Lines lost since that report.
    lost: u64,
}

impl Sink {
    pub(super) fn new(backend: Arc<dyn LogBackend>) -> Sink {
        Sink { backend, level: Level::default(), rule: SweepRule::default(), health: Mutex::default() }
    }

    /// Notes how a batch went: reports the first failure at once, further ones once a minute, and the recovery.
    pub(super) fn report(&self, failed: Option<(u64, LogError)>, now: Time) {
        let name = self.backend.name();
        let mut health = self.health.lock();
        let Some((lines, error)) = failed else {
            if health.reported_at.take().is_some() {
                health.lost = 0;
                drop(health);
                tracing::info!(log.backend = name, "job logs are written to {name} again");
            }
            return;
        };
        health.lost += lines;
        let is_due = health.reported_at.is_none_or(|at| now.since(at) >= REPORT_EVERY);
        if !is_due {
            return;
        }
        health.reported_at = Some(now);
        let lost = std::mem::take(&mut health.lost);
        drop(health);
        let error: &dyn std::error::Error = &error;
        tracing::warn!(log.backend = name, lines = lost, error, "{lost} job log lines lost: cannot write to {name}");
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;
    use crate::logger::StdOutput;

    /// The levels of the events that it sees.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<tracing::Level>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().push(*event.metadata().level());
        }
    }

    #[test]
    fn failing_backend_is_reported_once_a_minute_and_when_it_recovers() {
        let seen = Seen::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(seen.clone()));
        let sink = Sink::new(Arc::new(StdOutput::to(Box::new(std::io::sink())).unwrap()));
        let start = Time::from_seconds(1_767_614_400);
        sink.report(None, start);
        for second in 0..150 {
            sink.report(Some((1, LogError::Busy)), start + Duration::from_secs(second));
        }
        assert_eq!(*seen.0.lock(), vec![tracing::Level::WARN; 3]);

        sink.report(None, start + Duration::from_secs(151));
        sink.report(None, start + Duration::from_secs(152));
        sink.report(Some((1, LogError::Busy)), start + Duration::from_secs(153));
        let seen = seen.0.lock();
        assert_eq!(seen[3..], [tracing::Level::INFO, tracing::Level::WARN]);
    }
}
