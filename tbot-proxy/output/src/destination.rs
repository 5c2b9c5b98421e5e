//! Where artifacts go.
//!
//! Whatever a destination is, readers see a whole set or the one before. A failure leaves
//! what is there; the next write tries again from the beginning.

use std::{sync::Arc, time::SystemTime};

use crate::{Artifacts, artifact::Dated};

mod credentials_file;
mod directory;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod memory;
mod principal;

pub use credentials_file::CredentialsFile;
pub use directory::{Directory, DirectoryConfig};
pub use memory::{Memory, MemoryOutputs};
pub use principal::{Principal, ReaderName};

/// A place that artifacts are written to.
#[derive(Debug)]
pub enum Destination {
    /// A directory whose files change together.
    Directory(Directory),
    /// One file of a tool that keeps several profiles in it.
    CredentialsFile(CredentialsFile),
    /// This process.
    Memory(Memory),
    /// A Secret of Kubernetes.
    #[cfg(feature = "kubernetes")]
    KubernetesSecret(Box<kubernetes::KubernetesSecret>),
}

/// What came of a write that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The set is in force.
    InForce,
    /// A newer one of somebody else is in force, and stays: who says so, for people.
    NewerIsThere(String),
}

impl Destination {
    /// Puts a set in force in place of the one before.
    ///
    /// # Errors
    ///
    /// What was tried, with what, and how it failed. The set before is in force still.
    pub async fn write(&mut self, artifacts: Arc<Artifacts>) -> Result<Written, DestinationError> {
        match self {
            Self::Directory(directory) => directory.write(artifacts).await,
            Self::CredentialsFile(file) => file.write(artifacts).await,
            Self::Memory(memory) => {
                memory.write(artifacts);
                Ok(Written::InForce)
            }
            #[cfg(feature = "kubernetes")]
            Self::KubernetesSecret(secret) => secret.write(&artifacts).await,
        }
    }

    /// Until when the set is good that is there, whoever of ours wrote it, by the first of
    /// these documents that says so; `None`: there is none, or it does not say.
    ///
    /// # Errors
    ///
    /// What there is cannot be read.
    pub async fn expiry(
        &mut self,
        documents: Vec<Dated>,
    ) -> Result<Option<SystemTime>, DestinationError> {
        match self {
            Self::Directory(directory) => directory.expiry(documents).await,
            Self::CredentialsFile(file) => file.expiry(documents).await,
            // Nothing in it is older than this process.
            Self::Memory(_) => Ok(None),
            #[cfg(feature = "kubernetes")]
            Self::KubernetesSecret(secret) => secret.expiry(&documents).await,
        }
    }

    /// Removes what was written, all of it.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write); something may be left.
    pub async fn remove(&mut self) -> Result<(), DestinationError> {
        match self {
            Self::Directory(directory) => directory.remove().await,
            Self::CredentialsFile(file) => file.remove().await,
            Self::Memory(memory) => {
                memory.remove();
                Ok(())
            }
            #[cfg(feature = "kubernetes")]
            Self::KubernetesSecret(secret) => secret.remove().await,
        }
    }

    /// When somebody else may have changed it, so that a look now and then is due; `None`:
    /// only we can.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Directory(_) | Self::CredentialsFile(_) | Self::Memory(_) => false,
            #[cfg(feature = "kubernetes")]
            Self::KubernetesSecret(_) => true,
        }
    }
}

/// Why nothing was written. A line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DestinationError {
    message: String,
    is_away: bool,
}

impl DestinationError {
    fn new(message: String) -> Self {
        Self {
            message,
            is_away: false,
        }
    }

    /// Whether nobody answered: what was written before is there still, as far as is known.
    pub fn is_away(&self) -> bool {
        self.is_away
    }
}

impl From<crate::FileSetError> for DestinationError {
    fn from(error: crate::FileSetError) -> Self {
        Self::new(error.to_string())
    }
}

/// Runs what blocks on the disk, off the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DestinationError> + Send + 'static,
) -> Result<T, DestinationError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(DestinationError::new(format!(
            "a defect of tbot-proxy: {error}"
        )))
    })
}
