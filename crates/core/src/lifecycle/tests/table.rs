//! The table of `architecture.md`, written a second time by hand.

use crate::job::Status;
use crate::lifecycle::table::{Effect, EventKind, cells};

/// What is expected, by row; the columns are those of [`Status::ALL`]: Scheduled, Pending, Running, Error, Success,
/// Stopped, Cancelled. `-` is refused, `""` cannot be reached, `a/b` depends on the job.
pub(super) const TABLE: [(EventKind, [&str; 7]); 30] = [
    (EventKind::Due, ["Pending", "-", "-", "-", "-", "-", "-"]),
    (EventKind::Claim, ["-", "Running", "-", "-", "-", "-", "-"]),
    (EventKind::FinishOk, ["lost", "lost", "Success", "lost", "lost", "lost", "lost"]),
    (EventKind::FinishFailedRetried, ["lost", "lost", "Scheduled", "lost", "lost", "lost", "lost"]),
    (EventKind::FinishFailedDead, ["lost", "lost", "Error", "lost", "lost", "lost", "lost"]),
    (EventKind::FinishSignalled, ["", "", "Stopped/Cancelled", "", "", "", ""]),
    (EventKind::FinishStopped, ["lost", "lost", "Stopped", "lost", "lost", "lost", "lost"]),
    (EventKind::FinishCancelled, ["lost", "lost", "Cancelled", "lost", "lost", "lost", "lost"]),
    (EventKind::Snooze, ["lost", "lost", "Scheduled", "lost", "lost", "lost", "lost"]),
    (EventKind::Release, ["lost", "lost", "Pending", "lost", "lost", "lost", "lost"]),
    (EventKind::ReleasePastLimit, ["lost", "lost", "Scheduled/Error", "lost", "lost", "lost", "lost"]),
    (EventKind::CheckIn, ["lost", "lost", "changes", "lost", "lost", "lost", "lost"]),
    (EventKind::Extend, ["lost", "lost", "changes", "lost", "lost", "lost", "lost"]),
    (EventKind::ExtendShorter, ["", "", "unchanged", "", "", "", ""]),
    (EventKind::LateReport, ["", "", "lost", "", "", "", ""]),
    (EventKind::RepeatedReport, ["again", "again", "again", "again", "again", "again", "again"]),
    (EventKind::TimedOut, ["-", "-", "Scheduled/Error", "-", "-", "-", "-"]),
    (EventKind::TimedOutSignalled, ["", "", "Stopped/Cancelled", "", "", "", ""]),
    (EventKind::GraceExpired, ["-", "-", "Stopped/Cancelled", "-", "-", "-", "-"]),
    (EventKind::LeaseExpiredFirst, ["-", "-", "Pending", "-", "-", "-", "-"]),
    (EventKind::LeaseExpiredSecond, ["-", "-", "Scheduled", "-", "-", "-", "-"]),
    (EventKind::LeaseExpiredThird, ["-", "-", "Error", "-", "-", "-", "-"]),
    (EventKind::LeaseExpiredSignalled, ["", "", "Stopped/Cancelled", "", "", "", ""]),
    (EventKind::Stop, ["Stopped", "Stopped", "changes", "unchanged", "unchanged", "unchanged", "unchanged"]),
    (EventKind::Cancel, ["Cancelled", "Cancelled", "changes", "unchanged", "unchanged", "unchanged", "unchanged"]),
    (EventKind::SignalAgain, ["", "", "unchanged", "", "", "", ""]),
    (EventKind::Retry, ["-", "-", "-", "Pending", "-", "-", "Pending"]),
    (EventKind::Delete, ["-", "-", "-", "gone", "gone", "gone", "gone"]),
    (EventKind::Prune, ["-", "-", "-", "gone", "gone", "gone", "gone"]),
    (EventKind::TooEarly, ["early", "", "early", "early", "early", "early", "early"]),
];

fn effect(word: &str) -> Effect {
    match word {
        "-" => Effect::Refused,
        "lost" => Effect::Lost,
        "again" => Effect::Repeated,
        "unchanged" => Effect::Unchanged,
        "early" => Effect::NotYet,
        "changes" => Effect::Changes,
        "gone" => Effect::Gone,
        status => Effect::Becomes(Status::parse(status).unwrap()),
    }
}

/// The effects that the table above allows in a cell.
pub(super) fn expected(kind: EventKind, status: Status) -> Vec<Effect> {
    let (_, row) = TABLE.iter().find(|(row, _)| *row == kind).unwrap();
    let column = Status::ALL.iter().position(|column| *column == status).unwrap();
    row[column].split('/').filter(|word| !word.is_empty()).map(effect).collect()
}

#[test]
fn every_cell_of_the_table_is_as_written_here() {
    assert_eq!(TABLE.map(|(kind, _)| kind), EventKind::ALL);

    for cell in cells() {
        assert_eq!(cell.effects(), expected(cell.kind, cell.status), "{:?} of a {} job", cell.kind, cell.status);
    }
}
