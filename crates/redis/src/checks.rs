//! Looks whether a Redis is one to keep jobs in.

use std::collections::BTreeMap;

use jobservice_core::StoreError;
use redis::Value;

use crate::link::{Link, array, text};
use crate::options::OpenError;

/// What has to be said of the store although it works, by what it is about.
#[derive(Debug, Default)]
pub(crate) struct Warnings(parking_lot::Mutex<BTreeMap<&'static str, String>>);

impl Warnings {
    /// Sets or withdraws what is to be said about something; a new word goes to the log, too.
    pub(crate) fn set(&self, about: &'static str, text: Option<String>) {
        let mut warnings = self.0.lock();
        match text {
            None => drop(warnings.remove(about)),
            Some(text) => {
                if warnings.get(about) != Some(&text) {
                    tracing::warn!("{text}");
                }
                warnings.insert(about, text);
            }
        }
    }

    /// Whether something has to be said about that.
    pub(crate) fn has(&self, about: &'static str) -> bool {
        self.0.lock().contains_key(about)
    }

    /// All that has to be said.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().values().cloned().collect()
    }
}

/// Refuses a Redis that would lose jobs as a matter of course, and notes what should be better. Asked again after each
/// reconnect: it may be another server.
pub(crate) async fn check(link: &Link, warnings: &Warnings) -> Result<(), OpenError> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    match link.send(&info, "look at the version").await {
        Ok(info) => check_version(&info)?,
        Err(error) if is_forbidden(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("maxmemory-policy").arg("appendonly");
    let settings = match link.send(&get, "look at the settings").await {
        Ok(settings) => settings,
        Err(error) if is_forbidden(&error) => {
            let text = "the settings of redis cannot be read (CONFIG GET is forbidden): make sure that appendonly is yes \
                        and maxmemory-policy is noeviction";
            warnings.set("settings", Some(text.to_owned()));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    warnings.set("settings", None);
    let settings = pairs(&settings)?;
    let setting = |name: &str| settings.get(name).map_or("", String::as_str);
    // What a managed service does not show cannot be judged.
    if !matches!(setting("maxmemory-policy"), "noeviction" | "") {
        return Err(OpenError::Eviction(setting("maxmemory-policy").to_owned()));
    }
    let is_lossy = setting("appendonly") == "no";
    let text = "redis keeps no append-only file (appendonly no): when it or its machine dies, the jobs of the last minutes \
                or hours are lost; set appendonly yes";
    warnings.set("appendonly", is_lossy.then(|| text.to_owned()));
    Ok(())
}

/// Whether a Redis that was full has room again: a hundredth of what it may use, so that it is not said at every turn.
/// True if it does not tell, too: then the next submission does.
pub(crate) async fn has_room(link: &Link) -> bool {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    match link.send(&info, "look at the memory").await {
        Ok(info) => texts(&info).is_ok_and(|infos| infos.into_iter().all(is_roomy)),
        Err(error) => is_forbidden(&error),
    }
}

fn is_roomy(info: &str) -> bool {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    match (field("used_memory:"), field("maxmemory:")) {
        (Some(used), Some(most)) => most == 0 || used < most - most / 100,
        _ => true,
    }
}

/// The answers to `INFO`: in a cluster each node answers for itself.
fn texts(info: &Value) -> Result<Vec<&str>, StoreError> {
    let texts = match info {
        Value::Map(nodes) => nodes.iter().map(|(_, info)| text(info)).collect::<Result<Vec<_>, _>>()?,
        info => vec![text(info)?],
    };
    Ok(texts.into_iter().flatten().collect())
}

fn check_version(info: &Value) -> Result<(), OpenError> {
    for info in texts(info)? {
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default().trim();
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX);
        if major < 7 {
            return Err(OpenError::Version(version.to_owned()));
        }
    }
    Ok(())
}

fn is_forbidden(error: &StoreError) -> bool {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    source.contains("NOPERM") || source.contains("no permissions") || source.contains("unknown command")
}

/// Names and values, as a list or as a map.
fn pairs(answer: &Value) -> Result<BTreeMap<String, String>, StoreError> {
    let mut pairs = BTreeMap::new();
    let mut put = |name: &Value, value: &Value| -> Result<(), StoreError> {
        if let (Some(name), Some(value)) = (text(name)?, text(value)?) {
            pairs.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    };
    if let Value::Map(entries) = answer {
        for (name, value) in entries {
            put(name, value)?;
        }
    } else {
        for pair in array(answer)?.chunks_exact(2) {
            if let [name, value] = pair {
                put(name, value)?;
            }
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str) -> Value {
        Value::BulkString(format!("# Server\r\nredis_version:{version}\r\nos:x\r\n").into_bytes())
    }

    #[test]
    fn only_old_versions_are_refused() {
        assert!(matches!(check_version(&info("6.2.14")), Err(OpenError::Version(version)) if version == "6.2.14"));
        assert!(check_version(&info("7.0.15")).is_ok());
        assert!(check_version(&info("8.2.0")).is_ok());
        assert!(check_version(&Value::BulkString(b"something else".to_vec())).is_ok());
    }

    #[test]
    fn a_full_server_has_room_again_once_a_hundredth_is_free() {
        let info = |used: u64, most: u64| {
            format!("# Memory\r\nused_memory:{used}\r\nused_memory_human:x\r\nmaxmemory:{most}\r\n")
        };
        assert!(!is_roomy(&info(1000, 1000)) && !is_roomy(&info(990, 1000)) && is_roomy(&info(989, 1000)));
        assert!(is_roomy(&info(1000, 0)) && is_roomy("nothing known"));
    }

    #[test]
    fn a_warning_stands_until_it_is_withdrawn() {
        let warnings = Warnings::default();
        warnings.set("a", Some("text".to_owned()));
        warnings.set("b", None);
        assert_eq!(warnings.all(), ["text"]);
        assert!(warnings.has("a") && !warnings.has("b"));
        warnings.set("a", None);
        assert!(warnings.all().is_empty());
    }
}
