//! Job logs in memory, for tests.

use std::collections::HashMap;

use async_trait::async_trait;
use jobservice_core::JobId;
use parking_lot::Mutex;

use crate::logger::{LogBackend, LogError, LogPiece};

/// Job logs in memory.
#[derive(Default)]
pub(super) struct TestLogs(Mutex<HashMap<JobId, String>>);

impl TestLogs {
    /// The log of a job, empty if it has none.
    pub(super) fn of(&self, id: &JobId) -> String {
        self.0.lock().get(id).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl LogBackend for TestLogs {
    fn name(&self) -> &'static str {
        "TEST"
    }

    async fn append(&self, pieces: Vec<LogPiece>) -> Vec<Result<(), LogError>> {
        let mut logs = self.0.lock();
        pieces
            .into_iter()
            .map(|piece| {
                logs.entry(piece.id).or_default().push_str(&String::from_utf8_lossy(&piece.bytes));
                Ok(())
            })
            .collect()
    }
}
