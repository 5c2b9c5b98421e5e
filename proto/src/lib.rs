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

        /// Largest `IssueSvidsRequest` that an issuer reads, encoded, in bytes.
        pub const ISSUE_MAX: usize = 1024 * 1024;
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

/// As the gRPC specification spells it.
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What stands where a secret would, in every `Debug` of this crate.
const REDACTED: &str = "[redacted]";

/// `Debug` that shows these fields and says of those after the semicolon that they are there.
macro_rules! redacted {
    ($type:ty as $name:literal: $($shown:ident),*; $($secret:ident),+) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name)
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($secret), &REDACTED))+
                    .finish_non_exhaustive()
            }
        }
    };
}

redacted!(join::v1::TokenEvidence as "TokenEvidence": ; token);
redacted!(admin::v1::AddBotResponse as "AddBotResponse": bot, token_expires, ca_pin, grpc_address; token);

// The name of a token is its secret, and a name alone does not tell its kind.
redacted!(admin::v1::Metadata as "Metadata": labels, revision, expires; name);

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

redacted!(issue::v1::JwtSvid as "JwtSvid": jti; token);
redacted!(issue::v1::WitSvid as "WitSvid": jti, csr; token);
redacted!(workload::X509svid as "X509SVID": spiffe_id, hint; x509_svid_key);
redacted!(workload::Jwtsvid as "JWTSVID": spiffe_id, hint; svid);
redacted!(workload::Witsvid as "WITSVID": spiffe_id, hint; wit_svid_key);
redacted!(broker::X509svid as "X509SVID": spiffe_id, hint; x509_svid_key);
redacted!(broker::Jwtsvid as "JWTSVID": spiffe_id, hint; svid);
redacted!(workload::ValidateJwtsvidRequest as "ValidateJWTSVIDRequest": audience; svid);

/// Its bytes may be a key.
impl std::fmt::Debug for envoy::config::core::v3::DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataSource").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
