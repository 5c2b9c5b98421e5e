//! How many connections there may be, and how many streams on them: in all, and of one
//! peer, so that a workload gone wild leaves room for those of others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{backend::Backend, listener::Stream};

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// Over a Unix socket.
    User(u32),
    /// Over TCP: an address, or all of those that one host may choose from.
    Host(IpAddr),
}

impl Peer {
    /// Whom a connection counts for, as far as the kernel and the backend know.
    pub(crate) fn of<B: Backend>(stream: &Stream, backend: &B) -> Option<Self> {
        match stream {
            Stream::Unix(stream) => {
                let uid = stream.peer_cred().ok()?.uid();
                Some(Self::User(backend.counts_for(uid)))
            }
            Stream::Tcp(stream) => Some(Self::host(stream.peer_addr().ok()?.ip())),
        }
    }

    fn host(address: IpAddr) -> Self {
        const THIS_MACHINE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
        Self::Host(match address.to_canonical() {
            address if address.is_loopback() => THIS_MACHINE,
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address => address,
        })
    }
}

/// The places of a server, for connections or for streams.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_a_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    peers: HashMap<Peer, usize>,
}

impl Places {
    pub(crate) fn new(most: usize, most_of_a_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_a_peer,
            taken: Mutex::default(),
        })
    }

    /// A place, if there is one. Who is not known counts for all alone.
    pub(crate) fn take(self: &Arc<Self>, peer: Option<Peer>) -> Result<Place, Full> {
        let mut taken = self.lock();
        if taken.all >= self.most {
            return Err(Full::ForAll(self.most));
        }
        if let Some(peer) = peer {
            let of_peer = taken.peers.entry(peer).or_default();
            if *of_peer >= self.most_of_a_peer {
                return Err(Full::ForPeer(self.most_of_a_peer));
            }
            *of_peer += 1;
        }
        taken.all += 1;
        Ok(Place {
            places: self.clone(),
            peer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no place: so many are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// By all together.
    ForAll(usize),
    /// By this peer.
    ForPeer(usize),
}

impl Full {
    /// As metrics have it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ForAll(_) => "too_many",
            Self::ForPeer(_) => "too_many_of_user",
        }
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    peer: Option<Peer>,
}

impl Place {
    /// Whom it counts for.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(peer) = self.peer
            && let Some(of_peer) = taken.peers.get_mut(&peer)
        {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
