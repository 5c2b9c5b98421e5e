//! The addresses of issuers that share a store: the one in use, and the others in its place.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;

use super::{CONNECT_TIMEOUT, LinkError};
use crate::configuration::HostPort;

/// At least one address. Any of them will do; whoever answers is kept until it fails.
#[derive(Debug)]
pub(crate) struct Addresses {
    all: Vec<HostPort>,
    /// Place of the one in use; counts on beyond the last.
    current: AtomicUsize,
}

impl Addresses {
    pub(crate) fn new(all: Vec<HostPort>) -> Self {
        Self {
            all,
            current: AtomicUsize::new(0),
        }
    }

    /// Whether there is another one to turn to.
    pub(crate) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The place of the one in use.
    pub(crate) fn place(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// The one in use.
    pub(crate) fn current(&self) -> &HostPort {
        &self.all[self.place() % self.all.len()]
    }

    /// Turns to the next one, unless another call has already turned away from this place.
    pub(crate) fn leave(&self, place: usize) {
        let next = place.wrapping_add(1);
        let _ = self
            .current
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes a connection to the one in use, else to the next one, and so on: each has its
    /// share of [`CONNECT_TIMEOUT`]. If none can be used: what is wrong with the last.
    pub(crate) async fn connect<T, F>(
        &self,
        attempt: impl Fn(HostPort) -> F,
    ) -> Result<T, LinkError>
    where
        F: Future<Output = Result<T, LinkError>>,
    {
        let share = CONNECT_TIMEOUT / u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let mut tried = 1;
        loop {
            let (place, address) = (self.place(), self.current());
            let error = match timeout(share, attempt(address.clone())).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => LinkError::late(address, share),
            };
            self.leave(place);
            if tried == self.all.len() {
                return Err(error);
            }
            tried += 1;
            tracing::warn!(%error, next = %self.current(), "the next issuer is tried");
        }
    }
}

#[cfg(test)]
mod tests;
