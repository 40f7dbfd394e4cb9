//! Where hooks may go: public addresses, and what the operator allows beyond them.
//!
//! Whoever may submit a job names a URL that the service then calls from inside the operator's network. So what is
//! checked is the address that is connected to: literal ones here, in whatever form they are written, those behind names
//! when they are looked up ([`super::resolve`]). Link-local, multicast and unspecified addresses are never called: the
//! metadata services of clouds live there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use jobservice_core::limits;
use reqwest::Url;

/// What may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    hosts: Vec<HostPattern>,
    networks: Vec<Network>,
}

/// A URL that may be called as far as it can be told without looking up its name.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// Host and port: what has one circuit and one limit.
    pub(crate) host: String,
}

/// Why a URL or an address is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Refused {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: &'static str,
}

const ALLOW: &str = "use a public address, or let the operator add it to hooks.allow";
const NEVER: &str = "use another address: this kind is never called";

fn refused<T>(problem: impl Into<String>, remedy: &'static str) -> Result<T, Refused> {
    Err(Refused { problem: problem.into(), remedy })
}

impl AddressPolicy {
    /// Public addresses and loopback: for a service that only its own host can reach.
    pub fn with_loopback() -> AddressPolicy {
        let networks =
            vec![Network::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8), Network::new(Ipv6Addr::LOCALHOST.into(), 128)];
        AddressPolicy { hosts: Vec::new(), networks }
    }

    /// Allows beyond public addresses: a host (`hooks.internal`), a pattern of hosts (`*.internal`), an address, or a
    /// network (`10.1.0.0/16`).
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn allow(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim().trim_matches(['[', ']']);
        let parts = text.split_once('/');
        if let Some((Ok(address), bits)) = parts.map(|(address, bits)| (IpAddr::from_str(address), bits)) {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most);
            let bits = bits.ok_or_else(|| format!("{text:?} has no prefix length from 0 to {most}"))?;
            self.networks.push(Network::new(address, bits));
        } else if let Ok(address) = IpAddr::from_str(text) {
            self.networks.push(Network::new(address, if address.is_ipv4() { 32 } else { 128 }));
        } else {
            self.hosts.push(HostPattern::parse(text)?);
        }
        Ok(())
    }

    /// Looks at a URL before anything is looked up.
    pub(crate) fn check_url(&self, text: &str) -> Result<Target, Refused> {
        const FORM: &str = "give a URL like https://hooks.example.com/jobs";
        if text.len() > limits::HOOK_BYTES_MAX {
            return refused(format!("has {} bytes, at most {} are allowed", text.len(), limits::HOOK_BYTES_MAX), FORM);
        }
        // Readers of URLs pass over tabs and line ends, so that a text and what it is read as differ.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refused("holds white space or control characters", FORM);
        }
        let url = Url::parse(text).or_else(|error| refused(format!("is not a URL: {error}"), FORM))?;
        if !matches!(url.scheme(), "http" | "https") {
            return refused(format!("has the scheme {:?}", url.scheme()), "use http or https");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("holds a user name or password", "leave them out; messages are signed instead");
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return refused("names no host", FORM);
        };
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => self.check_address(host, address)?,
            Err(_) if is_localhost(host) => self.check_address(host, Ipv4Addr::LOCALHOST.into())?,
            Err(_) => {}
        }
        let host = format!("{host}:{port}");
        Ok(Target { url, host })
    }

    /// Looks at an address that is to be called for the sake of this host.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let allowed = |address: IpAddr| self.networks.iter().any(|network| network.contains(address));
        let named = self.hosts.iter().any(|pattern| pattern.matches(host));
        match class(address) {
            Class::Never(kind) => refused(format!("leads to {address}, which is {kind}"), NEVER),
            Class::Public => Ok(()),
            Class::Private(_) if named || allowed(plain(address)) => Ok(()),
            Class::Private(kind) => refused(format!("leads to {address}, which is {kind}"), ALLOW),
            // What is inside decides, unless the outer form itself is allowed.
            Class::Holds(inner) => match class(inner.into()) {
                Class::Never(kind) => {
                    refused(format!("leads to {address}, which holds {inner}, which is {kind}"), NEVER)
                }
                Class::Public => Ok(()),
                _ if named || allowed(address) || allowed(inner.into()) => Ok(()),
                _ => refused(format!("leads to {address}, which holds {inner}, which is not public"), ALLOW),
            },
        }
    }
}

/// Names that mean this host everywhere.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Public,
    /// Called only if allowed.
    Private(&'static str),
    /// Not called at all.
    Never(&'static str),
    /// A way to write this address as one of IPv6, or a tunnel to it.
    Holds(Ipv4Addr),
}

fn class(address: IpAddr) -> Class {
    match plain(address) {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

/// An IPv4 address that is written as one of IPv6 is the IPv4 address: the system connects to that.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn class_v4(address: Ipv4Addr) -> Class {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Class::Never("unspecified"),
        (169, 254, _) => Class::Never("link-local"),
        (224..=239, ..) => Class::Never("multicast"),
        _ if address.is_broadcast() => Class::Never("broadcast"),
        (127, ..) => Class::Private("loopback"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Class::Private("private"),
        (100, 64..=127, _) => Class::Private("shared by carriers"),
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18..=19, _) => {
            Class::Private("reserved for special purposes")
        }
        (240..=255, ..) => Class::Private("reserved"),
        _ => Class::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> Class {
    let holds = |high: u16, low: u16| Class::Holds(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        _ if address.is_unspecified() => Class::Never("unspecified"),
        [0xfe80..=0xfebf, ..] => Class::Never("link-local"),
        [0xff00..=0xffff, ..] => Class::Never("multicast"),
        _ if address.is_loopback() => Class::Private("loopback"),
        [0xfc00..=0xfdff, ..] => Class::Private("private"),
        [0xfec0..=0xfeff, ..] => Class::Private("site-local"),
        // The old way to write IPv4 addresses, NAT64, 6to4, and ISATAP with whatever prefix.
        [0, 0, 0, 0, 0, 0, high, low] => holds(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => holds(high, low),
        [0x2002, high, low, ..] => holds(high, low),
        [.., 0 | 0x200, 0x5efe, high, low] => holds(high, low),
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, ..] => Class::Private("reserved for special purposes"),
        [0x2000..=0x3ffe, ..] => Class::Public,
        _ => Class::Private("not assigned to hosts"),
    }
}

/// A network: an address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn new(address: IpAddr, bits: u8) -> Network {
        Network { address, bits }
    }

    fn contains(self, other: IpAddr) -> bool {
        let differing = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.bits)
    }
}

/// A host name, or `*.` and a domain, which stands for all names beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPattern {
    name: String,
    beneath: bool,
}

impl HostPattern {
    fn parse(text: &str) -> Result<HostPattern, String> {
        let (name, beneath) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
            return Err(format!(
                "{text:?} is neither a host, like hooks.internal or *.internal, nor a network, like 10.1.0.0/16"
            ));
        }
        Ok(HostPattern { name, beneath })
    }

    fn matches(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if !self.beneath {
            return host == self.name;
        }
        host.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

#[cfg(test)]
#[path = "address_test.rs"]
mod tests;
