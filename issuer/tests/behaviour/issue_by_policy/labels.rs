//! Selection by labels, page by page; keys are shared by no two SVIDs.

use std::collections::BTreeMap;

use proto::issue::v1::{X509Request, svid::Document, svid_request::Document as Wanted};
use rcgen::KeyPair;
use serde_json::json;

use super::{by_labels, by_name, issued, jwt, one, world, x509};
use crate::behaviour::harness::{Issuer, block_on, chain, csr};

#[test]
fn labels_select_every_one_that_may_be_had_page_by_page_each_under_a_key_of_its_own() {
    block_on(async {
        let issuer = Issuer::start();
        let mut yaml = String::from(
            "kind: role\nversion: v1\nmetadata: { name: fleet }\n\
             spec: { allow: { workload_identity_labels: { may: ['yes'] } } }\n",
        );
        for number in 0..1000 {
            let (may, rules) = match number % 10 {
                0 => ("no", ""),
                1 => (
                    "yes",
                    ", rules: { allow: [{ expression: \"user.bot_name == 'nobody'\" }] }",
                ),
                _ => ("yes", ""),
            };
            yaml.push_str(&format!(
                "---\nkind: workload_identity\nversion: v1\n\
                 metadata: {{ name: w{number:04}, labels: {{ may: '{may}', set: big }} }}\n\
                 spec: {{ spiffe: {{ id: /w/{number:04} }}{rules} }}\n"
            ));
        }
        issuer.apply(&yaml);
        let bot = issuer.join(&issuer.token("fleet")).await.unwrap();

        // Without keys: how many there may be.
        let asked = one(&issuer, &bot, by_labels(&[("set", "big")], "", x509(0))).await;
        assert!(
            asked.svids.is_empty() && asked.refusal.is_none(),
            "{asked:?}"
        );
        assert_eq!(asked.remaining, 900);

        let (mut after, mut ids, mut serials) = (String::new(), Vec::new(), BTreeMap::new());
        let mut pages = 0;
        loop {
            let keys = 300;
            let page = one(
                &issuer,
                &bot,
                by_labels(&[("set", "big")], &after, x509(keys)),
            )
            .await;
            assert!(page.refusal.is_none(), "{:?}", page.refusal);
            let mut used = Vec::new();
            for svid in &page.svids {
                let Some(Document::X509(x509)) = &svid.document else {
                    panic!("{svid:?}");
                };
                used.push(x509.csr);
                ids.push(svid.spiffe_id.clone());
                let leaf = &chain(svid)[0];
                let (_, leaf) = x509_parser::parse_x509_certificate(leaf).unwrap();
                let key = leaf.public_key().raw.to_vec();
                assert!(serials.insert(key, x509.serial_number.clone()).is_none());
            }
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), page.svids.len(), "a key was used twice");
            pages += 1;
            if page.remaining == 0 {
                break;
            }
            assert!(page.next_after > after);
            after = page.next_after;
        }
        assert_eq!(pages, 3);
        assert_eq!(ids.len(), 800);
        assert!(ids.is_sorted());
        // Of JWTs as many as fit one answer: no keys are needed.
        let tokens = one(
            &issuer,
            &bot,
            by_labels(&[("set", "big")], "", jwt(&["db"])),
        )
        .await;
        assert_eq!(tokens.svids.len(), 800);
        assert_eq!(tokens.remaining, 0);
        let events = issued(&issuer);
        let granted = events.iter().filter(|event| event["success"] == true);
        assert_eq!(granted.count(), 1600);
        // What the rules left out is one event a page, with names and reasons.
        let left_out: Vec<_> = events
            .iter()
            .filter(|event| event["success"] == false)
            .collect();
        let counted: u64 = left_out
            .iter()
            .map(|event| event["fields"]["left_out"].as_u64().unwrap())
            .sum();
        assert_eq!(counted, 200);
        assert_eq!(left_out[0]["fields"]["reason"], "no_rule");
        assert_eq!(
            left_out[0]["fields"]["workload_identities"][0]["workload_identity"],
            "w0001"
        );
        assert_eq!(left_out[0]["fields"]["label_selectors"][0]["key"], "set");

        // Nothing selected: an empty answer, and an event.
        let nothing = one(&issuer, &bot, by_labels(&[("set", "none")], "", x509(1))).await;
        assert!(nothing.svids.is_empty() && nothing.refusal.is_none());
        assert_eq!(
            issued(&issuer).pop().unwrap()["fields"]["reason"],
            "no_role"
        );
    });
}

#[test]
fn no_two_svids_of_a_batch_share_a_key() {
    block_on(async {
        let (issuer, bot) = world(&[]).await;
        let shared = csr(&KeyPair::generate().unwrap());
        let keyed = || {
            Wanted::X509(X509Request {
                csrs_der: vec![shared.clone()],
            })
        };
        let twice = Wanted::X509(X509Request {
            csrs_der: vec![shared.clone(), shared.clone()],
        });
        let results = issuer
            .issue_all(
                &bot,
                vec![
                    by_name("plain", keyed(), json!({})),
                    by_name("plain", keyed(), json!({})),
                    by_labels(&[("app", "web")], "", twice),
                    by_name("plain", x509(1), json!({})),
                ],
            )
            .await
            .unwrap();
        let granted: Vec<_> = results.iter().map(|result| result.svids.len()).collect();
        assert_eq!(granted, [1, 0, 0, 1]);
        for refused in [&results[1], &results[2]] {
            let refusal = refused.refusal.as_ref().unwrap();
            assert!(refusal.message.contains("key of its own"), "{refusal:?}");
        }
    });
}
