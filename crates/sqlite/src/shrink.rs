//! The bound of the file: while it holds too much, final jobs go ahead of their time.
//!
//! Counted are the pages in use. Those that become free are used again by the next jobs or, when the writer is idle, given
//! back to the file system (see `upkeep`).

use jobservice_core::Time;
use jobservice_core::job::Status;
use jobservice_core::lifecycle::Event;
use jobservice_core::store::Swept;

use crate::call::Failure;
use crate::commit::Happened;
use crate::row;
use crate::session::Session;

/// The final jobs of a status without undelivered events, those first that would be the next to expire.
const NEXT_TO_GO: &str = "SELECT seq, expires_at, id FROM jobs INDEXED BY jobs_final \
     WHERE status = ?1 AND status >= 3 \
     AND NOT EXISTS (SELECT 1 FROM outbox_turns WHERE job = seq) ORDER BY expires_at, id LIMIT ?2";

/// Jobs that are removed between two looks at the size.
const BETWEEN_LOOKS: usize = 32;

impl Session<'_> {
    /// Removes up to `limit` final jobs while more than `bytes_max` bytes of the file are in use.
    pub(crate) fn shrink(&mut self, bytes_max: u64, limit: usize, now: Time) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        if self.bytes_in_use()? <= bytes_max {
            return Ok(swept);
        }
        let mut next = self.next_to_go(limit.saturating_add(1))?.into_iter();
        while swept.removed.len() < limit {
            if swept.removed.len().is_multiple_of(BETWEEN_LOOKS) && self.bytes_in_use()? <= bytes_max {
                return Ok(swept);
            }
            let Some((seq, status)) = next.next() else { return Ok(swept) };
            let Some(mut record) = self.take_row(seq, status)? else { continue };
            // Final, so that a delete is what is always allowed, and a prune is not before its time.
            if let Happened::Gone = self.happen_to(&mut record, &Event::Delete, now)? {
                swept.moved += 1;
                swept.removed.push(record.job.id);
            }
        }
        swept.more = next.next().is_some() && self.bytes_in_use()? > bytes_max;
        Ok(swept)
    }

    fn next_to_go(&mut self, limit: usize) -> Result<Vec<(i64, Status)>, Failure> {
        let mut of_status = self.conn.prepare_cached(NEXT_TO_GO)?;
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut all: Vec<(i64, String, i64, Status)> = Vec::new();
        for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
            let mut rows = of_status.query((row::status_number(status), most))?;
            while let Some(row) = rows.next()? {
                all.push((row.get(1)?, row.get(2)?, row.get(0)?, status));
            }
        }
        all.sort_unstable();
        all.truncate(limit);
        Ok(all.into_iter().map(|(_, _, seq, status)| (seq, status)).collect())
    }

    fn bytes_in_use(&self) -> Result<u64, Failure> {
        let read = |pragma: &str| -> rusqlite::Result<i64> {
            self.conn.prepare_cached(&format!("PRAGMA {pragma}"))?.query_row([], |row| row.get(0))
        };
        let pages = read("page_count")? - read("freelist_count")?;
        Ok((pages * read("page_size")?).max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn what_goes_next_is_found_by_index() {
        let directory = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&directory.path().join("jobs.db")).unwrap();

        assert_eq!(
            schema::plan_of(&conn, NEXT_TO_GO),
            "SEARCH jobs USING COVERING INDEX jobs_final (status=?) | CORRELATED SCALAR SUBQUERY 1 \
             | SEARCH outbox_turns USING INTEGER PRIMARY KEY (rowid=?)"
        );
    }
}
