//! The files of the data directory that are not the store's: the secret that was generated, the address at which the
//! service is reached, and the certificate that it shows there. The command line of the same host finds them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Makes the directory if it is not there, readable by nobody else: it holds what jobs were given.
pub(crate) fn create(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the data directory {}", dir.display()))
}

pub(crate) fn secret_path(dir: &Path) -> PathBuf {
    dir.join("secret")
}

fn endpoint_path(dir: &Path) -> PathBuf {
    dir.join("endpoint")
}

fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("endpoint.crt")
}

/// The secret kept there; none if there is none.
pub(crate) fn read_secret(dir: &Path) -> Result<Option<String>> {
    let path = secret_path(dir);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|secret| !secret.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the secret {}", path.display())),
    }
}

/// The secret kept there, made now if there is none. Whether it was made is said too.
pub(crate) fn secret(dir: &Path) -> Result<(String, bool)> {
    let path = secret_path(dir);
    if let Some(secret) = read_secret(dir)? {
        let mode = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!("others can read the secret {}: chmod 600 it, or remove it and get a new one", path.display());
        }
        return Ok((secret, false));
    }
    let mut random = [0; 24];
    getrandom::fill(&mut random).context("the system gives no randomness for a secret")?;
    let secret = random.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    write(&path, format!("{secret}\n").as_bytes())?;
    Ok((secret, true))
}

/// Says where the service is reached.
pub(crate) fn write_endpoint(dir: &Path, url: &str) -> Result<()> {
    write(&endpoint_path(dir), format!("{url}\n").as_bytes())
}

/// Says which certificate (DER) the service shows, for who finds it by this directory.
pub(crate) fn write_certificate(dir: &Path, der: &[u8]) -> Result<()> {
    write(&certificate_path(dir), der)
}

/// The certificate that a service left there.
pub(crate) fn read_certificate(dir: &Path) -> io::Result<Vec<u8>> {
    fs::read(certificate_path(dir))
}

/// The address that a service left there.
pub(crate) fn read_endpoint(dir: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(endpoint_path(dir))?.trim().to_owned())
}

/// The service is reached no more.
pub(crate) fn remove_endpoint(dir: &Path) {
    for path in [endpoint_path(dir), certificate_path(dir)] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Writes a small file whole or not at all, for the owner alone.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        create(&data).unwrap();

        let (secret, made) = secret(&data).unwrap();
        assert!(made && secret.len() == 48);
        assert_eq!(super::secret(&data).unwrap(), (secret, false));
        assert_eq!(fs::metadata(secret_path(&data)).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(secret_path(&data), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(super::secret(&data).unwrap_err().to_string().contains("others can read"));
    }

    #[test]
    fn the_address_is_there_while_the_service_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_endpoint(dir.path()).is_err());
        write_endpoint(dir.path(), "http://127.0.0.1:1").unwrap();
        assert_eq!(read_endpoint(dir.path()).unwrap(), "http://127.0.0.1:1");
        remove_endpoint(dir.path());
        remove_endpoint(dir.path());
        assert!(read_endpoint(dir.path()).is_err());
    }
}
