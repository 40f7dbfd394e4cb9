//! Signatures of hook messages, by the rules of Standard Webhooks: HMAC-SHA256 over id, time and body.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jobservice_core::Time;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// What a secret in text begins with.
const PREFIX: &str = "whsec_";

/// Bytes of a key: fewer can be guessed, more are a mistake.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// How far the time of a message may be from that of who verifies it. The libraries for receivers have the same.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// A secret that messages are signed with. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// The part after `whsec_` is not base64.
    #[error("it is not base64 after {PREFIX:?}")]
    Encoding,
    /// The key has too few or too many bytes.
    #[error("its key has {0} bytes, and 24 to 64 are needed")]
    Length(usize),
}

impl Secret {
    /// Reads a secret: `whsec_` and base64 of 24 to 64 bytes.
    ///
    /// # Errors
    /// See [`BadSecret`].
    pub fn parse(text: &str) -> Result<Secret, BadSecret> {
        let text = text.trim();
        let key = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map_err(|_| BadSecret::Encoding)?;
        if KEY_BYTES.contains(&key.len()) { Ok(Secret(key)) } else { Err(BadSecret::Length(key.len())) }
    }

    fn mac(&self, id: &str, seconds: i64, body: &[u8]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        mac.finalize().into_bytes().into()
    }
}

/// The value of the header `webhook-signature`: one signature by each secret, the present one first.
pub fn sign(secrets: &[Secret], id: &str, at: Time, body: &[u8]) -> String {
    let signatures =
        secrets.iter().map(|secret| format!("v1,{}", STANDARD.encode(secret.mac(id, at.as_seconds(), body))));
    signatures.collect::<Vec<_>>().join(" ")
}

/// Why a message is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The header `webhook-timestamp` is not a number of seconds.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// It is too old, or from the future.
    #[error("webhook-timestamp is {0} s away from the present, more than {limit} s", limit = TOLERANCE.as_secs())]
    Age(u64),
    /// No signature is that of the secret.
    #[error("no signature in webhook-signature is that of the secret")]
    Signature,
}

/// Verifies a message, from its three headers and its body byte for byte.
///
/// # Errors
/// See [`Untrusted`].
pub fn verify(
    secret: &Secret,
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: Time,
) -> Result<(), Untrusted> {
    let seconds: i64 = timestamp.trim().parse().map_err(|_| Untrusted::Timestamp)?;
    let age = now.as_seconds().abs_diff(seconds);
    if age > TOLERANCE.as_secs() {
        return Err(Untrusted::Age(age));
    }
    let expected = secret.mac(id, seconds, body);
    let given = signatures.split_whitespace().filter_map(|part| STANDARD.decode(part.strip_prefix("v1,")?).ok());
    let mut matches = subtle::Choice::from(0);
    for signature in given {
        matches |= signature.as_slice().ct_eq(&expected);
    }
    if bool::from(matches) { Ok(()) } else { Err(Untrusted::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const ID: &str = "evt_a1b2c3_1539164888_2";
    const AT: Time = Time::from_seconds(1_700_000_000);
    const BODY: &str = concat!(
        r#"{"job_id":"a1b2c3","status":"Running","check_in":"30%","metadata":{"id":"a1b2c3","status":"Running","#,
        r#""name":"demo","kind":"Generic","unique":false,"ref_link":"/api/v1/jobs/a1b2c3","enqueue_time":1539164886,"#,
        r#""update_time":1539164890,"revision":1539164888}}"#
    );

    fn other() -> Secret {
        Secret::parse("whsec_//////////////////////////////////////////8=").unwrap()
    }

    #[test]
    fn signature_is_that_of_the_test_vector() {
        assert_eq!(BODY.len(), 253);
        let secret = Secret::parse(SECRET).unwrap();
        let signed = sign(&[secret], ID, AT, BODY.as_bytes());
        assert_eq!(signed, "v1,7TXW4hVvSAG/6aMFlLDk8ZiYvnza2uRkVkEhq2xgoNI=");
    }

    #[test]
    fn both_secrets_verify_while_one_takes_the_place_of_the_other() {
        let (old, new) = (Secret::parse(SECRET).unwrap(), other());
        let signed = sign(&[new.clone(), old.clone()], ID, AT, b"{}");
        assert_eq!(signed.split(' ').count(), 2);
        for secret in [old, new] {
            verify(&secret, ID, "1700000000", &signed, b"{}", AT).unwrap();
        }
    }

    #[test]
    fn whatever_was_changed_is_not_trusted() {
        let secret = Secret::parse(SECRET).unwrap();
        let signed = sign(std::slice::from_ref(&secret), ID, AT, b"{}");
        let check =
            |id: &str, timestamp: &str, signed: &str, body: &[u8]| verify(&secret, id, timestamp, signed, body, AT);

        assert_eq!(check(ID, "1700000000", &signed, b"{}"), Ok(()));
        assert_eq!(check("evt_other_1", "1700000000", &signed, b"{}"), Err(Untrusted::Signature));
        assert_eq!(check(ID, "1700000001", &signed, b"{}"), Err(Untrusted::Signature));
        assert_eq!(check(ID, "1700000000", &signed, b"{ }"), Err(Untrusted::Signature));
        assert_eq!(check(ID, "1700000000", "v1a,AAAA v1,!! v2", b"{}"), Err(Untrusted::Signature));
        assert_eq!(check(ID, "1699999699", &signed, b"{}"), Err(Untrusted::Age(301)));
        assert_eq!(check(ID, "1700000301", &signed, b"{}"), Err(Untrusted::Age(301)));
        assert_eq!(check(ID, "now", &signed, b"{}"), Err(Untrusted::Timestamp));
        assert_eq!(verify(&other(), ID, "1700000000", &signed, b"{}", AT), Err(Untrusted::Signature));
    }

    /// What we sign, the library of the standard takes.
    #[test]
    fn library_of_the_standard_agrees() {
        let theirs = standardwebhooks::Webhook::new(SECRET).unwrap();
        let signed = theirs.sign(ID, AT.as_seconds(), BODY.as_bytes()).unwrap();
        assert_eq!(signed, sign(&[Secret::parse(SECRET).unwrap()], ID, AT, BODY.as_bytes()));
    }

    #[test]
    fn secrets_of_the_wrong_form_are_refused_and_good_ones_never_shown() {
        assert_eq!(Secret::parse("whsec_###"), Err(BadSecret::Encoding));
        assert_eq!(Secret::parse("whsec_AAECAw=="), Err(BadSecret::Length(4)));
        assert_eq!(Secret::parse(&format!(" {SECRET}\n")), Secret::parse(SECRET.trim_start_matches(PREFIX)));
        assert_eq!(format!("{:?}", Secret::parse(SECRET).unwrap()), "Secret(..)");
    }
}
