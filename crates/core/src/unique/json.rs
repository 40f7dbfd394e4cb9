//! A strict reader of JSON that keeps no tree.
//!
//! It notes where each value begins and ends, one small note for each in the order of the text, and where the notes of
//! what is inside it end. With that an object's members can be put in order without reading anything twice. What costs
//! memory in a tree (a map and a string for each object) is only built for the object at hand.

use std::borrow::Cow;

use crate::limits;
use crate::unique::JsonError;

/// A text that is JSON that we take.
pub(super) struct Document<'a> {
    text: &'a str,
    notes: Vec<Note>,
}

/// One value, or one key of an object.
#[derive(Clone, Copy)]
struct Note {
    /// Its first byte.
    start: u32,
    /// The byte after it.
    end: u32,
    /// The first note that is not of something inside it.
    next: u32,
}

/// A key of an object, unescaped, and the note of its value.
type Member<'a> = (Cow<'a, str>, usize);

impl<'a> Document<'a> {
    /// Reads a text.
    pub(super) fn read(text: &'a str) -> Result<Document<'a>, JsonError> {
        if text.len() > limits::PARAMETERS_BYTES_MAX {
            let what = format!("{} bytes are too many, at most {} can be", text.len(), limits::PARAMETERS_BYTES_MAX);
            return Err(JsonError { what, at: limits::PARAMETERS_BYTES_MAX });
        }
        let mut reader = Reader { document: Document { text, notes: Vec::new() }, at: 0 };
        reader.skip_space();
        reader.value(0)?;
        reader.skip_space();
        if reader.at < text.len() {
            return Err(reader.wrong("there is more text after the value"));
        }
        Ok(reader.document)
    }

    /// Gives `out` the canonical form, piece by piece.
    pub(super) fn canonical(&self, out: &mut impl FnMut(&[u8])) {
        self.write(0, out);
    }

    /// Writes the value of a note. As deep a recursion as the text is nested, and that is bounded.
    fn write(&self, index: usize, out: &mut impl FnMut(&[u8])) {
        match self.first_byte(index) {
            Some(b'{') => {
                let mut members = self.members(index);
                members.sort_unstable();
                out(b"{");
                for (position, (key, value)) in members.iter().enumerate() {
                    if position > 0 {
                        out(b",");
                    }
                    write_string(key, out);
                    out(b":");
                    self.write(*value, out);
                }
                out(b"}");
            }
            Some(b'[') => {
                out(b"[");
                let mut item = index + 1;
                while item < self.next(index) {
                    if item > index + 1 {
                        out(b",");
                    }
                    self.write(item, out);
                    item = self.next(item);
                }
                out(b"]");
            }
            Some(b'"') => write_string(&self.string(index), out),
            _ => out(self.source(index).as_bytes()),
        }
    }

    fn members(&self, object: usize) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        let mut key = object + 1;
        while key < self.next(object) {
            members.push((self.string(key), key + 1));
            key = self.next(key + 1);
        }
        members
    }

    fn next(&self, index: usize) -> usize {
        self.notes.get(index).map_or(usize::MAX, |note| note.next as usize)
    }

    /// The text of a value as it stands.
    fn source(&self, index: usize) -> &'a str {
        let note = self.notes.get(index);
        note.and_then(|note| self.text.get(note.start as usize..note.end as usize)).unwrap_or_default()
    }

    fn first_byte(&self, index: usize) -> Option<u8> {
        self.source(index).bytes().next()
    }

    /// What a string says.
    fn string(&self, index: usize) -> Cow<'a, str> {
        let source = self.source(index);
        let inside = source.get(1..source.len().saturating_sub(1)).unwrap_or_default();
        if inside.contains('\\') { Cow::Owned(unescaped(inside)) } else { Cow::Borrowed(inside) }
    }
}

/// A string in canonical form: escaped is only what must be.
fn write_string(text: &str, out: &mut impl FnMut(&[u8])) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out(b"\"");
    let mut rest = text.as_bytes();
    while let Some(special) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
        let (plain, tail) = rest.split_at(special);
        out(plain);
        let Some((byte, tail)) = tail.split_first() else { break };
        match byte {
            b'"' | b'\\' => out(&[b'\\', *byte]),
            _ => {
                let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or_default();
                out(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        rest = tail;
    }
    out(rest);
    out(b"\"");
}

/// The text of a string whose escapes were checked before.
fn unescaped(inside: &str) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((plain, tail)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut tail = tail.chars();
        match tail.next() {
            Some('u') => {
                let (character, after) = unicode(tail.as_str());
                text.extend(character);
                rest = after;
                continue;
            }
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some(other) => text.push(other),
            None => {}
        }
        rest = tail.as_str();
    }
    text.push_str(rest);
    text
}

/// The character that begins after `\u`, with the other half of a pair where there is one, and the text after it; none
/// if it is no character.
fn unicode(text: &str) -> (Option<char>, &str) {
    let Some((high, rest)) = four_digits(text) else { return (None, text) };
    if !(0xd800..0xdc00).contains(&high) {
        return (char::from_u32(high), rest);
    }
    match rest.strip_prefix("\\u").and_then(four_digits) {
        Some((low @ 0xdc00..0xe000, rest)) => {
            (char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)), rest)
        }
        _ => (None, rest),
    }
}

fn four_digits(text: &str) -> Option<(u32, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, text.get(4..)?))
}

struct Reader<'a> {
    document: Document<'a>,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.begin();
        match self.peek() {
            Some(b'{') => self.object(index, depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            Some(_) => return Err(self.wrong("expected a value")),
            None => return Err(self.wrong("the text ends where a value is expected")),
        }
        self.finish(index);
        Ok(())
    }

    fn object(&mut self, index: usize, depth: usize) -> Result<(), JsonError> {
        self.enter(depth)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.begin();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a key in double quotes"));
            }
            self.string()?;
            self.finish(key);
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.wrong("expected ':' after a key"));
            }
            self.at += 1;
            self.skip_space();
            self.value(depth + 1)?;
            if !self.more(b'}', "expected ',' or '}' in an object")? {
                break;
            }
        }
        // What is inside ends here; `members` needs to know that.
        self.finish(index);
        self.no_key_twice(index)
    }

    fn no_key_twice(&self, object: usize) -> Result<(), JsonError> {
        let mut members = self.document.members(object);
        if members.len() < 2 {
            return Ok(());
        }
        members.sort_unstable();
        for pair in members.windows(2) {
            if let [(first, _), (second, value)] = pair
                && first == second
            {
                let what = format!("the key {:?} is there twice", limits::cut(second, 80));
                let key = self.document.notes.get(value - 1);
                return Err(JsonError { what, at: key.map_or(self.at, |note| note.start as usize) });
            }
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.enter(depth)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if !self.more(b']', "expected ',' or ']' in an array")? {
                return Ok(());
            }
        }
    }

    /// Past the opening bracket, if it is not one too many.
    fn enter(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth >= limits::JSON_DEPTH_MAX {
            return Err(self.wrong(format!("nested more than {} deep", limits::JSON_DEPTH_MAX)));
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// Past a comma (true) or the closing bracket (false).
    fn more(&mut self, close: u8, otherwise: &str) -> Result<bool, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.wrong(otherwise)),
        }
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(..0x20) => return Err(self.wrong("a control character in a string must be escaped")),
                Some(_) => self.at += 1,
                None => return Err(self.wrong("the text ends within a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.byte(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let rest = self.document.text.get(self.at + 2..).unwrap_or_default();
                let (Some(_), after) = unicode(rest) else {
                    return Err(self.wrong("\\u needs four hexadecimal digits, and half of a pair its other half"));
                };
                self.at = self.document.text.len() - after.len();
                Ok(())
            }
            _ => Err(self.wrong("no such escape in a string")),
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong("expected a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.document.text.get(self.at..).unwrap_or_default().starts_with(word) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn begin(&mut self) -> usize {
        let at = self.position();
        self.document.notes.push(Note { start: at, end: at, next: 0 });
        self.document.notes.len() - 1
    }

    fn finish(&mut self, index: usize) {
        let (end, next) = (self.position(), self.document.notes.len());
        if let Some(note) = self.document.notes.get_mut(index) {
            note.end = end;
            note.next = u32::try_from(next).unwrap_or(u32::MAX);
        }
    }

    /// The text is far shorter than what 32 bits count.
    fn position(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.byte(0)
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.document.text.as_bytes().get(self.at + ahead).copied()
    }

    fn wrong(&self, what: impl Into<String>) -> JsonError {
        JsonError { what: what.into(), at: self.at }
    }
}
