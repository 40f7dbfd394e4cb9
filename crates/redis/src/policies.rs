//! People and the maintenance look at policies: which there are, which are due, when the next one is.

use jobservice_core::policy::Policy;
use jobservice_core::store::{PolicyQuery, Result};
use jobservice_core::{JobId, Time};
use redis::Cmd;

use crate::due::{earliest, scored};
use crate::link::{array, text};
use crate::policy::Stored;
use crate::store::{RedisStore, Shard};
use crate::work::ids;

/// Policies asked for at once.
const READ_MAX: usize = 500;

impl RedisStore {
    /// The policies that a query asks for.
    pub(crate) async fn list_policies(&self, query: &PolicyQuery) -> Result<Vec<Policy>> {
        let mut found = Vec::new();
        match (&query.id, &query.schedule_key) {
            (Some(id), _) => {
                let shard = self.shard_with(id).await?;
                found.extend(read(shard, vec![id.clone()], query).await?);
            }
            (None, Some(key)) => {
                if let Some((shard, id)) = self.find_schedule(key).await? {
                    found.extend(read(shard, vec![id], query).await?);
                }
            }
            (None, None) => {
                for shard in &self.shards {
                    found.extend(walk(shard, query).await?);
                }
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.truncate(query.limit);
        Ok(found)
    }

    /// When the next active policy is due after this.
    pub(crate) async fn next_policy_due(&self, after: Time) -> Result<Option<Time>> {
        let mut next_at = None;
        for shard in &self.shards {
            let mut get = redis::cmd("ZRANGEBYSCORE");
            get.arg(shard.keys.policies_due()).arg(format!("({}", after.as_millis())).arg("+inf");
            get.arg("WITHSCORES").arg("LIMIT").arg(&[0, 1]);
            let first = scored(&shard.link.send(&get, "look for due policies").await?)?;
            next_at = earliest(next_at, first.first().map(|(at, _)| Time::from_millis(*at)));
        }
        Ok(next_at)
    }
}

/// Those of a shard that a query asks for, up to its limit: its policies in the order of their ids until there are
/// enough.
async fn walk(shard: &Shard, query: &PolicyQuery) -> Result<Vec<Policy>> {
    let mut found: Vec<Policy> = Vec::new();
    if let Some(by) = query.due_by {
        // Sorted here: those that are due are few, and an order by id would make a walk of all the rest.
        let mut get = redis::cmd("ZRANGEBYSCORE");
        get.arg(shard.keys.policies_due()).arg("-inf").arg(by.as_millis());
        let mut due = ids(&shard.link.send(&get, "look for due policies").await?)?;
        due.retain(|id| query.after.as_ref().is_none_or(|after| id > after));
        due.sort_unstable();
        for part in due.chunks(READ_MAX) {
            if found.len() >= query.limit {
                break;
            }
            found.extend(read(shard, part.to_vec(), query).await?);
        }
        return Ok(found);
    }
    let mut after = query.after.clone();
    while found.len() < query.limit {
        let part = ids(&shard.link.send(&page(shard, after.as_ref()), "list policies").await?)?;
        let Some(last) = part.last() else { break };
        after = Some(last.clone());
        found.extend(read(shard, part, query).await?);
    }
    Ok(found)
}

fn page(shard: &Shard, after: Option<&JobId>) -> Cmd {
    let mut get = redis::cmd("ZRANGEBYLEX");
    let from = after.map(|after| format!("({after}"));
    get.arg(shard.keys.policies()).arg(from.as_deref().unwrap_or("-")).arg("+");
    get.arg("LIMIT").arg(0).arg(READ_MAX);
    get
}

/// Reads those of these policies that a query means. One that cannot be read must not hold up the others that are due.
async fn read(shard: &Shard, ids: Vec<JobId>, query: &PolicyQuery) -> Result<Vec<Policy>> {
    let mut get = redis::cmd("MGET");
    for id in &ids {
        get.arg(shard.keys.policy(id));
    }
    let answer = shard.link.send(&get, "read policies").await?;
    let mut policies = Vec::new();
    for (id, answer) in ids.iter().zip(array(&answer)?) {
        let Some(text) = text(answer)? else { continue };
        match Stored::read(id, text.to_owned()) {
            Ok(stored) => policies.push(stored.into_policy()),
            Err(error) if query.due_by.is_some() => {
                tracing::error!(policy.id = %id, "policy {id} cannot be read and does not fire: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    // Looked at once more: a policy may have changed after the set that named it was read.
    policies.retain(|policy| is_meant(policy, query));
    Ok(policies)
}

fn is_meant(policy: &Policy, query: &PolicyQuery) -> bool {
    let PolicyQuery { id, schedule_key, due_by, after, limit: _ } = query;
    let is_due = |by: Time| policy.is_active() && policy.state.next_due.is_some_and(|due| due <= by);
    id.as_ref().is_none_or(|id| policy.id == *id)
        && (schedule_key.is_none() || policy.spec.schedule_key == *schedule_key)
        && after.as_ref().is_none_or(|after| policy.id > *after)
        && due_by.is_none_or(is_due)
}
