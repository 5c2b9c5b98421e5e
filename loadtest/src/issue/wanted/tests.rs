use std::collections::HashSet;

use super::*;

fn wanted(document: Document, batch: usize) -> Wanted {
    Wanted {
        selection: Selection::Name(Pattern("app-{n}".to_owned())),
        numbers: 10,
        document,
        ttl: None,
        attributes: None,
        batch,
        keys_per_item: 1,
        keys: (0..5).map(|_| Key::generate().unwrap()).collect(),
        fresh_keys: false,
    }
}

fn csrs(request: &IssueSvidsRequest) -> Vec<Vec<u8>> {
    let items = request.requests.iter();
    items
        .flat_map(|item| match &item.document {
            Some(svid_request::Document::X509(x509)) => x509.csrs_der.clone(),
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn no_two_items_of_a_call_share_a_key_and_all_keys_are_used() {
    let wanted = wanted(Document::X509, 5);
    let mut asker = Asker::new(3);
    for _ in 0..4 {
        let (request, asked) = asker.next(&wanted).unwrap();
        assert_eq!(asked.len(), 5);
        let distinct: HashSet<_> = csrs(&request).into_iter().collect();
        assert_eq!(distinct.len(), 5);
    }
}

#[test]
fn calls_are_spread_over_all_numbers() {
    let wanted = wanted(Document::Jwt(vec!["a".to_owned()]), 1);
    let mut asker = Asker::new(0);
    let names: HashSet<_> = (0..200)
        .map(
            |_| match asker.next(&wanted).unwrap().0.requests.remove(0).selector {
                Some(svid_request::Selector::Name(name)) => name,
                other => panic!("{other:?}"),
            },
        )
        .collect();
    let all: HashSet<_> = (0..10).map(|n| format!("app-{n}")).collect();
    assert_eq!(names, all);
}

#[test]
fn fresh_keys_are_never_repeated() {
    let mut wanted = wanted(Document::X509, 2);
    wanted.fresh_keys = true;
    let mut asker = Asker::new(0);
    let seen: HashSet<_> = (0..5)
        .flat_map(|_| csrs(&asker.next(&wanted).unwrap().0))
        .collect();
    assert_eq!(seen.len(), 10);
}

#[test]
fn a_certificate_of_another_key_is_no_answer() {
    let wanted = wanted(Document::X509, 2);
    let (_, asked) = Asker::new(0).next(&wanted).unwrap();
    let of = |key: &Key| Svid {
        document: Some(svid::Document::X509(proto::issue::v1::X509Svid {
            chain_der: vec![[&[1, 2, 3], &key.public[..], &[4]].concat()],
            serial_number: "01".to_owned(),
            csr: 0,
        })),
        ..Svid::default()
    };
    assert!(asked[0].is_answered_by(&of(&asked[0].keys[0])));
    assert!(!asked[0].is_answered_by(&of(&asked[1].keys[0])));
    assert!(!asked[0].is_answered_by(&Svid::default()));
}
