//! What is known of who asks: the attribute tree of one decision.
//!
//! `join.*` is what the issuer verified when the bot joined, carried by the bot
//! certificate; `user.*` is what its own records say; `workload.*` is what the
//! agent says, which nobody here can check. What an agent says is taken as far as
//! it is understood: an agent of another version must not be refused for a fact
//! that this issuer does not know of.

use std::collections::BTreeMap;

use policy::{AttributeErrors, Attributes, Value};
use prost::Message;
use prost_types::{Struct, Value as WireValue, value::Kind as WireKind};
use serde_json::{Map, Value as Json};

use crate::{
    access::{Caller, Denial, Refused},
    resources::{BotSpec, Metadata},
};

/// Most that an agent may say of one workload, encoded.
const ASSERTED_MAX: usize = 64 * 1024;
/// Largest whole number that a JSON number holds exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Reads what an agent says below `workload`. What is unknown or of the wrong type is
/// left out, with a word to the log; only too much of it is an error.
pub(super) fn asserted(wire: &Struct) -> Result<Attributes, Refused> {
    let size = wire.encoded_len();
    if size > ASSERTED_MAX {
        let detail =
            format!("workload attributes of {size} bytes; at most {ASSERTED_MAX} are read");
        return Err(Refused::new(Denial::InvalidRequest, detail));
    }
    let tree = Json::from_iter([("workload", json_of(wire))]);
    let (attributes, errors) = Attributes::from_json_lossy(&tree);
    if let Some(errors) = errors {
        ignored("workload", &errors);
    }
    Ok(attributes)
}

/// Reads the attributes below `join` of a bot certificate; an older or newer issuer may
/// have written it.
pub(crate) fn joined(wire: &Struct) -> Attributes {
    let tree = Json::from_iter([("join", json_of(wire))]);
    let (attributes, errors) = Attributes::from_json_lossy(&tree);
    if let Some(errors) = errors {
        ignored("join", &errors);
    }
    attributes
}

/// The attributes below `join` of who joined by this method, as a bot certificate is to
/// carry them. `token`: empty where the name of a token is its secret.
pub(crate) fn of_join(method: &str, token: &str) -> Struct {
    let text = |name: &str, text: &str| {
        let kind = Some(WireKind::StringValue(text.to_owned()));
        (name.to_owned(), WireValue { kind })
    };
    let mut meta = BTreeMap::from([text("join_method", method)]);
    if !token.is_empty() {
        meta.extend([text("join_token_name", token)]);
    }
    let meta = WireValue {
        kind: Some(WireKind::StructValue(Struct { fields: meta })),
    };
    Struct {
        fields: BTreeMap::from([("meta".to_owned(), meta)]),
    }
}

/// What the issuer itself knows of the bot that calls: `join.*` and `user.*`.
pub(super) fn verified(caller: Option<&Caller>, metadata: &Metadata, bot: &BotSpec) -> Attributes {
    let mut attributes = caller.map(|caller| caller.join.clone()).unwrap_or_default();
    let name = metadata.name.as_str();
    set(
        &mut attributes,
        "user.name",
        Value::String(format!("bot-{name}")),
    );
    set(&mut attributes, "user.is_bot", Value::Bool(true));
    set(
        &mut attributes,
        "user.bot_name",
        Value::String(name.to_owned()),
    );
    if let Some(caller) = caller {
        let instance = Value::String(caller.instance_id.clone());
        set(&mut attributes, "user.bot_instance_id", instance);
    }
    set(
        &mut attributes,
        "user.labels",
        Value::Map(metadata.labels.clone()),
    );
    set(
        &mut attributes,
        "user.traits",
        Value::MultiMap(bot.traits.clone()),
    );
    attributes
}

fn set(attributes: &mut Attributes, path: &'static str, value: Value) {
    if let Err(error) = attributes.set(path, value) {
        // Fails closed: a rule or template that needs it finds it unset.
        tracing::warn!(%error, "an attribute of the bot is left out");
    }
}

fn ignored(group: &'static str, errors: &AttributeErrors) {
    metrics::counter!("issuer_attributes_ignored_total", "group" => group)
        .increment(errors.0.len() as u64);
    tracing::debug!(group, %errors, "attributes that are not understood are left out");
}

fn json_of(wire: &Struct) -> Json {
    let members = wire.fields.iter();
    Json::Object(
        members
            .map(|(name, value)| (name.clone(), json_of_value(value)))
            .collect::<Map<_, _>>(),
    )
}

fn json_of_value(wire: &WireValue) -> Json {
    match &wire.kind {
        None | Some(WireKind::NullValue(_)) => Json::Null,
        Some(WireKind::BoolValue(flag)) => Json::from(*flag),
        Some(WireKind::StringValue(text)) => Json::from(text.as_str()),
        // JSON has no whole numbers; the schema has.
        Some(WireKind::NumberValue(number))
            if number.fract() == 0.0 && number.abs() <= EXACT_MAX =>
        {
            Json::from(*number as i64)
        }
        Some(WireKind::NumberValue(number)) => Json::from(*number),
        Some(WireKind::StructValue(inner)) => json_of(inner),
        Some(WireKind::ListValue(list)) => list.values.iter().map(json_of_value).collect(),
    }
}
