//! Workers report: extend, finish, release, check in.

use std::collections::HashSet;

use jobservice_core::job::{LeaseKey, Signal};
use jobservice_core::lifecycle::{Event, Refusal};
use jobservice_core::store::{CheckedIn, Extended, Finished, Held};
use jobservice_core::{JobId, PoolId, Time};

use crate::call::Failure;
use crate::commit::Happened;
use crate::row;
use crate::session::Session;

impl Session<'_> {
    /// Extends leases, and names those of the pool that it did not list.
    pub(crate) fn extend(
        &mut self,
        pool: &PoolId,
        leases: &[LeaseKey],
        until: Time,
        now: Time,
    ) -> Result<Extended, Failure> {
        let mut answer = Extended::default();
        for lease in leases {
            let found = match self.take(&lease.id) {
                Err(Failure::Damaged(why)) => {
                    // The others must not lose their leases with it.
                    tracing::error!(job.id = %lease.id, why, "job {} cannot be read, its run ends: {why}", lease.id);
                    None
                }
                found => found?,
            };
            let Some(mut record) = found else {
                answer.leases.push(Held::Lost);
                continue;
            };
            // Whether it was long enough already does not matter: what counts is who holds it after that.
            self.happen_to(&mut record, &Event::Extend { lease: lease.clone(), until }, now)?;
            let signal = record.job.state.signal.map(|signal| signal.signal);
            let held = record.job.is_held_by(lease);
            answer.leases.push(if held { Held::Held(signal) } else { Held::Lost });
            self.running.keep(record);
        }
        answer.unlisted = self.unlisted(pool, leases)?;
        Ok(answer)
    }

    fn unlisted(&mut self, pool: &PoolId, listed: &[LeaseKey]) -> Result<Vec<LeaseKey>, Failure> {
        let listed: HashSet<&LeaseKey> = listed.iter().collect();
        let mut held = self.conn.prepare_cached(
            "SELECT id, attempt, lease_nonce FROM jobs
             WHERE seq IN (SELECT seq FROM jobs INDEXED BY jobs_running WHERE status = 2 AND lease_pool = ?1)
             ORDER BY id",
        )?;
        let mut rows = held.query([pool.as_str()])?;
        let mut unlisted = Vec::new();
        while let Some(row) = rows.next()? {
            let Ok(id) = JobId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?) else { continue };
            let lease = LeaseKey { id, attempt: row.get(1)?, nonce: row.get::<_, i64>(2)? as u64 };
            if !listed.contains(&lease) {
                unlisted.push(lease);
            }
        }
        Ok(unlisted)
    }

    /// Applies the ends of runs as their workers report them: finishes or releases.
    pub(crate) fn end_runs(&mut self, ends: &[(JobId, Event)], now: Time) -> Result<Vec<Finished>, Failure> {
        ends.iter()
            .map(|(id, event)| {
                Ok(match self.happen(id, event, now)? {
                    Happened::Is(status) | Happened::Refused(Refusal::Repeated(status)) => Finished::Applied(status),
                    Happened::Refused(
                        Refusal::LeaseLost | Refusal::Unchanged | Refusal::NotYet(_) | Refusal::Illegal { .. },
                    )
                    | Happened::Gone
                    | Happened::KeyTaken(_)
                    | Happened::NotFound => Finished::LeaseLost,
                })
            })
            .collect()
    }

    /// Records a progress message.
    pub(crate) fn check_in(&mut self, id: &JobId, event: &Event, now: Time) -> Result<CheckedIn, Failure> {
        let Some(mut record) = self.take(id)? else { return Ok(CheckedIn::LeaseLost) };
        let happened = self.happen_to(&mut record, event, now)?;
        let signal: Option<Signal> = record.job.state.signal.map(|signal| signal.signal);
        self.running.keep(record);
        Ok(if matches!(happened, Happened::Is(_)) { CheckedIn::Noted(signal) } else { CheckedIn::LeaseLost })
    }

    /// The rows of jobs, for who has their numbers; those that cannot be read are left out and set aside.
    pub(crate) fn columns_by_seq() -> String {
        format!("SELECT {} FROM jobs WHERE seq = ?1", row::columns())
    }
}
