//! What the configuration says, and how it complains.

use jobservice::logger::Level;
use jobservice_core::limits;

use super::*;

fn file(text: &str) -> Sources {
    Sources { file: Some(("c.yml".into(), text.to_owned())), ..Sources::default() }
}

fn env(mut sources: Sources, pairs: &[(&str, &str)]) -> Sources {
    sources.env.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    sources
}

fn complaints(text: &str) -> String {
    Config::read(&file(text)).map_or_else(|error| error.to_string(), |config| format!("{config:?}"))
}

#[test]
fn without_anything_it_is_loopback_with_a_store_of_its_own() {
    let config = Config::read(&Sources::default()).unwrap();
    assert_eq!((config.bind.to_string().as_str(), config.port, config.workers), ("127.0.0.1", 9443, 10));
    assert_eq!(config.store_path, Path::new("jobservice-data/jobs.db"));
    assert!(config.secrets.is_none() && config.has_demo && config.has_noop && config.warnings.is_empty());
    assert_eq!(config.job_loggers[0].kind, LoggerKind::Store);
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let mut sources = env(
        file("port: 1\nworker_pool: {workers: 1}\nbind: 127.0.0.2"),
        &[("JOB_SERVICE_PORT", "2"), ("JOB_SERVICE_POOL_WORKERS", "2"), ("JOB_SERVICE_BIND", "")],
    );
    sources.flags.push(("--port", "3".to_owned()));

    let config = Config::read(&sources).unwrap();

    assert_eq!((config.port, config.workers, config.bind.to_string().as_str()), (3, 2, "127.0.0.2"));
}

#[test]
fn the_sample_of_the_original_with_our_backend_is_taken() {
    let text = r#"---
protocol: "http"
https_config:
  cert: "server.crt"
  key: "server.key"
port: 9443
worker_pool:
  worker_pool: 12
  backend: "sqlite"
  redis_pool:
    redis_url: "localhost:6379"
    namespace: "harbor_job_service"
job_loggers:
  - name: "STD_OUTPUT"
    level: "DEBUG"
  - name: "FILE"
    level: "warning"
    settings:
      base_dir: "/tmp/job_logs"
    sweeper:
      duration: 1
      settings:
        work_dir: "/tmp/job_logs"
loggers:
  - name: "STD_OUTPUT"
    level: "DEBUG"
"#;
    let config = Config::read(&env(file(text), &[("CORE_SECRET", "0123456789abcdef, fedcba9876543210")])).unwrap();

    assert_eq!((config.workers, config.bind.to_string().as_str()), (12, "0.0.0.0"));
    assert_eq!(config.secrets.unwrap(), ["0123456789abcdef", "fedcba9876543210"]);
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
    assert_eq!(config.job_loggers[0].kind, LoggerKind::StdOutput { to_stderr: false });
    let expected = Logger {
        kind: LoggerKind::File(FileLog {
            base_dir: "/tmp/job_logs".into(),
            file_name: String::new(),
            rotation: Rotation { file_bytes_max: u64::MAX, daily: false, files_max: 0 },
        }),
        level: Level::Warning,
        as_json: false,
        kept: Some(std::time::Duration::from_secs(86_400)),
        kept_bytes_max: None,
    };
    assert_eq!(config.job_loggers[1], expected);
    assert_eq!(config.loggers[0].kind, LoggerKind::StdOutput { to_stderr: true });
}

#[test]
fn every_complaint_names_place_field_and_remedy() {
    let text = "prot: 1\nport: 70000\nworker_pool:\n  workrs: 2\n  workers: none\nprotocol: https\n\
                schedules: {a: x}\njob_loggers:\n  - name: FILE\n  - name: LOKI\n    levl: INFO\nbind: 0.0.0.0\n";
    let all = complaints(text);
    for expected in [
        "c.yml:1: prot: it is not known; did you mean port?",
        "c.yml:2: port: it is \"70000\"; give 0 to 65535",
        "c.yml:4: worker_pool.workrs: it is not known; did you mean workers?",
        "c.yml:5: worker_pool.workers: it is \"none\"; give 1 to",
        "c.yml:6: https_config.cert: it is missing, and https cannot do without it; give the PEM file",
        "c.yml:7: schedules.a: it is no mapping; give at least a name and a cron_spec",
        "c.yml:9: job_loggers[0].settings.base_dir: it is missing",
        "c.yml:10: job_loggers[1].name: \"LOKI\" is not known",
        "c.yml:11: job_loggers[1].levl: it is not known; did you mean level?",
        "c.yml:12: bind: a public address needs a secret, and 0.0.0.0 is one; set CORE_SECRET",
    ] {
        assert!(all.contains(expected), "{expected:?} is not in {all}");
    }
    assert!(complaints("worker_pool: 10").contains("c.yml:1: worker_pool: it is no mapping"));
    assert!(complaints("port: [").contains("c.yml: it is not valid YAML"));
    assert!(complaints("worker_pool: {backend: mysql}").contains("it is \"mysql\"; give sqlite or redis"));
    assert!(complaints("worker_pool: {backend: redis}").contains("redis_url: it is missing"));
    let secret = complaints("worker_pool: {redis_pool: {redis_url: 'http://u:canary@h'}}");
    assert!(secret.contains("it is no address of a Redis; give host:port") && !secret.contains("canary"), "{secret}");
    let slip = complaints("worker_pool:\n  redis_pool:\n    durabilty: replica");
    assert!(slip.contains("c.yml:3: worker_pool.redis_pool.durabilty: it is not known; did you mean durability?"));
    let twice = complaints("worker_pool:\n  workers: 1\n  worker_pool: 2");
    assert!(
        twice
            .contains("c.yml:3: worker_pool.worker_pool: it is another name for worker_pool.workers, given at c.yml:2")
    );
}

#[test]
fn variables_of_ours_that_are_not_known_are_warned_of() {
    let config =
        Config::read(&env(Sources::default(), &[("JOB_SERVICE_PROT", "1"), ("CORE_URL", "http://core/")])).unwrap();
    assert_eq!((config.warnings.len(), config.core_server.as_deref()), (1, Some("http://core")));
    assert!(
        config.warnings[0].contains("JOB_SERVICE_PROT is not known and has no effect; did you mean JOB_SERVICE_PORT?")
    );
}

#[test]
fn an_empty_secret_opens_nothing_to_the_public() {
    let config = Config::read(&env(file("port: 1"), &[("CORE_SECRET", " , ")])).unwrap();
    assert!(config.secrets.is_none() && config.bind.is_loopback());
    assert!(Config::read(&env(Sources::default(), &[("CORE_SECRET", "with space")])).is_err());
}

#[test]
fn the_samples_of_the_original_are_valid_as_they_are() {
    let sample = include_str!("../../tests/data/original-sample.yml");
    let config = Config::read(&file(sample)).unwrap();
    assert_eq!(config.https, Some(Https { cert: "server.crt".into(), key: "server.key".into() }));
    let redis = format!("{:?}", config.redis.unwrap());
    assert!(redis.contains("\"redis://localhost:6379/0\""), "{redis}");
    assert_eq!((config.workers, config.job_loggers.len(), config.warnings.len()), (10, 2, 0));

    let loggers = include_str!("../../tests/data/original-loggers.yml");
    let config = Config::read(&file(loggers)).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let LoggerKind::File(log) = &config.loggers[1].kind else { panic!("{:?}", config.loggers) };
    assert_eq!((log.base_dir.as_path(), log.file_name.as_str()), (Path::new("/tmp/job_logs"), "jobservice.log"));
}

#[test]
fn every_variable_of_the_original_is_taken() {
    let config = Config::read(&env(
        Sources::default(),
        &[
            ("JOB_SERVICE_PROTOCOL", "HTTPS"),
            ("JOB_SERVICE_HTTPS_CERT", "a.crt"),
            ("JOB_SERVICE_HTTPS_KEY", "a.key"),
            ("JOB_SERVICE_PORT", "1"),
            ("JOB_SERVICE_POOL_WORKERS", "2"),
            ("JOB_SERVICE_POOL_BACKEND", "Redis"),
            ("JOB_SERVICE_POOL_REDIS_URL", "rediss://:pw@h/3"),
            ("JOB_SERVICE_POOL_REDIS_NAMESPACE", "n"),
            ("CORE_URL", "https://core:8443"),
            ("CORE_SECRET", "0123456789abcdef"),
        ],
    ))
    .unwrap();

    assert_eq!(config.https, Some(Https { cert: "a.crt".into(), key: "a.key".into() }));
    assert_eq!((config.port, config.workers), (1, 2));
    let redis = format!("{:?}", config.redis.unwrap());
    assert!(redis.contains("\"rediss://:********@h:6379/3\""), "{redis}");
    assert_eq!(config.core_server.as_deref(), Some("https://core:8443"));
    assert!(config.warnings.is_empty() && config.secrets.is_some());
}

#[test]
fn defaults_are_those_of_the_list_and_agree_with_the_limits() {
    let config = Config::read(&Sources::default()).unwrap();
    assert_eq!((config.grace, config.shutdown_grace), (limits::GRACE, limits::SHUTDOWN_GRACE));
    let read = |path: &str| {
        let node = yaml::parse(options::of_path(path).unwrap().default).unwrap();
        let mut reading = Reading::default();
        let loggers = reading.read_loggers("default", path, &node);
        assert!(reading.problems.is_empty());
        loggers
    };
    assert_eq!((config.loggers, config.job_loggers), (read("loggers"), read("job_loggers")));
}

/// The file that `config show --default` prints says what happens without it, and nothing else.
#[test]
fn the_default_file_is_up_to_date_and_changes_nothing() {
    let written = default_file();
    assert!(DEFAULT_FILE == written, "config.default.yml is out of date: run `cargo xtask docs`");
    let page = include_str!("../../../../docs/configuration.md");
    assert!(page == self::page(), "docs/configuration.md is out of date: run `cargo xtask docs`");

    let (with, without) = (Config::read(&file(&written)).unwrap(), Config::read(&Sources::default()).unwrap());
    // But for one thing: with a file, whatever it says, hooks do not reach loopback unless it says so.
    let ours = |config: Config| format!("{:?}", Config { effective: Effective::default(), hooks: None, ..config });
    assert!(with.hooks.is_some() && without.hooks.is_some());
    assert_eq!(ours(with), ours(without));
    // Every example is valid, too.
    let examples: String =
        written.lines().filter(|line| !line.trim_start().starts_with("# ")).collect::<Vec<_>>().join("\n");
    let all = Config::read(&env(file(&examples.replace('#', "")), &[("CORE_SECRET", "0123456789abcdef")])).unwrap();
    assert_eq!((all.context["email_from"].as_str(), all.bind.to_string().as_str()), ("jobs@example.com", "0.0.0.0"));
}

#[test]
fn what_is_shown_names_its_source_reads_back_and_hides_secrets() {
    let text = "port: 1\nworker_pool: {workers: 3, redis_pool: {redis_url: 'h:1,,canary'}}\n\
                context: {smtp_password: canary, email_from: 'a: b', core: 'http://u:canary@h/'}\n\
                job_loggers:\n  - {name: FILE, settings: {base_dir: /x}}\n";
    let sources = env(file(text), &[("JOB_SERVICE_PORT", "2"), ("CORE_SECRET", "canary-canary-canary")]);
    let config = Config::read(&sources).unwrap();

    let shown = config.effective.yaml();
    for line in [
        "# CORE_SECRET: ******** (variable CORE_SECRET)",
        "port: 2 # variable JOB_SERVICE_PORT",
        "bind: 0.0.0.0 # default",
        "  workers: 3 # c.yml:2",
        "    path: jobservice-data/jobs.db # default",
        "job_loggers: # c.yml:4",
        "  - {name: FILE, settings: {base_dir: /x}}",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
    }
    let json = config.effective.json(&config.warnings);
    assert!(!shown.contains("canary") && !json.to_string().contains("canary"), "{shown}\n{json}");
    assert!(!format!("{:?}", config.effective).contains("canary"));
    let port = json["options"].as_array().unwrap().iter().find(|option| option["path"] == "port").unwrap();
    assert_eq!((&port["value"], &port["source"]), (&2.into(), &"variable JOB_SERVICE_PORT".into()));

    let again = Config::read(&env(file(&shown), &[("CORE_SECRET", "0123456789abcdef")])).unwrap();
    assert_eq!((again.port, again.workers, again.job_loggers), (2, 3, config.job_loggers));
    assert_eq!(again.context["email_from"], "a: b");
}

#[test]
fn loggers_say_what_they_do_not_know() {
    let all = complaints(
        "loggers:\n  - name: FILE\n    settings:\n      base_dir: /x\n      file_bytes_max: 1\n      rotated: day\n\
         job_loggers:\n  - name: FILE\n    settings: {base_dir: /x, format: json}\n    sweeper:\n      \
         settings: {work_dir: /y}\n      duration: 0\n  - {name: LOKI, settings: {url: x}}\n",
    );
    for expected in [
        "c.yml:5: loggers[0].settings.file_bytes_max: it is \"1\"; give 65536 to 1073741824",
        "c.yml:6: loggers[0].settings.rotated: it is not known; did you mean rotate?",
        "c.yml:9: job_loggers[0].settings.format: it is not known; known for FILE are base_dir",
        "c.yml:11: job_loggers[0].sweeper.settings.work_dir: it is /y, and the logs are in /x",
        "c.yml:12: job_loggers[0].sweeper.duration: it is \"0\"; give days",
        "job_loggers[1].name: \"LOKI\" is not known; give STD_OUTPUT or FILE or STORE",
    ] {
        assert!(all.contains(expected), "{expected:?} is not in {all}");
    }
    let twice = complaints("job_loggers:\n  - {name: STORE, level: DEBUG}\n  - {name: DB, level: ERROR}\n");
    assert!(twice.contains("c.yml:3: job_loggers[1]: it writes to the same place as one before it"), "{twice}");
    let sources = Sources {
        job_backends: vec!["LOKI".into()],
        ..file("job_loggers: [{name: loki, level: ERROR, settings: {url: 'http://l'}, sweeper: {bytes_max: 5}}]")
    };
    let config = Config::read(&sources).unwrap();
    let settings = [("url".to_owned(), "http://l".to_owned())].into();
    assert_eq!(config.job_loggers[0].kind, LoggerKind::Own { name: "LOKI".into(), settings });
    assert_eq!(config.job_loggers[0].kept_bytes_max, Some(5));
}

#[test]
fn the_schema_knows_every_option_and_nothing_else() {
    let schema = schema();
    let pool = &schema["properties"]["worker_pool"];
    assert_eq!(pool["properties"]["workers"]["maximum"], limits::WORKERS_MAX);
    assert_eq!((&pool["additionalProperties"], &schema["additionalProperties"]), (&false.into(), &false.into()));
    assert!(pool["properties"]["worker_pool"]["description"].as_str().unwrap().contains("worker_pool.workers"));
    assert_eq!(schema["properties"]["metric"]["additionalProperties"], true);
    assert_eq!(schema["properties"]["protocol"]["enum"], serde_json::json!(["http", "https"]));
    let named =
        |section: &serde_json::Value| section["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(named(&schema), options::keys_under(""));
}

/// Goal: who has to look at a store, or to put one back, need not mend what only the service needs.
#[test]
fn where_the_data_is_can_be_told_whatever_else_is_wrong() {
    let (data_dir, store) = Config::places(&file("prot: 1\nbind: 0.0.0.0\ndata_dir: /d\nport: x")).unwrap();
    assert_eq!((data_dir.as_path(), store.as_path()), (Path::new("/d"), Path::new("/d/jobs.db")));

    let elsewhere = env(file("data_dir: /d"), &[("JOB_SERVICE_POOL_SQLITE_PATH", "/e/a.db")]);
    assert_eq!(Config::places(&elsewhere).unwrap().1, Path::new("/e/a.db"));
    assert!(Config::places(&file("data_dir: [")).is_err());
}

#[test]
fn a_password_in_a_url_is_refused_and_not_shown() {
    let all = complaints("core_server: http://u:canary@core");
    assert!(all.contains("c.yml:1: core_server: it is no URL of a server without user and password"), "{all}");
    assert!(!all.contains("canary"), "{all}");
}
