//! What handlers take out of a request beside its body: the id of the path, the parameters of the query.

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use jobservice_core::{JobId, Name, limits};

use super::error::{ApiError, Invalid};

/// The id in a path. Nothing that is not well-formed gets past here, so ids are safe in file names and queries.
#[derive(Debug)]
pub(super) struct Id(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Invalid::new("path", "it is not UTF-8", "escape the id properly"))?;
        let id = params.iter().find(|(key, _)| *key == "id").map_or("", |(_, id)| id);
        Ok(Id(JobId::new(id)?))
    }
}

/// The key of a schedule in a path.
#[derive(Debug)]
pub(super) struct Key(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Key, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Invalid::new("path", "it is not UTF-8", "escape the key properly"))?;
        let key = params.iter().find(|(name, _)| *name == "key").map_or("", |(_, key)| key);
        if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
            let remedy = format!("give 1 to {} bytes", limits::KEY_BYTES_MAX);
            return Err(Invalid::new("path", "the key is empty or too long", remedy).into());
        }
        Ok(Key(key.to_owned()))
    }
}

/// The number of a hook event in a path, beside the job's id.
#[derive(Debug)]
pub(super) struct Seq(pub(super) u32);

impl<S: Send + Sync> FromRequestParts<S> for Seq {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Seq, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Invalid::new("path", "it is not UTF-8", "escape it properly"))?;
        let seq = params.iter().find(|(key, _)| *key == "seq").map_or("", |(_, seq)| seq);
        let parsed = seq.parse().ok().filter(|seq| *seq > 0);
        let found: String = seq.chars().take(20).collect();
        let remedy = "give the number of an event, 1 or more";
        parsed.map(Seq).ok_or_else(|| Invalid::new("path seq", format!("it is {found:?}"), remedy).into())
    }
}

/// The name in a path.
#[derive(Debug)]
pub(super) struct QueueName(pub(super) Name);

impl<S: Send + Sync> FromRequestParts<S> for QueueName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<QueueName, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Invalid::new("path", "it is not UTF-8", "escape the name properly"))?;
        let name = params.iter().find(|(key, _)| *key == "name").map_or("", |(_, name)| name);
        let name =
            Name::new(name).map_err(|error| Invalid::new("path", error.to_string(), "give the name of a job"))?;
        Ok(QueueName(name))
    }
}

/// The parameters of a query that are still unread. Those that nobody reads are refused: a filter that is mistyped and
/// passed over would show jobs that were not asked for.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    /// What stands before a parameter's name in messages.
    place: &'static str,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Params, ApiError> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(Params::of(Vec::new(), "query "));
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| Invalid::new("query", error.to_string(), "escape it properly"))?;
        let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if let Some([twice, _]) = keys.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(Invalid::new(format!("query {twice}"), "it is given twice", "give it once").into());
        }
        Ok(Params::of(pairs, "query "))
    }
}

impl Params {
    /// Parameters that stand elsewhere than in a query.
    pub(super) fn of(pairs: Vec<(String, String)>, place: &'static str) -> Params {
        Params { pairs, place }
    }

    /// Takes a parameter.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// Takes a parameter and reads it.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        read(&text).map(Some).ok_or_else(|| {
            let found: String = text.chars().take(80).collect();
            Invalid::new(format!("{}{name}", self.place), format!("it is {found:?}"), format!("give {expected}")).into()
        })
    }

    /// Takes a parameter that is true, false, or given without a value.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let flag = self.read(name, "true or false", |text| match text {
            "true" | "1" | "" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?;
        Ok(flag.unwrap_or(false))
    }

    /// Refuses what nobody took.
    pub(super) fn none_left(self, known: &[&str]) -> Result<(), ApiError> {
        let Params { pairs, place } = self;
        let Some((key, _)) = pairs.into_iter().next() else { return Ok(()) };
        let key: String = key.chars().take(80).collect();
        let remedy =
            if known.is_empty() { "leave it out".to_owned() } else { format!("known are {}", known.join(", ")) };
        Err(Invalid::new(format!("{place}{key}"), "it is not known here", remedy).into())
    }
}
