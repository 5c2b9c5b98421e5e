//! FetchX509SVID and FetchX509Bundles.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use identity::{SpiffeId, TrustBundle, TrustDomain, X509Svid};
use proto::workload::{X509BundlesRequest, X509svid, X509svidRequest, X509svidResponse};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::Code;

use super::{Outcome, Suite, first};

/// Longest hint (WA-32).
const MAX_HINT: usize = 1024;
/// What only a caller with an identity sees.
const OF_SVIDS: [&str; 10] = [
    "WA-04", "WA-11", "WA-12", "WA-13", "WA-14", "WA-15", "WA-17", "WA-19", "WA-31", "WA-32",
];

pub(super) async fn check(suite: &mut Suite) {
    if !suite.has_identity {
        suite.unseen(&OF_SVIDS, "this process has no identity");
        return;
    }
    let mut client = suite.client.clone();
    let (mut stream, message) = match first!(suite, client.fetch_x509svid(X509svidRequest {})) {
        Ok(first) => first,
        Err(status) => {
            let why = format!("FetchX509SVID worked once and then not: {status}");
            suite.note("WA-11", Outcome::Broken(why));
            return;
        }
    };
    suite.note("WA-01", Outcome::Kept);
    response(suite, &message);
    let ids = |message: &X509svidResponse| -> Vec<String> {
        message
            .svids
            .iter()
            .map(|svid| svid.spiffe_id.clone())
            .collect()
    };
    let mut other = suite.client.clone();
    if let Ok((_, again)) = first!(suite, other.fetch_x509svid(X509svidRequest {})) {
        let (one, two) = (ids(&message), ids(&again));
        let why = format!("two calls, two orders: {one:?}, {two:?}");
        suite.expect("WA-31", one == two, why);
    }
    bundles(suite, &message).await;
    if suite.plan.watch.is_zero() {
        suite.unseen(&["WA-04"], "no update was waited for (--watch)");
        return;
    }
    match tokio::time::timeout(suite.plan.watch, stream.message()).await {
        Err(_) => suite.unseen(
            &["WA-04"],
            "no update came while it was waited for (--watch)",
        ),
        Ok(Ok(Some(update))) => {
            // Complete: all that a first message must have.
            let is_whole = !update.svids.is_empty() && update.svids.iter().all(is_whole);
            suite.expect(
                "WA-04",
                is_whole,
                "an update leaves out what did not change",
            );
            response(suite, &update);
        }
        Ok(Ok(None)) => suite.note(
            "WA-04",
            Outcome::Broken("the stream ended with OK".to_owned()),
        ),
        Ok(Err(status)) if status.code() == Code::PermissionDenied => {
            suite.note("WA-18", Outcome::Kept);
        }
        Ok(Err(status)) if status.code() == Code::Unavailable => {
            suite.note("WE-13", Outcome::Kept);
        }
        Ok(Err(status)) => {
            let why = format!("the stream ended with {status}");
            suite.note("WA-04", Outcome::Broken(why));
        }
    }
}

fn is_whole(svid: &X509svid) -> bool {
    let X509svid {
        spiffe_id,
        x509_svid,
        x509_svid_key,
        bundle,
        hint: _,
    } = svid;
    !spiffe_id.is_empty()
        && !x509_svid.is_empty()
        && !x509_svid_key.is_empty()
        && !bundle.is_empty()
}

fn response(suite: &mut Suite, message: &X509svidResponse) {
    suite.expect("WA-11", !message.svids.is_empty(), "`svids` is empty");
    for svid in &message.svids {
        let id = &svid.spiffe_id;
        suite.expect(
            "WA-12",
            is_whole(svid),
            format!("{id:?}: a mandatory field is empty"),
        );
        let Some(chain) = certificates(&svid.x509_svid) else {
            let why = format!("{id}: x509_svid is not concatenated DER");
            suite.note("WA-13", Outcome::Broken(why));
            let there = !svid.x509_svid_key.is_empty();
            suite.expect("WA-14", there, format!("{id}: there is no key"));
            continue;
        };
        // Both at once: the chain begins with a leaf of this id, and the key is its own.
        let key = PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone());
        match X509Svid::new(chain, key.into()) {
            Ok(read) => {
                let found = read.id().as_str();
                let why = format!("the first certificate of {id} is of {found}");
                suite.expect("WA-13", found == *id, why);
                suite.note("WA-14", Outcome::Kept);
            }
            Err(error) => {
                let why = format!("{id}: {error}");
                suite.note("WA-13", Outcome::Broken(why.clone()));
                suite.note("WA-14", Outcome::Broken(why));
            }
        }
        let domain = SpiffeId::parse(id).ok().map(|id| id.trust_domain());
        bundle(suite, domain, &svid.bundle, id);
    }
    hints(
        suite,
        "WA-17",
        message.svids.iter().map(|svid| svid.hint.as_str()),
    );
    keyed(suite, &message.federated_bundles);
}

/// WA-15: concatenated DER of CA certificates.
fn bundle(suite: &mut Suite, domain: Option<TrustDomain>, der: &[u8], of: &str) {
    let read = certificates(der).zip(domain);
    let why = match read.map(|(certificates, domain)| TrustBundle::new(domain, certificates)) {
        Some(Ok(_)) => {
            suite.note("WA-15", Outcome::Kept);
            return;
        }
        Some(Err(error)) => error.to_string(),
        None => "it is not concatenated DER, or its trust domain has no name".to_owned(),
    };
    suite.note(
        "WA-15",
        Outcome::Broken(format!("the bundle of {of}: {why}")),
    );
}

/// WA-15: by `spiffe://name`.
fn keyed(suite: &mut Suite, bundles: &BTreeMap<String, Vec<u8>>) {
    for (key, der) in bundles {
        let domain = trust_domain(key);
        let why = format!("the key {key:?} is not the SPIFFE ID of a trust domain");
        suite.expect("WA-15", domain.is_some(), why);
        bundle(suite, domain, der, key);
    }
}

/// The trust domain that a key of a map of bundles names.
pub(super) fn trust_domain(key: &str) -> Option<TrustDomain> {
    TrustDomain::parse(key.strip_prefix("spiffe://")?).ok()
}

/// WA-17, WA-22, WA-29; WA-32.
pub(super) fn hints<'a>(
    suite: &mut Suite,
    norm: &'static str,
    hints: impl Iterator<Item = &'a str>,
) {
    let mut seen = HashSet::new();
    for hint in hints.filter(|hint| !hint.is_empty()) {
        suite.expect(
            norm,
            seen.insert(hint),
            format!("the hint {hint:?} is there twice"),
        );
        let length = hint.len();
        suite.expect(
            "WA-32",
            length <= MAX_HINT,
            format!("a hint has {length} bytes"),
        );
    }
    let unique = Outcome::Kept;
    suite.note(norm, unique.clone());
    suite.note("WA-32", unique);
}

/// WA-19.
async fn bundles(suite: &mut Suite, svids: &X509svidResponse) {
    let mut client = suite.client.clone();
    let message = match first!(suite, client.fetch_x509_bundles(X509BundlesRequest {})) {
        Ok((_, message)) => message,
        Err(status) => {
            suite.note(
                "WA-19",
                Outcome::Broken(format!("FetchX509Bundles: {status}")),
            );
            return;
        }
    };
    let own: BTreeSet<String> = svids
        .svids
        .iter()
        .filter_map(|svid| SpiffeId::parse(&svid.spiffe_id).ok())
        .map(|id| id.trust_domain().id().to_string())
        .collect();
    for own in own {
        let there = message.bundles.contains_key(&own);
        suite.expect(
            "WA-19",
            there,
            format!("the own trust domain {own} is missing"),
        );
    }
    keyed(suite, &message.bundles);
}

/// Concatenated DER, taken apart; `None` if it is not.
fn certificates(mut der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        // SEQUENCE, and a length of one to four bytes.
        let (&[0x30, first], _) = der.split_first_chunk()? else {
            return None;
        };
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let bytes = der.get(2..2 + count)?;
                let length = bytes
                    .iter()
                    .fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
                (2 + count, length)
            }
            0x80 | 0x85.. => return None,
        };
        let end = header.checked_add(length)?;
        let (one, rest) = der.split_at_checked(end)?;
        found.push(CertificateDer::from(one.to_vec()));
        der = rest;
    }
    Some(found)
}
