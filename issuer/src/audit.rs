//! What is recorded of every decision.
//!
//! An event is put together here and written by [`crate::store::audit::append`]
//! in the transaction that it tells of: either both are on the disk or neither.
//! Names and fields follow Teleport's (DESIGN D9). Secrets have no field.

pub mod best_effort;
pub mod chain;
pub mod codes;
pub mod lines;
pub mod sinks;
pub mod windows;

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::SystemTime};

use serde_json::Value;
use telemetry::request::RequestId;

use crate::authority::rfc3339;

/// Names of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventName {
    /// The issuer began to serve.
    IssuerStart,
    /// An agent asked to become a bot.
    BotJoin,
    /// A bot instance asked for its next certificate.
    BotRenew,
    /// An X509-SVID was asked for.
    SvidIssued,
    /// An agent asked to follow the issuer's news (recorded if refused).
    BotWatch,
    /// A peer connected with a certificate (recorded if refused).
    Connect,
    /// An instance that ended long ago was forgotten.
    BotInstanceDelete,
    /// Resources were to be applied (recorded if refused; else each by itself).
    Apply,
    /// A user called on the admin socket (recorded if refused).
    AdminConnect,
    /// The authority made itself a key.
    AuthorityCreate,
    /// A key of the authority began to sign.
    AuthorityActivate,
    /// A key of the authority ceased to sign.
    AuthorityRetire,
    /// A key of the authority left the trust bundle.
    AuthorityRemove,
    /// An instance was locked.
    LockCreate,
    /// A lock was removed.
    LockDelete,
    /// Agents were ordered to renew.
    RenewOrder,
    /// The store was made from a backup.
    StoreRestore,
    /// A resource was made, changed or removed.
    Resource(crate::resources::Kind, Change),
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Create,
    /// It is different.
    Update,
    /// It is gone.
    Delete,
}

impl EventName {
    /// As recorded.
    pub fn as_str(self) -> &'static str {
        use crate::resources::Kind;
        match self {
            Self::IssuerStart => "issuer.start",
            Self::BotJoin => "bot.join",
            Self::BotRenew => "bot.renew",
            Self::SvidIssued => "spiffe.svid.issued",
            Self::BotWatch => "bot.watch",
            Self::Connect => "connect",
            Self::BotInstanceDelete => "bot_instance.delete",
            Self::Apply => "resource.apply",
            Self::AdminConnect => "admin.connect",
            Self::AuthorityCreate => "authority.create",
            Self::AuthorityActivate => "authority.activate",
            Self::AuthorityRetire => "authority.retire",
            Self::AuthorityRemove => "authority.remove",
            Self::LockCreate => "lock.create",
            Self::LockDelete => "lock.delete",
            Self::RenewOrder => "renew.order",
            Self::StoreRestore => "store.restore",
            Self::Resource(Kind::Bot, Change::Create) => "bot.create",
            Self::Resource(Kind::Bot, Change::Update) => "bot.update",
            Self::Resource(Kind::Bot, Change::Delete) => "bot.delete",
            Self::Resource(Kind::Role, Change::Create) => "role.create",
            Self::Resource(Kind::Role, Change::Update) => "role.update",
            Self::Resource(Kind::Role, Change::Delete) => "role.delete",
            Self::Resource(Kind::Token, Change::Create) => "token.create",
            Self::Resource(Kind::Token, Change::Update) => "token.update",
            Self::Resource(Kind::Token, Change::Delete) => "token.delete",
            Self::Resource(Kind::WorkloadIdentity, Change::Create) => "workload_identity.create",
            Self::Resource(Kind::WorkloadIdentity, Change::Update) => "workload_identity.update",
            Self::Resource(Kind::WorkloadIdentity, Change::Delete) => "workload_identity.delete",
            Self::Resource(Kind::Lock, Change::Create) => "lock.create",
            Self::Resource(Kind::Lock, Change::Update) => "lock.update",
            Self::Resource(Kind::Lock, Change::Delete) => "lock.delete",
            Self::Resource(Kind::SpiffeFederation, Change::Create) => "spiffe.federation.create",
            Self::Resource(Kind::SpiffeFederation, Change::Update) => "spiffe.federation.update",
            Self::Resource(Kind::SpiffeFederation, Change::Delete) => "spiffe.federation.delete",
            Self::Resource(Kind::SigstorePolicy, Change::Create) => "sigstore_policy.create",
            Self::Resource(Kind::SigstorePolicy, Change::Update) => "sigstore_policy.update",
            Self::Resource(Kind::SigstorePolicy, Change::Delete) => "sigstore_policy.delete",
        }
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One decision, to be recorded.
#[derive(Debug, Clone)]
pub struct Event {
    name: EventName,
    success: bool,
    fields: BTreeMap<&'static str, Value>,
}

impl Event {
    /// Of something that was granted, or done.
    pub fn success(name: EventName) -> Self {
        Self::new(name, true)
    }

    /// Of something that was refused, and why.
    pub fn denial(name: EventName, reason: &str) -> Self {
        Self::new(name, false).with("reason", reason)
    }

    /// Tells of the request that this task works for, if it does.
    fn new(name: EventName, success: bool) -> Self {
        let event = Self {
            name,
            success,
            fields: BTreeMap::new(),
        };
        match RequestId::current() {
            Some(request) => event.with("request_id", request.as_str()),
            None => event,
        }
    }

    /// With a field. Control characters in text are left out: what a caller sent
    /// must not be able to write on the terminal of whoever reads it. (In lists and
    /// objects they stay, as attributes are to be what was decided on; there
    /// [`Self::fields_json`] escapes them.)
    pub fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        let mut value = value.into();
        if let Value::String(text) = &mut value {
            text.retain(|character| !character.is_control());
        }
        self.fields.insert(field, value);
        self
    }

    /// With a time, as RFC 3339.
    pub fn with_time(self, field: &'static str, time: SystemTime) -> Self {
        self.with(field, rfc3339(time))
    }

    /// With the address that the caller called from, where there is one.
    pub fn with_remote(self, remote: Option<SocketAddr>) -> Self {
        match remote {
            Some(remote) => self.with("remote_address", remote.to_string()),
            None => self,
        }
    }

    /// Its name.
    pub fn name(&self) -> EventName {
        self.name
    }

    /// Whether what was asked was granted.
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// A field that is text; empty if there is none.
    pub fn text_field(&self, field: &str) -> &str {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// All fields, as a JSON object in which no character does anything but show itself.
    pub fn fields_json(&self) -> String {
        // Names and JSON values are always JSON.
        let json = serde_json::to_string(&self.fields).unwrap_or_default();
        match json.contains(is_unseen) {
            true => escaped(&json),
            false => json,
        }
    }
}

/// Control characters, and those that change the order or the lines of the text around
/// them.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON has such characters in its strings only, where `\u` may stand for them.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match is_unseen(character) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests;
