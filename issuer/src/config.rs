//! Configuration of `issuer serve`, in two stages: what the operator typed
//! ([`Given`], from flags, `ISSUER_…` and a YAML file) and what was resolved
//! ([`Settings`]). Flag before environment before file before default. [`Source`]
//! remembers where both came from, so that a reload reads them again.

mod audit;
mod limits;

use std::{
    convert::Infallible,
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ::config::{Document, Fields, Mistakes, format_duration, parse_duration};
use identity::TrustDomain;
use telemetry::LogLevel;

use crate::{
    authority::{
        CA_LIFE, Lifecycle,
        lifecycle::{LIFE_MAX, LIFE_MIN},
    },
    join::DEFAULT_BOT_TTL,
    store::Database,
};

pub use self::{
    audit::{AuditGiven, AuditSettings},
    limits::LimitSettings,
};

/// Where the state lies if nothing is said.
pub const DEFAULT_DATA_DIR: &str = "./issuer-data";
/// Where agents connect if nothing is said.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:3025";
/// Where probes and scrapers connect if nothing is said.
pub const DEFAULT_DIAGNOSTICS: &str = "127.0.0.1:3081";
/// The trust domain of a new store if nothing is said.
pub const DEFAULT_TRUST_DOMAIN: &str = "example.org";
/// Name of the admin socket in the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// What the log lets through if nothing is said.
pub const DEFAULT_LOG_LEVEL: &str = "info";
const BOT_TTL_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// What was said, in one place (flags and environment, or the file).
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `--data-dir`, `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `--database`, `database`.
    pub database: Option<DatabaseUrl>,
    /// `--trust-domain`, `trust_domain`.
    pub trust_domain: Option<String>,
    /// `--listen`, `listen`.
    pub listen: Option<String>,
    /// `--public-address`, `public_address`.
    pub public_address: Option<String>,
    /// `--diagnostics`, `diagnostics`.
    pub diagnostics: Option<String>,
    /// `--diagnostics-anywhere`, `diagnostics_anywhere`.
    pub diagnostics_anywhere: Option<bool>,
    /// `--key-file`, `key_file`.
    pub key_file: Option<PathBuf>,
    /// `--socket`, `admin_socket`.
    pub admin_socket: Option<PathBuf>,
    /// `--admin-uid`, `admin_uids`.
    pub admin_uids: Vec<u32>,
    /// `--bot-ttl`, `bot_ttl`.
    pub bot_ttl: Option<String>,
    /// `--ca-ttl`, `ca_ttl`.
    pub ca_ttl: Option<String>,
    /// `--wit`, `wit`.
    pub wit: Option<bool>,
    /// `--jwt-issuer`, `jwt_issuer`.
    pub jwt_issuer: Option<String>,
    /// `--log-level`, `log_level`.
    pub log_level: Option<String>,
    /// `--reflection`, `reflection`.
    pub reflection: Option<bool>,
    /// `--otlp-endpoint`, `otlp_endpoint`.
    pub otlp_endpoint: Option<String>,
    /// `limits`, in the file only.
    pub limits: Option<LimitSettings>,
    /// `audit` and the flags that begin with `--audit`.
    pub audit: AuditGiven,
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Flags and environment.
    pub given: Given,
    /// The file, if one was named.
    pub file: Option<PathBuf>,
}

impl Source {
    /// Reads the file and resolves; every mistake is reported.
    pub fn read(&self) -> Result<Settings, ConfigError> {
        let file = match &self.file {
            Some(path) => Given::from_file(path)?,
            None => Given::default(),
        };
        self.given.clone().or(file).resolve()
    }
}

impl Given {
    /// Reads the configuration file. Every mistake is reported, each with
    /// `file:line:column`.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::one(format!(
                "the configuration file {name:?} cannot be read ({error}): correct --config"
            ))
        })?;
        let mistakes =
            |mistakes: Mistakes| ConfigError(mistakes.iter().map(ToString::to_string).collect());
        let documents = Document::parse_all(&name, &text).map_err(mistakes)?;
        match documents.as_slice() {
            [] => Ok(Self::default()),
            [document] => document.resolve(read).map_err(mistakes),
            [_, second, ..] => {
                let (line, column) = second.position();
                Err(ConfigError::one(format!(
                    "{name}:{line}:{column}: a second document: one file holds one configuration"
                )))
            }
        }
    }

    /// What was said here, else there.
    pub fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            database: self.database.or(other.database),
            trust_domain: self.trust_domain.or(other.trust_domain),
            listen: self.listen.or(other.listen),
            public_address: self.public_address.or(other.public_address),
            diagnostics: self.diagnostics.or(other.diagnostics),
            diagnostics_anywhere: self.diagnostics_anywhere.or(other.diagnostics_anywhere),
            key_file: self.key_file.or(other.key_file),
            admin_socket: self.admin_socket.or(other.admin_socket),
            admin_uids: match self.admin_uids.is_empty() {
                true => other.admin_uids,
                false => self.admin_uids,
            },
            bot_ttl: self.bot_ttl.or(other.bot_ttl),
            ca_ttl: self.ca_ttl.or(other.ca_ttl),
            wit: self.wit.or(other.wit),
            jwt_issuer: self.jwt_issuer.or(other.jwt_issuer),
            log_level: self.log_level.or(other.log_level),
            reflection: self.reflection.or(other.reflection),
            otlp_endpoint: self.otlp_endpoint.or(other.otlp_endpoint),
            limits: self.limits.or(other.limits),
            audit: self.audit.or(other.audit),
        }
    }

    /// Resolves to what the issuer runs with; every mistake is reported.
    pub fn resolve(self) -> Result<Settings, ConfigError> {
        let mut wrong = Vec::new();
        let data_dir = self
            .data_dir
            .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
        let listen = self.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        let listen = checked(&mut wrong, parse_address("listen", listen));
        let diagnostics = self.diagnostics.as_deref().unwrap_or(DEFAULT_DIAGNOSTICS);
        let diagnostics = checked(&mut wrong, parse_address("diagnostics", diagnostics));
        let bot_ttl = match &self.bot_ttl {
            None => Some(DEFAULT_BOT_TTL),
            Some(text) => checked(&mut wrong, parse_bot_ttl(text)),
        };
        let ca_ttl = match &self.ca_ttl {
            None => Some(CA_LIFE),
            Some(text) => checked(&mut wrong, parse_ca_ttl(text)),
        };
        if let Some(address) = &self.public_address {
            checked(&mut wrong, check_host_port(address));
        }
        if let Some(address) = diagnostics
            && !self.diagnostics_anywhere.unwrap_or(false)
            && !address.ip().is_loopback()
        {
            wrong.push(format!(
                "diagnostics {address} can be reached from other machines, unencrypted and by anybody: \
                 choose a loopback address as {DEFAULT_DIAGNOSTICS}, or add --diagnostics-anywhere"
            ));
        }
        let admin_socket = self
            .admin_socket
            .unwrap_or_else(|| data_dir.join(ADMIN_SOCKET));
        if !self.admin_uids.is_empty() && is_inside(&admin_socket, &data_dir) {
            wrong.push(format!(
                "--admin-uid lets nobody in while the admin socket {admin_socket:?} is in the data directory {data_dir:?}, \
                 which is closed to other users: choose a place outside it with --socket"
            ));
        }
        let log_level = self
            .log_level
            .unwrap_or_else(|| DEFAULT_LOG_LEVEL.to_owned());
        checked(&mut wrong, parse_log_level(&log_level));
        if let Some(endpoint) = &self.otlp_endpoint {
            checked(&mut wrong, parse_otlp_endpoint(endpoint));
        }
        if let Some(url) = &self.jwt_issuer {
            checked(&mut wrong, check_jwt_issuer(url));
        }
        let trust_domain = self
            .trust_domain
            .as_deref()
            .and_then(|name| checked(&mut wrong, parse_trust_domain(name)));
        let default = checked(&mut wrong, parse_trust_domain(DEFAULT_TRUST_DOMAIN));
        let database = self.database.as_ref();
        let database = database.and_then(|url| checked(&mut wrong, url.resolve()));
        let shared = matches!(database, Some(Database::Postgres(_)));
        let audit = checked(&mut wrong, self.audit.resolve(shared)).unwrap_or_default();
        match (listen, diagnostics, bot_ttl, ca_ttl, default) {
            (
                Some(listen),
                Some(diagnostics),
                Some(bot_ttl),
                Some(ca_ttl),
                Some(default_trust_domain),
            ) if wrong.is_empty() => Ok(Settings {
                database,
                trust_domain,
                default_trust_domain,
                listen,
                diagnostics,
                public_address: self.public_address,
                key_file: self.key_file,
                admin_socket,
                admin_uids: self.admin_uids,
                bot_ttl,
                jwt_issuer: self.jwt_issuer,
                lifecycle: Lifecycle {
                    life: ca_ttl,
                    wit: self.wit.unwrap_or(false),
                },
                data_dir,
                log_level,
                reflection: self.reflection.unwrap_or(false),
                otlp_endpoint: self.otlp_endpoint,
                limits: self.limits.unwrap_or_default(),
                audit,
            }),
            _ => Err(ConfigError(wrong)),
        }
    }
}

/// The value, unless it is a mistake: then that is noted.
fn checked<T>(wrong: &mut Vec<String>, value: Result<T, String>) -> Option<T> {
    value.map_err(|mistake| wrong.push(mistake)).ok()
}

/// Resolved configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the state lies.
    pub data_dir: PathBuf,
    /// The database of the state, if it is not in the data directory.
    pub database: Option<Database>,
    /// The trust domain, if one was named.
    pub trust_domain: Option<TrustDomain>,
    /// What it is for a new store if none was named.
    pub default_trust_domain: TrustDomain,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// What agents are told to connect to, if it is not `listen`.
    pub public_address: Option<String>,
    /// Where probes and scrapers connect.
    pub diagnostics: SocketAddr,
    /// The key file, if one was named.
    pub key_file: Option<PathBuf>,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Users who may administrate beside root and the issuer's own.
    pub admin_uids: Vec<u32>,
    /// Life of bot certificates.
    pub bot_ttl: Duration,
    /// Life of the issuer's keys, and which there are.
    pub lifecycle: Lifecycle,
    /// `iss` of JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// What the log lets through.
    pub log_level: String,
    /// Whether agents may ask which services there are (gRPC reflection).
    pub reflection: bool,
    /// Where traces go.
    pub otlp_endpoint: Option<String>,
    /// What one caller may ask for.
    pub limits: LimitSettings,
    /// Where records go beside the store.
    pub audit: AuditSettings,
}

fn read(fields: &mut Fields<'_>) -> Option<Given> {
    let text = |text: &str| Ok(text.to_owned());
    let path = |text: &str| Ok(PathBuf::from(text));
    Some(Given {
        data_dir: fields.optional("data_dir", path),
        database: fields.optional("database", |text| {
            let url = DatabaseUrl(text.to_owned());
            url.resolve()?;
            Ok(url)
        }),
        trust_domain: fields.optional("trust_domain", |text| {
            parse_trust_domain(text).map(|trust_domain| trust_domain.to_string())
        }),
        listen: fields.optional("listen", |text| {
            parse_address("listen", text).map(|_| text.to_owned())
        }),
        public_address: fields.optional("public_address", |text| {
            check_host_port(text).map(|()| text.to_owned())
        }),
        diagnostics: fields.optional("diagnostics", |text| {
            parse_address("diagnostics", text).map(|_| text.to_owned())
        }),
        diagnostics_anywhere: fields.optional("diagnostics_anywhere", |text| {
            text.parse()
                .map_err(|_| format!("{text:?} is neither true nor false"))
        }),
        key_file: fields.optional("key_file", path),
        admin_socket: fields.optional("admin_socket", path),
        admin_uids: fields.scalars("admin_uids", |text| {
            text.parse()
                .map_err(|_| format!("{text:?} is not a user id: write a number"))
        }),
        bot_ttl: fields.optional("bot_ttl", |value| {
            parse_bot_ttl(value)?;
            text(value)
        }),
        ca_ttl: fields.optional("ca_ttl", |value| {
            parse_ca_ttl(value)?;
            text(value)
        }),
        wit: fields.optional("wit", |text| {
            text.parse()
                .map_err(|_| format!("{text:?} is neither true nor false"))
        }),
        jwt_issuer: fields.optional("jwt_issuer", |value| {
            check_jwt_issuer(value)?;
            text(value)
        }),
        log_level: fields.optional("log_level", |value| {
            parse_log_level(value)?;
            text(value)
        }),
        reflection: fields.boolean("reflection"),
        otlp_endpoint: fields.optional("otlp_endpoint", |value| {
            parse_otlp_endpoint(value)?;
            text(value)
        }),
        limits: fields.mapping("limits", LimitSettings::read),
        audit: fields
            .mapping("audit", AuditGiven::read)
            .unwrap_or_default(),
    })
}

/// An issuer identifier: an https URL without query and fragment (OpenID Connect
/// Discovery 1.0, section 3).
fn check_jwt_issuer(text: &str) -> Result<(), String> {
    let host = text.strip_prefix("https://").unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || host.starts_with('/') || !is_plain || text.contains(['?', '#', '"', '\\'])
    {
        return Err(format!(
            "{text:?} is no issuer URL: write https://host, without query and fragment"
        ));
    }
    Ok(())
}

/// Whether `file` lies in `directory` or below, neither of which need exist.
fn is_inside(file: &Path, directory: &Path) -> bool {
    let resolved = |path: &Path| {
        let found = path.canonicalize().or_else(|_| std::path::absolute(path));
        found.unwrap_or_else(|_| path.to_owned())
    };
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    resolved(parent).starts_with(resolved(directory))
}

fn parse_trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| {
        format!(
            "the trust domain {text:?} is not accepted ({error}): write a name such as example.org"
        )
    })
}

fn parse_log_level(text: &str) -> Result<(), String> {
    LogLevel::check(text).map_err(|error| error.to_string())
}

fn parse_otlp_endpoint(text: &str) -> Result<(), String> {
    telemetry::check_collector(text).map_err(|error| error.to_string())
}

fn parse_bot_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if ttl.subsec_nanos() == 0 && BOT_TTL_RANGE.contains(&ttl) {
        return Ok(ttl);
    }
    Err(format!(
        "bot_ttl {text:?} is not accepted: whole seconds from {} to {}",
        format_duration(*BOT_TTL_RANGE.start()),
        format_duration(*BOT_TTL_RANGE.end())
    ))
}

fn parse_ca_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if ttl.subsec_nanos() == 0 && (LIFE_MIN..=LIFE_MAX).contains(&ttl) {
        return Ok(ttl);
    }
    Err(format!(
        "ca_ttl {text:?} is not accepted: whole seconds from {} to {}",
        format_duration(LIFE_MIN),
        format_duration(LIFE_MAX)
    ))
}

/// `host:port`, `ip:port` or `:port`.
fn parse_address(what: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{what} {text:?} is not an address: write ip:port, as {DEFAULT_LISTEN}");
    if let Some(port) = text.strip_prefix(':') {
        let port: u16 = port.parse().map_err(|_| wrong())?;
        return Ok(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    check_host_port(text).map_err(|_| wrong())?;
    text.to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(wrong)
}

fn check_host_port(text: &str) -> Result<(), String> {
    let parts = text.rsplit_once(':');
    let fits = parts.is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|character: char| character.is_whitespace() || character == '/')
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    match fits {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not an address: write host:port, as issuer.example.org:3025"
        )),
    }
}

/// The address of a database, as it was given: it may hold a password, and is shown
/// nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Checks it.
    pub fn resolve(&self) -> Result<Database, String> {
        Database::postgres(&self.0).map_err(|error| error.to_string())
    }
}

impl FromStr for DatabaseUrl {
    // It is checked later: who parses arguments would show what it refuses.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// What is wrong with the configuration: one line a mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    fn one(mistake: String) -> Self {
        Self(vec![mistake])
    }

    /// Each mistake, on one line.
    pub fn mistakes(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
