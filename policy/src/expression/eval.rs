//! The value of an expression for one caller, under a budget of steps.
//!
//! Every node costs a step, every 64 bytes of text that are searched or made
//! cost one more, and a regular expression is charged by its size, so that the
//! budget bounds the time whatever is written and whatever the caller sends.
//! `&&`, `||`, `all` and `exists` are CEL's: the side that decides wins over an
//! error of the other. The end of the budget is never absorbed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::MAX_STEPS;
use super::error::EvaluationError as Error;
use super::node::{Arithmetic, Comparison, Comprehension, Function, Kind, Macro, Node, Pattern};
use super::trace::Recorder;
use super::value::Val;
use crate::attributes::{Attributes, MAX_ENTRIES, MAX_TEXT};
use crate::schema::{self, Type};

type Evaluated<'a> = Result<Val<'a>, Error>;

/// One evaluation.
pub(crate) struct Evaluator<'a> {
    source: &'a str,
    attributes: &'a Attributes,
    steps: u32,
    variables: Vec<Val<'a>>,
    recorder: Option<Recorder<'a>>,
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(source: &'a str, attributes: &'a Attributes) -> Self {
        Self {
            source,
            attributes,
            steps: 0,
            variables: Vec::new(),
            recorder: None,
        }
    }

    /// Keeps what every part evaluates to.
    pub(crate) fn recording(source: &'a str, attributes: &'a Attributes) -> Self {
        let recorder = Some(Recorder::new(source));
        Self {
            recorder,
            ..Self::new(source, attributes)
        }
    }

    pub(crate) fn into_recorder(self) -> Option<Recorder<'a>> {
        self.recorder
    }

    pub(crate) fn value(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.charge(1)?;
        if self.recorder.is_none() {
            return self.node(node);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.enter(node);
        }
        let result = self.node(node);
        if let Some(recorder) = &mut self.recorder {
            recorder.leave(node, &result);
        }
        result
    }

    fn charge(&mut self, steps: usize) -> Result<(), Error> {
        self.steps = self
            .steps
            .saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        if self.steps > MAX_STEPS {
            Err(Error::TooManySteps)
        } else {
            Ok(())
        }
    }

    fn node(&mut self, node: &'a Node) -> Evaluated<'a> {
        Ok(match &node.kind {
            Kind::Bool(flag) => Val::Bool(*flag),
            Kind::Int(number) => Val::Int(*number),
            Kind::Text(text) => Val::Text(Cow::Borrowed(text)),
            Kind::List(elements) => Val::List(self.values(elements)?.into()),
            Kind::Map(entries) => {
                let mut values: Vec<(Val<'a>, Val<'a>)> = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    values.push((self.value(key)?, self.value(value)?));
                }
                Val::Entries(values.into())
            }
            Kind::Attribute(index) => self.attribute(*index)?,
            Kind::HasAttribute(index) => Val::Bool(self.attributes.by_index(*index).is_some()),
            Kind::HasGroup(group) => Val::Bool(self.attributes.has_group(*group)),
            Kind::HasKey(map) => {
                let key = Val::Text(Cow::Borrowed(&map.1));
                Val::Bool(self.value(&map.0)?.entry(&key).is_some())
            }
            Kind::Variable(place) => {
                let value = self.variables[usize::from(*place)].clone();
                self.charge(value.weight())?;
                value
            }
            Kind::Index(parts) => self.index(parts)?,
            Kind::Not(of) => Val::Bool(!self.bool(of)?),
            Kind::Negate(of) => {
                let number = self.int(of)?.checked_neg();
                Val::Int(number.ok_or_else(|| self.arithmetic(node))?)
            }
            Kind::And(parts) => self.logic(parts, false)?,
            Kind::Or(parts) => self.logic(parts, true)?,
            Kind::Compare(comparison, sides) => {
                let (left, right) = (self.value(&sides[0])?, self.value(&sides[1])?);
                self.charge(left.weight().min(right.weight()))?;
                Val::Bool(compare(*comparison, &left, &right))
            }
            Kind::Compute(Arithmetic::Add, sides) => {
                match (self.value(&sides[0])?, self.value(&sides[1])?) {
                    (Val::Int(left), Val::Int(right)) => Val::Int(
                        left.checked_add(right)
                            .ok_or_else(|| self.arithmetic(node))?,
                    ),
                    (left, right) => {
                        let text = [left.text(), right.text()].concat();
                        self.made(node, text)?
                    }
                }
            }
            Kind::Compute(arithmetic, sides) => {
                let (left, right) = (self.int(&sides[0])?, self.int(&sides[1])?);
                let number = match arithmetic {
                    Arithmetic::Add => left.checked_add(right),
                    Arithmetic::Subtract => left.checked_sub(right),
                    Arithmetic::Multiply => left.checked_mul(right),
                    Arithmetic::Divide => left.checked_div(right),
                    Arithmetic::Modulo => left.checked_rem(right),
                };
                Val::Int(number.ok_or_else(|| self.arithmetic(node))?)
            }
            Kind::In(sides) => {
                let (value, of) = (self.value(&sides[0])?, self.value(&sides[1])?);
                Val::Bool(match of {
                    Val::Map(_) | Val::MultiMap(_) | Val::Entries(_) => of.entry(&value).is_some(),
                    _ => {
                        self.charge(of.weight() / 8)?;
                        of.items().any(|item| item == value)
                    }
                })
            }
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                if self.bool(condition)? {
                    self.value(yes)?
                } else {
                    self.value(no)?
                }
            }
            Kind::Call(function, arguments) => self.call(*function, arguments, node)?,
            Kind::Matches(parts) => {
                let (text, Pattern { regex, price }) = &**parts;
                let text = self.value(text)?;
                self.charge((1 + text.text().len() / 64) * *price as usize)?;
                Val::Bool(regex.is_match(text.text()))
            }
            Kind::PoliciesSatisfied(names) => {
                let mut all = true;
                for name in names {
                    self.charge(1)?;
                    all &= self.policy_satisfied(name);
                }
                Val::Bool(all)
            }
            Kind::Comprehension(comprehension) => self.comprehension(comprehension)?,
        })
    }

    /// Whether one signature policy is satisfied. A trace tells why not.
    fn policy_satisfied(&mut self, node: &Node) -> bool {
        let Kind::Text(name) = &node.kind else {
            return false;
        };
        let verdict = self.attributes.signature_policy(name);
        if let Some(recorder) = &mut self.recorder {
            recorder.note(node, verdict.is_ok(), verdict.err());
        }
        verdict.is_ok()
    }

    fn values(&mut self, nodes: &'a [Node]) -> Result<Vec<Val<'a>>, Error> {
        nodes.iter().map(|node| self.value(node)).collect()
    }

    fn bool(&mut self, node: &'a Node) -> Result<bool, Error> {
        Ok(matches!(self.value(node)?, Val::Bool(true)))
    }

    fn int(&mut self, node: &'a Node) -> Result<i64, Error> {
        Ok(match self.value(node)? {
            Val::Int(number) => number,
            _ => 0,
        })
    }

    fn attribute(&self, index: u16) -> Evaluated<'a> {
        static NO_MAP: BTreeMap<String, String> = BTreeMap::new();
        static NO_MULTI_MAP: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if let Some(value) = self.attributes.by_index(index) {
            return Ok(Val::of(value));
        }
        let attribute = schema::by_index(index);
        match (attribute.presence, attribute.r#type) {
            (schema::Presence::Always, Type::Map) => Ok(Val::Map(&NO_MAP)),
            (schema::Presence::Always, Type::MultiMap) => Ok(Val::MultiMap(&NO_MULTI_MAP)),
            _ => Err(Error::Unset {
                attribute: attribute.path,
            }),
        }
    }

    /// `&&` (`decides` is false) or `||` (true).
    fn logic(&mut self, parts: &'a [Node], decides: bool) -> Evaluated<'a> {
        let mut failed = None;
        for part in parts {
            match self.bool(part) {
                Ok(flag) if flag == decides => return Ok(Val::Bool(decides)),
                Ok(_) => {}
                Err(Error::TooManySteps) => return Err(Error::TooManySteps),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        failed.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn index(&mut self, parts: &'a [Node; 2]) -> Evaluated<'a> {
        let [of_node, key_node] = parts;
        let (of, key) = (self.value(of_node)?, self.value(key_node)?);
        let written = || of_node.span.text(self.source).to_owned();
        match (&of, &key) {
            (Val::List(_) | Val::Texts(_), Val::Int(index)) => usize::try_from(*index)
                .ok()
                .and_then(|index| match &of {
                    Val::Texts(items) => items
                        .get(index)
                        .map(|text| Val::Text(Cow::Borrowed(text.as_str()))),
                    Val::List(items) => items.get(index).cloned(),
                    _ => None,
                })
                .ok_or_else(|| Error::OutOfRange {
                    list: written(),
                    index: *index,
                    length: of.len(),
                }),
            _ => of.entry(&key).ok_or_else(|| Error::NoSuchKey {
                map: written(),
                key: key.text().to_owned(),
            }),
        }
    }

    fn comprehension(&mut self, comprehension: &'a Comprehension) -> Evaluated<'a> {
        let Comprehension {
            what,
            over,
            body,
            filter,
        } = comprehension;
        let over = self.value(over)?;
        self.charge(over.weight())?;
        let items: Vec<Val<'a>> = match over {
            Val::Map(_) | Val::MultiMap(_) | Val::Entries(_) => over.keys().collect(),
            _ => over.items().collect(),
        };
        let mut made = Vec::new();
        let mut count = 0_usize;
        let mut failed = None;
        for item in items {
            self.variables.push(item);
            let result = match filter {
                Some(filter) => match self.bool(filter) {
                    Ok(true) => self.value(body).map(Some),
                    Ok(false) => Ok(None),
                    Err(error) => Err(error),
                },
                None => self.value(body).map(Some),
            };
            let item = self.variables.pop();
            match (what, result) {
                (_, Err(Error::TooManySteps)) => return Err(Error::TooManySteps),
                (Macro::All | Macro::Exists, Err(error)) => drop(failed.get_or_insert(error)),
                (_, Err(error)) => return Err(error),
                (Macro::All, Ok(Some(Val::Bool(false)))) => return Ok(Val::Bool(false)),
                (Macro::Exists, Ok(Some(Val::Bool(true)))) => return Ok(Val::Bool(true)),
                (Macro::ExistsOne, Ok(Some(Val::Bool(true)))) => count += 1,
                (Macro::Filter, Ok(Some(Val::Bool(true)))) => made.extend(item),
                (Macro::Map, Ok(value)) => made.extend(value),
                _ => {}
            }
        }
        match (what, failed) {
            (_, Some(error)) => Err(error),
            (Macro::All, None) => Ok(Val::Bool(true)),
            (Macro::Exists, None) => Ok(Val::Bool(false)),
            (Macro::ExistsOne, None) => Ok(Val::Bool(count == 1)),
            (Macro::Filter | Macro::Map, None) => Ok(Val::List(made.into())),
        }
    }

    fn call(&mut self, function: Function, arguments: &'a [Node], node: &'a Node) -> Evaluated<'a> {
        let values = self.values(arguments)?;
        self.charge(values.iter().map(Val::weight).sum())?;
        let texts: Vec<&str> = values.iter().map(Val::text).collect();
        Ok(match (function, &texts[..]) {
            (Function::Contains, [text, part]) => Val::Bool(text.contains(part)),
            (Function::EndsWith, [text, end]) => Val::Bool(text.ends_with(end)),
            (Function::StartsWith, [text, start]) => Val::Bool(text.starts_with(start)),
            (Function::Lower, [text]) => Val::Text(text.to_ascii_lowercase().into()),
            (Function::Upper, [text]) => Val::Text(text.to_ascii_uppercase().into()),
            (Function::Replace, [text, from, to]) => {
                // The longest that it can become, before it is made.
                let places = text.matches(from).count();
                if text.len() + places * to.len() > 4 * MAX_TEXT {
                    return Err(Error::TooLong {
                        expression: node.span.text(self.source).to_owned(),
                    });
                }
                let text = text.replace(from, to);
                self.made(node, text)?
            }
            (Function::Size, _) => {
                let size = values.first().map_or(0, Val::len);
                Val::Int(i64::try_from(size).unwrap_or(i64::MAX))
            }
            (Function::Join, [_, ..]) => {
                let separator = texts.get(1).copied().unwrap_or_default();
                let mut joined = String::new();
                for (number, item) in values[0].items().enumerate() {
                    if number > 0 {
                        joined.push_str(separator);
                    }
                    joined.push_str(item.text());
                    if joined.len() > MAX_TEXT {
                        break;
                    }
                }
                self.made(node, joined)?
            }
            (Function::ToInt, [text]) if matches!(values[0], Val::Text(_)) => {
                Val::Int(text.parse().map_err(|_| Error::NotANumber {
                    text: (*text).to_owned(),
                })?)
            }
            _ => return self.reshape(function, values),
        })
    }

    /// The functions whose result may borrow from the attributes.
    fn reshape(&mut self, function: Function, values: Vec<Val<'a>>) -> Evaluated<'a> {
        let mut values = values.into_iter();
        let Some(first) = values.next() else {
            return Ok(Val::Bool(false));
        };
        let separator = values.next();
        Ok(match (function, first) {
            (Function::Trim, Val::Text(text)) => {
                let start = text.len() - text.trim_start().len();
                let end = start + text.trim().len();
                Val::Text(part(text, start..end))
            }
            (Function::EmailLocal, Val::Text(text)) => match text.rfind('@') {
                Some(length) if length > 0 => Val::Text(part(text, 0..length)),
                _ => {
                    return Err(Error::NotAnAddress {
                        text: text.into_owned(),
                    });
                }
            },
            (Function::Split, Val::Text(text)) => {
                let separator = separator.as_ref().map_or("", Val::text);
                let pieces: Vec<Val<'a>> = match text {
                    Cow::Borrowed(text) => pieces(text, separator)
                        .map(|it| Val::Text(Cow::Borrowed(it)))
                        .collect(),
                    Cow::Owned(text) => pieces(&text, separator)
                        .map(|it| Val::Text(Cow::Owned(it.to_owned())))
                        .collect(),
                };
                if pieces.len() > MAX_ENTRIES {
                    return Err(Error::TooManySteps);
                }
                self.charge(pieces.len() / 8)?;
                Val::List(pieces.into())
            }
            (Function::ToText, value) => value.render().map_or(Val::Bool(false), Val::Text),
            (_, value) => value,
        })
    }

    /// A text that was made, if it is not too long.
    fn made(&mut self, node: &Node, text: String) -> Evaluated<'a> {
        if text.len() > MAX_TEXT {
            return Err(Error::TooLong {
                expression: node.span.text(self.source).to_owned(),
            });
        }
        self.charge(text.len() / 64)?;
        Ok(Val::Text(Cow::Owned(text)))
    }

    fn arithmetic(&self, node: &Node) -> Error {
        Error::Arithmetic {
            expression: node.span.text(self.source).to_owned(),
        }
    }
}

/// Part of a text, borrowed as far as the text is.
fn part(text: Cow<'_, str>, range: Range<usize>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
    }
}

/// CEL's `split`: between every two characters if the separator is empty.
fn pieces<'t: 's, 's>(text: &'t str, separator: &'s str) -> Box<dyn Iterator<Item = &'t str> + 's> {
    if separator.is_empty() {
        Box::new(
            text.char_indices()
                .map(|(at, c)| &text[at..at + c.len_utf8()]),
        )
    } else {
        Box::new(text.split(separator))
    }
}

fn compare(comparison: Comparison, left: &Val<'_>, right: &Val<'_>) -> bool {
    let order = || match (left, right) {
        (Val::Int(left), Val::Int(right)) => left.cmp(right),
        (Val::Bool(left), Val::Bool(right)) => left.cmp(right),
        _ => left.text().cmp(right.text()),
    };
    match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => order().is_lt(),
        Comparison::LessEqual => order().is_le(),
        Comparison::Greater => order().is_gt(),
        Comparison::GreaterEqual => order().is_ge(),
    }
}
