//! What is known of who asks: the attribute tree of one decision.
//!
//! `join.*` is what the issuer verified when the bot joined, carried by the bot
//! certificate; `user.*` is what its own records say; `workload.*` is what the
//! agent says, which nobody here can check. What an agent says is taken as far as
//! it is understood: an agent of another version must not be refused for a fact
//! that this issuer does not know of.

use std::collections::BTreeMap;

use policy::{Attributes, LeftOut, Value};
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
    let (attributes, left_out) = Attributes::from_json_lossy(&tree);
    if let Some(left_out) = left_out {
        ignored("workload", &left_out);
    }
    Ok(attributes)
}

/// Reads the attributes below `join` of a bot certificate; an older or newer issuer may
/// have written it.
pub(crate) fn joined(wire: &Struct) -> Attributes {
    let tree = Json::from_iter([("join", json_of(wire))]);
    let (attributes, left_out) = Attributes::from_json_lossy(&tree);
    if let Some(left_out) = left_out {
        ignored("join", &left_out);
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

/// What the issuer itself knows of the bot that calls: `join.*` and `user.*`. Errors: the
/// bot has what no attribute can hold. Without it a rule that denies might not.
pub(super) fn verified(
    caller: Option<&Caller>,
    metadata: &Metadata,
    bot: &BotSpec,
) -> Result<Attributes, Refused> {
    let mut attributes = caller.map(|caller| caller.join.clone()).unwrap_or_default();
    let name = metadata.name.as_str();
    let instance = caller.map(|caller| caller.instance_id.clone());
    let known = [
        ("user.name", Value::String(format!("bot-{name}"))),
        ("user.is_bot", Value::Bool(true)),
        ("user.bot_name", Value::String(name.to_owned())),
        ("user.labels", Value::Map(metadata.labels.clone())),
        ("user.traits", Value::MultiMap(bot.traits.clone())),
    ];
    let instance = instance.map(|id| ("user.bot_instance_id", Value::String(id)));
    for (path, value) in known.into_iter().chain(instance) {
        attributes
            .set(path, value)
            .map_err(|error| Refused::new(Denial::Damaged, format!("bot {name}: {error}")))?;
    }
    Ok(attributes)
}

fn ignored(group: &'static str, left_out: &LeftOut) {
    metrics::counter!("issuer_attributes_ignored_total", "group" => group)
        .increment(left_out.count as u64);
    tracing::debug!(group, %left_out, "attributes that are not understood are left out");
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

#[cfg(test)]
mod tests;
