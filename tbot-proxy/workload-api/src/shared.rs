//! One encoding of a state for all streams that carry it.
//!
//! A backend gives the same `Arc` to all callers that hold the same; what was made of
//! it is found by its address. Nothing is kept alive here: an encoding lives as long as
//! a stream has it as its last message, and keys in it are wiped after that.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use tonic::Status;

use crate::backend::Denied;

/// Makes `T` of contexts, once a context.
pub(crate) struct Shared<C, T> {
    make: Make<C, T>,
    made: Mutex<Made<C, T>>,
}

type Make<C, T> = Box<dyn Fn(&C) -> Result<T, Status> + Send + Sync>;
/// By address.
type Made<C, T> = HashMap<usize, (Weak<C>, Weak<T>)>;

impl<C, T> Shared<C, T> {
    pub(crate) fn new(make: impl Fn(&C) -> Result<T, Status> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            make: Box::new(make),
            made: Mutex::default(),
        })
    }

    /// What is made of this context.
    pub(crate) fn of(&self, context: &Arc<C>) -> Result<Arc<T>, Status> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(context).addr();
        // An address is that of one living context only: this one.
        if let Some((of, known)) = made.get(&key)
            && of.strong_count() > 0
            && let Some(known) = known.upgrade()
        {
            return Ok(known);
        }
        let new = Arc::new((self.make)(context)?);
        made.retain(|_, (of, known)| of.strong_count() > 0 && known.strong_count() > 0);
        made.insert(key, (Arc::downgrade(context), Arc::downgrade(&new)));
        Ok(new)
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
