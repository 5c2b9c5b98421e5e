//! What a server asks: who calls, and what that one may have.
//!
//! A backend attests. It does so when a call begins and again whenever it has
//! something new to say, so that what a stream carries was decided for the process
//! as it is now. Every item of a stream is complete state (WA-04), and the first one
//! comes as soon as it is known (WA-05). A stream of a backend never ends by itself
//! except after an error, which is its last item.
//!
//! What callers share is to be one object (`Arc`): by that it is encoded once for all of
//! their streams. Equal objects are encoded one by one.

use std::{future::Future, io, sync::Arc, time::SystemTime};

use futures_util::{future::BoxFuture, stream::BoxStream};
use identity::{SpiffeId, TrustBundleSet, TrustDomain, X509Svid};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

/// A source of identities for local callers.
pub trait Backend: Send + Sync + 'static {
    /// One that has connected. Lives for as long as its connection.
    type Caller: Send + Sync + 'static;

    /// Who has just connected. Called once a connection, before anything is read from
    /// it. An error closes the connection.
    fn accepted_unix(&self, stream: &UnixStream) -> io::Result<Self::Caller>;

    /// As [`accepted_unix`](Self::accepted_unix); over TCP nobody is known.
    fn accepted_tcp(&self, stream: &TcpStream) -> io::Result<Self::Caller>;

    /// Whom the connections of this user (uid) count for, where those of one are bounded.
    fn counts_for(&self, uid: u32) -> u32 {
        uid
    }

    /// Resolves when the caller's process has ended; never if it has none.
    fn ended(&self, caller: &Arc<Self::Caller>) -> BoxFuture<'static, ()>;

    /// The X509-SVIDs of the caller and the trust bundles that go with them, now and
    /// after each change.
    fn x509(
        &self,
        caller: &Arc<Self::Caller>,
    ) -> BoxStream<'static, Result<Arc<X509Context>, Denied>>;

    /// The trust bundles that the caller may have, now and after each change.
    fn bundles(
        &self,
        caller: &Arc<Self::Caller>,
    ) -> BoxStream<'static, Result<Arc<BundleContext>, Denied>>;

    /// JWT-SVIDs for every one of `audiences` (at least one), of all identities of the caller or
    /// of `id` only, in the order of [`x509`](Self::x509). At least one, or [`Denied`].
    fn jwt(
        &self,
        caller: &Arc<Self::Caller>,
        audiences: &[String],
        id: Option<&SpiffeId>,
    ) -> impl Future<Output = Result<Vec<IssuedJwt>, Denied>> + Send;

    /// WIT-SVIDs of all identities of the caller, or of `id` only, now and after each
    /// change. Asked only where the WIT profile is switched on.
    fn wit(
        &self,
        caller: &Arc<Self::Caller>,
        id: Option<&SpiffeId>,
    ) -> BoxStream<'static, Result<Arc<WitContext>, Denied>>;

    /// Every trust bundle that is known, to validate JWT-SVIDs with. Works offline.
    fn trust(&self) -> Arc<TrustBundleSet>;
}

/// What a caller holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct X509Context {
    /// At least one; the first is the default (WA-31). The order is stable.
    pub svids: Vec<HeldX509>,
    /// Of the own trust domain, and of those that the identities federate with. The same
    /// object for as long as they are the same.
    pub bundles: Arc<BundleContext>,
}

/// One X509-SVID of a caller.
#[derive(Debug, Clone)]
pub struct HeldX509 {
    /// The SVID and its key.
    pub svid: Arc<X509Svid>,
    /// `hint` for the workload; may be empty. Not yet made unique (WA-17).
    pub hint: String,
}

impl PartialEq for HeldX509 {
    /// Whether they are the same document, by serial number.
    fn eq(&self, other: &Self) -> bool {
        self.svid.id() == other.svid.id()
            && self.svid.serial() == other.svid.serial()
            && self.hint == other.hint
    }
}

/// The trust bundles of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleContext {
    /// The caller's own trust domain.
    pub own: TrustDomain,
    /// Own and federated. Each vouches for its trust domain only (FE-07).
    pub bundles: Arc<TrustBundleSet>,
}

/// A JWT-SVID for a caller. A bearer secret.
#[derive(Clone)]
pub struct IssuedJwt {
    /// Whose it is.
    pub id: SpiffeId,
    /// JWS compact serialization (JW-01).
    pub token: String,
    /// See [`HeldX509::hint`].
    pub hint: String,
    /// Its `exp`.
    pub not_after: SystemTime,
}

impl std::fmt::Debug for IssuedJwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedJwt")
            .field("id", &self.id)
            .field("token", &"[redacted]")
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// What a caller holds of WIT-SVIDs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitContext {
    /// At least one, in the order of [`X509Context::svids`].
    pub svids: Vec<IssuedWit>,
    /// See [`BundleContext`].
    pub bundles: Arc<BundleContext>,
}

/// A WIT-SVID of a caller, with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedWit {
    /// Whose it is.
    pub id: SpiffeId,
    /// JWS compact serialization.
    pub token: String,
    /// PKCS#8 DER of the key that `cnf` names.
    pub key_pkcs8: Arc<Zeroizing<Vec<u8>>>,
    /// See [`HeldX509::hint`].
    pub hint: String,
    /// Its `exp`.
    pub not_after: SystemTime,
}

impl std::fmt::Debug for IssuedWit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedWit")
            .field("id", &self.id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// Why a caller gets nothing. The message is for the caller's eyes too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It has no identity, or has lost it: `PERMISSION_DENIED` (WE-14, WA-18).
    #[error("{0}")]
    NoIdentity(String),
    /// Not known yet: the agent has not joined, or the issuer is away: `UNAVAILABLE`
    /// (WE-13).
    #[error("{0}")]
    Unavailable(String),
}
