//! The audit-ready record of a connection.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use identity::SpiffeId;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Address, CloseReason, Direction};

/// The audit-ready record of one connection.
///
/// `Serialize` writes one flat object: times in RFC 3339 (UTC), durations in milliseconds, addresses as
/// their text, absent values as `null`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// UUIDv7.
    pub connection_id: String,
    /// Service name.
    pub service: String,
    /// Way.
    pub direction: Direction,
    /// Who connected. `None` on a Unix socket.
    pub client_addr: Option<SocketAddr>,
    /// What was dialled, with the IP address that answered. `None` if that was never reached.
    pub server_addr: Option<Address>,
    /// Our SPIFFE ID.
    pub local_id: Option<SpiffeId>,
    /// Serial number of our leaf, hex.
    pub local_serial: Option<String>,
    /// The peer's, once proven.
    pub peer_id: Option<SpiffeId>,
    /// Serial number of the peer's leaf, hex.
    pub peer_serial: Option<String>,
    /// When the peer's identity ends (the earliest end in its chain).
    pub peer_expires: Option<SystemTime>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// When it was accepted.
    pub started: SystemTime,
    /// How long it lived.
    pub duration: Duration,
    /// Plaintext bytes client to server.
    pub bytes_in: u64,
    /// Plaintext bytes server to client.
    pub bytes_out: u64,
    /// `TLSv1_3` or `TLSv1_2`, once the handshake is complete.
    pub tls_version: Option<&'static str>,
    /// Whether TLS was resumed.
    pub resumed: bool,
    /// Why it ended.
    pub reason: CloseReason,
    /// More on the reason, for people.
    pub detail: Option<String>,
}

impl Serialize for ConnectionRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("ConnectionRecord", 19)?;
        object.serialize_field("connection_id", &self.connection_id)?;
        object.serialize_field("service", &self.service)?;
        object.serialize_field("direction", self.direction.as_str())?;
        object.serialize_field("client_addr", &self.client_addr)?;
        object.serialize_field(
            "server_addr",
            &self.server_addr.as_ref().map(Address::to_string),
        )?;
        object.serialize_field("local_id", &self.local_id.as_ref().map(SpiffeId::as_str))?;
        object.serialize_field("local_serial", &self.local_serial)?;
        object.serialize_field("peer_id", &self.peer_id.as_ref().map(SpiffeId::as_str))?;
        object.serialize_field("peer_serial", &self.peer_serial)?;
        object.serialize_field("peer_expires", &self.peer_expires.map(rfc3339))?;
        object.serialize_field("rule", &self.rule)?;
        object.serialize_field("started", &rfc3339(self.started))?;
        object.serialize_field("duration_ms", &milliseconds(self.duration))?;
        object.serialize_field("bytes_in", &self.bytes_in)?;
        object.serialize_field("bytes_out", &self.bytes_out)?;
        object.serialize_field("tls_version", &self.tls_version)?;
        object.serialize_field("resumed", &self.resumed)?;
        object.serialize_field("reason", &self.reason)?;
        object.serialize_field("detail", &self.detail)?;
        object.end()
    }
}

/// Takes the records of ended connections. Must not block: it is called on the data path's threads.
pub trait RecordSink: Send + Sync + 'static {
    /// One connection has ended.
    fn record(&self, record: &ConnectionRecord);
}

/// Whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC. Years past 9999, which it cannot write, become the last second that it can.
pub(crate) fn rfc3339(moment: SystemTime) -> String {
    const LAST: &str = "9999-12-31T23:59:59Z";
    let seconds = match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).ok(),
        Err(before) => i128::try_from(before.duration().as_nanos())
            .ok()
            .map(|nanos| -nanos),
    };
    seconds
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| LAST.to_owned())
}

#[cfg(test)]
mod tests;
