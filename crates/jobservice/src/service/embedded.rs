//! The embedded store of a service: an SQLite file, and the job logs in a file beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jobservice_core::Time;
use jobservice_sqlite::{Options, SqliteStore};

use super::StartError;
use crate::logger::{JobLogs, JobLogsBuilder, StoreLogs};

/// Opens the store at `path` and takes back what an earlier process ran when it died. Blocks: it reads and writes files.
pub(super) async fn open(path: &Path, now: Time) -> Result<Arc<SqliteStore>, StartError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path, Options::default())).await;
    let opened = opened.map_err(|error| StartError::Open(error.into()))?;
    let store = Arc::new(opened.map_err(|error| StartError::Open(error.into()))?);
    // Only one process serves the file, and it is us: whoever held leases of our pools is dead. No need to wait for
    // these to expire.
    let reaped = store.reap_previous(now).await?;
    if reaped > 0 {
        tracing::warn!(reaped, "{reaped} jobs were running when the service died: they run again");
    }
    Ok(store)
}

/// Keeps job logs beside the store: `jobs.db` has them in `jobs-logs.db`.
pub(super) async fn logs(path: &Path) -> Result<JobLogsBuilder, StartError> {
    let path = logs_path(path);
    let opened = tokio::task::spawn_blocking(move || StoreLogs::open_beside_store(path)).await;
    let opened = opened.map_err(|error| StartError::Open(error.into()))?;
    Ok(JobLogs::builder().backend(Arc::new(opened?)))
}

fn logs_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-logs");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_lie_beside_the_store_under_a_name_of_their_own() {
        assert_eq!(logs_path(Path::new("data/jobs.db")), Path::new("data/jobs-logs.db"));
        assert_eq!(logs_path(Path::new("jobs")), Path::new("jobs-logs"));
    }
}
