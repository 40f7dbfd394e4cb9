//! Notices when a thread of the service ends that should not: without it jobs would wait for ever while all looks well.

use std::sync::Arc;

use tokio::sync::watch;

/// The reason why the service can do no more work, once there is one.
pub(crate) type Fatal = watch::Sender<Option<Arc<str>>>;

/// Held by a thread: dropped before [`Watchdog::done`], by a panic or otherwise, it says that the service cannot go on.
pub(crate) struct Watchdog {
    fatal: Option<Fatal>,
    what: &'static str,
}

impl Watchdog {
    /// `what` ends with the thread: "the fetcher".
    pub(crate) fn new(fatal: Fatal, what: &'static str) -> Watchdog {
        Watchdog { fatal: Some(fatal), what }
    }

    /// The thread ends as it should.
    pub(crate) fn done(mut self) {
        self.fatal = None;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let Some(fatal) = &self.fatal else { return };
        let reason = format!("{} of the service ended unexpectedly", self.what);
        tracing::error!("{reason}: no jobs run any more, the process has to be restarted");
        // The first reason stands.
        fatal.send_if_modified(|fatal| {
            let is_first = fatal.is_none();
            fatal.get_or_insert_with(|| reason.into());
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_too_early_is_told_of_and_one_that_is_done_is_not() {
        let fatal = Fatal::new(None);
        Watchdog::new(fatal.clone(), "the keeper").done();
        assert_eq!(*fatal.borrow(), None);

        let watchdog = Watchdog::new(fatal.clone(), "the fetcher");
        let thread = std::thread::spawn(move || {
            let _watchdog = watchdog;
            std::panic::panic_any("on purpose");
        });
        assert!(thread.join().is_err());

        assert_eq!(fatal.borrow().as_deref(), Some("the fetcher of the service ended unexpectedly"));
    }
}
