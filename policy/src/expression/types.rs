//! Static types of the parts of an expression.

use crate::schema::Type;

/// The static type of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    Scalar(Scalar),
    /// `None`: the empty list.
    List(Option<Scalar>),
    Map(Option<Scalar>),
    MultiMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Text,
    Int,
    Bool,
}

pub(crate) const TEXT: Kinds = Kinds::Scalar(Scalar::Text);
pub(crate) const INT: Kinds = Kinds::Scalar(Scalar::Int);
pub(crate) const BOOL: Kinds = Kinds::Scalar(Scalar::Bool);
pub(crate) const TEXTS: Kinds = Kinds::List(Some(Scalar::Text));

impl Scalar {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Int => "int",
            Self::Bool => "bool",
        }
    }
}

impl Kinds {
    /// The name in messages: `list of strings`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Scalar(scalar) => scalar.name().to_owned(),
            Self::List(None) => "empty list".to_owned(),
            Self::List(Some(element)) => format!("list of {}s", element.name()),
            Self::Map(None) => "empty map".to_owned(),
            Self::Map(Some(element)) => format!("map of {}s", element.name()),
            Self::MultiMap => "map of lists of strings".to_owned(),
        }
    }

    /// The name with its article: `an int`.
    pub(crate) fn a(self) -> String {
        let name = self.name();
        let article = if name.starts_with(['i', 'e']) {
            "an"
        } else {
            "a"
        };
        format!("{article} {name}")
    }

    pub(super) fn of(r#type: Type) -> Self {
        match r#type {
            Type::String => TEXT,
            Type::Int => INT,
            Type::Bool => BOOL,
            Type::List => TEXTS,
            Type::Map => Self::Map(Some(Scalar::Text)),
            Type::MultiMap => Self::MultiMap,
        }
    }

    /// Whether values of the two can be equal.
    pub(super) fn comparable(self, other: Self) -> bool {
        match (self, other) {
            (Self::List(one), Self::List(two)) | (Self::Map(one), Self::Map(two)) => {
                one.is_none() || two.is_none() || one == two
            }
            _ => self == other,
        }
    }
}
