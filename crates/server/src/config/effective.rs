//! The values in effect and where each came from, for people: secrets are masked, and never reach this far unmasked.

use jobservice_redis::Target;
use serde_json::{Value as Json, json};

use super::options::{Form, OPTIONS, Opt, SECRET_ENV, Use};
use super::reference;
use super::yaml::{self, Node, Value};

/// What stands for a secret.
pub(crate) const MASK: &str = "********";

/// A key with one of these words in it is taken for that of a secret.
const SECRET_WORDS: [&str; 8] = ["pass", "pwd", "secret", "token", "credential", "private", "key", "auth"];

/// Where an option that nobody gave gets its value.
const FROM_DEFAULT: &str = "default";

/// What was given for an option.
pub(super) trait Origin {
    /// The value and its place, if the option was given.
    fn given(&self, path: &str) -> Option<(Value, String)>;
}

/// All values in effect, in the order of the list of options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effective {
    /// None for a default of the list: it is read only when somebody looks, as a service that starts need not read any.
    values: Vec<(&'static Opt, Option<Value>, String)>,
    /// Where the secret comes from.
    secret_from: String,
}

impl Effective {
    /// Collects them. `derived` are the values of options whose defaults depend on others.
    pub(super) fn new(origin: &dyn Origin, derived: &[(&str, String)], has_secret: bool) -> Effective {
        let mut values = Vec::new();
        for option in OPTIONS.iter().filter(|option| option.used == Use::Served) {
            let derived = derived.iter().find(|(path, _)| *path == option.path);
            let (value, from) = match (origin.given(option.path), derived) {
                (Some((value, from)), _) => (Some(masked(option, value)), from),
                (None, Some((_, text))) => (Some(masked(option, Value::Scalar(text.clone()))), FROM_DEFAULT.to_owned()),
                (None, None) if option.default.is_empty() => continue,
                (None, None) => (None, FROM_DEFAULT.to_owned()),
            };
            values.push((option, value, from));
        }
        let secret_from =
            if has_secret { format!("variable {SECRET_ENV}") } else { "generated, in the data directory".to_owned() };
        Effective { values, secret_from }
    }

    fn values(&self) -> impl Iterator<Item = (&'static Opt, Value, &str)> {
        self.values.iter().map(|(option, value, from)| {
            let value = value.clone().unwrap_or_else(|| masked(option, default_of(option)));
            (*option, value, from.as_str())
        })
    }

    /// As a file that could be given with `-c`, each value with the place it came from.
    pub(crate) fn yaml(&self) -> String {
        let mut text = format!("# {SECRET_ENV}: {MASK} ({})\n", self.secret_from);
        let mut open: Vec<&str> = Vec::new();
        for (option, value, from) in self.values() {
            let indent = reference::open_sections(&mut text, &mut open, option.name(), |_| false);
            let key = option.name().rsplit('.').next().unwrap_or_default();
            let lines = match value {
                Value::List(nodes) if !nodes.is_empty() => {
                    let items: Vec<String> =
                        nodes.iter().map(|node| format!("{indent}  - {}", node.value.flow())).collect();
                    format!("{indent}{key}: # {from}\n{}\n", items.join("\n"))
                }
                value => format!("{indent}{key}: {} # {from}\n", value.flow()),
            };
            text.push_str(&lines);
        }
        text
    }

    /// As JSON: the options with their values and places.
    pub(crate) fn json(&self, warnings: &[String]) -> Json {
        let options: Vec<Json> = self
            .values()
            .map(|(option, value, from)| {
                let value = match (option.form, value) {
                    (Form::Integer(..) | Form::Switch | Form::Loggers | Form::Schedules, value) => value.json(),
                    (_, Value::Scalar(text)) => text.into(),
                    (_, value) => value.json(),
                };
                json!({"path": option.name(), "value": value, "source": from})
            })
            .collect();
        json!({"options": options, "secret_source": self.secret_from, "warnings": warnings})
    }
}

/// The default of an option as a tree. A test sees that all can be read.
fn default_of(option: &Opt) -> Value {
    yaml::parse(option.default).map_or(Value::Nothing, |node| node.value)
}

fn masked(option: &Opt, value: Value) -> Value {
    match (option.form, value) {
        (Form::RedisUrl, Value::Scalar(text)) => {
            Value::Scalar(Target::parse(&text).map_or_else(|_| MASK.to_owned(), |url| url.to_string()))
        }
        (Form::Url, Value::Scalar(text)) => Value::Scalar(masked_url(&text)),
        (Form::Secret, _) => Value::Scalar(MASK.to_owned()),
        (_, value) => masked_keys(value),
    }
}

/// A URL without the password that it may carry.
fn masked_url(text: &str) -> String {
    match reqwest::Url::parse(text) {
        Ok(mut url) if url.password().is_some() => {
            if url.set_password(Some(MASK)).is_ok() {
                url.to_string()
            } else {
                MASK.to_owned()
            }
        }
        // A name alone is what tokens are given as.
        Ok(mut url) if !url.username().is_empty() => {
            if url.set_username(MASK).is_ok() {
                url.to_string()
            } else {
                MASK.to_owned()
            }
        }
        _ => text.to_owned(),
    }
}

fn masked_keys(value: Value) -> Value {
    match value {
        Value::Map(mut entries) => {
            for entry in &mut entries {
                let key = entry.key.to_lowercase().replace(['_', '-'], "");
                let under = std::mem::replace(&mut entry.node.value, Value::Nothing);
                entry.node.value = if SECRET_WORDS.iter().any(|word| key.contains(word)) {
                    Value::Scalar(MASK.to_owned())
                } else {
                    masked_keys(under)
                };
            }
            Value::Map(entries)
        }
        Value::List(nodes) => Value::List(
            nodes.into_iter().map(|node| Node { line: node.line, value: masked_keys(node.value) }).collect(),
        ),
        Value::Scalar(text) if text.contains("://") => Value::Scalar(masked_url(&text)),
        value => value,
    }
}
