//! Finds the service: by flags, by the environment, or by what a service of this host left in its data directory.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jobservice_client::{Client, Trust};

use super::args::ConnectArgs;
use crate::config::{DATA_DIR, DATA_DIR_ENV};
use crate::data_dir;

/// A client, and where its secret came from: an error about the secret should say so.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) secret_from: String,
}

pub(crate) fn connect(args: &ConnectArgs, data_dir: Option<&Path>) -> Result<Connection> {
    let data_dir = match data_dir {
        Some(given) => given.to_owned(),
        None => std::env::var_os(DATA_DIR_ENV).map_or_else(|| PathBuf::from(DATA_DIR), PathBuf::from),
    };
    let (url, is_local) = match given(args.url.as_deref()) {
        Some(url) => (url, false),
        None => (data_dir::read_endpoint(&data_dir).with_context(|| {
            format!(
                "no service found: none left its address in {}. Start one with `jobservice`, or name one with --url or \
                 JOBSERVICE_URL",
                data_dir.display()
            )
        })?, true),
    };
    let (secret, secret_from) = match given(args.secret.as_deref()) {
        // The service may accept several, of which any will do.
        Some(secrets) => (first(&secrets), "--secret or CORE_SECRET".to_owned()),
        None => match data_dir::read_secret(&data_dir)? {
            Some(secret) => (secret, data_dir::secret_path(&data_dir).display().to_string()),
            None => bail!("no secret: set CORE_SECRET to the one that the service at {url} was started with"),
        },
    };
    let trust = trust(args.ca_cert.as_deref(), (is_local && url.starts_with("https:")).then_some(&data_dir))?;
    Ok(Connection { client: Client::trusting(&url, &secret, &trust)?, secret_from })
}

/// The certificates to trust: those that are given, else that which a service of this host shows.
fn trust(ca_cert: Option<&Path>, data_dir: Option<&PathBuf>) -> Result<Trust> {
    match (ca_cert.filter(|path| !path.as_os_str().is_empty()), data_dir) {
        (Some(path), _) => {
            let pem =
                std::fs::read(path).with_context(|| format!("cannot read the certificates {}", path.display()))?;
            Ok(Trust::Certificates(pem))
        }
        (None, Some(dir)) => {
            let der = data_dir::read_certificate(dir)
                .with_context(|| format!("cannot read the certificate of the service in {}", dir.display()))?;
            Ok(Trust::Exactly(der))
        }
        (None, None) => Ok(Trust::System),
    }
}

fn given(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn first(secrets: &str) -> String {
    secrets.split(',').map(str::trim).find(|secret| !secret.is_empty()).unwrap_or_default().to_owned()
}
