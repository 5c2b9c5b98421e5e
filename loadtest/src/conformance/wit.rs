//! FetchWITSVID and FetchWITBundles, where they are offered.

use proto::workload::{WitBundlesRequest, WitsvidRequest};
use serde_json::Value;
use tonic::Code;

use super::{Outcome, Suite, first, jwt, x509};

pub(super) async fn check(suite: &mut Suite) {
    let mut client = suite.client.clone();
    let svids = first!(suite, client.fetch_witsvid(WitsvidRequest::default()));
    let mut client = suite.client.clone();
    let bundles = first!(suite, client.fetch_wit_bundles(WitBundlesRequest {}));
    let is_off = |code: Option<Code>| code == Some(Code::Unimplemented);
    let codes = (
        svids.as_ref().err().map(tonic::Status::code),
        bundles.as_ref().err().map(tonic::Status::code),
    );
    match (is_off(codes.0), is_off(codes.1)) {
        (true, true) => {
            suite.note("WA-28", Outcome::Kept);
            suite.unseen(&["WA-29", "WA-30"], "the WIT profile is not offered");
            return;
        }
        (false, false) => suite.unseen(&["WA-28"], "the WIT profile is offered"),
        _ => {
            let why = format!("one is implemented and the other not: {codes:?}");
            suite.note("WA-28", Outcome::Broken(why));
            return;
        }
    }
    match svids {
        Err(status) if !suite.has_identity && status.code() == Code::PermissionDenied => {
            suite.note("WA-30", Outcome::Kept);
        }
        Err(status) => suite.unseen(&["WA-29", "WA-30"], &format!("FetchWITSVID: {status}")),
        Ok((_, message)) => {
            suite.expect("WA-29", !message.svids.is_empty(), "`svids` is empty");
            x509::hints(
                suite,
                "WA-29",
                message.svids.iter().map(|svid| svid.hint.as_str()),
            );
            for svid in &message.svids {
                let id = &svid.spiffe_id;
                let compact = svid.wit_svid.split('.').count() == 3;
                suite.expect(
                    "WA-29",
                    compact,
                    format!("{id}: wit_svid is no compact JWS"),
                );
                let key: Option<Value> = serde_json::from_str(&svid.wit_svid_key).ok();
                let private =
                    key.is_some_and(|key| key.get("kty").is_some() && key.get("d").is_some());
                suite.expect(
                    "WA-29",
                    private,
                    format!("{id}: wit_svid_key is no private JWK"),
                );
            }
            suite.unseen(&["WA-30"], "nothing was taken away");
        }
    }
    if let Ok((_, message)) = bundles {
        for (key, text) in &message.bundles {
            match serde_json::from_str::<Value>(text) {
                Ok(set) => jwt::jwks(suite, "WA-29", key, &set, "wit-svid"),
                Err(error) => {
                    let why = format!("the bundle of {key} is no JSON: {error}");
                    suite.note("WA-29", Outcome::Broken(why));
                }
            }
        }
    }
}
