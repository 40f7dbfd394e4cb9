//! Options that are read together: https, Redis, the properties of jobs.

use std::time::Duration;

use jobservice_redis::{Durability, Options, Target};

use super::options::Form;
use super::yaml::{Node, Value};
use super::{Https, Reading};

/// How old what is known of due times may be: an idle node then asks Redis about once a second.
const VIEW_AGE: Duration = Duration::from_secs(1);

/// A namespace, in which the original's configuration has braces that are ours to put.
fn namespace(text: &str) -> Option<String> {
    let text = text.trim_matches(['{', '}']);
    let is_valid = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
    is_valid.then(|| text.to_owned())
}

impl Reading {
    /// The files of https, if it is to be served; says so if they are given without effect, or missing.
    pub(super) fn https(&mut self) -> Option<Https> {
        let is_https = self.choice("protocol") == Some("https");
        let (cert, key) = (self.path("https_config.cert"), self.path("https_config.key"));
        for path in ["https_config.cert", "https_config.key"] {
            match self.place(path) {
                Some(place) if !is_https => {
                    self.warnings.push(format!("{place}: {path} has no effect: the protocol is not https"));
                }
                None if is_https => {
                    let place = self.place("protocol").unwrap_or_else(|| "default".to_owned());
                    self.problem(place, path, "it is missing, and https cannot do without it", "give the PEM file");
                }
                _ => {}
            }
        }
        if is_https { Some(Https { cert: cert?, key: key? }) } else { None }
    }

    /// Whether the jobs are to be in Redis.
    pub(super) fn is_on_redis(&mut self) -> bool {
        self.choice("worker_pool.backend") == Some("redis")
    }

    /// The Redis to use, if it is to be used; says so if one is given without effect, or missing.
    pub(super) fn redis(&mut self) -> Option<Options> {
        let is_redis = self.is_on_redis();
        let url =
            self.take("worker_pool.redis_pool.redis_url", |text| Target::parse(text).is_ok().then(|| text.to_owned()));
        let namespace = self.take("worker_pool.redis_pool.namespace", namespace);
        let shards = self.integer("worker_pool.redis_pool.shards");
        let durability = self.choice("worker_pool.redis_pool.durability");
        let authorities = self.path("worker_pool.redis_pool.ca_file");
        let place = self.place("worker_pool.redis_pool.redis_url");
        match place {
            Some(place) if !is_redis => self
                .warnings
                .push(format!("{place}: worker_pool.redis_pool has no effect: worker_pool.backend is not redis")),
            None if is_redis => {
                let place = self.place("worker_pool.backend").unwrap_or_else(|| "default".to_owned());
                let what = "it is missing, and the backend redis cannot do without it";
                self.problem(place, "worker_pool.redis_pool.redis_url", what, Form::RedisUrl.remedy());
            }
            _ => {}
        }
        let url = url.filter(|_| is_redis)?;
        let durability = match durability? {
            "replica" => Durability::REPLICA,
            _ => Durability::Local,
        };
        let (namespace, shards) = (namespace?, shards?);
        Some(Options { url, namespace, shards, durability, authorities, view_age: VIEW_AGE, ..Options::default() })
    }

    pub(super) fn read_context(&mut self, file: &str, path: &str, node: &Node) {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => return,
            Value::Scalar(_) | Value::List(_) => {
                let remedy = "give names of properties and their values";
                return self.problem(format!("{file}:{}", node.line), path, "it is no mapping", remedy);
            }
        };
        for entry in entries {
            let path = format!("{path}.{}", entry.key);
            if let Some(text) = self.scalar(&format!("{file}:{}", entry.key_line), &path, &entry.node) {
                self.context.insert(entry.key.clone(), text);
            }
        }
    }
}
