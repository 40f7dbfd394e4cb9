//! The address of a Redis, in the forms that the original takes: `host:port`, `host:port,weight,password,database`,
//! `redis://`, `rediss://` and `redis+sentinel://host,host/master/database`.

use std::fmt;

/// The port of a Redis that names none.
const PORT: u16 = 6379;

/// The port of a sentinel that names none.
const SENTINEL_PORT: u16 = 26_379;

/// What is said of an address that is none.
pub(super) const REMEDY: &str = "give host:port, host:port,weight,password,database, redis://[user:password@]host:port/database, \
     rediss:// for TLS, or redis+sentinel://[user:password@]host:port,host:port/master/database";

/// Where a Redis is and how to enter it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    /// Hosts and ports: of the Redis, or of the sentinels that know it.
    hosts: Vec<(String, u16)>,
    /// Whether it is reached over TLS.
    tls: bool,
    /// What sentinels call it; none if it is reached without any.
    master: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: u32,
    /// Seconds after which an unused connection is closed.
    idle_timeout_seconds: Option<u32>,
}

impl RedisUrl {
    /// Reads an address in any of its forms.
    pub(crate) fn parse(text: &str) -> Option<RedisUrl> {
        match text.split_once("://") {
            Some((scheme, rest)) => RedisUrl::of_url(&scheme.to_ascii_lowercase(), rest),
            None => RedisUrl::of_list(text),
        }
    }

    /// `host:port[,weight[,password[,database[,idle_timeout_seconds]]]]`. The weight is the original's, and without effect
    /// there too.
    fn of_list(text: &str) -> Option<RedisUrl> {
        let mut parts = text.split(',').map(str::trim);
        let host = host(parts.next()?, PORT)?;
        let number = |part: Option<&str>| match part {
            None | Some("") => Some(None),
            Some(part) => part.parse::<u32>().ok().map(Some),
        };
        number(parts.next())?;
        let password = parts.next().filter(|password| !password.is_empty()).map(str::to_owned);
        let database = number(parts.next())?.unwrap_or(0);
        let idle_timeout_seconds = number(parts.next())?;
        parts.next().is_none().then_some(RedisUrl {
            hosts: vec![host],
            tls: false,
            master: None,
            user: None,
            password,
            database,
            idle_timeout_seconds,
        })
    }

    fn of_url(scheme: &str, rest: &str) -> Option<RedisUrl> {
        let (tls, by_sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => return None,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let idle_timeout_seconds = match query.split_once('=') {
            Some(("idle_timeout_seconds", seconds)) => Some(seconds.parse().ok()?),
            None if query.is_empty() => None,
            _ => return None,
        };
        let (entry, rest) = rest.rsplit_once('@').map_or((None, rest), |(entry, rest)| (Some(entry), rest));
        let (user, password) = match entry {
            // Without a colon it is a user without a password, which opens nothing.
            Some(entry) => entry.split_once(':').map(|(user, password)| (Some(user), Some(password)))?,
            None => (None, None),
        };
        let some = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default_port = if by_sentinel { SENTINEL_PORT } else { PORT };
        let hosts: Vec<_> = hosts.split(',').map(|text| host(text, default_port)).collect::<Option<_>>()?;
        let (master, database) = if by_sentinel {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            (Some(some(Some(master))?), database)
        } else {
            (None, path)
        };
        if !by_sentinel && hosts.len() != 1 {
            return None;
        }
        let database = if database.is_empty() { 0 } else { database.parse().ok()? };
        Some(RedisUrl {
            hosts,
            tls,
            master,
            user: some(user),
            password: some(password),
            database,
            idle_timeout_seconds,
        })
    }
}

/// `host`, `host:port` or `[address]:port`.
fn host(text: &str, default_port: u16) -> Option<(String, u16)> {
    let text = text.trim();
    let (name, port) = match text.rsplit_once(':') {
        // A colon within brackets is one of an IPv6 address.
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok().filter(|port| *port != 0)?),
        _ => (text, default_port),
    };
    let is_name = if let Some(address) = name.strip_prefix('[') {
        address.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    is_name.then(|| (name.to_owned(), port))
}

/// As a URL, the password masked.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(if self.master.is_some() { "+sentinel://" } else { "://" })?;
        if self.user.is_some() || self.password.is_some() {
            let mask = if self.password.is_some() { super::effective::MASK } else { "" };
            write!(f, "{}:{mask}@", self.user.as_deref().unwrap_or_default())?;
        }
        let hosts: Vec<String> = self.hosts.iter().map(|(name, port)| format!("{name}:{port}")).collect();
        f.write_str(&hosts.join(","))?;
        if let Some(master) = &self.master {
            write!(f, "/{master}")?;
        }
        write!(f, "/{}", self.database)?;
        if let Some(seconds) = self.idle_timeout_seconds {
            write!(f, "?idle_timeout_seconds={seconds}")?;
        }
        Ok(())
    }
}

/// As it is displayed: the password is shown nowhere.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        RedisUrl::parse(text).map(|url| url.to_string())
    }

    #[test]
    fn all_forms_of_the_original_are_read_and_no_password_is_shown() {
        for (text, expected) in [
            ("localhost:6379", "redis://localhost:6379/0"),
            ("redis", "redis://redis:6379/0"),
            ("10.0.0.1:6380,100,canary,2", "redis://:********@10.0.0.1:6380/2"),
            ("h:1,100", "redis://h:1/0"),
            ("h:1,100,,3,30", "redis://h:1/3?idle_timeout_seconds=30"),
            ("redis://h", "redis://h:6379/0"),
            ("redis://any:canary@h:7/1", "redis://any:********@h:7/1"),
            ("redis://:can@ary@[::1]:7/1", "redis://:********@[::1]:7/1"),
            ("rediss://h:6380/0?idle_timeout_seconds=30", "rediss://h:6380/0?idle_timeout_seconds=30"),
            ("redis+sentinel://a:1,b/mymaster/2", "redis+sentinel://a:1,b:26379/mymaster/2"),
            ("redis+sentinel://u:canary@a/m", "redis+sentinel://u:********@a:26379/m/0"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
            assert!(!format!("{:?}", RedisUrl::parse(text)).contains("canary"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":6379",
            "h:0",
            "h:65536",
            "h:x",
            "h ost:1",
            "h:1,x",
            "h:1,1,p,db",
            "h:1,1,p,0,1,extra",
            "http://h",
            "redis://",
            "redis://a,b/0",
            "redis://h/db",
            "redis://h?x=1",
            "redis+sentinel://a,b",
            "redis+sentinel:///m/0",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
