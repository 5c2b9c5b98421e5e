//! The agent's connection to the issuer: gRPC over TLS under the bot identity.
//!
//! The TLS stream is ours, so that what goes wrong with it has its own error and
//! so that the peer is checked after every handshake: it is the issuer of our
//! trust domain, `spiffe://<td>/issuer`, or there is no connection. A connection
//! is used as long as the bot certificate that it was made with is the current
//! one; the call after a renewal makes a new one.
//!
//! Everything here ends: what has no answer within seconds is given up together with its
//! connection, which may have died without a word, and tried once more over a new one.
//!
//! Where several addresses are configured, of issuers that share a store, one is used until it fails
//! or says that it cannot answer now; then the next one is asked.
//!
//! Calls and the renewal of the bot identity exclude each other. The issuer
//! takes a bot certificate of an older generation for a stolen copy, and a call
//! that overtook the renewal must not look like one.

mod calls;

use std::{error::Error as _, future::Future, io, sync::Arc, time::Duration, time::SystemTime};

use hyper_util::rt::TokioIo;
use identity::{ClientOptions, ClientTls, IdentitySource, Serial, SpiffeId, TlsError, VerifyError};
use rustls::ClientConfig;
use tokio::{
    net::TcpStream,
    sync::{Mutex, RwLock},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Code, Response, Status, transport::Endpoint};
use tower::service_fn;

pub(crate) use self::calls::Calls;

use crate::configuration::HostPort;

mod addresses;

pub(crate) use addresses::Addresses;

/// For a connection that can be used: TCP, TLS, HTTP/2, and the wait for another's attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For one call and its answer. Whoever waits, for the renewal of the bot identity or for
/// its end, waits for two attempts at most, each a connection and a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a connection is probed, so that a dead issuer is noticed while we only listen.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long an answer to a probe may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct IssuerLink {
    addresses: Addresses,
    source: Arc<IdentitySource>,
    tls: Arc<ClientTls>,
    connection: Mutex<Option<Connection>>,
    renewal: RwLock<()>,
}

#[derive(Debug)]
struct Connection {
    channel: Calls,
    /// Of the bot certificate that it was made with.
    serial: Serial,
    /// Place of the address that it leads to.
    place: usize,
}

/// A channel to call over.
struct Connected {
    channel: Calls,
    /// Whether it was made just now.
    fresh: bool,
    /// See [`Connection::place`].
    place: usize,
}

impl IssuerLink {
    /// A link under the bot identity that `source` holds.
    pub(crate) fn new(addresses: Addresses, source: Arc<IdentitySource>) -> Arc<Self> {
        let options = ClientOptions {
            alpn: vec![b"h2".to_vec()],
            ..ClientOptions::default()
        };
        Arc::new(Self {
            addresses,
            tls: ClientTls::new(source.clone(), options),
            source,
            connection: Mutex::new(None),
            renewal: RwLock::new(()),
        })
    }

    /// Where the issuers are.
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Calls the issuer, but not while the bot identity is renewed.
    pub(crate) async fn call<T, F>(&self, call: impl Fn(Calls) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let _renewal = self.renewal.read().await;
        self.call_now(call).await
    }

    /// Calls the issuer to renew the bot identity, with no other call under way.
    /// `keep` puts the answer in force before other calls go on.
    pub(crate) async fn renew<T, F, R>(
        &self,
        call: impl Fn(Calls) -> F,
        keep: impl AsyncFnOnce(T) -> R,
    ) -> Result<R, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let _renewal = self.renewal.write().await;
        let answer = self.call_now(call).await?;
        Ok(keep(answer).await)
    }

    async fn call_now<T, F>(&self, call: impl Fn(Calls) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Connected {
            channel,
            fresh,
            place,
        } = self.connected().await?;
        let error = match one_call(call(channel)).await {
            Err(error) if error.is_connection_lost() || error.is_unavailable() => error,
            other => return other,
        };
        let lost = error.is_connection_lost();
        // That an issuer went away while the connection lay idle says nothing of now.
        let elsewhere = self.addresses.are_several() && (fresh || !lost);
        if lost || elsewhere {
            self.disconnect().await;
        }
        if elsewhere {
            self.addresses.leave(place);
        } else if fresh || !lost {
            return Err(error);
        }
        let Connected { channel, .. } = self.connected().await?;
        let again = one_call(call(channel)).await;
        if again.as_ref().is_err_and(CallError::is_connection_lost) {
            self.disconnect().await;
        }
        again
    }

    /// Forgets the connection: the next call makes another.
    pub(crate) async fn disconnect(&self) {
        *self.connection.lock().await = None;
    }

    /// One at a time connects; the others wait for it, and give up when it does.
    async fn connected(&self) -> Result<Connected, LinkError> {
        match timeout(CONNECT_TIMEOUT, self.connected_or_connecting()).await {
            Ok(connected) => connected,
            Err(_) => Err(LinkError::late(self.addresses.current(), CONNECT_TIMEOUT)),
        }
    }

    async fn connected_or_connecting(&self) -> Result<Connected, LinkError> {
        let identity = self.source.current();
        let svid = identity
            .svid
            .as_ref()
            .filter(|svid| svid.not_after() > SystemTime::now())
            .ok_or(LinkError::NoIdentity)?;
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection
            && connection.serial == *svid.serial()
        {
            return Ok(Connected {
                channel: connection.channel.clone(),
                fresh: false,
                place: connection.place,
            });
        }
        let issuer = SpiffeId::new(&svid.id().trust_domain(), "/issuer").map_err(|error| {
            LinkError::Away {
                address: self.addresses.current().clone(),
                error: io::Error::other(error),
            }
        })?;
        let connect = |address| self.connect(address, &issuer);
        let channel = self.addresses.connect(connect).await?;
        let place = self.addresses.place();
        *connection = Some(Connection {
            channel: channel.clone(),
            serial: svid.serial().clone(),
            place,
        });
        Ok(Connected {
            channel,
            fresh: true,
            place,
        })
    }

    async fn connect(&self, address: HostPort, issuer: &SpiffeId) -> Result<Calls, LinkError> {
        let config = self.tls.config()?;
        let stream = open(&address, config).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let peer = self
            .tls
            .identify(chain, SystemTime::now())
            .map_err(|error| LinkError::Unverified {
                address: address.clone(),
                error,
            })?;
        if peer.id != *issuer {
            return Err(LinkError::NotTheIssuer {
                address: address.clone(),
                expected: issuer.clone(),
                seen: peer.id,
            });
        }
        channel_over(stream)
            .await
            .map_err(|error| LinkError::Away { address, error })
    }
}

/// TCP and TLS to the issuer. Each has [`CONNECT_TIMEOUT`].
pub(crate) async fn open(
    address: &HostPort,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, LinkError> {
    let away = |error| LinkError::Away {
        address: address.clone(),
        error,
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connect = TcpStream::connect((address.host.as_str(), address.port));
    let stream = timeout(CONNECT_TIMEOUT, connect)
        .await
        .map_err(late)
        .flatten()
        .map_err(away)?;
    stream.set_nodelay(true).map_err(away)?;
    let handshake = TlsConnector::from(config).connect(ClientTls::server_name(), stream);
    timeout(CONNECT_TIMEOUT, handshake)
        .await
        .map_err(late)
        .flatten()
        .map_err(|error| match rustls_error(&error) {
            Some(error) => LinkError::Handshake {
                address: address.clone(),
                error: error.clone(),
            },
            None => away(error),
        })
}

/// HTTP/2 over a stream that is already open. When it ends, so does the channel.
pub(crate) async fn channel_over(stream: TlsStream<TcpStream>) -> io::Result<Calls> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://issuer")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await {
        Ok(connected) => connected.map(Calls::over).map_err(io::Error::other),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// One call with its deadline.
pub(crate) async fn one_call<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CallError::from(status)),
        Err(_) => Err(CallError::Lost(format!(
            "no answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

/// Why there is no connection to the issuer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// We have no bot identity to show.
    #[error("no valid bot identity")]
    NoIdentity,
    /// It cannot be reached, or the handshake fails.
    #[error("issuer {address}: {error}")]
    Away {
        /// Where it should be.
        address: HostPort,
        /// What happens there.
        error: io::Error,
    },
    /// The TLS handshake fails.
    #[error("issuer {address}: TLS handshake: {}", describe(error))]
    Handshake {
        /// Where it is.
        address: HostPort,
        /// Why.
        error: rustls::Error,
    },
    /// We cannot speak TLS.
    #[error("TLS to the issuer: {0}")]
    Tls(#[from] TlsError),
    /// It has no certificate of our trust domain.
    #[error("issuer {address}: its certificate is refused: {error}")]
    Unverified {
        /// Where it is.
        address: HostPort,
        /// Why.
        error: VerifyError,
    },
    /// It is somebody else.
    #[error("issuer {address}: it is {seen}, expected {expected}")]
    NotTheIssuer {
        /// Where it is.
        address: HostPort,
        /// Who should be there.
        expected: SpiffeId,
        /// Who is.
        seen: SpiffeId,
    },
}

impl LinkError {
    fn late(address: &HostPort, waited: Duration) -> Self {
        let seconds = waited.as_secs_f64();
        Self::Away {
            address: address.clone(),
            error: io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {seconds} s"),
            ),
        }
    }

    /// Whether somebody answers whom we are told not to trust: waiting does not mend that.
    pub(crate) fn is_impostor(&self) -> bool {
        match self {
            Self::Handshake { error, .. } => matches!(
                VerifyError::of_handshake(error),
                Some(
                    VerifyError::WrongPin { .. }
                        | VerifyError::WrongServer { .. }
                        | VerifyError::PinnedAuthority { .. }
                )
            ),
            _ => false,
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn describe(error: &rustls::Error) -> String {
    match VerifyError::of_handshake(error) {
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The connection ended under the call.
    #[error("connection to the issuer lost: {0}")]
    Lost(String),
    /// The issuer cannot answer now.
    #[error("the issuer cannot answer now: {0}")]
    Unavailable(String),
    /// The issuer says no; asking again is no use until somebody changes something.
    #[error("the issuer refuses: {message}")]
    Refused {
        /// gRPC status code.
        code: Code,
        /// Its words.
        message: String,
    },
}

impl CallError {
    fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the issuer knows us, and we may not.
    pub(crate) fn is_denial(&self) -> bool {
        let denied = Code::PermissionDenied;
        matches!(self, Self::Refused { code, .. } if *code == denied)
    }

    /// Whether the issuer has decided against us.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // A status that the issuer sent has no source; one that the transport made has.
        if status.source().is_some() {
            return Self::Lost(innermost(&status));
        }
        let message = one_line(status.message());
        match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::Unimplemented => Self::Refused {
                code: status.code(),
                message,
            },
            code => Self::Unavailable(if message.is_empty() {
                code.to_string()
            } else {
                message
            }),
        }
    }
}

/// The last error of the chain: the one that says what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    one_line(&last.to_string())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
