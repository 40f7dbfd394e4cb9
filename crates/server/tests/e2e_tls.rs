//! Goal: https serves as http does, a new certificate costs nobody anything, and whoever does not get through a handshake
//! is cut off.
//! Method: the real binary with certificates of an authority made for the test; plain sockets for what no client sends.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests may fail as tests do")]

mod chaos;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chaos::{Context, Result, Service, Setup, ensure, now, pause};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::tls::TlsInfo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Signs the certificates of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Puts a new certificate and its key where the service reads them. Answers the certificate, DER.
    fn issue(&self, dir: &Path) -> Result<Vec<u8>> {
        let key = KeyPair::generate()?;
        let cert =
            CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?.signed_by(&key, &self.0)?;
        for (name, pem) in [("server.key", key.serialize_pem()), ("server.crt", cert.pem())] {
            std::fs::write(dir.join("new"), pem)?;
            std::fs::rename(dir.join("new"), dir.join(name))?;
        }
        Ok(cert.der().to_vec())
    }

    fn setup(&self, data: &Path) -> Setup {
        let file = |name: &str| data.join(name).display().to_string();
        let setup = Setup::real(data, 2)
            .env("JOB_SERVICE_PROTOCOL", "https")
            .env("JOB_SERVICE_HTTPS_CERT", file("server.crt"))
            .env("JOB_SERVICE_HTTPS_KEY", file("server.key"));
        Setup { authority: Some(self.0.pem()), ..setup }
    }

    fn client(&self) -> Result<reqwest::ClientBuilder> {
        let certificate = reqwest::Certificate::from_pem(self.0.pem().as_bytes())?;
        Ok(reqwest::Client::builder().tls_certs_only([certificate]).tls_info(true).timeout(Duration::from_secs(20)))
    }

    /// The certificate that a new connection is shown, DER.
    async fn shown(&self, service: &Service) -> Result<Vec<u8>> {
        let answer = self.client()?.build()?.get(format!("{}/healthz", service.url)).send().await?;
        let info = answer.extensions().get::<TlsInfo>().context("TLS")?;
        Ok(info.peer_certificate().context("a certificate")?.to_vec())
    }

    async fn until_shown(&self, service: &Service, der: &[u8], limit: Duration) -> Result<()> {
        let started = now();
        while self.shown(service).await? != der {
            ensure!(started.elapsed() < limit, "the new certificate is not shown after {limit:?}");
            pause(Duration::from_millis(20)).await; // bounded poll
        }
        Ok(())
    }
}

/// Waits for something that happens soon.
async fn until(mut happened: impl FnMut() -> Result<bool>, otherwise: &str) -> Result<()> {
    let started = now();
    while !happened()? {
        ensure!(started.elapsed() < Duration::from_secs(30), "{otherwise}");
        pause(Duration::from_millis(10)).await; // bounded poll
    }
    Ok(())
}

fn address(service: &Service) -> &str {
    service.url.trim_start_matches("https://")
}

async fn cli(data: &Path, args: &[&str]) -> Result<(i32, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobservice"));
    command.arg("--data-dir").arg(data).args(args).env_remove("CORE_SECRET").env_remove("JOBSERVICE_URL");
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((output.status.code().unwrap_or(-1), text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_serves_clients_and_the_command_line() -> Result<()> {
    let data = tempfile::tempdir()?;
    let authority = Authority::new()?;
    authority.issue(data.path())?;
    let service = Service::start(&authority.setup(data.path())).await?;
    assert!(service.url.starts_with("https://127.0.0.1:"), "{}", service.url);

    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let client = authority.client()?.tls_version_min(version).tls_version_max(version).build()?;
        assert_eq!(client.get(format!("{}/healthz", service.url)).send().await?.status(), 200, "{version:?}");
    }
    let old = authority.client()?.tls_version_max(reqwest::tls::Version::TLS_1_1).build();
    assert!(old.is_err() || old?.get(format!("{}/healthz", service.url)).send().await.is_err());

    let (code, text) = cli(data.path(), &["submit", "noop", "--wait"]).await?;
    assert_eq!(code, 0, "the command line beside the service trusts its certificate: {text}");
    let secret = service.secret.as_str();
    let elsewhere = tempfile::tempdir()?;
    let root = elsewhere.path().join("root.pem");
    std::fs::write(&root, authority.0.pem())?;
    let by_name = service.url.replace("127.0.0.1", "localhost");
    let with_root = ["list", "--url", &by_name, "--secret", secret, "--ca-cert", root.to_str().context("UTF-8")?];
    assert_eq!(cli(elsewhere.path(), &with_root).await?.0, 0);
    let (code, text) = cli(elsewhere.path(), &["list", "--url", &service.url, "--secret", secret]).await?;
    assert!(code == 5 && text.contains("certificate"), "{code} {text}");
    Ok(())
}

/// What `openssl req -x509` makes: it signs itself, with or without the mark of an authority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_signs_itself_is_trusted_when_it_is_given() -> Result<()> {
    for is_authority in [false, true] {
        let data = tempfile::tempdir()?;
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let own = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(data.path().join("server.crt"), own.pem())?;
        std::fs::write(data.path().join("server.key"), own.key().serialize_pem())?;
        let _service = start_unseen(&Authority::new()?.setup(data.path())).await?;

        let secret = std::fs::read_to_string(data.path().join("secret"))?.trim().to_owned();
        let url = std::fs::read_to_string(data.path().join("endpoint"))?.trim().to_owned();
        assert_eq!(cli(data.path(), &["list"]).await?.0, 0);
        let elsewhere = tempfile::tempdir()?;
        let file = data.path().join("server.crt").display().to_string();
        let (code, text) =
            cli(elsewhere.path(), &["list", "--url", &url, "--secret", &secret, "--ca-cert", &file]).await?;
        assert_eq!(code, 0, "{text}");
        let wrong_name = url.replace("127.0.0.1", "localhost");
        let (code, text) =
            cli(elsewhere.path(), &["list", "--url", &wrong_name, "--secret", &secret, "--ca-cert", &file]).await?;
        assert_eq!(code, 5, "another name is refused: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_without_a_failed_request() -> Result<()> {
    let data = tempfile::tempdir()?;
    let authority = Authority::new()?;
    let mut current = authority.issue(data.path())?;
    let service = Service::start(&authority.setup(data.path())).await?;
    assert_eq!(authority.shown(&service).await?, current);

    let (done, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for number in 0..4 {
        // Half of them keep their connections over all reloads, half make a new one for each request.
        let kept = if number % 2 == 0 { usize::MAX } else { 0 };
        let client = authority.client()?.pool_max_idle_per_host(kept).build()?;
        let (done, requests, url) = (Arc::clone(&done), Arc::clone(&requests), service.url.clone());
        load.push(tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let answer = client.get(format!("{url}/api/v1/stats")).send().await?;
                ensure!(answer.status() == 200, "{}", answer.status());
                answer.bytes().await?;
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }));
    }
    for _ in 0..chaos::count(3, 30) {
        current = authority.issue(data.path())?;
        service.signal(Signal::SIGHUP)?;
        authority.until_shown(&service, &current, Duration::from_secs(10)).await?;
        until(|| Ok(std::fs::read(data.path().join("endpoint.crt"))? == current), "endpoint.crt is the old one")
            .await?;
    }
    // Without a signal the files are looked at from time to time.
    current = authority.issue(data.path())?;
    authority.until_shown(&service, &current, Duration::from_secs(20)).await?;

    // A pair that does not fit leaves the old one in place.
    std::fs::write(data.path().join("server.key"), KeyPair::generate()?.serialize_pem())?;
    service.signal(Signal::SIGHUP)?;
    let log = data.path().join("service.log");
    let told = || Ok(std::fs::read_to_string(&log)?.contains("the old certificate stays in use"));
    until(told, "nothing is said of the bad pair").await?;
    assert_eq!(authority.shown(&service).await?, current);

    done.store(true, Ordering::Relaxed);
    for load in load {
        load.await??;
    }
    println!("{} requests, none failed", requests.load(Ordering::Relaxed));
    assert!(requests.load(Ordering::Relaxed) > 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_get_through_the_handshake_is_cut_off() -> Result<()> {
    let data = tempfile::tempdir()?;
    let authority = Authority::new()?;
    authority.issue(data.path())?;
    let service = Service::start(&authority.setup(data.path())).await?;

    let mut stream = TcpStream::connect(address(&service)).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https://"), "{answer}");

    let started = now();
    let mut waiting = Vec::new();
    // Silence, a handshake that is begun and left, one that trickles, and nonsense.
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00", b"\x00\x01\x02"] {
        for _ in 0..25 {
            let address = address(&service).to_owned();
            waiting.push(tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(bytes).await?;
                let mut answer = Vec::new();
                let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
                anyhow::Ok(closed.is_ok())
            }));
        }
    }
    let api = service.api();
    while started.elapsed() < Duration::from_secs(5) {
        let asked = now();
        api.list("").await?;
        ensure!(asked.elapsed() < Duration::from_secs(1), "a request took {:?} meanwhile", asked.elapsed());
        pause(Duration::from_millis(20)).await; // bounded poll
    }
    for waiter in waiting {
        assert!(waiter.await??, "a connection stays open");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn https_does_not_start_without_a_good_pair() -> Result<()> {
    let data = tempfile::tempdir()?;
    let setup = Authority::new()?.setup(data.path());
    let error = Service::start(&setup).await.err().context("it started")?.to_string();
    assert!(error.contains("cannot serve https") && error.contains("cannot read"), "{error}");
    Ok(())
}

/// Starts a service whose certificate the helper's client would not accept, and waits for its endpoint.
async fn start_unseen(setup: &Setup) -> Result<Unseen> {
    let child = Command::new(&setup.bin)
        .arg("--data-dir")
        .arg(&setup.data)
        .args(["--port", "0"])
        .env_remove("CORE_SECRET")
        .envs(setup.env.iter().cloned())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let unseen = Unseen(child);
    until(|| Ok(setup.data.join("endpoint").is_file()), "it does not start").await?;
    Ok(unseen)
}

struct Unseen(std::process::Child);

impl Drop for Unseen {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
