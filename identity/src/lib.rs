//! SPIFFE identities: ids, X509-, JWT- and WIT-SVIDs, trust bundles, verification, and rustls
//! configurations that follow a watched source. No I/O; no clock but the one
//! that is handed in (rustls asks for the time once a handshake).

pub mod bundle;
mod certificate;
pub mod id;
pub mod jose;
pub mod jwt_svid;
pub mod source;
pub mod svid;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
mod unique_json;
pub mod verify;
pub mod wit_svid;

pub use bundle::{BundleError, KeyAuthority, TrustBundle, TrustBundleSet};
pub use certificate::certificates_pem;
pub use id::{IdError, SpiffeId, TrustDomain};
pub use jose::{Algorithm, ClaimsError, Jwk, TokenError};
pub use jwt_svid::{JwtClaims, JwtSvid, Leeway};
pub use source::{Identity, IdentitySource};
pub use svid::{Leaf, Serial, SvidError, X509Svid};
pub use tls::{
    CaPin, ClientOptions, ClientTls, PinError, ServerOptions, ServerTls, TlsError,
    pinned_client_config,
};
pub use verify::{ChainVerifier, PeerIdentity, VerifyError};
pub use wit_svid::{UnprovenWit, WitClaims, WitSvid};
