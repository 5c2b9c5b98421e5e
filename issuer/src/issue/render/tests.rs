use serde_json::{Value, json};

use super::{Rendered, render};
use crate::{
    access::Denial,
    issue::testing::{attributes, keyring, spec},
    resources::SvidKind,
};

fn rendered(resource: &str, kind: SvidKind, known: &Value) -> Result<Rendered, (Denial, String)> {
    let rendered = render(
        &spec(resource),
        kind,
        keyring().trust_domain(),
        &attributes(known),
    );
    rendered.map_err(|refused| (refused.denial, refused.detail))
}

fn pod(name: &str) -> Value {
    json!({ "workload": { "kubernetes": { "pod_name": name } } })
}

#[test]
fn a_value_is_a_label_of_a_name_or_part_of_one_and_nothing_wider() {
    let resource = "{ spiffe: { id: /web, x509: { dns_sans: ['{{ workload.kubernetes.pod_name }}.example.org'] } } }";
    for (value, name) in [
        ("web-1", Some("web-1.example.org")),
        ("a.b", None),
        ("*", None),
        ("*.x", None),
        ("x.*", None),
        ("WEB", None),
        ("a..b", None),
        (".a", None),
        ("a.", None),
        ("-a", None),
        ("a-", None),
        ("a_b", None),
        ("a b", None),
        ("é", None),
        ("a\0", None),
        ("a@b", None),
        ("1.2.3.4:", None),
        (&"a".repeat(64), None),
    ] {
        let came_to = rendered(resource, SvidKind::X509, &pod(value)).map(|it| {
            let names: Vec<_> = it
                .dns_sans
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect();
            names.join(",")
        });
        match name {
            Some(name) => assert_eq!(came_to.as_deref(), Ok(name), "{value:?}"),
            None => assert_eq!(came_to.unwrap_err().0, Denial::Template, "{value:?}"),
        }
    }
    // A wildcard is what the author wrote; a name is no address.
    let whole =
        "{ spiffe: { id: /web, x509: { dns_sans: ['*.{{ workload.kubernetes.pod_name }}'] } } }";
    assert!(rendered(whole, SvidKind::X509, &pod("example.org")).is_ok());
    assert!(rendered(whole, SvidKind::X509, &pod("*.example.org")).is_err());
    let bare =
        "{ spiffe: { id: /web, x509: { dns_sans: ['{{ workload.kubernetes.pod_name }}'] } } }";
    assert!(rendered(bare, SvidKind::X509, &pod("*.example.org")).is_err());
    assert!(rendered(bare, SvidKind::X509, &pod("192.0.2.7")).is_err());
}

#[test]
fn a_value_stays_within_its_label_of_a_dns_name() {
    for (template, value, fits) in [
        ("{{ V }}.example.org", "web", true),
        ("{{ V }}.example.org", "api.prod", false),
        ("web-{{ V }}", "a.evil.example", false),
        ("{{ V }}{{ V }}", "a.b", false),
        // What ends the name is meant to.
        ("{{ V }}", "web.example.org", true),
        ("web.{{ V }}", "example.org", true),
    ] {
        let template = template.replace('V', "workload.kubernetes.pod_name");
        let spec = format!("{{ spiffe: {{ id: /web, x509: {{ dns_sans: ['{template}'] }} }} }}");
        let came_to = rendered(&spec, SvidKind::X509, &pod(value));
        assert_eq!(came_to.is_ok(), fits, "{template} with {value}");
    }
}

#[test]
fn addresses_subjects_and_hints_are_parsed_as_if_a_stranger_had_sent_them() {
    let address = "{ spiffe: { id: /web, x509: { ip_sans: ['{{ workload.kubernetes.pod_name }}', '192.0.2.7'] } } }";
    for (value, count) in [
        ("192.0.2.8", Some(2)),
        // Each once.
        ("192.0.2.7", Some(1)),
        ("fd00::1", Some(2)),
        ("192.0.2.0/24", None),
        ("192.0.2", None),
        ("0xc0000207", None),
        ("localhost", None),
        ("fd00::1%eth0", None),
    ] {
        let came_to = rendered(address, SvidKind::X509, &pod(value)).map(|it| it.ip_sans.len());
        assert_eq!(came_to.ok(), count, "{value:?}");
    }
    let subject = "{ spiffe: { id: /web, x509: { subject_template: { common_name: '{{ workload.kubernetes.pod_name }}' } } } }";
    for (value, fits) in [
        ("web, O=Evil", true),
        (&"é".repeat(64), true),
        (&"a".repeat(65), false),
        ("a\nb", false),
        ("a\u{0}b", false),
    ] {
        let came_to = rendered(subject, SvidKind::X509, &pod(value));
        assert_eq!(came_to.is_ok(), fits, "{value:?}");
        if let Ok(came_to) = came_to {
            // One attribute of the name, whatever is in it.
            assert_eq!(came_to.subject.common_name(), value);
            assert_eq!(came_to.subject.organization(), "");
        }
    }
    let hint = "{ spiffe: { id: /web, hint: '{{ workload.kubernetes.pod_name }}' } }";
    for (value, fits) in [
        ("database", true),
        (&"a".repeat(1024), true),
        (&"a".repeat(1025), false),
        ("a\u{1b}[2J", false),
    ] {
        let came_to = rendered(hint, SvidKind::Jwt, &pod(value));
        assert_eq!(came_to.is_ok(), fits, "{value:?}");
    }
}

#[test]
fn claims_keep_their_shape_and_a_value_stays_a_string() {
    let resource = "{ spiffe: { id: /web, jwt: { extra_claims: { \
        pod: '{{ workload.kubernetes.pod_name }}', level: 3, on: true, \
        deep: { list: ['{{ workload.kubernetes.pod_name }}', 1.5] } } } } }";
    let value = "\",\"sub\":\"spiffe://x/y";
    let claims = rendered(resource, SvidKind::Jwt, &pod(value))
        .unwrap()
        .claims;
    assert_eq!(
        Value::Object(claims),
        json!({ "pod": value, "level": 3, "on": true, "deep": { "list": [value, 1.5] } })
    );
    // One that is missing fails the whole; too much does, too.
    let (denial, why) = rendered(resource, SvidKind::Jwt, &json!({})).unwrap_err();
    assert_eq!(denial, Denial::Template);
    assert!(why.starts_with("jwt.extra_claims: "), "{why}");
    let long = pod(&"a".repeat(4096));
    let (_, why) = rendered(resource, SvidKind::Jwt, &long).unwrap_err();
    assert!(why.contains("at most 8192"), "{why}");
}

#[test]
fn only_what_a_kind_of_document_holds_is_rendered() {
    let resource = "{ spiffe: { id: /web, \
        x509: { dns_sans: ['{{ workload.kubernetes.pod_name }}'] }, \
        jwt: { extra_claims: { uid: '{{ workload.unix.uid }}' } } } }";
    for (known, kinds) in [
        (pod("web"), &[SvidKind::X509, SvidKind::Wit][..]),
        (
            json!({ "workload": { "unix": { "uid": 0 } } }),
            &[SvidKind::Jwt, SvidKind::Wit],
        ),
        (json!({}), &[SvidKind::Wit]),
    ] {
        for kind in [SvidKind::X509, SvidKind::Jwt, SvidKind::Wit] {
            let came_to = rendered(resource, kind, &known);
            assert_eq!(came_to.is_ok(), kinds.contains(&kind), "{kind} {known}");
        }
    }
}

#[test]
fn id_16_an_id_that_is_reserved_or_too_long_is_refused_whatever_the_template_looked_like() {
    let resource = "{ spiffe: { id: '/{{ workload.kubernetes.pod_name }}' } }";
    let room = 2048 - "spiffe://test.example/".len();
    for (value, denial) in [
        ("web", None),
        (&"a".repeat(room), None),
        (&"a".repeat(room + 1), Some(Denial::InvalidId)),
        ("bot", Some(Denial::InvalidId)),
        ("issuer", Some(Denial::InvalidId)),
        ("botany", None),
        ("Bot", None),
        ("..", Some(Denial::Template)),
        ("a/b", Some(Denial::Template)),
    ] {
        let came_to = rendered(resource, SvidKind::X509, &pod(value));
        assert_eq!(came_to.err().map(|it| it.0), denial, "{}", value.len());
    }
}
