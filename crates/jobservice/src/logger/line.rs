//! What a line looks like, and why none can be forged.
//!
//! A line is `2026-01-05T12:00:00.000Z [INFO] text`. Text of several lines goes on in lines that begin with four blanks;
//! lines of the service's own begin with `---`. Whatever the text holds, a line of the log that begins with a time was
//! begun by the service, and one that begins with `---` was written by it.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use jobservice_core::Time;
use jobservice_core::limits::LOG_LINE_BYTES_MAX;

use super::{Level, Run};

/// What each further line of a text begins with.
const INDENT: &[u8] = b"    ";

/// Room for the mark of a cut line, so that the marked line keeps within the limit.
const MARK_BYTES: usize = 48;

/// A scratch buffer that grew larger than this is not kept for the next line.
const SCRATCH_BYTES_KEPT: usize = 16 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Formats a line and hands it to `then`. The text's `Display` runs here, outside of all locks: it may log itself.
pub(super) fn with_line<T>(at: Time, level: Level, text: &dyn fmt::Display, then: impl FnOnce(&[u8]) -> T) -> T {
    let mut line = SCRATCH.take();
    line.clear();
    write_line(&mut line, at, level, text);
    let answer = then(&line);
    if line.capacity() <= SCRATCH_BYTES_KEPT {
        SCRATCH.set(line);
    }
    answer
}

fn write_line(out: &mut Vec<u8>, at: Time, level: Level, text: &dyn fmt::Display) {
    put(out, format_args!("{at} [{level}] "));
    let bytes_max = LOG_LINE_BYTES_MAX - MARK_BYTES;
    let mut writer = LineWriter { out, bytes_max, breaks: 0, after_return: false, missing: 0 };
    // A `Display` that reports an error has written what it could; half a line says more than none.
    let broken = write!(writer, "{text}").is_err();
    let missing = writer.missing;
    if broken {
        out.extend_from_slice(b" [the rest could not be formatted]");
    } else if missing > 0 {
        put(out, format_args!("… [cut: {missing} bytes more]"));
    }
    out.push(b'\n');
}

/// The line that opens the lines of an attempt.
pub(super) fn header(run: &Run, now: Time) -> String {
    let started_at = run.started_at.unwrap_or(now);
    format!("--- attempt {} on pool {} at {started_at} ---\n", run.lease.attempt, run.pool)
}

/// Stands for lines that came faster than they could be written.
pub(super) fn dropped_mark(lines: u64, bytes: u64) -> String {
    format!("--- {lines} lines ({bytes} bytes) dropped here: written faster than they could be kept ---\n")
}

/// Stands for lines that the backend could not write.
pub(super) fn lost_mark(lines: u64) -> String {
    format!("--- {lines} log lines lost here: the log could not be written ---\n")
}

/// Stands for the middle of a log that is too large.
pub(super) fn cut_mark(bytes: u64) -> String {
    format!("--- {bytes} bytes cut here: the log is larger than its limit ---\n")
}

fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Writing to a vector cannot fail; an error could only come from a `Display`, and ours have none.
    drop(out.write_fmt(text));
}

struct LineWriter<'a> {
    out: &'a mut Vec<u8>,
    bytes_max: usize,
    /// Line breaks seen and not yet written: those at the end of the text never are.
    breaks: usize,
    after_return: bool,
    missing: usize,
}

impl fmt::Write for LineWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.bytes().any(may_break) {
            self.push(text);
            return Ok(());
        }
        let mut rest = text;
        while let Some(at) = rest.find(is_break) {
            let (before, from) = rest.split_at(at);
            self.push(before);
            let mut chars = from.chars();
            let found = chars.next();
            // A carriage return and a line feed are one break.
            if !(found == Some('\n') && self.after_return) {
                self.breaks += 1;
            }
            self.after_return = found == Some('\r');
            rest = chars.as_str();
        }
        self.push(rest);
        Ok(())
    }
}

impl LineWriter<'_> {
    fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.after_return = false;
        for _ in 0..std::mem::take(&mut self.breaks) {
            if self.out.len() + 1 + INDENT.len() > self.bytes_max {
                self.missing += 1;
                continue;
            }
            self.out.push(b'\n');
            self.out.extend_from_slice(INDENT);
        }
        let room = if self.missing > 0 { 0 } else { self.bytes_max.saturating_sub(self.out.len()) };
        let kept = text.floor_char_boundary(room);
        self.out.extend_from_slice(text.as_bytes().get(..kept).unwrap_or_default());
        self.missing += text.len() - kept;
    }
}

/// Whether a character begins a new line for any of the programs that people read logs with.
fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether a byte may belong to a character that [`is_break`]. Wrong about some that are not: it is a quick look.
fn may_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0x0b | 0x0c | 0xc2 | 0xe2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let at = Time::from_seconds(1_767_614_400);
        with_line(at, Level::Info, &text, |line| String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn line_has_time_level_and_text() {
        assert_eq!(line("half done"), "2026-01-05T12:00:00.000Z [INFO] half done\n");
        assert_eq!(line(""), "2026-01-05T12:00:00.000Z [INFO] \n");
    }

    #[test]
    fn text_of_several_lines_is_indented_so_that_none_passes_for_another() {
        let forged =
            "innocent\r\n2026-01-05T12:00:00.000Z [FATAL] forged\r--- attempt 9 ---\u{2028}more\x0b\x0cend\n\n";
        let line = line(forged);
        let mut lines = line.split_inclusive('\n');
        assert!(lines.next().unwrap().ends_with("[INFO] innocent\n"));
        let rest: Vec<&str> = lines.collect();
        assert_eq!(rest.len(), 5, "{rest:?}");
        assert!(rest.iter().all(|line| line.starts_with("    ")), "{rest:?}");
        assert!(line.ends_with("end\n") && !line.contains('\r') && !line.contains('\u{2028}'));
    }

    #[test]
    fn breaks_that_are_split_over_writes_are_seen_whole() {
        struct Pieces;
        impl fmt::Display for Pieces {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                ["a\r", "\nb\n", "\nc", "\n"].iter().try_for_each(|piece| f.write_str(piece))
            }
        }
        let at = Time::from_seconds(0);
        let text = with_line(at, Level::Info, &Pieces, |line| String::from_utf8(line.to_vec()).unwrap());
        assert!(text.ends_with("[INFO] a\n    b\n    \n    c\n"), "{text:?}");
    }

    #[test]
    fn long_lines_are_cut_at_a_character_with_the_number_of_bytes_missing() {
        let line = line(&"ä".repeat(LOG_LINE_BYTES_MAX));
        assert!(line.len() <= LOG_LINE_BYTES_MAX + 1, "{}", line.len());
        let kept = line.chars().filter(|c| *c == 'ä').count();
        let missing = 2 * (LOG_LINE_BYTES_MAX - kept);
        assert!(line.ends_with(&format!("… [cut: {missing} bytes more]\n")), "{}", &line[line.len() - 60..]);
    }

    #[test]
    fn text_of_line_feeds_only_cannot_outgrow_the_limit() {
        let line = line(&format!("{}x", "\n".repeat(1_000_000)));
        assert!(line.len() <= LOG_LINE_BYTES_MAX + 1, "{}", line.len());
        assert!(line.contains("[cut: "));
    }

    #[test]
    fn text_may_log_while_it_is_formatted() {
        struct Chatty;
        impl fmt::Display for Chatty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&line("inner"))
            }
        }
        let outer = with_line(Time::from_seconds(0), Level::Debug, &Chatty, <[u8]>::len);
        assert!(outer > 60);
    }
}
