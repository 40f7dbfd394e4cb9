//! Where Redis is: an address in any of its forms, read once at start.
//!
//! * `host:port`, or the original's `host:port,weight,password,database`
//! * `redis://[user:password@]host:port/database`, the same over TLS with `rediss://`
//! * `redis+unix:///path/to.sock?db=1`
//! * `redis+sentinel://[user:password@]host:port,host:port/master/database`, `rediss+sentinel://`
//! * `redis+cluster://[user:password@]host:port,host:port`, `rediss+cluster://`
//!
//! What stands between `//` and `@` is percent-decoded; the password is shown nowhere, neither here nor in errors.

use std::fmt;
use std::path::PathBuf;

/// The port of a Redis that names none.
const PORT: u16 = 6379;

/// The port of a sentinel that names none.
const SENTINEL_PORT: u16 = 26_379;

/// A host and its port.
pub(crate) type Host = (String, u16);

/// Where Redis is, and how to enter it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) place: Place,
    /// Whether it is reached over TLS.
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    /// How the sentinels are entered; nobody has to log in there unless they say so.
    pub(crate) sentinel_user: Option<String>,
    pub(crate) sentinel_password: Option<String>,
}

/// The kinds of places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One server.
    Host(Host),
    /// One server, by a socket of this machine.
    Socket(PathBuf),
    /// The server that sentinels call the master of this name.
    Sentinel { hosts: Vec<Host>, master: String },
    /// A cluster, of which these are some nodes.
    Cluster { hosts: Vec<Host> },
}

/// Why a text is no address of a Redis. It never shows what the text says before an `@`, or in the place of a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The beginning is unknown.
    #[error(
        "redis_url: scheme: {0:?} is unknown; give redis, rediss, redis+unix, redis+sentinel, rediss+sentinel, \
         redis+cluster or rediss+cluster, or host:port without one"
    )]
    Scheme(String),
    /// A host is missing or has characters that no host has.
    #[error("redis_url: host: it is missing or not valid; give a name, an IPv4 address or an IPv6 address in brackets")]
    Host,
    /// More than one host, where there can be one only.
    #[error("redis_url: host: there is more than one; list several only with redis+sentinel:// or redis+cluster://")]
    Hosts,
    /// A port is no number from 1 to 65535.
    #[error("redis_url: port: it is not valid; give a number from 1 to 65535")]
    Port,
    /// The database is no number.
    #[error("redis_url: database: it is not valid; give a number, 0 unless you know better")]
    Database,
    /// A cluster has one database.
    #[error("redis_url: database: a cluster has only database 0; leave it out")]
    ClusterDatabase,
    /// The weight of the original's form is no number.
    #[error("redis_url: weight: it is not valid; it has no effect: give 0 or leave the place between the commas empty")]
    Weight,
    /// The idle time-out is no number.
    #[error("redis_url: idle_timeout_seconds: it is not valid; it has no effect: leave it out")]
    IdleTimeout,
    /// Too many parts between commas.
    #[error("redis_url: it has too many parts; give host:port,weight,password,database")]
    Parts,
    /// There is something before the `@`, but no colon in it.
    #[error("redis_url: password: there is none before the @; give user:password@ or :password@")]
    Password,
    /// A percent sign without two hexadecimal digits after it, or bytes that are not UTF-8.
    #[error("redis_url: {0}: a percent sign must be followed by two hexadecimal digits; write %25 for the sign itself")]
    Percent(&'static str),
    /// Sentinels without the name of a master.
    #[error("redis_url: master: it is missing; give redis+sentinel://host:port,host:port/master")]
    Master,
    /// A socket without a path.
    #[error("redis_url: path: it is missing; give redis+unix:///path/to/redis.sock")]
    Path,
    /// An unknown word after the question mark.
    #[error(
        "redis_url: {0:?} after the question mark is unknown; known are db, user, password, sentinel_user and sentinel_password"
    )]
    Query(String),
}

impl Target {
    /// Reads an address in any of its forms.
    ///
    /// # Errors
    /// [`TargetError`], which names the part that is wrong and what to give instead.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        let text = text.trim();
        match text.split_once("://") {
            Some((scheme, rest)) => Target::of_url(&scheme.to_ascii_lowercase(), rest),
            None => Target::of_list(text),
        }
    }

    /// The original's form. The weight and the time-out are without effect, here as there.
    fn of_list(text: &str) -> Result<Target, TargetError> {
        let mut parts = text.split(',').map(str::trim);
        let host = host(parts.next().unwrap_or_default(), PORT)?;
        let number = |part: Option<&str>, error: TargetError| match part {
            None | Some("") => Ok(0),
            Some(part) => part.parse::<u32>().map_err(|_| error),
        };
        number(parts.next(), TargetError::Weight)?;
        let password = parts.next().filter(|password| !password.is_empty()).map(str::to_owned);
        let database = i64::from(number(parts.next(), TargetError::Database)?);
        number(parts.next(), TargetError::IdleTimeout)?;
        if parts.next().is_some() {
            return Err(TargetError::Parts);
        }
        Ok(Target { password, database, ..Target::at(Place::Host(host)) })
    }

    fn at(place: Place) -> Target {
        Target {
            place,
            tls: false,
            user: None,
            password: None,
            database: 0,
            sentinel_user: None,
            sentinel_password: None,
        }
    }

    fn of_url(scheme: &str, rest: &str) -> Result<Target, TargetError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (entry, rest) = rest.rsplit_once('@').map_or((None, rest), |(entry, rest)| (Some(entry), rest));
        let mut target = match scheme {
            "redis" | "rediss" => {
                let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
                let mut hosts = hosts_of(hosts, PORT)?.into_iter();
                let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(TargetError::Hosts) };
                Target { database: database_of(database)?, ..Target::at(Place::Host(host)) }
            }
            "redis+unix" | "unix" => {
                let path = decoded(rest, "path")?;
                if !path.starts_with('/') {
                    return Err(TargetError::Path);
                }
                Target::at(Place::Socket(path.into()))
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (hosts, path) = rest.split_once('/').ok_or(TargetError::Master)?;
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                let master = decoded(master, "master")?;
                if master.is_empty() {
                    return Err(TargetError::Master);
                }
                let hosts = hosts_of(hosts, SENTINEL_PORT)?;
                Target { database: database_of(database)?, ..Target::at(Place::Sentinel { hosts, master }) }
            }
            "redis+cluster" | "rediss+cluster" => {
                let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
                let place = Place::Cluster { hosts: hosts_of(hosts, PORT)? };
                Target { database: database_of(database)?, ..Target::at(place) }
            }
            other => return Err(TargetError::Scheme(other.to_owned())),
        };
        target.tls = scheme.starts_with("rediss");
        if let Some(entry) = entry {
            let (user, password) = entry.split_once(':').ok_or(TargetError::Password)?;
            target.user = some(decoded(user, "user")?);
            target.password = some(decoded(password, "password")?);
        }
        target.take_query(query)?;
        match &target.place {
            Place::Cluster { .. } if target.database != 0 => Err(TargetError::ClusterDatabase),
            _ => Ok(target),
        }
    }

    fn take_query(&mut self, query: &str) -> Result<(), TargetError> {
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (word, value) = part.split_once('=').unwrap_or((part, ""));
            match word {
                "db" => self.database = database_of(value)?,
                "user" => self.user = some(decoded(value, "user")?),
                "pass" | "password" => self.password = some(decoded(value, "password")?),
                "sentinel_user" => self.sentinel_user = some(decoded(value, "sentinel_user")?),
                "sentinel_password" => self.sentinel_password = some(decoded(value, "sentinel_password")?),
                "idle_timeout_seconds" => drop(value.parse::<u32>().map_err(|_| TargetError::IdleTimeout)?),
                other => return Err(TargetError::Query(other.to_owned())),
            }
        }
        Ok(())
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn database_of(text: &str) -> Result<i64, TargetError> {
    match text {
        "" => Ok(0),
        text => text.parse::<u32>().map(i64::from).map_err(|_| TargetError::Database),
    }
}

fn hosts_of(text: &str, default_port: u16) -> Result<Vec<Host>, TargetError> {
    text.split(',').map(|text| host(text, default_port)).collect()
}

/// `host`, `host:port` or `[address]:port`.
fn host(text: &str, default_port: u16) -> Result<Host, TargetError> {
    let text = text.trim();
    let (name, port) = match text.rsplit_once(':') {
        // A colon within brackets is one of an IPv6 address.
        Some((name, port)) if !port.contains(']') => {
            (name, port.parse().ok().filter(|port| *port != 0).ok_or(TargetError::Port)?)
        }
        _ => (text, default_port),
    };
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').ok_or(TargetError::Host)?;
        return address
            .parse::<std::net::Ipv6Addr>()
            .map(|_| (address.to_owned(), port))
            .map_err(|_| TargetError::Host);
    }
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_name { Ok((name.to_owned(), port)) } else { Err(TargetError::Host) }
}

/// `%41` for `A`.
fn decoded(text: &str, field: &'static str) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(TargetError::Percent(field));
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| TargetError::Percent(field))
}

/// As a URL, the password masked.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match &self.place {
            Place::Host(_) => "://",
            Place::Socket(_) => "+unix://",
            Place::Sentinel { .. } => "+sentinel://",
            Place::Cluster { .. } => "+cluster://",
        })?;
        if self.user.is_some() || self.password.is_some() {
            let mask = if self.password.is_some() { "********" } else { "" };
            write!(f, "{}:{mask}@", self.user.as_deref().unwrap_or_default())?;
        }
        let list = |hosts: &[Host]| {
            let hosts: Vec<String> = hosts.iter().map(|(name, port)| format!("{name}:{port}")).collect();
            hosts.join(",")
        };
        match &self.place {
            Place::Host((name, port)) => write!(f, "{name}:{port}/{}", self.database),
            Place::Socket(path) => write!(f, "{}?db={}", path.display(), self.database),
            Place::Sentinel { hosts, master } => write!(f, "{}/{master}/{}", list(hosts), self.database),
            Place::Cluster { hosts } => f.write_str(&list(hosts)),
        }
    }
}

/// As it is displayed: the password is shown nowhere.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Target::parse(text).unwrap().to_string()
    }

    #[test]
    fn all_forms_of_an_address_are_read() {
        assert_eq!(shown("cache"), "redis://cache:6379/0");
        assert_eq!(shown("10.0.0.1:7000"), "redis://10.0.0.1:7000/0");
        assert_eq!(shown("redis:6379,100,canary,3"), "redis://:********@redis:6379/3");
        assert_eq!(shown("redis:6379,,,2,30"), "redis://redis:6379/2");
        assert_eq!(shown("redis://u:canary@h:1/4"), "redis://u:********@h:1/4");
        assert_eq!(shown("REDISS://[::1]:7"), "rediss://::1:7/0");
        assert_eq!(shown("redis+unix:///run/r%20s.sock?db=2"), "redis+unix:///run/r s.sock?db=2");
        assert_eq!(shown("redis+sentinel://:canary@a,b:1/main/1"), "redis+sentinel://:********@a:26379,b:1/main/1");
        assert_eq!(shown("rediss+cluster://a:1,b:2"), "rediss+cluster://a:1,b:2");
    }

    #[test]
    fn secrets_are_decoded_and_never_shown() {
        let target = Target::parse("redis+sentinel://us%40er:p%3Aw%2F@a/m?sentinel_password=canary").unwrap();
        assert_eq!((target.user.as_deref(), target.password.as_deref()), (Some("us@er"), Some("p:w/")));
        assert_eq!(target.sentinel_password.as_deref(), Some("canary"));
        assert!(!format!("{target:?} {target}").contains("canary"));
        assert!(!format!("{target:?}").contains("p:w"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let error = |text: &str| Target::parse(text).unwrap_err();
        assert_eq!(error("http://u:canary@h"), TargetError::Scheme("http".to_owned()));
        assert_eq!(error(""), TargetError::Host);
        assert_eq!(error("redis://a b"), TargetError::Host);
        assert_eq!(error("redis://[::1:1"), TargetError::Host);
        assert_eq!(error("redis://a,b"), TargetError::Hosts);
        assert_eq!(error("h:0"), TargetError::Port);
        assert_eq!(error("h:x"), TargetError::Port);
        assert_eq!(error("h:1,x"), TargetError::Weight);
        assert_eq!(error("h:1,,pw,x"), TargetError::Database);
        assert_eq!(error("h:1,1,1,1,1,1"), TargetError::Parts);
        assert_eq!(error("redis://h/x"), TargetError::Database);
        assert_eq!(error("redis://canary@h"), TargetError::Password);
        assert_eq!(error("redis://:a%2@h"), TargetError::Percent("password"));
        assert_eq!(error("redis+sentinel://h"), TargetError::Master);
        assert_eq!(error("redis+unix://relative"), TargetError::Path);
        assert_eq!(error("redis+cluster://h/1"), TargetError::ClusterDatabase);
        assert_eq!(error("redis://h?time_out=1"), TargetError::Query("time_out".to_owned()));
        let texts = ["http://u:canary@h", "redis://canary@h", "h:1,,canary,x", "redis://:canary%2@h"];
        assert!(texts.iter().all(|text| !format!("{0} {0:?}", error(text)).contains("canary")));
        assert!(error("h:0").to_string().starts_with("redis_url: port: it is not valid; give"));
    }
}
