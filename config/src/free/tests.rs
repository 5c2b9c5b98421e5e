use super::Free;
use crate::Document;

fn read(value: &str) -> Result<Free, String> {
    let text = format!("a: {value}\n");
    let documents = Document::parse_all("a.yaml", &text).map_err(|error| error.to_string())?;
    documents[0]
        .resolve(|fields| fields.free("a"))
        .map_err(|error| error.to_string())
}

#[test]
fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
    let text = |text: &str| Free::Text(text.to_owned());
    for (written, value) in [
        ("true", Free::Boolean(true)),
        ("FALSE", Free::Boolean(false)),
        ("'true'", text("true")),
        ("yes", text("yes")),
        ("tRue", text("tRue")),
        ("0", Free::Integer(0)),
        ("-7", Free::Integer(-7)),
        ("+7", Free::Integer(7)),
        ("0o17", Free::Integer(15)),
        ("0x1F", Free::Integer(31)),
        ("-0x1F", text("-0x1F")),
        ("010", Free::Integer(10)),
        ("18446744073709551615", Free::Integer(u64::MAX.into())),
        ("-9223372036854775808", Free::Integer(i64::MIN.into())),
        ("1.10", Free::Float(1.1)),
        (".5", Free::Float(0.5)),
        ("5.", Free::Float(5.0)),
        ("1e3", Free::Float(1000.0)),
        ("-1.5E-3", Free::Float(-0.0015)),
        (".", text(".")),
        ("e3", text("e3")),
        ("1e", text("1e")),
        ("1_000", text("1_000")),
        ("!!str 5", text("5")),
        ("2026-11-21", text("2026-11-21")),
        (
            "[1, ~, {b: null}]",
            Free::List(vec![
                Free::Integer(1),
                Free::Null,
                Free::Map(vec![("b".to_owned(), Free::Null)]),
            ]),
        ),
    ] {
        assert_eq!(read(written), Ok(value), "{written}");
    }
    for (written, told) in [
        ("18446744073709551616", "too large"),
        ("-9223372036854775809", "too large"),
        (&"9".repeat(60), "too large"),
        ("1e400", "too large"),
        (".inf", "no such number"),
        ("-.INF", "no such number"),
        (".nan", "no such number"),
    ] {
        let error = read(written).unwrap_err();
        assert!(error.starts_with("a.yaml:1:4: `a`: "), "{error}");
        assert!(error.contains(told), "{error}");
    }
    let error = read("[1, [2, 1e999]]").unwrap_err();
    assert!(error.starts_with("a.yaml:1:12: `a`: "), "{error}");
}
