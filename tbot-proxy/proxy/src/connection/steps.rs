//! The steps of a connection's path, each with the reasons for which it ends a connection.

use std::{io, sync::Arc, time::SystemTime};

use identity::PeerIdentity;
use policy::Decision;
use relay::{Deadlines, End, HandshakeError, Socket, TlsStream};
use rustls::{ProtocolVersion, pki_types::CertificateDer};
use tokio::time::{Instant, timeout};

use super::Connection;
use crate::{CloseReason, Direction, close_reason::Close, dial::dial, tls::Tls};

impl Connection {
    /// TLS handshake as server, under the SVID of this moment.
    pub(super) async fn accept_tls(&mut self, client: Socket) -> Result<TlsStream, Close> {
        let in_force = self.service.in_force();
        let Tls::Server(tls) = &in_force.tls else {
            return Err(wrong_side());
        };
        self.note_local();
        let config = tls.config().map_err(no_identity)?;
        let limit = in_force.config.limits.handshake;
        self.handshake(limit, relay::accept(client, config)).await
    }

    /// TLS handshake as client, under the SVID of this moment.
    pub(super) async fn connect_tls(&mut self, server: Socket) -> Result<TlsStream, Close> {
        let in_force = self.service.in_force();
        let Tls::Client(tls, name) = &in_force.tls else {
            return Err(wrong_side());
        };
        self.note_local();
        let config = tls.config().map_err(no_identity)?;
        let limit = in_force.config.limits.handshake;
        self.handshake(limit, relay::connect(server, config, name.clone()))
            .await
    }

    async fn handshake(
        &mut self,
        limit: std::time::Duration,
        handshake: impl Future<Output = Result<TlsStream, HandshakeError>>,
    ) -> Result<TlsStream, Close> {
        let begun = Instant::now();
        let tls = match timeout(limit, handshake).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return Err(of_handshake(self.service.direction, &error)),
            Err(_) => {
                return Err(Close::new(
                    CloseReason::HandshakeTimeout,
                    format_args!("not complete within {limit:?}"),
                ));
            }
        };
        self.resumed = tls.resumed();
        self.tls_version = match tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some("TLSv1_3"),
            Some(ProtocolVersion::TLSv1_2) => Some("TLSv1_2"),
            _ => None,
        };
        self.service.meters.handshake(begun.elapsed(), self.resumed);
        Ok(tls)
    }

    /// Lets the peer in, or says why not: identify, register, authorize, in this order, after every handshake, resumed
    /// ones too (DESIGN D3: rustls does not verify a chain again when it resumes).
    ///
    /// **Register before authorize.** A change of policy is first put in force and then walks the registry. A
    /// connection registered before that walk is found by it; one registered after it reads the new
    /// policy below. With the two steps exchanged, a connection could read the old policy and register after the walk,
    /// and live on. Trust is read before registration, for the registry needs to know the peer, so it
    /// is checked once more afterwards if it has changed meanwhile.
    pub(super) fn admit(&mut self, chain: &[CertificateDer<'static>]) -> Result<(), Close> {
        let trust = self.service.trust_generation();
        let peer = self.identify(chain)?;
        self.register(peer)?;
        if self.service.trust_generation() != trust {
            self.identify(chain)?;
        }
        self.authorize()
    }

    /// Who the peer is now, by its chain and the trust of this moment.
    fn identify(&self, chain: &[CertificateDer<'static>]) -> Result<PeerIdentity, Close> {
        let peer = self
            .service
            .in_force()
            .tls
            .identify(chain, SystemTime::now())
            .map_err(|error| Close::new(CloseReason::PeerUnverified, error));
        #[cfg(test)]
        self.service.between_steps.reached("identified");
        peer
    }

    /// Puts the connection under its peer, from where changes of policy and trust find it.
    fn register(&mut self, peer: PeerIdentity) -> Result<(), Close> {
        self.registered = self.service.registry.register(&self.live, peer);
        #[cfg(test)]
        self.service.between_steps.reached("registered");
        match self.registered {
            Some(_) => Ok(()),
            None => Err(self
                .live
                .take_cut()
                .unwrap_or_else(|| CloseReason::Overload.into())),
        }
    }

    /// Whether the peer may, by the policy of this moment.
    fn authorize(&mut self) -> Result<(), Close> {
        let Some(registered) = &self.registered else {
            return Err(Close::new(
                CloseReason::InternalError,
                "authorized before registered",
            ));
        };
        let in_force = self.service.in_force();
        let decision = in_force.config.peers.decide(&registered.identity.id);
        #[cfg(test)]
        self.service.between_steps.reached("authorized");
        let reason = match decision {
            Decision::Allowed(rule) => {
                self.rule = Some(rule.to_string());
                return Ok(());
            }
            Decision::Denied(rule) => {
                self.rule = Some(rule.to_string());
                CloseReason::PeerDenied
            }
            Decision::NotAllowed => CloseReason::PeerNotAllowed,
        };
        Err(Close::new(reason, decision))
    }

    /// Connects to the application, or to the peer.
    pub(super) async fn dial(&mut self) -> Result<Socket, Close> {
        let in_force = self.service.in_force();
        let config = &in_force.config;
        let (server, answered) =
            dial(&config.connect, config.limits.dial, &self.service.resolver).await?;
        self.server_addr = Some(answered);
        Ok(server)
    }

    /// Carries bytes both ways. Not an `async fn`: that would be one more layer of state in every idle connection.
    pub(super) fn relay(&self, tls: TlsStream, plain: Socket) -> impl Future<Output = End> + use<> {
        let limits = self.service.in_force().config.limits;
        let deadlines = Deadlines {
            idle: limits.idle,
            half_close: limits.half_close,
        };
        relay::relay(tls, plain, deadlines, Arc::clone(&self.live.counters))
    }

    /// Takes down which SVID is shown. Not the SVID itself: its key must not outlive it here.
    fn note_local(&mut self) {
        let identity = self.service.source.current();
        self.local = identity
            .svid
            .as_ref()
            .map(|svid| (svid.id().clone(), svid.serial().clone()));
    }
}

fn no_identity(error: impl std::fmt::Display) -> Close {
    Close::new(CloseReason::NoIdentity, error)
}

fn wrong_side() -> Close {
    Close::new(
        CloseReason::InternalError,
        "TLS options of the other direction",
    )
}

/// The local client's socket failed before anything was relayed.
pub(super) fn of_client(error: io::Error) -> Close {
    Close::new(CloseReason::AppReset, error)
}

fn of_handshake(direction: Direction, error: &HandshakeError) -> Close {
    let gone = match error {
        HandshakeError::Closed => true,
        HandshakeError::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        HandshakeError::Tls(_) => false,
    };
    let reason = match error {
        HandshakeError::Tls(
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented,
        ) => CloseReason::PeerUnverified,
        _ if gone && direction == Direction::Inbound => CloseReason::ClientClosedEarly,
        _ => CloseReason::HandshakeFailed,
    };
    Close::new(reason, error)
}

pub(super) fn of_end(end: End) -> Close {
    match end {
        End::Complete => CloseReason::Complete.into(),
        End::IdleTimeout => CloseReason::IdleTimeout.into(),
        End::HalfCloseTimeout => CloseReason::HalfCloseTimeout.into(),
        End::TlsSocket(error) => Close::new(CloseReason::PeerReset, error),
        End::TlsTruncated => CloseReason::TlsTruncated.into(),
        End::Tls(error) => Close::new(CloseReason::TlsError, error),
        End::PlainSocket(error) => Close::new(CloseReason::AppReset, error),
        other => Close::new(CloseReason::InternalError, format_args!("{other:?}")),
    }
}
