//! What systemd is told (`sd_notify`), and the sockets that it holds for us.
//!
//! All of it does nothing where there is no systemd. The watchdog is fed by a task of the
//! control runtime: one that is stuck is restarted.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

/// Sockets that systemd listens on, by path; it goes on to do so while we restart.
static SOCKETS: OnceLock<HashMap<PathBuf, Held>> = OnceLock::new();

struct Held {
    listener: UnixListener,
    is_used: AtomicBool,
}

/// Takes over the sockets that systemd hands us. To be called once, first of all.
pub(crate) fn take_sockets() {
    let mut sockets = HashMap::new();
    match sd_notify::listen_fds() {
        Ok(descriptors) => {
            for descriptor in descriptors {
                let Ok(socket) = sys::inherited(descriptor) else {
                    continue;
                };
                let listener = UnixListener::from(socket);
                let path = listener.local_addr().ok();
                if let Some(path) = path.as_ref().and_then(|path| path.as_pathname()) {
                    let is_used = AtomicBool::new(false);
                    sockets.insert(real(path), Held { listener, is_used });
                }
            }
        }
        Err(error) => tracing::warn!(%error, "the sockets of systemd cannot be taken over"),
    }
    _ = SOCKETS.set(sockets);
}

/// The socket that systemd holds at this path, if it does.
pub(crate) fn socket(path: &Path) -> Option<io::Result<UnixListener>> {
    let held = SOCKETS.get()?.get(&real(path))?;
    held.is_used.store(true, Ordering::Relaxed);
    Some(held.listener.try_clone())
}

/// The path without the links that lead to its folder: `/var/run` is `/run`.
fn real(path: &Path) -> PathBuf {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// Everything listens.
pub(crate) fn ready() {
    for (path, held) in SOCKETS.get().into_iter().flatten() {
        if !held.is_used.load(Ordering::Relaxed) {
            tracing::warn!(
                path = %path.display(),
                "systemd listens here for this agent, and no service does: whoever connects waits in vain; set a service's `listen` to it, or stop the socket's unit"
            );
        }
    }
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The process ends.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// A changed configuration is being put in force; [`ready`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Feeds the watchdog, if systemd wants that, for as long as this is held.
pub(crate) fn watchdog() -> Option<AbortOnDropHandle<()>> {
    let every = sd_notify::watchdog_enabled()? / 2;
    if every.is_zero() {
        return None;
    }
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            notify(&[NotifyState::Watchdog]);
            tokio::time::sleep(every).await;
        }
    })))
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
