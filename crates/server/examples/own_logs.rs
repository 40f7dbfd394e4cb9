//! A service with log backends of one's own: the logs of jobs in memory, the service's own log with a mark before each line.
//!
//! ```yaml
//! job_loggers: [{name: MEMORY, settings: {logs_max: 1000}}]
//! loggers: [{name: NOTES, settings: {path: /var/log/jobservice.notes}}]
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice::Registry;
use jobservice::core::JobId;
use jobservice::logger::{Extent, Level, LogBackend, LogChunk, LogError, LogPiece, ReadLog};
use jobservice_server::{BackendError, LogSettings, Server, ServiceLog};
use parking_lot::Mutex;

/// Keeps the newest logs in memory, each up to 64 KiB; all are gone when the process ends.
struct Memory {
    logs_max: usize,
    logs: Mutex<BTreeMap<JobId, Vec<u8>>>,
}

const LOG_BYTES_MAX: usize = 64 * 1024;

impl Memory {
    fn new(settings: &LogSettings) -> Result<Memory, BackendError> {
        if let Some(unknown) = settings.keys().find(|key| *key != "logs_max") {
            return Err(format!("settings.{unknown} is not known: give logs_max").into());
        }
        let logs_max = settings.get("logs_max").unwrap_or("1000");
        let logs_max = logs_max.parse().map_err(|_| format!("settings.logs_max is {logs_max:?}: give a number"))?;
        Ok(Memory { logs_max, logs: Mutex::default() })
    }
}

#[async_trait]
impl LogBackend for Memory {
    fn name(&self) -> &'static str {
        "MEMORY"
    }

    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let mut logs = self.logs.lock();
        let append = |LogPiece { id, bytes, .. }: LogPiece| {
            // Ids of ours sort by time: the first is the oldest.
            while !logs.contains_key(&id) && logs.len() >= self.logs_max && logs.pop_first().is_some() {}
            let log = logs.entry(id).or_default();
            if log.len() + bytes.len() > LOG_BYTES_MAX {
                return Err(LogError::Busy);
            }
            log.extend_from_slice(&bytes);
            Ok(())
        };
        pieces.into_iter().map(append).collect()
    }

    fn reader(&self) -> Option<&dyn ReadLog> {
        Some(self)
    }
}

#[async_trait]
impl ReadLog for Memory {
    async fn extent(&self, id: &JobId) -> Result<Option<Extent>, LogError> {
        let end = self.logs.lock().get(id).map(|log| log.len() as u64);
        Ok(end.map(|end| Extent { head_end: end, tail_start: end, end }))
    }

    async fn read(&self, id: &JobId, offset: u64, limit: usize) -> Result<Option<LogChunk>, LogError> {
        let logs = self.logs.lock();
        let Some(log) = logs.get(id) else { return Ok(None) };
        let bytes: Vec<u8> = log.iter().copied().skip(offset as usize).take(limit).collect();
        let end = log.len() as u64;
        Ok(Some(LogChunk { next_offset: (offset + bytes.len() as u64).min(end), bytes: bytes.into(), offset, end }))
    }
}

/// Writes the service's log to a file, the level first.
struct Notes(Mutex<File>);

impl Notes {
    fn new(settings: &LogSettings) -> Result<Notes, BackendError> {
        let path = settings.get("path").ok_or("settings.path is missing: give a file")?;
        Ok(Notes(Mutex::new(File::create(path)?)))
    }
}

impl ServiceLog for Notes {
    fn write(&self, level: Level, line: &str) {
        // A log that cannot be written has nowhere to say so.
        drop(self.0.lock().write_all(format!("{level} {line}").as_bytes()));
    }
}

fn main() -> ExitCode {
    Server::new(Registry::new())
        .job_log_backend("MEMORY", |settings| Ok(Arc::new(Memory::new(settings)?)))
        .service_log_backend("NOTES", |settings| Ok(Arc::new(Notes::new(settings)?)))
        .run()
}
