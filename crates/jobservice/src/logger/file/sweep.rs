//! Removing old log files, by age and by total size.
//!
//! The directory may hold a million files, and files of others: it is read twice as a stream, and only what is named like
//! a job's log and begins like one is touched. The first pass adds the bytes up by minute of the last write; from that
//! follows the minute up to which logs must go; the second pass removes them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jobservice_core::{JobId, Time};

use super::super::{Removed, SweepRule};
use super::{log, parts};

/// A log written within this many minutes is not removed for its size: its job may run.
const BUSY_MINUTES: i64 = 2;

struct Found {
    path: PathBuf,
    minute: i64,
    bytes: u64,
}

pub(super) fn sweep(dir: &Path, rule: SweepRule, now: Time) -> io::Result<Removed> {
    let mut removed = Removed::default();
    let now_minute = now.as_seconds().div_euclid(60);
    let oldest = rule.older_than.map_or(i64::MIN, |age| (now - age).as_seconds().div_euclid(60));
    let mut excess = 0;
    let mut newest_to_go = i64::MIN;
    if let Some(bytes_max) = rule.bytes_max {
        let mut by_minute: BTreeMap<i64, u64> = BTreeMap::new();
        each(dir, |found| {
            if log::is_ours(&found.path)? {
                *by_minute.entry(found.minute).or_default() += found.bytes;
            }
            Ok(())
        })?;
        by_minute.retain(|minute, _| *minute >= oldest);
        let total: u64 = by_minute.values().sum();
        excess = total.saturating_sub(bytes_max);
        let mut gone = 0;
        for (minute, bytes) in by_minute {
            if gone >= excess || minute > now_minute - BUSY_MINUTES {
                break;
            }
            gone += bytes;
            newest_to_go = newest_to_go.max(minute);
        }
    } else if rule.older_than.is_none() {
        return Ok(removed);
    }
    let mut for_size = 0;
    each(dir, |found| {
        let is_old = found.minute < oldest;
        if !is_old && (found.minute > newest_to_go || for_size >= excess) {
            return Ok(());
        }
        if log::is_ours(&found.path)? && log::remove(&found.path)? {
            removed.logs += 1;
            removed.bytes += found.bytes;
            for_size += if is_old { 0 } else { found.bytes };
        }
        Ok(())
    })?;
    Ok(removed)
}

/// Calls `f` for each file in `dir` that is named like a log, and for each tail whose head is gone.
fn each(dir: &Path, mut f: impl FnMut(Found) -> io::Result<()>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // No directory, no logs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.file_stem().and_then(|stem| stem.to_str()).is_none_or(|stem| JobId::new(stem).is_err()) {
            continue;
        }
        let log = match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => path,
            Some("tail") if fs::symlink_metadata(path.with_extension("log")).is_err() => path.with_extension("log"),
            _ => continue,
        };
        if let Some(found) = look(log)? {
            f(found)?;
        }
    }
    Ok(())
}

/// Size and last write of a log; none if it has just been removed.
fn look(path: PathBuf) -> io::Result<Option<Found>> {
    let head = match fs::symlink_metadata(&path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let dir = parts::dir_of(&path);
    let listing = parts::list(&dir)?;
    if head.is_none() && listing.is_none() {
        return Ok(None);
    }
    let mut written = head.as_ref().map_or(i64::MIN, MetadataExt::mtime);
    let mut bytes = head.as_ref().map_or(0, MetadataExt::size);
    if let Some(listing) = listing {
        bytes += listing.parts.iter().map(|part| part.bytes).sum::<u64>();
        let last = listing.parts.last().map_or(0, |part| part.start);
        if let Ok(metadata) = fs::symlink_metadata(parts::path(&dir, listing.head_end, last)) {
            written = written.max(metadata.mtime());
        }
    }
    Ok(Some(Found { path, minute: written.div_euclid(60), bytes }))
}
