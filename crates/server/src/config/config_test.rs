//! What the configuration says, and how it complains.

use jobservice::logger::Level;

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
        kind: LoggerKind::File { base_dir: "/tmp/job_logs".into() },
        level: Level::Warning,
        kept: Some(std::time::Duration::from_secs(86_400)),
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
        "c.yml:6: protocol: it is \"https\"; this version serves http only",
        "c.yml:7: schedules: it is not served yet",
        "c.yml:9: job_loggers[0].settings.base_dir: it is missing",
        "c.yml:10: job_loggers[1].name: \"LOKI\" is not known",
        "c.yml:11: job_loggers[1].levl: it is not known; did you mean level?",
        "c.yml:12: bind: a public address needs a secret, and 0.0.0.0 is one; set CORE_SECRET",
    ] {
        assert!(all.contains(expected), "{expected:?} is not in {all}");
    }
    assert!(complaints("worker_pool: 10").contains("c.yml:1: worker_pool: it is no mapping"));
    assert!(complaints("port: [").contains("c.yml: it is not valid YAML"));
    assert!(complaints("worker_pool: {backend: redis}").contains("this version serves sqlite only"));
}

#[test]
fn variables_of_ours_that_are_not_known_are_warned_of() {
    let config =
        Config::read(&env(Sources::default(), &[("JOB_SERVICE_PROT", "1"), ("CORE_URL", "http://core")])).unwrap();
    assert_eq!(config.warnings.len(), 2);
    assert!(
        config.warnings[1].contains("JOB_SERVICE_PROT is not known and has no effect; did you mean JOB_SERVICE_PORT?")
    );
}

#[test]
fn an_empty_secret_opens_nothing_to_the_public() {
    let config = Config::read(&env(file("port: 1"), &[("CORE_SECRET", " , ")])).unwrap();
    assert!(config.secrets.is_none() && config.bind.is_loopback());
    assert!(Config::read(&env(Sources::default(), &[("CORE_SECRET", "with space")])).is_err());
}
