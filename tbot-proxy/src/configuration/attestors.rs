//! `attestors`: what is found out about local processes.

use std::{env, path::PathBuf, time::Duration};

use attest::{
    Config, EngineConfig, KubeletVerification, KubernetesConfig, SystemdConfig, UnixConfig,
};
use config::Fields;

#[cfg(feature = "sigstore")]
mod sigstore;
#[cfg(test)]
mod tests;

/// The variable with the name of this node of Kubernetes, from the downward API.
const NODE_NAME: &str = "TBOT_NODE_NAME";

/// Of the time that each attestor may take.
const MIN_LIMIT: Duration = Duration::from_millis(100);
const MAX_LIMIT: Duration = Duration::from_secs(60);

/// Reads the mapping `attestors`. `unix` is always on, the others where named.
pub(super) fn attestors(fields: &mut Fields<'_>) -> Option<Config> {
    let mut config = Config::default();
    if let Some(unix) = fields.mapping("unix", unix) {
        config.unix = unix;
    }
    if fields.mapping("systemd", enabled) == Some(true) {
        config.systemd = Some(SystemdConfig::default());
    }
    let docker = |fields: &mut Fields<'_>| engine(fields, EngineConfig::docker());
    let podman = |fields: &mut Fields<'_>| engine(fields, EngineConfig::podman());
    config.docker = fields.mapping("docker", docker).flatten();
    config.podman = fields.mapping("podman", podman).flatten();
    config.kubernetes = fields.mapping("kubernetes", kubernetes).flatten();
    #[cfg(feature = "sigstore")]
    {
        config.sigstore = fields.mapping("sigstore", sigstore::sigstore).flatten();
        let says_which_image = ["docker", "podman", "kubernetes"];
        if config.sigstore.is_some() && !says_which_image.iter().any(|name| fields.has(name)) {
            fields.mistake("sigstore", sigstore::OF_WHICH_IMAGE);
        }
    }
    #[cfg(not(feature = "sigstore"))]
    if fields.has("sigstore") {
        let message = "this tbot-proxy was built without the cargo feature `sigstore`";
        fields.mistake("sigstore", message);
    }
    if let Some(limit) = fields.duration("time_limit", MIN_LIMIT..=MAX_LIMIT) {
        config.time_limit = limit;
    }
    Some(config)
}

/// `{}` and `{enabled: true}` switch on.
fn enabled(fields: &mut Fields<'_>) -> Option<bool> {
    Some(fields.boolean("enabled").unwrap_or(true))
}

fn unix(fields: &mut Fields<'_>) -> Option<UnixConfig> {
    let mut unix = UnixConfig::default();
    if let Some(hash) = fields.boolean("binary_hash") {
        unix.hash = hash;
    }
    if let Some(most) = fields.integer("binary_hash_max_size_bytes", 1..=u64::MAX / 2) {
        unix.max_hashed = most;
    }
    if let Some(foreign) = fields.boolean("foreign_paths") {
        unix.foreign_paths = foreign;
    }
    Some(unix)
}

fn engine(fields: &mut Fields<'_>, mut engine: EngineConfig) -> Option<Option<EngineConfig>> {
    let enabled = enabled(fields)?;
    if let Some(socket) = fields.optional("addr", parse_socket) {
        engine.socket = socket;
    }
    Some(enabled.then_some(engine))
}

fn parse_socket(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(format!(
            "`{text}` is no Unix socket: write unix:///run/docker.sock"
        )),
    }
}

fn kubernetes(fields: &mut Fields<'_>) -> Option<Option<KubernetesConfig>> {
    let enabled = enabled(fields)?;
    let kubelet = if fields.has("kubelet") {
        fields.mapping("kubelet", |fields| kubelet(fields, enabled))
    } else {
        let host = node(fields, "kubernetes", None, enabled);
        host.map(|host| KubernetesConfig::new(format!("https://{host}:10250")))
    };
    Some(kubelet.filter(|_| enabled))
}

fn kubelet(fields: &mut Fields<'_>, enabled: bool) -> Option<KubernetesConfig> {
    let host = fields.optional("host", parse_host);
    let secure = fields.integer("secure_port", 1..=65535).unwrap_or(10250);
    let read_only = fields.integer("read_only_port", 1..=65535);
    let token = fields.optional("token_path", path);
    let ca = fields.optional("ca_path", path);
    let skip = fields.boolean("skip_verify").unwrap_or(false);
    let anonymous = fields.boolean("anonymous").unwrap_or(false);
    if skip && ca.is_some() {
        fields.mistake(
            "skip_verify",
            "`skip_verify` and `ca_path` are opposites: leave one out",
        );
    }
    if anonymous && token.is_some() {
        fields.mistake(
            "anonymous",
            "`anonymous` and `token_path` are opposites: leave one out",
        );
    }
    let mut kubelet = match read_only {
        // In the clear, and asks for no token: none is sent.
        Some(port) => {
            let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
            let mut kubelet = KubernetesConfig::new(format!("http://{host}:{port}"));
            kubelet.token = None;
            return Some(kubelet);
        }
        None => {
            let host = node(fields, "host", host, enabled)?;
            KubernetesConfig::new(format!("https://{host}:{secure}"))
        }
    };
    if anonymous {
        kubelet.token = None;
    } else if let Some(token) = token {
        kubelet.token = Some(token);
    }
    if skip {
        kubelet.verification = KubeletVerification::None;
    } else if let Some(ca) = ca {
        kubelet.verification = KubeletVerification::Ca(ca);
    }
    Some(kubelet)
}

/// The host of this node's kubelet, which its certificate names.
fn node(
    fields: &mut Fields<'_>,
    key: &str,
    configured: Option<String>,
    enabled: bool,
) -> Option<String> {
    let host = configured.or_else(|| {
        let name = env::var(NODE_NAME).ok()?;
        parse_host(&name).ok()
    });
    if host.is_none() && enabled {
        fields.mistake(
            key,
            format!(
                "which kubelet? Set `attestors.kubernetes.kubelet.host`, or {NODE_NAME} from the \
                 pod's `spec.nodeName`"
            ),
        );
    }
    host
}

fn parse_host(text: &str) -> Result<String, String> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    if text.is_empty() || text.contains(odd) {
        return Err(format!(
            "`{text}` is no host: write a name or an IP address"
        ));
    }
    // An IPv6 address within a URL.
    Ok(match text.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => text.to_owned(),
    })
}

fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}
