//! Outputs by flags.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use config::Free;
use output::aws::Arn;

use super::{
    aws_credential_process::{profile, role, session_duration, trust_anchor},
    service::{Common, map, text, texts},
};

/// Where an output writes, and for whom.
#[derive(Debug, Args)]
pub(super) struct Destination {
    /// Directory of the files.
    #[arg(long, value_name = "DIR")]
    destination: PathBuf,
    /// User that may read them: name or number. Repeatable.
    #[arg(long, value_name = "USER")]
    reader_user: Vec<String>,
    /// Group that may read them: name or number. Repeatable.
    #[arg(long, value_name = "GROUP")]
    reader_group: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct X509 {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    destination: Destination,
    /// pem, pkcs12 or jks. Repeatable [default: pem].
    #[arg(long, value_name = "FORMAT")]
    format: Vec<String>,
    /// File with the password of keystores.
    #[arg(long, value_name = "FILE")]
    keystore_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Jwt {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    destination: Destination,
    /// For whom the token is. Repeatable; one is better.
    #[arg(long, value_name = "AUDIENCE", required = true)]
    audience: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct BundleMap {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    destination: Destination,
}

#[derive(Debug, Args)]
pub(super) struct Aws {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    destination: Destination,
    /// Role that is taken.
    #[arg(long, value_name = "ARN", value_parser = role)]
    role_arn: Arn,
    /// Roles Anywhere profile.
    #[arg(long, value_name = "ARN", value_parser = profile)]
    profile_arn: Arn,
    /// Trust anchor that the CA is known by.
    #[arg(long, value_name = "ARN", value_parser = trust_anchor)]
    trust_anchor_arn: Arn,
    /// Region; that of the trust anchor unless given.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Wanted life of the session, 15m to 12h.
    #[arg(long, value_name = "DURATION", value_parser = session_duration)]
    session_duration: Option<Duration>,
    /// Profile of the credentials file [default: default].
    #[arg(long, value_name = "NAME")]
    credential_profile_name: Option<String>,
}

impl Destination {
    fn field(&self) -> (&'static str, Free) {
        let path = self.destination.display().to_string();
        let mut fields = vec![("type", text("directory")), ("path", text(&path))];
        let users = self.reader_user.iter().map(|user| ("user", user));
        let groups = self.reader_group.iter().map(|group| ("group", group));
        let readers = users
            .chain(groups)
            .map(|(kind, name)| map(vec![(kind, text(name))]));
        let readers: Vec<_> = readers.collect();
        if !readers.is_empty() {
            fields.push(("readers", Free::List(readers)));
        }
        ("destination", map(fields))
    }
}

impl X509 {
    pub(super) fn fields(&self) -> Vec<(&'static str, Free)> {
        let mut fields = vec![self.destination.field()];
        if !self.format.is_empty() {
            fields.push(("formats", texts(&self.format)));
        }
        if let Some(file) = &self.keystore_password_file {
            let file = text(&file.display().to_string());
            fields.push(("keystore_password", map(vec![("file", file)])));
        }
        fields
    }
}

impl Jwt {
    pub(super) fn fields(&self) -> Vec<(&'static str, Free)> {
        vec![
            ("audiences", texts(&self.audience)),
            self.destination.field(),
        ]
    }
}

impl BundleMap {
    pub(super) fn fields(&self) -> Vec<(&'static str, Free)> {
        vec![self.destination.field()]
    }
}

impl Aws {
    pub(super) fn fields(&self) -> Vec<(&'static str, Free)> {
        let mut fields = vec![
            ("role_arn", text(self.role_arn.as_str())),
            ("profile_arn", text(self.profile_arn.as_str())),
            ("trust_anchor_arn", text(self.trust_anchor_arn.as_str())),
        ];
        if let Some(region) = &self.region {
            fields.push(("region", text(region)));
        }
        if let Some(duration) = self.session_duration {
            let seconds = format!("{}s", duration.as_secs());
            fields.push(("session_duration", text(&seconds)));
        }
        if let Some(name) = &self.credential_profile_name {
            fields.push(("credential_profile_name", text(name)));
        }
        fields.push(self.destination.field());
        fields
    }
}
