//! One log: a head file, and a tail if it is large.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::super::{Extent, LogChunk};
use super::Limit;
use super::parts::{self, Tail};

/// Stands at the beginning of a log whose beginning somebody removed while its job ran.
const GONE_MARK: &[u8] = b"--- the lines before this one were removed ---\n";

/// Every log begins like this: its first line is a header or a mark. By that a sweep knows our files from others.
const FIRST_BYTES: &[u8] = b"--- ";

/// How often a reader looks again when the writer dropped a part under its eyes.
const READ_TRIES: usize = 4;

/// A log that is open to be appended to.
pub(super) struct Log {
    path: PathBuf,
    limit: Limit,
    head: File,
    tail: Option<Tail>,
}

/// Why an append did not happen.
pub(super) enum Failure {
    /// The file is no longer there, or another process wrote to it: open it anew.
    Moved,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

/// Makes the directory of logs, readable for its group and nobody else.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

/// Opens a file to append to it, making it if it is missing. Symbolic links are refused.
pub(super) fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many of the first `room` bytes are whole lines.
pub(super) fn line_cut(bytes: &[u8], room: usize) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    bytes.get(..room).and_then(|head| head.iter().rposition(|byte| *byte == b'\n')).map_or(0, |found| found + 1)
}

impl Log {
    /// Opens the log at `path`, making it and its directory if they are missing.
    pub(super) fn open(path: &Path, limit: Limit) -> io::Result<Log> {
        let head = match open_to_append(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = path.parent() {
                    make_dir(dir)?;
                }
                open_to_append(path)?
            }
            other => other?,
        };
        let tail = Tail::open(parts::dir_of(path))?;
        Ok(Log { path: path.to_owned(), limit, head, tail })
    }

    /// Appends whole lines: all of them or none, as far as the file system lets us.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let metadata = self.head.metadata()?;
        if metadata.nlink() == 0 {
            return Err(Failure::Moved);
        }
        if let Some(tail) = &mut self.tail {
            return tail.append(bytes, self.limit);
        }
        let length = metadata.len();
        if length == 0 && !bytes.starts_with(FIRST_BYTES) {
            let marked = [GONE_MARK, bytes].concat();
            return self.append_head(&marked, length);
        }
        self.append_head(bytes, length)
    }

    fn append_head(&mut self, bytes: &[u8], length: u64) -> Result<(), Failure> {
        let room = self.limit.head.saturating_sub(length) as usize;
        let (fits, rest) = bytes.split_at(line_cut(bytes, room));
        if let Err(error) = self.head.write_all(fits) {
            drop(self.head.set_len(length));
            return Err(error.into());
        }
        if rest.is_empty() {
            return Ok(());
        }
        let dir = parts::dir_of(&self.path);
        // Another process may have begun the tail: then the head ends where that says, and ours is a line of the middle.
        let mut tail = match Tail::open(dir.clone())? {
            Some(tail) => tail,
            None => Tail::begin(dir, length + fits.len() as u64)?,
        };
        // For who reads the file itself. Behind the head's end, so it is no part of the log.
        let note = format!("--- the log goes on in {} ---\n", parts::dir_of(&self.path).display());
        drop(self.head.write_all(note.as_bytes()));
        let appended = tail.append(rest, self.limit);
        self.tail = Some(tail);
        appended
    }
}

/// How far the log at `path` reaches.
pub(super) fn extent(path: &Path) -> io::Result<Option<Extent>> {
    if let Some(listing) = parts::list(&parts::dir_of(path))? {
        let (head_end, tail_start, end) = (listing.head_end, listing.start(), listing.end());
        return Ok(Some(Extent { head_end, tail_start, end }));
    }
    let Some(head) = open_to_read(path)? else { return Ok(None) };
    let end = head.metadata()?.len();
    Ok(Some(Extent { head_end: end, tail_start: end, end }))
}

/// A part of the log at `path`, as [`super::super::ReadLog::read`] promises it.
pub(super) fn read(path: &Path, offset: u64, limit: usize) -> io::Result<Option<LogChunk>> {
    for _ in 0..READ_TRIES {
        match try_read(path, offset, limit) {
            // A part was dropped between the listing and the opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    try_read(path, offset, limit)
}

fn try_read(path: &Path, offset: u64, limit: usize) -> io::Result<Option<LogChunk>> {
    let dir = parts::dir_of(path);
    let head = open_to_read(path)?;
    let listing = parts::list(&dir)?;
    let (head_end, tail_start, end) = match (&head, &listing) {
        (None, None) => return Ok(None),
        (Some(head), None) => {
            let length = head.metadata()?.len();
            (length, length, length)
        }
        (_, Some(listing)) => (listing.head_end, listing.start(), listing.end()),
    };
    let chunk = |bytes: Vec<u8>, next_offset: u64| LogChunk { bytes: Bytes::from(bytes), offset, next_offset, end };
    if offset >= end {
        return Ok(Some(chunk(Vec::new(), end)));
    }
    if offset < head_end {
        let bytes = match head {
            Some(head) => read_at(&head, offset, (limit as u64).min(head_end - offset))?,
            None => Vec::new(),
        };
        if !bytes.is_empty() {
            let next_offset = offset + bytes.len() as u64;
            return Ok(Some(chunk(bytes, next_offset)));
        }
    }
    if offset < tail_start {
        return Ok(Some(chunk(Vec::new(), tail_start)));
    }
    let parts = listing.map(|listing| listing.parts).unwrap_or_default();
    let Some(part) = parts.iter().rev().find(|part| part.start <= offset) else {
        return Ok(Some(chunk(Vec::new(), end)));
    };
    let within = offset - part.start;
    let file = open_to_read(&parts::path(&dir, head_end, part.start))?.ok_or(io::ErrorKind::NotFound)?;
    let bytes = read_at(&file, within, (limit as u64).min(part.bytes.saturating_sub(within)))?;
    // Nothing there although there should be (somebody cut the file short): on to the next part rather than round and round.
    let next_part = parts.iter().map(|part| part.start).find(|start| *start > offset).unwrap_or(end);
    let next_offset = if bytes.is_empty() { next_part } else { offset + bytes.len() as u64 };
    Ok(Some(chunk(bytes, next_offset)))
}

fn read_at(file: &File, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes as usize];
    let mut read = 0;
    while let Some(room) = buffer.get_mut(read..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(read);
    Ok(buffer)
}

/// Removes the log at `path`; answers whether there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    // The tail first: a crash in between leaves a head, which a sweep finds.
    let tail = parts::remove(&parts::dir_of(path))?;
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(tail > 0),
        Err(error) => Err(error),
    }
}

/// Whether the file at `path` begins as our logs do, or only a tail of ours is left.
pub(super) fn is_ours(path: &Path) -> io::Result<bool> {
    let Some(file) = open_to_read(path)? else { return Ok(parts::list(&parts::dir_of(path))?.is_some()) };
    Ok(file.metadata()?.is_file() && read_at(&file, 0, FIRST_BYTES.len() as u64)? == FIRST_BYTES)
}
