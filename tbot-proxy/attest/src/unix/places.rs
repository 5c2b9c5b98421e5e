//! Places for work that may block: so many at one time, and of them few for one user, so
//! that one with many processes does not keep the others waiting. They wait in line:
//! each user in a line of his own, and the first of each line for a place.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_user: usize,
    /// Users with a place or in line for one.
    users: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_user: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(all: usize, per_user: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_user,
            users: Mutex::default(),
        }
    }

    /// A place for work on a process of this user, as soon as there is one.
    pub(super) async fn take(&self, uid: u32) -> Result<Place, AcquireError> {
        let of_user = self.of(uid).acquire_owned().await?;
        let of_all = Arc::clone(&self.all).acquire_owned().await?;
        Ok(Place {
            _of_all: of_all,
            _of_user: of_user,
        })
    }

    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = users.get(&uid).and_then(Weak::upgrade) {
            return places;
        }
        users.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.per_user));
        users.insert(uid, Arc::downgrade(&places));
        places
    }
}
