//! Who may, and why: rules over SPIFFE IDs, rules and templates over the
//! attributes of a caller, and what they saw when they decided. No I/O, no clock.
//!
//! `peer` decides on a peer by its SPIFFE ID. The rest decides which identity
//! a workload gets: the [`schema`] says what can be known of a caller,
//! [`Attributes`] hold what is known of one, an [`Expression`] asks them,
//! [`Rules`] say who may, and a [`Template`] makes the id.

pub mod attributes;
pub mod condition;
pub mod expression;
#[cfg(feature = "peer")]
pub mod peer;
pub mod reads;
pub mod rule;
pub mod schema;
pub mod template;

pub use attributes::{AttributeError, AttributeErrors, Attributes, LeftOut, Value};
pub use condition::{Condition, Operator};
pub use expression::{EvaluationError, Expression, ExpressionError, Trace};
#[cfg(feature = "peer")]
pub use peer::{Decision, PathPrefix, PeerPolicy, PeerRule};
pub use reads::WorkloadReads;
pub use rule::{
    List, Rule, RuleDecision, RuleError, RuleRef, RuleSource, RuleTrace, Rules, RulesTrace,
};
pub use schema::{Attribute, Presence, Trust, Type, attributes};
pub use template::{PathTemplate, RenderError, Template, TemplateTrace};
