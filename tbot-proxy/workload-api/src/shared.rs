//! One encoding of a state for all streams that carry it.
//!
//! A backend gives the same `Arc` to all callers that hold the same; what was made of
//! it is found by its address. Nothing is kept alive here: an encoding lives as long as
//! a stream has it as its last message, and keys in it are wiped after that.
//!
//! Thousands of streams ask at once when a state changes, so finding takes a read lock,
//! and making keeps only those waiting who want the same.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use tonic::Status;

use crate::backend::Denied;

/// So many contexts are kept track of before those that are gone are looked for.
const FIRST_SWEEP: usize = 32;

/// Makes `T` of contexts, once a context.
pub(crate) struct Shared<C, T> {
    make: Make<C, T>,
    slots: RwLock<Slots<C, T>>,
}

type Make<C, T> = Box<dyn Fn(&C) -> Result<T, Status> + Send + Sync>;

/// What is made of one context.
struct Slot<C, T> {
    /// An address is not given to another while this is there.
    of: Weak<C>,
    made: Mutex<Weak<T>>,
}

struct Slots<C, T> {
    by_address: HashMap<usize, Arc<Slot<C, T>>>,
    /// At this many those of contexts that are gone are taken out. It is twice what was
    /// left the last time, so that a sweep costs each new context a few looks, however
    /// many there are.
    sweep_at: usize,
}

impl<C, T> Shared<C, T> {
    pub(crate) fn new(make: impl Fn(&C) -> Result<T, Status> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            make: Box::new(make),
            slots: RwLock::new(Slots {
                by_address: HashMap::new(),
                sweep_at: FIRST_SWEEP,
            }),
        })
    }

    /// What is made of this context.
    pub(crate) fn of(&self, context: &Arc<C>) -> Result<Arc<T>, Status> {
        let slot = self.slot(context);
        let mut made = slot.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.upgrade() {
            return Ok(known);
        }
        let new = Arc::new((self.make)(context)?);
        *made = Arc::downgrade(&new);
        Ok(new)
    }

    fn slot(&self, context: &Arc<C>) -> Arc<Slot<C, T>> {
        let address = Arc::as_ptr(context).addr();
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.by_address.get(&address) {
            return slot.clone();
        }
        drop(slots);
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.by_address.len() >= slots.sweep_at {
            slots.sweep();
        }
        let new = || {
            Arc::new(Slot {
                of: Arc::downgrade(context),
                made: Mutex::default(),
            })
        };
        slots.by_address.entry(address).or_insert_with(new).clone()
    }
}

impl<C, T> Slots<C, T> {
    fn sweep(&mut self) {
        self.by_address.retain(|_, slot| slot.of.strong_count() > 0);
        self.sweep_at = FIRST_SWEEP.max(self.by_address.len() * 2);
    }
}

impl<C, T> fmt::Debug for Shared<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The messages of a stream: each state of the backend, encoded; none twice in a row.
pub(crate) struct Messages<C> {
    states: BoxStream<'static, Result<Arc<C>, Denied>>,
    encoder: Arc<Shared<C, Bytes>>,
    last: Option<Arc<Bytes>>,
}

impl<C> Messages<C> {
    pub(crate) fn new(
        states: BoxStream<'static, Result<Arc<C>, Denied>>,
        encoder: &Arc<Shared<C, Bytes>>,
    ) -> Self {
        Self {
            states,
            encoder: encoder.clone(),
            last: None,
        }
    }
}

impl<C> Stream for Messages<C> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let state = match ready!(self.states.as_mut().poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(denied)) => return Poll::Ready(Some(Err(status(denied)))),
                Some(Ok(state)) => state,
            };
            let message = match self.encoder.of(&state) {
                Ok(message) => message,
                Err(status) => return Poll::Ready(Some(Err(status))),
            };
            if self.last.as_ref().is_some_and(|last| *last == message) {
                continue;
            }
            let bytes = Bytes::clone(&message);
            self.last = Some(message);
            return Poll::Ready(Some(Ok(bytes)));
        }
    }
}

/// As the wire has it (WE-13, WE-14).
pub(crate) fn status(denied: Denied) -> Status {
    match denied {
        Denied::NoIdentity(message) => Status::permission_denied(message),
        Denied::Unavailable(message) => Status::unavailable(message),
    }
}

#[cfg(test)]
mod tests;
