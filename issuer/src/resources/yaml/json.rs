//! JSON in the shape that YAML has.

use ::config::Free;
use proto::admin::v1 as pb;
use serde_json::{Number, Value};

use super::shape;

/// The same shape as YAML has.
pub fn to_json(resource: &pb::Resource) -> Value {
    value(shape::of(resource))
}

/// A value of any shape as JSON.
pub fn value(free: Free) -> Value {
    match free {
        Free::Null => Value::Null,
        Free::Boolean(value) => Value::from(value),
        Free::Integer(number) => Number::from_i128(number).map_or(Value::Null, Value::Number),
        Free::Float(number) => Value::from(number),
        Free::Text(text) => Value::from(text),
        Free::List(items) => items.into_iter().map(value).collect(),
        Free::Map(entries) => entries
            .into_iter()
            .map(|(key, inner)| (key, value(inner)))
            .collect(),
    }
}

pub(super) fn free(value: Value) -> Free {
    match value {
        Value::Null => Free::Null,
        Value::Bool(value) => Free::Boolean(value),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(number), _) => Free::Integer(number),
            (None, Some(number)) => Free::Float(number),
            (None, None) => Free::Null,
        },
        Value::String(text) => Free::Text(text),
        Value::Array(items) => Free::List(items.into_iter().map(free).collect()),
        Value::Object(entries) => Free::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key, free(value)))
                .collect(),
        ),
    }
}
