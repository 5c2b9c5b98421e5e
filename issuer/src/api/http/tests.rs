use super::{
    error::Code,
    form::{Exchange, GRANT_TYPE, JOIN_TOKEN, WIT, X509},
};

const GOOD: [(&str, &str); 5] = [
    ("grant_type", GRANT_TYPE),
    ("subject_token_type", JOIN_TOKEN),
    ("subject_token", "secret"),
    ("audience", "db"),
    ("scope", "workload_identity:web"),
];

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// The good form with one field changed (or removed, if empty) or added.
fn with(name: &str, values: &[&str]) -> String {
    let mut fields: Vec<_> = GOOD.into_iter().filter(|(key, _)| *key != name).collect();
    fields.extend(values.iter().map(|value| (name, *value)));
    form(&fields)
}

#[test]
fn a_good_form_is_understood() {
    let exchange = Exchange::parse(form(&GOOD).as_bytes());
    let exchange = exchange.map_err(|error| error.description).unwrap();
    assert_eq!(exchange.scope(), "workload_identity:web");
    let unknown = with("colour", &["red"]);
    assert!(
        Exchange::parse(unknown.as_bytes()).is_ok(),
        "RFC 6749 section 3.2"
    );
}

#[test]
fn rfc_8693_every_wrong_form_has_its_error() {
    let cases: [(&str, &[&str], Code, &str); 16] = [
        (
            "grant_type",
            &[],
            Code::InvalidRequest,
            "grant_type is missing",
        ),
        (
            "grant_type",
            &["client_credentials"],
            Code::UnsupportedGrantType,
            "grant_type must",
        ),
        (
            "grant_type",
            &[GRANT_TYPE, GRANT_TYPE],
            Code::InvalidRequest,
            "more than once",
        ),
        (
            "subject_token",
            &[],
            Code::InvalidRequest,
            "subject_token is missing",
        ),
        (
            "subject_token",
            &["a", "b"],
            Code::InvalidRequest,
            "more than once",
        ),
        (
            "subject_token_type",
            &["x"],
            Code::InvalidRequest,
            "subject_token_type must",
        ),
        (
            "requested_token_type",
            &["x"],
            Code::InvalidRequest,
            "requested_token_type must",
        ),
        (
            "requested_token_type",
            &[X509],
            Code::InvalidTarget,
            "audience goes with",
        ),
        (
            "requested_token_type",
            &[WIT],
            Code::InvalidTarget,
            "audience goes with",
        ),
        (
            "audience",
            &[""],
            Code::InvalidTarget,
            "audience is missing",
        ),
        (
            "resource",
            &["https://a"],
            Code::InvalidTarget,
            "resource is not used",
        ),
        ("scope", &[], Code::InvalidScope, "scope is missing"),
        ("scope", &["web"], Code::InvalidScope, "scope must name one"),
        (
            "scope",
            &["workload_identity:a b"],
            Code::InvalidScope,
            "scope must name one",
        ),
        ("ttl", &["5m"], Code::InvalidRequest, "ttl must be"),
        ("actor_token", &["x"], Code::InvalidRequest, "delegation"),
    ];
    for (name, values, code, says) in cases {
        let refused = Exchange::parse(with(name, values).as_bytes());
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{name}={values:?} was accepted"));
        assert_eq!(error.code, code, "{name}={values:?}");
        assert!(
            error.description.contains(says),
            "{name}: {}",
            error.description
        );
        assert!(
            !error.description.contains("secret"),
            "the token is a secret"
        );
    }
}

#[test]
fn a_certificate_request_is_pem_or_base64() {
    for csr in ["-----BEGIN NOTHING-----", "%%%"] {
        let mut fields: Vec<_> = GOOD
            .into_iter()
            .filter(|(key, _)| *key != "audience")
            .collect();
        fields.extend([("requested_token_type", X509), ("csr", csr)]);
        let refused = Exchange::parse(form(&fields).as_bytes()).err();
        assert!(
            refused.is_some_and(|error| error.description.starts_with("csr")),
            "{csr}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert!(Exchange::parse(b"\xff=\xfe").is_err());
    assert!(Exchange::parse(b"").is_err());
}
