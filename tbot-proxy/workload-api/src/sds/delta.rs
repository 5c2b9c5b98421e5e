//! Delta: each answer holds what has changed for this client.
//!
//! The server knows what the client holds: what it said it holds as the stream began,
//! and what it was sent since. A name that it subscribes to anew is answered even if it
//! holds that already, for it may have dropped it. A secret that is no longer there is
//! told as removed; one that never was is not mentioned, unless there is no room to wait
//! for it: then it is told as removed too, so that the client knows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};
use prost::{Message, encoding::encode_varint};
use proto::envoy::{config::core::v3::Node, service::discovery::v3 as pb};
use tonic::Status;

use super::{
    SECRET, check_type,
    names::Names,
    resources::{Encoded, Secrets},
    updates::{Pieces, Protocol, nonce, rejected},
};

/// Subscribes to everything.
const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub(super) struct Delta {
    has_begun: bool,
    wants_all: bool,
    wanted: Names,
    /// What the client holds: version by name.
    held: BTreeMap<String, String>,
    /// What there was no room for in the last request.
    left_out: Vec<String>,
}

impl Delta {
    fn wants(&self, name: &str) -> bool {
        self.wants_all || self.wanted.contains(name)
    }

    /// Names that are wanted and there, each once.
    fn wanted<'a>(&'a self, secrets: &'a Secrets) -> BTreeSet<&'a str> {
        let all = secrets.full_names().iter().filter(|_| self.wants_all);
        let names = self.wanted.iter().chain(all.map(String::as_str));
        names.filter(|name| secrets.get(name).is_some()).collect()
    }
}

impl Protocol for Delta {
    type Request = pb::DeltaDiscoveryRequest;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(&mut self, request: Self::Request, secrets: &Secrets) -> Result<(), Status> {
        check_type(&request.type_url)?;
        if let Some(error) = &request.error_detail {
            rejected(&error.message);
        }
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first {
            self.wants_all = request.resource_names_subscribe.is_empty();
            self.held = request.initial_resource_versions.into_iter().collect();
        }
        for name in request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.wants_all = false;
                continue;
            }
            self.wanted.remove(&name);
            self.held.remove(&name);
        }
        let mut names = request.resource_names_subscribe;
        self.wants_all |= names.iter().any(|name| name == WILDCARD);
        names.retain(|name| name != WILDCARD);
        if is_first {
            self.left_out = self.wanted.add(names, secrets);
            // What has changed since is sent like what is new, what is gone is told once.
            let mut held = std::mem::take(&mut self.held);
            held.retain(|name, version| {
                let is_same = |secret: &Encoded| secret.version == *version;
                self.wants(name) && secrets.get(name).is_none_or(is_same)
            });
            self.held = held;
        } else {
            for name in &names {
                self.held.remove(name);
            }
            self.left_out = self.wanted.add(names, secrets);
        }
        Ok(())
    }

    fn answer(&mut self, secrets: &Secrets) -> Option<Vec<Bytes>> {
        let mut removed: Vec<String> = self
            .held
            .keys()
            .filter(|name| self.wants(name) && secrets.get(name).is_none())
            .cloned()
            .collect();
        for name in &removed {
            self.held.remove(name);
        }
        removed.append(&mut self.left_out);
        let changed: Vec<(String, String)> = self
            .wanted(secrets)
            .into_iter()
            .filter_map(|name| Some((name, &secrets.get(name)?.version)))
            .filter(|(name, version)| self.held.get(*name) != Some(*version))
            .map(|(name, version)| (name.to_owned(), version.clone()))
            .collect();
        if changed.is_empty() && removed.is_empty() {
            return None;
        }
        let mut pieces = Pieces::new(&pb::DeltaDiscoveryResponse {
            type_url: SECRET.to_owned(),
            nonce: nonce(),
            removed_resources: removed,
            ..Default::default()
        });
        for (name, version) in changed {
            let Some(secret) = secrets.get(&name) else {
                continue;
            };
            let mut before = pb::Resource {
                version: version.clone(),
                name: name.clone(),
                resource: None,
            }
            .encode_to_vec();
            // `resource`: field 2, a message.
            before.put_u8(0x12);
            encode_varint(secret.any.len() as u64, &mut before);
            pieces.add(&before, &secret.any);
            // What had no room is not tried again before it changes.
            self.held.insert(name, version);
        }
        Some(pieces.framed())
    }
}

#[cfg(test)]
mod tests;
