//! State of the world: each answer holds all that is wanted and there.
//!
//! An answer goes out when something in it is new to this stream: a version that was not
//! sent, under a name that is wanted. A request that answers an older answer than the
//! last is stale and says nothing. An Envoy takes an answer without secrets as an error,
//! so there is none; what is withdrawn is only left out of the next.

use bytes::Bytes;
use proto::envoy::{config::core::v3::Node, service::discovery::v3 as pb};
use tonic::Status;

use super::{
    SECRET, check_type,
    names::Names,
    resources::{Secrets, version},
    updates::{Pieces, Protocol, nonce, rejected},
};

#[derive(Debug, Default)]
pub(super) struct World {
    wanted: Wanted,
    /// The last answer's.
    nonce: String,
    sent: Sent,
}

/// Version by name, of what was sent and is still wanted. In the order of the names; nearly
/// always it is one, for which a map would take four times its place.
#[derive(Debug, Default)]
struct Sent(Vec<(String, String)>);

impl Sent {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(known, _)| known.as_str().cmp(name))
    }

    fn version(&self, name: &str) -> Option<&str> {
        let place = self.place(name).ok()?;
        self.0.get(place).map(|(_, version)| version.as_str())
    }

    fn put(&mut self, name: &str, version: &str) {
        let new = (name.to_owned(), version.to_owned());
        match self.place(name) {
            Ok(place) => self.0[place] = new,
            Err(place) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, new);
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }
}

#[derive(Debug, Default)]
enum Wanted {
    /// There was no request yet.
    #[default]
    Unknown,
    /// No name was ever named.
    All,
    Names(Names),
}

impl World {
    /// All that is wanted and there, whatever was sent before.
    pub(super) fn all(&mut self, secrets: &Secrets) -> Vec<Bytes> {
        let names: Vec<&str> = match &self.wanted {
            Wanted::Unknown => Vec::new(),
            Wanted::All => secrets.full_names().iter().map(String::as_str).collect(),
            Wanted::Names(names) => names.iter().collect(),
        };
        let there = || {
            names
                .iter()
                .filter_map(|name| Some((*name, secrets.get(name)?)))
        };
        let content: String = there()
            .flat_map(|(name, secret)| [name, "\n", &secret.version, "\n"])
            .collect();
        self.sent.retain(|name| secrets.get(name).is_some());
        self.nonce = nonce();
        let mut pieces = Pieces::new(&pb::DiscoveryResponse {
            version_info: version(content.as_bytes()),
            type_url: SECRET.to_owned(),
            nonce: self.nonce.clone(),
            ..Default::default()
        });
        for (name, secret) in there() {
            pieces.add(&[], &secret.any);
            // What had no room is not tried again before it changes.
            self.sent.put(name, &secret.version);
        }
        pieces.framed()
    }

    fn is_new(&self, name: &str, secrets: &Secrets) -> bool {
        let secret = secrets.get(name);
        secret.is_some_and(|secret| self.sent.version(name) != Some(secret.version.as_str()))
    }
}

impl Protocol for World {
    type Request = pb::DiscoveryRequest;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(&mut self, request: Self::Request, secrets: &Secrets) -> Result<(), Status> {
        check_type(&request.type_url)?;
        if !request.response_nonce.is_empty() && request.response_nonce != self.nonce {
            return Ok(());
        }
        if let Some(error) = &request.error_detail {
            rejected(&error.message);
        }
        let mut names = match std::mem::take(&mut self.wanted) {
            Wanted::Names(names) => names,
            _ if request.resource_names.is_empty() => {
                self.wanted = Wanted::All;
                return Ok(());
            }
            _ => Names::default(),
        };
        names.set(request.resource_names, secrets);
        // One that is wanted again later is sent again.
        self.sent.retain(|name| names.contains(name));
        self.wanted = Wanted::Names(names);
        Ok(())
    }

    fn answer(&mut self, secrets: &Secrets) -> Option<Vec<Bytes>> {
        let is_due = match &self.wanted {
            Wanted::Unknown => false,
            Wanted::All => secrets
                .full_names()
                .iter()
                .any(|name| self.is_new(name, secrets)),
            Wanted::Names(names) => names.iter().any(|name| self.is_new(name, secrets)),
        };
        is_due.then(|| self.all(secrets))
    }
}

#[cfg(test)]
pub(super) mod tests;
