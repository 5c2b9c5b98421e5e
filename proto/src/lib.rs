//! The wire contracts between issuer and agent, and the SPIFFE Workload API,
//! generated from the `.proto` files beside this crate (which document every
//! field with its unit).
//!
//! `issuer` and `tbot-proxy` never import each other: they meet only here.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

/// Joining: `JoinService`.
pub mod join {
    pub mod v1 {
        tonic::include_proto!("tbot.join.v1");
    }
}

/// Issuance: `IssueService`.
pub mod issue {
    pub mod v1 {
        tonic::include_proto!("tbot.issue.v1");
    }
}

/// Administration: `AdminService`.
pub mod admin {
    pub mod v1 {
        tonic::include_proto!("tbot.admin.v1");
    }
}

/// The SPIFFE Workload API.
pub mod workload {
    tonic::include_proto!("_");
}

/// The SPIFFE Broker API.
pub mod broker {
    tonic::include_proto!("spiffe.broker");
}

/// Envoy's API v3, as far as SDS needs it.
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    tonic::include_proto!("envoy.extensions.transport_sockets.tls.v3");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }
        pub mod secret {
            pub mod v3 {
                tonic::include_proto!("envoy.service.secret.v3");
            }
        }
    }
}

/// What went wrong, as gRPC APIs say it.
pub mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// Encoded `FileDescriptorSet` of every file, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Object identifier of the bot certificate's extension that holds
/// [`join::v1::JoinAttributes`]. An unregistered private arc, as the
/// extension is read by our issuer only.
pub const JOIN_ATTRIBUTES_OID: &str = "1.3.9999.20.1";

/// What stands where a secret would, in every `Debug` of this crate.
const REDACTED: &str = "[redacted]";

impl std::fmt::Debug for join::v1::TokenEvidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEvidence")
            .field("token", &REDACTED)
            .finish()
    }
}

impl std::fmt::Debug for admin::v1::AddBotResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddBotResponse")
            .field("bot", &self.bot)
            .field("token", &REDACTED)
            .field("token_expires", &self.token_expires)
            .field("ca_pin", &self.ca_pin)
            .field("grpc_address", &self.grpc_address)
            .finish()
    }
}

/// The name of a token is its secret, and a name alone does not tell its kind.
impl std::fmt::Debug for admin::v1::Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("name", &REDACTED)
            .field("labels", &self.labels)
            .field("revision", &self.revision)
            .field("expires", &self.expires)
            .finish()
    }
}

/// With the name of what is no token.
impl std::fmt::Debug for admin::v1::Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use admin::v1::resource::Spec;
        let name = match (&self.spec, &self.metadata) {
            (Some(Spec::Token(_)) | None, _) | (_, None) => REDACTED,
            (_, Some(metadata)) => metadata.name.as_str(),
        };
        f.debug_struct("Resource")
            .field("name", &name)
            .field("metadata", &self.metadata)
            .field("spec", &self.spec)
            .finish()
    }
}

/// What may be shown of a name that a request gives together with a kind.
fn shown_name<'a>(kind: &str, name: &'a str) -> &'a str {
    match kind {
        "bot" | "role" | "workload_identity" | "lock" | "spiffe_federation" => name,
        _ => REDACTED,
    }
}

impl std::fmt::Debug for admin::v1::GetResourcesRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetResourcesRequest")
            .field("kind", &self.kind)
            .field("name", &shown_name(&self.kind, &self.name))
            .finish()
    }
}

impl std::fmt::Debug for admin::v1::DeleteResourceRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeleteResourceRequest")
            .field("kind", &self.kind)
            .field("name", &shown_name(&self.kind, &self.name))
            .finish()
    }
}

impl std::fmt::Debug for issue::v1::JwtSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtSvid")
            .field("token", &REDACTED)
            .field("jti", &self.jti)
            .finish()
    }
}

impl std::fmt::Debug for issue::v1::WitSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WitSvid")
            .field("token", &REDACTED)
            .field("jti", &self.jti)
            .field("csr", &self.csr)
            .finish()
    }
}

impl std::fmt::Debug for workload::X509svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509SVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("x509_svid_key", &REDACTED)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for workload::Jwtsvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JWTSVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("svid", &REDACTED)
            .field("hint", &self.hint)
            .finish()
    }
}

impl std::fmt::Debug for workload::Witsvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WITSVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("wit_svid_key", &REDACTED)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for broker::X509svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509SVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("x509_svid_key", &REDACTED)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for broker::Jwtsvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JWTSVID")
            .field("spiffe_id", &self.spiffe_id)
            .field("svid", &REDACTED)
            .field("hint", &self.hint)
            .finish()
    }
}

impl std::fmt::Debug for workload::ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValidateJWTSVIDRequest")
            .field("audience", &self.audience)
            .field("svid", &REDACTED)
            .finish()
    }
}

/// Its bytes may be a key.
impl std::fmt::Debug for envoy::config::core::v3::DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataSource").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
