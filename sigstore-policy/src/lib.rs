//! What must be signed for a container image, by whom; and whether it is.
//!
//! A [`Policy`] names an authority (a public key, or identities that a trusted root vouches
//! for) and what it must have signed: the image itself, or attestations about it. It is asked
//! with the digest of an image and with the [`Payload`]s that stand beside the image in its
//! registry. No I/O, and no clock but the one that rejects signatures from the future.
//!
//! Everything fails closed. A payload counts only if it is understood completely, names the
//! very digest, and is signed by the authority; one that does not count is as if it were not
//! there, and takes nothing away from those that do. The cryptography (certificate chains at
//! the time of signing, certificate and transparency logs, RFC 3161 timestamps, and that the
//! log's entry is about this very signature) is that of `sigstore-verify`, the Sigstore
//! project's own; who may sign, and what for, is decided here.

mod claim;
mod digest;
mod keyless;
mod payload;
mod policy;
mod public_key;

pub use self::{
    digest::{DigestError, ImageDigest},
    payload::{MAX_BYTES, MAX_PAYLOADS, Payload, PayloadError},
    policy::{
        Authority, IdentitySource, MatcherSource, Mistake, Part, Policy, PolicySource,
        Requirements, Unsatisfied,
    },
};
