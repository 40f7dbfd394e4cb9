//! Https: the certificate, which is read again while connections live, and the handshake.
//!
//! A reload changes what the next handshake shows; connections that there are go on as they are, and the listener is not
//! touched. Files that do not fit each other (the certificate was replaced, its key not yet) leave the old pair in place
//! and are looked at again.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::response::IntoResponse as _;
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::{ApiError, Reason};
use crate::config::Https;

/// How often the files are looked at: a renewed certificate is in use this long after it was written, at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A chain of certificates has some kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the first byte of a handshake is.
const HANDSHAKE: u8 = 0x16;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no {what}: give PEM with {begin}", .path.display())]
    Nothing { path: PathBuf, what: &'static str, begin: &'static str },
    #[error("{} is not valid PEM", .path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("the key in {} is not that of the certificate in {}", .key.display(), .cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("cannot use the certificate in {} with the key in {}", .cert.display(), .key.display())]
    Unusable {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// The certificate that is shown, and the files that it comes from.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: Https,
    /// The files as they were before they were read first: what changes after that is not missed.
    loaded: Stamps,
    shown: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the certificate and its key.
    pub(crate) fn load(files: &Https) -> Result<Arc<Certificate>, CertificateError> {
        let loaded = stamps(files);
        let shown = RwLock::new(Arc::new(read(files)?));
        Ok(Arc::new(Certificate { files: files.clone(), loaded, shown }))
    }

    /// What connections are accepted with.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// The service's own certificate, DER.
    pub(crate) fn der(&self) -> Vec<u8> {
        self.shown.read().end_entity_cert().map(|certificate| certificate.to_vec()).unwrap_or_default()
    }

    /// Reads the files again when they change and when a signal says so, for ever. `renewed` is told of each new
    /// certificate.
    pub(crate) async fn keep_fresh(self: Arc<Self>, mut hangup: Signal, renewed: impl Fn(&Certificate)) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.loaded;
        loop {
            let asked = tokio::select! {
                _ = tick.tick() => false,
                told = hangup.recv() => told.is_some(),
            };
            let files = self.files.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || stamps(&files)).await else { return };
            if now == seen && !asked {
                continue;
            }
            seen = now;
            let files = self.files.clone();
            match tokio::task::spawn_blocking(move || read(&files)).await {
                Ok(Ok(pair)) => {
                    *self.shown.write() = Arc::new(pair);
                    tracing::info!("the certificate {} was read again", self.files.cert.display());
                    renewed(&self);
                }
                // Said once for each change of the files.
                Ok(Err(error)) => {
                    let error = super::chain(&error);
                    tracing::error!(error, "the old certificate stays in use: {error}");
                }
                Err(error) => tracing::error!("reading the certificate broke off: {error}"),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read()))
    }
}

/// Inode, length and last write of certificate and key; none for a file that is not there.
type Stamps = [Option<(u64, u64, i64, i64)>; 2];

fn stamps(files: &Https) -> Stamps {
    [&files.cert, &files.key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    })
}

fn read(files: &Https) -> Result<CertifiedKey, CertificateError> {
    let (cert, key) = (&files.cert, &files.key);
    let not_pem = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, source }
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&contents(cert)?).collect::<Result<_, _>>().map_err(not_pem(cert))?;
    if chain.is_empty() {
        let begin = "BEGIN CERTIFICATE";
        return Err(CertificateError::Nothing { path: cert.clone(), what: "certificate", begin });
    }
    let private = match PrivateKeyDer::from_pem_slice(&contents(key)?) {
        Ok(private) => private,
        Err(pem::Error::NoItemsFound) => {
            let begin = "BEGIN PRIVATE KEY (without a passphrase)";
            return Err(CertificateError::Nothing { path: key.clone(), what: "private key", begin });
        }
        Err(error) => return Err(not_pem(key)(error)),
    };
    let files = (cert.clone(), key.clone());
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|source| match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateError::Mismatch { cert: files.0, key: files.1 }
        }
        source => CertificateError::Unusable { cert: files.0, key: files.1, source },
    })
}

fn contents(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

/// Makes a connection one of TLS. Whoever speaks plain HTTP gets an answer that says what is wrong, and no connection.
pub(super) async fn handshake(mut stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first == [HANDSHAKE] {
        return acceptor.accept(stream).await;
    }
    if first.iter().all(u8::is_ascii_uppercase) {
        stream.write_all(&plain_http_answer().await).await?;
        stream.shutdown().await?;
        // Closing while there is something unread would take the answer back.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"))
}

/// As any other error, but written by hand: there is no HTTP on this connection.
async fn plain_http_answer() -> Vec<u8> {
    let error =
        ApiError::new(Reason::InvalidRequest, "this port serves https, and the request was plain http: use https://");
    let response = error.into_response();
    let head = format!("HTTP/1.1 {}\r\ncontent-type: application/json\r\nconnection: close\r\n", response.status());
    let body = to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    let mut answer = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            Files { dir: tempfile::tempdir().unwrap() }
        }

        fn pair(&self, cert: &str, key: &str) -> Https {
            let files = Https { cert: self.dir.path().join("a.crt"), key: self.dir.path().join("a.key") };
            fs::write(&files.cert, cert).unwrap();
            fs::write(&files.key, key).unwrap();
            files
        }
    }

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_bad_pair_is_refused_with_the_file_and_the_reason() {
        let files = Files::new();
        let ((cert, key), (_, other)) = (made(), made());
        let why = |cert: &str, key: &str| super::super::chain(&read(&files.pair(cert, key)).unwrap_err());

        assert!(read(&files.pair(&cert, &key)).is_ok());
        // All in one file, as some tools write it.
        assert!(read(&files.pair(&format!("{key}{cert}"), &format!("{cert}{key}"))).is_ok());
        for (cert, key, expected) in [
            (&*cert, &*other, ["a.key is not that of the certificate in", "a.crt"]),
            (&*key, &*key, ["a.crt holds no certificate", "BEGIN CERTIFICATE"]),
            (&*cert, &*cert, ["a.key holds no private key", "without a passphrase"]),
            ("", &*key, ["a.crt holds no certificate", "PEM"]),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &*key, ["a.crt", "not valid PEM"]),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &*key,
                ["cannot use the certificate", "a.crt"],
            ),
        ] {
            let why = why(cert, key);
            assert!(expected.iter().all(|expected| why.contains(expected)), "{expected:?}: {why}");
        }
        let missing = Https { cert: "/no/such.crt".into(), key: "/no/such.key".into() };
        assert!(read(&missing).unwrap_err().to_string().contains("cannot read /no/such.crt"));
    }

    #[tokio::test]
    async fn plain_http_is_told_what_is_wrong() {
        let answer = String::from_utf8(plain_http_answer().await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n") && head.contains("connection: close"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["description"].as_str().unwrap().contains("use https://"), "{body}");
    }
}
