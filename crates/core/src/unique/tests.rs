use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::limits;

fn name() -> Name {
    Name::new("copy").unwrap()
}

fn of(parameters: &str) -> [u8; 32] {
    digest(&name(), parameters).unwrap()
}

fn canonical(text: &str) -> String {
    let mut bytes = Vec::new();
    Document::read(text).unwrap().canonical(&mut |piece| bytes.extend_from_slice(piece));
    String::from_utf8(bytes).unwrap()
}

fn wrong(text: &str) -> (String, usize) {
    let error = check_json(text).unwrap_err();
    (error.what, error.at)
}

#[test]
fn order_of_keys_white_space_and_escapes_do_not_matter() {
    let written = [
        r#"{"a":"é/\n","b":[1,2,{"c":null,"d":true}]}"#,
        " { \"b\" : [ 1 , 2 , {\"d\" : true,\n \"c\":null} ] ,\r\n\t\"\\u0061\" : \"\\u00E9\\/\\u000a\" } ",
    ];
    assert_eq!(of(written[0]), of(written[1]));
    assert_eq!(canonical(written[0]), r#"{"a":"é/\u000a","b":[1,2,{"c":null,"d":true}]}"#);
    assert_eq!(canonical(written[0]), canonical(written[1]));
}

#[test]
fn text_of_numbers_matters() {
    let digests: HashSet<[u8; 32]> =
        ["1", "1.0", "1e0", "1E0", "1e+0", "10e-1", "-1", "0", "-0"].iter().map(|number| of(number)).collect();
    assert_eq!(digests.len(), 9);
    assert_ne!(of("10000000000000000000000000000001"), of("10000000000000000000000000000002"));
}

#[test]
fn things_that_look_alike_are_told_apart() {
    let texts = [
        "null",
        "\"null\"",
        "[]",
        "{}",
        "\"\"",
        "[[]]",
        "[{}]",
        "[1,23]",
        "[12,3]",
        "[123]",
        r#"["a","b"]"#,
        r#"["a,b"]"#,
        r#"["a\",\"b"]"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":{},"b":1}"#,
        r#"{"a":"b","c":1}"#,
        r#"{"a":"b\",\"c\":1"}"#,
        "\"\\u0000\"",
        "\"\\\\u0000\"",
    ];
    let digests: HashSet<[u8; 32]> = texts.iter().map(|text| of(text)).collect();
    assert_eq!(digests.len(), texts.len());
}

#[test]
fn names_and_keys_have_digests_of_their_own() {
    let other = Name::new("cop").unwrap();
    assert_ne!(digest(&name(), "1"), digest(&other, "1"));
    assert_ne!(digest_key(&name(), "1"), digest_key(&other, "1"));
    assert_ne!(digest_key(&other, "y1"), digest_key(&name(), "1"));
    for parameters in ["1", "{}", "\"key\""] {
        assert_ne!(digest(&name(), parameters), Ok(digest_key(&name(), parameters)));
    }
    assert_ne!(digest_key(&name(), "A"), digest_key(&name(), "a"));
}

/// Stored keys must not change from release to release: this digest was computed with Python's hashlib.
#[test]
fn digest_is_the_same_for_ever() {
    let hex = |digest: [u8; 32]| {
        digest.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    };
    assert_eq!(
        hex(of("{\"b\": 1.50, \"a\": [\"\\u00e9\", \"\\n\"]}")),
        "35d433429aa1afa4900c2d1757561425daea094c250abbaadd8bcbd32ce0a47f"
    );
    assert_eq!(
        hex(digest_key(&name(), "nightly é")),
        "d274ea7bb3d8dbe839e11745d13895bb722af5640c68288880e47c6bf12db8ef"
    );
}

#[test]
fn errors_say_what_and_where() {
    assert_eq!(wrong(""), ("the text ends where a value is expected".into(), 0));
    assert_eq!(wrong("{\"a\":1,\"a\":2}"), ("the key \"a\" is there twice".into(), 7));
    assert_eq!(wrong("{\"a\":1,\"\\u0061\":2}").1, 7);
    assert_eq!(wrong("[{\"x\":{\"k\":1,\"l\":1,\"k\":1}}]").1, 19);
    assert_eq!(wrong("[1,]"), ("expected a value".into(), 3));
    assert_eq!(wrong("{\"a\":1,}"), ("expected a key in double quotes".into(), 7));
    assert_eq!(wrong("{'a':1}"), ("expected a key in double quotes".into(), 1));
    assert_eq!(wrong("{\"a\" 1}"), ("expected ':' after a key".into(), 5));
    assert_eq!(wrong("[1 2]"), ("expected ',' or ']' in an array".into(), 3));
    assert_eq!(wrong("{} x"), ("there is more text after the value".into(), 3));
    assert_eq!(wrong("\"a"), ("the text ends within a string".into(), 2));
    assert_eq!(wrong("\"a\nb\"").1, 2);
    assert_eq!(wrong("\"\\x\""), ("no such escape in a string".into(), 1));
    assert_eq!(wrong("01"), ("there is more text after the value".into(), 1));
    assert_eq!(wrong("1."), ("expected a digit".into(), 2));
    assert_eq!(wrong("nul"), ("expected a value".into(), 0));
    for half in ["\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\ud800\"", "\"\\ud800x\"", "\"\\u12g4\"", "\"\\u+123\""] {
        assert_eq!(wrong(half).1, 1, "{half}");
    }
    assert_eq!(wrong("\u{feff}{}").1, 0);
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(check_json(&nested(64)), Ok(()));
    assert_eq!(wrong(&nested(65)), ("nested more than 64 deep".into(), 64));
    assert_eq!(wrong(&"[".repeat(200_000)).1, 64, "no stack is used up");
    assert_eq!(wrong(&"{\"a\":".repeat(40_000)).1, 64 * 5);
}

#[test]
fn size_is_bounded() {
    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    assert_eq!(check_json(&text(limits::PARAMETERS_BYTES_MAX)), Ok(()));
    assert!(check_json(&text(limits::PARAMETERS_BYTES_MAX + 1)).is_err());
}

#[test]
fn null_characters_and_pairs_are_allowed() {
    assert_eq!(check_json(r#"{"\u0000":"\u0000", "":"\ud83d\ude00"}"#), Ok(()));
    assert_eq!(of(r#""\ud83d\ude00""#), of("\"😀\""));
}

/// A value as text, written at random: keys in any order, white space and escapes at will.
fn write_text(value: &Value, random: &mut impl FnMut(usize) -> usize, text: &mut String) {
    const SPACE: [&str; 5] = ["", "", " ", "\n\t", "\r "];
    text.push_str(SPACE[random(5)]);
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            for index in (1..members.len()).rev() {
                members.swap(index, random(index + 1));
            }
            text.push('{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write_text(&Value::String(key.clone()), random, text);
                text.push(':');
                write_text(value, random, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                write_text(item, random, text);
            }
            text.push(']');
        }
        Value::String(string) => {
            text.push('"');
            for character in string.chars() {
                if random(4) == 0 || character < ' ' || matches!(character, '"' | '\\') {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(text, "\\u{unit:04x}").unwrap();
                    }
                } else {
                    text.push(character);
                }
            }
            text.push('"');
        }
        other => write!(text, "{other}").unwrap(),
    }
    text.push_str(SPACE[random(5)]);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..3_i64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ab\"\\\\\n\u{0}é😀/]{0,4}".prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = prop_oneof!["[ab]{0,2}", "[\"\\\\\né😀]{0,2}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..6)
                .prop_map(|members: HashMap<String, Value>| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Xorshift: a number below `bound` for each call.
fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    }
}

fn cases(usual: u32, soak: u32) -> ProptestConfig {
    let cases = if std::env::var_os("JOBSERVICE_SOAK").is_some() { soak } else { usual };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2_000, 100_000))]

    #[test]
    fn same_value_has_the_same_digest_however_it_is_written(value in values(), seed in any::<u64>()) {
        let mut random = random(seed);
        let (mut one, mut other) = (String::new(), String::new());
        write_text(&value, &mut random, &mut one);
        write_text(&value, &mut random, &mut other);
        prop_assert_eq!(of(&one), of(&other), "{} and {}", one, other);
        prop_assert_eq!(canonical(&canonical(&one)), canonical(&one));
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        prop_assert_eq!(read(&canonical(&one)), read(&one));
    }

    #[test]
    fn what_is_taken_is_what_serde_takes(value in values(), seed in any::<u64>(), edits in 0..4_usize) {
        let mut random = random(seed);
        let mut text = String::new();
        write_text(&value, &mut random, &mut text);
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..edits {
            let at = random(characters.len() + 1);
            match random(3) {
                0 if at < characters.len() => { characters.remove(at); }
                1 if at < characters.len() => characters[at] = b"{}[]\",:0e.-\\u\nt "[random(16)] as char,
                _ => characters.insert(at, b"{}[]\",:0e.-\\u\nt "[random(16)] as char),
            }
        }
        let text: String = characters.into_iter().collect();
        let (ours, theirs) = (check_json(&text), serde_json::from_str::<Value>(&text));
        match (&ours, &theirs) {
            // Stricter in one thing, and laxer in another: a number may be larger than any float.
            (Err(error), Ok(_)) => prop_assert!(error.what.ends_with("is there twice"), "{text:?}: {error}"),
            (Ok(()), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{text:?}: {error}"),
            (Ok(()), Ok(_)) | (Err(_), Err(_)) => {}
        }
    }
}

/// Goal: different parameters never share a digest. Method: 10^5 random pairs of values that differ, often in one place
/// only; two have the same digest exactly if they are the same value.
#[test]
fn different_values_have_different_digests() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let pairs = if std::env::var_os("JOBSERVICE_SOAK").is_some() { 1_000_000 } else { 100_000 };
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]));
    let mut tree = values().new_tree(&mut runner).unwrap();
    let mut different = 0;
    let mut last = tree.current().to_string();
    while different < pairs {
        // Shrinking gives a value near the one before; when it comes to its end, a new one.
        if !tree.simplify() {
            tree = values().new_tree(&mut runner).unwrap();
        }
        let text = tree.current().to_string();
        assert_eq!(of(&text) == of(&last), text == last, "{text} and {last}");
        different += usize::from(text != last);
        last = text;
    }
}
