//! Whose certificate a service under https may show.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{Error, Result};

/// Whose certificate a service under https may show.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Trust {
    /// One that leads to a root that this machine trusts.
    #[default]
    System,
    /// One that leads to one of these, or is one of them; the name in the URL must be in it. PEM.
    Certificates(Vec<u8>),
    /// Exactly this one (DER), whatever names are in it: for who knows the service otherwise, as by its data directory.
    Exactly(Vec<u8>),
}

impl Trust {
    /// How to connect; none for what the HTTP library does by itself.
    pub(crate) fn config(&self) -> Result<Option<ClientConfig>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match self {
            Trust::System => return Ok(None),
            Trust::Certificates(pem) => Verifier::of_certificates(pem, &provider)?,
            Trust::Exactly(der) => {
                Verifier { exactly: vec![der.clone().into()], roots: None, provider: Arc::clone(&provider) }
            }
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Some(config))
    }
}

fn unusable(problem: String) -> Error {
    Error::Unusable { what: "the trusted certificates", problem }
}

/// Compares what a service shows with what is trusted. Signatures are verified in any case: whoever shows a certificate
/// must have its key.
#[derive(Debug)]
struct Verifier {
    exactly: Vec<CertificateDer<'static>>,
    /// Verifies chains and names; none if only the certificate itself counts.
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn of_certificates(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Verifier> {
        let exactly = CertificateDer::pem_slice_iter(pem)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| unusable(format!("they are not PEM: {error}")))?;
        if exactly.is_empty() {
            return Err(unusable("there is none in the file: give PEM, BEGIN CERTIFICATE".to_owned()));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &exactly {
            roots.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
        }
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Verifier { exactly, roots: Some(roots), provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let is_known = self.exactly.iter().any(|known| known == end_entity);
        let Some(roots) = &self.roots else {
            return if is_known {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(CertificateError::UnknownIssuer.into())
            };
        };
        match roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // What `openssl req -x509` makes signs itself and is marked as an authority, which chains may not end in.
            // It is trusted by itself all the same; the name was not looked at yet.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer))
                if is_known =>
            {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
