//! Two stores side by side.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use jobservice_core::Store;

/// Lines of a difference that are shown.
const LINES_MAX: usize = 40;

/// Compares the whole state of two stores, and audits both.
///
/// # Errors
/// The lines that only one of them has, or what an audit found.
pub async fn compare(reference: &Arc<dyn Store>, store: &Arc<dyn Store>) -> Result<(), String> {
    for (name, store) in [("the reference", reference), ("the store", store)] {
        let wrong = store.audit().await.map_err(|error| format!("audit of {name}: {error}"))?;
        if !wrong.is_empty() {
            return Err(format!("the audit of {name} found:\n{}", wrong.join("\n")));
        }
    }
    let expected = reference.dump().await.map_err(|error| format!("dump of the reference: {error}"))?;
    let found = store.dump().await.map_err(|error| format!("dump of the store: {error}"))?;
    if expected == found { Ok(()) } else { Err(difference(&expected, &found)) }
}

/// The records that only one of two dumps has: `-` expected, `+` found.
pub fn difference(expected: &str, found: &str) -> String {
    let (expected, found) = (records(expected), records(found));
    let mut text = String::from("the states differ (- expected, + found):\n");
    let missing = expected.difference(&found).map(|record| ('-', record));
    let extra = found.difference(&expected).map(|record| ('+', record));
    let mut lines: Vec<(char, &String)> = missing.chain(extra).collect();
    // The two versions of a record stand together, the expected one first.
    lines.sort_by(|(a, one), (b, other)| head(one).cmp(head(other)).then(b.cmp(a)));
    for (sign, record) in lines.into_iter().take(LINES_MAX) {
        writeln!(text, "{sign} {record}").expect("a string takes all");
    }
    text
}

/// What a record is of: its first two words.
fn head(record: &str) -> &str {
    record.match_indices(' ').nth(1).map_or(record, |(end, _)| &record[..end])
}

/// The records of a dump: a line with the indented lines after it.
fn records(dump: &str) -> BTreeSet<String> {
    let mut records: Vec<String> = Vec::new();
    for line in dump.lines() {
        match records.last_mut() {
            Some(last) if line.starts_with(' ') => {
                last.push('\n');
                last.push_str(line);
            }
            _ => records.push(line.to_owned()),
        }
    }
    records.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn difference_shows_the_records_that_differ_and_only_those() {
        let expected = "job a status=pending\n  more=1\njob b status=running\n";
        let found = "job a status=pending\n  more=2\njob b status=running\njob c status=error\n";

        let shown = difference(expected, found);

        assert!(shown.contains("- job a status=pending\n  more=1\n+ job a status=pending\n  more=2\n"), "{shown}");
        assert!(shown.contains("+ job c") && !shown.contains("job b"), "{shown}");
    }
}
