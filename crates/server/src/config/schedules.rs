//! The section `schedules:`: periodic jobs that are declared with the service, by key.
//!
//! ```yaml
//! schedules:
//!   nightly-cleaning:
//!     name: clean
//!     parameters: {older_than_days: 30}
//!     cron_spec: "0 30 2 * * *"
//!     timezone: Europe/Berlin
//! ```
//!
//! Each is put at every start: made, changed where it differs, or left alone. One that is no longer declared stays until
//! it is deleted, for whoever runs several services on one store does not declare all of it in each.

use std::collections::BTreeMap;
use std::str::FromStr;

use jobservice::{Submission, SubmitError};
use jobservice_core::Kind;
use jobservice_core::cron::Schedule;
use jobservice_core::policy::{Misfire, Overlap};
use jobservice_core::unique::Scope;
use serde::Deserialize;
use serde_json::json;

use super::yaml::{Entry, Node, Value};
use super::{Problem, Reading, boolean, did_you_mean};

/// A schedule as it was declared.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    /// Its key.
    pub(crate) key: String,
    /// What to put.
    pub(crate) submission: Submission,
    /// Where it stands, and where its fields do.
    place: String,
    places: BTreeMap<String, String>,
}

const KEYS: [&str; 15] = [
    "name",
    "parameters",
    "cron_spec",
    "timezone",
    "overlap",
    "misfire",
    "priority",
    "timeout",
    "max_fails",
    "retention",
    "tags",
    "unique",
    "unique_key",
    "unique_scope",
    "status_hook",
];

impl Declared {
    /// What the service says of it, each thing with its place in the file.
    pub(crate) fn problems(&self, error: &SubmitError) -> Vec<Problem> {
        let problem = |field: &str, what: String, remedy: &str| {
            let place = self.places.get(field).unwrap_or(&self.place).clone();
            Problem { place, field: format!("schedules.{}.{field}", self.key), what, remedy: remedy.to_owned() }
        };
        match error {
            SubmitError::Invalid(fields) => fields
                .iter()
                .map(|bad| problem(bad.field.trim_start_matches("metadata."), bad.problem.clone(), &bad.remedy))
                .collect(),
            SubmitError::UnknownName { .. } => {
                vec![problem("name", error.to_string(), "give the name of a job that this service has")]
            }
            _ => vec![problem("", crate::http::chain(error), "see the service's log")],
        }
    }
}

impl Reading {
    pub(super) fn read_schedules(&mut self, file: &str, node: &Node) -> Vec<Declared> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => return Vec::new(),
            Value::Scalar(_) | Value::List(_) => {
                let remedy = "give keys, each with a name and a cron_spec";
                self.problem(format!("{file}:{}", node.line), "schedules", "it is no mapping", remedy);
                return Vec::new();
            }
        };
        entries.iter().filter_map(|entry| self.read_schedule(file, entry)).collect()
    }

    fn read_schedule(&mut self, file: &str, entry: &Entry) -> Option<Declared> {
        let place = format!("{file}:{}", entry.key_line);
        let path = format!("schedules.{}", entry.key);
        let Value::Map(fields) = &entry.node.value else {
            self.problem(place, &path, "it is no mapping", "give at least a name and a cron_spec");
            return None;
        };
        let mut declared = Declared {
            key: entry.key.clone(),
            submission: Submission::new(""),
            place: place.clone(),
            places: BTreeMap::new(),
        };
        declared.submission.kind = Kind::Periodic;
        declared.submission.schedule_key = Some(entry.key.clone());
        let before = self.problems.len();
        for field in fields {
            let place = format!("{file}:{}", field.key_line);
            declared.places.insert(field.key.clone(), place.clone());
            self.read_field(&format!("{path}.{}", field.key), place, field, &mut declared.submission);
        }
        for needed in ["name", "cron_spec"] {
            if !declared.places.contains_key(needed) {
                self.problem(place.clone(), &path, format!("it has no {needed}"), "give one");
            }
        }
        let submission = &declared.submission;
        if let Some(cron) = &submission.cron
            && let Err(error) = Schedule::parse(cron, submission.timezone.as_deref().unwrap_or_default())
        {
            let is_zone = submission.timezone.is_some() && error.field == Some("time zone");
            let field = if is_zone { "timezone" } else { "cron_spec" };
            let part = error.field.filter(|_| !is_zone).map_or_else(String::new, |part| format!("{part}: "));
            let place = declared.places.get(field).unwrap_or(&declared.place).clone();
            self.problem(place, &format!("{path}.{field}"), format!("{part}{}", error.problem), error.remedy);
        }
        (self.problems.len() == before).then_some(declared)
    }

    fn read_field(&mut self, path: &str, place: String, field: &Entry, submission: &mut Submission) {
        let text = match (field.key.as_str(), &field.node.value) {
            // Read by [`parameters`], which keeps numbers and texts apart.
            ("parameters", _) | (_, Value::Nothing) => return,
            ("tags", Value::List(tags)) => {
                for tag in tags {
                    match &tag.value {
                        Value::Scalar(tag) => submission.tags.push(tag.clone()),
                        _ => self.problem(place.clone(), path, "it has an entry that is no text", "give texts"),
                    }
                }
                return;
            }
            (_, Value::Scalar(text)) => text.trim(),
            (key, Value::List(_) | Value::Map(_)) if KEYS.contains(&key) => {
                self.problem(place, path, "it is not a single value", "give one");
                return;
            }
            (_, Value::List(_) | Value::Map(_)) => "",
        };
        let understood = match field.key.as_str() {
            "name" => put(&mut submission.name, Some(text.to_owned())),
            "cron_spec" => set(&mut submission.cron, Some(text.to_owned())),
            "timezone" => set(&mut submission.timezone, Some(text.to_owned())),
            "overlap" => set(&mut submission.overlap, overlap(text)),
            "misfire" => set(&mut submission.misfire, misfire(text)),
            "priority" => set(&mut submission.priority, u8::from_str(text).ok()),
            "timeout" => set(&mut submission.timeout, length(text)),
            "max_fails" => set(&mut submission.max_fails, u32::from_str(text).ok()),
            "retention" => {
                let seconds = length(text).and_then(|kept| u32::try_from(kept.as_secs()).ok());
                set(&mut submission.retention_seconds, seconds)
            }
            "unique" => put(&mut submission.unique, boolean(text)),
            "unique_key" => {
                submission.unique = true;
                set(&mut submission.unique_key, Some(text.to_owned()))
            }
            "unique_scope" => set(&mut submission.unique_scope, scope(text)),
            "status_hook" => set(&mut submission.hook, Some(text.to_owned())),
            "tags" => {
                self.problem(place, path, "it is no list", "give a list of texts");
                return;
            }
            key => {
                let remedy = match did_you_mean(key, KEYS) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("known here are {}", KEYS.join(", ")),
                };
                self.problem(place, path, "it is not known", remedy);
                return;
            }
        };
        if !understood {
            let found: String = text.chars().take(40).collect();
            self.problem(place, path, format!("it is {found:?}"), expected(&field.key));
        }
    }
}

/// The section as a JSON schema.
pub(super) fn schema() -> serde_json::Value {
    let properties: serde_json::Map<String, serde_json::Value> = KEYS
        .iter()
        .map(|key| {
            let of_key = match *key {
                "parameters" => json!({}),
                "tags" => json!({"type": "array", "items": {"type": "string"}}),
                "unique" => json!({"type": "boolean"}),
                "priority" | "max_fails" => json!({"type": "integer", "minimum": 0}),
                "overlap" => json!({"enum": ["allow", "skip", "queue", "replace"]}),
                "misfire" => json!({"enum": ["skip", "last", "all"]}),
                "unique_scope" => json!({"enum": ["until_final", "until_start"]}),
                "timeout" | "retention" => json!({"type": ["string", "integer"]}),
                _ => json!({"type": "string", "minLength": 1}),
            };
            ((*key).to_owned(), of_key)
        })
        .collect();
    json!({
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "required": ["name", "cron_spec"],
            "properties": properties,
            "additionalProperties": false,
        },
    })
}

/// Adds the parameters, which are YAML of any form and become JSON.
pub(super) fn add_parameters(declared: &mut [Declared], text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        schedules: BTreeMap<String, Fields>,
    }
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        parameters: Option<serde_json::Value>,
    }
    let mut file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    for schedule in declared {
        if let Some(parameters) = file.schedules.remove(&schedule.key).and_then(|fields| fields.parameters) {
            let raw = serde_json::value::to_raw_value(&parameters).map_err(|error| error.to_string())?;
            schedule.submission.parameters = Some(raw);
        }
    }
    Ok(())
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    *field = value;
    field.is_some()
}

fn put<T>(field: &mut T, value: Option<T>) -> bool {
    let Some(value) = value else { return false };
    *field = value;
    true
}

fn overlap(text: &str) -> Option<Overlap> {
    Some(match text.to_ascii_lowercase().as_str() {
        "allow" => Overlap::Allow,
        "skip" => Overlap::Skip,
        "queue" => Overlap::Queue,
        "replace" => Overlap::Replace,
        _ => return None,
    })
}

fn misfire(text: &str) -> Option<Misfire> {
    Some(match text.to_ascii_lowercase().as_str() {
        "skip" => Misfire::Skip,
        "last" => Misfire::Last,
        "all" => Misfire::All,
        _ => return None,
    })
}

fn scope(text: &str) -> Option<Scope> {
    match text {
        "until_final" => Some(Scope::UntilFinal),
        "until_start" => Some(Scope::UntilStart),
        _ => None,
    }
}

/// A length of time: seconds, or text like `90s`.
fn length(text: &str) -> Option<std::time::Duration> {
    let seconds = || u64::from_str(text).ok().map(std::time::Duration::from_secs);
    seconds().or_else(|| crate::duration::parse(text).ok())
}

fn expected(key: &str) -> &'static str {
    match key {
        "overlap" => "give allow, skip, queue or replace",
        "misfire" => "give skip, last or all",
        "priority" => "give 0 to 9, higher first",
        "timeout" | "retention" => "give a length of time like 90s, 5m or 2d",
        "max_fails" => "give a whole number",
        "unique" => "give true or false",
        "unique_scope" => "give until_final or until_start",
        _ => "give a text",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Config, Sources};
    use super::*;

    fn read(text: &str) -> Result<Vec<Declared>, String> {
        let sources = Sources { file: Some((PathBuf::from("c.yml"), text.to_owned())), ..Sources::default() };
        Config::read(&sources).map(|config| config.schedules).map_err(|error| error.to_string())
    }

    #[test]
    fn a_schedule_is_read_with_all_it_can_say() {
        let text = "schedules:\n  nightly:\n    name: clean\n    parameters: {days: 30, label: \"30\", deep: [true, 1.5]}\n    \
                    cron_spec: \"0 30 2 * * *\"\n    timezone: Europe/Berlin\n    misfire: all\n    overlap: skip\n    \
                    priority: 3\n    timeout: 5m\n    max_fails: 2\n    retention: 7d\n    tags: [a, b]\n    unique: true\n";
        let declared = read(text).unwrap();

        let Submission { name, kind, parameters, cron, timezone, misfire, overlap, .. } = &declared[0].submission;
        assert_eq!((name.as_str(), *kind, cron.as_deref()), ("clean", Kind::Periodic, Some("0 30 2 * * *")));
        assert_eq!(
            (timezone.as_deref(), *misfire, *overlap),
            (Some("Europe/Berlin"), Some(Misfire::All), Some(Overlap::Skip))
        );
        assert_eq!(parameters.as_ref().unwrap().get(), r#"{"days":30,"deep":[true,1.5],"label":"30"}"#);
        let Submission { priority, timeout, max_fails, retention_seconds, tags, unique, schedule_key, .. } =
            &declared[0].submission;
        assert_eq!((*priority, timeout.map(|of| of.as_secs()), *max_fails), (Some(3), Some(300), Some(2)));
        assert_eq!((*retention_seconds, tags.len(), *unique), (Some(604_800), 2, true));
        assert_eq!(schedule_key.as_deref(), Some("nightly"));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_field() {
        let text = "schedules:\n  a:\n    name: noop\n    cron_spec: \"61 * * * *\"\n  b:\n    name: noop\n    \
                    cron_spec: \"@daily\"\n    timezone: Mars\n    overlap: maybe\n    pririty: 1\n  c:\n    name: noop\n  d: 7\n";
        let problems = read(text).unwrap_err();

        for expected in [
            "c.yml:4: schedules.a.cron_spec: minute",
            "c.yml:8: schedules.b.timezone: ",
            "c.yml:9: schedules.b.overlap: it is \"maybe\"",
            "c.yml:10: schedules.b.pririty: it is not known; did you mean priority?",
            "c.yml:11: schedules.c: it has no cron_spec",
            "c.yml:13: schedules.d: it is no mapping",
        ] {
            assert!(problems.contains(expected), "{expected} is not in {problems}");
        }
    }
}
