//! Outputs: all that can be said, and what is wrong with it.

use ::output::{
    artifact::Format,
    destination::{Principal, ReaderName},
    file_set::{Acls, Symlinks},
    hook::{Hook, Signal, Target},
};

use super::*;
use crate::configuration::{DestinationConfig, Document, Output, PasswordSource, ServiceKind};

const ROLE: &str = "arn:aws:iam::123456789012:role/app";

fn arn(kind: &str) -> String {
    format!("arn:aws:rolesanywhere:eu-central-1:123456789012:{kind}/1f2e")
}

/// The outputs of these services.
fn outputs(services: &str) -> Vec<Output> {
    let text = format!("{}services:\n{services}", head());
    let configuration = parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let services = configuration.services.into_iter();
    services
        .map(|service| match service.kind {
            ServiceKind::Output(output) => *output,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn everything_of_outputs_is_read() {
    let outputs = outputs(&format!(
        "  - type: workload-identity-x509
    name: java
    selector: {{ name: web }}
    formats: [pkcs12, jks]
    keystore_password: {{ environment: STORE_PASSWORD }}
    file_names: {{ svid.p12: keystore.p12 }}
    on_expiry: remove
    destination:
      type: directory
      path: /run/web
      symlinks: secure
      acls: required
      file_mode: \"0640\"
      directory_mode: \"750\"
      owner: {{ user: app, group: 100 }}
      readers: [{{ user: 1000 }}, {{ group: www }}]
    hooks:
      - {{ signal: SIGHUP, pid_file: /run/web.pid }}
      - {{ signal: USR1, process: nginx }}
      - {{ command: [/bin/reload, now], timeout: 5s }}
  - {{ type: workload-identity-jwt, name: jwt, selector: {{ name: web }}, audiences: [a, b], credential_ttl: 2m, destination: {{ type: memory }} }}
  - {{ type: spiffe-bundle-map, name: map, selector: {{ name: web }}, destination: {{ type: directory, path: /run/map, file_mode: \"0644\" }} }}
  - {{ type: workload-identity-aws-roles-anywhere, name: aws, selector: {{ name: web }}, role_arn: \"{ROLE}\", profile_arn: \"{}\", trust_anchor_arn: \"{}\", session_duration: 1h, session_renewal_interval: 20m, credential_profile_name: prod, destination: {{ type: directory, path: /run/aws }} }}
  - {{ type: workload-identity-aws-roles-anywhere, name: aws2, selector: {{ name: web }}, role_arn: \"{ROLE}\", profile_arn: \"{}\", trust_anchor_arn: \"{}\", destination: {{ type: directory, path: /run/aws }} }}
",
        arn("profile"),
        arn("trust-anchor"),
        arn("profile"),
        arn("trust-anchor")
    ));
    let [java, jwt, map, aws, aws2] = outputs.as_slice() else {
        panic!("{outputs:?}");
    };
    let Document::X509 { formats, password } = &java.document else {
        panic!("{java:?}");
    };
    assert!(formats.iter().eq([&Format::Pkcs12, &Format::Jks]));
    let variable = PasswordSource::Environment("STORE_PASSWORD".to_owned());
    assert_eq!(password.as_ref(), Some(&variable));
    assert_eq!(java.names.of("svid.p12"), "keystore.p12");
    assert!(java.remove_expired && !jwt.remove_expired);
    let DestinationConfig::Directory(directory) = &java.destination else {
        panic!("{java:?}");
    };
    assert_eq!(directory.symlinks, Symlinks::Secure);
    assert_eq!(directory.acls, Acls::Required);
    assert_eq!(directory.file_mode.unwrap().bits(), 0o640);
    assert_eq!(directory.directory_mode.unwrap().bits(), 0o750);
    assert_eq!(directory.user, Some(Principal::Name("app".to_owned())));
    assert_eq!(directory.group, Some(Principal::Id(100)));
    assert_eq!(
        directory.readers,
        [
            ReaderName::User(Principal::Id(1000)),
            ReaderName::Group(Principal::Name("www".to_owned()))
        ]
    );
    assert_eq!(
        java.hooks,
        [
            Hook::Signal {
                target: Target::PidFile("/run/web.pid".into()),
                signal: Signal::HUP
            },
            Hook::Signal {
                target: Target::Name("nginx".to_owned()),
                signal: Signal::USR1
            },
            Hook::Command {
                arguments: vec!["/bin/reload".to_owned(), "now".to_owned()],
                timeout: Duration::from_secs(5)
            },
        ]
    );
    let Document::Jwt { audiences, ttl } = &jwt.document else {
        panic!("{jwt:?}");
    };
    assert_eq!(audiences, &["a", "b"]);
    assert_eq!(*ttl, Some(Duration::from_secs(120)));
    assert_eq!(jwt.destination, DestinationConfig::Memory);
    assert_eq!(map.document, Document::BundleMap);
    let (Document::Aws(aws), Document::Aws(other)) = (&aws.document, &aws2.document) else {
        panic!("{aws:?}");
    };
    assert_eq!(aws.session.role.as_str(), ROLE);
    assert_eq!(aws.renewal, Some(Duration::from_secs(1_200)));
    assert_eq!(
        (aws.profile.as_str(), other.profile.as_str()),
        ("prod", "default")
    );
    assert_eq!(aws.file, "aws_credentials");
}

#[test]
fn mistakes_of_outputs_are_told() {
    let directory = "destination: { type: directory, path: /o }";
    let output = |kind: &str, more: &str| {
        format!("  - {{ type: {kind}, name: o, selector: {{ name: w }}, {more} }}\n")
    };
    let x509 = |more: &str| output("workload-identity-x509", &format!("{directory}, {more}"));
    let at = |more: &str| {
        let more = format!("destination: {{ type: directory, path: /o, {more} }}");
        output("workload-identity-x509", &more)
    };
    let aws = |more: &str| {
        let more = format!("{directory}, {more}");
        output("workload-identity-aws-roles-anywhere", &more)
    };
    let arns = format!(
        "role_arn: \"{ROLE}\", profile_arn: \"{}\", trust_anchor_arn: \"{}\"",
        arn("profile"),
        arn("trust-anchor")
    );
    for (service, expected) in [
        (
            x509("formats: [der]"),
            "`der` is not known: pem, pkcs12, jks",
        ),
        (x509("formats: []"), "`formats`: there is none"),
        (x509("formats: [jks]"), "missing key `keystore_password`"),
        (
            x509("formats: [jks], keystore_password: {}"),
            "one of `file` and `environment`",
        ),
        (
            x509("formats: [jks], keystore_password: changeit"),
            "expected a mapping",
        ),
        (
            x509("file_names: { key.pem: x }"),
            "`key.pem` is no file of this output",
        ),
        (
            x509("file_names: { svid.pem: ../x }"),
            "cannot be the name of a file",
        ),
        (
            x509("on_expiry: burn"),
            "`burn` is not known: keep or remove",
        ),
        (
            x509("hooks: [{ signal: HUP }]"),
            "to whom? One of `pid_file` and `process`",
        ),
        (
            x509("hooks: [{ signal: KILL, pid_file: /p }]"),
            "`KILL` is not known: HUP",
        ),
        (
            x509("hooks: [{ command: [] }]"),
            "`command`: [program, argument, …]",
        ),
        (
            x509("hooks: [{ timeout: 1s }]"),
            "one of `signal` and `command`",
        ),
        (x509("audiences: [a]"), "`audiences`"),
        (
            at("symlinks: never"),
            "`never` is not known: secure, try-secure, insecure",
        ),
        (at("file_mode: \"0660\""), "lets others write"),
        (
            at("file_mode: \"0644\""),
            "everybody on this machine could read the secret",
        ),
        (at("file_mode: \"0x\""), "no mode of a file"),
        (
            at("readers: [{ user: a, group: b }]"),
            "a reader is one of `user` and `group`",
        ),
        (
            at("readers: [{ user: \"a b\" }]"),
            "no name of a user or group",
        ),
        (
            at("acls: off, readers: [{ user: a }]"),
            "off, and there are `readers`",
        ),
        (
            output("workload-identity-jwt", directory),
            "missing key `audiences`",
        ),
        (
            output(
                "workload-identity-jwt",
                &format!("{directory}, audiences: []"),
            ),
            "`audiences`: there is none",
        ),
        (
            output(
                "workload-identity-jwt",
                &format!("{directory}, audiences: [\"\"]"),
            ),
            "an audience is empty",
        ),
        (
            aws(&arns.replace("role/app", "user/app")),
            "is not arn:aws:iam:REGION:ACCOUNT:role/NAME",
        ),
        (
            aws(&format!("{arns}, session_duration: 5m")),
            "`session_duration`",
        ),
        (
            aws(&format!(
                "{arns}, session_duration: 15m, session_renewal_interval: 15m"
            )),
            "not shorter than `session_duration`",
        ),
        (
            aws(&format!("{arns}, credential_profile_name: \"a]\"")),
            "no name of a profile",
        ),
        (
            aws(&format!("{arns}, artifact_name: a/b")),
            "no name of a file",
        ),
        (
            aws(&format!("{arns}, endpoint: \"http://x\"")),
            "is not https://HOST",
        ),
        (
            aws(&arns).repeat(2).replacen("name: o,", "name: p,", 1),
            "aws_credentials#default is written by service p already",
        ),
    ] {
        let mistakes = mistakes(&service);
        assert!(
            mistakes.len() == 1 && mistakes[0].contains(expected),
            "{service}{expected}: {mistakes:#?}"
        );
    }
}

#[test]
#[cfg(not(feature = "kubernetes"))]
fn a_build_without_kubernetes_says_so() {
    let service = "  - { type: workload-identity-x509, name: o, selector: { name: w }, destination: { type: kubernetes_secret, name: web } }\n";
    let mistakes = mistakes(service);
    assert!(
        mistakes[0].contains("built without Kubernetes"),
        "{mistakes:#?}"
    );
}

#[test]
#[cfg(feature = "kubernetes")]
fn secrets_of_kubernetes_are_read() {
    use ::output::destination::kubernetes::Shape;
    let service = |more: &str| {
        format!(
            "  - {{ type: workload-identity-x509, name: o, selector: {{ name: w }}, destination: {{ type: kubernetes_secret, {more} }} }}\n"
        )
    };
    let outputs = outputs(&service(
        "name: web, namespace: apps, labels: { a: b }, secret_type: Opaque, kubeconfig_path: /k, kubeconfig_context: c, force: true",
    ));
    let DestinationConfig::KubernetesSecret(secret) = &outputs[0].destination else {
        panic!("{outputs:?}");
    };
    assert_eq!(
        (secret.name.as_str(), secret.namespace.as_deref()),
        ("web", Some("apps"))
    );
    assert!(secret.force && secret.shape == Shape::Opaque && secret.labels["a"] == "b");
    let mistakes = mistakes(&service("name: Web, secret_type: tls"));
    assert!(
        mistakes[0].contains("`Web` is no name of an object"),
        "{mistakes:#?}"
    );
    assert!(mistakes[1].contains("`tls` is not known"), "{mistakes:#?}");
}

/// The API server takes no Secret of type kubernetes.io/tls without certificate and key.
#[test]
#[cfg(feature = "kubernetes")]
fn a_secret_has_a_type_that_its_output_can_fill() {
    use ::output::destination::kubernetes::Shape;
    let service = |what: &str, secret: &str| {
        format!(
            "  - {{ name: o, {what}, destination: {{ type: kubernetes_secret, name: web{secret} }} }}\n"
        )
    };
    let x509 = "type: workload-identity-x509, selector: { name: w }";
    let stores = "type: workload-identity-x509, selector: { name: w }, formats: [pkcs12], keystore_password: { environment: P }";
    let jwt = "type: workload-identity-jwt, selector: { name: w }, audiences: [a]";
    let bundles = "type: spiffe-bundle-map, selector: { name: w }";
    let aws = "type: workload-identity-aws-roles-anywhere, selector: { name: w }, \
        role_arn: 'arn:aws:iam::123456789012:role/r', \
        profile_arn: 'arn:aws:rolesanywhere:us-east-1:123456789012:profile/6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e', \
        trust_anchor_arn: 'arn:aws:rolesanywhere:us-east-1:123456789012:trust-anchor/6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e'";
    for (what, expected) in [
        (x509, Shape::Tls),
        (stores, Shape::Opaque),
        (jwt, Shape::Opaque),
        (bundles, Shape::Opaque),
        (aws, Shape::Opaque),
    ] {
        let outputs = outputs(&service(what, ""));
        let DestinationConfig::KubernetesSecret(secret) = &outputs[0].destination else {
            panic!("{outputs:?}");
        };
        assert_eq!(secret.shape, expected, "{what}");
        if expected == Shape::Opaque {
            let mistakes = mistakes(&service(what, ", secret_type: kubernetes.io/tls"));
            assert!(mistakes[0].contains("writes none"), "{mistakes:#?}");
        }
    }
    for (names, secret, expected) in [
        ("svid.pem: cert.pem", "", "svid.pem is tls.crt in a Secret"),
        ("svid.pem: cert.pem", ", secret_type: Opaque", ""),
        ("svid_crl.pem: tls.key", "", "would be the key tls.key"),
        ("bundle_map.json: svid/pem", "", "would be the key svid.pem"),
        (
            "bundle_map.json: svid/crl.pem, svid_crl.pem: svid.crl.pem",
            "",
            "would be the key svid.crl.pem",
        ),
        ("bundle_map.json: trust/map.json, svid_crl.pem: b", "", ""),
        (
            "bundle_map.json: federated.x.pem",
            "",
            "would be the key federated.x.pem",
        ),
        ("bundle_map.json: 'a b'", "", "cannot be a key"),
    ] {
        let service = service(&format!("{x509}, file_names: {{ {names} }}"), secret);
        match expected {
            "" => drop(outputs(&service)),
            expected => {
                let mistakes = mistakes(&service);
                assert!(mistakes[0].contains(expected), "{names}: {mistakes:#?}");
            }
        }
    }
}
