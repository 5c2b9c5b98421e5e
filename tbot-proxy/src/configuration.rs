//! The configuration: what the file and the command line say, resolved.
//!
//! [`Configuration::read`] reports every mistake of the file in one run, each
//! with line and column (norms of [`config`]). What it returns is complete and
//! checked: a proxy has somebody that it allows, plain sides stay on this
//! machine, no two services want the same address.

mod address;
mod attestors;
mod broker;
mod output;
mod sealed_store;
mod selector;
mod service;
mod workload_api;

use std::{collections::HashMap, fmt, fs, net::SocketAddr, path::PathBuf, time::Duration};

use config::{Fields, Mistakes};
use identity::CaPin;
use proxy::Address;
use secrecy::SecretString;

pub use address::HostPort;
pub use broker::BrokerApi;
pub use output::{AwsOutput, DestinationConfig, Document, Output, PasswordSource};
pub use sealed_store::SealedStoreConfig;
pub use selector::{Selection, Selector};
pub use service::{Service, ServiceKind};
pub use workload_api::WorkloadApi;

pub(crate) use address::SharedAddress;
use address::{parse_diagnostics, parse_listen};
use service::ServiceReader;

/// Life of SVIDs that name none (DESIGN section 5).
const DEFAULT_CREDENTIAL_TTL: Duration = Duration::from_secs(3600);

/// From five seconds (tests, demonstrations) to the X.509 cap (DESIGN section 5).
const CREDENTIAL_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(14 * 86_400);

/// Everything that the agent is told.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Where the issuer is, and how it is recognised at the first join.
    pub issuer: Issuer,
    /// How to join.
    pub onboarding: Onboarding,
    /// Where the bot identity is kept.
    pub storage: Storage,
    /// Where SVIDs outlive a restart; `None`: nowhere.
    pub sealed_store: Option<SealedStoreConfig>,
    /// Where diagnostics listen (loopback), if they do.
    pub diagnostics: Option<SocketAddr>,
    /// Unix socket where the running process is debugged.
    pub debug: Option<PathBuf>,
    /// File that one JSON line a connection is appended to, if any.
    pub connection_log: Option<PathBuf>,
    /// How long live connections may finish when a listener or the process stops.
    pub shutdown_grace: Duration,
    /// The services, in the order of the file, names unique.
    pub services: Vec<Service>,
}

/// The issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its gRPC addresses, at least one: of issuers that share a store, tried in turn.
    pub addresses: Vec<HostPort>,
    /// What its CA is recognised by.
    pub trust: IssuerTrust,
}

/// What the issuer's CA is recognised by at the first join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerTrust {
    /// SHA-256 of the SubjectPublicKeyInfo of a CA; any of them.
    Pins(Vec<CaPin>),
    /// PEM file of CA certificates; any of them.
    CaFile(PathBuf),
}

/// How to join: method `token`.
#[derive(Debug, Clone)]
pub struct Onboarding {
    /// Where the token is; not needed while there is a bot identity.
    pub token: Option<TokenSource>,
}

/// Where the join token is.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// Here. Its `Debug` hides it.
    Value(SecretString),
    /// In this file, white space around it aside.
    File(PathBuf),
}

/// Where the bot identity is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In a directory of our own, 0700.
    Directory(PathBuf),
    /// Nowhere: a restart joins anew.
    Memory,
}

/// What the command line and the environment say; each is stronger than the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `issuer.addresses`.
    pub issuer: Vec<String>,
    /// `issuer.ca_pins`.
    pub ca_pins: Vec<String>,
    /// `onboarding.token`.
    pub token: Option<SecretString>,
    /// `storage`: a path, or `memory`.
    pub storage: Option<String>,
    /// `diagnostics.listen`.
    pub diagnostics: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}: {error}; name one that tbot-proxy may read with -c", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A flag or environment variable has a value that is not one.
    #[error("{flag}: {message}")]
    Override {
        /// The flag and its environment variable.
        flag: &'static str,
        /// What is wrong with the value.
        message: String,
    },
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Where a configuration comes from. `Display` names it.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A text that was made of flags.
    Flags(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Flags(_) => f.write_str("flags"),
        }
    }
}

impl Configuration {
    /// Reads and resolves a configuration.
    pub fn read(source: &Source, overrides: &Overrides) -> Result<Self, ConfigurationError> {
        let text = match source {
            Source::Flags(text) => text.clone(),
            Source::File(path) => {
                fs::read_to_string(path).map_err(|error| ConfigurationError::Unreadable {
                    path: path.to_owned(),
                    error,
                })?
            }
        };
        let overrides = ResolvedOverrides::resolve(overrides)?;
        Ok(Self::parse(&source.to_string(), &text, &overrides)?)
    }

    fn parse(file: &str, text: &str, overrides: &ResolvedOverrides) -> Result<Self, Mistakes> {
        let documents = config::Document::parse_all(file, text)?;
        match documents.as_slice() {
            [document] => document.resolve(|fields| Self::resolve(fields, overrides)),
            [] => Err(Mistakes::one(
                file,
                (1, 1),
                "the file is empty: it begins with `version: v1`",
            )),
            [_, second, ..] => Err(Mistakes::one(
                file,
                second.position(),
                "a second document: one file is one configuration",
            )),
        }
    }

    fn resolve(fields: &mut Fields<'_>, overrides: &ResolvedOverrides) -> Option<Self> {
        fields.required("version", |version| match version {
            "v1" => Ok(()),
            other => Err(format!("`{other}` is not known: this release reads v1")),
        });
        let issuer = issuer(fields, overrides);
        let onboarding = onboarding(fields, overrides);
        let storage = storage(fields, overrides);
        let sealed_store = fields.mapping("sealed_store", |fields| {
            sealed_store::sealed_store(fields, storage.as_ref())
        });
        let diagnostics = fields.mapping("diagnostics", |fields| {
            fields.required("listen", parse_diagnostics)
        });
        let debug = debug(fields, storage.as_ref());
        let connection_log = fields.mapping("connection_log", |fields| {
            fields.required("path", absolute_or_relative_path)
        });
        let default_ttl = credential_ttl(fields).unwrap_or(DEFAULT_CREDENTIAL_TTL);
        let shutdown_grace = fields
            .mapping("shutdown", |fields| {
                let grace = fields.duration("grace", Duration::ZERO..=Duration::from_secs(86_400));
                Some(grace.unwrap_or(DEFAULT_GRACE))
            })
            .unwrap_or(DEFAULT_GRACE);
        let diagnostics = overrides.diagnostics.or(diagnostics);
        let services = services(fields, default_ttl, storage.as_ref(), diagnostics);
        Some(Self {
            issuer: issuer?,
            onboarding: onboarding?,
            storage: storage?,
            sealed_store,
            diagnostics,
            debug,
            connection_log,
            shutdown_grace,
            services,
        })
    }
}

/// `debug`: in the directory of the bot identity unless it says otherwise.
fn debug(fields: &mut Fields<'_>, storage: Option<&Storage>) -> Option<PathBuf> {
    let socket = fields.mapping("debug", |fields| {
        let socket = fields.optional("listen", |text| match parse_listen(text)? {
            Address::Unix(path) => Ok(path),
            Address::Tcp { .. } => Err(format!(
                "`{text}`: it is for the agent's user alone: write unix:///path"
            )),
        });
        Some((fields.boolean("enabled").unwrap_or(true), socket))
    });
    match (socket, storage) {
        (Some((false, _)), _) => None,
        (Some((true, Some(socket))), _) => Some(socket),
        (_, Some(Storage::Directory(storage))) => Some(storage.join("debug.sock")),
        (_, _) => None,
    }
}

const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Overrides, each checked.
#[derive(Debug, Default)]
struct ResolvedOverrides {
    /// None: the file says it.
    issuer: Vec<HostPort>,
    ca_pins: Vec<CaPin>,
    token: Option<SecretString>,
    storage: Option<Storage>,
    diagnostics: Option<SocketAddr>,
}

impl ResolvedOverrides {
    fn resolve(overrides: &Overrides) -> Result<Self, ConfigurationError> {
        let wrong = |flag| move |message| ConfigurationError::Override { flag, message };
        Ok(Self {
            issuer: overrides
                .issuer
                .iter()
                .map(|address| HostPort::parse(address))
                .collect::<Result<_, _>>()
                .map_err(wrong("--issuer (TBOT_ISSUER)"))?,
            ca_pins: overrides
                .ca_pins
                .iter()
                .map(|pin| parse_pin(pin))
                .collect::<Result<_, _>>()
                .map_err(wrong("--ca-pin (TBOT_CA_PIN)"))?,
            token: overrides.token.clone(),
            storage: match overrides.storage.as_deref() {
                None => None,
                Some("memory") => Some(Storage::Memory),
                Some(path) => Some(Storage::Directory(
                    absolute_or_relative_path(path).map_err(wrong("--storage (TBOT_STORAGE)"))?,
                )),
            },
            diagnostics: overrides
                .diagnostics
                .as_deref()
                .map(parse_diagnostics)
                .transpose()
                .map_err(wrong("--diagnostics (TBOT_DIAGNOSTICS)"))?,
        })
    }
}

fn issuer(fields: &mut Fields<'_>, overrides: &ResolvedOverrides) -> Option<Issuer> {
    let complete_without = !overrides.issuer.is_empty() && !overrides.ca_pins.is_empty();
    let resolve = |fields: &mut Fields<'_>| {
        let addresses = issuer_addresses(fields, &overrides.issuer);
        let pins = fields.scalars("ca_pins", parse_pin);
        let file = fields.optional("ca_path", absolute_or_relative_path);
        if fields.has("ca_pins") && fields.has("ca_path") {
            fields.mistake("ca_path", "both `ca_pins` and `ca_path`: remove one");
        }
        let trust = if !overrides.ca_pins.is_empty() {
            Some(IssuerTrust::Pins(overrides.ca_pins.clone()))
        } else if let Some(file) = file {
            Some(IssuerTrust::CaFile(file))
        } else if !pins.is_empty() {
            Some(IssuerTrust::Pins(pins))
        } else {
            if !fields.has("ca_path") && !fields.has("ca_pins") {
                fields.mistake("", "missing key `ca_pins` (or `ca_path`): the issuer is recognised by it; `issuer status` prints its pin");
            } else if fields.has("ca_pins") && fields.count("ca_pins") == 0 {
                fields.mistake(
                    "ca_pins",
                    "`ca_pins`: there is none; `issuer status` prints it",
                );
            }
            None
        };
        Some(Issuer {
            addresses: addresses?,
            trust: trust?,
        })
    };
    if complete_without && !fields.has("issuer") {
        return Some(Issuer {
            addresses: overrides.issuer.clone(),
            trust: IssuerTrust::Pins(overrides.ca_pins.clone()),
        });
    }
    fields.required_mapping("issuer", resolve)
}

/// `address` for one, `addresses` for several; `stronger` if there are any.
fn issuer_addresses(fields: &mut Fields<'_>, stronger: &[HostPort]) -> Option<Vec<HostPort>> {
    let (one, several) = (fields.has("address"), fields.has("addresses"));
    let address = fields.optional("address", HostPort::parse);
    let addresses = fields.scalars("addresses", HostPort::parse);
    if one && several {
        fields.mistake("addresses", "both `address` and `addresses`: remove one");
    } else if several && fields.count("addresses") == 0 {
        fields.mistake("addresses", "`addresses`: there is none; write host:port");
    } else if !one && !several && stronger.is_empty() {
        fields.mistake(
            "",
            "missing key `address` (or `addresses`, of issuers that share a store)",
        );
    }
    let addresses = match (stronger, several) {
        ([], false) => vec![address?],
        ([], true) => addresses,
        (stronger, _) => stronger.to_vec(),
    };
    (!addresses.is_empty()).then_some(addresses)
}

fn onboarding(fields: &mut Fields<'_>, overrides: &ResolvedOverrides) -> Option<Onboarding> {
    let token = fields.required_mapping("onboarding", |fields| {
        let method = fields.required("join_method", |method| match method {
            "token" => Ok(()),
            other => Err(format!(
                "`{other}` is not known: this release joins by `token`"
            )),
        });
        let token = fields.optional("token", |token| Ok(SecretString::from(token)));
        method?;
        Some(token)
    });
    let token = overrides.token.clone().or(token?);
    Some(Onboarding {
        token: token.map(TokenSource::from),
    })
}

impl From<SecretString> for TokenSource {
    /// A value that begins with `/` is the path of a file.
    fn from(value: SecretString) -> Self {
        use secrecy::ExposeSecret;
        if value.expose_secret().starts_with('/') {
            Self::File(PathBuf::from(value.expose_secret()))
        } else {
            Self::Value(value)
        }
    }
}

fn storage(fields: &mut Fields<'_>, overrides: &ResolvedOverrides) -> Option<Storage> {
    if overrides.storage.is_some() && !fields.has("storage") {
        return overrides.storage.clone();
    }
    let storage = fields.required_mapping("storage", |fields| {
        let kind = fields.required("type", |kind| match kind {
            "directory" | "memory" => Ok(kind.to_owned()),
            other => Err(format!("`{other}` is not known: directory or memory")),
        });
        match kind.as_deref() {
            Some("memory") => Some(Storage::Memory),
            Some(_) => Some(Storage::Directory(
                fields.required("path", absolute_or_relative_path)?,
            )),
            None => {
                fields.ignore_rest();
                None
            }
        }
    });
    overrides.storage.clone().or(storage)
}

fn services(
    fields: &mut Fields<'_>,
    default_ttl: Duration,
    storage: Option<&Storage>,
    diagnostics: Option<SocketAddr>,
) -> Vec<Service> {
    let mut reader = ServiceReader {
        default_ttl,
        names: HashMap::new(),
        listeners: diagnostics
            .map(|address| (SharedAddress::from(address), "diagnostics".to_owned()))
            .into_iter()
            .collect(),
        directories: match storage {
            Some(Storage::Directory(path)) => vec![(path.clone(), "storage".to_owned())],
            _ => vec![],
        },
    };
    if !fields.has("services") {
        fields.mistake("", "missing key `services`: at least one is needed");
    }
    let services = fields.mappings("services", |fields| reader.service(fields));
    if fields.has("services") && fields.count("services") == 0 {
        fields.mistake("services", "`services`: at least one is needed");
    }
    services
}

/// `credential_ttl`, of the file or of a service.
fn credential_ttl(fields: &mut Fields<'_>) -> Option<Duration> {
    fields.duration("credential_ttl", CREDENTIAL_TTL)
}

fn parse_pin(text: &str) -> Result<CaPin, String> {
    text.parse().map_err(|error| format!("`{text}`: {error}"))
}

fn absolute_or_relative_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("expected a path, found nothing".to_owned());
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests;
