//! A consistent copy of store and job logs in one file, taken while the service goes on.
//!
//! 1. SQLite copies the state of one instant of the store beside the file, then that of the job logs. The logs are copied
//!    second, so that they know of every run that the store knows of.
//! 2. Both go into a tar archive, with a manifest of their sizes and digests at its end: an archive that was cut short has
//!    none.
//! 3. The archive is synced to the disk and only then gets its name. Crash before: there is no backup, and files ending in
//!    `.partial` can be removed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jobservice_core::{Clock as _, SystemClock, Time};
use jobservice_sqlite::{Inspector, logs};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tar::{self, Entry};
use super::{JOBS, LOGS, MANIFEST, PIECE_BYTES, Places, Progress, beside, show_bytes};
use crate::cli::print::{line, note};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The release that wrote it.
    pub(super) version: String,
    /// When, in seconds since 1970.
    pub(super) taken_at: i64,
    /// Its files.
    pub(super) files: Vec<Part>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

pub(super) fn run(places: &Places, file: &Path) -> Result<()> {
    if file.try_exists().with_context(|| format!("cannot look at {}", file.display()))? {
        bail!("{} exists: give another name, or remove it", file.display());
    }
    let inspector =
        Inspector::open(&places.store).with_context(|| format!("cannot open the store {}", places.store.display()))?;
    let at = SystemClock::new().now();
    let partial = Partial::new(file);
    // The state is that of a moment after this one.
    let expected = inspector.size().map_or(0, |size| size.file - size.free);
    let copy = partial.jobs.clone();
    create_private(&partial.jobs)?;
    create_private(&partial.logs)?;
    watched("jobs", &partial.jobs, expected, move || inspector.backup(&copy).map_err(Into::into))?;
    let (logs_path, copy) = (places.logs.clone(), partial.logs.clone());
    let expected = fs::metadata(&places.logs).map_or(0, |metadata| metadata.len());
    let has_logs =
        watched("job logs", &partial.logs, expected, move || logs::copy(&logs_path, &copy).map_err(Into::into))?;

    let mut parts = vec![(JOBS, partial.jobs.as_path())];
    parts.extend(has_logs.then_some((LOGS, partial.logs.as_path())));
    let bytes = pack(&partial.archive, &parts, at).with_context(|| format!("cannot write {}", file.display()))?;
    fs::rename(&partial.archive, file).with_context(|| format!("cannot name the archive {}", file.display()))?;
    sync_directory(file)?;
    line(&format!("{}: {}", file.display(), show_bytes(bytes)))?;
    Ok(())
}

/// Makes an empty file that only its owner may read: what jobs were given may be secret, and SQLite would make one that all
/// may read.
fn create_private(path: &Path) -> Result<()> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).with_context(|| format!("cannot make {}", path.display()))
}

/// The files that are there while a backup is made, and go whatever becomes of it.
struct Partial {
    jobs: PathBuf,
    logs: PathBuf,
    archive: PathBuf,
}

impl Partial {
    fn new(file: &Path) -> Partial {
        let partial = Partial {
            jobs: beside(file, ".jobs.partial"),
            logs: beside(file, ".logs.partial"),
            archive: beside(file, ".partial"),
        };
        // Those of an earlier attempt that was killed are in the way.
        partial.remove();
        partial
    }

    fn remove(&self) {
        for path in [&self.jobs, &self.logs, &self.archive] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                note(&format!("cannot remove {}: {error}", path.display()));
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Does `work` on a thread, telling how large the file at `path` has become until it is done.
fn watched<T: Send + 'static>(
    what: &str,
    path: &Path,
    expected: u64,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, done) = mpsc::channel();
    let worker = std::thread::Builder::new().name("backup".to_owned());
    // Whoever waits gets the answer, or learns by the end of the channel that there is none.
    worker.spawn(move || drop(sender.send(work()))).context("cannot start a thread")?;
    loop {
        match done.recv_timeout(TELL_EVERY) {
            Ok(answer) => {
                note(&format!("{what}: copied"));
                return answer.with_context(|| format!("cannot copy the {what} to {}", path.display()));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
                note(&format!("{what}: {} of about {}", show_bytes(bytes), show_bytes(expected)));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("copying the {what} broke off"),
        }
    }
}

/// Writes the archive, durable when this has returned; answers how large it is.
fn pack(archive: &Path, parts: &[(&str, &Path)], at: Time) -> Result<u64> {
    // The parameters of jobs are nobody else's business.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(archive)?;
    let mut out = BufWriter::new(file);
    let seconds = u64::try_from(at.as_seconds()).unwrap_or(0);
    let mut manifest =
        Manifest { version: env!("CARGO_PKG_VERSION").to_owned(), taken_at: at.as_seconds(), files: Vec::new() };
    for (name, path) in parts {
        let mut input = File::open(path)?;
        let bytes = input.metadata()?.len();
        tar::write_header(&mut out, &Entry { name: (*name).to_owned(), bytes }, seconds)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = bytes;
        let mut progress = Progress::of(format!("packing {name}"), bytes);
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = input.read(piece.get_mut(..most).unwrap_or_default())?;
            if read == 0 {
                bail!("{} became shorter while it was read", path.display());
            }
            let bytes = piece.get(..read).unwrap_or_default();
            hash.update(bytes);
            out.write_all(bytes)?;
            left -= read as u64;
            progress.add(read);
        }
        tar::write_padding(&mut out, bytes)?;
        manifest.files.push(Part { name: (*name).to_owned(), bytes, sha256: hex(&hash.finalize()) });
    }
    let text = serde_json::to_vec_pretty(&manifest)?;
    tar::write_header(&mut out, &Entry { name: MANIFEST.to_owned(), bytes: text.len() as u64 }, seconds)?;
    out.write_all(&text)?;
    tar::write_padding(&mut out, text.len() as u64)?;
    tar::write_end(&mut out)?;
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Makes a new name in a directory durable.
pub(super) fn sync_directory(of: &Path) -> Result<()> {
    let directory = of.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot sync the directory {}", directory.display()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |text, byte| text + &format!("{byte:02x}"))
}
