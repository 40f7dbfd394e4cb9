//! Panics of jobs: caught, and told with message, place and backtrace.
//!
//! A panic can be caught without a hook, but only a hook sees where it happened. Ours is put in front of whatever hook
//! there is, once for the process, and looks only at threads that are inside a job's code; the earlier hook is called in
//! any case, so that crash reporters of the user keep working.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panic {
    /// "panicked at src/resize.rs:12:9: index out of bounds".
    pub(crate) message: String,
    /// Where it came from; empty if our hook was replaced.
    pub(crate) backtrace: String,
}

thread_local! {
    /// How many calls of [`caught`] this thread is within.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Puts our hook in front of the present one. Only the first call does anything.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() > 0 {
                LAST.set(Some(describe(info)));
            }
            previous(info);
        }));
    });
}

/// Calls `code` and catches its panic.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, Panic> {
    DEPTH.set(DEPTH.get() + 1);
    // What a panic leaves behind is dropped with the run or read only by user code that asked for it (a lock of the
    // standard library says that it is poisoned), hence the assertion.
    let ended = panic::catch_unwind(AssertUnwindSafe(code));
    DEPTH.set(DEPTH.get() - 1);
    ended.map_err(|payload| {
        LAST.take().unwrap_or_else(|| Panic {
            message: format!("panicked: {}", text(payload.as_ref())),
            backtrace: String::new(),
        })
    })
}

fn describe(info: &PanicHookInfo<'_>) -> Panic {
    let at = info.location().map_or_else(String::new, |location| format!(" at {location}"));
    Panic {
        message: format!("panicked{at}: {}", text(info.payload())),
        backtrace: Backtrace::force_capture().to_string(),
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("not with a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caught_panic_tells_its_message_place_and_backtrace() {
        install_hook();

        let panic = caught(|| panic!("no {}", "pixels")).unwrap_err();

        let Panic { message, .. } = &panic;
        assert!(message.starts_with("panicked at ") && message.contains("panics.rs:"), "{message}");
        assert!(message.ends_with(": no pixels"), "{message}");
        assert!(panic.backtrace.contains("caught_panic_tells"), "{}", panic.backtrace);
        assert_eq!(caught(|| 5).unwrap(), 5);
    }
}
