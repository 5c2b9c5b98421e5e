//! `tbot-proxy aws-credential-process`: what a profile of AWS names in `credential_process`.
//!
//! It reads the SVID that an output of type `workload-identity-x509` wrote, asks AWS for a session
//! and prints its credentials. SDKs keep them until they expire, and call again then.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use ::config::parse_duration;
use clap::Args;
use identity::X509Svid;
use output::{
    artifact::{SVID, SVID_KEY},
    aws::{Arn, CreateSession, Endpoint, SESSION_DURATION},
    file_set::is_set_name,
};
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub(super) struct AwsCredentialProcess {
    /// Directory of the output.
    #[arg(long, value_name = "DIRECTORY")]
    svid_directory: PathBuf,
    /// Name of the certificate in it, if the output has other `file_names`.
    #[arg(long, value_name = "NAME", default_value = SVID, value_parser = file_name)]
    svid_name: String,
    /// Name of the private key in it, likewise.
    #[arg(long, value_name = "NAME", default_value = SVID_KEY, value_parser = file_name)]
    svid_key_name: String,
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
    /// Name of the session in AWS's logs.
    #[arg(long, value_name = "NAME")]
    role_session_name: Option<String>,
    /// Another address than AWS's: https://HOST[:PORT].
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// CA certificates (PEM) that the address is known by, in place of this machine's.
    #[arg(long, value_name = "FILE")]
    endpoint_ca_path: Option<PathBuf>,
}

impl AwsCredentialProcess {
    pub(super) fn run(&self) -> ExitCode {
        match self.credentials() {
            Ok(json) => {
                println!("{}", json.as_str());
                ExitCode::SUCCESS
            }
            Err(why) => {
                eprintln!("tbot-proxy: {why}");
                ExitCode::FAILURE
            }
        }
    }

    fn credentials(&self) -> Result<Zeroizing<String>, String> {
        let now = SystemTime::now();
        let svid = self.svid()?;
        if svid.not_after() <= now {
            return Err(format!(
                "the SVID in {} has expired: is the agent running, and its output ready?",
                self.svid_directory.display()
            ));
        }
        let endpoint = Endpoint::new(self.endpoint.as_deref(), self.endpoint_ca_path.as_deref())
            .map_err(|error| error.to_string())?;
        let session = CreateSession {
            role: self.role_arn.clone(),
            profile: self.profile_arn.clone(),
            trust_anchor: self.trust_anchor_arn.clone(),
            region: self.region.clone(),
            duration: self.session_duration,
            session_name: self.role_session_name.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let credentials = runtime
            .block_on(session.call(&svid, &endpoint, now))
            .map_err(|error| error.to_string())?;
        Ok(credentials.to_process_json())
    }

    /// Key and certificate of one set: read below one directory, which a change does not touch.
    fn svid(&self) -> Result<X509Svid, String> {
        let current = self.svid_directory.join("..data");
        let set = fs::canonicalize(&current).map_err(|error| {
            format!(
                "there is no output of an agent in {}: {error}",
                self.svid_directory.display()
            )
        })?;
        let read = |name: &str| {
            fs::read(set.join(name)).map_err(|error| {
                format!(
                    "cannot read {}: {error}",
                    self.svid_directory.join(name).display()
                )
            })
        };
        let key = Zeroizing::new(read(&self.svid_key_name)?);
        X509Svid::from_pem(&read(&self.svid_name)?, &key).map_err(|error| {
            format!(
                "the SVID in {} cannot be used: {error}",
                self.svid_directory.display()
            )
        })
    }
}

fn file_name(text: &str) -> Result<String, String> {
    match is_set_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name, or folder/name, of which no part begins with `..`".to_owned()),
    }
}

pub(super) fn role(text: &str) -> Result<Arn, String> {
    Arn::parse(text, "iam", "role")
}

pub(super) fn profile(text: &str) -> Result<Arn, String> {
    Arn::parse(text, "rolesanywhere", "profile")
}

pub(super) fn trust_anchor(text: &str) -> Result<Arn, String> {
    Arn::parse(text, "rolesanywhere", "trust-anchor")
}

pub(super) fn session_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    match SESSION_DURATION.contains(&duration) {
        true => Ok(duration),
        false => Err("AWS grants 15m to 12h".to_owned()),
    }
}
