//! Identity documents as files, Kubernetes Secrets and credentials, changed
//! together or not at all (DESIGN D13).
//!
//! [`artifact`] makes named files from documents, [`aws`] credentials from an SVID; a
//! [`Destination`] puts them where readers find them, and a [`hook`] tells who has to know.
//! [`file_set`] keeps a directory whose files change at once.

pub mod artifact;
pub mod aws;
pub mod destination;
pub mod file_set;
pub mod hook;

pub use artifact::{Artifact, Artifacts};
pub use destination::{Destination, DestinationError, Written};
pub use file_set::{FileSet, FileSetError, Links, Options, SetFile};
