//! What the backends that we bring can be told, and what is said of loggers in the reference and in the schema.

use jobservice_core::limits;
use serde_json::{Map, Value as Json, json};

use super::reference::add;

/// A setting of a backend that we bring: its key, whose it is, and what it means.
pub(super) struct Setting {
    pub(super) key: &'static str,
    /// The names of the backends that have it.
    pub(super) backend: &'static str,
    /// Whether only the service's own log has it.
    pub(super) of_service: bool,
    pub(super) meaning: &'static str,
}

/// All settings of the backends that we bring.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "output",
        backend: "STD_OUTPUT",
        of_service: false,
        meaning: "stdout or stderr; default stderr for the service's own log, stdout for the logs of jobs",
    },
    Setting {
        key: "format",
        backend: "STD_OUTPUT, FILE",
        of_service: true,
        meaning: "text (default) or json, one object a line",
    },
    Setting { key: "base_dir", backend: "FILE", of_service: false, meaning: "the directory; must be given" },
    Setting { key: "file_name", backend: "FILE", of_service: true, meaning: "the file in it; default jobservice.log" },
    Setting {
        key: "rotate",
        backend: "FILE",
        of_service: true,
        meaning: "size (default): a new file when one is full; day: also when a day (UTC) begins",
    },
    Setting {
        key: "file_bytes_max",
        backend: "FILE",
        of_service: true,
        meaning: "bytes of one file, 65536 to 1073741824, default 67108864; larger: fewer files, and more of the past",
    },
    Setting {
        key: "files_max",
        backend: "FILE",
        of_service: true,
        meaning: "how many old files are kept, 0 to 1000, default 8; their names end in .1 (the newest), .2, ...",
    },
];

/// Loggers, as a section of the page of the documentation.
pub(super) fn page() -> String {
    let mut text = HEAD.to_owned();
    for Setting { key, backend, of_service, meaning } in SETTINGS {
        let whose = if *of_service { "`loggers`" } else { "both" };
        add(&mut text, format!("| `{key}` | {backend} | {whose} | {meaning} |\n"));
    }
    text.push_str(FOOT);
    text
}

const HEAD: &str = "
## Loggers

`loggers` is the service's own log, `job_loggers` are the logs of jobs. Each is a list of backends:

```yaml
job_loggers:
  - name: FILE              # STD_OUTPUT, FILE, STORE (alias DB; of jobs only), or one of your own
    level: DEBUG            # the least grave that it gets: DEBUG, INFO (default), WARNING, ERROR, FATAL
    settings:
      base_dir: /var/log/jobs
    sweeper:
      duration: 14          # days that a log not written to is kept; without it, as long as its job
      bytes_max: 1073741824 # when all logs together take more, the oldest go
```

The log of a job is read back from the first backend that can: FILE and STORE can, STD_OUTPUT cannot. With `loggers`, the
sweeper of FILE removes old files of the rotation. The original's `sweeper.settings.work_dir` is accepted; it must name
`base_dir`.

| setting | backend | of | meaning |
|---|---|---|---|
";

const FOOT: &str = "
A backend of your own is registered under a name by the program that starts the service (`jobservice_server::Server`); its
settings are handed to it as they are.
";

/// The JSON schema of a list of loggers.
pub(super) fn schema(of_service: bool) -> Json {
    let settings: Map<String, Json> = SETTINGS
        .iter()
        .filter(|setting| of_service || !setting.of_service)
        .map(|setting| {
            let description = format!("{}: {}", setting.backend, setting.meaning);
            (setting.key.to_owned(), json!({"type": ["string", "integer", "boolean"], "description": description}))
        })
        .collect();
    json!({
        "type": ["array", "null"],
        "maxItems": limits::LOG_BACKENDS_MAX,
        "items": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "description": "STD_OUTPUT, FILE, STORE (of jobs only), or one of your own"},
                "level": {"enum": ["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"], "default": "INFO"},
                // A backend of the user's own may have others.
                "settings": {"type": ["object", "null"], "properties": settings},
                "sweeper": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "properties": {
                        "duration": {
                            "type": "integer", "minimum": 1, "maximum": limits::LOG_DAYS_MAX,
                            "description": "days that a log not written to is kept"
                        },
                        "bytes_max": {
                            "type": "integer", "minimum": 1,
                            "description": "when all logs together take more, the oldest go"
                        },
                        "settings": {
                            "type": ["object", "null"],
                            "properties": {"work_dir": {"type": "string"}},
                            "additionalProperties": false
                        }
                    }
                }
            }
        }
    })
}
