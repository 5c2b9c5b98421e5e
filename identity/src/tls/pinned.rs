//! The agent's first connection: it has a CA pin and no bundle yet.
//!
//! The server sends its CA certificate behind its chain ([`super::ServerOptions`]
//! `send_authority`). The pin makes *that certificate* the only authority, its own SPIFFE
//! ID names the trust domain, and from there on the rules are those of every other
//! handshake: the leaf must be an X509-SVID, valid now, issued under that authority, in
//! its trust domain, and be the server that was expected.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    CaPin, ClientOptions, TlsError, provider, signature_algorithms,
    verifier::{refused, system_time},
    versions,
};
use crate::{
    PeerIdentity, SpiffeId, TrustBundle, VerifyError, certificate,
    svid::{Leaf, MAX_CHAIN},
    verify::{path, peer_identity},
};

/// A client config that accepts exactly one server: the one with the path `server_path`
/// (for an issuer `/issuer`) in the trust domain of a CA that one of `pins` names.
///
/// The client presents no certificate and resumes nothing; `options.resumption` is ignored.
/// After the handshake, [`verify_pinned`] on the peer's chain tells the trust domain and
/// the authority.
pub fn pinned_client_config(
    pins: &[CaPin],
    server_path: &str,
    options: &ClientOptions,
) -> Result<Arc<ClientConfig>, TlsError> {
    if pins.is_empty() {
        return Err(TlsError::NoPin);
    }
    let verifier = PinnedServerVerifier {
        pins: pins.to_vec(),
        server_path: server_path.to_owned(),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(options.tls12))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols.clone_from(&options.alpn);
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A server that a pin vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinnedServer {
    /// The server.
    pub identity: PeerIdentity,
    /// The CA certificate with the pinned key.
    pub authority: CertificateDer<'static>,
}

/// Verifies the chain a server sent (leaf first, the CA certificate among the rest)
/// against pins, and its path.
pub fn verify_pinned(
    pins: &[CaPin],
    server_path: &str,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<PinnedServer, VerifyError> {
    let Some((leaf_der, rest)) = chain.split_first() else {
        return Err(VerifyError::NoCertificate);
    };
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::ChainTooLong {
            certificates: chain.len(),
        });
    }
    let leaf = Leaf::parse(leaf_der).map_err(VerifyError::Leaf)?;
    let (pin, authority) = find_pinned(pins, rest)?;
    let (bundle, authority_id) =
        trust_pinned(authority).map_err(|reason| VerifyError::PinnedAuthority {
            pin: pin.to_string(),
            reason,
        })?;
    let expected = SpiffeId::new(&authority_id.trust_domain(), server_path).map_err(|error| {
        VerifyError::PinnedAuthority {
            pin: pin.to_string(),
            reason: format!("the server cannot be named: {error}"),
        }
    })?;
    if *leaf.id() != expected {
        return Err(VerifyError::WrongServer {
            expected,
            seen: leaf.id().clone(),
        });
    }
    let window = path::verify(leaf_der, &leaf, rest, &bundle, now)?;
    Ok(PinnedServer {
        identity: peer_identity(leaf_der, &leaf, rest, window.not_after),
        authority: authority.clone().into_owned(),
    })
}

/// The first certificate behind the leaf whose key is pinned.
fn find_pinned<'a>(
    pins: &[CaPin],
    rest: &'a [CertificateDer<'a>],
) -> Result<(CaPin, &'a CertificateDer<'a>), VerifyError> {
    let seen: Vec<(CaPin, &CertificateDer<'_>)> = rest
        .iter()
        .filter_map(|der| Some((CaPin::of_certificate(der).ok()?, der)))
        .collect();
    seen.iter()
        .find(|(pin, _)| pins.contains(pin))
        .copied()
        .ok_or_else(|| VerifyError::WrongPin {
            expected: list(pins),
            seen: match seen.as_slice() {
                [] => "none".to_owned(),
                seen => list(&seen.iter().map(|(pin, _)| *pin).collect::<Vec<_>>()),
            },
        })
}

fn list(pins: &[CaPin]) -> String {
    let texts: Vec<String> = pins.iter().map(CaPin::to_string).collect();
    texts.join(", ")
}

/// A bundle of the one authority, for the trust domain that its own SPIFFE ID names.
fn trust_pinned(authority: &CertificateDer<'_>) -> Result<(TrustBundle, SpiffeId), String> {
    let parsed = certificate::parse(authority)?;
    let uris = certificate::uri_names(&parsed)?;
    let [Some(uri)] = uris.as_slice() else {
        return Err(format!(
            "it has {} URI SANs that can be read, it needs one: its trust domain",
            uris.iter().flatten().count()
        ));
    };
    let id = SpiffeId::parse(uri).map_err(|error| error.to_string())?;
    if !id.is_trust_domain() {
        return Err(format!(
            "its SPIFFE ID {id} has a path: it names no trust domain"
        ));
    }
    let bundle = TrustBundle::new(id.trust_domain(), vec![authority.clone().into_owned()])
        .map_err(|error| error.to_string())?;
    Ok((bundle, id))
}

/// Which of `authorities` signed the last certificate of `chain`.
pub(super) fn issuer_of<'a>(
    chain: &[CertificateDer<'_>],
    authorities: &'a [CertificateDer<'static>],
) -> Option<&'a CertificateDer<'static>> {
    let last = chain.last()?;
    if let Some(authority) = authorities.iter().find(|it| *it == last) {
        return Some(authority);
    }
    let last = certificate::parse(last).ok()?;
    authorities.iter().find(|der| {
        certificate::parse(der).is_ok_and(|authority| {
            authority.subject().as_raw() == last.issuer().as_raw()
                && last.verify_signature(Some(authority.public_key())).is_ok()
        })
    })
}

/// Accepts the server that a CA pin vouches for.
#[derive(Debug)]
pub struct PinnedServerVerifier {
    pins: Vec<CaPin>,
    server_path: String,
}

impl ServerCertVerifier for PinnedServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        verify_pinned(&self.pins, &self.server_path, &chain, system_time(now)).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &signature_algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &signature_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_algorithms().supported_schemes()
    }
}
