//! The subject of a leaf: up to three parts, each optional.

use std::fmt;

use der::{Decode, Encode, Tag, asn1::Any, oid::ObjectIdentifier};
use x509_cert::{
    attr::AttributeTypeAndValue,
    name::{Name, RdnSequence, RelativeDistinguishedName},
};

use super::AuthorityError;
use crate::resources::NameError;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
/// RFC 5280 Appendix A: ub-common-name and its sisters, in characters.
const PART_MAX: usize = 64;

/// The subject of a leaf. Nothing that SPIFFE decides hangs on it: it is for software
/// that reads a name there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    common_name: String,
    organization: String,
    organizational_unit: String,
}

impl Subject {
    /// Of these parts; an empty one is left out. Each has at most 64 characters (RFC
    /// 5280 Appendix A) and none that is a control character.
    pub fn new(
        common_name: &str,
        organization: &str,
        organizational_unit: &str,
    ) -> Result<Self, NameError> {
        let part = |what, text: &str| {
            if text.chars().count() > PART_MAX {
                return Err(NameError::new(what, text, "at most 64 characters"));
            }
            if text.chars().any(char::is_control) {
                return Err(NameError::new(what, text, "no control characters"));
            }
            Ok(text.to_owned())
        };
        Ok(Self {
            common_name: part("common name", common_name)?,
            organization: part("organization", organization)?,
            organizational_unit: part("organizational unit", organizational_unit)?,
        })
    }

    /// Whether it has no part.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Common name; empty: none.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Organization; empty: none.
    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// Organizational unit; empty: none.
    pub fn organizational_unit(&self) -> &str {
        &self.organizational_unit
    }

    pub(super) fn to_name(&self) -> Result<Name, AuthorityError> {
        name(&[
            (ORGANIZATION, Tag::Utf8String, &self.organization),
            (
                ORGANIZATIONAL_UNIT,
                Tag::Utf8String,
                &self.organizational_unit,
            ),
            (COMMON_NAME, Tag::Utf8String, &self.common_name),
        ])
    }
}

/// `CN=web, O=Example`, for people.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("CN", &self.common_name),
            ("O", &self.organization),
            ("OU", &self.organizational_unit),
        ];
        let mut separator = "";
        for (name, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, "{separator}{name}={value}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// The name of a CA. The key's id makes it unlike that of the CA before it, so that no
/// verifier has to choose between two issuers of one name.
pub(super) fn ca_name(common_name: &str, key_id: &str) -> Result<Name, AuthorityError> {
    name(&[
        (ORGANIZATION, Tag::Utf8String, common_name),
        (COMMON_NAME, Tag::Utf8String, common_name),
        (SERIAL_NUMBER, Tag::PrintableString, key_id),
    ])
}

fn name(parts: &[(ObjectIdentifier, Tag, &str)]) -> Result<Name, AuthorityError> {
    let mut sequence = RdnSequence::default();
    for (oid, tag, text) in parts {
        if text.is_empty() {
            continue;
        }
        let mut part = RelativeDistinguishedName::default();
        part.insert(AttributeTypeAndValue {
            oid: *oid,
            value: Any::new(*tag, text.as_bytes())?,
        })?;
        sequence.push(part);
    }
    Ok(Name::from_der(&sequence.to_der()?)?)
}
