//! Outputs: what each type writes, and where.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use config::Fields;
use output::{
    artifact::{AWS_CREDENTIALS, BUNDLE_MAP, FileNames, Format, JWT_SVID, X509_FILES},
    aws::{Arn, CreateSession, SESSION_DURATION, check_address, profile},
    destination::{DirectoryConfig, Principal, ReaderName},
    file_set::{Acls, FileMode, Symlinks},
    hook::{Hook, Target, parse_signal},
};

use super::absolute_or_relative_path;

/// How long a hook's command may take unless it says.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What is written.
    pub document: Document,
    /// Other names of files.
    pub names: FileNames,
    /// Where.
    pub destination: DestinationConfig,
    /// What is done after each change, in this order.
    pub hooks: Vec<Hook>,
    /// Whether what has expired is removed.
    pub remove_expired: bool,
}

/// What an output writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// `workload-identity-x509`.
    X509 {
        /// At least one.
        formats: BTreeSet<Format>,
        /// Where the password of keystores is.
        password: Option<PasswordSource>,
    },
    /// `workload-identity-jwt`.
    Jwt {
        /// At least one.
        audiences: Vec<String>,
        /// Wanted life; the resource's if `None`.
        ttl: Option<Duration>,
    },
    /// `spiffe-bundle-map`.
    BundleMap,
    /// `workload-identity-aws-roles-anywhere`.
    Aws(Box<AwsOutput>),
}

/// Where a password is; never in the configuration itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// In this file, a line end at its end aside.
    File(PathBuf),
    /// In this environment variable.
    Environment(String),
}

/// Credentials of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsOutput {
    /// What is asked of AWS.
    pub session: CreateSession,
    /// When credentials are renewed; at half of their life if `None`.
    pub renewal: Option<Duration>,
    /// Profile of the credentials file.
    pub profile: String,
    /// Name of the file.
    pub file: String,
    /// Whether everything else in the file goes.
    pub overwrite: bool,
    /// Another address than AWS's, as `https://HOST`.
    pub endpoint: Option<String>,
    /// CA certificates (PEM) that it is known by, in place of this machine's.
    pub endpoint_ca: Option<PathBuf>,
}

/// Where an output writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationConfig {
    /// A directory.
    Directory(DirectoryConfig),
    /// This process.
    Memory,
    /// A Secret of Kubernetes.
    #[cfg(feature = "kubernetes")]
    KubernetesSecret(Box<output::destination::kubernetes::SecretConfig>),
}

/// Types of outputs, as the file names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputType {
    X509,
    Jwt,
    BundleMap,
    Aws,
}

impl Output {
    /// What no other output may write, if it is of this machine: a directory, or one file of it.
    pub(super) fn place(&self) -> Option<PathBuf> {
        match (&self.destination, &self.document) {
            (DestinationConfig::Directory(directory), Document::Aws(aws)) => {
                let place = format!("{}#{}", aws.file, aws.profile);
                Some(
                    directory
                        .path
                        .join(if aws.overwrite { &aws.file } else { &place }),
                )
            }
            (DestinationConfig::Directory(directory), _) => Some(directory.path.clone()),
            _ => None,
        }
    }

    /// Whether it writes where `other` did.
    pub(crate) fn takes_the_place_of(&self, other: &Self) -> bool {
        match (&self.destination, &other.destination) {
            (DestinationConfig::Memory, DestinationConfig::Memory) => true,
            #[cfg(feature = "kubernetes")]
            (
                DestinationConfig::KubernetesSecret(one),
                DestinationConfig::KubernetesSecret(other),
            ) => {
                (&one.name, &one.namespace, &one.kubeconfig, &one.context)
                    == (
                        &other.name,
                        &other.namespace,
                        &other.kubeconfig,
                        &other.context,
                    )
            }
            _ => self.place().is_some() && self.place() == other.place(),
        }
    }

    /// Whether two places are one, or one is in the other.
    pub(super) fn clash(one: &Path, other: &Path) -> bool {
        let is_file_of = |file: &Path, place: &Path| {
            let (file, place) = (file.to_string_lossy(), place.to_string_lossy());
            place
                .strip_prefix(&*file)
                .is_some_and(|rest| rest.starts_with('#'))
        };
        one == other || is_file_of(one, other) || is_file_of(other, one)
    }
}

/// Reads what is particular to outputs. `own_ttl`: the life that this service wants.
pub(super) fn output(
    fields: &mut Fields<'_>,
    kind: OutputType,
    own_ttl: Option<Duration>,
) -> Option<Output> {
    let document = match kind {
        OutputType::X509 => x509(fields),
        OutputType::Jwt => jwt(fields, own_ttl),
        OutputType::BundleMap => Some(Document::BundleMap),
        OutputType::Aws => aws(fields),
    };
    let names = file_names(fields, kind);
    let has_pem =
        matches!(&document, Some(Document::X509 { formats, .. }) if formats.contains(&Format::Pem));
    let destination = fields.required_mapping("destination", |fields| {
        destination(fields, names.as_ref(), has_pem)
    });
    if let (Some(DestinationConfig::Directory(directory)), false) =
        (&destination, kind == OutputType::BundleMap)
        && directory.file_mode.is_some_and(FileMode::is_open_to_all)
    {
        let message = "`destination`: with this `file_mode` everybody on this machine could read the secret: name `readers`";
        fields.mistake("destination", message);
    }
    let hooks = fields.mappings("hooks", hook);
    let remove_expired = fields.optional("on_expiry", |text| match text {
        "keep" => Ok(false),
        "remove" => Ok(true),
        other => Err(format!("`{other}` is not known: keep or remove")),
    });
    Some(Output {
        document: document?,
        names: names?,
        destination: destination?,
        hooks,
        remove_expired: remove_expired.unwrap_or(false),
    })
}

fn x509(fields: &mut Fields<'_>) -> Option<Document> {
    let formats: BTreeSet<_> = fields
        .scalars("formats", |text| match text {
            "pem" => Ok(Format::Pem),
            "pkcs12" => Ok(Format::Pkcs12),
            "jks" => Ok(Format::Jks),
            other => Err(format!("`{other}` is not known: pem, pkcs12, jks")),
        })
        .into_iter()
        .collect();
    if fields.has("formats") && fields.count("formats") == 0 {
        fields.mistake("formats", "`formats`: there is none");
    }
    let password = fields.mapping("keystore_password", password);
    let formats = match formats.is_empty() {
        true => BTreeSet::from([Format::Pem]),
        false => formats,
    };
    let is_keystore = formats.iter().any(|format| *format != Format::Pem);
    if is_keystore && !fields.has("keystore_password") {
        let message = "missing key `keystore_password`: {file: PATH} or {environment: NAME}";
        fields.mistake("formats", message);
    }
    Some(Document::X509 { formats, password })
}

fn password(fields: &mut Fields<'_>) -> Option<PasswordSource> {
    let file = fields.optional("file", absolute_or_relative_path);
    let variable = fields.optional("environment", |text| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !text.is_empty() && text.bytes().all(fits) {
            Ok(text.to_owned())
        } else {
            Err(format!("`{text}` is no name of a variable"))
        }
    });
    match (fields.has("file"), fields.has("environment")) {
        (true, false) => file.map(PasswordSource::File),
        (false, true) => variable.map(PasswordSource::Environment),
        _ => {
            fields.mistake(
                "",
                "one of `file` and `environment` says where the password is",
            );
            None
        }
    }
}

fn jwt(fields: &mut Fields<'_>, ttl: Option<Duration>) -> Option<Document> {
    let audiences = fields.scalars("audiences", |text| match text {
        "" => Err("an audience is empty".to_owned()),
        text => Ok(text.to_owned()),
    });
    if !fields.has("audiences") {
        fields.mistake(
            "",
            "missing key `audiences`: for whom the token is; one is better (JW-10)",
        );
        return None;
    }
    if fields.count("audiences") == 0 {
        fields.mistake("audiences", "`audiences`: there is none");
    }
    Some(Document::Jwt { audiences, ttl })
}

fn aws(fields: &mut Fields<'_>) -> Option<Document> {
    let role = fields.required("role_arn", |text| Arn::parse(text, "iam", "role"));
    let ours = |kind: &'static str| move |text: &str| Arn::parse(text, "rolesanywhere", kind);
    let roles_profile = fields.required("profile_arn", ours("profile"));
    let trust_anchor = fields.required("trust_anchor_arn", ours("trust-anchor"));
    let region = fields.optional("region", |text| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match !text.is_empty() && text.bytes().all(fits) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is no region, as eu-central-1")),
        }
    });
    let duration = fields.duration("session_duration", SESSION_DURATION);
    let renewal = fields.duration(
        "session_renewal_interval",
        Duration::from_secs(60)..=*SESSION_DURATION.end(),
    );
    if let (Some(renewal), Some(duration)) = (renewal, duration)
        && renewal >= duration
    {
        let message = "`session_renewal_interval`: it is not shorter than `session_duration`";
        fields.mistake("session_renewal_interval", message);
    }
    let name = fields.optional("credential_profile_name", |text| {
        match profile::is_name(text) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is no name of a profile")),
        }
    });
    let file = fields.optional("artifact_name", |text| {
        match output::file_set::is_set_name(text) && !text.contains('/') {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is no name of a file")),
        }
    });
    let overwrite = fields.boolean("overwrite_credential_file").unwrap_or(false);
    let session_name = fields.optional("role_session_name", |text| Ok(text.to_owned()));
    let endpoint = fields.optional("endpoint", |text| {
        check_address(text).map(|()| text.to_owned())
    });
    let endpoint_ca = fields.optional("endpoint_ca_path", absolute_or_relative_path);
    Some(Document::Aws(Box::new(AwsOutput {
        session: CreateSession {
            role: role?,
            profile: roles_profile?,
            trust_anchor: trust_anchor?,
            region,
            duration,
            session_name,
        },
        renewal,
        profile: name.unwrap_or_else(|| "default".to_owned()),
        file: file.unwrap_or_else(|| AWS_CREDENTIALS.to_owned()),
        overwrite,
        endpoint,
        endpoint_ca,
    })))
}

fn file_names(fields: &mut Fields<'_>, kind: OutputType) -> Option<FileNames> {
    let known: &[&str] = match kind {
        OutputType::X509 => &X509_FILES,
        OutputType::Jwt => &[JWT_SVID],
        OutputType::BundleMap => &[BUNDLE_MAP],
        // It has a key of its own, as elsewhere: `artifact_name`.
        OutputType::Aws => return Some(FileNames::default()),
    };
    match FileNames::new(fields.string_map("file_names"), known) {
        Ok(names) => Some(names),
        Err(error) => {
            fields.mistake("file_names", format!("`file_names`: {error}"));
            None
        }
    }
}

/// `names`: of files, if they are known. `has_pem`: whether SVID and key are among them.
fn destination(
    fields: &mut Fields<'_>,
    names: Option<&FileNames>,
    has_pem: bool,
) -> Option<DestinationConfig> {
    let kind = fields.required("type", |kind| match kind {
        "directory" | "memory" | "kubernetes_secret" => Ok(kind.to_owned()),
        other => Err(format!(
            "`{other}` is not known: directory, memory, kubernetes_secret"
        )),
    });
    match kind.as_deref() {
        Some("directory") => directory(fields).map(DestinationConfig::Directory),
        Some("memory") => Some(DestinationConfig::Memory),
        Some(_) => kubernetes_secret(fields, names, has_pem),
        None => {
            fields.ignore_rest();
            None
        }
    }
}

fn directory(fields: &mut Fields<'_>) -> Option<DirectoryConfig> {
    let path = fields.required("path", absolute_or_relative_path);
    let symlinks = fields.optional("symlinks", |text| match text {
        "secure" => Ok(Symlinks::Secure),
        "try-secure" => Ok(Symlinks::TrySecure),
        "insecure" => Ok(Symlinks::Insecure),
        other => Err(format!(
            "`{other}` is not known: secure, try-secure, insecure"
        )),
    });
    let acls = fields.optional("acls", |text| match text {
        "off" => Ok(Acls::Off),
        "try" => Ok(Acls::Try),
        "required" => Ok(Acls::Required),
        other => Err(format!("`{other}` is not known: off, try, required")),
    });
    let file_mode = fields.optional("file_mode", mode);
    let directory_mode = fields.optional("directory_mode", mode);
    let owner = fields.mapping("owner", |fields| {
        let user = fields.optional("user", Principal::parse);
        let group = fields.optional("group", Principal::parse);
        Some((user, group))
    });
    let readers = fields.mappings("readers", |fields| {
        let user = fields.optional("user", Principal::parse);
        let group = fields.optional("group", Principal::parse);
        if fields.has("user") == fields.has("group") {
            fields.mistake("", "a reader is one of `user` and `group`");
            return None;
        }
        user.map(ReaderName::User).or(group.map(ReaderName::Group))
    });
    if acls == Some(Acls::Off) && !readers.is_empty() {
        fields.mistake("acls", "`acls`: off, and there are `readers`: remove one");
    }
    let (user, group) = owner.unwrap_or_default();
    Some(DirectoryConfig {
        path: path?,
        symlinks: symlinks.unwrap_or_default(),
        file_mode,
        directory_mode,
        user,
        group,
        readers,
        acls: acls.unwrap_or_default(),
    })
}

fn mode(text: &str) -> Result<FileMode, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let bits = u32::from_str_radix(digits, 8)
        .map_err(|_| format!("`{text}` is no mode of a file: write \"0640\""))?;
    FileMode::new(bits).map_err(|error| error.to_string())
}

#[cfg(not(feature = "kubernetes"))]
fn kubernetes_secret(
    fields: &mut Fields<'_>,
    _: Option<&FileNames>,
    _: bool,
) -> Option<DestinationConfig> {
    let message = "`type`: this tbot-proxy was built without Kubernetes: build it with `--features kubernetes`";
    fields.mistake("type", message);
    fields.ignore_rest();
    None
}

#[cfg(feature = "kubernetes")]
fn kubernetes_secret(
    fields: &mut Fields<'_>,
    names: Option<&FileNames>,
    has_pem: bool,
) -> Option<DestinationConfig> {
    use output::destination::kubernetes::{SecretConfig, Shape};
    /// A DNS subdomain (RFC 1123), as names of objects are.
    fn object_name(text: &str) -> Result<String, String> {
        let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=253).contains(&text.len())
            && text.starts_with(is_edge)
            && text.ends_with(is_edge)
            && text.chars().all(|c| is_edge(c) || c == '-' || c == '.');
        match fits {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is no name of an object of Kubernetes")),
        }
    }
    let name = fields.required("name", object_name);
    let namespace = fields.optional("namespace", object_name);
    let labels = fields.string_map("labels").into_iter().collect();
    let shape = fields.optional("secret_type", |text| match text {
        "kubernetes.io/tls" => Ok(Shape::Tls),
        "Opaque" => Ok(Shape::Opaque),
        other => Err(format!("`{other}` is not known: kubernetes.io/tls, Opaque")),
    });
    if shape == Some(Shape::Tls) && !has_pem {
        let message = "`secret_type`: a Secret of type kubernetes.io/tls has an X509-SVID in PEM, and this output writes none: leave it out, or write Opaque";
        fields.mistake("secret_type", message);
    }
    let shape = shape.unwrap_or(match has_pem {
        true => Shape::Tls,
        false => Shape::Opaque,
    });
    if let Some(Err(message)) = names.map(|names| shape.check(names)) {
        fields.mistake("", format!("`file_names`: {message}"));
    }
    let kubeconfig = fields.optional("kubeconfig_path", absolute_or_relative_path);
    let context = fields.optional("kubeconfig_context", |text| Ok(text.to_owned()));
    let force = fields.boolean("force").unwrap_or(false);
    Some(DestinationConfig::KubernetesSecret(Box::new(
        SecretConfig {
            name: name?,
            namespace,
            labels,
            shape,
            kubeconfig,
            context,
            force,
        },
    )))
}

fn hook(fields: &mut Fields<'_>) -> Option<Hook> {
    let signal = fields.optional("signal", parse_signal);
    let pid_file = fields.optional("pid_file", absolute_or_relative_path);
    let process = fields.optional("process", |text| match text {
        "" => Err("the name of a process is empty".to_owned()),
        name => Ok(name.to_owned()),
    });
    let arguments = fields.texts("command");
    let timeout = fields.duration(
        "timeout",
        Duration::from_millis(100)..=Duration::from_secs(3_600),
    );
    match (fields.has("signal"), fields.has("command")) {
        (true, false) => {
            let target = match (fields.has("pid_file"), fields.has("process")) {
                (true, false) => pid_file.map(Target::PidFile),
                (false, true) => process.map(Target::Name),
                _ => {
                    fields.mistake(
                        "signal",
                        "`signal`: to whom? One of `pid_file` and `process`",
                    );
                    None
                }
            };
            Some(Hook::Signal {
                target: target?,
                signal: signal?,
            })
        }
        (false, true) => {
            if arguments.first().is_none_or(String::is_empty) {
                fields.mistake("command", "`command`: [program, argument, …]");
                return None;
            }
            Some(Hook::Command {
                arguments,
                timeout: timeout.unwrap_or(COMMAND_TIMEOUT),
            })
        }
        _ => {
            fields.mistake("", "a hook has one of `signal` and `command`");
            None
        }
    }
}
