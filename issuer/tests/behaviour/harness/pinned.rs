//! How a joining agent knows the issuer.

use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Knows the issuer's CA by its pin, as a joining agent does.
#[derive(Debug)]
pub(super) struct Pinned(pub(super) String);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use x509_parser::prelude::FromDer;
        let pinned = intermediates.iter().any(|certificate| {
            let (_, parsed) =
                x509_parser::certificate::X509Certificate::from_der(certificate).unwrap();
            let hash =
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.public_key().raw);
            format!("sha256:{}", hex::encode(hash)) == self.0
        });
        match pinned {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("not the pinned CA".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = identity::tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = identity::tls::provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
