//! Which shard has what, when there are several.
//!
//! A job is in the shard of its name, so that everything that must be decided together is together. Look-ups by id go to
//! the id's home, a shard that follows from the id alone: ids that this store makes ([`RedisStore::own_id`]) are chosen so
//! that their home is the shard of their name. Of a foreign id that has its home elsewhere a pointer stands there
//! (`at:<id>`, the number of the shard), written before the job and removed after it. A pointer whose job never came, or
//! went, is taken for none.

use std::collections::HashSet;

use jobservice_core::store::Result;
use jobservice_core::{JobId, Name, StoreError};
use redis::Value;

use crate::link::text;
use crate::store::{RedisStore, Shard};

/// FNV-1a: stable over releases, unlike the standard library's hasher.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl RedisStore {
    /// The number of the shard of the jobs of a name.
    pub(crate) fn shard_number(&self, name: &Name) -> usize {
        self.number_of(name.as_str())
    }

    /// The number of the shard that a look-up of an id goes to.
    pub(crate) fn home(&self, id: &JobId) -> usize {
        self.number_of(id.as_str())
    }

    fn number_of(&self, text: &str) -> usize {
        match self.shards.len() {
            0 | 1 => 0,
            count => (hash(text) % count as u64) as usize,
        }
    }

    /// The shard of the jobs of a name.
    pub(crate) fn shard_of(&self, name: &Name) -> Result<&Shard> {
        self.shard(self.shard_number(name))
    }

    /// The shard of a number.
    pub(crate) fn shard(&self, number: usize) -> Result<&Shard> {
        let shard = self.shards.get(number).map(|shard| &**shard);
        shard.ok_or_else(|| StoreError::Damaged { what: format!("there is no shard {number}") })
    }

    /// A new id for a job or policy of a name, found without a search.
    pub(crate) fn own_id(&self, name: &Name) -> JobId {
        let number = self.shard_number(name);
        loop {
            let id = JobId::generate();
            if self.home(&id) == number {
                return id;
            }
        }
    }

    /// The shard that has a job or policy; if none has, one that might.
    pub(crate) async fn shard_with(&self, id: &JobId) -> Result<&Shard> {
        let numbers = self.numbers_with(&[id]).await?;
        self.shard(numbers.first().copied().unwrap_or(0))
    }

    /// The same for many, as numbers.
    pub(crate) async fn numbers_with(&self, ids: &[&JobId]) -> Result<Vec<usize>> {
        let mut numbers: Vec<usize> = ids.iter().map(|id| self.home(id)).collect();
        if self.shards.len() == 1 {
            return Ok(numbers);
        }
        // What this node runs it knows.
        let mut unknown: Vec<usize> = Vec::new();
        {
            let held = self.held.lock();
            for (at, (id, number)) in ids.iter().zip(&mut numbers).enumerate() {
                match held.get(*id) {
                    Some(record) => *number = self.shard_number(&record.job.spec.name),
                    None => unknown.push(at),
                }
            }
        }
        for (number, shard) in self.shards.iter().enumerate() {
            let here: Vec<usize> = unknown.iter().copied().filter(|at| numbers.get(*at) == Some(&number)).collect();
            let mut pipe = redis::pipe();
            for id in here.iter().filter_map(|at| ids.get(*at)) {
                pipe.cmd("GET").arg(shard.keys.pointer(id));
            }
            for (at, answer) in here.iter().zip(&shard.link.pipe(&pipe, "look up").await?) {
                if let (Some(to), Some(place)) = (self.pointed_at(answer)?, numbers.get_mut(*at)) {
                    *place = to + self.shards.len();
                }
            }
        }
        // Marked while looking, so that what was found is not looked up again at the next shard.
        let count = self.shards.len();
        Ok(numbers.into_iter().map(|number| if number >= count { number - count } else { number }).collect())
    }

    fn pointed_at(&self, answer: &Value) -> Result<Option<usize>> {
        let number = text(answer)?.and_then(|number| number.parse::<usize>().ok());
        Ok(number.filter(|number| *number < self.shards.len()))
    }

    /// Writes the pointers of jobs of a shard whose ids have their home elsewhere; answers with those whose id another
    /// shard's job or policy has.
    pub(crate) async fn point(&self, number: usize, ids: &[JobId]) -> Result<HashSet<JobId>> {
        let mut taken = HashSet::new();
        if self.shards.len() == 1 {
            return Ok(taken);
        }
        for id in ids.iter().filter(|id| self.home(id) != number) {
            let home = self.shard(self.home(id))?;
            // Looked at before: a pointer beside a job that is at home would hide it.
            let mut at_home = redis::cmd("EXISTS");
            at_home.arg(home.keys.job(id)).arg(home.keys.policy(id));
            if home.link.send(&at_home, "insert").await? != Value::Int(0) {
                taken.insert(id.clone());
                continue;
            }
            let mut set = redis::cmd("SET");
            set.arg(home.keys.pointer(id)).arg(number).arg("NX").arg("GET");
            let before = home.link.send(&set, "insert").await?;
            let elsewhere = match self.pointed_at(&before)? {
                Some(other) if other != number => {
                    let there = self.shard(other)?;
                    let mut exists = redis::cmd("EXISTS");
                    exists.arg(there.keys.job(id)).arg(there.keys.policy(id));
                    let is_there = there.link.send(&exists, "insert").await? != Value::Int(0);
                    if !is_there {
                        let mut set = redis::cmd("SET");
                        set.arg(home.keys.pointer(id)).arg(number);
                        home.link.send(&set, "insert").await?;
                    }
                    is_there
                }
                _ => false,
            };
            if elsewhere {
                taken.insert(id.clone());
            }
        }
        Ok(taken)
    }

    /// Removes the pointers of jobs of a shard that are gone, or never came.
    pub(crate) async fn unpoint(&self, number: usize, ids: &[&JobId]) -> Result<()> {
        if self.shards.len() == 1 {
            return Ok(());
        }
        for id in ids.iter().filter(|id| self.home(id) != number) {
            let here = self.shard(number)?;
            let mut exists = redis::cmd("EXISTS");
            exists.arg(here.keys.job(id)).arg(here.keys.policy(id));
            if here.link.send(&exists, "remove").await? == Value::Int(0) {
                let home = self.shard(self.home(id))?;
                let mut get = redis::cmd("GET");
                get.arg(home.keys.pointer(id));
                if self.pointed_at(&home.link.send(&get, "remove").await?)? == Some(number) {
                    let mut remove = redis::cmd("DEL");
                    remove.arg(home.keys.pointer(id));
                    home.link.send(&remove, "remove").await?;
                }
            }
        }
        Ok(())
    }
}
