//! A small outbound HTTP client for calls whose answers are small.
//!
//! One HTTP/1.1 connection per call, over a Unix socket, plain TCP, or TLS with the
//! roots that were handed in. It is for addresses that an operator configured and
//! answers that somebody else controls, so everything is bounded: the whole call in
//! time, the answer in size. Redirects are answers like any other and are never
//! followed: who may answer must not be able to say whom to ask next. A scheme that
//! the client was not made for is refused before anything is sent, so a token for
//! `https` never leaves over `http`.

use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{
    HeaderValue, Request, Response, Uri,
    header::{CONNECTION, HOST},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// How to reach one kind of address. Cheap to clone; keeps no connection.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    time_limit: Duration,
    max_body: usize,
    may_reach: Option<Arc<MayReach>>,
}

/// Whether an address may be connected to.
type MayReach = dyn Fn(IpAddr) -> bool + Send + Sync;

#[derive(Clone)]
enum Transport {
    Unix(PathBuf),
    Tcp,
    Tls(TlsConnector),
}

impl Client {
    /// For `http://` addresses, in the clear.
    pub fn plain() -> Self {
        Self::new(Transport::Tcp)
    }

    /// For whatever listens on a Unix socket. Addresses are `http://NAME/PATH`; the
    /// name is sent as the host and means nothing else.
    pub fn unix(socket: impl AsRef<Path>) -> Self {
        Self::new(Transport::Unix(socket.as_ref().to_owned()))
    }

    /// For `https://` addresses. The server is verified as the configuration says; its
    /// ALPN protocols are replaced by `http/1.1`.
    pub fn tls(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::new(Transport::Tls(TlsConnector::from(Arc::new(config))))
    }

    /// For `https://` addresses whose certificate is of one of these roots, and for
    /// the host of the address.
    ///
    /// # Errors
    ///
    /// If the provider has no TLS 1.2 or 1.3.
    pub fn with_roots(
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::tls(config))
    }

    fn new(transport: Transport) -> Self {
        Self {
            transport,
            time_limit: Duration::from_secs(10),
            max_body: 1 << 20,
            may_reach: None,
        }
    }

    /// How long a call may take, from the look-up of the name to the last byte.
    /// Default: 10 s.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// The largest body of an answer, in bytes. Default: 1 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Connects only to IP addresses for which this is true, whatever a name resolves to.
    /// (A Unix socket has none.)
    #[must_use]
    pub fn only(mut self, may_reach: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.may_reach = Some(Arc::new(may_reach));
        self
    }

    /// `GET` of an address, with a bearer token if there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::send`]; and for a token that is no value of a header.
    pub async fn get(&self, uri: &str, token: Option<&str>) -> Result<Response<Bytes>, Error> {
        let bad = |reason: &'static str| Error::Request {
            uri: shown(uri),
            reason,
        };
        let mut request = Request::get(uri);
        if let Some(token) = token {
            let bearer = bearer(token).ok_or_else(|| bad("the token holds odd characters"))?;
            request = request.header(http::header::AUTHORIZATION, bearer);
        }
        let request = request
            .body(Bytes::new())
            .map_err(|_| bad("it is not an address"))?;
        self.send(request).await
    }

    /// One request, of any method, and its answer, of any status.
    ///
    /// # Errors
    ///
    /// See [`Error`]. What was sent may have arrived even so.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let uri = shown(&request.uri().to_string());
        match timeout(self.time_limit, self.call(request, &uri)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::TimedOut {
                uri,
                limit: self.time_limit,
            }),
        }
    }

    async fn call(&self, request: Request<Bytes>, uri: &str) -> Result<Response<Bytes>, Error> {
        let bad = |reason| Error::Request {
            uri: uri.to_owned(),
            reason,
        };
        let connect = |source| Error::Connect {
            uri: uri.to_owned(),
            source,
        };
        let (scheme, port) = match self.transport {
            Transport::Tls(_) => ("https", 443),
            Transport::Tcp | Transport::Unix(_) => ("http", 80),
        };
        let to = request.uri();
        if to.scheme_str() != Some(scheme) {
            return Err(bad(match scheme {
                "https" => "this client is for https:// addresses",
                _ => "this client is for http:// addresses",
            }));
        }
        let host = to.host().ok_or_else(|| bad("it has no host"))?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let address = (&*host, to.port_u16().unwrap_or(port));
        match &self.transport {
            Transport::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    connect(io::Error::new(
                        error.kind(),
                        format!("{}: {error}", path.display()),
                    ))
                })?;
                self.exchange(stream, request, uri).await
            }
            Transport::Tcp => {
                let stream = self.dial(address).await.map_err(connect)?;
                self.exchange(stream, request, uri).await
            }
            Transport::Tls(tls) => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| bad("its host is neither a DNS name nor an IP address"))?;
                let stream = self.dial(address).await.map_err(connect)?;
                let stream = tls.connect(name, stream).await.map_err(connect)?;
                self.exchange(stream, request, uri).await
            }
        }
    }

    /// The address that is asked about is the one that is connected to: a name that
    /// resolves to another one the next time gains nothing.
    async fn dial(&self, address: (&str, u16)) -> io::Result<TcpStream> {
        let Some(may_reach) = &self.may_reach else {
            return TcpStream::connect(address).await;
        };
        let (may, may_not): (Vec<_>, Vec<_>) = lookup_host(address)
            .await?
            .partition(|found| may_reach(found.ip()));
        match may_not.first() {
            Some(found) if may.is_empty() => {
                let why = format!("its address {} may not be connected to", found.ip());
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
            _ => TcpStream::connect(&*may).await,
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Bytes>,
        uri: &str,
    ) -> Result<Response<Bytes>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let http = |source| Error::Http {
            uri: uri.to_owned(),
            source,
        };
        let request = origin_form(request).ok_or_else(|| Error::Request {
            uri: uri.to_owned(),
            reason: "it has no host",
        })?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        let answer = async {
            let (head, body) = sender
                .send_request(request.map(Full::new))
                .await
                .map_err(http)?
                .into_parts();
            let body = Limited::new(body, self.max_body).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => http(*error),
                Err(error) if error.is::<LengthLimitError>() => Error::TooLarge {
                    uri: uri.to_owned(),
                    limit: self.max_body,
                },
                Err(error) => Error::Connect {
                    uri: uri.to_owned(),
                    source: io::Error::other(error),
                },
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // The connection moves the bytes; it may end before its last ones are read.
        let (answer, connection) = (pin!(answer), pin!(connection));
        match select(answer, connection).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, answer)) => answer.await,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport: &dyn fmt::Debug = match &self.transport {
            Transport::Unix(path) => path,
            Transport::Tcp => &"tcp",
            Transport::Tls(_) => &"tls",
        };
        f.debug_struct("Client")
            .field("transport", transport)
            .field("time_limit", &self.time_limit)
            .field("max_body", &self.max_body)
            .finish()
    }
}

/// Why there is no answer. Query, user and password of an address may be secret and
/// are not told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request cannot be sent by this client.
    #[error("{uri} cannot be asked: {reason}")]
    Request {
        /// The address.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody was reached, or not whom the roots or the name vouch for.
    #[error("{uri} cannot be reached: {source}")]
    Connect {
        /// The address.
        uri: String,
        /// Why, of the kernel or of TLS.
        source: io::Error,
    },
    /// The answer is not HTTP/1.1, was cut off, or has too long a head.
    #[error("{uri} gave no whole answer: {source}")]
    Http {
        /// The address.
        uri: String,
        /// Why.
        source: hyper::Error,
    },
    /// The answer is larger than allowed.
    #[error("{uri} answered with more than {limit} bytes")]
    TooLarge {
        /// The address.
        uri: String,
        /// The most that is read.
        limit: usize,
    },
    /// The answer was not whole in time.
    #[error("{uri} gave no whole answer within {limit:?}")]
    TimedOut {
        /// The address.
        uri: String,
        /// The most that is waited.
        limit: Duration,
    },
}

/// The value of `authorization` for a bearer token (RFC 6750 section 2.1), which
/// `Debug` does not show. None if the token holds what no header may.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The request as a server wants it (RFC 9112 section 3.2.1): path alone, `host`
/// beside it.
fn origin_form(mut request: Request<Bytes>) -> Option<Request<Bytes>> {
    let authority = request.uri().authority()?;
    // Without user and password, if the address has any.
    let host = authority.as_str().rsplit('@').next()?;
    let host = HeaderValue::from_str(host).ok()?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    let headers = request.headers_mut();
    headers.entry(HOST).or_insert(host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Some(request)
}

/// An address for people: without query, user and password, which may be secret.
fn shown(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or(uri);
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    match scheme {
        "" => format!("{host}{path}"),
        scheme => format!("{scheme}://{host}{path}"),
    }
}
