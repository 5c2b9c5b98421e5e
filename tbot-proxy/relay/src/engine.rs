//! TLS as a state machine over byte slices: ciphertext in, plaintext and ciphertext out, no sockets.
//!
//! It wraps rustls' unbuffered connections and keeps two rules for its caller:
//! - [`Engine::receive`] consumes every whole record it is given, so that what the caller keeps is
//!   less than one record (or one handshake message in parts), and sealing never meets an unread one.
//!   rustls decrypts in place and remembers positions in what is not consumed: those bytes must come
//!   back unchanged, at the front of the next input, also when sealing.
//! - After [`Engine::close_notify`] or an error nothing more is sealed (RFC 8446 6.1).
use std::sync::Arc;

use rustls::{
    ClientConfig, CommonState, Error, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus},
};

/// One TLS connection, either role.
pub(crate) struct Engine {
    pub(crate) connection: Connection,
    peer_closed: bool,
    closed: bool,
}

/// The rustls connection.
pub(crate) enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What [`Engine::receive`] made of its input.
pub(crate) struct Received {
    /// Bytes to drop from the front of the input.
    pub(crate) consumed: usize,
    /// Plaintext and ciphertext were appended up to the point of the error; the ciphertext ends with the alert.
    pub(crate) result: Result<(), Error>,
}

impl Engine {
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Box<Self>, Error> {
        Ok(Self::new(Connection::Server(
            UnbufferedServerConnection::new(config)?,
        )))
    }

    pub(crate) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Box<Self>, Error> {
        Ok(Self::new(Connection::Client(
            UnbufferedClientConnection::new(config, name)?,
        )))
    }

    fn new(connection: Connection) -> Box<Self> {
        Box::new(Self {
            connection,
            peer_closed: false,
            closed: false,
        })
    }

    /// The facts of the connection: version, chain, ALPN.
    pub(crate) fn facts(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// Whether the peer's close_notify has arrived.
    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether nothing more may be sealed.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Processes the records of `input`, appends their plaintext to `plain` and what TLS itself has
    /// to send (handshake, tickets, alerts) to `out`.
    pub(crate) fn receive(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Received {
        let received = match &mut self.connection {
            Connection::Server(connection) => {
                receive(connection, input, plain, out, &mut self.peer_closed)
            }
            Connection::Client(connection) => {
                receive(connection, input, plain, out, &mut self.peer_closed)
            }
        };
        self.closed |= received.result.is_err();
        received
    }

    /// Encrypts `plain` to the front of `out` (grown if need be) and returns the count of bytes there.
    /// `unread` is what [`Engine::receive`] did not consume.
    pub(crate) fn seal(
        &mut self,
        plain: &[u8],
        unread: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        if self.closed {
            return Ok(0);
        }
        let sealed = self.send(Outgoing::Data(plain), unread, out);
        self.closed |= sealed.is_err();
        sealed
    }

    /// Writes close_notify as [`Engine::seal`] writes data. Nothing if it was sent before.
    pub(crate) fn close_notify(
        &mut self,
        unread: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        if self.closed {
            return Ok(0);
        }
        self.closed = true;
        self.send(Outgoing::CloseNotify, unread, out)
    }

    /// Asks for new traffic keys (RFC 8446 4.6.3); sent with the next data.
    #[cfg(test)]
    pub(crate) fn update_keys(&mut self) {
        match &mut self.connection {
            Connection::Server(connection) => {
                if let Ok(ConnectionState::WriteTraffic(traffic)) =
                    connection.process(&mut []).state
                {
                    traffic.refresh_traffic_keys().unwrap();
                }
            }
            Connection::Client(connection) => {
                if let Ok(ConnectionState::WriteTraffic(traffic)) =
                    connection.process(&mut []).state
                {
                    traffic.refresh_traffic_keys().unwrap();
                }
            }
        }
    }

    fn send(
        &mut self,
        what: Outgoing<'_>,
        unread: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        match &mut self.connection {
            Connection::Server(connection) => {
                send(connection, what, unread, out, &mut self.peer_closed)
            }
            Connection::Client(connection) => {
                send(connection, what, unread, out, &mut self.peer_closed)
            }
        }
    }
}

enum Outgoing<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

/// The two unbuffered connections of rustls, whose common trait it does not export.
trait Records {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn facts(&self) -> &CommonState;
}

impl Records for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn facts(&self) -> &CommonState {
        self
    }
}

impl Records for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn facts(&self) -> &CommonState {
        self
    }
}

fn receive<C: Records>(
    connection: &mut C,
    input: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> Received {
    let mut consumed = 0;
    let result = loop {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut input[consumed..]);
        let mut finished = None;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            plain.extend_from_slice(record.payload);
                            discard += record.discard;
                        }
                        Err(error) => finished = Some(Err(error)),
                    }
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                finished = encode(data, out).err().map(Err);
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
            Ok(ConnectionState::PeerClosed) => *peer_closed = true,
            Ok(
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed,
            ) => finished = Some(Ok(())),
            // Early data is never enabled: it can be replayed (RFC 8446 8).
            Ok(_) => finished = Some(Err(Error::General("early data is not accepted".into()))),
            Err(error) => finished = Some(Err(error)),
        }
        consumed += discard;
        if let Some(result) = finished {
            break result;
        }
    };
    if result.is_err() {
        // Only while an alert waits: processing again would meet the same fault.
        while connection.facts().wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) =
                connection.process(&mut input[consumed..]).state
            else {
                break;
            };
            if encode(data, out).is_err() {
                break;
            }
        }
    }
    Received { consumed, result }
}

/// Appends a chunk of TLS' own to `out`.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> Result<(), Error> {
    let end = out.len();
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) => return Ok(()),
        Err(error) => return Err(Error::General(error.to_string())),
    };
    out.resize(end + needed, 0);
    data.encode(&mut out[end..])
        .map(|_| ())
        .map_err(|error| Error::General(error.to_string()))
}

fn send<C: Records>(
    connection: &mut C,
    what: Outgoing<'_>,
    unread: &mut [u8],
    out: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> Result<usize, Error> {
    let mut written = 0;
    loop {
        let UnbufferedStatus { discard, state } = connection.process(unread);
        debug_assert_eq!(discard, 0, "`receive` consumes whole records");
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let room = &mut out[written..];
                let result = match what {
                    Outgoing::Data(plain) => traffic.encrypt(plain, room),
                    Outgoing::CloseNotify => traffic.queue_close_notify(room),
                };
                match result {
                    Ok(count) => return Ok(written + count),
                    // A configuration with small fragments.
                    Err(EncryptError::InsufficientSize(size)) => {
                        out.resize(written + size.required_size, 0);
                    }
                    Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
                }
            }
            ConnectionState::EncodeTlsData(data) => {
                let mut chunk = Vec::new();
                encode(data, &mut chunk)?;
                if out.len() < written + chunk.len() {
                    out.resize(written + chunk.len(), 0);
                }
                out[written..written + chunk.len()].copy_from_slice(&chunk);
                written += chunk.len();
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::PeerClosed => *peer_closed = true,
            ConnectionState::Closed => return Ok(written),
            state => return Err(Error::General(format!("cannot send in state {state:?}"))),
        }
    }
}

#[cfg(test)]
mod tests;
