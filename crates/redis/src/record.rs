//! Records and outboxes as they are read.

use jobservice_core::job::Job;
use jobservice_core::outbox::JobOutbox;
use jobservice_core::store::Result;
use jobservice_core::{JobId, StoreError};
use redis::Value;
use std::sync::Arc;

use crate::header::{self, Wrong};
use crate::keys::Keys;
use crate::link::{Link, array, text};
use crate::{body, entry};

/// A job with the beginning of its header, which tells whether it is still so.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) seen: String,
    pub(crate) job: Job,
}

impl Record {
    /// Whether this is what the other one was before.
    pub(crate) fn is_before(&self, other: &Record) -> bool {
        let place = |record: &Record| {
            let state = &record.job.state;
            (state.version, state.lease.as_ref().map(|lease| lease.until))
        };
        place(self) < place(other)
    }
}

/// Records asked for at once: an answer holds them all, and each may have some hundred kilobytes.
const READ_MAX: usize = 500;

/// Reads records in the order of their ids: none for those that do not exist, why for those that cannot be read.
pub(crate) async fn read_all(
    link: &Link,
    keys: &Keys,
    ids: &[&JobId],
) -> Result<Vec<std::result::Result<Option<Record>, Wrong>>> {
    let mut records = Vec::with_capacity(ids.len());
    for part in ids.chunks(READ_MAX) {
        let mut pipe = redis::pipe();
        for id in part {
            pipe.cmd("HMGET").arg(keys.job(id)).arg(&["h", "b", "r"]);
        }
        let answers = link.pipe(&pipe, "read").await?;
        for (id, answer) in part.iter().zip(&answers) {
            records.push(read_answer(id, answer)?);
        }
    }
    Ok(records)
}

fn read_answer(id: &JobId, answer: &Value) -> Result<std::result::Result<Option<Record>, Wrong>> {
    Ok(match array(answer)? {
        [Value::Nil, Value::Nil, Value::Nil] => Ok(None),
        fields => read(id, fields).map(Some),
    })
}

/// Reads what has an id: the text of a policy, or the record of a job.
pub(crate) async fn read_or_policy(
    link: &Link,
    keys: &Keys,
    id: &JobId,
) -> Result<(Option<String>, std::result::Result<Option<Record>, Wrong>)> {
    let mut pipe = redis::pipe();
    pipe.cmd("GET").arg(keys.policy(id));
    pipe.cmd("HMGET").arg(keys.job(id)).arg(&["h", "b", "r"]);
    let answers = link.pipe(&pipe, "read").await?;
    let [policy, job] = answers.as_slice() else {
        return Err(StoreError::Damaged { what: "two commands have not two answers".to_owned() });
    };
    Ok((text(policy)?.map(str::to_owned), read_answer(id, job)?))
}

/// Reads a record from its three fields.
pub(crate) fn read(id: &JobId, fields: &[Value]) -> std::result::Result<Record, Wrong> {
    let [head, body, rest] = fields else { return Err("a record has three fields".to_owned()) };
    let string = |what, value| match text(value) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(format!("it has no {what}")),
        Err(error) => Err(format!("its {what}: {error}")),
    };
    let head = string("header", head)?;
    let spec = body::read(string("body", body)?)?;
    let mut state = header::read(head, &spec)?;
    if !matches!(rest, Value::Nil) {
        body::read_rest(string("rest", rest)?, &mut state)?;
    }
    Ok(Record { seen: header::seen(head).to_owned(), job: Job { id: id.clone(), spec: Arc::new(spec), state } })
}

/// The outbox of a job, with its version.
pub(crate) async fn outbox(link: &Link, keys: &Keys, id: &JobId) -> Result<(String, JobOutbox)> {
    let mut get = redis::cmd("HGETALL");
    get.arg(keys.events(id));
    read_outbox(id, &link.send(&get, "read events").await?)
}

/// Reads outboxes in the order of their ids, each with its version: why for those that cannot be read.
pub(crate) async fn outboxes(
    link: &Link,
    keys: &Keys,
    ids: &[&JobId],
) -> Result<Vec<std::result::Result<(String, JobOutbox), Wrong>>> {
    let mut outboxes = Vec::with_capacity(ids.len());
    for part in ids.chunks(READ_MAX) {
        let mut pipe = redis::pipe();
        for id in part {
            pipe.cmd("HGETALL").arg(keys.events(id));
        }
        let answers = link.pipe(&pipe, "read events").await?;
        for (id, answer) in part.iter().zip(&answers) {
            outboxes.push(read_outbox(id, answer).map_err(|error| error.to_string()));
        }
    }
    Ok(outboxes)
}

/// Reads an outbox from the answer to `HGETALL`.
pub(crate) fn read_outbox(id: &JobId, answer: &Value) -> Result<(String, JobOutbox)> {
    let mut version = String::new();
    let mut entries = Vec::new();
    for (field, value) in pairs(answer)? {
        let (Some(field), Some(value)) = (text(field)?, text(value)?) else { continue };
        if field == "v" {
            value.clone_into(&mut version);
            continue;
        }
        let damaged = |what| StoreError::Damaged { what };
        let seq = field.parse().map_err(|_| damaged(format!("{field:?} is no number of an event of job {id}")))?;
        entries.push(entry::read(id, seq, value).map_err(damaged)?);
    }
    entries.sort_by_key(|entry| entry.event.seq);
    Ok((version, JobOutbox::new(entries)))
}

/// The fields of a hash with their values, in the answer to `HGETALL`.
pub(crate) fn pairs(answer: &Value) -> Result<Vec<(&Value, &Value)>> {
    Ok(match answer {
        Value::Map(pairs) => pairs.iter().map(|(field, value)| (field, value)).collect(),
        other => array(other)?.chunks_exact(2).filter_map(|pair| pair.first().zip(pair.get(1))).collect(),
    })
}

/// An id in an answer; none if it is nil.
pub(crate) fn id(value: &Value) -> Result<Option<JobId>> {
    let Some(text) = text(value)? else { return Ok(None) };
    JobId::new(text).map(Some).map_err(|error| StoreError::Damaged { what: error.to_string() })
}
