//! The `access_denied` alert (RFC 8446 6.2): the peer is who it says, and may not come in.
//!
//! rustls sends alerts of its own choice only, so this takes the write key out of a connection that is about
//! to end, and seals one record with rustls' own cipher.
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
};

use crate::engine::{Connection, Engine};

const FATAL: u8 = 2;

/// The sealed record; None when the configuration forbids taking secrets out.
pub(crate) fn access_denied(engine: Engine) -> Option<Vec<u8>> {
    let suite = engine.facts().negotiated_cipher_suite()?;
    let secrets = match engine.connection {
        Connection::Server(connection) => connection.dangerous_into_kernel_connection().ok()?.0,
        Connection::Client(connection) => connection.dangerous_into_kernel_connection().ok()?.0,
    };
    let (sequence, secrets) = secrets.tx;
    let mut encrypter = encrypter(suite, secrets)?;
    let payload = [FATAL, AlertDescription::AccessDenied.into()];
    let alert = OutboundPlainMessage {
        typ: ContentType::Alert,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(&payload),
    };
    Some(encrypter.encrypt(alert, sequence).ok()?.encode())
}

pub(crate) fn encrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Option<Box<dyn MessageEncrypter>> {
    let (key, iv, explicit_nonce) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv, true),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, false),
        _ => return None,
    };
    Some(match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            // RFC 5288 3: four bytes of salt, eight explicit; RFC 7905 2: twelve, none explicit.
            let (fixed, explicit) = iv.as_ref().split_at(if explicit_nonce { 4 } else { 12 });
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    })
}
