//! The connection to Redis: sends commands and scripts, and makes [`StoreError`]s of what goes wrong.
//!
//! One connection is shared by all who use the store. It lives on a thread of its own ([`home`]) and is made again when
//! it is lost: at an error of the network, after a time-out, when the server turns out to be a replica. Meanwhile calls
//! wait for at most [`PATIENCE`] from the loss on, so that a short restart is not noticed, and fail at once after that:
//! nothing queues. Between tries to connect the pauses grow to [`PAUSE_LAST`], so a Redis that is away costs nothing, and
//! one that is back is found soon.
//!
//! Pools have a connection of their own on the runtime of the first of them that claims: claims and ends of runs go out and
//! come back without another thread, which is half of what they take on a small machine. If that runtime ends, the
//! connection is made again on the thread of the others.
//!
//! What was sent when the connection was lost may or may not have been carried out: nothing is sent twice here.

mod answer;
pub(crate) mod home;
mod open;
pub(crate) mod target;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jobservice_core::StoreError;
use jobservice_core::store::Result;
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

pub(crate) use answer::{array, number, text, unexpected};
use home::Home;
pub(crate) use open::Opener;
use open::{Connection, timed_out, within};

use crate::script::Script;

/// For how long after the loss of the connection calls wait for a new one.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pauses between tries to connect: doubled from the first to the last, each shortened at random by up to a quarter.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LAST: Duration = Duration::from_secs(1);

/// How replicas are waited for after what must not be lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicas {
    pub(crate) least: u32,
    pub(crate) timeout: Duration,
}

/// The connection, shared by all who use the store.
#[derive(Clone)]
pub(crate) struct Link {
    line: Arc<Line>,
    /// A second connection for what waits for replicas: waiting holds up a whole connection.
    intake: Option<(Arc<Line>, Replicas)>,
    /// The connection for claims and ends of runs, once there are any.
    of_pools: Arc<OnceCell<Arc<Line>>>,
    /// The number that the first connection had when that one was last known to be as good.
    as_good_as: Arc<AtomicU64>,
    home: Arc<Home>,
}

/// One connection that is made again when it is lost.
struct Line {
    opener: Opener,
    home: Weak<Home>,
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    Up { connection: Connection, number: u64, address: Arc<str> },
    Down { why: RedisError, since: Instant, number: u64 },
}

impl State {
    fn number(&self) -> u64 {
        match self {
            State::Up { number, .. } | State::Down { number, .. } => *number,
        }
    }
}

impl Link {
    /// Connects.
    pub(crate) async fn connect(
        opener: Opener,
        replicas: Option<Replicas>,
        home: Arc<Home>,
    ) -> std::result::Result<Link, RedisError> {
        let line = Line::connect(opener.clone(), &home).await?;
        let intake = match replicas {
            Some(replicas) => Some((Line::connect(opener, &home).await?, replicas)),
            None => None,
        };
        Ok(Link { line, intake, of_pools: Arc::default(), as_good_as: Arc::new(AtomicU64::new(1)), home })
    }

    /// The thread of the connection.
    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Sends one command.
    pub(crate) async fn send(&self, command: &Cmd, during: &'static str) -> Result<Value> {
        self.line.send(command).await.map_err(|error| failed(during, error))
    }

    /// Sends commands of one shard in one round trip; they are not one step.
    pub(crate) async fn pipe(&self, pipeline: &Pipeline, during: &'static str) -> Result<Vec<Value>> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.line.pipe(pipeline).await;
        answers
            .and_then(|answers| answers.into_iter().map(Value::extract_error).collect())
            .map_err(|error| failed(during, error))
    }

    /// Runs a script whose call was begun by [`call`]; gives its text to a server that does not know it.
    pub(crate) async fn run(&self, script: &Script, call: &Cmd, during: &'static str) -> Result<Value> {
        let answer = match self.line.send(call).await {
            Err(error) if is_unknown_script(&error) => self.line.send(&with_text(script, call)).await,
            answer => answer,
        };
        answer.map_err(|error| failed(during, error))
    }

    /// Runs a script on the connection of pools.
    pub(crate) async fn run_for_pool(&self, script: &Script, call: &Cmd, during: &'static str) -> Result<Value> {
        // When the other was lost and made again, so was this in all likelihood: better made again as well than found out by
        // a call that fails.
        let number = self.line.state.borrow().number();
        let is_doubtful = self.as_good_as.swap(number, Ordering::Relaxed) != number && self.of_pools.initialized();
        // Boxed: connecting is deep, and is done once.
        let connect = || Box::pin(Line::connect_here(self.line.opener.clone(), &self.home));
        let line = Box::pin(self.of_pools.get_or_try_init(connect)).await;
        let line = line.map_err(|error| failed(during, error))?;
        if is_doubtful {
            line.lose(None, &timed_out());
        }
        let answer = match line.send(call).await {
            Err(error) if is_unknown_script(&error) => line.send(&with_text(script, call)).await,
            answer => answer,
        };
        answer.map_err(|error| failed(during, error))
    }

    /// Runs a script that takes in what must not be lost: if the store waits for replicas, so does this.
    ///
    /// # Errors
    /// Also if too few replicas have it in time. It was carried out then, and may be lost if the server is.
    pub(crate) async fn run_intake(&self, script: &Script, call: &Cmd, during: &'static str) -> Result<Value> {
        let Some((line, replicas)) = &self.intake else { return self.run(script, call, during).await };
        let (answer, confirmed) = match line.send_and_wait(call, *replicas).await {
            Ok((Err(error), _)) if is_unknown_script(&error) => {
                line.send_and_wait(&with_text(script, call), *replicas).await
            }
            answer => answer,
        }
        .map_err(|error| failed(during, error))?;
        let answer = answer.map_err(|error| failed(during, error))?;
        if number(&confirmed)?.unwrap_or(0) < i64::from(replicas.least) {
            let source = "outcome unknown: no replica has it yet; repeat with the same key";
            return Err(StoreError::Unavailable { during, source: source.into() });
        }
        Ok(answer)
    }

    /// How often it connected so far, to follow: it rises each time that it has connected again.
    pub(crate) fn connections(&self) -> Connections {
        Connections(self.line.state.subscribe())
    }

    /// What it is connected to now, for people; none while it is not.
    pub(crate) fn address(&self) -> Option<Arc<str>> {
        match &*self.line.state.borrow() {
            State::Up { address, .. } => Some(Arc::clone(address)),
            State::Down { .. } => None,
        }
    }
}

/// Follows the connection being lost and made again.
pub(crate) struct Connections(watch::Receiver<State>);

impl Connections {
    /// The number of the connection, if there is one now.
    pub(crate) fn number(&mut self) -> Option<u64> {
        match &*self.0.borrow_and_update() {
            State::Up { number, .. } => Some(*number),
            State::Down { .. } => None,
        }
    }

    /// Resolves when it was lost or made since the last look at [`Connections::number`]; false once there is no store.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Line {
    async fn connect(opener: Opener, home: &Arc<Home>) -> std::result::Result<Arc<Line>, RedisError> {
        let first = opener.clone();
        let opened = home.run(async move { first.open().await }).await;
        let (connection, address) = opened.unwrap_or_else(|| Err(timed_out()))?;
        let state = State::Up { connection, number: 1, address: address.into() };
        Ok(Arc::new(Line { opener, home: Arc::downgrade(home), state: watch::Sender::new(state) }))
    }

    /// Connects on the runtime of the caller, which drives the connection from then on.
    async fn connect_here(opener: Opener, home: &Arc<Home>) -> std::result::Result<Arc<Line>, RedisError> {
        let (connection, address) = opener.open().await?;
        let state = State::Up { connection, number: 1, address: address.into() };
        Ok(Arc::new(Line { opener, home: Arc::downgrade(home), state: watch::Sender::new(state) }))
    }

    /// The time-out of an ordinary call.
    fn limit(&self) -> Duration {
        self.opener.response_timeout
    }

    async fn send(self: &Arc<Self>, command: &Cmd) -> RedisResult<Value> {
        let (mut connection, number) = self.connection().await?;
        let answer = within(self.limit(), connection.send(command)).await;
        self.look_at(&connection, number, answer.as_ref().err());
        answer
    }

    async fn pipe(self: &Arc<Self>, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let (mut connection, number) = self.connection().await?;
        let answers = within(self.limit(), connection.pipe(pipeline)).await;
        self.look_at_all(&connection, number, &answers);
        answers
    }

    /// Sends a script's call, and waits until replicas have what it did. What both answered.
    async fn send_and_wait(
        self: &Arc<Self>,
        call: &Cmd,
        replicas: Replicas,
    ) -> RedisResult<(RedisResult<Value>, Value)> {
        let Some(Arg::Simple(key)) = call.args_iter().nth(3) else {
            return Err(RedisError::from((ErrorKind::Client, "no key")));
        };
        let mut pipeline = redis::pipe();
        pipeline.add_command(call.clone());
        // Never 0, which would mean for ever.
        let timeout = replicas.timeout.as_millis().max(1) as u64;
        pipeline.cmd("WAIT").arg(replicas.least).arg(timeout);
        let (mut connection, number) = self.connection().await?;
        let answers = within(self.limit() + replicas.timeout, connection.pipe_to(key, &pipeline)).await;
        self.look_at_all(&connection, number, &answers);
        let mut answers = answers?.into_iter();
        let (answer, confirmed) = (answers.next().unwrap_or(Value::Nil), answers.next().unwrap_or(Value::Nil));
        Ok((answer.extract_error(), confirmed))
    }

    /// The connection as it is, or as it comes up soon.
    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        let since = match &*self.state.borrow() {
            State::Up { connection, number, .. } => return Ok((connection.clone(), *number)),
            State::Down { since, .. } => *since,
        };
        let mut state = self.state.subscribe();
        let is_up = state.wait_for(|state| matches!(state, State::Up { .. }));
        // The sender is ours: it is there as long as we are.
        drop(tokio::time::timeout_at(since + PATIENCE, is_up).await);
        match &*self.state.borrow() {
            State::Up { connection, number, .. } => Ok((connection.clone(), *number)),
            State::Down { why, .. } => Err(why.clone()),
        }
    }

    fn look_at_all(self: &Arc<Self>, connection: &Connection, number: u64, answers: &RedisResult<Vec<Value>>) {
        match answers {
            Err(error) => self.look_at(connection, number, Some(error)),
            Ok(answers) => {
                for answer in answers {
                    if let Value::ServerError(error) = answer {
                        self.look_at(connection, number, Some(&RedisError::from(error.clone())));
                    }
                }
            }
        }
    }

    /// Makes the connection again if an answer says that it is of no more use.
    fn look_at(self: &Arc<Self>, connection: &Connection, number: u64, error: Option<&RedisError>) {
        if let Some(error) = error.filter(|error| connection.is_lost(error)) {
            self.lose(Some(number), error);
        }
    }

    /// Takes the connection for lost, if it is still that of this number, and makes it again.
    fn lose(self: &Arc<Self>, number: Option<u64>, error: &RedisError) {
        let is_first = self.state.send_if_modified(|state| {
            if matches!(state, State::Down { .. }) || number.is_some_and(|number| state.number() != number) {
                return false;
            }
            *state = State::Down { why: error.clone(), since: now(), number: state.number() };
            true
        });
        if let (true, Some(home)) = (is_first, self.home.upgrade()) {
            tracing::warn!(error = %error, "the connection to redis is lost: {error}; connecting again");
            home.spawn(connect_again(Arc::downgrade(self), self.opener.clone()));
        }
    }
}

/// Connects until it succeeds or nobody needs it any more.
async fn connect_again(line: Weak<Line>, opener: Opener) {
    let began = now();
    let mut pause = PAUSE_FIRST;
    loop {
        let opened = opener.open().await;
        let Some(line) = line.upgrade() else { return };
        match opened {
            Ok((connection, address)) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!("connected to redis at {address} again after {seconds:.1} s");
                line.state.send_modify(|state| {
                    *state = State::Up { connection, number: state.number() + 1, address: address.into() };
                });
                return;
            }
            Err(error) => line.state.send_modify(|state| {
                if let State::Down { why, .. } = state {
                    *why = error;
                }
            }),
        }
        drop(line);
        wait(shortened(pause)).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

/// Shortens a pause at random by up to a quarter: many who lost the same server must not come back together.
pub(crate) fn shortened(pause: Duration) -> Duration {
    let quarter = u32::try_from(pause.as_millis() / 4).unwrap_or(1).max(1);
    // Without randomness they come together, and that is all.
    pause.saturating_sub(Duration::from_millis(u64::from(getrandom::u32().unwrap_or(0) % quarter)))
}

/// Waits between tries.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that waits for time to pass")]
pub(crate) async fn wait(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// Time-outs and pauses are real time, whatever the clock of the service shows.
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The call of a script with its text in place of its hash, which the server keeps: so the text reaches the very server
/// that did not know it, whichever that is.
fn with_text(script: &Script, call: &Cmd) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(&script.text);
    for argument in call.args_iter().skip(2) {
        if let Arg::Simple(argument) = argument {
            command.arg(argument);
        }
    }
    command
}

/// Begins the call of a script on the shard whose keys begin with `prefix`.
pub(crate) fn call(script: &Script, prefix: &str) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&script.hash).arg(1).arg(prefix);
    command
}

/// What an error of the client means to who uses the store.
pub(crate) fn failed(during: &'static str, error: RedisError) -> StoreError {
    if error.code() == Some("OOM") || error.to_string().contains("OOM command not allowed") {
        return StoreError::Full;
    }
    StoreError::Unavailable { during, source: Box::new(error) }
}
