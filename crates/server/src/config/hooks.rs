//! The options of status hooks.

use std::sync::Arc;
use std::time::Duration;

use jobservice::hooks::{AddressPolicy, HookOptions, Secret};

use super::options::Form;
use super::yaml::{Node, Value};
use super::{Given, Reading, boolean};

/// The paths of the options.
const ENABLED: &str = "hooks.enabled";
pub(super) const ALLOW: &str = "hooks.allow";
const SECRET: &str = "hooks.secret";
const PREVIOUS_SECRET: &str = "hooks.previous_secret";
const INCLUDE_PARAMETERS: &str = "hooks.include_parameters";
const MAX_CONCURRENCY: &str = "hooks.max_concurrency";
const PER_HOST: &str = "hooks.per_host";
const TIMEOUT: &str = "hooks.timeout_seconds";

impl Reading {
    /// Takes the list of what may be called: a list, or one text with commas as in the environment.
    pub(super) fn hook_targets(&mut self, place: String, node: &Node, file: &str) {
        let mut targets = Vec::new();
        let one = std::slice::from_ref(node);
        let nodes = match &node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => one,
        };
        for node in nodes {
            match &node.value {
                Value::Scalar(text) => targets.push(text.clone()),
                Value::Nothing => {}
                Value::List(_) | Value::Map(_) => {
                    self.problem(format!("{file}:{}", node.line), ALLOW, "it is not a text", "give hosts and networks");
                }
            }
        }
        self.trees.insert(ALLOW, (node.value.clone(), place.clone()));
        self.given.insert(ALLOW, Given { text: targets.join(","), place });
    }

    /// How hooks are delivered; none if they are off. Without a file the service is somebody's trial on their own host,
    /// and so may be the receiver.
    pub(super) fn hooks(&mut self, has_file: bool) -> Option<HookOptions> {
        let mut policy = if has_file { AddressPolicy::default() } else { AddressPolicy::with_loopback() };
        if let Some(Given { text, place }) = self.given.get(ALLOW).cloned() {
            for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                if let Err(problem) = policy.allow(entry) {
                    self.problem(place.clone(), ALLOW, problem, "give hosts and networks");
                }
            }
        }
        let secret = self.hook_secret(SECRET);
        let previous = self.hook_secret(PREVIOUS_SECRET);
        if previous.is_some() && secret.is_none() {
            self.warnings
                .push(format!("{PREVIOUS_SECRET} is given without {SECRET}: messages are signed with it alone"));
        }
        let default = HookOptions::default();
        let max_concurrency = self.integer(MAX_CONCURRENCY).unwrap_or(default.max_concurrency);
        let per_host = self.integer(PER_HOST).unwrap_or(default.per_host);
        let timeout = self.integer(TIMEOUT).map(Duration::from_secs);
        let include_parameters = self.take(INCLUDE_PARAMETERS, boolean).unwrap_or(false);
        let enabled = self.take(ENABLED, boolean).unwrap_or(true);
        enabled.then(|| HookOptions {
            policy: Arc::new(policy),
            secrets: secret.into_iter().chain(previous).collect(),
            include_parameters,
            max_concurrency,
            per_host,
            timeout: timeout.unwrap_or(default.timeout),
            resolver: default.resolver,
        })
    }

    /// Reads a secret, which no complaint may show.
    fn hook_secret(&mut self, path: &'static str) -> Option<Secret> {
        let Given { text, place } = self.given.get(path).cloned()?;
        match Secret::parse(&text) {
            Ok(secret) => Some(secret),
            Err(problem) => {
                self.problem(place, path, problem.to_string(), Form::Secret.remedy());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::{Config, Sources};

    const GOOD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn file(text: &str) -> Sources {
        Sources { file: Some(("c.yml".into(), text.to_owned())), ..Sources::default() }
    }

    fn may_call(config: &Config, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        config.hooks.as_ref().unwrap().policy.check_address("x", address).is_ok()
    }

    #[test]
    fn without_a_file_loopback_may_be_called_and_with_one_only_what_it_allows() {
        let config = Config::read(&Sources::default()).unwrap();
        assert!(may_call(&config, "127.0.0.1") && !may_call(&config, "10.0.0.1"));
        let config = Config::read(&file("port: 1")).unwrap();
        assert!(!may_call(&config, "127.0.0.1") && may_call(&config, "8.8.8.8"));
        let config = Config::read(&file("hooks:\n  allow:\n    - 10.0.0.0/8\n    - \"*.internal\"")).unwrap();
        assert!(may_call(&config, "10.0.0.1") && !may_call(&config, "127.0.0.1"));
    }

    #[test]
    fn all_of_it_is_read() {
        let text = format!(
            "hooks: {{secret: {GOOD}, include_parameters: true, max_concurrency: 7, per_host: 3, timeout_seconds: 20}}"
        );
        let mut sources = file(&text);
        sources.env.insert("JOB_SERVICE_HOOK_ALLOW".into(), "10.0.0.1, hooks.internal".into());
        sources.env.insert("JOB_SERVICE_HOOK_PREVIOUS_SECRET".into(), GOOD.into());

        let config = Config::read(&sources).unwrap();

        let hooks = config.hooks.as_ref().unwrap();
        assert_eq!((hooks.secrets.len(), hooks.include_parameters), (2, true));
        assert_eq!((hooks.max_concurrency, hooks.per_host, hooks.timeout.as_secs()), (7, 3, 20));
        assert!(may_call(&config, "10.0.0.1") && !may_call(&config, "10.0.0.2"));
        assert!(Config::read(&file("hooks: {enabled: no}")).unwrap().hooks.is_none());
    }

    #[test]
    fn complaints_name_the_field_and_never_show_a_secret() {
        let text =
            "hooks:\n  secret: canary\n  allow: [\"http://x/\"]\n  per_host: 0\n  timeout_seconds: 31\n  per_hosts: 1";
        let all = Config::read(&file(text)).unwrap_err().to_string();
        for expected in [
            "c.yml:2: hooks.secret: ",
            "c.yml:3: hooks.allow: \"http://x/\" is neither a host",
            "c.yml:4: hooks.per_host: it is \"0\"; give 1 to 1000",
            "c.yml:5: hooks.timeout_seconds: it is \"31\"; give 1 to 30",
            "c.yml:6: hooks.per_hosts: it is not known; did you mean per_host?",
        ] {
            assert!(all.contains(expected), "{expected:?} is not in {all}");
        }
        assert!(!all.contains("canary"), "{all}");
    }
}
