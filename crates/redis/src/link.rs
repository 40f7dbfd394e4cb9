//! The connection to Redis: sends commands and scripts, and makes [`StoreError`]s of what goes wrong.

use std::sync::Arc;

use jobservice_core::StoreError;
use jobservice_core::store::Result;
use redis::aio::ConnectionManager;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};

use crate::script::Script;

/// One connection, shared by all who use the store.
#[derive(Clone)]
pub(crate) struct Link {
    manager: ConnectionManager,
}

impl Link {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> std::result::Result<Link, RedisError> {
        let client = redis::Client::open(url)?;
        Ok(Link { manager: ConnectionManager::new(client).await? })
    }

    /// Sends one command.
    pub(crate) async fn send(&self, command: &Cmd, during: &'static str) -> Result<Value> {
        self.manager.clone().send_packed_command(command).await.map_err(|error| failed(during, error))
    }

    /// Sends commands in one round trip; they are not one step.
    pub(crate) async fn pipe(&self, pipeline: &Pipeline, during: &'static str) -> Result<Vec<Value>> {
        let count = pipeline.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let answers = self.manager.clone().send_packed_commands(pipeline, 0, count).await;
        answers
            .and_then(|answers| answers.into_iter().map(Value::extract_error).collect())
            .map_err(|error| failed(during, error))
    }

    /// Runs a script whose call was begun by [`call`]; loads it if the server does not know it.
    pub(crate) async fn run(&self, script: &Script, call: &Cmd, during: &'static str) -> Result<Value> {
        let mut manager = self.manager.clone();
        let answer = manager.send_packed_command(call).await.and_then(Value::extract_error);
        match answer {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(&script.text);
                manager.send_packed_command(&load).await.map_err(|error| failed(during, error))?;
                let answer = manager.send_packed_command(call).await.and_then(Value::extract_error);
                answer.map_err(|error| failed(during, error))
            }
            answer => answer.map_err(|error| failed(during, error)),
        }
    }
}

/// Begins the call of a script on the shard whose keys begin with `prefix`.
pub(crate) fn call(script: &Script, prefix: &str) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&script.hash).arg(1).arg(prefix);
    command
}

fn failed(during: &'static str, error: RedisError) -> StoreError {
    if error.code() == Some("OOM") || error.to_string().contains("OOM command not allowed") {
        return StoreError::Full;
    }
    StoreError::Unavailable { during, source: Box::new(Arc::new(error)) }
}

/// An answer that is not what the command promises.
pub(crate) fn unexpected(during: &str, value: &Value) -> StoreError {
    StoreError::Damaged { what: format!("{during}: unexpected answer {value:?}") }
}

/// A text in an answer; none if it is nil.
pub(crate) fn text(value: &Value) -> Result<Option<&str>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(StoreError::Damaged { what: "text that is not UTF-8".to_owned() }),
        },
        Value::SimpleString(text) => Ok(Some(text)),
        other => Err(unexpected("text", other)),
    }
}

/// A whole number in an answer; scores come as text, maybe with an exponent.
pub(crate) fn number(value: &Value) -> Result<Option<i64>> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(number) => Ok(Some(*number)),
        Value::Double(number) => Ok(Some(*number as i64)),
        other => match text(other)?.map(str::parse::<f64>) {
            Some(Ok(number)) => Ok(Some(number as i64)),
            _ => Err(unexpected("number", other)),
        },
    }
}

/// The members of an array in an answer.
pub(crate) fn array(value: &Value) -> Result<&[Value]> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        Value::Nil => Ok(&[]),
        other => Err(unexpected("array", other)),
    }
}
