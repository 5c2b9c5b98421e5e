//! The keys of a trust domain, of all uses, as they are at one moment.
//!
//! What it promises:
//! - for each use one key signs; the trust bundle holds that key, its successor before
//!   it signs anything (FE-01), and its predecessor until nothing that it signed is
//!   valid (FE-02);
//! - a keyring never changes: a rotation makes another one, and whoever holds this one
//!   finishes with what it saw.

use std::{
    borrow::Borrow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{BundleError, JwtClaims, SpiffeId, TrustBundle, TrustDomain, WitClaims, jose};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value};

use super::{
    Authority, AuthorityError, KeyState, KeyUse, Leaf, LeafTemplate, Lifecycle, StoredAuthority,
    TokenKey, Validity,
    keyfile::{KeyFileError, SealingKey},
    signer::timed,
};
use crate::resources::JwtAlgorithm;

/// Most retired CAs for which the issuer's own chain has cross-certificates.
const CROSS_MAX: usize = 4;

/// A signed token.
#[derive(Clone)]
pub struct SignedToken {
    /// The compact serialization.
    pub token: String,
    /// `kid`.
    pub key_id: String,
}

impl fmt::Debug for SignedToken {
    // A JWT is a bearer credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedToken")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// The keys of a trust domain.
pub struct Keyring {
    x509: Arc<Authority>,
    own_chain: Vec<CertificateDer<'static>>,
    jwt_es256: Arc<TokenKey>,
    jwt_rs256: Arc<TokenKey>,
    wit: Option<Arc<TokenKey>>,
    audit: Arc<TokenKey>,
    bundle: Arc<TrustBundle>,
    keys: Vec<KeyFacts>,
}

/// A key, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// See [`StoredAuthority::key_id`].
    pub key_id: String,
    /// What it signs.
    pub key_use: KeyUse,
    /// Where it stands.
    pub state: KeyState,
    /// `sha256:<hex>` for agents to pin; of a CA.
    pub ca_pin: Option<String>,
    /// When it was made.
    pub created: SystemTime,
    /// When it began to sign.
    pub activated: Option<SystemTime>,
    /// When it ceased to sign.
    pub retired: Option<SystemTime>,
    /// Nothing that it signed is valid after this.
    pub not_after: SystemTime,
    /// When its next step is due; see [`Lifecycle::next_of`].
    pub next: Option<SystemTime>,
}

/// What is gathered while the stored keys are read.
#[derive(Default)]
struct Gathered {
    authorities: Vec<(KeyState, SystemTime, Arc<Authority>)>,
    tokens: Vec<(KeyUse, KeyState, SystemTime, Arc<TokenKey>)>,
    keys: Vec<KeyFacts>,
}

impl Keyring {
    /// Opens the stored keys; the bundle has this `spiffe_sequence` (TB-03). Of several that are active for one use (two issuers could
    /// not agree, or a store of old) the newest signs.
    pub fn open(
        trust_domain: &TrustDomain,
        stored: &[impl Borrow<StoredAuthority>],
        sealing: &SealingKey,
        lifecycle: Lifecycle,
        sequence: u64,
    ) -> Result<Self, KeyringError> {
        let mut gathered = Gathered::default();
        for row in stored {
            gathered.take(trust_domain, row.borrow(), sealing, lifecycle)?;
        }
        gathered.into_keyring(trust_domain, lifecycle.refresh_hint(), sequence)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.x509.trust_domain()
    }

    /// What agents and workloads are to trust.
    pub fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// The CA that signs.
    pub fn x509(&self) -> &Arc<Authority> {
        &self.x509
    }

    /// Its pin; see [`Authority::pin`].
    pub fn pin(&self) -> String {
        self.x509.pin()
    }

    /// The key that signs checkpoints of the audit trail. Its public key, and those of
    /// the audit keys before it, are in the store's authorities, as JWKs.
    pub fn audit(&self) -> &Arc<TokenKey> {
        &self.audit
    }

    /// Whether WIT-SVIDs can be signed.
    pub fn has_wit(&self) -> bool {
        self.wit.is_some()
    }

    /// Every key, ordered by use, then by age, the oldest first.
    pub fn keys(&self) -> &[KeyFacts] {
        &self.keys
    }

    /// What the operator is to know when a key that signs is in the last sixth of its
    /// life: it should have been rotated.
    pub fn end_is_near(&self, now: SystemTime) -> Option<String> {
        let late = self.keys.iter().find(|key| {
            let life = key.not_after.duration_since(key.created);
            key.state == KeyState::Active && now >= key.not_after - life.unwrap_or_default() / 6
        })?;
        Some(format!(
            "the {} key {} ends at {} and is not rotated yet: the log says what keeps the issuer from it",
            late.key_use,
            late.key_id,
            super::rfc3339(late.not_after)
        ))
    }

    /// What stands behind the leaf of the issuer's own SVID. Just after a rotation there
    /// are agents that know only the CA before: for them it holds the CA's key certified
    /// by each retired CA, and those CAs' own certificates for agents that pin them.
    pub fn own_chain(&self) -> &[CertificateDer<'static>] {
        &self.own_chain
    }

    /// Whether [`Self::own_chain`] stands for the same retired CAs as that of another
    /// keyring. (The cross-certificates in it are made anew with each keyring.)
    pub fn has_own_chain_of(&self, other: &Self) -> bool {
        let roots = |chain: &[CertificateDer<'static>]| {
            chain.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>()
        };
        roots(&self.own_chain) == roots(&other.own_chain)
    }

    /// See [`Authority::validity`].
    pub fn validity(&self, now: SystemTime, ttl: Duration) -> Result<Validity, AuthorityError> {
        self.x509.validity(now, ttl)
    }

    /// See [`Authority::sign_leaf`].
    pub fn sign_leaf(&self, template: &LeafTemplate<'_>) -> Result<Leaf, AuthorityError> {
        self.x509.sign_leaf(template)
    }

    /// The validity of a JWT-SVID that is asked for `now` with a life of `ttl`: not
    /// backdated, cut at the end of the key's own.
    pub fn jwt_validity(
        &self,
        algorithm: JwtAlgorithm,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Validity, AuthorityError> {
        token_validity(self.jwt_key(algorithm), now, ttl)
    }

    /// As [`Keyring::jwt_validity`], for WIT-SVIDs.
    pub fn wit_validity(&self, now: SystemTime, ttl: Duration) -> Result<Validity, AuthorityError> {
        token_validity(self.wit_key()?, now, ttl)
    }

    /// Signs a JWT-SVID. Errors: `sub` is not of this trust domain, or `exp` is behind
    /// the end of the key.
    pub fn sign_jwt(
        &self,
        algorithm: JwtAlgorithm,
        claims: &JwtClaims,
    ) -> Result<SignedToken, AuthorityError> {
        let key = self.jwt_key(algorithm);
        timed("jwt", || {
            self.sign_token(key, identity::jwt_svid::TYPE, claims.claims())
        })
    }

    /// Signs a WIT-SVID. Errors as of [`Keyring::sign_jwt`], and that WIT-SVIDs are
    /// switched off.
    pub fn sign_wit(&self, claims: &WitClaims) -> Result<SignedToken, AuthorityError> {
        let key = self.wit_key()?;
        timed("wit", || {
            self.sign_token(key, identity::wit_svid::TYPE, claims.claims())
        })
    }

    fn jwt_key(&self, algorithm: JwtAlgorithm) -> &TokenKey {
        match algorithm {
            JwtAlgorithm::Es256 => &self.jwt_es256,
            JwtAlgorithm::Rs256 => &self.jwt_rs256,
        }
    }

    fn wit_key(&self) -> Result<&TokenKey, AuthorityError> {
        self.wit.as_deref().ok_or(AuthorityError::WitOff)
    }

    fn sign_token(
        &self,
        key: &TokenKey,
        r#type: &'static str,
        claims: &Map<String, Value>,
    ) -> Result<SignedToken, AuthorityError> {
        let sub = claims
            .get("sub")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let id = SpiffeId::parse(sub)?;
        if id.trust_domain_name() != self.trust_domain().as_str() || id.is_trust_domain() {
            return Err(AuthorityError::NotALeafId(id));
        }
        let expires = claims
            .get("exp")
            .and_then(Value::as_u64)
            .unwrap_or(u64::MAX);
        if expires > super::unix_seconds(key.not_after()) {
            return Err(AuthorityError::Expired {
                not_after: key.not_after(),
            });
        }
        let header = jose::Header {
            algorithm: key.algorithm(),
            r#type,
            key_id: key.key_id(),
        };
        let token = jose::compact(header, claims, |message| key.sign(message))?;
        Ok(SignedToken {
            token,
            key_id: key.key_id().to_owned(),
        })
    }
}

fn token_validity(
    key: &TokenKey,
    now: SystemTime,
    ttl: Duration,
) -> Result<Validity, AuthorityError> {
    let now = super::whole_seconds(now);
    if now >= key.not_after() {
        return Err(AuthorityError::Expired {
            not_after: key.not_after(),
        });
    }
    Ok(Validity {
        not_before: now,
        not_after: (now + ttl).min(key.not_after()),
    })
}

impl Gathered {
    fn take(
        &mut self,
        trust_domain: &TrustDomain,
        row: &StoredAuthority,
        sealing: &SealingKey,
        lifecycle: Lifecycle,
    ) -> Result<(), KeyringError> {
        let mut ca_pin = None;
        if !row.sealed_key.is_empty() {
            let pkcs8 = sealing.open_sealed(trust_domain, &row.key_id, &row.sealed_key)?;
            if row.key_use == KeyUse::X509 {
                let certificate = CertificateDer::from(row.certificate.clone());
                let authority = Arc::new(Authority::load(trust_domain, certificate, &pkcs8)?);
                ca_pin = Some(authority.pin());
                self.authorities.push((row.state, row.created, authority));
            } else {
                let key = TokenKey::load(row.key_use, &pkcs8, row.not_after)?;
                if key.key_id() != row.key_id {
                    return Err(AuthorityError::KeyMismatch.into());
                }
                self.tokens
                    .push((row.key_use, row.state, row.created, Arc::new(key)));
            }
        }
        self.keys.push(KeyFacts {
            key_id: row.key_id.clone(),
            key_use: row.key_use,
            state: row.state,
            ca_pin,
            created: row.created,
            activated: row.activated,
            retired: row.retired,
            not_after: row.not_after,
            next: lifecycle.next_of(row),
        });
        Ok(())
    }

    fn into_keyring(
        mut self,
        trust_domain: &TrustDomain,
        refresh_hint: Duration,
        sequence: u64,
    ) -> Result<Keyring, KeyringError> {
        self.authorities.sort_by_key(|(_, created, _)| *created);
        self.tokens.sort_by_key(|(_, _, created, _)| *created);
        self.keys.sort_by_key(|key| (key.key_use, key.created));
        let x509 = self
            .authorities
            .iter()
            .rfind(|(state, ..)| *state == KeyState::Active)
            .map(|(.., authority)| authority.clone())
            .ok_or(KeyringError::NoKey(KeyUse::X509))?;
        let token = |key_use| {
            self.tokens
                .iter()
                .rfind(|(it, state, ..)| *it == key_use && *state == KeyState::Active)
                .map(|(.., key)| key.clone())
        };
        let needed = |key_use| token(key_use).ok_or(KeyringError::NoKey(key_use));
        let of = |uses: &[KeyUse]| {
            let keys = self.tokens.iter().filter(|(it, ..)| uses.contains(it));
            keys.map(|(.., key)| key.authority()).collect::<Vec<_>>()
        };
        let certificates = self
            .authorities
            .iter()
            .map(|(.., authority)| authority.certificate().clone())
            .collect();
        let bundle = TrustBundle::new(trust_domain.clone(), certificates)?
            .with_jwt_authorities(of(&[KeyUse::JwtEs256, KeyUse::JwtRs256]))
            .with_wit_authorities(of(&[KeyUse::Wit]))
            .with_sequence(sequence)
            .with_refresh_hint(refresh_hint);
        Ok(Keyring {
            own_chain: own_chain(&x509, &self.authorities)?,
            jwt_es256: needed(KeyUse::JwtEs256)?,
            jwt_rs256: needed(KeyUse::JwtRs256)?,
            wit: token(KeyUse::Wit),
            audit: needed(KeyUse::Audit)?,
            x509,
            bundle: Arc::new(bundle),
            keys: self.keys,
        })
    }
}

/// See [`Keyring::own_chain`].
fn own_chain(
    x509: &Authority,
    authorities: &[(KeyState, SystemTime, Arc<Authority>)],
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let retired = authorities
        .iter()
        .rev()
        .filter(|(state, ..)| *state == KeyState::Retired)
        .take(CROSS_MAX);
    let mut chain = Vec::new();
    for (.., old) in retired {
        chain.push(old.certify(x509)?);
        chain.push(old.certificate().clone());
    }
    Ok(chain)
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("x509", &self.x509)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// Why the stored keys make no keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// No key of this use signs.
    #[error(
        "the store has no active {0} key: restore the data directory and the key file from one backup"
    )]
    NoKey(KeyUse),
    /// The key file is not usable.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A key is not usable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The trust bundle cannot be made.
    #[error("the trust bundle cannot be made: {0}")]
    Bundle(#[from] BundleError),
}

#[cfg(test)]
mod tests;
