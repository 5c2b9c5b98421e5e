//! Generates the wire types with `protox`, so that no `protoc` is needed.

use std::path::PathBuf;

const FILES: [&str; 7] = [
    "tbot/join/v1/join.proto",
    "tbot/issue/v1/issue.proto",
    "tbot/admin/v1/admin.proto",
    "spiffe/workload/workload.proto",
    "spiffe/broker/broker.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    // Kept for gRPC server reflection.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        // Secrets must not reach a debug dump: these get a hand-written Debug.
        .skip_debug(["tbot.join.v1.TokenEvidence"])
        .skip_debug(["tbot.admin.v1.AddBotResponse"])
        // The name of a token is its secret.
        .skip_debug(["tbot.admin.v1.Resource", "tbot.admin.v1.Metadata"])
        .enum_attribute("tbot.admin.v1.Resource.spec", "#[derive(Debug)]")
        .skip_debug([
            "tbot.admin.v1.GetResourcesRequest",
            "tbot.admin.v1.DeleteResourceRequest",
        ])
        // A JWT is a bearer secret.
        .skip_debug(["tbot.issue.v1.JwtSvid", "tbot.issue.v1.WitSvid"])
        .skip_debug(["X509SVID", "JWTSVID", "WITSVID", "ValidateJWTSVIDRequest"])
        .skip_debug(["spiffe.broker.X509SVID", "spiffe.broker.JWTSVID"])
        // Their encoding is compared: one order.
        .btree_map(".X509SVIDResponse")
        .btree_map(".X509BundlesResponse")
        .btree_map(".JWTBundlesResponse")
        .btree_map(".WITBundlesResponse")
        .skip_debug(["envoy.config.core.v3.DataSource"])
        .compile_fds(descriptors)?;
    Ok(())
}
