//! Which URLs and addresses hooks may go to.

use super::*;

fn policy(allow: &[&str]) -> AddressPolicy {
    let mut policy = AddressPolicy::default();
    for text in allow {
        policy.allow(text).unwrap();
    }
    policy
}

/// Each is a way to write, or to reach, an address that is not public, or no URL to call at all.
const REFUSED: [&str; 64] = [
    // Loopback, in all the ways that readers of URLs understand.
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/x",
    "https://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.255.255.254/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7F.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://0177.0x0.0.1/",
    "http://127.0.0.1./",
    "http://%31%32%37.0.0.1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://localhost/",
    "http://LOCALHOST:80/",
    "http://localhost./",
    "http://a.localhost/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    // Through NAT64, 6to4, Teredo and ISATAP.
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::1]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2606:4700::5efe:7f00:1]/",
    // Never called.
    "http://0.0.0.0/",
    "http://0/",
    "http://0.1.2.3/",
    "http://[::]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fe80::1]/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    "http://255.255.255.255/",
    // Other networks inside.
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://240.0.0.1/",
    "http://[fd00:ec2::254]/",
    "http://[fec0::1]/",
    // No URL to call.
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:6379/_x",
    "http://user@example.com/",
    "http://user:word@example.com/",
    "http://exa\tmple.com/",
    "http://example.com/\r\nHost: x",
    "http:///",
    "example.com/jobs",
];

#[test]
fn no_form_of_an_address_inside_is_called() {
    let policy = policy(&[]);
    let called: Vec<&str> = REFUSED.into_iter().filter(|url| policy.check_url(url).is_ok()).collect();
    assert_eq!(called, Vec::<&str>::new());
}

#[test]
fn public_addresses_and_names_are_called() {
    let policy = policy(&[]);
    for url in [
        "https://hooks.example.com/jobs?id=1#x",
        "http://example.com:8080/",
        "http://8.8.8.8/",
        "http://172.32.0.1/",
        "http://[2606:4700:4700::1111]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::8.8.8.8]/",
        "http://[2002:808:808::1]/",
        "http://127.0.0.1.example.com/",
        "http://xn--bcher-kva.example/",
    ] {
        assert!(policy.check_url(url).is_ok(), "{url}: {:?}", policy.check_url(url));
    }
}

#[test]
fn what_is_wrong_is_said_with_a_remedy() {
    let refused = |url: &str| policy(&[]).check_url(url).unwrap_err();
    assert_eq!(refused("http://10.0.0.1/").problem, "leads to 10.0.0.1, which is private");
    assert!(refused("http://10.0.0.1/").remedy.contains("hooks.allow"));
    assert!(!refused("http://169.254.169.254/").remedy.contains("hooks.allow"), "no setting helps");
    assert!(refused(&format!("http://example.com/{}", "x".repeat(limits::HOOK_BYTES_MAX))).problem.contains("2048"));
}

#[test]
fn operator_allows_hosts_patterns_addresses_and_networks() {
    let allowed =
        |entry: &str, host: &str, address: &str| policy(&[entry]).check_address(host, address.parse().unwrap()).is_ok();
    for (entry, host, address, expected) in [
        ("hooks.internal", "hooks.internal", "10.0.0.1", true),
        ("hooks.internal", "HOOKS.internal.", "10.0.0.1", true),
        ("hooks.internal", "xhooks.internal", "10.0.0.1", false),
        ("*.internal", "a.b.internal", "10.0.0.1", true),
        ("*.internal", "internal", "10.0.0.1", false),
        ("*.internal", "evilinternal", "10.0.0.1", false),
        ("10.1.0.0/16", "x", "10.1.255.255", true),
        ("10.1.0.0/16", "x", "10.2.0.0", false),
        ("10.1.0.0/16", "x", "::ffff:10.1.0.1", true),
        ("10.1.0.0/16", "x", "64:ff9b::a01:1", true),
        ("10.1.2.3", "x", "10.1.2.3", true),
        ("10.1.2.3", "x", "10.1.2.4", false),
        ("fd00::/8", "x", "fd12::1", true),
        ("[::1]", "x", "::1", true),
        ("0.0.0.0/0", "x", "127.0.0.1", true),
    ] {
        assert_eq!(allowed(entry, host, address), expected, "{entry} {host} {address}");
    }
}

#[test]
fn nothing_allows_what_is_never_called() {
    let mut all = policy(&["0.0.0.0/0", "::/0", "169.254.169.254", "metadata.internal"]);
    all.allow("*.internal").unwrap();
    for address in [
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:169.254.1.1",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ] {
        assert!(all.check_address("metadata.internal", address.parse().unwrap()).is_err(), "{address}");
    }
}

#[test]
fn loopback_policy_allows_loopback_and_nothing_else() {
    let policy = AddressPolicy::with_loopback();
    for url in ["http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/", "http://127.9.9.9/"] {
        assert!(policy.check_url(url).is_ok(), "{url}");
    }
    assert!(policy.check_url("http://10.0.0.1/").is_err() && policy.check_url("http://169.254.169.254/").is_err());
}

#[test]
fn entries_that_are_neither_hosts_nor_networks_are_refused() {
    for entry in ["", "*", "*.", "10.0.0.0/33", "x/8", "http://host/", "a b", "*.a*", "::/129"] {
        assert!(AddressPolicy::default().allow(entry).is_err(), "{entry:?}");
    }
}

#[test]
fn host_and_port_name_the_circuit() {
    let host = |url: &str| policy(&[]).check_url(url).unwrap().host;
    assert_eq!(host("https://Example.com/a"), "example.com:443");
    assert_eq!(host("http://example.com:8080/b"), "example.com:8080");
}
