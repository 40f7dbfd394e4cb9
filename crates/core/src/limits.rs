//! Every bound of the domain in one place, each with its reason. Bounds of HTTP live beside the routes.

use std::time::Duration;

/// How many runs of a job may fail when it does not say (`max_fails` 0): the original's default.
pub const MAX_FAILS_DEFAULT: u32 = 4;

/// The most runs that a job may ask for. With the default backoff the hundredth retry would be years away.
pub const MAX_FAILS_MAX: u32 = 100;

/// A job whose worker died this often is taken for a poison job and ends in Error: it may be what kills them.
pub const CRASHES_MAX: u32 = 3;

/// How long a job waits after its second crash. The first time it goes back at once: most crashes are deploys.
pub const CRASH_DELAY: Duration = Duration::from_secs(10);

/// Releases (a shutdown gave the job back) that are free; past these each counts as a failure, so that a job that
/// outlives every deploy ends at some time.
pub const RELEASES_MAX: u32 = 10;

/// How many attempts a record remembers.
pub const ATTEMPTS_KEPT: usize = 10;

/// How long a lease lasts, and with it how long a job stays stuck after its node was killed, at the most.
pub const LEASE: Duration = Duration::from_secs(10);

/// How often a pool extends its leases: three chances before one is lost.
pub const EXTEND_EVERY: Duration = Duration::from_secs(3);

/// How long a running job has to obey a stop, a cancel, or its timeout.
pub const GRACE: Duration = Duration::from_secs(30);

/// How long running jobs have to end at shutdown. Below the 30 s after which container runtimes kill.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// The longest grace that can be configured: who waits an hour for a job to obey has forgotten what for.
pub const GRACE_SECONDS_MAX: u64 = 3600;

/// Jobs at once in one process, at most: each may be a thread, and their leases are extended in one call.
pub const WORKERS_MAX: u32 = 10_000;

/// Priorities go from 0 (default) to this, higher first.
pub const PRIORITY_MAX: u8 = 9;

/// A name's share of the workers: 1 to 10,000.
pub const WEIGHT_DEFAULT: u32 = 1000;
/// The largest weight.
pub const WEIGHT_MAX: u32 = 10_000;

/// The largest parameters of a job, as JSON text. SQS's limit for years; larger inputs belong in a store of their own.
pub const PARAMETERS_BYTES_MAX: usize = 256 * 1024;

/// How deep arrays and objects of parameters may be nested. Beneath the 128 that serde_json reads, so that what was
/// accepted can be parsed anywhere, and far above what people write.
pub const JSON_DEPTH_MAX: usize = 64;

/// A check-in message is cut to this.
pub const CHECK_IN_BYTES_MAX: usize = 4 * 1024;

/// An error message is cut to this.
pub const ERROR_BYTES_MAX: usize = 16 * 1024;

/// The largest result of a job, as JSON text.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;

/// Tags per job, and bytes per tag.
pub const TAGS_MAX: usize = 16;
/// Bytes per tag.
pub const TAG_BYTES_MAX: usize = 128;

/// Bytes of a hook's URL.
pub const HOOK_BYTES_MAX: usize = 2048;

/// Bytes of an idempotency key, a unique key or a schedule key.
pub const KEY_BYTES_MAX: usize = 256;

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How long the service tries to deliver a hook event.
pub const HOOK_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Settled hook events kept of a job, to be looked at and sent again. A job that fails and is retried as often as it may
/// by default has fewer.
pub const HOOK_EVENTS_KEPT: usize = 20;

/// How long one delivery of a hook event may take, from the look-up of the name to the end of the answer.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that this can be set to: receivers that need longer should answer first and work then.
pub const HOOK_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// How long who takes the events of a job keeps others off them, and so how long they wait after a crash of who took
/// them: as long as two deliveries and a while of waiting for a free place.
pub const fn hook_hold(timeout: Duration) -> Duration {
    Duration::from_secs(2 * timeout.as_secs() + 10)
}

/// How long after its end a run may still send lines for the job's log: the last lines are often on their way then.
pub const LATE_LOG: Duration = Duration::from_secs(60);

/// Bytes kept of a job's log; past these its middle is dropped and the cut marked.
pub const LOG_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of one log line; longer ones are cut.
pub const LOG_LINE_BYTES_MAX: usize = 64 * 1024;

/// Backends of one log, at most: each gets every line.
pub const LOG_BACKENDS_MAX: usize = 16;

/// The most days that a log can be told to stay: ten years.
pub const LOG_DAYS_MAX: u64 = 3660;

/// Bytes of one file of the service's own log: from what holds more than a page of lines to what an editor still opens.
pub const SERVICE_LOG_BYTES: (u64, u64) = (64 * 1024, 1024 * 1024 * 1024);
/// Bytes of one file of the service's own log unless the configuration says otherwise.
pub const SERVICE_LOG_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Old files of the service's own log that are kept: each rotation renames all of them.
pub const SERVICE_LOG_FILES: (u64, u64) = (0, 1000);
/// Old files kept unless the configuration says otherwise: with those of the default size half a gigabyte.
pub const SERVICE_LOG_FILES_DEFAULT: u32 = 8;

/// How long properties fetched from `core_server` are used before they are fetched again: the delay after which a change
/// there reaches jobs.
pub const PROPERTIES_KEPT: Duration = Duration::from_secs(60);

/// Bytes of one answer with properties; a system's configuration has some kilobytes.
pub const PROPERTIES_BYTES_MAX: usize = 1024 * 1024;

/// How far into the future a job may be delayed: about ten years.
pub const DELAY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The longest timeout of a job.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Jobs per `insert` call.
pub const INSERT_MAX: usize = 10_000;

/// Jobs per page of a list.
pub const LIST_MAX: usize = 1000;

/// Bytes of the jobs of one page, about: past these it is short and has a cursor, so that a thousand large jobs are not in
/// memory at once, and once more as the text of an answer.
pub const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows that a filter without an index may look at per page; past these the page is short and has a cursor.
pub const SCAN_MAX: usize = 10_000;

/// How many executions of one job or policy are counted, and passed over to reach a page: a day of ticks each second.
/// Counting them takes a few milliseconds; numbers of pages beyond say nothing to anybody.
pub const EXECUTIONS_COUNTED_MAX: usize = 100_000;

/// Policies that are read at once by who fires them: a page takes a few milliseconds and a few megabytes.
pub const POLICIES_PAGE: usize = 1000;

/// Ticks that are fired at the same time: they share commits. As many calls as a store takes in at once without making
/// others wait.
pub const FIRES_AT_ONCE: usize = 128;

/// How many times a preview of a schedule shows at the most.
pub const PREVIEW_MAX: usize = 10;

/// Bytes of the text that a list looks for.
pub const TEXT_BYTES_MAX: usize = 256;

/// Jobs per `act` call, that is in one transaction: about 5 ms of the writer, so that whoever submits or claims beside a
/// bulk action does not notice it.
pub const ACT_MAX: usize = 200;

/// Jobs of a batch that are inserted in one transaction, for the same reason.
pub const BATCH_INSERT_MAX: usize = 500;

/// Jobs that a sweep removes in one transaction, for the same reason: removing costs more than inserting. As many times more
/// of a store that is far away as it has rounds ([`crate::Store::rounds`]).
pub const PRUNE_MAX: usize = 250;

/// Bytes that jobs may take on the disk before final ones go ahead of their time. Room for about two million small jobs.
pub const STORE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// For how long the numbers of each minute are kept: a week, which is what a chart of the last days needs.
pub const MINUTES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How deep a waiting job's position is counted.
pub const POSITION_MAX: usize = 1000;

/// The most executions that `misfire: all` makes up for.
pub const MISFIRE_ALL_MAX: usize = 100;

/// From when on a tick counts as missed. Far above the lateness of a busy node, and short enough that nobody who asked
/// for `misfire: skip` gets last night's run at noon.
pub const MISFIRE_AFTER: Duration = Duration::from_secs(60);

/// How many ticks missed in a row are counted: a day of ticks each ten seconds. Bounds the work after a long outage.
pub const MISFIRE_COUNTED_MAX: usize = 10_000;

/// Bytes of a cron text: the longest list of all minutes and hours fits.
pub const CRON_BYTES_MAX: usize = 512;

/// How long a beat keeps a node among the living.
pub const NODE_DEAD_AFTER: Duration = Duration::from_secs(15);

/// How long a dead node is still listed.
pub const NODE_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Cuts `text` to at most `bytes_max` bytes at a character's edge and marks the cut.
pub fn cut(text: &str, bytes_max: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    const MARK: &str = "… [cut]";
    let mut end = bytes_max.saturating_sub(MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", text.get(..end).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn cut_keeps_short_text_and_never_splits_a_character() {
        assert_eq!(cut("short", 16), "short");
        let cut = cut("ääääääääääääääääää", 20);
        assert!(cut.len() <= 20 && cut.ends_with("… [cut]"), "{cut}");
    }
}
