//! `tracing` events inside a running job go to its log.
//!
//! The run in whose code we are is a task-local: set around each poll of the job's future ([`scope`]) or around a call on
//! a thread of its own ([`scope_sync`]). Work that a job spawns leaves its scope; [`in_current_scope`] takes it along.
//! Events outside of jobs are none of this layer's business. The flusher runs on a thread of its own, outside of every
//! scope, so what it reports never comes back as lines.

use std::fmt::{self, Write as _};
use std::future::Future;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::{JobLog, Level};

tokio::task_local! {
    static CURRENT: JobLog;
}

/// Runs a future inside a job: its `tracing` events go to `log`.
pub async fn scope<F: Future>(log: JobLog, future: F) -> F::Output {
    CURRENT.scope(log, future).await
}

/// Calls `f` inside a job: its `tracing` events go to `log`. For code that blocks, and for a single poll.
pub fn scope_sync<T>(log: JobLog, f: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(log, f)
}

/// The log of the job in whose code this is called, if it is.
pub fn current() -> Option<JobLog> {
    CURRENT.try_with(Clone::clone).ok()
}

/// A future that stays inside the job that made it, to be spawned: `tokio::spawn(in_current_scope(work))`.
pub fn in_current_scope<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let log = current().unwrap_or(JobLog::disabled());
    CURRENT.scope(log, future)
}

/// The layer that takes the events of running jobs to their logs, up to `DEBUG`. To be added to a `tracing_subscriber`
/// registry beside the others; it takes nothing from them.
pub fn layer<S>() -> Filtered<JobLogLayer, InsideJob, S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    JobLogLayer.with_filter(InsideJob)
}

/// Writes events to the log of the job that they happen in. See [`layer()`], which adds the filter that it needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobLogLayer;

/// Lets events pass that happen inside a job whose log keeps lines of their level.
#[derive(Clone, Copy, Debug, Default)]
pub struct InsideJob;

impl<S> Filter<S> for InsideJob {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        // Spans are not for us, but those of other layers must not be judged by where we are when they are made.
        metadata.is_event()
            && *metadata.level() <= tracing::Level::DEBUG
            && CURRENT.try_with(|log| log.is_enabled(level_of(metadata))).unwrap_or(false)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && *metadata.level() <= tracing::Level::DEBUG {
            // Depends on where the code runs, every time anew.
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}

impl<S: Subscriber> Layer<S> for JobLogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(log) = current() else { return };
        let metadata = event.metadata();
        let mut text = EventText::default();
        event.record(&mut text);
        log.line(level_of(metadata), text);
    }
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// The message of an event, then its fields: `copied the image size=12 target="a"`.
#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            put(&mut self.message, format_args!("{value:?}"));
        } else {
            put(&mut self.fields, format_args!(" {}={value:?}", field.name()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        put(&mut self.fields, format_args!(" {}={value}", field.name()));
        let mut source = value.source();
        while let Some(cause) = source {
            put(&mut self.fields, format_args!(": {cause}"));
            source = cause.source();
        }
    }
}

/// As `format!`, which would panic where a value's own formatting fails.
fn put(out: &mut String, text: fmt::Arguments<'_>) {
    if out.write_fmt(text).is_err() {
        out.push_str("[the rest could not be formatted]");
    }
}

impl fmt::Display for EventText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        f.write_str(if self.message.is_empty() { self.fields.trim_start() } else { &self.fields })
    }
}
