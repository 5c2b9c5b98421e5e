//! Any text as a template, and any text as the value of an attribute: a path
//! has the segments of its template, each one that SPIFFE allows.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use policy::{Attributes, PathTemplate, Template, Value};

static PATHS: LazyLock<Vec<PathTemplate>> = LazyLock::new(|| {
    [
        "/ci/{{ user.name }}",
        "/{{ user.name }}/{{user.bot_name}}",
        "/a/{{ user.name }}{{ user.name }}/b",
        "/.{{ user.name }}/x",
        "/{{ user.name.replace('a', '/').replace('/', '.') }}/x",
        "/{{ user.name.split('/')[0] }}-/x",
    ]
    .into_iter()
    .map(|text| PathTemplate::compile(text).expect("it is a path"))
    .collect()
});

fn check(path: &PathTemplate, attributes: &Attributes, segments: usize) {
    let Ok(rendered) = path.render(attributes) else {
        return;
    };
    let mut found = 0;
    for segment in rendered
        .strip_prefix('/')
        .expect("it begins with `/`")
        .split('/')
    {
        found += 1;
        assert!(
            !segment.is_empty() && segment != "." && segment != "..",
            "{rendered:?}"
        );
        assert!(
            segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
            "{rendered:?}"
        );
    }
    assert_eq!(found, segments, "{rendered:?}");
}

/// The slashes of a template outside of its expressions.
fn slashes(path: &PathTemplate) -> usize {
    let mut literal = path.source().to_owned();
    for expression in path.expressions() {
        literal = literal.replacen(expression.source(), "", 1);
    }
    literal.matches('/').count()
}

fuzz_target!(|data: (&str, &str)| {
    let (text, value) = data;
    let mut attributes = Attributes::new();
    if attributes
        .set("user.name", Value::String(value.to_owned()))
        .is_err()
    {
        return;
    }
    attributes
        .set("user.bot_name", Value::String("bot".to_owned()))
        .expect("it obeys the schema");
    for path in PATHS.iter() {
        check(path, &attributes, slashes(path));
    }
    if let Ok(template) = Template::compile(text) {
        let rendered = template.render(&attributes);
        let trace = template.explain(&attributes);
        assert_eq!(rendered.ok(), trace.value);
        assert!(!template.is_literal() || trace.value.as_deref() == Some(text));
    }
    if let Ok(path) = PathTemplate::compile(text) {
        check(&path, &attributes, slashes(&path));
    }
});
