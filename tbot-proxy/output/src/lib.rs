//! Identity documents as files, Kubernetes Secrets and credentials, changed
//! together or not at all (DESIGN D13).
//!
//! [`file_set`] keeps a directory whose files change at once.

pub mod file_set;

pub use file_set::{FileSet, FileSetError, Links, Options, SetFile};
