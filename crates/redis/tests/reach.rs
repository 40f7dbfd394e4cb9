//! Redis is reached in all the ways that an address can say, and a Redis that would lose jobs is refused.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "tests: a panic is how they speak")]

mod common;

use std::path::Path;
use std::process::Command;

use common::Node;
use jobservice_conformance::redis_server::{APPEND_ONLY, RedisServer, free_port};
use jobservice_redis::{OpenError, Options};

async fn refusal(options: Options) -> OpenError {
    Node::try_with(options).await.err().expect("it is refused")
}

fn at(url: impl Into<String>) -> Options {
    Options { url: url.into(), ..Options::default() }
}

#[tokio::test]
async fn server_is_reached_by_socket_and_by_port_with_a_database_and_a_password() {
    let server = RedisServer::on_a_port(&["--save", "", "--requirepass", "s,e%cret"]);
    let port = server.port();
    // The list of the original has no way to write a comma.
    let refused = refusal(at(format!("127.0.0.1:{port},100,canary"))).await;
    assert!(matches!(&refused, OpenError::Connect { .. }) && !format!("{refused:?} {refused}").contains("canary"));

    for url in [
        format!("redis://:s%2Ce%25cret@127.0.0.1:{port}/1"),
        format!("redis+unix://{}/redis.sock?db=2&password=s%2Ce%25cret", server.dir().display()),
    ] {
        Node::open(&url).await.is_well().await;
    }
    assert_eq!(server.cli(&["-a", "s,e%cret", "-n", "0", "DBSIZE"]).trim(), "0");
    assert_ne!(server.cli(&["-a", "s,e%cret", "-n", "1", "DBSIZE"]).trim(), "0");
}

#[tokio::test]
async fn original_form_of_an_address_is_understood() {
    let server = RedisServer::on_a_port(&["--save", "", "--requirepass", "secret"]);
    Node::open(&format!("127.0.0.1:{},100,secret,3", server.port())).await.is_well().await;
    assert_ne!(server.cli(&["-a", "secret", "-n", "3", "DBSIZE"]).trim(), "0");
}

/// The page whose line for a user of its own is what operators take over.
const SCALING: &str = include_str!("../../../docs/scaling.md");

#[tokio::test]
async fn restricted_user_is_enough() {
    let server = RedisServer::on_a_port(&["--save", ""]);
    let line = SCALING.lines().map(str::trim).find(|line| line.starts_with("ACL SETUSER jobs ")).unwrap();
    assert_eq!(server.cli(&line.split(' ').collect::<Vec<_>>()).trim(), "OK");
    let url = format!("redis://jobs:secret@127.0.0.1:{}", server.port());
    // What the service has without a setting: `worker_pool.redis_pool.namespace`.
    let namespace = "harbor_job_service".to_owned();
    Node::with(Options { url: url.clone(), namespace, ..Options::default() }).await.is_well().await;

    let refused = refusal(Options { url, namespace: "foreign".to_owned(), ..Options::default() }).await;
    assert!(format!("{refused:?}").contains("no permissions"), "{refused:?}");
}

#[tokio::test]
async fn settings_that_may_not_be_read_are_a_warning() {
    let server = RedisServer::on_a_port(&["--save", ""]);
    let user = "ACL SETUSER jobs on >secret ~* &* +@all -config";
    assert_eq!(server.cli(&user.split(' ').collect::<Vec<_>>()).trim(), "OK");
    let node = Node::open(&format!("redis://jobs:secret@127.0.0.1:{}", server.port())).await;
    let warnings = node.store.warnings();
    assert!(warnings.iter().any(|text| text.contains("CONFIG GET is forbidden")), "{warnings:?}");
}

#[tokio::test]
async fn redis_that_would_lose_jobs_is_refused_or_spoken_of() {
    let evicting = RedisServer::with(&["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    let refused = refusal(at(evicting.url())).await;
    assert!(matches!(&refused, OpenError::Eviction(policy) if policy == "allkeys-lru"), "{refused}");

    let server = RedisServer::with(&APPEND_ONLY);
    assert!(Node::open(&server.url()).await.store.warnings().is_empty());
    let stock = RedisServer::start();
    let warnings = Node::open(&stock.url()).await.store.warnings();
    assert!(warnings.iter().any(|text| text.contains("appendonly")), "{warnings:?}");
}

#[tokio::test]
async fn node_with_another_number_of_shards_is_refused() {
    let server = RedisServer::start();
    let _first = Node::with(Options { shards: 3, ..at(server.url()) }).await;
    let refused = refusal(Options { shards: 2, ..at(server.url()) }).await;
    assert!(matches!(refused, OpenError::Shards { stored: 3, configured: 2 }), "{refused}");
}

#[tokio::test]
async fn store_of_another_layout_is_refused() {
    let server = RedisServer::start();
    drop(Node::open(&server.url()).await);
    for (command, found) in [
        (["HSET", "{jobservice:0}:epoch", "layout", "7"].as_slice(), 7),
        (&["HDEL", "{jobservice:0}:epoch", "layout"], 0),
    ] {
        server.cli(command);
        let refused = refusal(at(server.url())).await;
        assert!(matches!(refused, OpenError::Layout { stored, known: 1 } if stored == found), "{refused}");
    }
}

#[tokio::test]
async fn wrong_options_are_named() {
    assert!(matches!(refusal(at("ftp://h")).await, OpenError::Target(_)));
    assert!(matches!(refusal(Options { namespace: "a}b".to_owned(), ..at("h") }).await, OpenError::Namespace(_)));
    let missing = Options { authorities: Some("/none/ca.pem".into()), ..at("rediss://h") };
    assert!(matches!(refusal(missing).await, OpenError::Authorities { .. }));
    let shown = format!("{:?}", at("redis://u:canary@h"));
    assert!(shown.contains("redis://u:********@h:6379/0") && !shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn nobody_there_is_said_within_the_time_out() {
    let refused = refusal(at("redis+unix:///none/redis.sock")).await;
    assert!(refused.to_string().starts_with("cannot connect to redis+unix:///none/redis.sock"), "{refused}");
}

/// Makes an authority and a certificate for localhost signed by it.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let made = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    std::fs::write(dir.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    );
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout key.pem -out request.pem",
    );
    openssl("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem");
}

#[tokio::test]
async fn server_is_reached_over_tls_if_its_authority_is_known() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key, ca) = (file("cert.pem"), file("key.pem"), file("ca.pem"));
    let plain = RedisServer::on_a_port(&["--save", ""]);
    let tls_port = free_port();
    let set = |name: &str, value: &str| assert_eq!(plain.cli(&["CONFIG", "SET", name, value]).trim(), "OK");
    let files = ["tls-cert-file", &cert, "tls-key-file", &key, "tls-ca-cert-file", &ca, "tls-auth-clients", "no"];
    let args: Vec<&str> = ["CONFIG", "SET"].into_iter().chain(files).collect();
    assert_eq!(plain.cli(&args).trim(), "OK");
    set("tls-port", &tls_port.to_string());

    let url = format!("rediss://localhost:{tls_port}");
    let refused = refusal(at(url.clone())).await;
    assert!(matches!(refused, OpenError::Connect { .. }), "{refused:?}");
    Node::with(Options { authorities: Some(ca.into()), ..at(url) }).await.is_well().await;
}

#[tokio::test]
async fn primary_is_found_by_sentinels() {
    let primary = RedisServer::on_a_port(&["--save", ""]);
    let sentinel = RedisServer::sentinel_of(&primary);
    // The first sentinel is away.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main/0", sentinel.port());
    Node::open(&url).await.is_well().await;

    let unknown = format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port());
    assert!(matches!(refusal(at(unknown)).await, OpenError::Connect { .. }));
}

#[tokio::test]
async fn shards_lie_on_the_servers_of_a_cluster() {
    let servers = RedisServer::cluster(3);
    let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    let options = Options { shards: 6, ..at(format!("redis+cluster://{}", hosts.join(","))) };
    let (one, two) = (Node::with(options.clone()).await, Node::with(options).await);
    for number in 0..30 {
        let name = format!("name-{number}");
        let id = one.submit(&name).await.unwrap();
        let jobs = two.claim(&name, 2).await.unwrap();
        assert_eq!(jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&id]);
        two.finish(&jobs).await.unwrap();
    }
    let sizes: Vec<String> = servers.iter().map(|server| server.cli(&["DBSIZE"]).trim().to_owned()).collect();
    assert!(sizes.iter().all(|size| size != "0"), "{sizes:?}");
}
