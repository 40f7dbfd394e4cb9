//! The service's log in a file that is bounded: when it is full, or when a day begins, it becomes `NAME.1`, the one before
//! `NAME.2`, and so on; only so many are kept.
//!
//! Writing a line never fails for who logs it. Lines that the disk does not take are counted, and the next line that it
//! takes is preceded by one that says how many are missing.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jobservice_core::{Clock, Time};
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{FileLog, Rotation};

const SECONDS_A_DAY: i64 = 86_400;

/// How often files past their age are looked for. A file becomes too old while nothing is rotated, too.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// How long old files are kept, apart from their number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// Old files not written for this long go.
    pub(super) age: Option<Duration>,
    /// When all files together take more, the oldest go.
    pub(super) bytes_max: Option<u64>,
}

/// A log file and its predecessors.
pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    kept: Kept,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    file: File,
    bytes: u64,
    /// The day of the last line, counted from the epoch.
    day: i64,
    sweep_at: Time,
    /// Lines that could not be written since the last one that could.
    lost: u64,
}

impl RotatingFile {
    /// Opens the file, making its directory if it is missing, and goes on where the process before ended.
    pub(super) fn open(settings: &FileLog, kept: Kept, clock: Arc<dyn Clock>) -> Result<RotatingFile> {
        let dir = &settings.base_dir;
        fs::create_dir_all(dir).with_context(|| format!("cannot make the directory of the log, {}", dir.display()))?;
        let path = dir.join(&settings.file_name);
        let opened = || -> io::Result<(File, u64, i64)> {
            let file = open(&path)?;
            let metadata = file.metadata()?;
            // An empty file has no day yet.
            let written = if metadata.len() == 0 { clock.wall().as_seconds() } else { metadata.mtime() };
            Ok((file, metadata.len(), written.div_euclid(SECONDS_A_DAY)))
        };
        let (file, bytes, day) = opened().with_context(|| format!("cannot write the log {}", path.display()))?;
        let state = State { file, bytes, day, sweep_at: Time::from_millis(0), lost: 0 };
        Ok(RotatingFile { path, rotation: settings.rotation, kept, clock, state: Mutex::new(state) })
    }

    fn append(&self, line: &[u8]) {
        let now = self.clock.wall();
        let today = now.as_seconds().div_euclid(SECONDS_A_DAY);
        let mut state = self.state.lock();
        let is_full = state.bytes > 0 && state.bytes + line.len() as u64 > self.rotation.file_bytes_max;
        let is_of_yesterday = self.rotation.daily && state.bytes > 0 && state.day != today;
        if (is_full || is_of_yesterday)
            && let Err(error) = self.rotate(&mut state)
        {
            // Better a file that is too long than no log; the log itself is where this belongs.
            let note = format!("the log {} cannot be rotated: {error}\n", self.path.display());
            drop(state.file.write_all(note.as_bytes()));
            // Not again for each line.
            state.bytes = 0;
        }
        state.day = today;
        if state.lost > 0 {
            let note = format!("{} lines are missing here: the disk did not take them\n", state.lost);
            if state.file.write_all(note.as_bytes()).is_ok() {
                state.lost = 0;
                state.bytes += note.len() as u64;
            }
        }
        match state.file.write_all(line) {
            Ok(()) => state.bytes += line.len() as u64,
            Err(_) => state.lost += 1,
        }
        if now >= state.sweep_at {
            state.sweep_at = now + SWEEP_EVERY;
            self.sweep(now);
        }
    }

    /// Crash here, between any two names: a number is missing, which the next rotation closes up.
    fn rotate(&self, state: &mut State) -> io::Result<()> {
        let keep = self.rotation.files_max;
        remove(&numbered(&self.path, keep.max(1)))?;
        for number in (1..keep).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        if keep == 0 {
            remove(&self.path)?;
        } else {
            rename(&self.path, &numbered(&self.path, 1))?;
        }
        state.file = open(&self.path)?;
        state.bytes = 0;
        // The sum of all files has changed.
        state.sweep_at = Time::from_millis(0);
        Ok(())
    }

    /// Removes old files that are too old, or too much together. What cannot be removed now is looked at again later.
    fn sweep(&self, now: Time) {
        let mut bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let oldest = self.kept.age.map_or(i64::MIN, |age| (now - age).as_seconds());
        for number in 1..=self.rotation.files_max {
            let path = numbered(&self.path, number);
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            bytes += metadata.len();
            if metadata.mtime() < oldest || self.kept.bytes_max.is_some_and(|bytes_max| bytes > bytes_max) {
                drop(remove(&path));
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // The log is for the operator: jobs' names and errors are nobody else's.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    missing_is_fine(fs::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    missing_is_fine(fs::rename(from, to))
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What an event is written with.
pub(super) struct Writer<'a>(&'a RotatingFile);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for RotatingFile {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Writer<'a> {
        Writer(self)
    }
}

#[cfg(test)]
mod tests {
    use jobservice_core::ManualClock;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        clock: Arc<ManualClock>,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { dir: tempfile::tempdir().unwrap(), clock: Arc::default() }
        }

        fn log(&self, rotation: Rotation, kept: Kept) -> RotatingFile {
            let settings = FileLog { base_dir: self.dir.path().join("logs"), file_name: "s.log".into(), rotation };
            RotatingFile::open(&settings, kept, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap()
        }

        /// The files, by name, with what stands in them.
        fn files(&self) -> Vec<(String, String)> {
            let entries = fs::read_dir(self.dir.path().join("logs")).unwrap();
            let mut files: Vec<_> = entries
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
                .collect();
            files.sort();
            files
        }

        fn names(&self) -> Vec<String> {
            self.files().into_iter().map(|(name, _)| name).collect()
        }
    }

    const SMALL: Rotation = Rotation { file_bytes_max: 10, daily: false, files_max: 2 };

    #[test]
    fn a_full_file_is_followed_by_a_new_one_and_only_so_many_are_kept() {
        let bench = Bench::new();
        let log = bench.log(SMALL, Kept::default());
        for number in 0..9 {
            log.append(format!("line {number}\n").as_bytes());
        }
        let expected = [("s.log", "line 8\n"), ("s.log.1", "line 7\n"), ("s.log.2", "line 6\n")];
        assert_eq!(bench.files(), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));

        // The next process goes on in the same file.
        drop(log);
        let log = bench.log(Rotation { file_bytes_max: 100, ..SMALL }, Kept::default());
        log.append(b"more\n");
        assert_eq!(bench.files()[0].1, "line 8\nmore\n");
    }

    #[test]
    fn nothing_old_is_kept_when_none_may_be() {
        let bench = Bench::new();
        let log = bench.log(Rotation { files_max: 0, ..SMALL }, Kept::default());
        log.append(b"one two three\n");
        log.append(b"four\n");
        assert_eq!(bench.files(), [("s.log".to_owned(), "four\n".to_owned())]);
    }

    #[test]
    fn a_day_begins_a_new_file() {
        let bench = Bench::new();
        let log = bench.log(Rotation { file_bytes_max: 1000, daily: true, files_max: 5 }, Kept::default());
        log.append(b"monday\n");
        log.append(b"monday too\n");
        bench.clock.advance(Duration::from_secs(86_400));
        log.append(b"tuesday\n");
        assert_eq!(bench.files()[0].1, "tuesday\n");
        assert_eq!(bench.files()[1].1, "monday\nmonday too\n");
    }

    #[test]
    fn old_files_go_by_age_and_by_total_size() {
        let bench = Bench::new();
        let many = Rotation { files_max: 100, ..SMALL };
        let log = bench.log(many, Kept { age: None, bytes_max: Some(30) });
        for number in 10..20 {
            log.append(format!("line {number}\n").as_bytes());
        }
        assert_eq!(bench.names(), ["s.log", "s.log.1", "s.log.2"]);

        // The files were written now, by the wall clock; the clock of the test is moved past that.
        drop(log);
        let written = fs::metadata(bench.dir.path().join("logs/s.log")).unwrap().mtime();
        let ahead = Time::from_seconds(written).since(bench.clock.now());
        let log = bench.log(many, Kept { age: Some(Duration::from_secs(86_400)), bytes_max: None });
        bench.clock.advance(ahead + Duration::from_secs(86_300));
        log.append(b"1\n");
        assert_eq!(bench.names().len(), 3);
        bench.clock.advance(Duration::from_secs(3700));
        log.append(b"2\n");
        assert_eq!(bench.names(), ["s.log"]);
    }
}
