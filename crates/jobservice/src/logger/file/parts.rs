//! The parts that the end of a large log is kept in: files in `<id>.tail`, named `<where the head ends>-<offset>.log`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Limit;
use super::log::{Failure, line_cut, open_to_append};

/// One file of the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Offset of its first byte.
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// What a directory listing says of a tail.
#[derive(Debug)]
pub(super) struct Listing {
    /// Where the head ends; behind that its file only says where the log goes on.
    pub(super) head_end: u64,
    /// In order, at least one.
    pub(super) parts: Vec<Part>,
}

/// The tail of a log, open to be appended to.
pub(super) struct Tail {
    dir: PathBuf,
    listing: Listing,
    last: File,
}

/// The directory of the tail of the log at `path`.
pub(super) fn dir_of(path: &Path) -> PathBuf {
    path.with_extension("tail")
}

fn name(head_end: u64, start: u64) -> String {
    format!("{head_end:020}-{start:020}.log")
}

fn parse(name: &str) -> Option<(u64, u64)> {
    let (head_end, start) = name.strip_suffix(".log")?.split_once('-')?;
    Some((head_end.parse().ok()?, start.parse().ok()?))
}

/// The parts that there are; none if the log has no tail.
pub(super) fn list(dir: &Path) -> io::Result<Option<Listing>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut head_end = None;
    let mut parts = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some((end, start)) = entry.file_name().to_str().and_then(parse) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => {
                head_end = Some(end);
                parts.push(Part { start, bytes: metadata.len() });
            }
            Ok(_) => {}
            // Dropped by the writer since the listing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    parts.sort_unstable();
    Ok(head_end.map(|head_end| Listing { head_end, parts }))
}

/// Opens a part to be read.
pub(super) fn path(dir: &Path, head_end: u64, start: u64) -> PathBuf {
    dir.join(name(head_end, start))
}

/// Removes the parts and the directory; what else lies in there stays.
pub(super) fn remove(dir: &Path) -> io::Result<u64> {
    let Some(listing) = list(dir)? else { return Ok(0) };
    let mut bytes = 0;
    for part in &listing.parts {
        fs::remove_file(path(dir, listing.head_end, part.start))?;
        bytes += part.bytes;
    }
    fs::remove_dir(dir)?;
    Ok(bytes)
}

impl Listing {
    /// Where the kept end begins.
    pub(super) fn start(&self) -> u64 {
        self.parts.first().map_or(self.head_end, |part| part.start)
    }

    /// Where the log ends.
    pub(super) fn end(&self) -> u64 {
        self.parts.last().map_or(self.head_end, |part| part.start + part.bytes)
    }
}

impl Tail {
    /// Opens the tail in `dir` if there is one.
    pub(super) fn open(dir: PathBuf) -> io::Result<Option<Tail>> {
        let Some(listing) = list(&dir)? else { return Ok(None) };
        let last = open_to_append(&path(&dir, listing.head_end, listing.parts.last().map_or(0, |part| part.start)))?;
        Ok(Some(Tail { dir, listing, last }))
    }

    /// Begins a tail behind a head that ends there.
    pub(super) fn begin(dir: PathBuf, head_end: u64) -> io::Result<Tail> {
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let last = open_to_append(&path(&dir, head_end, head_end))?;
        let parts = vec![Part { start: head_end, bytes: 0 }];
        Ok(Tail { dir, listing: Listing { head_end, parts }, last })
    }

    /// Appends whole lines, dropping the oldest parts beyond the limit.
    pub(super) fn append(&mut self, bytes: &[u8], limit: Limit) -> Result<(), Failure> {
        let metadata = self.last.metadata()?;
        let is_as_known = self.listing.parts.last().is_some_and(|last| last.bytes == metadata.len());
        if !is_as_known || is_unlinked(&metadata) {
            return Err(Failure::Moved);
        }
        let mut rest = bytes;
        let skipped = (rest.len() as u64).saturating_sub(limit.tail) as usize;
        if skipped > 0 {
            // More than the tail may hold: its beginning would be dropped as soon as it is written.
            let skipped = line_cut_after(rest, skipped);
            let start = self.listing.end() + skipped as u64;
            rest = rest.get(skipped..).unwrap_or_default();
            self.begin_part(start)?;
        }
        while !rest.is_empty() {
            let written = self.listing.parts.last().map_or(0, |last| last.bytes);
            let room = limit.part().saturating_sub(written) as usize;
            let mut fits = line_cut(rest, room);
            if fits == 0 && written > 0 {
                self.begin_part(self.listing.end())?;
                continue;
            }
            if fits == 0 {
                // A line longer than a part has one for itself.
                fits = line_cut_after(rest, 0);
            }
            let (now, later) = rest.split_at(fits);
            self.write(now)?;
            rest = later;
        }
        self.drop_oldest(limit)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.last.write_all(bytes) {
            // Half a line must not stay: the next one would go on in it. If that fails as well the log is a little ugly.
            drop(self.last.set_len(self.listing.parts.last().map_or(0, |last| last.bytes)));
            return Err(error);
        }
        if let Some(last) = self.listing.parts.last_mut() {
            last.bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn begin_part(&mut self, start: u64) -> io::Result<()> {
        self.last = open_to_append(&path(&self.dir, self.listing.head_end, start))?;
        self.listing.parts.push(Part { start, bytes: 0 });
        Ok(())
    }

    fn drop_oldest(&mut self, limit: Limit) -> Result<(), Failure> {
        // What lies before a gap that a skip has left goes whatever its size: a log has one cut.
        let mut kept: u64 = self.listing.parts.iter().map(|part| part.bytes).sum();
        let gap_at = self.listing.parts.windows(2).rposition(|pair| match pair {
            [before, after] => before.start + before.bytes != after.start,
            _ => false,
        });
        let mut behind_gap = gap_at.map_or(0, |at| at + 1);
        while self.listing.parts.len() > 1 && (kept > limit.tail || behind_gap > 0) {
            let oldest = self.listing.parts.remove(0);
            kept -= oldest.bytes;
            behind_gap = behind_gap.saturating_sub(1);
            match fs::remove_file(path(&self.dir, self.listing.head_end, oldest.start)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where the line ends that holds the byte at `at`: behind its line feed.
fn line_cut_after(bytes: &[u8], at: usize) -> usize {
    let found = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
    found.map_or(bytes.len(), |found| at + found + 1)
}

fn is_unlinked(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(metadata) == 0
}
