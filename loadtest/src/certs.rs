//! Certificates for a comparison: an authority and leaves that conform to SPIFFE's X509-SVID
//! (sections 2 to 4), all ECDSA P-256, valid for a week.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

/// Identities made: `NAME.pem`, `NAME.key`, with the id `spiffe://TRUST_DOMAIN/NAME`.
pub const LEAVES: [&str; 3] = ["server", "client", "intruder"];

const BACKDATE: Duration = Duration::from_secs(60);
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Writes `ca.pem` and the [`LEAVES`] into `dir`, which is made if need be. Keys get mode 0600; the
/// authority's key is not kept.
pub fn write(dir: &Path, trust_domain: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let ca_key = KeyPair::generate().context("cannot make a key")?;
    let ca_params = authority(trust_domain)?;
    let ca = ca_params
        .self_signed(&ca_key)
        .context("cannot sign the authority")?;
    write_file(&dir.join("ca.pem"), ca.pem().as_bytes(), 0o644)?;
    let issuer = Issuer::new(ca_params, ca_key);
    for name in LEAVES {
        let key = KeyPair::generate().context("cannot make a key")?;
        let params = leaf(trust_domain, name)?;
        let cert = params
            .signed_by(&key, &issuer)
            .with_context(|| format!("cannot sign {name}"))?;
        write_file(
            &dir.join(format!("{name}.pem")),
            cert.pem().as_bytes(),
            0o644,
        )?;
        write_file(
            &dir.join(format!("{name}.key")),
            key.serialize_pem().as_bytes(),
            0o600,
        )?;
    }
    Ok(())
}

fn authority(trust_domain: &str) -> anyhow::Result<CertificateParams> {
    let mut params = common(
        &format!("spiffe://{trust_domain}"),
        "authority of a load test",
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(trust_domain: &str, name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = common(&format!("spiffe://{trust_domain}/{name}"), name)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn common(id: &str, common_name: &str) -> anyhow::Result<CertificateParams> {
    let now = OffsetDateTime::from(SystemTime::now());
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFETIME;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let uri = id.try_into().with_context(|| format!("`{id}` is no URI"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(params)
}

pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}
