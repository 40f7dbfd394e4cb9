//! The fetcher: one loop that claims jobs, hands them to the runners, and reports how they ended.
//!
//! It talks to the store in rounds. A round carries what ended since the last one together with the claim for the
//! slots that are free, so that both ride one commit; the next round begins when the answers of this one are there. A store
//! that is far away gets a second round while it works on the first, each for its share of the slots
//! ([`jobservice_core::Store::rounds`]), and not in the same moment as the first ([`STAGGER`]). Nothing waits for a timer: the
//! slower the store, the larger the rounds.
//!
//! What it never does: start a job twice (a lost answer of a claim is the keeper's business), forget an outcome (a report
//! that was not answered goes again, the store gives the same answer), claim while outcomes cannot be reported (so what it
//! has to remember stays bounded by its slots).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jobservice_core::store::{Claim, Finished, NameAsk, StoreError};
use jobservice_core::{Job, limits};
use tokio::sync::watch;
use tokio::time::Instant;

use super::round::{Answers, Round, is_for_good};
use super::table::Table;
use super::{Counters, Phase, runner};
use crate::Registry;
use crate::env::Env;
use crate::run::{Ended, Ending, Interrupt, Run};
use crate::wait::Backoff;
use crate::watchdog::Fatal;

/// How often it asks for jobs although nothing told of any: notices may be lost.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// Runners for a fresh batch: as many as run side by side on a small machine. More come by themselves as soon as these
/// wait for something, or are held up.
const RUNNERS: usize = 2;

/// How soon it looks after busy runners, at first; doubled up to [`WATCH_LAST`] while nothing moves.
const WATCH_FIRST: Duration = Duration::from_millis(1);
const WATCH_LAST: Duration = Duration::from_millis(64);

/// Jobs that a round must at least have room for, if it is not to be the only one.
const SHARE_MIN: usize = 5;

/// Two rounds that leave in one moment are read, and answered, together. Then the store has nothing to do until both have
/// run here, whereupon they leave together again, and so for ever: a fourth of its time was lost. Whatever could leave within
/// this time after another waits until an answer, or something else, wakes the loop; and from then on the store works on one
/// while the other runs here.
///
/// Longer than the runners of one batch end after one another (some 10 microseconds), shorter than it takes from an answer
/// until the first of its jobs has ended (some 35).
const STAGGER: Duration = Duration::from_micros(25);

/// How long it tries to report the last outcomes at the end.
///
/// Longer than an ill log may hold back the report of a run that ended with the last of the grace (2 s); and grace,
/// this and the end of the connections together stay below the 30 s after which container runtimes kill.
const FLUSH: Duration = Duration::from_secs(3);

/// The fetcher of a pool.
pub(crate) struct Fetcher {
    pub(crate) env: Arc<Env>,
    pub(crate) table: Arc<Table>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) asks: Arc<[NameAsk]>,
    pub(crate) jobs: tokio::runtime::Handle,
    pub(crate) counters: Arc<Counters>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Tells the keeper that a claim may have gone through without us knowing.
    pub(crate) lost_claim: Arc<tokio::sync::Notify>,
    pub(crate) fatal: Fatal,
    /// Runs that it may have at once: the slots and what is fetched ahead.
    pub(crate) held_max: usize,
    pub(crate) stuck_max: StuckMax,
}

/// How much stuck code it takes that no more jobs are claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StuckMax {
    /// Of async jobs: each holds a thread of the runtime.
    pub(crate) in_async: usize,
    /// Of blocking jobs: each holds one of the threads beside it.
    pub(crate) blocking: usize,
}

/// What the loop knows from one turn to the next.
struct Turn {
    /// Claimed and not ended.
    held: usize,
    /// Asked for by claims that are not answered yet.
    asked: usize,
    /// Whether one of them may bring a suspect.
    asked_suspect: bool,
    /// Reports on their way.
    reporting: usize,
    /// Ended and not yet on their way to the store.
    ended: Vec<Ended>,
    /// There may be jobs to claim: a slot became free, or somebody told of jobs.
    hungry: bool,
    /// The last claim left slots to the next. Not the same: when a claim finds less than it asked for this is over, but
    /// what was told meanwhile is not.
    more: bool,
    /// When the last round left.
    begun_at: Instant,
    /// When it asks for jobs although nothing told of any. Kept over turns: what wakes the loop more often must not push
    /// it away.
    claim_at: Instant,
    /// Not before this instant: the store failed.
    quiet_until: Option<Instant>,
    backoff: Backoff,
    /// The store failed, and that was said.
    told: bool,
    /// Reports go one by one: one of them makes the batch fail.
    one_by_one: bool,
    watch: Duration,
    /// Runs started, when it last looked after the runners.
    seen_started: u64,
}

type InFlight = Pin<Box<dyn Future<Output = Answers> + Send>>;

impl Fetcher {
    /// Runs until the pool is told to end and everything is reported or given back, or the time for that is over.
    pub(crate) async fn run(mut self) {
        let mut turn = Turn {
            held: 0,
            asked: 0,
            asked_suspect: false,
            reporting: 0,
            ended: Vec::new(),
            hungry: true,
            more: false,
            begun_at: now(),
            claim_at: now() + CLAIM_EVERY,
            quiet_until: None,
            backoff: Backoff::default(),
            told: false,
            one_by_one: false,
            watch: WATCH_FIRST,
            seen_started: 0,
        };
        let mut in_flight: FuturesUnordered<InFlight> = FuturesUnordered::new();
        let rounds = self.env.store.rounds().max(1);
        let mut draining_until: Option<Instant> = None;
        let env = Arc::clone(&self.env);
        // Registered before the first look, and again each time before the next: what comes between a look and a wait
        // would be slept through. Kept over turns, so that one that came together with something else is not dropped.
        tokio::pin! {
            let ready = env.store.notices().ready();
        }
        loop {
            let news = env.board.news();
            let before = turn.ended.len();
            let busy = self.env.board.take_ended(&mut turn.ended);
            let ended = turn.ended.len() - before;
            turn.held -= ended;
            // A slot that is free again, or a name below its limit again, may be filled at once.
            turn.hungry |= ended > 0;
            if busy.started != turn.seen_started {
                (turn.seen_started, turn.watch) = (busy.started, WATCH_FIRST);
            }

            let phase = *self.phase.borrow_and_update();
            if draining_until.is_none()
                && let Phase::Draining { grace } = phase
            {
                draining_until = Some(now() + grace + FLUSH);
                self.drain(grace);
                continue;
            }
            while in_flight.is_empty() || (in_flight.len() < rounds && turn.begun_at.elapsed() >= STAGGER) {
                let Some(round) = self.next_round(&mut turn, rounds, draining_until.is_some()) else { break };
                turn.begun_at = now();
                in_flight.push(round);
            }
            if let Some(until) = draining_until
                && (now() >= until || self.is_through(&turn, !in_flight.is_empty()))
            {
                self.say_what_is_left(&turn);
                return;
            }

            let watch_at = (busy.runners > 0).then(|| now() + turn.watch);
            if now() >= turn.claim_at {
                turn.hungry = true;
                turn.claim_at = now() + CLAIM_EVERY;
                continue;
            }
            let wake_at = [watch_at, draining_until, turn.quiet_until.filter(|_| in_flight.is_empty())]
                .into_iter()
                .flatten()
                .fold(turn.claim_at, Instant::min);
            tokio::select! {
                Some(answers) = in_flight.next() => {
                    self.take_answers(&mut turn, answers, draining_until.is_some());
                }
                () = news => {}
                () = &mut ready => {
                    turn.hungry = true;
                    ready.set(env.store.notices().ready());
                }
                () = tokio::time::sleep_until(wake_at) => {
                    if watch_at == Some(wake_at) {
                        self.look_after_runners(&mut turn);
                    }
                    turn.quiet_until = turn.quiet_until.filter(|until| now() < *until);
                }
                changed = self.phase.changed(), if draining_until.is_none() => {
                    // Nobody is left who could end the pool in order: end it.
                    if changed.is_err() {
                        draining_until = Some(now() + FLUSH);
                        self.drain(Duration::ZERO);
                    }
                }
            }
        }
    }

    /// What is to be told to and asked of the store now, if anything.
    fn next_round(&mut self, turn: &mut Turn, rounds: usize, draining: bool) -> Option<InFlight> {
        if turn.quiet_until.is_some() || self.fatal.borrow().is_some() {
            return None;
        }
        let mut round = Round::default();
        let most = if turn.one_by_one { 1 } else { self.share(rounds) };
        let mut told = 0;
        let take = turn.ended.iter().take_while(|ended| {
            told += usize::from(!matches!(ended.ending, Ending::Nothing));
            told <= most
        });
        let take = take.count();
        for Ended { run, ending } in turn.ended.drain(..take) {
            match ending {
                Ending::Report(outcome) => round.reports.push((run, outcome)),
                Ending::Release => round.releases.push(run),
                // Nothing to report: the lease is lost.
                Ending::Nothing => {
                    self.table.remove([&run]);
                    self.counters.lost(1);
                }
            }
        }

        // While outcomes cannot be reported no more jobs are taken: what has to be remembered stays bounded.
        let unreported = turn.reporting > 0 || !round.reports.is_empty() || !turn.ended.is_empty();
        let reports_fail = turn.told && unreported;
        if !draining && (turn.hungry || turn.more) && !reports_fail && (turn.ended.is_empty() || !turn.one_by_one) {
            round.claim = self.claim(turn, rounds);
        }
        if round.is_empty() {
            return None;
        }
        turn.reporting += round.reports.len();
        if let Some(claim) = &round.claim {
            self.table.claiming(claim.nonce);
            turn.asked_suspect |= claim.suspects;
            turn.asked += claim.slots as usize;
            // What becomes ready from here on may come too late for this claim, and makes the next; so do free slots that
            // it leaves to the next.
            turn.hungry = false;
            turn.more = turn.held + turn.asked < self.held_max;
        }
        Some(Box::pin(round.go(Arc::clone(&self.env.store), Arc::clone(&self.env.clock))))
    }

    /// How many slots a round is for. In a small pool for all: more calls would cost more than waiting.
    fn share(&self, rounds: usize) -> usize {
        if self.held_max >= rounds * SHARE_MIN { self.held_max.div_ceil(rounds) } else { self.held_max }
    }

    fn claim(&self, turn: &Turn, rounds: usize) -> Option<Claim> {
        // An idle pool asks once for all.
        let share = if turn.held > 0 { self.share(rounds) } else { self.held_max };
        let free = self.held_max.saturating_sub(turn.held + turn.asked).min(share);
        if free == 0 || self.is_held_up() {
            return None;
        }
        // Without randomness no lease would be unforgeable: better no job than that. The next look tries again.
        let (nonce, seed) = match (getrandom::u64(), getrandom::u64()) {
            (Ok(nonce), Ok(seed)) => (nonce, seed),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(error = %error, "no jobs are claimed: the system gives no random numbers");
                return None;
            }
        };
        Some(Claim {
            pool: self.env.pool.clone(),
            names: Arc::clone(&self.asks),
            slots: u32::try_from(free).unwrap_or(u32::MAX),
            // One at a time: a claim that is on its way may bring one.
            suspects: !turn.asked_suspect && !self.table.has_suspect(),
            nonce,
            seed,
            until: self.env.clock.now() + limits::LEASE,
            grace: self.env.grace,
        })
    }

    /// Whether stuck code holds so many threads that a job could wait for one.
    fn is_held_up(&self) -> bool {
        let (board, most) = (&self.env.board, self.stuck_max);
        let is_held_up = board.stuck_of(false) >= most.in_async || board.stuck_of(true) >= most.blocking;
        if board.held_up(is_held_up) {
            if is_held_up {
                let stuck = board.stuck();
                tracing::error!(
                    stuck,
                    "no more jobs are claimed: {stuck} threads are held by jobs that were given up and do not end; restart"
                );
            } else {
                tracing::info!("jobs are claimed again: threads that were held have become free");
            }
        }
        is_held_up
    }

    fn take_answers(&self, turn: &mut Turn, answers: Answers, draining: bool) {
        let mut trouble = None;
        turn.reporting -= answers.reports.len();
        let reports = answers.reports.into_iter().map(|(run, outcome)| (run, Ending::Report(outcome)));
        self.settle_reports(turn, reports.collect(), answers.finished, &mut trouble);
        let releases = answers.releases.into_iter().map(|run| (run, Ending::Release));
        self.settle_reports(turn, releases.collect(), answers.released, &mut trouble);
        if let Some((claim, jobs)) = answers.claim {
            turn.asked -= claim.slots as usize;
            turn.asked_suspect &= !claim.suspects;
            match jobs {
                Ok(jobs) => {
                    // Fewer than were asked for: there were no more that we may have. A notice tells of the next one.
                    if jobs.len() >= claim.slots as usize {
                        turn.hungry = true;
                    } else {
                        turn.more = false;
                    }
                    turn.held += jobs.len();
                    self.begin(turn, claim.nonce, jobs, draining);
                }
                Err(error) => {
                    // The claim may have gone through: the keeper finds its leases and gives them back.
                    drop(self.table.claimed(claim.nonce, &[]));
                    self.lost_claim.notify_one();
                    turn.hungry = true;
                    trouble = Some(error);
                }
            }
        }
        match trouble {
            None => {
                if std::mem::take(&mut turn.told) {
                    tracing::info!("the store of the jobs answers again");
                }
                turn.backoff.reset();
            }
            Some(error) => self.store_failed(turn, &error),
        }
    }

    fn store_failed(&self, turn: &mut Turn, error: &StoreError) {
        if is_for_good(error) {
            tracing::error!(error = %error, "the store of the jobs is closed: no jobs run any more");
            self.fatal.send_replace(Some(error.to_string().into()));
            return;
        }
        if !std::mem::replace(&mut turn.told, true) {
            tracing::warn!(error = %error, source = ?std::error::Error::source(error), "the store of the jobs fails, trying on");
        }
        // Rounds that were under way together fail together: that is one failure.
        if turn.quiet_until.is_none() {
            turn.quiet_until = Some(now() + turn.backoff.step());
        }
    }

    /// Takes the answers to reports; those that were not answered go again.
    fn settle_reports(
        &self,
        turn: &mut Turn,
        sent: Vec<(Arc<Run>, Ending)>,
        answers: Result<Vec<Finished>, StoreError>,
        trouble: &mut Option<StoreError>,
    ) {
        if sent.is_empty() {
            return;
        }
        match answers {
            Ok(answers) => {
                turn.one_by_one &= !turn.ended.is_empty();
                self.counters.finished(sent.len());
                for ((run, _), answer) in sent.iter().zip(answers) {
                    if answer == Finished::LeaseLost {
                        self.counters.lost(1);
                        tracing::warn!(
                            job.id = %run.job().id, attempt = run.lease().attempt,
                            "the end of a run of job {} does not count: its lease was lost", run.job().id
                        );
                    }
                }
                self.table.remove(sent.iter().map(|(run, _)| run));
                // The claim that went with this report could not ask for the next suspect yet.
                turn.hungry |= sent.iter().any(|(run, _)| run.is_suspect());
            }
            Err(error) => {
                let batch = sent.len();
                if batch == 1 && matches!(error, StoreError::Damaged { .. } | StoreError::Invalid(_)) {
                    // Trying again would not help, and this one must not hold up the others for ever. The lease is not
                    // extended any more, nor given back: the work is done, and the reaper comes soon enough.
                    for (run, _) in &sent {
                        let id = &run.job().id;
                        tracing::error!(job.id = %id, error = %error, "the end of a run of job {id} cannot be stored");
                    }
                    self.table.abandon(sent.iter().map(|(run, _)| run), self.env.clock.now());
                    return;
                }
                // One bad record may make the whole batch fail: find out by sending them one by one.
                turn.one_by_one =
                    matches!(error, StoreError::Contended { .. } | StoreError::Damaged { .. } | StoreError::Invalid(_));
                let again = sent.into_iter().map(|(run, ending)| Ended { run, ending });
                turn.ended.extend(again);
                *trouble = Some(error);
            }
        }
    }

    /// Hands claimed jobs to the runners.
    fn begin(&self, turn: &mut Turn, nonce: u64, jobs: Vec<Job>, draining: bool) {
        let claimed = jobs.len();
        let mut runs = Vec::with_capacity(claimed);
        for job in jobs {
            let id = job.id.clone();
            let entry = self.registry.entry(&job.spec.name).cloned();
            if let Some(run) = entry.and_then(|entry| Run::new(job, entry, Arc::clone(&self.env))) {
                runs.push(run);
                continue;
            }
            turn.held -= 1;
            tracing::error!(job.id = %id, "the store gave out job {id}, which is not ours to run");
        }
        self.counters.claimed(runs.len());
        let now = self.env.clock.now();
        for (run, signal) in self.table.claimed(nonce, &runs) {
            run.ask_to_end(signal.into(), now + self.env.grace);
        }
        if draining {
            for run in &runs {
                run.ask_to_end(Interrupt::Shutdown, now);
            }
            return;
        }
        let runners = self.env.board.add(runs, RUNNERS);
        runner::spawn(&self.jobs, &self.env, runners);
    }

    /// Runs wait although slots are free, and nothing has moved for a moment: the runners are held up by code that does
    /// not yield. More of them take over.
    fn look_after_runners(&self, turn: &mut Turn) {
        let runners = self.env.board.double_runners();
        runner::spawn(&self.jobs, &self.env, runners);
        turn.watch = (turn.watch * 2).min(WATCH_LAST);
    }

    /// Asks all runs to end within the grace; those that have not begun go back at once.
    fn drain(&self, grace: Duration) {
        let until = self.env.clock.now() + grace;
        for run in self.table.runs() {
            run.ask_to_end(Interrupt::Shutdown, until);
        }
        self.table.look_by(until);
    }

    /// Whether nothing is left to do for a pool that ends.
    fn is_through(&self, turn: &Turn, in_flight: bool) -> bool {
        let told_all = turn.held == 0 && turn.ended.is_empty();
        !in_flight && (told_all || self.fatal.borrow().is_some())
    }

    fn say_what_is_left(&self, turn: &Turn) {
        let left = self.table.len();
        if left > 0 {
            tracing::warn!(
                left,
                unreported = turn.ended.len(),
                "{left} runs could not be reported or given back: they run again when their leases expire"
            );
        }
    }
}

/// Pauses between tries and the deadline of a shutdown are real time, whatever the clock of the service shows.
fn now() -> Instant {
    Instant::now()
}
