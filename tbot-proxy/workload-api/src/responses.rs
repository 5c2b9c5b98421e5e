//! The messages of the Workload API, made from what a backend says.
//!
//! Each is complete state (WA-04) in one order, so that equal states are equal bytes,
//! and none is longer than gRPC's libraries take by default ([`MAX_MESSAGE`]): what does
//! not fit is left out from the end, with a warning and a metric. The first SVID always
//! fits.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use identity::{TrustBundle, TrustDomain, X509Svid, jose::private_jwk};
use prost::{Message, encoding::encoded_len_varint};
use proto::workload as pb;
use tonic::Status;
use zeroize::Zeroize;

use crate::{
    backend::{BundleContext, HeldX509, IssuedJwt, WitContext, X509Context},
    grpc::{MAX_MESSAGE, framed},
    meters,
};

/// Longest hint (WA-32).
pub const MAX_HINT: usize = 1024;

/// FetchX509SVID.
pub(crate) fn x509(context: &X509Context) -> Result<Bytes, Status> {
    let own = &context.bundles.own;
    let mut hints = Hints::default();
    let mut size = Size::default();
    let mut message = pb::X509svidResponse::default();
    let mut left_out = 0;
    for held in &context.svids {
        let Some(entry) = x509_entry(held, &context.bundles, &mut hints) else {
            continue;
        };
        if size.takes(&entry) {
            message.svids.push(entry);
        } else {
            left_out += 1;
        }
    }
    if message.svids.is_empty() {
        // WA-11.
        return Err(nothing_of(context));
    }
    size.report("svid", left_out);
    message.crl = size.crls(&context.bundles);
    let foreign = context.bundles.bundles.iter();
    let foreign = foreign.filter(|bundle| bundle.trust_domain() != own);
    message.federated_bundles = size.by_domain(foreign.map(|it| &**it), der_of);
    let bytes = framed(&message);
    for svid in &mut message.svids {
        svid.x509_svid_key.zeroize();
    }
    Ok(bytes)
}

fn x509_entry(held: &HeldX509, bundles: &BundleContext, hints: &mut Hints) -> Option<pb::X509svid> {
    let id = held.svid.id();
    let bundle = bundles.bundles.get(id.trust_domain_name());
    // WA-12: it is mandatory.
    let Some(bundle) = bundle.filter(|bundle| !bundle.x509_authorities().is_empty()) else {
        tracing::warn!(%id, "an X509-SVID is not handed out: there is no trust bundle for it");
        return None;
    };
    Some(pb::X509svid {
        spiffe_id: id.to_string(),
        x509_svid: chain_der(&held.svid),
        x509_svid_key: held.svid.key_pkcs8_der().to_vec(),
        bundle: der_of(bundle),
        hint: hints.unique(&held.hint, id.as_str()),
    })
}

fn nothing_of(context: &X509Context) -> Status {
    match context.svids.is_empty() {
        true => Status::permission_denied("no identity is issued to this workload"),
        false => Status::unavailable("the trust bundle is not known yet: try again"),
    }
}

/// FetchX509Bundles.
pub(crate) fn x509_bundles(context: &BundleContext) -> Result<Bytes, Status> {
    let mut size = Size::default();
    let own = own(context)?;
    Ok(framed(&pb::X509BundlesResponse {
        bundles: size.own_first(context, own, der_of),
        crl: size.crls(context),
    }))
}

/// FetchJWTBundles: no keys of other uses (WA-24).
pub(crate) fn jwt_bundles(context: &BundleContext) -> Result<Bytes, Status> {
    let own = own(context)?;
    Ok(framed(&pb::JwtBundlesResponse {
        bundles: Size::default().own_first(context, own, TrustBundle::to_jwks_for_jwt),
    }))
}

/// FetchWITBundles.
pub(crate) fn wit_bundles(context: &BundleContext) -> Result<Bytes, Status> {
    let own = own(context)?;
    let bundles = Size::default().own_first(context, own, TrustBundle::to_jwks_for_wit);
    let text = |(name, set): (String, Vec<u8>)| Some((name, String::from_utf8(set).ok()?));
    Ok(framed(&pb::WitBundlesResponse {
        bundles: bundles.into_iter().filter_map(text).collect(),
    }))
}

/// FetchJWTSVID.
pub(crate) fn jwt(issued: Vec<IssuedJwt>) -> Result<Bytes, Status> {
    let mut hints = Hints::default();
    let mut size = Size::default();
    let mut message = pb::JwtsvidResponse::default();
    let mut left_out = 0;
    for jwt in issued {
        let entry = pb::Jwtsvid {
            hint: hints.unique(&jwt.hint, jwt.id.as_str()),
            spiffe_id: jwt.id.to_string(),
            svid: jwt.token,
        };
        match size.takes(&entry) {
            true => message.svids.push(entry),
            false => left_out += 1,
        }
    }
    size.report("svid", left_out);
    if message.svids.is_empty() {
        return Err(Status::permission_denied(
            "no identity is issued to this workload",
        ));
    }
    let bytes = framed(&message);
    for svid in &mut message.svids {
        svid.svid.zeroize();
    }
    Ok(bytes)
}

/// FetchWITSVID.
pub(crate) fn wit(context: &WitContext) -> Result<Bytes, Status> {
    let mut hints = Hints::default();
    let mut size = Size::default();
    let mut message = pb::WitsvidResponse::default();
    let mut left_out = 0;
    for wit in &context.svids {
        let Some(mut key) = private_jwk(&wit.key_pkcs8) else {
            tracing::warn!(id = %wit.id, "a WIT-SVID is not handed out: its key has no JWK form here");
            continue;
        };
        let entry = pb::Witsvid {
            hint: hints.unique(&wit.hint, wit.id.as_str()),
            spiffe_id: wit.id.to_string(),
            wit_svid: wit.token.clone(),
            wit_svid_key: std::mem::take(&mut *key),
        };
        match size.takes(&entry) {
            true => message.svids.push(entry),
            false => left_out += 1,
        }
    }
    size.report("svid", left_out);
    if message.svids.is_empty() {
        return Err(Status::permission_denied(
            "no identity is issued to this workload",
        ));
    }
    let bytes = framed(&message);
    for svid in &mut message.svids {
        svid.wit_svid_key.zeroize();
    }
    Ok(bytes)
}

/// The own bundle, which every answer has (WA-19, WA-24).
fn own(context: &BundleContext) -> Result<&TrustBundle, Status> {
    let own = context.bundles.get(context.own.as_str());
    own.map(|it| &**it)
        .ok_or_else(|| Status::unavailable("the trust bundle is not known yet: try again"))
}

/// Concatenated DER, leaf first (WA-13).
fn chain_der(svid: &X509Svid) -> Vec<u8> {
    svid.chain()
        .iter()
        .flat_map(|it| it.iter().copied())
        .collect()
}

/// Concatenated DER (WA-15).
fn der_of(bundle: &TrustBundle) -> Vec<u8> {
    let authorities = bundle.x509_authorities().iter();
    authorities.flat_map(|it| it.iter().copied()).collect()
}

/// WA-15: the SPIFFE ID of a trust domain.
fn key_of(trust_domain: &TrustDomain) -> String {
    trust_domain.id().to_string()
}

/// Hints that are unique in a response (WA-17) and of bearable length (WA-32).
#[derive(Default)]
struct Hints {
    seen: HashSet<String>,
}

impl Hints {
    fn unique(&mut self, hint: &str, id: &str) -> String {
        let why = match hint {
            "" => return String::new(),
            hint if hint.len() > MAX_HINT => "it is longer than 1024 bytes",
            hint if self.seen.insert(hint.to_owned()) => return hint.to_owned(),
            _ => "another identity of this workload has it too",
        };
        tracing::warn!(id, why, "a hint is left out");
        String::new()
    }
}

/// How long a message has become.
#[derive(Default)]
struct Size(usize);

impl Size {
    /// Counts an entry of a list in, if there is room for it; the first always is.
    fn takes(&mut self, entry: &impl Message) -> bool {
        self.fits(entry.encoded_len())
    }

    fn fits(&mut self, length: usize) -> bool {
        // The field's number, and its length, are before it.
        let more = 1 + encoded_len_varint(length as u64) + length;
        let fits = self.0 == 0 || self.0 + more <= MAX_MESSAGE;
        if fits {
            self.0 += more;
        }
        fits
    }

    fn report(&self, kind: &'static str, left_out: usize) {
        if left_out > 0 {
            tracing::warn!(
                kind,
                left_out,
                "what does not fit into a message of 4 MiB is left out"
            );
            meters::left_out(kind, left_out);
        }
    }

    fn crls(&mut self, context: &BundleContext) -> Vec<Vec<u8>> {
        let mut left_out = 0;
        let lists = context.bundles.iter().flat_map(|bundle| bundle.crls());
        let lists = lists
            .filter(|list| {
                let fits = self.fits(list.len());
                left_out += usize::from(!fits);
                fits
            })
            .map(|list| list.to_vec())
            .collect();
        self.report("crl", left_out);
        lists
    }

    /// What `value` makes of each, by SPIFFE ID of the trust domain. One that makes
    /// nothing is left out: absent means untrusted too (WA-10), and py-spiffe refuses
    /// the message for it.
    fn by_domain<'a>(
        &mut self,
        bundles: impl Iterator<Item = &'a TrustBundle>,
        value: fn(&TrustBundle) -> Vec<u8>,
    ) -> BTreeMap<String, Vec<u8>> {
        let mut left_out = 0;
        let mut map = BTreeMap::new();
        for bundle in bundles {
            let (key, value) = (key_of(bundle.trust_domain()), value(bundle));
            if value.is_empty() {
                continue;
            }
            // Numbers and lengths of an entry's two fields: ten bytes at most.
            match self.fits(key.len() + value.len() + 10) {
                true => drop(map.insert(key, value)),
                false => left_out += 1,
            }
        }
        self.report("bundle", left_out);
        map
    }

    /// As [`by_domain`](Self::by_domain); the own one is there, whatever it makes.
    fn own_first(
        &mut self,
        context: &BundleContext,
        own: &TrustBundle,
        value: fn(&TrustBundle) -> Vec<u8>,
    ) -> BTreeMap<String, Vec<u8>> {
        let of_own = value(own);
        self.fits(of_own.len() + 2 * 256);
        let others = context.bundles.iter().map(|it| &**it);
        let others = others.filter(|bundle| bundle.trust_domain() != own.trust_domain());
        let mut map = self.by_domain(others, value);
        map.insert(key_of(own.trust_domain()), of_own);
        map
    }
}

#[cfg(test)]
mod tests;
