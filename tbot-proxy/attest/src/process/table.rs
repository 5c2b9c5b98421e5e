//! One handle per process, however many connections it has.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Process, ProcessError, ProcessKey};

/// The processes that somebody holds a handle of. Ten thousand connections of one
/// process cost one pidfd and one directory handle between them.
#[derive(Debug, Default)]
pub struct Processes {
    pub(super) table: Mutex<Table>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) by_key: HashMap<ProcessKey, Weak<Process>>,
    /// How many entries there were after the last sweep of those nobody holds.
    after_sweep: usize,
}

impl Processes {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process that connected the other end of a Unix socket: [`Process::of_peer`].
    pub fn of_peer(&self, socket: impl AsFd) -> Result<Arc<Process>, ProcessError> {
        Ok(self.shared(Process::of_peer(socket)?))
    }

    /// The process that has this number now: [`Process::of_pid`].
    pub fn of_pid(&self, pid: u32) -> Result<Arc<Process>, ProcessError> {
        Ok(self.shared(Process::of_pid(pid)?))
    }

    /// How many processes are held.
    pub fn len(&self) -> usize {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |process: &&Weak<Process>| process.strong_count() > 0;
        table.by_key.values().filter(held).count()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The handle that is there already, or this one. Start times count in ticks of
    /// 10 ms, so a key alone could mean two processes; but no two that *live* have one
    /// PID, and both handles were or are checked for that.
    pub(super) fn shared(&self, new: Process) -> Arc<Process> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = table.by_key.get(&new.key()).and_then(Weak::upgrade)
            && there.is_alive()
        {
            return there;
        }
        if table.by_key.len() >= 2 * table.after_sweep + 64 {
            table.by_key.retain(|_, process| process.strong_count() > 0);
            table.after_sweep = table.by_key.len();
        }
        let new = Arc::new(new);
        table.by_key.insert(new.key(), Arc::downgrade(&new));
        new
    }
}
