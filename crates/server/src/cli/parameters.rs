//! Parameters as they are written on a command line, made into the JSON text that is submitted.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use serde_json::value::RawValue;

/// The JSON text of what `-p` was given; none if it was not given.
pub(super) fn read(given: &[String]) -> Result<Option<String>> {
    match given {
        [] => Ok(None),
        [one] if is_json(one) => Ok(Some(one.clone())),
        [one] if one.starts_with('@') => Ok(Some(from_file(one.trim_start_matches('@'))?)),
        pairs => object(pairs).map(Some),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

fn from_file(path: &str) -> Result<String> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text).context("cannot read parameters from standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("cannot read parameters from {path}"))?;
    }
    if !is_json(text.trim()) {
        bail!("the parameters in {path} are not JSON");
    }
    Ok(text.trim().to_owned())
}

/// `key=value` pairs as an object: values that are JSON as they are, others as text.
fn object(pairs: &[String]) -> Result<String> {
    let mut keys: Vec<&str> = Vec::new();
    let mut fields = Vec::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            bail!("cannot read the parameter {pair:?}: give key=value, JSON, or @file; only key=value may be repeated");
        };
        if keys.contains(&key) {
            bail!("the parameter {key:?} is given twice");
        }
        keys.push(key);
        let value = if is_json(value) { value.to_owned() } else { serde_json::to_string(value)? };
        fields.push(format!("{}:{value}", serde_json::to_string(key)?));
    }
    Ok(format!("{{{}}}", fields.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(given: &[&str]) -> String {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        read(&given).unwrap_or_else(|error| Some(error.to_string())).unwrap_or_default()
    }

    #[test]
    fn pairs_become_an_object_and_json_stays_as_it_is() {
        assert_eq!(
            text(&["image=demo:1", "n=1.0", "on=true", "q=\"1\"", "e="]),
            r#"{"image":"demo:1","n":1.0,"on":true,"q":"1","e":""}"#
        );
        assert_eq!(text(&[r#"{"a": 1.0e5}"#]), r#"{"a": 1.0e5}"#);
        assert_eq!(text(&["url=http://h/?a=b"]), r#"{"url":"http://h/?a=b"}"#);
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        assert!(text(&["oops"]).contains("give key=value"));
        assert!(text(&["a=1", "a=2"]).contains("twice"));
        assert!(text(&["@/no/such/file"]).contains("/no/such/file"));
        assert!(text(&["{}", "a=1"]).contains("give key=value"));
    }

    #[test]
    fn a_file_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\": 1}\n").unwrap();
        assert_eq!(text(&[&format!("@{}", file.path().display())]), "{\"a\": 1}");
    }
}
