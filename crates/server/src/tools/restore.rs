//! Puts a backup where the service looks for its data.
//!
//! 1. The lock of the store is taken and held: no service serves it, and none begins to.
//! 2. The archive is unpacked beside the data and compared with its manifest, and the store in it is looked through.
//!    Nothing of what is there has been touched so far.
//! 3. What is in the way is moved into a directory of its own, then the new files get their names. Crash in between: the
//!    old files are in that directory, the new ones end in `.restoring`, and the same command can be given again.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jobservice_core::{Clock as _, SystemClock, Time};
use jobservice_sqlite::{Inspector, Lock};
use sha2::{Digest as _, Sha256};

use super::backup::{Manifest, Part, hex, sync_directory};
use super::tar;
use super::{JOBS, LOGS, MANIFEST, PIECE_BYTES, Places, Progress, beside, show_bytes};
use crate::cli::print::{line, note};
use crate::data_dir;

/// The largest manifest: there are two files in it.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;

/// How many findings of an audit are shown.
const SHOWN: usize = 5;

pub(super) fn run(places: &Places, file: &Path, force: bool) -> Result<()> {
    let archive = File::open(file).with_context(|| format!("cannot read the backup {}", file.display()))?;
    let in_the_way = in_the_way(places)?;
    if !in_the_way.is_empty() && !force {
        let names: Vec<String> = in_the_way.iter().map(|path| path.display().to_string()).collect();
        bail!("the data directory is not empty ({}): --force moves aside what is in the way", names.join(", "));
    }
    data_dir::create(&places.data_dir)?;
    if let Some(directory) = places.store.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        data_dir::create(directory)?;
    }
    let _lock = Lock::take(&places.store).context("the store is in use: stop the service first")?;

    let unpacked = Unpacked { jobs: beside(&places.store, ".restoring"), logs: beside(&places.logs, ".restoring") };
    unpacked.remove();
    let manifest = unpack(archive, &unpacked).with_context(|| format!("cannot read the backup {}", file.display()))?;
    note(&format!("looking through the store of {}", Time::from_seconds(manifest.taken_at)));
    audit(&unpacked.jobs)?;

    move_aside(places)?;
    fs::rename(&unpacked.jobs, &places.store)
        .with_context(|| format!("cannot put the store at {}", places.store.display()))?;
    if manifest.files.iter().any(|part| part.name == LOGS) {
        fs::rename(&unpacked.logs, &places.logs)
            .with_context(|| format!("cannot put the job logs at {}", places.logs.display()))?;
    }
    sync_directory(&places.store)?;
    line(&format!("restored the state of {} to {}", Time::from_seconds(manifest.taken_at), places.store.display()))?;
    Ok(())
}

/// Where the parts are until they get their names. They go if the restore does not come to its end.
struct Unpacked {
    jobs: PathBuf,
    logs: PathBuf,
}

impl Unpacked {
    fn remove(&self) {
        for path in [&self.jobs, &self.logs] {
            for path in [path.clone(), beside(path, "-wal"), beside(path, "-shm")] {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    note(&format!("cannot remove {}: {error}", path.display()));
                }
            }
        }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        self.remove();
    }
}

/// What lies in the data directory, but for an empty lock file that a look at the store may have left.
fn in_the_way(places: &Places) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    match fs::read_dir(&places.data_dir) {
        Ok(entries) => {
            for entry in entries {
                found.push(entry.with_context(|| format!("cannot read {}", places.data_dir.display()))?.path());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", places.data_dir.display())),
    }
    // The store may lie elsewhere.
    found.extend(
        data_files(places).into_iter().filter(|path| path.exists() && !found.contains(path)).collect::<Vec<_>>(),
    );
    found.retain(|path| *path != beside(&places.store, "-lock"));
    found.sort();
    Ok(found)
}

/// The files that a store and its logs consist of. What else lies beside them (secret, endpoint, lock) stays.
/// The log before its file: broken off in between, a file is never parted from a log that stays where it was.
fn data_files(places: &Places) -> Vec<PathBuf> {
    let of = |path: &Path| [beside(path, "-shm"), beside(path, "-wal"), path.to_owned()];
    of(&places.store).into_iter().chain(of(&places.logs)).collect()
}

/// Unpacks the archive and compares it with its manifest.
fn unpack(archive: File, to: &Unpacked) -> Result<Manifest> {
    let mut input = BufReader::with_capacity(PIECE_BYTES, archive);
    let mut parts: Vec<Part> = Vec::new();
    while let Some(entry) = tar::read_header(&mut input)? {
        let bytes = entry.bytes;
        match entry.name.as_str() {
            MANIFEST if bytes <= MANIFEST_BYTES_MAX => {
                let mut text = Vec::new();
                (&mut input).take(bytes).read_to_end(&mut text)?;
                let manifest: Manifest = serde_json::from_slice(&text).context("its manifest cannot be read")?;
                if manifest.files != parts {
                    bail!("it is damaged: its files are not those of its manifest");
                }
                if parts.iter().all(|part| part.name != JOBS) {
                    bail!("it holds no store");
                }
                return Ok(manifest);
            }
            name @ (JOBS | LOGS) => {
                let path = if name == JOBS { &to.jobs } else { &to.logs };
                note(&format!("unpacking {name}: {}", show_bytes(bytes)));
                let sha256 = extract(&mut input, name, bytes, path)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                parts.push(Part { name: name.to_owned(), bytes, sha256 });
            }
            other => bail!("it holds {other:?}, which is no part of a backup"),
        }
        tar::read_padding(&mut input, bytes)?;
    }
    bail!("it has no manifest: it was cut short, or is no backup")
}

/// Writes one file, durable when this has returned; answers with its digest.
fn extract(input: &mut impl Read, name: &str, bytes: u64, to: &Path) -> Result<String> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    let mut progress = Progress::of(format!("unpacking {name}"), bytes);
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = input.read(piece.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            bail!("the backup was cut short");
        }
        let bytes = piece.get(..read).unwrap_or_default();
        hash.update(bytes);
        out.write_all(bytes)?;
        left -= read as u64;
        progress.add(read);
    }
    out.sync_all()?;
    Ok(hex(&hash.finalize()))
}

fn audit(store: &Path) -> Result<()> {
    let findings = Inspector::open(store).context("the store in it cannot be opened")?.audit()?;
    if findings.is_empty() {
        return Ok(());
    }
    for finding in findings.iter().take(SHOWN) {
        note(finding);
    }
    bail!("the store in it is not sound: {} findings", findings.len())
}

/// Moves what is in the way into a directory of its own, in which it can be found again.
fn move_aside(places: &Places) -> Result<()> {
    let there: Vec<PathBuf> = data_files(places).into_iter().filter(|path| path.exists()).collect();
    if there.is_empty() {
        return Ok(());
    }
    // Beside the store: a file cannot be moved to another file system.
    let directory = places.store.with_file_name(format!("replaced-{}", SystemClock::new().now().as_seconds()));
    data_dir::create(&directory)?;
    for path in there {
        let Some(name) = path.file_name() else { continue };
        fs::rename(&path, directory.join(name)).with_context(|| format!("cannot move {} aside", path.display()))?;
    }
    note(&format!("what was there is in {}", directory.display()));
    Ok(())
}
