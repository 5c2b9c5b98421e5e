//! The path of a connection, in execution order.
//!
//! [`Connection`] is the guard: made at accept, it takes down what each step learns, and its `Drop` is the one
//! place where a connection ends: registry, gauge, counters, log line and record. Whatever the way out,
//! an error, a cut, a panic, a runtime that stops, none of them can be forgotten.
//!
//! The steps before the relay are boxed: their futures are large (a handshake's, a resolver's) and would
//! otherwise be carried, empty, by every idle connection.

mod steps;

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use identity::{Serial, SpiffeId};
use relay::{End, Socket};
use uuid::Uuid;

use crate::{
    Address, CloseReason, ConnectionRecord, Direction,
    close_reason::{Close, Fault},
    dial::reset_on_close,
    record::{milliseconds, rfc3339},
    registry::{Live, Registered},
    service::Service,
};

/// Serves one accepted connection to its end. What happens at the end is [`Connection`]'s `Drop`.
pub(crate) async fn serve(mut connection: Box<Connection>, client: Socket) {
    let end = match connection.service.direction {
        Direction::Inbound => inbound(&mut connection, client).await,
        Direction::Outbound => outbound(&mut connection, client).await,
    };
    connection.close = Some(end.map_or_else(|close| close, steps::of_end));
}

/// SPIFFE mTLS in, plain out. The application is dialled for a client that is authorized, and for no other.
async fn inbound(connection: &mut Connection, client: Socket) -> Result<End, Close> {
    let tls = Box::pin(connection.accept_tls(client)).await?;
    // Identify, register, authorize.
    if let Err(refusal) = connection.admit(tls.peer_certificates().unwrap_or_default()) {
        tls.refuse();
        return Err(refusal);
    }
    let app = Box::pin(connection.dial()).await?;
    Ok(connection.relay(tls, app).await)
}

/// Plain in, SPIFFE mTLS out. Not a byte of the client is read before the server has proven who it is.
async fn outbound(connection: &mut Connection, client: Socket) -> Result<End, Close> {
    reset_on_close(&client, true).map_err(steps::of_client)?;
    let server = Box::pin(connection.dial()).await?;
    let tls = Box::pin(connection.connect_tls(server)).await?;
    // Identify, register, authorize.
    if let Err(refusal) = connection.admit(tls.peer_certificates().unwrap_or_default()) {
        tls.refuse();
        return Err(refusal);
    }
    reset_on_close(&client, false).map_err(steps::of_client)?;
    Ok(connection.relay(tls, client).await)
}

/// One connection from accept to record.
pub(crate) struct Connection {
    id: Uuid,
    service: Arc<Service>,
    live: Arc<Live>,
    started: SystemTime,
    client_addr: Option<SocketAddr>,
    server_addr: Option<Address>,
    local: Option<(SpiffeId, Serial)>,
    registered: Option<Registered>,
    rule: Option<String>,
    tls_version: Option<&'static str>,
    resumed: bool,
    close: Option<Close>,
}

impl Connection {
    /// Boxed: a future that takes it by value would hold it twice.
    pub(crate) fn accepted(service: Arc<Service>, client_addr: Option<SocketAddr>) -> Box<Self> {
        let live = service.registry.enter();
        service.meters.open.increment(1.0);
        Box::new(Self {
            // Of the moment of accept, so that ids sort as connections came.
            id: Uuid::now_v7(),
            service,
            live,
            started: SystemTime::now(),
            client_addr,
            server_addr: None,
            local: None,
            registered: None,
            rule: None,
            tls_version: None,
            resumed: false,
            close: None,
        })
    }

    /// The handle by which others may cut it.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Why it ends now: as its path said, else as whoever cut it said.
    fn take_close(&mut self) -> Close {
        let close = self.close.take().or_else(|| self.live.take_cut());
        close.unwrap_or_else(|| {
            if std::thread::panicking() {
                Close::new(CloseReason::InternalError, "its task panicked")
            } else {
                Close::new(CloseReason::Stopped, "the runtime has stopped")
            }
        })
    }

    fn record(&mut self) -> ConnectionRecord {
        let Close { reason, detail } = self.take_close();
        let (bytes_in, bytes_out) = self.service.direction.in_and_out(self.live.bytes());
        let peer = self
            .registered
            .as_ref()
            .map(|registered| &registered.identity);
        let (local_id, local_serial) = self.local.take().unzip();
        ConnectionRecord {
            connection_id: self.id.to_string(),
            service: self.service.name.clone(),
            direction: self.service.direction,
            client_addr: self.client_addr,
            server_addr: self.server_addr.take(),
            local_id,
            local_serial: local_serial.map(|serial| serial.to_string()),
            peer_id: peer.map(|peer| peer.id.clone()),
            peer_serial: peer.map(|peer| peer.serial.to_string()),
            peer_expires: peer.map(|peer| peer.not_after),
            rule: self.rule.take(),
            started: self.started,
            duration: self.live.entered.elapsed(),
            bytes_in,
            bytes_out,
            tls_version: self.tls_version,
            resumed: self.resumed,
            reason,
            detail,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let record = self.record();
        let meters = &self.service.meters;
        meters.closed(record.reason);
        meters.carried(self.live.take_untold());
        log(&record);
        self.service.sink.record(&record);
        meters.open.decrement(1.0);
        // Last: whoever waits for the connection to be gone finds its record written.
        let peer = self.registered.take().map(|registered| registered.peer);
        self.service.registry.leave(&self.live, peer);
    }
}

/// One line a connection: info for what was served or went away by itself, warn for what was refused or failed.
fn log(record: &ConnectionRecord) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "connection",
                connection_id = record.connection_id,
                service = record.service,
                direction = record.direction.as_str(),
                client = record.client_addr.map(tracing::field::display),
                server = record.server_addr.as_ref().map(tracing::field::display),
                local_id = record.local_id.as_ref().map(tracing::field::display),
                peer_id = record.peer_id.as_ref().map(tracing::field::display),
                peer_expires = record.peer_expires.map(rfc3339),
                rule = record.rule,
                bytes_in = record.bytes_in,
                bytes_out = record.bytes_out,
                duration_ms = milliseconds(record.duration),
                resumed = record.resumed,
                reason = record.reason.as_str(),
                detail = record.detail,
                "connection closed"
            )
        };
    }
    let ordinary = matches!(
        record.reason,
        CloseReason::Complete
            | CloseReason::ClientClosedEarly
            | CloseReason::IdleTimeout
            | CloseReason::HalfCloseTimeout
    );
    if ordinary || record.reason.fault() == Fault::Operator {
        line!(info);
    } else {
        line!(warn);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::BetweenSteps;
