//! The issuer's own X509-SVID, `spiffe://<td>/issuer`: made at start, renewed at
//! half of its life, recorded like every other.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use identity::{IdentitySource, SpiffeId, TrustBundleSet, X509Svid};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

use super::drained;
use crate::{
    audit::{Event, EventName},
    authority::{Keyring, LeafTemplate, SignError, SubjectKey},
    resources::DnsName,
    service::Issuer,
    store::{StoreError, audit},
};

/// Life of the issuer's own SVID.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// When to try again after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// What the issuer is called by callers that check names, as HTTP clients do. (Agents
/// check the SPIFFE ID.)
#[derive(Debug, Clone, Default)]
pub struct Names {
    dns: Vec<DnsName>,
    ip: Vec<IpAddr>,
}

impl Names {
    /// The host of the public address, what the listener is bound to, and this host's
    /// own name for itself.
    pub fn of(public_address: Option<&str>, listen: IpAddr) -> Self {
        let mut names = Self::default();
        let host = public_address
            .and_then(|address| address.rsplit_once(':'))
            .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']'));
        for host in host.into_iter().chain(["localhost"]) {
            names.add(host);
        }
        match listen.is_unspecified() {
            true => names.add_ip(Ipv4Addr::LOCALHOST.into()),
            false => names.add_ip(listen),
        }
        names
    }

    fn add(&mut self, host: &str) {
        if let Ok(address) = host.parse() {
            self.add_ip(address);
        } else if let Ok(name) = DnsName::parse(host)
            && !self.dns.contains(&name)
        {
            self.dns.push(name);
        }
    }

    fn add_ip(&mut self, address: IpAddr) {
        if !self.ip.contains(&address) {
            self.ip.push(address);
        }
    }
}

/// The source that the listener's TLS follows, with a first SVID in it.
pub async fn start(
    issuer: Arc<Issuer>,
    names: Names,
    mut draining: watch::Receiver<bool>,
) -> anyhow::Result<Arc<IdentitySource>> {
    // Subscribed before the first look, so that no change falls between.
    let mut keyrings = issuer.keyrings();
    let mut keyring = keyrings.borrow_and_update().clone();
    let svid = make(&issuer, &names, &keyring, SystemTime::now()).await?;
    let mut next = half_life(&svid);
    let source = IdentitySource::with(svid, bundles(&keyring));
    let renewed = source.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                changed = keyrings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = keyrings.borrow_and_update().clone();
                    // A CA that is only published, or other keys, leave the chain as it is.
                    let same = now.pin() == keyring.pin() && now.has_own_chain_of(&keyring);
                    keyring = now;
                    // Who is trusted waits for nothing: a CA may have been withdrawn.
                    renewed.set_bundles(bundles(&keyring));
                    if same {
                        continue;
                    }
                }
                () = drained(&mut draining) => return,
            }
            next = match make(&issuer, &names, &keyring, SystemTime::now()).await {
                Ok(svid) => {
                    let next = half_life(&svid);
                    renewed.set(Arc::new(svid), bundles(&keyring));
                    next
                }
                Err(error) => {
                    tracing::error!(%error, "the issuer's own identity could not be renewed");
                    RETRY
                }
            };
        }
    });
    Ok(source)
}

fn half_life(svid: &X509Svid) -> Duration {
    let left = svid.not_after().duration_since(SystemTime::now());
    (left.unwrap_or_default() / 2).max(RETRY)
}

fn bundles(keyring: &Keyring) -> TrustBundleSet {
    TrustBundleSet::new([keyring.bundle().as_ref().clone()])
}

async fn make(
    issuer: &Issuer,
    names: &Names,
    keyring: &Keyring,
    now: SystemTime,
) -> anyhow::Result<X509Svid> {
    let id = SpiffeId::new(issuer.trust_domain(), "/issuer")?;
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| SignError)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| SignError)?;
    let key = SubjectKey::from_own_key(public.as_ref());
    let validity = keyring.validity(now, TTL)?;
    let leaf = keyring.sign_leaf(&LeafTemplate {
        dns_sans: &names.dns,
        ip_sans: &names.ip,
        ..LeafTemplate::new(&id, &key, validity)
    })?;
    let event = Event::success(EventName::SvidIssued)
        .with("spiffe_id", id.as_str())
        .with("svid_type", "x509")
        .with("serial_number", leaf.serial.to_string())
        .with_time("not_before", leaf.validity.not_before)
        .with_time("not_after", leaf.validity.not_after)
        .with("public_key_sha256", hex::encode(key.sha256()))
        .with("user", "issuer");
    issuer
        .store
        .write::<_, StoreError, _>(move |tx| {
            let event = event.clone();
            Box::pin(async move { audit::append(tx, &event, now).await })
        })
        .await?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| SignError)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()));
    let chain = std::iter::once(leaf.certificate).chain(keyring.own_chain().iter().cloned());
    Ok(X509Svid::new(chain.collect(), private)?)
}
