//! What an output is to write now: made from documents whenever they change.

use std::{env, fs, sync::Arc, time::SystemTime};

use ::output::{
    Artifacts,
    artifact::{
        AWS_CREDENTIALS, Dated, DatedForm, FileNames, Issued, JKS_KEYS, JWT_SVID, PKCS12_KEYS,
        SVID, X509Form, keystore::Password, x509,
    },
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::aws;
use crate::{
    configuration::{Document, Output, PasswordSource},
    jwt::KeptToken,
    schedule::{Backoff, sleep},
    served::Served,
    state::IdentityState,
};

/// What is to be written now.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// `None`: there is nothing, or it cannot be made.
    pub(super) set: Option<MadeSet>,
    pub(super) state: IdentityState,
}

/// A set, and until when it is good.
#[derive(Debug, Clone)]
pub(super) struct MadeSet {
    /// Another number is another set.
    pub(super) number: u64,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) expires: Option<SystemTime>,
}

/// Where the documents of an output come from.
pub(crate) enum Origin<'a> {
    /// An X509-SVID and its trust bundles.
    Identity(&'a Served),
    /// A JWT-SVID; kept for as long as the output.
    Token(KeptToken),
}

/// Makes what is to be written until it is dropped.
pub(super) struct Maker {
    pub(super) made: watch::Receiver<Made>,
    _task: AbortOnDropHandle<()>,
}

impl Maker {
    pub(super) fn start(output: &Output, origin: Origin<'_>) -> Self {
        let (sender, made) = watch::channel(Made {
            set: None,
            state: IdentityState::waiting("starting"),
        });
        let names = output.names.clone();
        let task = match (origin, &output.document) {
            (Origin::Token(token), _) => tokio::spawn(of_token(token, names, sender)),
            (Origin::Identity(served), Document::Aws(settings)) => tokio::spawn(aws::make(
                settings.as_ref().clone(),
                served.state(),
                served.source().subscribe(),
                sender,
            )),
            (Origin::Identity(served), document) => tokio::spawn(of_identity(
                served.state(),
                served.source().subscribe(),
                document.clone(),
                names,
                sender,
            )),
        };
        Self {
            made,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn of_identity(
    mut state: watch::Receiver<IdentityState>,
    mut changes: watch::Receiver<Arc<identity::Identity>>,
    document: Document,
    names: FileNames,
    made: watch::Sender<Made>,
) {
    let mut failure: Option<String> = None;
    let mut set: Option<MadeSet> = None;
    let mut backoff = Backoff::default();
    loop {
        let identity = changes.borrow_and_update().clone();
        let known = set.as_ref().map(|set| set.number);
        let mut retry = None;
        if identity.svid.is_none() {
            (set, failure) = (None, None);
        } else if known != Some(identity.generation) {
            let (document, names, identity) = (document.clone(), names.clone(), identity.clone());
            // Keystores take a while: thousands of rounds for a key from a password.
            let result = tokio::task::spawn_blocking(move || of_svid(&identity, &document, &names));
            match result.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(new) => {
                    (set, failure) = (new, None);
                    backoff.reset();
                }
                // It may be mended: the file of a password appears.
                Err(error) => {
                    failure = Some(error);
                    retry = Some(backoff.next());
                }
            }
        }
        let IdentityState { held, reason } = state.borrow_and_update().clone();
        made.send_replace(Made {
            set: set.clone(),
            state: match failure.clone() {
                Some(failure) => IdentityState::waiting(failure),
                None => IdentityState { held, reason },
            },
        });
        tokio::select! {
            Ok(()) = state.changed() => {}
            Ok(()) = changes.changed() => {}
            () = sleep(retry), if retry.is_some() => {}
            else => return,
        }
    }
}

fn of_svid(
    identity: &identity::Identity,
    document: &Document,
    names: &FileNames,
) -> Result<Option<MadeSet>, String> {
    let Some(svid) = &identity.svid else {
        return Ok(None);
    };
    let artifacts = match document {
        Document::X509 { formats, password } => {
            let password = password.as_ref().map(read_password).transpose()?;
            let form = X509Form {
                formats,
                password: password.as_ref(),
            };
            x509(svid, &identity.bundles, &form).map_err(|error| error.to_string())?
        }
        // Made elsewhere.
        Document::BundleMap | Document::Jwt { .. } | Document::Aws(_) => {
            Artifacts::bundle_map(&identity.bundles)
        }
    };
    Ok(Some(MadeSet {
        number: identity.generation,
        artifacts: Arc::new(artifacts.renamed(names)),
        expires: match document {
            // It outlives the SVID that it came with.
            Document::BundleMap => None,
            _ => Some(svid.not_after()),
        },
    }))
}

/// The files of a set that say until when it is good, whatever formats it was written in.
pub(super) fn dated(document: &Document, names: &FileNames) -> Vec<Dated> {
    let of = |usual: &str, form| Dated::new(names.of(usual), form);
    match document {
        Document::X509 { password, .. } => {
            let password = password
                .as_ref()
                .and_then(|source| read_password(source).ok());
            let pkcs12 = password.map(|password| of(PKCS12_KEYS, DatedForm::Pkcs12(password)));
            [of(SVID, DatedForm::ChainPem), of(JKS_KEYS, DatedForm::Jks)]
                .into_iter()
                .chain(pkcs12)
                .collect()
        }
        Document::Jwt { .. } => vec![of(JWT_SVID, DatedForm::Jwt)],
        Document::Aws(aws) => {
            let form = DatedForm::AwsProfile(aws.profile.clone());
            vec![Dated::new(AWS_CREDENTIALS, form)]
        }
        // Trust bundles do not expire.
        Document::BundleMap => vec![],
    }
}

fn read_password(source: &PasswordSource) -> Result<Password, String> {
    let text = match source {
        PasswordSource::File(path) => fs::read_to_string(path)
            .map_err(|error| format!("keystore_password: {}: {error}", path.display()))?,
        PasswordSource::Environment(name) => env::var(name)
            .map_err(|_| format!("keystore_password: the variable {name} is not set"))?,
    };
    Password::new(Zeroizing::new(text)).map_err(|error| error.to_string())
}

async fn of_token(token: KeptToken, names: FileNames, made: watch::Sender<Made>) {
    let mut now = token.now.clone();
    let mut number = 0;
    loop {
        let new = now.borrow_and_update().clone();
        let set = new.token.as_ref().map(|token| {
            let issued = Issued {
                at: token.issued,
                until: token.expires,
                id: token.id.clone(),
            };
            let artifacts = Artifacts::jwt(&token.token, Some(issued));
            let artifacts = Arc::new(artifacts.renamed(&names));
            let before = made.borrow().set.clone();
            // The same token again, with another reason.
            match before.filter(|before| before.artifacts == artifacts) {
                Some(before) => before,
                None => {
                    number += 1;
                    MadeSet {
                        number,
                        artifacts,
                        expires: Some(token.expires),
                    }
                }
            }
        });
        let state = new.state();
        made.send_replace(Made { set, state });
        if now.changed().await.is_err() {
            return;
        }
    }
}
