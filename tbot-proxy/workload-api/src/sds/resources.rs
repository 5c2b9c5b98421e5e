//! The secrets of a caller, encoded once for all streams that have the same.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{BufMut, Bytes};
use identity::{TrustBundle, X509Svid};
use prost::{Message, encoding::encode_varint};
use prost_types::Any;
use proto::envoy::{
    config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
        secret::Type, spiffe_cert_validator_config::TrustDomain,
    },
};
use zeroize::{Zeroize, Zeroizing};

use super::{Options, SECRET};
use crate::backend::X509Context;

const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_CONFIG: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// Secrets by name.
#[derive(Debug)]
pub(super) struct Secrets {
    named: BTreeMap<String, Encoded>,
    /// Names that have no other: what one gets who names none.
    full_names: Vec<String>,
}

/// A secret.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The same for the same content, over restarts too.
    pub(super) version: String,
    /// As `google.protobuf.Any`. With a private key: wiped when dropped.
    pub(super) any: Bytes,
}

impl Secrets {
    /// `validator`: trust bundles come with the SPIFFE validator.
    pub(super) fn of(context: &X509Context, options: &Options, validator: bool) -> Self {
        let mut secrets = Self {
            named: BTreeMap::new(),
            full_names: Vec::new(),
        };
        if let Some(first) = context.svids.first() {
            secrets.add_svid(&options.default_svid, &first.svid);
        }
        for held in &context.svids {
            let name = held.svid.id().as_str();
            if secrets.add_svid(name, &held.svid) {
                secrets.full_names.push(name.to_owned());
            }
        }
        let bundles = || context.bundles.bundles.iter().map(|bundle| &**bundle);
        let own = context.bundles.bundles.get(context.bundles.own.as_str());
        let own: Vec<&TrustBundle> = own.map(|bundle| &**bundle).into_iter().collect();
        secrets.add_bundles(&options.default_bundle, &own, validator);
        if validator {
            let all: Vec<_> = bundles().collect();
            secrets.add_bundles(&options.all_bundles, &all, validator);
        }
        for bundle in bundles() {
            let name = bundle.trust_domain().id().to_string();
            if secrets.add_bundles(&name, &[bundle], validator) {
                secrets.full_names.push(name);
            }
        }
        secrets
    }

    /// Takes over what it has not, for tests.
    #[cfg(test)]
    pub(super) fn adopt(&mut self, other: &Self) {
        for (name, Encoded { version, any }) in &other.named {
            self.named.entry(name.clone()).or_insert_with(|| Encoded {
                version: version.clone(),
                any: any.clone(),
            });
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Encoded> {
        self.named.get(name)
    }

    /// Each SPIFFE ID and trust domain, without the names that are said twice.
    pub(super) fn full_names(&self) -> &[String] {
        &self.full_names
    }

    /// Whether it was added: a name is that of the first who has it.
    fn add_svid(&mut self, name: &str, svid: &X509Svid) -> bool {
        let chain = svid.chain_pem();
        let version = version(chain.as_bytes());
        let certificate = TlsCertificate {
            certificate_chain: inline(chain.into_bytes()),
            private_key: inline(svid.key_pem().as_bytes().to_vec()),
        };
        self.add(name, version, Type::TlsCertificate(certificate))
    }

    /// Nothing is added for bundles without CAs: Envoy rejects a context without.
    fn add_bundles(&mut self, name: &str, bundles: &[&TrustBundle], validator: bool) -> bool {
        let with_cas = bundles
            .iter()
            .filter(|it| !it.x509_authorities().is_empty());
        let context = match validator {
            true => {
                let domain = |bundle: &&TrustBundle| TrustDomain {
                    name: bundle.trust_domain().to_string(),
                    trust_bundle: inline(bundle.to_pem().into_bytes()),
                };
                let trust_domains: Vec<_> = with_cas.map(domain).collect();
                if trust_domains.is_empty() {
                    return false;
                }
                let config = SpiffeCertValidatorConfig { trust_domains };
                CertificateValidationContext {
                    custom_validator_config: Some(TypedExtensionConfig {
                        name: VALIDATOR.to_owned(),
                        typed_config: Some(Any {
                            type_url: VALIDATOR_CONFIG.to_owned(),
                            value: config.encode_to_vec(),
                        }),
                    }),
                    trusted_ca: None,
                }
            }
            false => {
                let pem: String = with_cas.map(|bundle| bundle.to_pem()).collect();
                if pem.is_empty() {
                    return false;
                }
                CertificateValidationContext {
                    trusted_ca: inline(pem.into_bytes()),
                    custom_validator_config: None,
                }
            }
        };
        let version = version(&context.encode_to_vec());
        self.add(name, version, Type::ValidationContext(context))
    }

    fn add(&mut self, name: &str, version: String, r#type: Type) -> bool {
        if name.is_empty() || self.named.contains_key(name) {
            return false;
        }
        let mut secret = Secret {
            name: name.to_owned(),
            r#type: Some(r#type),
        };
        let any = any(&secret);
        if let Some(Type::TlsCertificate(certificate)) = &mut secret.r#type
            && let Some(DataSource {
                specifier: Some(Specifier::InlineBytes(key)),
            }) = &mut certificate.private_key
        {
            key.zeroize();
        }
        self.named.insert(name.to_owned(), Encoded { version, any });
        true
    }
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(bytes)),
    })
}

/// The secret as an `Any`, encoded without a copy in between.
fn any(secret: &Secret) -> Bytes {
    let head = Any {
        type_url: SECRET.to_owned(),
        value: Vec::new(),
    };
    let length = secret.encoded_len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(head.encoded_len() + 11 + length));
    head.encode_raw(&mut *bytes);
    // `value`: field 2, bytes.
    bytes.put_u8(0x12);
    encode_varint(length as u64, &mut *bytes);
    secret.encode_raw(&mut *bytes);
    Bytes::from_owner(bytes)
}

/// A digest, as Envoy is shown it.
pub(super) fn version(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    hex::encode(&digest.as_ref()[..16])
}
