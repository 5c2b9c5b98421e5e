//! Further claims of a JWT-SVID: a JSON object whose strings are templates.

use policy::{Attributes, RenderError, Template, WorkloadReads};
use serde_json::{Map, Value};

/// Claims with templates at every string, at any depth.
#[derive(Debug, Clone, Default)]
pub struct ClaimsTemplate {
    claims: Vec<(String, Claim)>,
}

#[derive(Debug, Clone)]
pub(super) enum Claim {
    /// Null, a boolean or a number.
    Fixed(Value),
    Text(Template),
    List(Vec<Claim>),
    Map(Vec<(String, Claim)>),
}

impl ClaimsTemplate {
    pub(super) fn new(claims: Vec<(String, Claim)>) -> Self {
        Self { claims }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// As they were written.
    pub fn source(&self) -> Map<String, Value> {
        let claims = self.claims.iter();
        claims
            .map(|(name, claim)| (name.clone(), claim.source()))
            .collect()
    }

    /// What of a workload they can depend on.
    pub fn workload_reads(&self) -> WorkloadReads {
        let claims = self.claims.iter().map(|(_, claim)| claim);
        claims.map(Claim::workload_reads).collect()
    }

    /// Every template in them.
    pub fn templates(&self) -> Vec<&Template> {
        let mut templates = Vec::new();
        for (_, claim) in &self.claims {
            claim.collect(&mut templates);
        }
        templates
    }

    /// The claims for a caller. One template that fails fails the whole.
    pub fn render(&self, attributes: &Attributes) -> Result<Map<String, Value>, RenderError> {
        let claims = self.claims.iter();
        claims
            .map(|(name, claim)| Ok((name.clone(), claim.render(attributes)?)))
            .collect()
    }
}

impl Claim {
    fn workload_reads(&self) -> WorkloadReads {
        match self {
            Self::Fixed(_) => WorkloadReads::default(),
            Self::Text(template) => template.workload_reads(),
            Self::List(items) => items.iter().map(Self::workload_reads).collect(),
            Self::Map(entries) => {
                let claims = entries.iter().map(|(_, claim)| claim);
                claims.map(Self::workload_reads).collect()
            }
        }
    }

    fn source(&self) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(template) => Value::from(template.source()),
            Self::List(items) => items.iter().map(Self::source).collect(),
            Self::Map(entries) => entries
                .iter()
                .map(|(name, claim)| (name.clone(), claim.source()))
                .collect(),
        }
    }

    fn collect<'c>(&'c self, templates: &mut Vec<&'c Template>) {
        match self {
            Self::Fixed(_) => {}
            Self::Text(template) => templates.push(template),
            Self::List(items) => items.iter().for_each(|item| item.collect(templates)),
            Self::Map(entries) => entries
                .iter()
                .for_each(|(_, claim)| claim.collect(templates)),
        }
    }

    fn render(&self, attributes: &Attributes) -> Result<Value, RenderError> {
        Ok(match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(template) => Value::from(template.render(attributes)?),
            Self::List(items) => items
                .iter()
                .map(|item| item.render(attributes))
                .collect::<Result<Value, _>>()?,
            Self::Map(entries) => entries
                .iter()
                .map(|(name, claim)| Ok((name.clone(), claim.render(attributes)?)))
                .collect::<Result<Value, RenderError>>()?,
        })
    }
}
