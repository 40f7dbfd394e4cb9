//! Who calls, and whether a page of another site makes them call.
//!
//! A caller shows a secret: `Authorization: Harbor-Secret <secret>`, or `Bearer <secret>`. Secrets are kept as SHA-256
//! digests and compared digest by digest in constant time, so that neither the length nor a common prefix of a guess
//! shows in the time that the answer takes. Several secrets are valid at once, so that one can be replaced without a
//! moment in which callers are refused.

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Uri};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::{ApiError, Reason};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Look.
    Viewer,
    /// Look, submit, stop, cancel, retry, delete.
    Operator,
    /// Everything.
    Admin,
    /// Claim jobs and report on them; nothing else.
    Worker,
}

impl Role {
    /// Whether who has this role may do what needs `needed`.
    pub const fn allows(self, needed: Role) -> bool {
        match self {
            Role::Admin => true,
            Role::Operator => matches!(needed, Role::Operator | Role::Viewer),
            Role::Viewer => matches!(needed, Role::Viewer),
            Role::Worker => matches!(needed, Role::Worker),
        }
    }
}

/// The secrets that open this service, as digests.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<([u8; 32], Role)>);

impl Secrets {
    /// Secrets that may do everything: those of `CORE_SECRET`, or the generated one.
    pub(crate) fn of_admins<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Secrets {
        Secrets(secrets.into_iter().map(|secret| (Sha256::digest(secret).into(), Role::Admin)).collect())
    }

    /// The role of who sent these headers; none if they show no valid secret.
    pub(super) fn role_of(&self, headers: &HeaderMap) -> Option<Role> {
        let (scheme, shown) = split_once(headers.get(AUTHORIZATION)?.as_bytes(), b' ')?;
        if !scheme.eq_ignore_ascii_case(b"harbor-secret") && !scheme.eq_ignore_ascii_case(b"bearer") {
            return None;
        }
        let shown: [u8; 32] = Sha256::digest(shown.trim_ascii()).into();
        let mut role = None;
        for (digest, its) in &self.0 {
            // All are compared, whichever matches: the time says nothing about which it was.
            let same: Choice = digest.ct_eq(&shown);
            if bool::from(same) {
                role = Some(*its);
            }
        }
        role
    }
}

/// How the secrets are shown: not at all.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// Refuses a request that a browser sends on behalf of another site's page. Browsers always say so; programs never do.
pub(super) fn refuse_cross_site(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let refusal = || {
        ApiError::new(
            Reason::CrossSite,
            "a page of another site may not call this service: its Origin, or Sec-Fetch-Site, says that it is one",
        )
    };
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| matches!(site.as_bytes(), b"cross-site" | b"same-site")) {
        return Err(refusal());
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    // HTTP/2 has the host in the URI.
    let host =
        uri.authority().map_or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()), |a| Some(a.as_str()));
    let of_origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    match (of_origin, host) {
        (Some(of_origin), Some(host)) if of_origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(refusal()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(key, value)| (HeaderName::from_static(key), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn any_of_several_secrets_opens_under_either_scheme() {
        let secrets = Secrets::of_admins(["old", "new"]);
        for good in ["Harbor-Secret old", "harbor-secret new", "Bearer new", "BEARER  old "] {
            assert_eq!(secrets.role_of(&headers(&[("authorization", good)])), Some(Role::Admin), "{good}");
        }
    }

    #[test]
    fn anything_else_opens_nothing() {
        let secrets = Secrets::of_admins(["secret"]);
        for bad in [
            "",
            "secret",
            "Harbor-Secret",
            "Harbor-Secret ",
            "Harbor-Secret secre",
            "Harbor-Secret secrets",
            "Basic secret",
        ] {
            assert_eq!(secrets.role_of(&headers(&[("authorization", bad)])), None, "{bad}");
        }
        assert_eq!(secrets.role_of(&HeaderMap::new()), None);
        assert_eq!(Secrets::of_admins([]).role_of(&headers(&[("authorization", "Harbor-Secret secret")])), None);
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        assert_eq!(format!("{:?}", Secrets::of_admins(["canary"])), "1 secrets");
    }

    #[test]
    fn roles_form_a_ladder_with_workers_beside_it() {
        assert!(Role::Admin.allows(Role::Operator) && Role::Operator.allows(Role::Viewer));
        assert!(!Role::Viewer.allows(Role::Operator) && !Role::Operator.allows(Role::Admin));
        assert!(!Role::Worker.allows(Role::Viewer) && !Role::Operator.allows(Role::Worker));
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_programs_are_not() {
        let uri = Uri::from_static("/api/v1/jobs");
        let answer = |pairs| refuse_cross_site(&headers(pairs), &uri).is_ok();
        assert!(answer(&[("host", "jobs:9443")]));
        assert!(answer(&[("host", "jobs:9443"), ("origin", "http://JOBS:9443"), ("sec-fetch-site", "same-origin")]));
        assert!(answer(&[("host", "jobs:9443"), ("sec-fetch-site", "none")]));
        assert!(!answer(&[("host", "jobs:9443"), ("origin", "https://evil.example")]));
        assert!(!answer(&[("host", "jobs:9443"), ("origin", "null")]));
        assert!(!answer(&[("host", "jobs:9443"), ("sec-fetch-site", "cross-site")]));
        assert!(refuse_cross_site(&headers(&[("origin", "http://h:1")]), &Uri::from_static("http://h:1/api")).is_ok());
    }
}
