use identity::Jwk;
use serde_json::json;

use super::{
    Checkpoint, Export, Head, Line, NotDurable, Recorded, check_code, parse_time, time_text,
};

fn record(fields: &str) -> Recorded {
    Recorded {
        sequence: 7,
        time_ms: 1_763_769_600_123,
        event: "spiffe.svid.issued".to_owned(),
        success: false,
        fields: fields.to_owned(),
        hash: [0xab; 32],
    }
}

#[test]
fn every_line_is_read_as_it_was_written() {
    let lines = [
        Line::Record(record(r#"{"b":1.50,"a":"ä\n"}"#)),
        // Whitespace, order and spelling of numbers are part of what was hashed.
        Line::Record(record("{ \"b\" : 1e2,\t\"a\":[ ] }")),
        Line::NotDurable(NotDurable {
            time_ms: 1_763_769_600_123,
            event: "spiffe.svid.issued".to_owned(),
            success: true,
            fields: r#"{"b":1,"a":2}"#.to_owned(),
        }),
        Line::Export(Export {
            trust_domain: "example.org".to_owned(),
            first: 3,
            previous: [1; 32],
            last: 9,
        }),
        // RFC 7517 appendix A.1.
        Line::Key(
            Jwk::from_members(
                json!({
                    "kty": "EC", "crv": "P-256",
                    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
                })
                .as_object()
                .unwrap(),
            )
            .unwrap(),
        ),
        Line::Checkpoint(Checkpoint {
            head: Head {
                trust_domain: "example.org".to_owned(),
                sequence: 9,
                hash: [2; 32],
                time_ms: 1_763_769_600_123,
            },
            key_id: "k".to_owned(),
            signature: vec![9, 8, 7],
        }),
    ];
    for line in lines {
        let text = line.to_json();
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(Line::parse(&text), Ok(line), "{text}");
    }
}

#[test]
fn what_was_tampered_with_is_still_one_line_and_read_back_exactly() {
    for fields in ["", "{", "null", "\"x\"", "{\n}", "{}\r", "{} {}", "\u{0}"] {
        let line = Line::Record(record(fields));
        let text = line.to_json();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(Line::parse(&text), Ok(line), "{text}");
    }
    for time_ms in [i64::MAX, i64::MIN, -1, 0] {
        assert_eq!(parse_time(&time_text(time_ms)), Some(time_ms));
        let line = Line::Record(Recorded {
            time_ms,
            ..record("{}")
        });
        assert_eq!(Line::parse(&line.to_json()), Ok(line));
    }
}

#[test]
fn a_record_says_its_code() {
    let text = Line::Record(record("{}")).to_json();
    assert!(text.contains(r#""code":"TSPIFFE000E""#), "{text}");
    assert!(
        text.contains(r#""time":"2025-11-22T00:00:00.123Z""#),
        "{text}"
    );
}

#[test]
fn what_is_no_line_is_an_error() {
    for text in ["", "{}", "[]", "{\"sequence\":1}", "nonsense"] {
        assert!(Line::parse(text).is_err(), "{text}");
    }
    let text = Line::Record(record("{}")).to_json();
    assert!(Line::parse(&text.replace("abab", "zzzz")).is_err());
}

#[test]
fn a_code_that_is_not_that_of_the_event_is_found() {
    let text = Line::Record(record("{}")).to_json();
    assert_eq!(check_code(&text), Ok(()));
    let forged = text.replace("TSPIFFE000E", "TSPIFFE000I");
    let error = check_code(&forged).unwrap_err();
    assert!(error.contains("TSPIFFE000I"), "{error}");
    let newer = text.replace("spiffe.svid.issued", "something.newer");
    assert_eq!(check_code(&newer), Ok(()));
}
