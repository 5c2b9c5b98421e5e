//! `workload_identity` on the wire.

use ::config::{Path, format_duration};
use identity::{TrustDomain, jose::REGISTERED_CLAIMS};
use policy::{PathTemplate, Template};
use proto::admin::v1 as pb;
use serde_json::{Map, Value};

use super::{check::Check, duration_to_wire, rules};
use crate::resources::{
    ClaimsTemplate, DnsName, JwtAlgorithm, NameError, SpiffePath, SubjectTemplate, SvidKind,
    TtlLimits, WorkloadIdentitySpec, claims::Claim, names::reserved_prefix, specs::RuleTexts,
};

/// Most subject alternative names of each kind.
const MAX_SANS: usize = 64;
/// Most federated trust domains.
const MAX_FEDERATED: usize = 64;
/// Most bytes of a literal hint (WA-17; what a template renders to has the same bound).
const MAX_HINT: usize = 1024;
/// Most bytes of further claims.
const MAX_CLAIMS: usize = 16 * 1024;
/// Deepest nesting of further claims.
const MAX_CLAIM_DEPTH: usize = 16;
/// Most bytes of the name of a claim.
const MAX_CLAIM_NAME: usize = 256;
/// Most bytes of a literal part of a subject (RFC 5280, A.1: ub-common-name).
const MAX_SUBJECT: usize = 64;
/// Binds a token to a key (RFC 7800, 3.1): nothing that a template may say.
const CONFIRMATION: &str = "cnf";

pub(super) fn read(
    check: &mut Check,
    at: &Path,
    spec: pb::WorkloadIdentitySpec,
) -> Option<WorkloadIdentitySpec> {
    let rule_texts = RuleTexts {
        allow: spec.allow,
        deny: spec.deny,
    };
    let rules = rules::read(check, &at.key("rules"), &rule_texts);
    let at = at.key("spiffe");
    let (at_x509, at_jwt, at_wit) = (at.key("x509"), at.key("jwt"), at.key("wit"));
    let path = path(check, &at.key("id"), &spec.spiffe_path);
    let hint = text(check, &at.key("hint"), &spec.hint, MAX_HINT);
    let dns_sans = names(check, &at_x509.key("dns_sans"), &spec.dns_sans, |name| {
        DnsName::parse(name).map(|_| ())
    });
    let ip_sans = names(check, &at_x509.key("ip_sans"), &spec.ip_sans, |name| {
        let parsed = name.parse::<std::net::IpAddr>();
        parsed.map(|_| ()).map_err(|_| {
            let why = "an IPv4 or IPv6 address, as 10.0.0.1 or fd00::1";
            NameError::new("IP address", name, why)
        })
    });
    let subject = subject(check, &at_x509.key("subject_template"), spec.x509_subject);
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
    Some(WorkloadIdentitySpec {
        path: path?,
        hint,
        dns_sans,
        ip_sans,
        subject,
        x509,
        jwt,
        wit,
        jwt_algorithm: jwt_algorithm?,
        jwt_extra_claims: jwt_extra_claims?,
        rules,
        rule_texts,
        federates_with,
    })
}

fn path(check: &mut Check, at: &Path, text: &str) -> Option<PathTemplate> {
    let path = check.compiled(at, PathTemplate::compile(text))?;
    if path.is_literal() {
        check.take(at, SpiffePath::parse(text))?;
    } else if let Some(reserved) = begun(text).and_then(reserved_prefix) {
        let message = format!("paths under {reserved} belong to the issuer");
        check.refuse(at, message);
        return None;
    }
    Some(path)
}

/// The segments before the first expression of a path.
fn begun(template: &str) -> Option<&str> {
    let (literal, _) = template.split_once("{{")?;
    literal.rsplit_once('/').map(|(segments, _)| segments)
}

/// A template of text on one line; empty: none. A literal has at most `most` bytes.
fn text(check: &mut Check, at: &Path, text: &str, most: usize) -> Option<Template> {
    if text.is_empty() {
        return None;
    }
    let template = check.compiled(at, Template::compile(text))?;
    let too_long = template.is_literal() && text.len() > most;
    if too_long || text.chars().any(char::is_control) {
        let message = format!("at most {most} bytes without control characters are accepted");
        check.refuse(at, message);
    }
    Some(template)
}

fn subject(check: &mut Check, at: &Path, subject: Option<pb::SubjectTemplate>) -> SubjectTemplate {
    let subject = subject.unwrap_or_default();
    let mut part = |key: &'static str, value: &str| text(check, &at.key(key), value, MAX_SUBJECT);
    SubjectTemplate {
        common_name: part("common_name", &subject.common_name),
        organization: part("organization", &subject.organization),
        organizational_unit: part("organizational_unit", &subject.organizational_unit),
    }
}

fn names(
    check: &mut Check,
    at: &Path,
    names: &[String],
    parse: impl Fn(&str) -> Result<(), NameError>,
) -> Vec<Template> {
    check.at_most(at, MAX_SANS, names.len());
    let mut templates = Vec::with_capacity(names.len().min(MAX_SANS));
    for (index, name) in names.iter().take(MAX_SANS).enumerate() {
        let at = at.index(index);
        if names[..index].contains(name) {
            check.refuse(&at, format!("{name:?} is given twice"));
        }
        let template = check.compiled(&at, Template::compile(name));
        if template.as_ref().is_some_and(Template::is_literal) {
            check.take(&at, parse(name));
        }
        templates.extend(template);
    }
    templates
}

/// What hangs on the issuer's own trust domain: the length of a literal id (ID-16).
pub(super) fn check_in(
    check: &mut Check,
    at: &Path,
    trust_domain: &TrustDomain,
    spec: &WorkloadIdentitySpec,
) {
    let at = at.key("spiffe");
    if spec.path.is_literal() {
        let id = SpiffePath::parse(spec.path.source()).and_then(|path| path.id(trust_domain));
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

fn claims(check: &mut Check, at: &Path, json: &str) -> Option<ClaimsTemplate> {
    if json.is_empty() {
        return Some(ClaimsTemplate::default());
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
        if REGISTERED_CLAIMS.contains(&name.as_str()) || name == CONFIRMATION {
            let message = format!("the issuer sets the claim {name}: name yours otherwise");
            check.refuse(&at.key(name.clone()), message);
        }
    }
    Some(ClaimsTemplate::new(entries(check, at, claims, 0)))
}

fn entries(
    check: &mut Check,
    at: &Path,
    entries: Map<String, Value>,
    depth: usize,
) -> Vec<(String, Claim)> {
    let mut read = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let at = at.key(name.clone());
        if name.len() > MAX_CLAIM_NAME || name.chars().any(char::is_control) {
            let message = format!(
                "a name of at most {MAX_CLAIM_NAME} bytes without control characters is expected"
            );
            check.refuse(&at, message);
        }
        let claim = claim(check, &at, value, depth);
        read.push((name, claim));
    }
    read
}

fn claim(check: &mut Check, at: &Path, value: Value, depth: usize) -> Claim {
    if depth > MAX_CLAIM_DEPTH {
        let message = format!("nested more than {MAX_CLAIM_DEPTH} deep");
        check.refuse(at, message);
        return Claim::Fixed(Value::Null);
    }
    match value {
        Value::String(text) => match check.compiled(at, Template::compile(&text)) {
            Some(template) => Claim::Text(template),
            None => Claim::Fixed(Value::Null),
        },
        Value::Array(items) => {
            let items = items.into_iter().enumerate();
            Claim::List(
                items
                    .map(|(index, item)| claim(check, &at.index(index), item, depth + 1))
                    .collect(),
            )
        }
        Value::Object(inner) => Claim::Map(entries(check, at, inner, depth + 1)),
        fixed => Claim::Fixed(fixed),
    }
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
    let text = |template: &Option<Template>| {
        let source = template.as_ref().map(Template::source);
        source.unwrap_or_default().to_owned()
    };
    let texts = |templates: &[Template]| {
        let sources = templates.iter().map(Template::source);
        sources.map(str::to_owned).collect()
    };
    let subject = pb::SubjectTemplate {
        common_name: text(&spec.subject.common_name),
        organization: text(&spec.subject.organization),
        organizational_unit: text(&spec.subject.organizational_unit),
    };
    pb::WorkloadIdentitySpec {
        spiffe_path: spec.path.source().to_owned(),
        hint: text(&spec.hint),
        dns_sans: texts(&spec.dns_sans),
        x509_maximum_ttl: spec.x509.maximum.map(duration_to_wire),
        ip_sans: texts(&spec.ip_sans),
        x509_subject: (subject != pb::SubjectTemplate::default()).then_some(subject),
        jwt_maximum_ttl: spec.jwt.maximum.map(duration_to_wire),
        jwt_extra_claims_json: match spec.jwt_extra_claims.is_empty() {
            true => String::new(),
            false => Value::Object(spec.jwt_extra_claims.source()).to_string(),
        },
        jwt_algorithm: match spec.jwt_algorithm {
            JwtAlgorithm::Es256 => String::new(),
            other => other.as_str().to_owned(),
        },
        wit_maximum_ttl: spec.wit.maximum.map(duration_to_wire),
        allow: spec.rule_texts.allow.clone(),
        deny: spec.rule_texts.deny.clone(),
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
