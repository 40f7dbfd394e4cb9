//! Pools take jobs: `lua/claim.lua` does it, this asks it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jobservice_core::job::Job;
use jobservice_core::share::{self, Share};
use jobservice_core::store::{Claim, NameAsk, NameOptions, Result};
use jobservice_core::{JobId, Name, StoreError, Time};
use redis::Value;

use crate::header;
use crate::link::{self, array, text, unexpected};
use crate::record;
use crate::script::CLAIM;
use crate::store::{RedisStore, Shard};
use crate::work::hour_and_minute;

/// Names told to a script with each claim. A pool of more looks first which of them have work.
const NAMES_MAX: usize = 16;

/// An operator's options of a name as they are stored: `paused limit weight`.
pub(crate) fn write_options(options: &NameOptions) -> String {
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    format!("{} {} {}", u8::from(options.paused), number(options.max_concurrency), number(options.weight))
}

/// Reads them; no text means that nobody said anything.
pub(crate) fn read_options(text: &str) -> Result<NameOptions> {
    if text.is_empty() {
        return Ok(NameOptions::default());
    }
    let fields: Vec<&str> = text.split(' ').collect();
    let damaged = || StoreError::Damaged { what: format!("{text:?} are no options of a name") };
    let [paused, limit, weight] = fields.as_slice() else { return Err(damaged()) };
    let number = |field: &str| match field {
        "-" => Ok(None),
        number => number.parse().map(Some).map_err(|_| damaged()),
    };
    Ok(NameOptions { paused: *paused == "1", max_concurrency: number(limit)?, weight: number(weight)? })
}

/// A name as a script is asked for it.
pub(crate) struct Asked {
    pub(crate) name: Name,
    /// What it gives in the first round.
    pub(crate) part: u32,
    pub(crate) limit: Option<u32>,
    /// Its options as they are known.
    pub(crate) options: String,
    /// Whether these let it run.
    pub(crate) open: bool,
}

/// From which name a job that crashed before may come.
pub(crate) enum Suspects {
    /// From any.
    Any,
    /// From this one.
    Of(Name),
    /// From none.
    None,
}

impl RedisStore {
    /// Takes jobs.
    pub(crate) async fn claim_jobs(&self, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        match self.shards.as_slice() {
            _ if ask.slots == 0 => Ok(Vec::new()),
            [shard] => self.claim_from(shard, ask, now).await,
            _ => self.claim_over_all(ask, now).await,
        }
    }

    async fn claim_from(&self, shard: &Shard, ask: &Claim, now: Time) -> Result<Vec<Job>> {
        let mut names: Vec<&NameAsk> = ask.names.iter().collect();
        if names.len() > NAMES_MAX {
            let work = self.names_with_work(shard).await?;
            names.retain(|asked| work.contains(&asked.name));
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let suspects = if ask.suspects { Suspects::Any } else { Suspects::None };
        // Options change rarely: twice during one claim is once in a lifetime, and then the next claim finds more.
        for _ in 0..3 {
            let asked = self.plan(&ask.names, &names, ask)?;
            if let Some(jobs) = self.claim_part(shard, &asked, &suspects, ask, now).await? {
                return Ok(jobs);
            }
        }
        Ok(Vec::new())
    }

    /// Takes jobs of these names from a shard; none if their options are not what they were: they are known then.
    pub(crate) async fn claim_part(
        &self,
        shard: &Shard,
        asked: &[Asked],
        suspects: &Suspects,
        ask: &Claim,
        now: Time,
    ) -> Result<Option<Vec<Job>>> {
        let answer = shard.link.run_for_pool(&CLAIM, &call(shard, asked, suspects, ask, now), "claim").await?;
        match array(&answer)? {
            [what, jobs, broken] if text(what)? == Some("jobs") => {
                for id in array(broken)? {
                    let id = text(id)?.unwrap_or_default();
                    tracing::error!(
                        job = id,
                        "the record of a job cannot be read: it is set aside, see `jobservice doctor`"
                    );
                }
                self.taken(array(jobs)?).map(Some)
            }
            [what, known] if text(what)? == Some("options") => {
                let mut options = self.options.lock();
                for (asked, known) in asked.iter().zip(array(known)?) {
                    options.insert(asked.name.clone(), text(known)?.unwrap_or_default().to_owned());
                }
                Ok(None)
            }
            _ => Err(unexpected("claim", &answer)),
        }
    }

    /// The names in the order to visit them, with what is known of them.
    fn plan(&self, all: &Arc<[NameAsk]>, names: &[&NameAsk], ask: &Claim) -> Result<Vec<Asked>> {
        let known = self.options.lock();
        let options = |name: &Name| -> Result<(String, NameOptions)> {
            let text = known.get(name).cloned().unwrap_or_default();
            let options = read_options(&text)?;
            Ok((text, options))
        };
        let mut weight_total = 0;
        for asked in &**all {
            weight_total += u64::from(options(&asked.name)?.1.weight.unwrap_or(asked.weight));
        }
        let mut by_name = BTreeMap::new();
        let mut shares = Vec::with_capacity(names.len());
        for asked in names {
            let (text, options) = options(&asked.name)?;
            shares.push(Share { name: asked.name.clone(), weight: options.weight.unwrap_or(asked.weight) });
            let limit = options.max_concurrency.or(asked.max_concurrency);
            self.wake.limit(&asked.name, limit.is_some());
            by_name.insert(asked.name.clone(), (text, limit, !options.paused && limit != Some(0)));
        }
        let plan = share::plan(shares, weight_total, ask.slots, ask.seed).into_iter();
        Ok(plan
            .filter_map(|(name, part)| {
                let (options, limit, open) = by_name.remove(&name)?;
                Some(Asked { name, part, limit, options, open })
            })
            .collect())
    }

    async fn names_with_work(&self, shard: &Shard) -> Result<Vec<Name>> {
        let mut get = redis::cmd("SMEMBERS");
        get.arg(shard.keys.work());
        let answer = shard.link.send(&get, "claim").await?;
        let names = array(&answer)?.iter().filter_map(|name| Name::new(text(name).ok()??).ok());
        Ok(names.collect())
    }

    /// Reads the jobs taken, and remembers them: their ends will be compared with these headers.
    fn taken(&self, answer: &[Value]) -> Result<Vec<Job>> {
        let mut jobs = Vec::with_capacity(answer.len() / 4);
        let mut held = self.held.lock();
        for fields in answer.chunks_exact(4) {
            let [id, fields @ ..] = fields else { continue };
            let Some(id) = text(id)?.and_then(|id| JobId::new(id).ok()) else { continue };
            match record::read(&id, fields) {
                Ok(record) => {
                    jobs.push(record.job.clone());
                    held.insert(id, record);
                }
                // Its header could be read by the script, so it was claimed; its lease expires, and reap sets it aside.
                Err(why) => tracing::error!(job = %id, "the record of a job cannot be read: {why}"),
            }
        }
        Ok(jobs)
    }
}

fn call(shard: &Shard, asked: &[Asked], suspects: &Suspects, ask: &Claim, now: Time) -> redis::Cmd {
    let mut call = link::call(&CLAIM, shard.keys.prefix());
    let (hour, minute) = hour_and_minute(now);
    call.arg(now.as_millis())
        .arg(ask.until.as_millis())
        .arg(ask.grace.as_millis() as u64)
        .arg(ask.slots)
        .arg(match suspects {
            // No name is a star.
            Suspects::Any => "*",
            Suspects::Of(name) => name.as_str(),
            Suspects::None => "",
        })
        .arg(header::nonce(ask.nonce))
        .arg(ask.pool.as_str())
        .arg(hour)
        .arg(minute)
        .arg(asked.len());
    for Asked { name, part, limit, options, open } in asked {
        call.arg(name.as_str()).arg(*part).arg(limit.map_or(-1, i64::from)).arg(options).arg(u8::from(*open));
    }
    call
}
