//! The lines of one run that are not written yet: bounded, with the first and the last kept.
//!
//! A run that writes faster than its log can be stored is not held back (a line is a plain call that never waits), so
//! something must give. The buffer is a small log of its own: its first bytes stay, then the newest push out the oldest,
//! and what went between is counted. So the beginning and the very last words of a job survive any flood.

use std::collections::VecDeque;

use super::Level;

/// Bytes at which a segment is full. Lines are dropped by segments: small ones waste little of the limit.
const SEGMENT_BYTES_MAX: usize = 256 * 1024;

/// How much a buffer may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Bytes of the beginning.
    pub(super) head: usize,
    /// Bytes of the end.
    pub(super) tail: usize,
}

/// Lines that follow each other in the log.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    /// Lines of one level in a row are one span: a flood of one level costs no more than its bytes.
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) level: Level,
    pub(super) lines: u32,
    pub(super) bytes: usize,
}

impl Segment {
    fn push(&mut self, line: &[u8], level: Level) {
        self.bytes.extend_from_slice(line);
        match self.spans.last_mut() {
            Some(last) if last.level == level => {
                last.lines += 1;
                last.bytes += line.len();
            }
            _ => self.spans.push(Span { level, lines: 1, bytes: line.len() }),
        }
    }

    pub(super) fn lines(&self) -> u64 {
        self.spans.iter().map(|span| u64::from(span.lines)).sum()
    }
}

/// Lines that the buffer had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Buffer {
    head: Vec<Segment>,
    head_bytes: usize,
    /// Between head and tail.
    dropped: Dropped,
    tail: VecDeque<Segment>,
    tail_bytes: usize,
}

/// All that a buffer held, in order: head, what was dropped, tail.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) head: Vec<Segment>,
    pub(super) dropped: Dropped,
    pub(super) tail: VecDeque<Segment>,
    pub(super) bytes: usize,
}

impl Taken {
    /// Lines that are here, without those that were dropped.
    pub(super) fn lines(&self) -> u64 {
        self.head.iter().chain(&self.tail).map(Segment::lines).sum()
    }
}

impl Buffer {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.head_bytes + self.tail_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.tail.is_empty() && self.dropped.lines == 0
    }

    /// Adds a line, at the price of older ones if there is no room. Answers how many lines that cost.
    pub(super) fn push(&mut self, line: &[u8], level: Level, caps: Caps) -> u64 {
        let in_head = self.tail.is_empty() && self.dropped.lines == 0;
        if in_head && self.head_bytes + line.len() <= caps.head {
            if self.head.last().is_none_or(|last| last.bytes.len() + line.len() > SEGMENT_BYTES_MAX) {
                self.head.push(Segment::default());
            }
            if let Some(last) = self.head.last_mut() {
                last.push(line, level);
            }
            self.head_bytes += line.len();
            return 0;
        }
        // At least four segments, so that dropping one costs a quarter of the tail at the most.
        let segment_max = SEGMENT_BYTES_MAX.min(caps.tail / 4);
        if self.tail.back().is_none_or(|last| last.bytes.len() + line.len() > segment_max) {
            self.tail.push_back(Segment::default());
        }
        if let Some(last) = self.tail.back_mut() {
            last.push(line, level);
        }
        self.tail_bytes += line.len();
        self.shrink(caps.tail)
    }

    /// Drops the oldest of the tail down to `bytes_max`; the last segment stays in any case.
    fn shrink(&mut self, bytes_max: usize) -> u64 {
        let mut lines = 0;
        while self.tail_bytes > bytes_max
            && self.tail.len() > 1
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.bytes.len();
            self.dropped.bytes += oldest.bytes.len() as u64;
            lines += oldest.lines();
        }
        self.dropped.lines += lines;
        lines
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Taken {
        let Buffer { head, head_bytes, dropped, tail, tail_bytes } = std::mem::take(self);
        Taken { head, dropped, tail, bytes: head_bytes + tail_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { head: 400, tail: 400 };

    fn text(taken: &Taken) -> String {
        let bytes = |segments: &mut dyn Iterator<Item = &Segment>| -> String {
            segments.map(|segment| String::from_utf8_lossy(&segment.bytes).into_owned()).collect()
        };
        format!("{}|{}", bytes(&mut taken.head.iter()), bytes(&mut taken.tail.iter()))
    }

    #[test]
    fn all_is_kept_in_order_up_to_the_limit() {
        let mut buffer = Buffer::default();
        for n in 0..7 {
            assert_eq!(buffer.push(format!("{n:09}\n").as_bytes(), Level::Info, CAPS), 0);
        }
        let taken = buffer.take();
        assert_eq!((taken.lines(), taken.dropped.lines, taken.bytes), (7, 0, 70));
        assert!(buffer.is_empty() && buffer.bytes() == 0);
    }

    #[test]
    fn flood_keeps_the_first_and_the_last_lines_and_counts_those_between() {
        let mut buffer = Buffer::default();
        let mut cost = 0;
        for n in 0..10_000 {
            cost += buffer.push(format!("{n:09}\n").as_bytes(), Level::Info, CAPS);
            assert!(buffer.bytes() <= CAPS.head + CAPS.tail);
        }
        let taken = buffer.take();
        let text = text(&taken);
        assert!(text.starts_with("000000000\n") && text.ends_with("000009999\n"), "{text}");
        assert_eq!(taken.dropped.lines, cost);
        assert_eq!(taken.lines() + taken.dropped.lines, 10_000);
        assert_eq!(taken.bytes as u64 + taken.dropped.bytes, 100_000);
        assert!(taken.bytes >= CAPS.head + CAPS.tail * 3 / 4 - 20, "{}", taken.bytes);
    }

    #[test]
    fn line_longer_than_the_tail_is_kept_alone() {
        let mut buffer = Buffer::default();
        let caps = Caps { head: 0, tail: 100 };
        buffer.push(b"before\n", Level::Info, caps);
        buffer.push(&[b'x'; 500], Level::Info, caps);
        let taken = buffer.take();
        assert_eq!((taken.bytes, taken.dropped.lines), (500, 1));
    }

    #[test]
    fn lines_of_one_level_in_a_row_are_one_span() {
        let mut segment = Segment::default();
        for level in [Level::Info, Level::Info, Level::Error, Level::Info] {
            segment.push(b"12345\n", level);
        }
        assert_eq!(segment.lines(), 4);
        assert_eq!(segment.spans.len(), 3);
        assert_eq!(segment.spans[0], Span { level: Level::Info, lines: 2, bytes: 12 });
    }
}
