//! AWS IAM Roles Anywhere: credentials of AWS for an X.509-SVID.
//!
//! [`CreateSession`] is the call of the API; it is signed with the key of the SVID
//! ([`signature`]), and [`Credentials`] come back. AWS trusts the CA of the trust domain
//! by a trust anchor, and maps the SPIFFE ID (URI SAN) in the role's trust policy.
//! Facts: <https://docs.aws.amazon.com/rolesanywhere/latest/userguide/authentication-create-session.html>.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::{Zeroize, Zeroizing};

use crate::artifact::{AWS_CREDENTIALS, Artifact, Artifacts, Issued};

mod call;
pub mod profile;
pub mod signature;

pub use call::{Endpoint, check_address};
pub use signature::{SignError, SignedRequest};

/// Lives of a session that AWS grants.
pub const SESSION_DURATION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(900)..=Duration::from_secs(43_200);

/// What is asked of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSession {
    /// The role that is taken.
    pub role: Arn,
    /// The Roles Anywhere profile.
    pub profile: Arn,
    /// The trust anchor that the CA is known by.
    pub trust_anchor: Arn,
    /// Region; that of the trust anchor if `None`.
    pub region: Option<String>,
    /// Wanted life of the session ([`SESSION_DURATION`]); the profile's if `None`.
    pub duration: Option<Duration>,
    /// Name of the session in AWS's logs, if the profile allows it.
    pub session_name: Option<String>,
}

/// An Amazon Resource Name, `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn(String);

impl Arn {
    /// Checks its form, and its service and kind of resource, as `rolesanywhere` and `profile`.
    ///
    /// # Errors
    ///
    /// What it is not.
    pub fn parse(text: &str, service: &str, kind: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.splitn(6, ':').collect();
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"');
        match parts.as_slice() {
            ["arn", partition, its, _, account, resource]
                if is_plain
                    && !partition.is_empty()
                    && *its == service
                    && account.len() == 12
                    && account.bytes().all(|byte| byte.is_ascii_digit())
                    && resource.strip_prefix(kind).is_some_and(|rest| {
                        rest.strip_prefix('/').is_some_and(|name| !name.is_empty())
                    }) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is not arn:aws:{service}:REGION:ACCOUNT:{kind}/NAME"
            )),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, number: usize) -> &str {
        self.0.split(':').nth(number).unwrap_or_default()
    }
}

impl CreateSession {
    /// The region that is called.
    pub fn region(&self) -> &str {
        self.region
            .as_deref()
            .unwrap_or_else(|| self.trust_anchor.part(3))
    }

    /// The host that is called, by the partition of the trust anchor.
    pub fn host(&self) -> String {
        let domain = match self.trust_anchor.part(1) {
            "aws-cn" => "amazonaws.com.cn",
            _ => "amazonaws.com",
        };
        format!("rolesanywhere.{}.{domain}", self.region())
    }

    /// The body of the call, JSON.
    fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            duration_seconds: Option<u64>,
            profile_arn: &'a str,
            role_arn: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            role_session_name: Option<&'a str>,
            trust_anchor_arn: &'a str,
        }
        let body = Body {
            duration_seconds: self.duration.map(|duration| duration.as_secs()),
            profile_arn: self.profile.as_str(),
            role_arn: self.role.as_str(),
            role_session_name: self.session_name.as_deref(),
            trust_anchor_arn: self.trust_anchor.as_str(),
        };
        // Strings and a number: this cannot fail.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Credentials of a session. Wiped when dropped, the secret parts hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Zeroizing<String>,
    /// As AWS wrote it, RFC 3339.
    expiration: String,
    expires: SystemTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    credential_set: Vec<AnswerSet>,
}

#[derive(Deserialize)]
struct AnswerSet {
    credentials: AnswerCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

/// An error of AWS.
#[derive(Deserialize)]
struct Refusal {
    #[serde(alias = "Message")]
    message: String,
}

impl Credentials {
    /// From the answer of AWS.
    ///
    /// # Errors
    ///
    /// What AWS says, or what the answer lacks.
    pub fn from_answer(status: u16, body: &[u8]) -> Result<Self, AwsError> {
        if !(200..300).contains(&status) {
            let message = serde_json::from_slice(body)
                .map(|Refusal { message }| message)
                .unwrap_or_default();
            return Err(AwsError::Refused {
                status,
                message: printable(&message),
            });
        }
        let unusable = |why: &str| AwsError::Answer(why.to_owned());
        // The error of the parser could quote a secret.
        let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
            return Err(unusable("it is not what CreateSession answers"));
        };
        let Some(AnswerSet { credentials }) = answer.credential_set.into_iter().next() else {
            return Err(unusable("it holds no credentials"));
        };
        let is_plain =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let AnswerCredentials {
            access_key_id,
            secret_access_key,
            session_token,
            expiration,
        } = credentials;
        let (secret_access_key, session_token) = (
            Zeroizing::new(secret_access_key),
            Zeroizing::new(session_token),
        );
        if ![&access_key_id, &*secret_access_key, &*session_token]
            .into_iter()
            .all(|text| is_plain(text))
        {
            return Err(unusable(
                "a credential is empty or has characters that none has",
            ));
        }
        let expires = OffsetDateTime::parse(&expiration, &Rfc3339)
            .map_err(|_| unusable("its expiration is no time"))?;
        Ok(Self {
            access_key_id,
            secret_access_key,
            session_token,
            expiration,
            expires: expires.into(),
        })
    }

    /// When they expire.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// As a program named in `credential_process` prints them.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
    pub fn to_process_json(&self) -> Zeroizing<String> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Process<'a> {
            version: u8,
            access_key_id: &'a str,
            secret_access_key: &'a str,
            session_token: &'a str,
            expiration: &'a str,
        }
        let process = Process {
            version: 1,
            access_key_id: &self.access_key_id,
            secret_access_key: &self.secret_access_key,
            session_token: &self.session_token,
            expiration: &self.expiration,
        };
        Zeroizing::new(serde_json::to_string(&process).unwrap_or_default())
    }

    /// `aws_credentials`: a shared credentials file with one profile.
    /// `id`: of the SVID that the session was granted for, at `began`.
    pub fn to_artifacts(&self, profile: &str, id: &str, began: SystemTime) -> Artifacts {
        let section = Zeroizing::new(format!(
            "[{profile}]\naws_access_key_id = {}\naws_secret_access_key = {}\n\
             aws_session_token = {}\nx_security_token_expires = {}\n",
            self.access_key_id,
            self.secret_access_key.as_str(),
            self.session_token.as_str(),
            self.expiration
        ));
        Artifacts {
            files: vec![Artifact::new(AWS_CREDENTIALS, section.as_bytes())],
            issued: Some(Issued {
                at: began,
                until: self.expires,
                id: id.to_owned(),
            }),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.access_key_id.zeroize();
    }
}

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// The call cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// AWS says no.
    #[error("AWS refuses CreateSession (HTTP {status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What AWS says of it.
        message: String,
    },
    /// The answer cannot be used.
    #[error("the answer of AWS cannot be used: {0}")]
    Answer(String),
    /// AWS could not be reached.
    #[error("AWS cannot be asked: {0}")]
    Call(String),
}

/// What somebody else says, for a log: one line, bounded.
fn printable(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect();
    if line.is_empty() {
        "it says no more".to_owned()
    } else {
        line
    }
}

#[cfg(test)]
mod tests;
