//! Joining: a token for a first bot identity.
//!
//! The agent has no trust bundle yet. It knows the issuer by the pin of its CA,
//! and sends the token only after the handshake has shown that CA and the name
//! `spiffe://<td>/issuer` under it.
//!
//! A token works once, but for whoever repeats the join with the same key (an answer can
//! get lost). So the key is kept, in the storage if there is one, before the token is sent.

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use identity::{CaPin, ClientOptions, TlsError, TrustBundleSet, pinned_client_config};
use proto::join::v1::{
    AgentInfo, BotCertificate, JoinRequest, TokenEvidence, TrustBundle, join_request::Evidence,
    join_service_client::JoinServiceClient,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use tonic::Code;

use crate::{
    configuration::{HostPort, IssuerTrust, Onboarding, TokenSource},
    key::{Key, KeyError, time_of},
    link::{CallError, IssuerLink, LinkError, channel_over, one_call, open},
    state::rfc3339,
    storage::{BotStorage, JoinKey, PendingKey, State, StorageError, Stored, TokenDigest},
    trust::read_bundle,
};

/// Path of the issuer's SPIFFE ID (DESIGN section 5).
const ISSUER_PATH: &str = "/issuer";

/// Joins once, with the key that `keys` has for the token.
pub(crate) async fn join(
    link: &IssuerLink,
    trust: &IssuerTrust,
    onboarding: &Onboarding,
    keys: &mut JoinKeys,
) -> Result<Stored, JoinError> {
    let token = onboarding.token.as_ref().ok_or(JoinError::NoToken)?;
    let token = read_token(token)?;
    let pins = pins(trust)?;
    let options = ClientOptions {
        alpn: vec![b"h2".to_vec()],
        ..ClientOptions::default()
    };
    let config = pinned_client_config(&pins, ISSUER_PATH, &options).map_err(LinkError::from)?;
    let connect = |address: HostPort| {
        let config = config.clone();
        async move {
            let stream = open(&address, config).await?;
            match channel_over(stream).await {
                Ok(channel) => Ok((channel, address)),
                Err(error) => Err(LinkError::Away { address, error }),
            }
        }
    };
    let addresses = link.addresses();
    let (channel, address) = addresses.connect(connect).await?;
    let place = addresses.place();
    let key = keys.key_for(&token).await?;
    let request = JoinRequest {
        csr_der: key.csr(),
        evidence: Some(Evidence::Token(TokenEvidence {
            token: token.expose_secret().to_owned(),
        })),
        agent: Some(agent_info()),
    };
    let answer = one_call(JoinServiceClient::new(channel).join(request))
        .await
        .map_err(|error| match error {
            CallError::Refused { code, message } => JoinError::Refused {
                address,
                code,
                message,
            },
            other => {
                addresses.leave(place);
                JoinError::Call(other)
            }
        })?;
    let stored =
        stored(&key, answer.certificate, answer.trust_bundle, None).map_err(JoinError::Answer)?;
    let (not_after, now) = (stored.svid.not_after(), SystemTime::now());
    if not_after <= now {
        return Err(JoinError::Clock(expired_on_arrival(not_after, now)));
    }
    Ok(stored)
}

/// The keys of joins, each for one token.
#[derive(Debug)]
pub(crate) struct JoinKeys {
    storage: Arc<BotStorage>,
    last: Option<JoinKey>,
}

impl JoinKeys {
    pub(crate) fn new(storage: Arc<BotStorage>) -> Self {
        Self {
            storage,
            last: None,
        }
    }

    /// The key that this token was sent with before, else a new one, which is kept first.
    async fn key_for(&mut self, token: &SecretString) -> Result<Key, JoinError> {
        let token = TokenDigest::of(token.expose_secret());
        let storage = self.storage.clone();
        let last = self.last.take();
        let kept = tokio::task::spawn_blocking(move || -> Result<_, JoinError> {
            let last = match last {
                Some(last) => Some(last),
                None => storage.join_key()?,
            };
            if let Some(last) = last.filter(|last| last.token == token)
                && let Ok(key) = Key::from_pem(&last.key.0)
            {
                return Ok((key, last));
            }
            let key = Key::generate()?;
            let new = JoinKey {
                token,
                key: PendingKey(key.pem()),
            };
            storage.keep_join_key(&new)?;
            Ok((key, new))
        });
        let (key, last) = kept
            .await
            .map_err(|error| StorageError::Unfinished(error.to_string()))??;
        self.last = Some(last);
        Ok(key)
    }
}

/// What an answer of `Join` or `Renew` makes with the key that it was asked for. Whether
/// it is valid by our clock is for the caller to see.
pub(crate) fn stored(
    key: &Key,
    certificate: Option<BotCertificate>,
    bundle: Option<TrustBundle>,
    renew_epoch: Option<u64>,
) -> Result<Stored, String> {
    let certificate = certificate.ok_or("it holds no certificate")?;
    let bundle = read_bundle(&bundle.ok_or("it holds no trust bundle")?)?;
    let renew_at = time_of(certificate.renew_at)
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_secs());
    let svid = key
        .certified(certificate.chain_der)
        .map_err(|error| error.to_string())?;
    if svid.id().trust_domain() != *bundle.trust_domain() {
        return Err(format!(
            "the certificate is of {}, the trust bundle of {}",
            svid.id(),
            bundle.trust_domain()
        ));
    }
    Ok(Stored {
        svid: Arc::new(svid),
        bundles: TrustBundleSet::new([bundle]),
        next_key: None,
        state: State {
            bot_name: certificate.bot_name,
            instance_id: certificate.instance_id,
            generation: certificate.generation,
            renew_at,
            renew_epoch,
        },
    })
}

/// What to say of a certificate of the issuer that has expired when it arrives.
pub(crate) fn expired_on_arrival(not_after: SystemTime, now: SystemTime) -> String {
    format!(
        "the certificate is valid until {}, and by the clock of this machine it is {}: set the clock",
        rfc3339(not_after),
        rfc3339(now)
    )
}

/// What the agent says of itself.
pub(crate) fn agent_info() -> AgentInfo {
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    AgentInfo {
        hostname: hostname.trim().chars().take(255).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn read_token(source: &TokenSource) -> Result<SecretString, JoinError> {
    let token = match source {
        TokenSource::Value(token) => token.clone(),
        TokenSource::File(path) => {
            let text = fs::read_to_string(path).map_err(|error| JoinError::TokenFile {
                path: path.clone(),
                error,
            })?;
            SecretString::from(text.trim())
        }
    };
    if token.expose_secret().is_empty() {
        return Err(JoinError::NoToken);
    }
    Ok(token)
}

fn pins(trust: &IssuerTrust) -> Result<Vec<CaPin>, JoinError> {
    let path = match trust {
        IssuerTrust::Pins(pins) => return Ok(pins.clone()),
        IssuerTrust::CaFile(path) => path,
    };
    let failed = |error: String| JoinError::CaFile {
        path: path.clone(),
        error,
    };
    let pins = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(error.to_string()))?
        .iter()
        .map(CaPin::of_certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    if pins.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    Ok(pins)
}

/// How long to wait for the issuer's word before going on without it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Why the agent has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is none.
    #[error(
        "no join token: set TBOT_TOKEN, or onboarding.token to the token or the path of its file; `issuer bot add NAME` prints one"
    )]
    NoToken,
    /// Its file cannot be read.
    #[error("join token: cannot read {}: {error}; give onboarding.token the path of a file that tbot-proxy may read, or set TBOT_TOKEN", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The CA file cannot be read.
    #[error("issuer.ca_path: cannot read {}: {error}; it holds the issuer's CA in PEM", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The call has no answer.
    #[error(transparent)]
    Call(CallError),
    /// The issuer says no.
    #[error(
        "issuer {address} refuses the join token ({message}): it is wrong, used or expired; `issuer bot add NAME` prints a new one"
    )]
    Refused {
        /// Where it is.
        address: HostPort,
        /// gRPC status code.
        code: Code,
        /// Its words.
        message: String,
    },
    /// The answer cannot be used.
    #[error("the issuer's answer cannot be used: {0}")]
    Answer(String),
    /// It has expired by our clock. The join is repeated until the clock is right.
    #[error("the agent has joined, but {0}; it goes on by itself then")]
    Clock(String),
    /// The key of the join cannot be kept, or what was kept is not usable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no key.
    #[error("{0}")]
    Key(String),
}

impl JoinError {
    /// Whether trying again is no use until somebody changes something.
    pub(crate) fn is_definitive(&self) -> bool {
        match self {
            Self::Link(error) => error.is_impostor(),
            Self::Call(_) | Self::Clock(_) | Self::Storage(_) => false,
            _ => true,
        }
    }
}

impl From<KeyError> for JoinError {
    fn from(error: KeyError) -> Self {
        Self::Key(error.to_string())
    }
}

impl From<TlsError> for JoinError {
    fn from(error: TlsError) -> Self {
        Self::Link(LinkError::Tls(error))
    }
}
