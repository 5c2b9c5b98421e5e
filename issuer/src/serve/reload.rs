//! SIGHUP: the configuration is read again. With mistakes, each is logged and nothing
//! changes. Else what can change while the issuer runs does, and what cannot is named,
//! one line each.

use std::sync::Arc;

use telemetry::LogLevel;
use tokio::sync::watch;

use crate::{
    api::{admin_socket::SocketFile, limits::Limits},
    config::{ConfigError, Settings, Source},
};

/// What a reload reads and changes. Who follows the settings sees them in the
/// receiver that [`Reload::new`] returns: log level, limits, admin users, `bot_ttl`.
#[derive(Debug)]
pub(super) struct Reload {
    source: Source,
    live: watch::Sender<Arc<Settings>>,
    log_level: LogLevel,
    limits: Arc<Limits>,
    admin_socket: Arc<SocketFile>,
}

impl Reload {
    pub(super) fn new(
        source: Source,
        settings: Settings,
        log_level: LogLevel,
        limits: Arc<Limits>,
        admin_socket: Arc<SocketFile>,
    ) -> (Self, watch::Receiver<Arc<Settings>>) {
        let (live, follow) = watch::channel(Arc::new(settings));
        let reload = Self {
            source,
            live,
            log_level,
            limits,
            admin_socket,
        };
        (reload, follow)
    }

    /// Reads again, and puts in force what can change.
    pub(super) fn reload(&mut self) {
        let Some(file) = self.source.file.as_ref().map(|file| file.display()) else {
            tracing::warn!(
                "SIGHUP: there is no configuration file, so nothing can have changed: name one with --config"
            );
            return;
        };
        let result = match self.source.read() {
            Ok(new) => {
                tracing::info!(%file, "the configuration is reloaded");
                self.put_in_force(new);
                "success"
            }
            Err(error) => {
                complain(&error);
                tracing::error!(%file, "the configuration is not reloaded: the old one goes on");
                "failure"
            }
        };
        metrics::counter!("issuer_config_reloads_total", "result" => result).increment(1);
    }

    fn put_in_force(&self, new: Settings) {
        let old = self.live.borrow().clone();
        if new.log_level != old.log_level
            && let Err(error) = self.log_level.set(&new.log_level)
        {
            tracing::error!(%error, "the log level stays as it is");
        }
        self.limits.set(new.limits);
        if new.admin_uids != old.admin_uids
            && let Err(error) = self.admin_socket.admit(&new.admin_uids)
        {
            tracing::error!(%error, "the mode of the admin socket stays as it is");
        }
        for key in fixed(&old, &new) {
            tracing::warn!(key, "a change that takes effect at the next start");
        }
        self.live.send_replace(Arc::new(kept(&old, new)));
    }
}

fn complain(error: &ConfigError) {
    for mistake in error.mistakes() {
        tracing::error!("{mistake}");
    }
}

/// Keys of what differs and cannot change while the issuer runs. Every setting is named
/// here: a new one does not compile until it is known which sort it is of.
fn fixed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let Settings {
        data_dir,
        database,
        trust_domain,
        default_trust_domain: _,
        listen,
        public_address,
        diagnostics,
        key_file,
        admin_socket,
        admin_uids: _,
        bot_ttl: _,
        lifecycle,
        jwt_issuer,
        log_level: _,
        reflection,
        otlp_endpoint,
        limits: _,
        audit,
    } = new;
    let changed = [
        ("data_dir", old.data_dir != *data_dir),
        ("trust_domain", old.trust_domain != *trust_domain),
        ("listen", old.listen != *listen),
        ("public_address", old.public_address != *public_address),
        ("diagnostics", old.diagnostics != *diagnostics),
        ("database", old.database != *database),
        ("key_file", old.key_file != *key_file),
        ("admin_socket", old.admin_socket != *admin_socket),
        ("ca_ttl", old.lifecycle.life != lifecycle.life),
        ("wit", old.lifecycle.wit != lifecycle.wit),
        ("jwt_issuer", old.jwt_issuer != *jwt_issuer),
        ("reflection", old.reflection != *reflection),
        ("otlp_endpoint", old.otlp_endpoint != *otlp_endpoint),
        ("audit", old.audit != *audit),
    ];
    let changed = changed.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| key).collect()
}

/// What is in force: of the new settings what can change, of the old ones the rest.
fn kept(old: &Settings, new: Settings) -> Settings {
    Settings {
        log_level: new.log_level,
        limits: new.limits,
        admin_uids: new.admin_uids,
        bot_ttl: new.bot_ttl,
        ..old.clone()
    }
}
