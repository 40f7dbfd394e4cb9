//! One write on its way to the writer and its answer on the way back.
//!
//! A call is applied inside a transaction and answered only after the commit. When a transaction is rolled back, its
//! calls may be applied again in another one; so a step borrows its input and must leave nothing behind but what it
//! writes through the session.

use jobservice_core::StoreError;
use tokio::sync::oneshot;

use crate::session::Session;

/// Why a step failed. What the state of a job forbids is no failure but an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// SQLite said no.
    #[error(transparent)]
    Engine(#[from] rusqlite::Error),
    /// A record cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// What a call is worth when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Brings something new in: the first to be refused.
    Intake,
    /// Takes jobs to run: goes last in a batch, so that it sees what the rest of the batch brought.
    Claim,
    /// Keeps the service going: promote, extend, beat.
    Upkeep,
    /// Lets what is there come to its end, or makes room: the last to be refused.
    Ending,
}

/// A write with its input, whatever the two are.
pub(crate) trait Call: Send {
    fn class(&self) -> Class;
    /// The verb, for errors.
    fn during(&self) -> &'static str;
    /// Does the write inside the open transaction and keeps the answer.
    fn apply(&mut self, session: &mut Session<'_>) -> Result<(), Failure>;
    /// Gives the answer kept, or the error.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// Where an answer goes to.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(crate) struct Write<F, T> {
    pub(crate) class: Class,
    pub(crate) during: &'static str,
    pub(crate) step: F,
    pub(crate) answer: Option<T>,
    pub(crate) reply: Reply<T>,
}

impl<F, T> Call for Write<F, T>
where
    F: FnMut(&mut Session<'_>) -> Result<T, Failure> + Send,
    T: Send,
{
    fn class(&self) -> Class {
        self.class
    }

    fn during(&self) -> &'static str {
        self.during
    }

    fn apply(&mut self, session: &mut Session<'_>) -> Result<(), Failure> {
        self.answer = Some((self.step)(session)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (outcome, self.answer) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(answer)) => Ok(answer),
            (Ok(()), None) => {
                Err(StoreError::Damaged { what: "a call was committed without being applied".to_owned() })
            }
        };
        // Whoever asked may have gone; the write stands all the same.
        drop(self.reply.send(answer));
    }
}
