//! The service's log in a backend of the user's own.

use std::io::{self, Write};
use std::sync::Arc;

use jobservice::logger::Level;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::backends::ServiceLog;

/// Hands lines with their levels to a backend.
pub(super) struct OwnLog(Arc<dyn ServiceLog>);

impl OwnLog {
    pub(super) fn new(backend: Arc<dyn ServiceLog>) -> OwnLog {
        OwnLog(backend)
    }

    fn line(&self, level: Level) -> Line<'_> {
        Line { backend: self.0.as_ref(), level }
    }
}

/// The line of one event, which is written whole.
pub(super) struct Line<'a> {
    backend: &'a dyn ServiceLog,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.backend.write(self.level, &String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for OwnLog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        self.line(Level::Info)
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        self.line(match *event.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
        })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(Level, String)>>);

    impl ServiceLog for Kept {
        fn write(&self, level: Level, line: &str) {
            self.0.lock().push((level, line.to_owned()));
        }
    }

    #[test]
    fn a_backend_gets_each_line_whole_with_its_level() {
        let kept = Arc::new(Kept::default());
        let filter = Box::new(tracing_subscriber::EnvFilter::new("info"));
        let lines = super::super::lines(OwnLog::new(Arc::clone(&kept) as Arc<dyn ServiceLog>), true, filter);
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));

        tracing::warn!(job.id = "a", "disk is {}", "full");
        tracing::debug!("nobody asked for this");
        tracing::error!("two");

        let kept = kept.0.lock();
        assert_eq!(kept.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Warning, Level::Error]);
        let line: serde_json::Value = serde_json::from_str(&kept[0].1).unwrap();
        assert_eq!((&line["message"], &line["job.id"]), (&"disk is full".into(), &"a".into()));
        assert!(kept[0].1.ends_with("}\n"), "{:?}", kept[0].1);
    }
}
