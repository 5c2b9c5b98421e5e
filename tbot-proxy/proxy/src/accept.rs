//! The accept loop.
//!
//! - At most one connection is accepted before there is room for it: it waits here, unserved; those behind it wait in
//!   the kernel's queue and cost nothing.
//! - For the one that waits at a full inbound service, *one* connection whose peer has proven nothing gives way: the
//!   oldest, once it is a second old (OpenSSH's `MaxStartups` has the same aim). Peers that stall their handshakes can
//!   so hold half of the room, and none of what proven peers hold. Where nobody waits, nobody gives way.
//! - When the process is out of files or memory it pauses, 5 ms doubling to 1 s: retrying at once
//!   would burn a core exactly when the machine is short. It says so once a second at most. What only concerns the
//!   one connection (it was gone before we came) is passed over.

use std::{io, sync::Arc, time::Duration};

use rustix::io::Errno;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    CloseReason, Direction,
    close_reason::Close,
    connection::{self, Connection},
    dial::reset_on_close,
    listener::{Accepted, Listener},
    registry::Room,
    service::Service,
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// So long nothing must have failed until pauses are short again. One success between two failures says
/// nothing: where files come and go, every other attempt succeeds.
const QUIET: Duration = Duration::from_secs(1);

/// At most so often is a shortage logged.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Accepts until told to stop (or the other end of `stop` is dropped); then serves what the kernel has queued and
/// closes the listener.
pub(crate) async fn run(
    service: Arc<Service>,
    listener: Listener,
    mut stop: oneshot::Receiver<()>,
) {
    let mut shortage = Shortage::default();
    let mut waiting = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let error = match accepted {
            Ok(accepted) => {
                if !has_room(&service) {
                    refuse_on_close(&accepted, true);
                    tokio::select! {
                        biased;
                        _ = &mut stop => {
                            waiting = Some(accepted);
                            break;
                        }
                        () = make_room(&service) => {}
                    }
                    refuse_on_close(&accepted, false);
                }
                admit(&service, accepted);
                continue;
            }
            Err(error) => error,
        };
        service.meters.accept_failed(&error);
        if concerns_one_connection(&error) {
            continue;
        }
        let Failed { pause, tell } = shortage.failed(Instant::now());
        if let Some(failures) = tell {
            tracing::warn!(
                service = service.name, %error, failures,
                "cannot accept connections; trying again, with pauses up to {LONGEST_PAUSE:?}"
            );
        }
        tokio::select! {
            _ = &mut stop => break,
            () = sleep(pause) => {}
        }
    }
    let max = service.in_force().max_connections;
    let room = max.saturating_sub(service.registry.open());
    let queued = listener.close(room.saturating_sub(waiting.iter().len()));
    for accepted in waiting.into_iter().chain(queued).take(room) {
        refuse_on_close(&accepted, false);
        admit(&service, accepted);
    }
}

/// One that waits for room and is dropped before it has it must not see an end, as if it had been served.
fn refuse_on_close((client, _): &Accepted, refuse: bool) {
    // A socket that refuses the option is gone: serving it will tell.
    let _ = reset_on_close(client, refuse);
}

/// Starts to serve one connection, in a task of its own.
fn admit(service: &Arc<Service>, (client, client_addr): Accepted) {
    let connection = Connection::accepted(Arc::clone(service), client_addr);
    let live = connection.live();
    let task = tokio::spawn(connection::serve(connection, client));
    live.attach(task.abort_handle());
}

/// Whether one more connection may be served now.
fn has_room(service: &Service) -> bool {
    room(service).1 == Room::Free
}

/// The limit in force, and what room it leaves.
fn room(service: &Service) -> (usize, Room) {
    let max = service.in_force().max_connections;
    let max_pending = match service.direction {
        Direction::Inbound => max.div_ceil(2),
        // Its clients are local, and it waits for servers, who may be slow without ill will.
        Direction::Outbound => max,
    };
    (max, service.registry.room(max, max_pending))
}

/// Waits until the connection that waits may be served.
async fn make_room(service: &Service) {
    let registry = &service.registry;
    loop {
        match room(service) {
            (_, Room::Free) => return,
            (
                max,
                Room::Full {
                    gives_way: Some(moment),
                },
            ) if service.direction == Direction::Inbound => {
                tokio::select! {
                    () = registry.released.notified() => {}
                    () = sleep_until(moment) => registry.cut_oldest_pending(|age| Close::new(
                        CloseReason::Overload,
                        format_args!("its peer had proven nothing for {age:?} while others waited (limit {max})"),
                    )),
                }
            }
            (_, Room::Full { .. }) => registry.released.notified().await,
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

/// A lack of files or memory, as far as it is known from failures of accept.
#[derive(Debug, Default)]
struct Shortage {
    /// Moment of the last failure, and the pause made after it.
    last: Option<(Instant, Duration)>,
    told: Option<Instant>,
    untold: u64,
}

/// What to do about a failure.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    pause: Duration,
    /// Failures since it was last logged, if it is to be logged now.
    tell: Option<u64>,
}

impl Shortage {
    /// Pauses double until nothing has failed for [`QUIET`] after one.
    fn failed(&mut self, now: Instant) -> Failed {
        let pause = match self.last {
            Some((moment, pause)) if now < moment + pause + QUIET => (pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.last = Some((now, pause));
        self.untold += 1;
        let tell = self.told.is_none_or(|told| now >= told + TELL_EVERY);
        Failed {
            pause,
            tell: tell.then(|| {
                self.told = Some(now);
                std::mem::take(&mut self.untold)
            }),
        }
    }
}

#[cfg(test)]
mod tests;
