//! Who calls: a bot instance, by its verified certificate.

use std::{net::SocketAddr, time::SystemTime};

use der::{Decode, asn1::OctetString};
use identity::{PeerIdentity, Serial, SpiffeId};
use policy::Attributes;
use prost::Message;
use proto::join::v1::JoinAttributes;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{audit::Event, issue::attributes};

/// A bot instance that proved its certificate on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `spiffe://<td>/bot/<name>/<instance>`.
    pub id: SpiffeId,
    /// Name of the bot.
    pub bot_name: String,
    /// UUID of the instance.
    pub instance_id: String,
    /// Generation of the certificate that was presented.
    pub generation: u64,
    /// Serial number of the certificate that was presented.
    pub serial: Serial,
    /// When it ends.
    pub not_after: SystemTime,
    /// Where the call comes from.
    pub remote: Option<SocketAddr>,
    /// When it proved its certificate.
    pub connected: SystemTime,
    /// `join.*`: what the issuer verified when it joined.
    pub join: Attributes,
}

impl Caller {
    /// Reads the caller out of a chain's leaf that was verified as `peer`.
    pub fn from_peer(
        peer: &PeerIdentity,
        leaf: &[u8],
        remote: Option<SocketAddr>,
    ) -> Result<Self, NotABot> {
        let not_a_bot = || NotABot(peer.id.clone());
        let mut segments = peer.id.segments();
        let (Some("bot"), Some(bot_name), Some(instance_id), None) = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) else {
            return Err(not_a_bot());
        };
        let attributes = join_attributes(leaf).ok_or_else(not_a_bot)?;
        if attributes.bot_name != bot_name || attributes.instance_id != instance_id {
            return Err(not_a_bot());
        }
        Ok(Self {
            bot_name: bot_name.to_owned(),
            instance_id: instance_id.to_owned(),
            generation: attributes.generation,
            serial: peer.serial.clone(),
            not_after: peer.not_after,
            remote,
            connected: SystemTime::now(),
            join: join_attributes_of(&attributes),
            id: peer.id.clone(),
        })
    }

    /// An event that tells who called.
    pub fn told_in(&self, event: Event) -> Event {
        event
            .with("bot_name", self.bot_name.as_str())
            .with("bot_instance_id", self.instance_id.as_str())
            .with("bot_generation", self.generation)
            .with("bot_serial_number", self.serial.to_string())
            .with_remote(self.remote)
    }
}

/// `join.*` of a bot certificate. One of before they were written has method and token.
fn join_attributes_of(extension: &JoinAttributes) -> Attributes {
    match &extension.attributes {
        Some(tree) => attributes::joined(tree),
        None => {
            let (method, token) = (&extension.join_method, &extension.join_token_name);
            attributes::joined(&attributes::of_join(method, token))
        }
    }
}

/// What the issuer wrote into the leaf when the bot joined.
fn join_attributes(leaf: &[u8]) -> Option<JoinAttributes> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let extension = certificate
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == proto::JOIN_ATTRIBUTES_OID)?;
    let value = OctetString::from_der(extension.value).ok()?;
    JoinAttributes::decode(value.as_bytes()).ok()
}

/// The peer is of this trust domain, but it is no bot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a bot's identity: join first")]
pub struct NotABot(SpiffeId);
