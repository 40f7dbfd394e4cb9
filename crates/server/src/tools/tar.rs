//! The least of the tar format that a backup needs: plain files, one after the other, readable by any `tar`.
//!
//! Each file has a header of 512 bytes, then its bytes, filled up to whole blocks of 512; two empty blocks end it all.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// Where the fields of a header are that we use: name, mode, size, time, checksum, kind, and the mark of the format.
const MODE: usize = 100;
const SIZE: usize = 124;
const MTIME: usize = 136;
const CHECKSUM: usize = 148;
const KIND: usize = 156;
const MAGIC: usize = 257;

/// Sizes that do not fit into eleven octal digits are written in binary, with this bit set (as GNU tar does).
const BINARY: u8 = 0x80;

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Writes the header of a file; its bytes follow.
pub(super) fn write_header(out: &mut impl Write, entry: &Entry, mtime_seconds: u64) -> io::Result<()> {
    let mut block = [0; BLOCK];
    put(&mut block, 0, entry.name.as_bytes());
    put(&mut block, MODE, b"0000600\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    if entry.bytes < 1 << 33 {
        put(&mut block, SIZE, format!("{:011o}\0", entry.bytes).as_bytes());
    } else {
        put(&mut block, SIZE, &[BINARY]);
        put(&mut block, SIZE + 4, &entry.bytes.to_be_bytes());
    }
    put(&mut block, MTIME, format!("{mtime_seconds:011o}\0").as_bytes());
    put(&mut block, KIND, b"0");
    put(&mut block, MAGIC, b"ustar\x0000");
    let sum = checksum(&block);
    put(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&block)
}

/// Fills up the last block of a file.
pub(super) fn write_padding(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    let padding = [0; BLOCK];
    out.write_all(padding.get(..padding_of(bytes)).unwrap_or_default())
}

/// Ends the archive.
pub(super) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Reads the next header; none at the end of the archive.
pub(super) fn read_header(input: &mut impl Read) -> io::Result<Option<Entry>> {
    let mut block = [0; BLOCK];
    input.read_exact(&mut block)?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let sum = octal(field(&block, CHECKSUM, 8)).ok_or_else(|| wrong("it is no archive, or damaged"))?;
    if sum != u64::from(checksum(&block)) {
        return Err(wrong("it is no archive, or damaged"));
    }
    if field(&block, KIND, 1) != b"0" {
        return Err(wrong("it holds something else than plain files"));
    }
    let name = field(&block, 0, 100);
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name =
        String::from_utf8(name.get(..end).unwrap_or_default().to_vec()).map_err(|_| wrong("a name is no text"))?;
    let size = field(&block, SIZE, 12);
    let bytes = if size.first() == Some(&BINARY) {
        size.get(4..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
    } else {
        octal(size)
    };
    Ok(Some(Entry { name, bytes: bytes.ok_or_else(|| wrong("a size is no number"))? }))
}

/// Reads over what fills up the last block of a file.
pub(super) fn read_padding(input: &mut impl Read, bytes: u64) -> io::Result<()> {
    let mut padding = [0; BLOCK];
    input.read_exact(padding.get_mut(..padding_of(bytes)).unwrap_or_default())
}

fn padding_of(bytes: u64) -> usize {
    (BLOCK as u64 - bytes % BLOCK as u64) as usize % BLOCK
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}

fn field(block: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// The sum of all bytes, those of the sum itself taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = field(block, CHECKSUM, 8).iter().map(|byte| u32::from(*byte)).sum();
    sum - own + 8 * u32::from(b' ')
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_its_size() {
        for bytes in [0, 1, 511, 512, 513, (1 << 33) - 1, 1 << 33, u64::MAX >> 1] {
            let entry = Entry { name: "jobs.db".to_owned(), bytes };
            let mut archive = Vec::new();
            write_header(&mut archive, &entry, 1_767_614_400).unwrap();
            assert_eq!(archive.len(), BLOCK);
            assert_eq!(read_header(&mut archive.as_slice()).unwrap(), Some(entry), "{bytes}");
            assert_eq!((bytes + padding_of(bytes) as u64) % 512, 0);
        }
    }

    #[test]
    fn end_and_damage_are_told_apart() {
        let mut archive = Vec::new();
        write_header(&mut archive, &Entry { name: "a".to_owned(), bytes: 7 }, 0).unwrap();
        archive[SIZE] ^= 1;
        assert!(read_header(&mut archive.as_slice()).unwrap_err().to_string().contains("damaged"));
        assert!(read_header(&mut &b"short"[..]).is_err());
        let mut end = Vec::new();
        write_end(&mut end).unwrap();
        assert_eq!(read_header(&mut end.as_slice()).unwrap(), None);
    }

    /// Goal: a backup can be looked into with the tools that are everywhere.
    #[test]
    fn tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut archive = Vec::new();
        write_header(&mut archive, &Entry { name: "jobs.db".to_owned(), bytes: 3 }, 1_767_614_400).unwrap();
        archive.extend_from_slice(b"abc");
        write_padding(&mut archive, 3).unwrap();
        write_end(&mut archive).unwrap();
        std::fs::write(&path, archive).unwrap();

        let listed = std::process::Command::new("tar").arg("-tvf").arg(&path).output().unwrap();

        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && text.contains("-rw-------") && text.contains("3 2026-01-05"), "{listed:?}");
    }
}
