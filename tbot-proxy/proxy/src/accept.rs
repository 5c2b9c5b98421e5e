//! The accept loop.
//!
//! - It asks for room *before* it accepts, so that connections beyond the limit wait in the kernel's queue and cost
//!   nothing here.
//! - While an inbound service is full, the connections whose peers have proven nothing give way, oldest
//!   first, once they are a second old (OpenSSH's `MaxStartups` has the same aim): peers that stall their handshakes can
//!   hold half of the room, each for a second, and none of what proven peers hold.
//! - When the process is out of files or memory it pauses, 5 ms doubling to 1 s: retrying at once
//!   would burn a core exactly when the machine is short. What only concerns the one connection (it was gone
//!   before we came) is passed over.

use std::{io, sync::Arc, time::Duration};

use rustix::io::Errno;
use tokio::{
    sync::oneshot,
    time::{sleep, sleep_until},
};

use crate::{
    CloseReason, Direction,
    close_reason::Close,
    connection::{self, Connection},
    listener::{Accepted, Listener},
    registry::Room,
    service::Service,
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until told to stop (or the other end of `stop` is dropped); then serves what the kernel has queued and
/// closes the listener.
pub(crate) async fn run(
    service: Arc<Service>,
    listener: Listener,
    mut stop: oneshot::Receiver<()>,
) {
    let mut pause = Pause::default();
    loop {
        let next = async {
            make_room(&service).await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            biased;
            _ = &mut stop => break,
            accepted = next => accepted,
        };
        let error = match accepted {
            Ok(accepted) => {
                pause = Pause::default();
                admit(&service, accepted);
                continue;
            }
            Err(error) => error,
        };
        service.meters.accept_failed(&error);
        if concerns_one_connection(&error) {
            continue;
        }
        if pause.is_first() {
            tracing::warn!(
                service = service.name, %error,
                "cannot accept connections; trying again, with pauses up to {LONGEST_PAUSE:?}"
            );
        }
        tokio::select! {
            _ = &mut stop => break,
            () = sleep(pause.next()) => {}
        }
    }
    let room = service.in_force().config.limits.max_connections;
    for accepted in listener.close(room.saturating_sub(service.registry.open())) {
        admit(&service, accepted);
    }
}

/// Starts to serve one connection, in a task of its own.
fn admit(service: &Arc<Service>, (client, client_addr): Accepted) {
    let connection = Connection::accepted(Arc::clone(service), client_addr);
    let live = connection.live();
    let task = tokio::spawn(connection::serve(connection, client));
    live.attach(task.abort_handle());
}

/// Waits until one more connection may be accepted.
async fn make_room(service: &Service) {
    let registry = &service.registry;
    loop {
        let max = service.in_force().config.limits.max_connections;
        let max_pending = match service.direction {
            Direction::Inbound => max.div_ceil(2),
            // Its clients are local, and it waits for servers, who may be slow without ill will.
            Direction::Outbound => max,
        };
        match registry.room(max, max_pending) {
            Room::Free => return,
            Room::Full {
                gives_way: Some(moment),
            } if service.direction == Direction::Inbound => {
                tokio::select! {
                    () = registry.released.notified() => {}
                    () = sleep_until(moment) => registry.cut_oldest_pending(|age| Close::new(
                        CloseReason::Overload,
                        format_args!("its peer had proven nothing for {age:?} while others waited (limit {max})"),
                    )),
                }
            }
            Room::Full { .. } => registry.released.notified().await,
        }
    }
}

/// Whether only the connection that was to be accepted is at fault (accept(2), "Error handling"), so that the next may
/// be tried at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
        )
    )
}

/// Pauses between failed attempts, doubling.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    fn is_first(&self) -> bool {
        self.0 == FIRST_PAUSE
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests;
