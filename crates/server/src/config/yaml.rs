//! YAML as a tree that knows where each of its parts stands, so that every complaint can name a line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// One part of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Where it begins, counted from 1.
    pub(super) line: u64,
    /// What it is.
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing, or `null`.
    Nothing,
    /// A text, a number, true or false: as text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a mapping and what stands under it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_line: u64,
    pub(super) node: Node,
}

/// Reads a file's text. The error says where it is no YAML.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

impl Value {
    /// As JSON; a text that reads as a number or as true or false becomes that.
    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Value::Nothing => serde_json::Value::Null,
            Value::Scalar(text) => match text.parse::<i64>() {
                Ok(number) if number.to_string() == *text => number.into(),
                _ if text == "true" || text == "false" => (text == "true").into(),
                _ => text.as_str().into(),
            },
            Value::List(nodes) => nodes.iter().map(|node| node.value.json()).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|e| (e.key.clone(), e.node.value.json())).collect())
            }
        }
    }

    /// As YAML that reads back as the same, on one line.
    pub(super) fn flow(&self) -> String {
        match self {
            Value::Nothing => "null".to_owned(),
            Value::Scalar(text) => scalar(text),
            Value::List(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(|node| node.value.flow()).collect();
                format!("[{}]", nodes.join(", "))
            }
            Value::Map(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|entry| format!("{}: {}", scalar(&entry.key), entry.node.value.flow()))
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

/// A text as a YAML scalar: plain if nothing in it could be taken for something else, quoted as JSON otherwise.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let begins_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/'));
    if begins_plain && text.chars().all(is_plain) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value()?;
            entries.push(Entry { key: key.value, key_line: key.referenced.line(), node });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_down_to_the_leaves_and_scalars_stay_text() {
        let node = parse("---\nport: 9443\n# note\npool:\n  names: [\"a\", b]\n  on: true\nempty:\n").unwrap();
        let Value::Map(entries) = &node.value else { panic!("{node:?}") };
        let lines: Vec<(&str, u64)> = entries.iter().map(|entry| (entry.key.as_str(), entry.key_line)).collect();
        assert_eq!(lines, [("port", 2), ("pool", 4), ("empty", 7)]);
        assert_eq!(entries[0].node.value, Value::Scalar("9443".into()));
        assert_eq!(entries[2].node.value, Value::Nothing);
        let Value::Map(pool) = &entries[1].node.value else { panic!("{entries:?}") };
        assert_eq!((pool[1].key_line, &pool[1].node.value), (6, &Value::Scalar("true".into())));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        assert!(parse("a: [1, 2\nb: 3").unwrap_err().contains("line"), "{:?}", parse("a: [1, 2\nb: 3"));
        assert!(parse("a: 1\na: 2").is_err());
        assert_eq!(parse("").unwrap().value, Value::Nothing);
    }
}
