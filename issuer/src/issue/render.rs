//! What the templates of a workload identity come to for one caller, checked.
//!
//! An attribute's value is text from outside. It can fill a segment of a path but
//! make none (`policy` sees to that); the id, names and addresses that come out are
//! parsed here as if a stranger had sent them, and what is reserved for the issuer
//! and its bots is refused again, whatever the template looked like.

use std::{collections::HashSet, fmt, hash::Hash, net::IpAddr};

use identity::{SpiffeId, TrustDomain};
use policy::{Attributes, RenderError, Template};
use serde_json::{Map, Value};

use crate::{
    access::{Denial, Refused},
    authority::Subject,
    resources::{DnsName, SpiffePath, SvidKind, WorkloadIdentitySpec},
};

/// Longest hint (WA-17).
const HINT_MAX: usize = 1024;
/// Longest extra claims, as JSON: a token travels in HTTP headers.
const CLAIMS_MAX: usize = 8 * 1024;

/// What goes into a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The SPIFFE ID.
    pub id: SpiffeId,
    /// Told to the workload.
    pub hint: String,
    /// DNS SANs, each once (X.509).
    pub dns_sans: Vec<DnsName>,
    /// IP SANs, each once (X.509).
    pub ip_sans: Vec<IpAddr>,
    /// The subject (X.509).
    pub subject: Subject,
    /// Further claims (JWT).
    pub claims: Map<String, Value>,
}

/// Renders what a document of this kind holds.
pub(super) fn render(
    spec: &WorkloadIdentitySpec,
    kind: SvidKind,
    trust_domain: &TrustDomain,
    attributes: &Attributes,
) -> Result<Rendered, Refused> {
    let renderer = Renderer(attributes);
    let mut rendered = Rendered {
        id: renderer.id(spec, trust_domain)?,
        hint: renderer.hint(spec)?,
        dns_sans: Vec::new(),
        ip_sans: Vec::new(),
        subject: Subject::default(),
        claims: Map::new(),
    };
    match kind {
        SvidKind::X509 => {
            rendered.dns_sans = renderer.list(
                "dns_sans",
                &spec.dns_sans,
                Template::render_dns_name,
                dns_name,
            )?;
            rendered.ip_sans =
                renderer.list("ip_sans", &spec.ip_sans, Template::render, |_, text| {
                    text.parse::<IpAddr>()
                })?;
            rendered.subject = renderer.subject(spec)?;
        }
        SvidKind::Jwt => rendered.claims = renderer.claims(spec)?,
        SvidKind::Wit => {}
    }
    Ok(rendered)
}

struct Renderer<'a>(&'a Attributes);

impl Renderer<'_> {
    fn text(&self, field: &str, template: &Template) -> Result<String, Refused> {
        template
            .render(self.0)
            .map_err(|error| unrendered(field, &error))
    }

    fn optional(&self, field: &str, template: Option<&Template>) -> Result<String, Refused> {
        template.map_or(Ok(String::new()), |template| self.text(field, template))
    }

    fn id(
        &self,
        spec: &WorkloadIdentitySpec,
        trust_domain: &TrustDomain,
    ) -> Result<SpiffeId, Refused> {
        let path = spec
            .path
            .render(self.0)
            .map_err(|error| unrendered("spiffe.id", &error))?;
        let invalid = |error: &dyn fmt::Display| Refused::new(Denial::InvalidId, error.to_string());
        // Reserved prefixes and the path's letters, then the id with its length.
        let path = SpiffePath::parse(&path).map_err(|error| invalid(&error))?;
        path.id(trust_domain).map_err(|error| invalid(&error))
    }

    fn hint(&self, spec: &WorkloadIdentitySpec) -> Result<String, Refused> {
        let hint = self.optional("spiffe.hint", spec.hint.as_ref())?;
        if hint.len() > HINT_MAX || hint.chars().any(char::is_control) {
            let why = "at most 1024 bytes without control characters";
            return Err(unrendered("spiffe.hint", &why));
        }
        Ok(hint)
    }

    /// Each once: two templates may come to the same.
    fn list<T, E>(
        &self,
        field: &str,
        templates: &[Template],
        render: impl Fn(&Template, &Attributes) -> Result<String, RenderError>,
        parse: impl Fn(&Template, &str) -> Result<T, E>,
    ) -> Result<Vec<T>, Refused>
    where
        T: Clone + Eq + Hash,
        E: fmt::Display,
    {
        let mut seen = HashSet::new();
        let mut values = Vec::with_capacity(templates.len());
        for template in templates {
            let text = render(template, self.0).map_err(|error| unrendered(field, &error))?;
            let value = parse(template, &text).map_err(|error| {
                let shown: String = text.chars().take(64).collect();
                unrendered(field, &format!("{shown:?}: {error}"))
            })?;
            if seen.insert(value.clone()) {
                values.push(value);
            }
        }
        Ok(values)
    }

    fn subject(&self, spec: &WorkloadIdentitySpec) -> Result<Subject, Refused> {
        let field = "x509.subject_template";
        let template = &spec.subject;
        Subject::new(
            &self.optional(field, template.common_name.as_ref())?,
            &self.optional(field, template.organization.as_ref())?,
            &self.optional(field, template.organizational_unit.as_ref())?,
        )
        .map_err(|error| unrendered(field, &error))
    }

    fn claims(&self, spec: &WorkloadIdentitySpec) -> Result<Map<String, Value>, Refused> {
        let field = "jwt.extra_claims";
        if spec.jwt_extra_claims.is_empty() {
            return Ok(Map::new());
        }
        let rendered = spec.jwt_extra_claims.render(self.0);
        let claims = rendered.map_err(|error| unrendered(field, &error))?;
        let size = serde_json::to_string(&claims).map_or(0, |text| text.len());
        if size > CLAIMS_MAX {
            let why = format!("{size} bytes as JSON; at most {CLAIMS_MAX}");
            return Err(unrendered(field, &why));
        }
        Ok(claims)
    }
}

/// A wildcard is what the resource's author wrote, never what an attribute's value
/// makes of a name.
fn dns_name(template: &Template, text: &str) -> Result<DnsName, String> {
    if text.contains('*') && !template.source().starts_with("*.") {
        return Err("an attribute's value makes it a wildcard".to_owned());
    }
    DnsName::parse(text).map_err(|error| error.to_string())
}

fn unrendered(field: &str, why: &dyn fmt::Display) -> Refused {
    Refused::new(Denial::Template, format!("{field}: {why}"))
}

#[cfg(test)]
mod tests;
