//! What is made of the list of options for people and for editors: the default file, the page of the documentation, the
//! JSON schema.

use serde_json::{Map, Value as Json, json};

use super::options::{ALIASES, Form, OPTIONS, Opt, SECRET_ENV, Use};
use super::{logger_settings, yaml};

/// The default file as it is compiled in. A test compares it with [`default_file`].
pub(crate) const DEFAULT_FILE: &str = include_str!("../../config.default.yml");

const FILE_HEAD: &str = "\
# The configuration of jobservice with all options at their defaults. Made from the code by `cargo xtask docs`.
#
# The last one that speaks wins: this file (-c FILE), then the environment, then flags. An option that begins with `#`
# has no fixed default: what stands there is an example.
#
# The secret of the API is in no file: it comes from the variable CORE_SECRET (several, comma-separated, so that it can be
# replaced without a pause). Without one it is generated, kept in the data directory, and the service binds to loopback.
";

/// The default file as it follows from the list.
pub(crate) fn default_file() -> String {
    let mut text = FILE_HEAD.to_owned();
    let mut open = Vec::new();
    for option in served() {
        text.push('\n');
        let is_example = |section: &str| {
            served().filter(|option| is_under(option.path, section)).all(|option| option.default.is_empty())
        };
        let indent = open_sections(&mut text, &mut open, option.name(), is_example);
        for line in option.meaning.lines() {
            add(&mut text, format!("{indent}# {line}\n"));
        }
        let how = how(option);
        if !how.is_empty() {
            add(&mut text, format!("{indent}# {how}\n"));
        }
        let (mark, value) = if option.default.is_empty() { ("#", option.example) } else { ("", option.default) };
        add(&mut text, format!("{indent}{mark}{}: {value}\n", key_of(option.name())));
    }
    text
}

/// Variable, flag and bounds of an option, on one line.
fn how(option: &Opt) -> String {
    let mut parts = Vec::new();
    if !option.env.is_empty() {
        parts.push(format!("variable {}", option.env));
    }
    if !option.flag.is_empty() {
        parts.push(format!("flag {}", option.flag));
    }
    if let Some(bounds) = bounds(option.form) {
        parts.push(bounds);
    }
    parts.join(", ")
}

fn bounds(form: Form) -> Option<String> {
    match form {
        Form::Integer(least, most) => Some(format!("{least} to {most}")),
        Form::Choice(words) => Some(words.join(" or ")),
        Form::Switch => Some("true or false".to_owned()),
        _ => None,
    }
}

fn served() -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().filter(|option| option.used == Use::Served)
}

fn key_of(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn is_under(path: &str, section: &str) -> bool {
    path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// Writes the keys of the sections in which `path` stands and the option before it (`open`) did not, those for which
/// `is_example` holds as comments. Answers how deep `path` is indented.
pub(super) fn open_sections(
    text: &mut String,
    open: &mut Vec<&'static str>,
    path: &'static str,
    is_example: impl Fn(&str) -> bool,
) -> String {
    open.retain(|section| is_under(path, section));
    let dots: Vec<usize> = path.match_indices('.').map(|(at, _)| at).collect();
    for (depth, at) in dots.iter().enumerate().skip(open.len()) {
        let Some(section) = path.get(..*at) else { continue };
        let mark = if is_example(section) { "#" } else { "" };
        add(text, format!("{}{mark}{}:\n", "  ".repeat(depth), key_of(section)));
        open.push(section);
    }
    "  ".repeat(dots.len())
}

/// The reference of the configuration, as a page of the documentation.
pub(crate) fn page() -> String {
    let mut text = PAGE_HEAD.to_owned();
    for option in served() {
        add(&mut text, format!("\n### `{}`\n\n{}\n\n", option.name(), option.meaning.replace('\n', " ")));
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                add(&mut text, format!("- {name}: {value}\n"));
            }
        };
        line("takes", &takes(option.form));
        line("default", &code(option.default));
        line("example", &code(option.example));
        line("variable", &code(option.env));
        line("flag", &code(option.flag));
        let other: Vec<String> =
            ALIASES.iter().filter(|(_, path)| *path == option.path).map(|(alias, _)| code(alias)).collect();
        line("other name", &other.join(", "));
    }
    text.push_str(&logger_settings::page());
    text.push_str("\n## Without effect\n\nKeys of the original's files that are taken with a warning: ");
    let ignored: Vec<String> =
        OPTIONS.iter().filter(|option| option.used == Use::Ignored).map(|option| code(option.path)).collect();
    text.push_str(&ignored.join(", "));
    text.push_str(". Any other unknown key is an error, and so is one that looks like a misspelt option.\n");
    text
}

const PAGE_HEAD: &str = "\
<!-- Made from the code by `cargo xtask docs`. -->
# Configuration

Defaults, then the file (`-c FILE`, YAML), then the environment, then flags: the last one that speaks wins. An empty
variable says nothing. Keys that are not known are errors, but for those beneath `worker_pool.redis_pool`, `metric` and `reaper`,
where the original has more than we list: they are warnings, unless they look like a misspelt option; so are variables
`JOB_SERVICE_..` that are not known.

| command | what it does |
|---|---|
| `jobservice config check -c FILE` | says all that is wrong, with file, line, field and remedy; exits 1 if anything is |
| `jobservice config show -c FILE` | the values in effect and where each came from, secrets masked |
| `jobservice config show --default` | the default file, with a comment on each option |
| `jobservice config schema` | a JSON schema, for editors |

`GET /api/v1/config` answers the same as `config show` of the running service, for administrators.

The secret of the API is the variable `CORE_SECRET`: several, separated by commas, are accepted at once, so that one can be
replaced without a pause. Without it one is generated, kept in the data directory (`secret`, mode 0600), and the service
binds to loopback.

## Options
";

pub(super) fn add(text: &mut String, more: String) {
    text.push_str(&more);
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn takes(form: Form) -> String {
    match form {
        Form::Text => "a text".to_owned(),
        Form::Path => "a path".to_owned(),
        Form::Address => "an IP address, or localhost".to_owned(),
        Form::Url => "an http or https URL".to_owned(),
        Form::RedisUrl => "the address of a Redis".to_owned(),
        Form::Switch => "true or false".to_owned(),
        Form::Integer(least, most) => format!("a whole number, {least} to {most}"),
        Form::Choice(words) => words.join(" or "),
        Form::Loggers => "a list of loggers, see below".to_owned(),
        Form::Schedules => "schedules by key".to_owned(),
        Form::Properties => "names and values".to_owned(),
        Form::Secret => "`whsec_` and base64".to_owned(),
        Form::Retention => "lengths of time like 3d for success, stopped, error; bytes_max; names".to_owned(),
        Form::Targets => "a list of hosts, patterns like `*.internal`, and networks".to_owned(),
        Form::Anything => String::new(),
    }
}

/// A JSON schema (2020-12) of the file.
pub(crate) fn schema() -> Json {
    let mut root = section("The configuration of jobservice.");
    for option in OPTIONS {
        put(&mut root, option.path, &schema_of(option));
    }
    for (alias, path) in ALIASES {
        let meaning = format!("Another name for {path}.");
        if let Some(option) = OPTIONS.iter().find(|option| option.path == *path) {
            let mut schema = schema_of(option);
            set(&mut schema, "description", meaning);
            put(&mut root, alias, &schema);
        }
    }
    set(&mut root, "$schema", "https://json-schema.org/draft/2020-12/schema");
    set(&mut root, "title", "jobservice");
    set(
        &mut root,
        "description",
        format!("The configuration of jobservice. The secret is in no file: variable {SECRET_ENV}."),
    );
    root
}

fn set(object: &mut Json, key: &str, value: impl Into<Json>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
}

fn section(description: &str) -> Json {
    json!({"type": ["object", "null"], "description": description, "properties": {}, "additionalProperties": false})
}

/// Puts a schema at a path, making the sections that lead to it.
fn put(root: &mut Json, path: &str, schema: &Json) {
    let mut at = root;
    let mut keys = path.split('.').peekable();
    while let Some(key) = keys.next() {
        if key == "*" {
            set(at, "additionalProperties", true);
            return;
        }
        let Some(properties) = at.get_mut("properties").and_then(Json::as_object_mut) else { return };
        if keys.peek().is_none() {
            properties.insert(key.to_owned(), schema.clone());
            return;
        }
        at = properties.entry(key).or_insert_with(|| section(""));
    }
}

fn retention_schema() -> Json {
    let kept = json!({"type": ["string", "integer"], "description": "A length of time like 3d; a number is seconds."});
    let mut times = section("");
    for end in ["success", "stopped", "error"] {
        put(&mut times, end, &kept);
    }
    let mut all = times.clone();
    put(&mut all, "bytes_max", &json!({"type": ["string", "integer"], "description": "Bytes, or a text like 1GiB."}));
    put(&mut all, "names", &json!({"type": "object", "additionalProperties": times}));
    all
}

fn schema_of(option: &Opt) -> Json {
    let mut schema = match option.form {
        Form::Text | Form::Path | Form::Address | Form::Url | Form::RedisUrl | Form::Secret => {
            json!({"type": "string", "minLength": 1})
        }
        Form::Switch => json!({"type": "boolean"}),
        Form::Integer(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Form::Choice(words) => json!({"enum": words}),
        Form::Loggers => logger_settings::schema(option.path == "loggers"),
        Form::Schedules => super::schedules::schema(),
        Form::Properties => {
            json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
        }
        Form::Retention => retention_schema(),
        Form::Targets => json!({"type": ["array", "string"], "items": {"type": "string"}}),
        Form::Anything => Json::Object(Map::new()),
    };
    if !option.meaning.is_empty() {
        set(&mut schema, "description", option.meaning.replace('\n', " "));
    }
    if !option.default.is_empty()
        && let Ok(default) = yaml::parse(option.default)
    {
        set(&mut schema, "default", default.value.json());
    }
    schema
}
