//! `workload_identity` on the wire.

use ::config::{Path, format_duration};
use identity::TrustDomain;
use proto::admin::v1 as pb;
use serde_json::{Map, Value};

use super::{check::Check, duration_to_wire};
use crate::resources::{
    DnsName, JwtAlgorithm, NameError, SpiffePath, SubjectTemplate, SvidKind, TtlLimits,
    WorkloadIdentitySpec,
};

/// Most subject alternative names of each kind.
const MAX_SANS: usize = 64;
/// Most federated trust domains.
const MAX_FEDERATED: usize = 64;
/// Most bytes of the template of a hint (WA-17 bounds what it renders to).
const MAX_HINT: usize = 1024;
/// Most bytes of further claims.
const MAX_CLAIMS: usize = 16 * 1024;
/// Claims that the issuer sets (RFC 7519, 4.1; RFC 7800, 3.1).
const REGISTERED_CLAIMS: [&str; 8] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf"];

pub(super) fn read(
    check: &mut Check,
    at: &Path,
    spec: pb::WorkloadIdentitySpec,
) -> Option<WorkloadIdentitySpec> {
    let at = at.key("spiffe");
    let (at_x509, at_jwt, at_wit) = (at.key("x509"), at.key("jwt"), at.key("wit"));
    if is_literal(&spec.spiffe_path) {
        check.take(&at.key("id"), SpiffePath::parse(&spec.spiffe_path));
    }
    if spec.hint.len() > MAX_HINT || spec.hint.chars().any(char::is_control) {
        let message = "at most 1024 bytes without control characters are accepted";
        check.refuse(&at.key("hint"), message);
    }
    let at_dns = at_x509.key("dns_sans");
    names(check, &at_dns, &spec.dns_sans, |name| {
        DnsName::parse(name).map(|_| ())
    });
    let at_ip = at_x509.key("ip_sans");
    names(check, &at_ip, &spec.ip_sans, |name| {
        let parsed = name.parse::<std::net::IpAddr>();
        parsed.map(|_| ()).map_err(|_| {
            let why = "an IPv4 or IPv6 address, as 10.0.0.1 or fd00::1";
            NameError::new("IP address", name, why)
        })
    });
    let x509 = limits(
        check,
        &at_x509,
        SvidKind::X509,
        spec.x509_default_ttl.as_ref(),
        spec.x509_maximum_ttl.as_ref(),
    );
    let jwt = limits(
        check,
        &at_jwt,
        SvidKind::Jwt,
        spec.jwt_default_ttl.as_ref(),
        spec.jwt_maximum_ttl.as_ref(),
    );
    let wit = limits(
        check,
        &at_wit,
        SvidKind::Wit,
        spec.wit_default_ttl.as_ref(),
        spec.wit_maximum_ttl.as_ref(),
    );
    let jwt_algorithm = algorithm(check, &at_jwt, &spec.jwt_algorithm);
    let jwt_extra_claims = claims(
        check,
        &at_jwt.key("extra_claims"),
        &spec.jwt_extra_claims_json,
    );
    let federates_with = federated(check, &at.key("federates_with"), &spec.federates_with);
    let subject = spec.x509_subject.unwrap_or_default();
    Some(WorkloadIdentitySpec {
        path: spec.spiffe_path,
        hint: not_empty(spec.hint),
        dns_sans: spec.dns_sans,
        ip_sans: spec.ip_sans,
        subject: SubjectTemplate {
            common_name: not_empty(subject.common_name),
            organization: not_empty(subject.organization),
            organizational_unit: not_empty(subject.organizational_unit),
        },
        x509,
        jwt,
        wit,
        jwt_algorithm: jwt_algorithm?,
        jwt_extra_claims: jwt_extra_claims?,
        allow: spec.allow,
        deny: spec.deny,
        federates_with,
    })
}

/// What hangs on the issuer's own trust domain: the length of a literal id (ID-16).
pub(super) fn check_in(
    check: &mut Check,
    at: &Path,
    trust_domain: &TrustDomain,
    spec: &WorkloadIdentitySpec,
) {
    let at = at.key("spiffe");
    if is_literal(&spec.path) {
        let id = SpiffePath::parse(&spec.path).and_then(|path| path.id(trust_domain));
        check.take(&at.key("id"), id);
    }
    let own = spec
        .federates_with
        .iter()
        .position(|name| name == trust_domain);
    if let Some(index) = own {
        let message = format!("{trust_domain} is this issuer's own: its bundle is always sent");
        check.refuse(&at.key("federates_with").index(index), message);
    }
}

fn is_literal(template: &str) -> bool {
    !template.contains("{{")
}

fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn names(
    check: &mut Check,
    at: &Path,
    names: &[String],
    parse: impl Fn(&str) -> Result<(), NameError>,
) {
    check.at_most(at, MAX_SANS, names.len());
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        if is_literal(name) {
            check.take(&at, parse(name));
        }
        if names[..index].contains(name) {
            check.refuse(&at, format!("{name:?} is given twice"));
        }
    }
}

fn limits(
    check: &mut Check,
    at: &Path,
    kind: SvidKind,
    default: Option<&prost_types::Duration>,
    maximum: Option<&prost_types::Duration>,
) -> TtlLimits {
    let at_default = at.key("default_ttl");
    let default = check.life(&at_default, default, kind.ttl_cap());
    let maximum = check.life(&at.key("maximum_ttl"), maximum, kind.ttl_cap());
    let most = maximum.unwrap_or(kind.default_maximum());
    if let Some(default) = default
        && default > most
    {
        let message = format!(
            "{} is more than the maximum_ttl, {}",
            format_duration(default),
            format_duration(most)
        );
        check.refuse(&at_default, message);
    }
    TtlLimits { default, maximum }
}

fn algorithm(check: &mut Check, at: &Path, text: &str) -> Option<JwtAlgorithm> {
    match text {
        "" | "ES256" => Some(JwtAlgorithm::Es256),
        "RS256" => Some(JwtAlgorithm::Rs256),
        _ => {
            let message = format!("{text:?} is not known: write ES256 or RS256");
            check.refuse(&at.key("algorithm"), message);
            None
        }
    }
}

fn claims(check: &mut Check, at: &Path, json: &str) -> Option<Map<String, Value>> {
    if json.is_empty() {
        return Some(Map::new());
    }
    if json.len() > MAX_CLAIMS {
        let message = format!("at most {MAX_CLAIMS} bytes as JSON are accepted");
        check.refuse(at, message);
        return None;
    }
    let Ok(claims) = serde_json::from_str::<Map<String, Value>>(json) else {
        check.refuse(at, "a JSON object is expected");
        return None;
    };
    for name in claims.keys() {
        if REGISTERED_CLAIMS.contains(&name.as_str()) {
            let message = format!("the issuer sets the claim {name}: name yours otherwise");
            check.refuse(&at.key(name.clone()), message);
        }
    }
    Some(claims)
}

fn federated(check: &mut Check, at: &Path, names: &[String]) -> Vec<TrustDomain> {
    check.at_most(at, MAX_FEDERATED, names.len());
    let mut parsed = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let trust_domain = check.take(&at.index(index), TrustDomain::parse(name));
        parsed.extend(trust_domain.filter(|name| !parsed.contains(name)));
    }
    parsed
}

pub(super) fn write(spec: &WorkloadIdentitySpec) -> pb::WorkloadIdentitySpec {
    let text = |template: &Option<String>| template.clone().unwrap_or_default();
    let subject = pb::SubjectTemplate {
        common_name: text(&spec.subject.common_name),
        organization: text(&spec.subject.organization),
        organizational_unit: text(&spec.subject.organizational_unit),
    };
    pb::WorkloadIdentitySpec {
        spiffe_path: spec.path.clone(),
        hint: text(&spec.hint),
        dns_sans: spec.dns_sans.clone(),
        x509_maximum_ttl: spec.x509.maximum.map(duration_to_wire),
        ip_sans: spec.ip_sans.clone(),
        x509_subject: (subject != pb::SubjectTemplate::default()).then_some(subject),
        jwt_maximum_ttl: spec.jwt.maximum.map(duration_to_wire),
        jwt_extra_claims_json: match spec.jwt_extra_claims.is_empty() {
            true => String::new(),
            false => Value::Object(spec.jwt_extra_claims.clone()).to_string(),
        },
        jwt_algorithm: match spec.jwt_algorithm {
            JwtAlgorithm::Es256 => String::new(),
            other => other.as_str().to_owned(),
        },
        wit_maximum_ttl: spec.wit.maximum.map(duration_to_wire),
        allow: spec.allow.clone(),
        deny: spec.deny.clone(),
        federates_with: spec
            .federates_with
            .iter()
            .map(ToString::to_string)
            .collect(),
        x509_default_ttl: spec.x509.default.map(duration_to_wire),
        jwt_default_ttl: spec.jwt.default.map(duration_to_wire),
        wit_default_ttl: spec.wit.default.map(duration_to_wire),
    }
}
