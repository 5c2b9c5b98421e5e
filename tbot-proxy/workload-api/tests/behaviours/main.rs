//! What a client sees of the server, one file a behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod authority_is_a_path;
mod broker;
mod drain_tells_clients_to_come_back;
mod envoy;
mod java_grpc;
mod jwt_svids;
mod limits;
mod metadata_is_asked_for;
mod metrics_of_the_server;
mod py_spiffe;
mod reflection_and_health;
mod rust_spiffe;
mod sds_streams;
mod support;
mod third_party;
mod wit_is_off_by_default;
mod x509_streams;
