//! How many connections there may be: in all, and of one user, so that a workload gone
//! wild leaves room for those of others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{listener::Stream, meters};

/// The places of a server.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_a_user: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By uid.
    users: HashMap<u32, usize>,
}

impl Places {
    pub(crate) fn new(most: usize, most_of_a_user: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_a_user,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection, if there is one. Over TCP nobody is known.
    pub(crate) fn take(self: &Arc<Self>, stream: &Stream) -> Option<Place> {
        let user = match stream {
            Stream::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
            Stream::Tcp(_) => None,
        };
        self.take_of(user)
    }

    fn take_of(self: &Arc<Self>, user: Option<u32>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.all >= self.most {
            meters::refused("too_many");
            return None;
        }
        if let Some(user) = user {
            let of_user = taken.users.entry(user).or_default();
            if *of_user >= self.most_of_a_user {
                meters::refused("too_many_of_user");
                return None;
            }
            *of_user += 1;
        }
        taken.all += 1;
        Some(Place {
            places: self.clone(),
            user,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    user: Option<u32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(user) = self.user
            && let Some(of_user) = taken.users.get_mut(&user)
        {
            *of_user -= 1;
            if *of_user == 0 {
                taken.users.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests;
