//! The commands of a step: what a change of records adds to sets and takes out of them, many members of a set at once.

use std::collections::{BTreeMap, HashMap};

use jobservice_core::job::Status;
use jobservice_core::{JobId, Name};

use crate::keys::Keys;
use crate::places::Place;

/// Members given to one command of a script: its arguments lie on the stack of Lua.
const WORDS_MAX: usize = 1000;

/// Checks, records or commands as words.
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) count: usize,
    pub(crate) words: Vec<Vec<u8>>,
}

impl Words {
    pub(crate) fn put<const N: usize>(&mut self, words: [&[u8]; N]) {
        self.count += 1;
        self.words.extend(words.into_iter().map(<[u8]>::to_vec));
    }
}

/// What is added to sets and taken out of them, by set.
#[derive(Default)]
pub(crate) struct Moves {
    enter: HashMap<String, Vec<(JobId, Place)>>,
    leave: HashMap<String, Vec<(JobId, Place)>>,
    names: BTreeMap<String, Vec<Name>>,
    /// By how many the runs of a claim become more.
    claims: BTreeMap<(String, String), i64>,
}

impl Moves {
    /// Notes that a job runs by a claim, or does not any more.
    pub(crate) fn claim(&mut self, claim: Option<(String, String)>, by: i64) {
        if let Some(claim) = claim {
            *self.claims.entry(claim).or_default() += by;
        }
    }

    pub(crate) fn leave(&mut self, key: String, id: &JobId, place: Place) {
        self.leave.entry(key).or_default().push((id.clone(), place));
    }

    /// A job that stays where it was is not moved: `leave` comes before `enter`.
    pub(crate) fn enter(&mut self, key: String, id: &JobId, place: Place) {
        if let Some(leaving) = self.leave.get_mut(&key)
            && let Some(at) = leaving.iter().rposition(|(of, _)| of == id)
        {
            let (_, was) = leaving.swap_remove(at);
            if was == place {
                return;
            }
        }
        self.enter.entry(key).or_default().push((id.clone(), place));
    }

    /// Notes a name that has jobs of a status, unless it had before.
    pub(crate) fn name(&mut self, name: &Name, keys: &Keys, was: Option<Status>, is: Status) {
        let mut note = |key: String| {
            let names = self.names.entry(key).or_default();
            if !names.contains(name) {
                names.push(name.clone());
            }
        };
        if was.is_none() {
            note(keys.known());
        }
        match is {
            Status::Pending if was != Some(Status::Pending) => note(keys.work()),
            Status::Running if was != Some(Status::Running) => note(keys.busy()),
            _ => {}
        }
    }

    pub(crate) fn write(self, commands: &mut Words) {
        for (key, members) in self.leave {
            for part in members.chunks(WORDS_MAX) {
                let command = match part.first() {
                    Some((_, Place::Member)) => "SREM",
                    Some((_, Place::Score(_))) => "ZREM",
                    None => continue,
                };
                commands.group(command, &key, part.len(), part.iter().map(|(id, _)| id.as_str().to_owned()));
            }
        }
        for (key, members) in self.enter {
            for part in members.chunks(WORDS_MAX / 2) {
                match part.first() {
                    Some((_, Place::Member)) => {
                        commands.group("SADD", &key, part.len(), part.iter().map(|(id, _)| id.as_str().to_owned()));
                    }
                    Some((_, Place::Score(_))) => {
                        let words = part.iter().flat_map(|(id, place)| {
                            let score = if let Place::Score(score) = place { *score } else { 0 };
                            [score.to_string(), id.as_str().to_owned()]
                        });
                        commands.group("ZADD", &key, 2 * part.len(), words);
                    }
                    None => {}
                }
            }
        }
        for ((key, nonce), by) in self.claims.into_iter().filter(|(_, by)| *by != 0) {
            commands.group("ZINCRBY", &key, 2, [by.to_string(), nonce].into_iter());
            if by < 0 {
                commands.group("ZREMRANGEBYSCORE", &key, 2, ["-inf", "0"].into_iter().map(str::to_owned));
            }
        }
        for (key, names) in self.names {
            for part in names.chunks(WORDS_MAX) {
                commands.group("SADD", &key, part.len(), part.iter().map(|name| name.as_str().to_owned()));
            }
        }
    }
}

impl Words {
    /// A command with many members of one key.
    fn group(&mut self, command: &str, key: &str, count: usize, members: impl Iterator<Item = String>) {
        self.count += 1;
        self.words.push((count + 2).to_string().into_bytes());
        self.words.push(command.as_bytes().to_vec());
        self.words.push(key.as_bytes().to_vec());
        self.words.extend(members.map(String::into_bytes));
    }
}
