//! Writes JSON answers straight into bytes: no tree, no copy of parameters, one allocation in the usual case.

use axum::body::Body;
use bytes::Bytes;

/// An answer being written. The caller opens and closes objects and arrays in pairs; commas come by themselves.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    /// Opens an object, as an element of an array or on its own.
    pub(crate) fn open(&mut self) {
        self.comma();
        self.bytes.push(b'{');
    }

    /// Opens an object under a key.
    pub(crate) fn open_under(&mut self, key: &'static str) {
        self.key(key);
        self.bytes.push(b'{');
    }

    /// Closes an object.
    pub(crate) fn close(&mut self) {
        self.bytes.push(b'}');
    }

    /// Opens an array, on its own.
    pub(crate) fn open_array(&mut self) {
        self.comma();
        self.bytes.push(b'[');
    }

    /// Opens an array under a key.
    pub(crate) fn open_array_under(&mut self, key: &'static str) {
        self.key(key);
        self.bytes.push(b'[');
    }

    /// Closes an array.
    pub(crate) fn close_array(&mut self) {
        self.bytes.push(b']');
    }

    /// A string under a key.
    pub(crate) fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        self.string(text);
    }

    /// A string as an element of an array.
    pub(crate) fn element(&mut self, text: &str) {
        self.comma();
        self.string(text);
    }

    /// A number under a key.
    pub(crate) fn integer(&mut self, key: &'static str, number: i64) {
        self.key(key);
        // Writing to a vector cannot fail.
        drop(serde_json::to_writer(&mut self.bytes, &number));
    }

    /// True or false under a key.
    pub(crate) fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.bytes.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// JSON text under a key, as it is.
    pub(crate) fn raw(&mut self, key: &'static str, json: &str) {
        self.key(key);
        self.bytes.extend_from_slice(json.as_bytes());
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// What was written, as a body.
    pub(crate) fn into_body(self) -> Body {
        Body::from(self.into_bytes())
    }

    /// Keys are ours and need no escapes.
    fn key(&mut self, key: &'static str) {
        self.comma();
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        // Writing to a vector cannot fail.
        drop(serde_json::to_writer(&mut self.bytes, text));
    }

    fn comma(&mut self) {
        // The byte before tells: only after a value that is complete does another one need a comma.
        if !matches!(self.bytes.last(), None | Some(b'{' | b'[' | b':')) {
            self.bytes.push(b',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_come_where_they_belong_and_text_is_escaped() {
        let mut json = Writer::with_capacity(0);
        json.open();
        json.text("a", "q\"\n");
        json.open_array_under("b");
        json.element("x");
        json.element("y{");
        json.open();
        json.close();
        json.close_array();
        json.open_under("c");
        json.integer("d", -1);
        json.raw("e", "{\"z\":[]}");
        json.boolean("f", true);
        json.close();
        json.close();

        let text = String::from_utf8(json.into_bytes().to_vec()).unwrap();
        assert_eq!(text, r#"{"a":"q\"\n","b":["x","y{",{}],"c":{"d":-1,"e":{"z":[]},"f":true}}"#);
    }
}
