//! What Redis answered, read as what the caller expects.

use jobservice_core::StoreError;
use jobservice_core::store::Result;
use redis::Value;

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
