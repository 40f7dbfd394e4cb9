//! The cases: one promise each, grouped by verb.
//!
//! A group is a file. At its head stands the list of its cases, which is its table of contents; a function that is not in
//! the list is dead code, and the compiler refuses it. `groups!` names the files once and makes [`suite!`](crate::suite)
//! of them, so a store cannot leave out a case or a group.

/// Turns the cases of a group into what [`suite!`](crate::suite) instantiates. The first token is a `$`, which a macro
/// that writes a macro cannot write itself. `on n threads`: each case runs on that many threads instead of the test's.
macro_rules! cases {
    ($d:tt $group:ident: $($case:ident),+ $(,)?) => {
        $crate::cases::cases! { $d $group on 0 threads: $($case),+ }
    };
    ($d:tt $group:ident on $threads:literal threads: $($case:ident),+ $(,)?) => {
        /// Each case on a store of its own, with the audit at its end.
        #[doc(hidden)]
        pub mod run {
            $(
                #[doc = stringify!($case)]
                pub fn $case<F: $crate::Factory>(factory: F) {
                    $crate::bench::run(factory, $threads, super::$case);
                }
            )+
        }

        #[doc(hidden)]
        #[macro_export]
        macro_rules! $group {
            ($d factory:expr) => {
                $(
                    #[test]
                    fn $case() {
                        $d crate::cases::$group::run::$case($d factory);
                    }
                )+
            };
        }
    };
}
pub(crate) use cases;

macro_rules! groups {
    ($d:tt $($(#[$doc:meta])* $group:ident),+ $(,)?) => {
        $($(#[$doc])* pub mod $group;)+

        /// Runs every case on the stores of a factory: `suite!(MyFactory::new())`, once, at the top of a test file. The
        /// expression is evaluated anew for each case.
        #[macro_export]
        macro_rules! suite {
            ($d factory:expr) => {
                $(
                    mod $group {
                        #[allow(unused_imports, reason = "the factory may be named by a full path")]
                        use super::*;
                        $d crate::$group! { $d factory }
                    }
                )+
            };
        }
    };
}

groups! { $
    /// Jobs come in.
    insert,
    /// Jobs are taken.
    claim,
    /// Leases live.
    extend,
    /// Runs end.
    finish,
    /// Jobs are given back.
    release,
    /// People steer.
    control,
    /// The same to many.
    act,
    /// Jobs become due.
    promote,
    /// Runs are taken back.
    reap,
    /// What is past its time goes.
    prune,
    /// The store is kept below a size.
    shrink,
    /// Periodic jobs.
    policies,
    /// Ticks.
    fire,
    /// Executions and sub jobs.
    executions,
    /// Hook events.
    outbox,
    /// What became of them.
    deliveries,
    /// People look at many.
    list,
    /// Names, their options, and why their jobs wait.
    names,
    /// What happened when.
    minutes,
    /// Nodes give signs of life.
    nodes,
    /// Who waits is woken.
    notices,
    /// Threads meet.
    race,
    /// Many callers want the same.
    crowd,
    /// Answers are lost.
    lost_answers,
    /// Random operations.
    random,
}
