//! The functions that an expression may call: an allow-list.
//!
//! CEL's own (`startsWith`, `size`, …), some of CEL's `strings` extension
//! (`lowerAscii`, `replace`, `split`, …), and Teleport's names for them
//! (`strings.lower`, `email.local`, …).

use super::check::Checker;
use super::error::ExpressionError;
use super::node::{Function, Kind, Node, Pattern};
use super::syntax::{Span, Syntax};
use super::types::{BOOL, INT, Kinds, Scalar, TEXT, TEXTS};
use crate::schema;

struct Signature {
    name: &'static str,
    /// `text.f(…)` rather than `f(text, …)`.
    method: bool,
    /// The target of a method comes first.
    takes: &'static [Kinds],
    gives: Kinds,
    function: Function,
}

const fn method(
    name: &'static str,
    takes: &'static [Kinds],
    gives: Kinds,
    function: Function,
) -> Signature {
    Signature {
        name,
        method: true,
        takes,
        gives,
        function,
    }
}

const fn global(
    name: &'static str,
    takes: &'static [Kinds],
    gives: Kinds,
    function: Function,
) -> Signature {
    Signature {
        name,
        method: false,
        takes,
        gives,
        function,
    }
}

#[rustfmt::skip]
static SIGNATURES: &[Signature] = &[
    method("contains", &[TEXT, TEXT], BOOL, Function::Contains),
    method("endsWith", &[TEXT, TEXT], BOOL, Function::EndsWith),
    method("startsWith", &[TEXT, TEXT], BOOL, Function::StartsWith),
    method("lowerAscii", &[TEXT], TEXT, Function::Lower),
    method("upperAscii", &[TEXT], TEXT, Function::Upper),
    method("trim", &[TEXT], TEXT, Function::Trim),
    method("replace", &[TEXT, TEXT, TEXT], TEXT, Function::Replace),
    method("split", &[TEXT, TEXT], TEXTS, Function::Split),
    method("join", &[TEXTS], TEXT, Function::Join),
    method("join", &[TEXTS, TEXT], TEXT, Function::Join),
    global("string", &[TEXT], TEXT, Function::ToText),
    global("string", &[INT], TEXT, Function::ToText),
    global("string", &[BOOL], TEXT, Function::ToText),
    global("int", &[INT], INT, Function::ToInt),
    global("int", &[TEXT], INT, Function::ToInt),
    global("strings.lower", &[TEXT], TEXT, Function::Lower),
    global("strings.upper", &[TEXT], TEXT, Function::Upper),
    global("strings.replaceall", &[TEXT, TEXT, TEXT], TEXT, Function::Replace),
    global("strings.split", &[TEXT, TEXT], TEXTS, Function::Split),
    global("email.local", &[TEXT], TEXT, Function::EmailLocal),
];

/// Whether signatures of the image satisfy what resources `sigstore_policy` demand.
const POLICY_SATISFIED: &str = "sigstore.policy_satisfied";
/// Most policies that one call names.
const MAX_POLICIES: usize = 16;

/// Names that are handled by themselves.
const OTHERS: [&str; 9] = [
    POLICY_SATISFIED,
    "has",
    "size",
    "matches",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
];

/// Whether functions are named `space.…`.
pub(crate) fn is_namespace(space: &str) -> bool {
    matches!(space, "strings" | "email" | "regexp" | "regex" | "sigstore")
}

/// Checks a call and its arguments. `name` has its name space with it.
pub(crate) fn call(
    checker: &mut Checker<'_>,
    name: &str,
    name_span: Span,
    target: Option<Syntax>,
    arguments: Vec<Syntax>,
) -> Result<(Kind, Kinds), ExpressionError> {
    let method = target.is_some();
    let all = target.into_iter().chain(arguments);
    if name == "matches" {
        return matches(checker, name_span, all.collect());
    }
    if name == POLICY_SATISFIED && !method {
        return policy_satisfied(checker, name_span, all.collect());
    }
    let mut nodes = Vec::new();
    let mut kinds = Vec::new();
    for argument in all {
        let (node, kind) = checker.any(argument)?;
        nodes.push(node);
        kinds.push(kind);
    }
    if name == "size" {
        return match kinds[..] {
            [Kinds::Scalar(Scalar::Text) | Kinds::List(_) | Kinds::Map(_) | Kinds::MultiMap] => {
                Ok((Kind::Call(Function::Size, nodes.into()), INT))
            }
            _ => Err(ExpressionError::new(
                name_span,
                "`size` is asked of one string, list or map",
            )),
        };
    }
    let named: Vec<_> = SIGNATURES.iter().filter(|it| it.name == name).collect();
    if named.is_empty() {
        return Err(unknown(name, name_span));
    }
    let fits = |signature: &&&Signature| {
        signature.method == method
            && signature.takes.len() == kinds.len()
            && signature.takes.iter().zip(&kinds).all(|(wanted, given)| {
                wanted == given || (*wanted == TEXTS && *given == Kinds::List(None))
            })
    };
    match named.iter().find(fits) {
        Some(signature) => Ok((
            Kind::Call(signature.function, nodes.into()),
            signature.gives,
        )),
        None => {
            let forms: Vec<_> = named.iter().map(|signature| form(signature)).collect();
            Err(ExpressionError::new(
                name_span,
                format!("`{name}` is written {}", forms.join(" or ")),
            ))
        }
    }
}

/// `text.matches("pattern")`: the pattern is compiled here and now.
fn matches(
    checker: &mut Checker<'_>,
    span: Span,
    arguments: Vec<Syntax>,
) -> Result<(Kind, Kinds), ExpressionError> {
    let mut arguments = arguments.into_iter();
    let (Some(text), Some(pattern), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(ExpressionError::new(
            span,
            "`matches` is written `string.matches(\"pattern\")`",
        ));
    };
    let text = checker.of(text, TEXT)?;
    let pattern = checker.of(pattern, TEXT)?;
    let Node {
        kind: Kind::Text(source),
        span,
    } = pattern
    else {
        let message =
            "the pattern of `matches` must be a text written here, so that it is checked now";
        return Err(ExpressionError::new(pattern.span, message));
    };
    let pattern = Pattern::compile(&source).map_err(|error| {
        ExpressionError::new(
            span,
            format!("{source:?} is not a regular expression: {error}"),
        )
    })?;
    Ok((Kind::Matches(Box::new((text, pattern))), BOOL))
}

/// `sigstore.policy_satisfied("name", …)`: true if all of these policies are satisfied.
/// The names are known here and now, so that it is known what is to be verified.
fn policy_satisfied(
    checker: &mut Checker<'_>,
    span: Span,
    arguments: Vec<Syntax>,
) -> Result<(Kind, Kinds), ExpressionError> {
    if arguments.is_empty() || arguments.len() > MAX_POLICIES {
        let message = format!(
            "`{POLICY_SATISFIED}` takes the names of 1 to {MAX_POLICIES} resources `sigstore_policy`"
        );
        return Err(ExpressionError::new(span, message));
    }
    let mut names = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let name = checker.of(argument, TEXT)?;
        let Kind::Text(text) = &name.kind else {
            let message =
                format!("the names given to `{POLICY_SATISFIED}` must be texts written here");
            return Err(ExpressionError::new(name.span, message));
        };
        checker.signature_policy(text, name.span);
        names.push(name);
    }
    Ok((Kind::PoliciesSatisfied(names.into()), BOOL))
}

fn unknown(name: &str, span: Span) -> ExpressionError {
    let hint = match name {
        "regexp.replace" | "regex.replace" => "; use `replace` or `split`",
        "ifelse" => "; it is written `condition ? one : other`",
        "set" => "; a set is written as a list: [\"a\", \"b\"]",
        "dict" | "pair" => "; a dictionary is written as a map: {\"a\": \"b\"}",
        _ => "",
    };
    let names = SIGNATURES
        .iter()
        .map(|signature| signature.name)
        .chain(OTHERS);
    ExpressionError::new(span, format!("there is no function `{name}`{hint}"))
        .suggest(schema::nearest(name, names))
}

fn form(signature: &Signature) -> String {
    let mut takes = signature.takes.iter().map(|kinds| kinds.name());
    let target = if signature.method {
        takes
            .next()
            .map(|target| format!("({target})."))
            .unwrap_or_default()
    } else {
        String::new()
    };
    format!(
        "`{target}{}({})`",
        signature.name,
        takes.collect::<Vec<_>>().join(", ")
    )
}
