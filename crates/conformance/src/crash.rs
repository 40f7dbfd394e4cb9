//! Processes die: what a store with files was answered with must be there, whole, when it is opened again.
//!
//! Goal: a crash at any point of any write leaves each call done wholly or not at all, and none that was answered undone.
//! Method: the test runs itself again as a child process, which works on a store from a seed, notes each answer in a file,
//! and aborts at a given point of its n-th write; then the parent opens the store, audits it, and compares. (An abort
//! keeps what the kernel has, so this is about the order of steps in the process, not about the disk.)
//!
//! A store's crate says in a test file of its own how such a store is opened:
//!
//! ```ignore
//! jobservice_conformance::crash_suite!(MyCrashing);
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_core::store::Store;

mod lanes;
mod sequence;

/// A kind of store whose process can be made to die at a write.
#[async_trait]
pub trait Crashing: Send + Sync + 'static {
    /// Opens the store in `dir`, which is empty at first. The process is to abort as `abort` says; none: it is not.
    async fn open(&self, dir: &Path, abort: Option<Abort>) -> Arc<dyn Store>;
}

/// When a process is to abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Where in a write.
    pub point: Point,
    /// In the how manyth, from 1, since the store was opened: of calls for [`Point::Applied`], else of commits.
    pub number: u64,
}

/// A point of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A call was applied in a transaction that is still open.
    Applied,
    /// A commit is about to be made.
    BeforeCommit,
    /// A commit was made and nobody has been answered.
    AfterCommit,
    /// The calls of a commit have been answered.
    AfterAnswer,
}

impl Point {
    /// All of them.
    pub const ALL: [Point; 4] = [Point::Applied, Point::BeforeCommit, Point::AfterCommit, Point::AfterAnswer];
}

/// Instantiates the crash tests for a kind of store: `crash_suite!(MyCrashing)`, once, in a test file of its own whose
/// name begins with `crash_`.
#[macro_export]
macro_rules! crash_suite {
    ($crashing:expr) => {
        #[test]
        fn each_call_in_turn_is_done_wholly_or_not_at_all() {
            let test = concat!(module_path!(), "::each_call_in_turn_is_done_wholly_or_not_at_all");
            $crate::crash::in_turn($crashing, test);
        }

        #[test]
        fn each_call_of_a_batch_is_done_wholly_or_not_at_all() {
            let test = concat!(module_path!(), "::each_call_of_a_batch_is_done_wholly_or_not_at_all");
            $crate::crash::in_batches($crashing, test);
        }
    };
}

/// One caller, whose random operations are those of the model test; the store must hold the state after the last
/// answered one, or after the one that was on its way.
pub fn in_turn<C: Crashing>(crashing: C, test: &str) {
    run(&crashing, test, &sequence::Sequence);
}

/// Many callers at once, so that commits hold calls of many: each must find its own last answered step, or the one that
/// was on its way.
pub fn in_batches<C: Crashing>(crashing: C, test: &str) {
    run(&crashing, test, &lanes::Lanes);
}

/// What a child does, and how its parent tells whether it is all there.
#[async_trait]
trait Work {
    /// Works on the store, noting answers in files of `dir`, until done.
    async fn work(&self, store: Arc<dyn Store>, dir: &Path, seed: u64);

    /// Looks at the store that a crash has left.
    async fn check(&self, store: Arc<dyn Store>, dir: &Path, seed: u64) -> Result<(), String>;
}

/// The files of one child: its store, and what it was answered.
const STORE: &str = "store";
/// Tells a child what to do: seed, point, number, directory.
const CHILD: &str = "JOBSERVICE_CRASH_CHILD";

fn run<C: Crashing>(crashing: &C, test: &str, work: &impl Work) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    if let Ok(told) = std::env::var(CHILD) {
        let (seed, abort, dir) = read(&told);
        runtime.block_on(async {
            let store = crashing.open(&dir.join(STORE), Some(abort)).await;
            work.work(store, &dir, seed).await;
        });
        return;
    }
    // The path of a test is without its crate.
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    let mut crashes = 0;
    for seed in crate::counts::seeds(2, 5) {
        for point in Point::ALL {
            crashes += runtime.block_on(crash_at_each(crashing, test, work, seed, point));
        }
    }
    println!("{crashes} crashes survived");
    assert!(crashes > 0, "no child crashed: does the store heed `Abort`?");
}

/// Crashes children later and later until one gets through; every time in a soak, else with growing steps. Answers how
/// often.
async fn crash_at_each<C: Crashing>(crashing: &C, test: &str, work: &impl Work, seed: u64, point: Point) -> u64 {
    let mut number = 1;
    for crashes in 0.. {
        let dir = scratch();
        std::fs::create_dir_all(dir.0.join(STORE)).expect("a directory for the store");
        let abort = Abort { point, number };
        let output = child(test, &told(seed, abort, &dir.0));
        if output.status.success() {
            return crashes;
        }
        let died_as_told = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(SIGABRT);
        assert!(died_as_told, "seed {seed}, {abort:?}: the child failed\n{}", shown(&output));

        let store = crashing.open(&dir.0.join(STORE), None).await;
        let wrong = store.audit().await.expect("the store can be audited");
        assert!(wrong.is_empty(), "seed {seed}, {abort:?}: the audit found:\n{}", wrong.join("\n"));
        if let Err(wrong) = work.check(store, &dir.0, seed).await {
            panic!("seed {seed}, {abort:?}: {wrong}");
        }
        number += if crate::counts::is_soak() { 1 } else { 1 + number / 2 };
    }
    unreachable!("the loop has no end of its own")
}

const SIGABRT: i32 = 6;

fn child(test: &str, told: &str) -> Output {
    let program = std::env::current_exe().expect("the test knows its own program");
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(CHILD, told);
    command.output().expect("the test can run itself")
}

fn told(seed: u64, abort: Abort, dir: &Path) -> String {
    let point = Point::ALL.iter().position(|point| *point == abort.point).expect("it is one of them");
    format!("{seed} {point} {} {}", abort.number, dir.display())
}

fn read(told: &str) -> (u64, Abort, PathBuf) {
    let mut parts = told.splitn(4, ' ');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).expect("a number from the parent");
    let (seed, point, number) = (number(), number(), number());
    let abort = Abort { point: Point::ALL[point as usize], number };
    (seed, abort, PathBuf::from(parts.next().expect("a directory from the parent")))
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Counts answers in a file that outlives the process: one byte each. What is written is with the kernel, and an abort
/// does not take it back.
struct Noted(File);

impl Noted {
    fn open(path: &Path) -> Noted {
        Noted(OpenOptions::new().create(true).append(true).open(path).expect("a file for the answers"))
    }

    fn note(&mut self) {
        self.0.write_all(b".").expect("the answer can be noted");
    }

    /// How many were noted in this file.
    fn count(path: &Path) -> usize {
        std::fs::metadata(path).map_or(0, |file| file.len() as usize)
    }
}

/// A directory that goes with its value, also when a check fails: what is needed then is in the message.
struct Scratch(PathBuf);

fn scratch() -> Scratch {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("jobservice-crash-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    Scratch(dir)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it is only untidy.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
