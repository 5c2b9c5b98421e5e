//! Looking up names, so that a resolver that does not answer for one service costs the others nothing.
//!
//! `getaddrinfo` blocks a thread of a pool that all services share (tokio's, 512 threads), and whoever gives up
//! waiting for it does not free that thread. So a service has at most [`AT_ONCE`] look-ups under way, counted until
//! they *return*, and connections that want the same name share one. Nothing is kept after it has
//! been handed out: how long a name holds is the resolver's to know.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_blocking,
    time::Instant,
};

/// Look-ups of one service under way at one time.
const AT_ONCE: usize = 4;

/// A look-up older than this is joined only if no other may be begun: it may have met a resolver that has come
/// back since.
const JOINED_FOR: Duration = Duration::from_secs(1);

type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The look-ups of one service.
pub(crate) struct Resolver {
    look_up: Arc<LookUp>,
    permits: Arc<Semaphore>,
    latest: Mutex<Option<UnderWay>>,
}

/// A look-up that has not returned, as far as is known.
struct UnderWay {
    host: String,
    port: u16,
    begun: Instant,
    found: watch::Receiver<Option<Found>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::with(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl Resolver {
    fn with(
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            look_up: Arc::new(look_up),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            latest: Mutex::new(None),
        }
    }

    /// The addresses of a name, in the resolver's order. Not for IP addresses.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
        let mut found = loop {
            if let Some(found) = self.join_or_begin(host, port) {
                break found;
            }
            // All are under way for other names: until one returns.
            if self.permits.acquire().await.is_err() {
                return Err(io::Error::other("look-ups have ended"));
            }
        };
        let found = match found.wait_for(Option::is_some).await {
            Ok(found) => (*found).clone(),
            // Its thread panicked, or the runtime stops.
            Err(_) => None,
        };
        match found {
            Some(Ok(addrs)) => Ok(addrs),
            Some(Err(error)) => Err(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
            None => Err(io::Error::other("the look-up did not return")),
        }
    }

    /// Where the outcome will be found; `None` if nothing under way is for this name and nothing more may begin.
    fn join_or_begin(&self, host: &str, port: u16) -> Option<watch::Receiver<Option<Found>>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose sender is gone has returned: its outcome is for those who waited.
        let same = latest.as_ref().filter(|under_way| {
            under_way.host == host
                && under_way.port == port
                && under_way.found.has_changed().is_ok()
                && under_way.found.borrow().is_none()
        });
        if let Some(under_way) = same
            && under_way.begun.elapsed() < JOINED_FOR
        {
            return Some(under_way.found.clone());
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return same.map(|under_way| under_way.found.clone());
        };
        let found = self.begin(host.to_owned(), port, permit);
        *latest = Some(UnderWay {
            host: host.to_owned(),
            port,
            begun: Instant::now(),
            found: found.clone(),
        });
        Some(found)
    }

    fn begin(
        &self,
        host: String,
        port: u16,
        permit: OwnedSemaphorePermit,
    ) -> watch::Receiver<Option<Found>> {
        let (sender, found) = watch::channel(None);
        let look_up = Arc::clone(&self.look_up);
        // Nobody awaits the task: who waits may give up, the thread is busy until the call returns.
        drop(spawn_blocking(move || {
            let outcome = look_up(&host, port).map(Arc::from).map_err(Arc::new);
            drop(permit);
            sender.send_replace(Some(outcome));
        }));
        found
    }
}

#[cfg(test)]
mod tests;
