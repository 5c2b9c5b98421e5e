//! SPIFFE identities: ids, X509-SVIDs, trust bundles, verification, and rustls
//! configurations that follow a watched source. No I/O; no clock but the one
//! that is handed in (rustls asks for the time once a handshake).

pub mod bundle;
mod certificate;
pub mod id;
pub mod source;
pub mod svid;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod verify;

pub use bundle::{BundleError, TrustBundle, TrustBundleSet};
pub use id::{IdError, SpiffeId, TrustDomain};
pub use source::{Identity, IdentitySource};
pub use svid::{Leaf, Serial, SvidError, X509Svid};
pub use tls::{
    CaPin, ClientOptions, ClientTls, PinError, ServerOptions, ServerTls, TlsError,
    pinned_client_config,
};
pub use verify::{ChainVerifier, PeerIdentity, VerifyError};
