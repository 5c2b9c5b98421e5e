//! What of a connection others may act on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{task::AbortHandle, time::Instant};

use crate::close_reason::Close;

/// One connection, as far as others may act on it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) number: u64,
    pub(crate) entered: Instant,
    task: Mutex<Task>,
}

#[derive(Debug, Default)]
struct Task {
    abort: Option<AbortHandle>,
    cut: Option<Close>,
}

impl Live {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            entered: Instant::now(),
            task: Mutex::default(),
        }
    }

    /// Tells which task serves the connection. One that was cut before it is known is aborted now.
    pub(crate) fn attach(&self, abort: AbortHandle) {
        let mut task = self.lock();
        if task.cut.is_some() {
            abort.abort();
        }
        task.abort = Some(abort);
    }

    /// Ends the connection for this reason; the first reason holds. Returns whether it is this one.
    pub(super) fn cut(&self, close: Close) -> bool {
        let mut task = self.lock();
        if task.cut.is_some() {
            return false;
        }
        task.cut = Some(close);
        if let Some(abort) = &task.abort {
            abort.abort();
        }
        true
    }

    /// Why it was cut, if it was.
    pub(crate) fn take_cut(&self) -> Option<Close> {
        self.lock().cut.take()
    }

    fn lock(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
