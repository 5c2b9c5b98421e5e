//! References to workloads (BA-03, BA-06, BA-07), as far as the message itself tells
//! whether they are well formed.

use std::num::NonZeroU32;

use prost::Message;
use prost_types::Any;
use proto::broker as pb;

use super::Unresolved;

/// What a broker says which workload it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A process of this node.
    Pid(NonZeroU32),
    /// An object of this node's Kubernetes.
    Kubernetes(KubernetesObject),
}

/// By key, by UID, or by both: then both must mean the same, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesObject {
    /// Plural name of its type, as `pods`.
    pub plural: String,
    /// API group; `core` for the core group.
    pub group: String,
    /// Namespace and name; the namespace is empty for what has none.
    pub key: Option<(String, String)>,
    /// UID, a UUID.
    pub uid: Option<String>,
}

impl Reference {
    /// Reads the one reference of a request. The type is told by the name behind the last
    /// slash of `type_url` (as `google.protobuf.Any` has it).
    pub(super) fn read(reference: Option<pb::WorkloadReference>) -> Result<Self, Unresolved> {
        let invalid = |why: &str| Unresolved::Invalid(why.to_owned());
        let any = reference.and_then(|it| it.reference);
        let Any { type_url, value } = any.ok_or_else(|| invalid("there is no reference"))?;
        match type_url.rsplit('/').next() {
            Some("spiffe.broker.WorkloadPIDReference") => {
                let reference = pb::WorkloadPidReference::decode(value.as_slice())
                    .map_err(|_| invalid("the PID reference cannot be read"))?;
                let pid = u32::try_from(reference.pid).ok().and_then(NonZeroU32::new);
                pid.map(Self::Pid)
                    .ok_or_else(|| invalid("a PID is a positive number"))
            }
            Some("spiffe.broker.KubernetesObjectReference") => {
                let reference = pb::KubernetesObjectReference::decode(value.as_slice())
                    .map_err(|_| invalid("the Kubernetes reference cannot be read"))?;
                KubernetesObject::read(reference).map(Self::Kubernetes)
            }
            _ => {
                let name: String = type_url.chars().take(200).collect();
                Err(Unresolved::Invalid(format!(
                    "references of type {name:?} are not known here: WorkloadPIDReference and KubernetesObjectReference are"
                )))
            }
        }
    }
}

impl KubernetesObject {
    /// BA-07.
    fn read(reference: pb::KubernetesObjectReference) -> Result<Self, Unresolved> {
        let invalid = |why: &str| Err(Unresolved::Invalid(why.to_owned()));
        let r#type = reference.r#type.unwrap_or_default();
        if r#type.plural.is_empty() || r#type.group.is_empty() {
            return invalid(
                "the type of an object is its plural name and its group (`core` for the core group)",
            );
        }
        let key = reference.key.map(|key| (key.namespace, key.name));
        if key.as_ref().is_some_and(|(_, name)| name.is_empty()) {
            return invalid("the key of an object has a name");
        }
        let uid = (!reference.uid.is_empty()).then_some(reference.uid);
        if uid.as_deref().is_some_and(|uid| !is_uuid(uid)) {
            return invalid("the UID of an object is a UUID");
        }
        if key.is_none() && uid.is_none() {
            return invalid("an object is referred to by its key, its UID, or both");
        }
        Ok(Self {
            plural: r#type.plural,
            group: r#type.group,
            key,
            uid,
        })
    }
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, length)| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

#[cfg(test)]
mod tests;
