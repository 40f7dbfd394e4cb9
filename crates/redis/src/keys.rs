//! The names of all keys, one function each.
//!
//! The keys of a shard share a hash tag, `{<namespace>:<shard>}`, so that every script touches one slot of a cluster.
//! What comes from outside (names, ids, tags) is always a key's last part, so no key can be forged through one; their
//! characters are checked where they enter the service.

use std::fmt::Write as _;

use jobservice_core::job::Status;
use jobservice_core::{JobId, Name, PoolId};

/// The number of the layout of what is stored: raised with each change that an earlier version could not read, or would read
/// wrongly. A store of another one is not opened.
pub(crate) const LAYOUT: u32 = 1;

/// The keys of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    has_pointers: bool,
}

impl Keys {
    /// The keys of shard number `shard` of `count` in a namespace.
    pub(crate) fn new(namespace: &str, shard: usize, count: usize) -> Keys {
        Keys { prefix: format!("{{{namespace}:{shard}}}:"), has_pointers: count > 1 }
    }

    /// Whether ids may have their home in another shard than their job.
    pub(crate) fn has_pointers(&self) -> bool {
        self.has_pointers
    }

    /// What all keys of the shard begin with: given to scripts that make keys of ids they choose.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn of(&self, kind: &str, last: &str) -> String {
        let mut key = String::with_capacity(self.prefix.len() + kind.len() + last.len());
        key.push_str(&self.prefix);
        key.push_str(kind);
        key.push_str(last);
        key
    }

    /// Hash: the record of a job; `h` its header, `b` its body, `r` the rest.
    pub(crate) fn job(&self, id: &JobId) -> String {
        self.of("job:", id.as_str())
    }

    /// Hash: what the pulses of the nodes know of the store: `lua/pulse.lua`.
    pub(crate) fn epoch(&self) -> String {
        self.of("epoch", "")
    }

    /// Hash: the options of names, as [`crate::options`] writes them.
    pub(crate) fn names(&self) -> String {
        self.of("names", "")
    }

    /// Set: names that may have jobs. Tidied up by prune.
    pub(crate) fn known(&self) -> String {
        self.of("known", "")
    }

    /// Set: names that may have Pending jobs. Tidied up by claims.
    pub(crate) fn work(&self) -> String {
        self.of("work", "")
    }

    /// Set: names that may have Running jobs. Tidied up by reap.
    pub(crate) fn busy(&self) -> String {
        self.of("busy", "")
    }

    /// Sorted set: Pending jobs of a name that never crashed; the score is the place in the queue.
    pub(crate) fn ready(&self, name: &Name) -> String {
        self.of("ready:", name.as_str())
    }

    /// Sorted set: the same for those that crashed before.
    pub(crate) fn suspects(&self, name: &Name) -> String {
        self.of("suspects:", name.as_str())
    }

    /// Sorted set: Scheduled jobs by due time.
    pub(crate) fn due(&self) -> String {
        self.of("due", "")
    }

    /// Sorted set: the same of one name.
    pub(crate) fn due_of(&self, name: &Name) -> String {
        self.of("due:", name.as_str())
    }

    /// Sorted set: Running jobs of a name by the next time that the service must look at them.
    pub(crate) fn running(&self, name: &Name) -> String {
        self.of("running:", name.as_str())
    }

    /// Sorted set: the claims of a pool of which jobs still run; the member is their nonce, the score how many. So an extend
    /// sees whether there are runs that it was not told of; a set of all runs would cost each of them a microsecond.
    pub(crate) fn held(&self, pool: &PoolId) -> String {
        self.of("held:", pool.as_str())
    }

    /// Sorted set: final jobs of a status by expiry.
    pub(crate) fn kept(&self, status: Status) -> String {
        self.of("final:", status.as_str())
    }

    /// Sorted set: the jobs of a name by time of submission. All jobs by that time are those of all names together, merged
    /// by who reads them: a set of them would cost each job a microsecond.
    pub(crate) fn by_name(&self, name: &Name) -> String {
        self.of("by_name:", name.as_str())
    }

    /// Sorted set: the jobs with a tag by time of submission.
    pub(crate) fn by_tag(&self, tag: &str) -> String {
        self.of("by_tag:", tag)
    }

    /// Sorted set: the executions (sub jobs) of a job or policy by time of submission, in the shard of the executions.
    pub(crate) fn executions(&self, upstream: &JobId) -> String {
        self.of("executions:", upstream.as_str())
    }

    /// Set: those of them that are not final.
    pub(crate) fn live(&self, upstream: &JobId) -> String {
        self.of("live:", upstream.as_str())
    }

    /// String: the id of the job that holds a unique key.
    pub(crate) fn unique(&self, digest: &[u8; 32]) -> String {
        let mut key = self.of("unique:", "");
        key.reserve(64);
        for byte in digest {
            // Writing to a string does not fail.
            write!(key, "{byte:02x}").ok();
        }
        key
    }

    /// Hash: remembered submissions; the field is `<name> <key>`, the value `<id> <expiry>`.
    pub(crate) fn submissions(&self) -> String {
        self.of("idem", "")
    }

    /// Sorted set: the same fields by expiry.
    pub(crate) fn submissions_due(&self) -> String {
        self.of("idem_due", "")
    }

    /// String: a policy as JSON.
    pub(crate) fn policy(&self, id: &JobId) -> String {
        self.of("policy:", id.as_str())
    }

    /// Sorted set: all policies, each with score 0, so by id.
    pub(crate) fn policies(&self) -> String {
        self.of("policies", "")
    }

    /// Sorted set: active policies by next due time.
    pub(crate) fn policies_due(&self) -> String {
        self.of("policies_due", "")
    }

    /// Hash: schedule key to id of the policy.
    pub(crate) fn schedules(&self) -> String {
        self.of("schedules", "")
    }

    /// Hash: the hook events of a job, by sequence number; `v` rises with each change.
    pub(crate) fn events(&self, id: &JobId) -> String {
        self.of("outbox:", id.as_str())
    }

    /// Sorted set: jobs with waiting events by the turn of the first.
    pub(crate) fn turns(&self) -> String {
        self.of("outbox", "")
    }

    /// Sorted set: the same jobs by the time since when the one of their waiting events waits that must arrive first: its
    /// deadline is counted from then.
    pub(crate) fn waiting_since(&self) -> String {
        self.of("outbox_since", "")
    }

    /// Hash: the numbers of an hour of a name; the field is the minute and a letter.
    pub(crate) fn minutes(&self, hour: i64, name: &str) -> String {
        self.minutes_of(&format!("{hour}:{name}"))
    }

    /// The same by what [`Keys::hours`] says of it.
    pub(crate) fn minutes_of(&self, hour_and_name: &str) -> String {
        self.of("minutes:", hour_and_name)
    }

    /// Sorted set: `<hour>:<name>` for each of these, by the first minute in it, counted from 1970.
    pub(crate) fn hours(&self) -> String {
        self.of("minutes", "")
    }

    /// Hash: nodes as JSON by pool.
    pub(crate) fn nodes(&self) -> String {
        self.of("nodes", "")
    }

    /// String: the number of the shard that has the job or policy of this foreign id (`locate.rs`).
    pub(crate) fn pointer(&self, id: &JobId) -> String {
        self.of("at:", id.as_str())
    }

    /// Hash: how far the log of a job reaches (`logs.rs`).
    pub(crate) fn log(&self, id: &JobId) -> String {
        self.of("log:", id.as_str())
    }

    /// String: the text of a segment of a log.
    pub(crate) fn log_text(&self, segment: u64, id: &JobId) -> String {
        self.of("log_text:", &format!("{segment}:{id}"))
    }

    /// Sorted set: jobs with logs by the last write.
    pub(crate) fn logs(&self) -> String {
        self.of("logs", "")
    }

    /// Sorted set: the same by id.
    pub(crate) fn logs_by_id(&self) -> String {
        self.of("logs_by_id", "")
    }

    /// String: the bytes of all texts of logs.
    pub(crate) fn logs_bytes(&self) -> String {
        self.of("logs_bytes", "")
    }

    /// Set: ids of records that cannot be read.
    pub(crate) fn broken(&self) -> String {
        self.of("broken", "")
    }

    /// Channel: hints of this shard.
    pub(crate) fn wake(&self) -> String {
        self.of("wake", "")
    }
}
