use super::*;

/// Resolves the only document of `text` with `resolve`.
fn resolve<T>(text: &str, resolve: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Result<T, String> {
    let documents = Document::parse_all("a.yaml", text).map_err(|mistakes| mistakes.to_string())?;
    assert_eq!(documents.len(), 1, "{text}");
    documents[0]
        .resolve(resolve)
        .map_err(|mistakes| mistakes.to_string())
}

fn string(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

#[derive(Debug, PartialEq)]
struct Service {
    name: String,
    listen: u16,
    on: Option<bool>,
    grace: Option<Duration>,
    peers: Vec<String>,
}

fn service(fields: &mut Fields<'_>) -> Option<Service> {
    let name = fields.required("name", string);
    let listen = fields.required("listen", |text| {
        text.parse()
            .map_err(|_| format!("`{text}` is not a port number"))
    });
    let on = fields.boolean("enabled");
    let grace = fields.duration("grace", Duration::from_secs(1)..=Duration::from_secs(60));
    let peers = fields.scalars("peers", string);
    Some(Service {
        name: name?,
        listen: listen?,
        on,
        grace,
        peers,
    })
}

#[test]
fn values_are_read_as_written() {
    let text =
        "name: 1.10\nlisten: 80\nenabled: false\ngrace: 1m\npeers: [on, 0644, \"~\", 'a b']\n";
    assert_eq!(
        resolve(text, service),
        Ok(Service {
            name: "1.10".into(),
            listen: 80,
            on: Some(false),
            grace: Some(Duration::from_secs(60)),
            peers: vec!["on".into(), "0644".into(), "~".into(), "a b".into()],
        })
    );
}

#[test]
fn every_mistake_is_reported_in_order_of_position() {
    let text = "\
listen: eighty
grce: 5s
enabled: on
peers: alice
grace: 2h
";
    assert_eq!(
        resolve(text, service).unwrap_err(),
        "\
a.yaml:1:1: missing key `name`
a.yaml:1:9: `listen`: `eighty` is not a port number
a.yaml:2:1: unknown key `grce`: known are enabled, grace, listen, name, peers
a.yaml:3:10: `enabled`: expected true or false, found `on`
a.yaml:4:8: `peers`: expected a sequence, found a single value
a.yaml:5:8: `grace`: 2h is out of range: from 1s to 1m"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_absent_one() {
    for (text, suggestion) in [
        ("name: a\nlisten: 1\ngrce: 5s\n", "did you mean `grace`?"),
        (
            "name: a\nlisten: 1\nenable: true\n",
            "did you mean `enabled`?",
        ),
        (
            "name: a\nlisten: 1\nzzz: true\n",
            "known are enabled, grace, listen, name, peers",
        ),
    ] {
        let mistakes = resolve(text, service).unwrap_err();
        assert!(
            mistakes.starts_with("a.yaml:3:1: unknown key"),
            "{mistakes}"
        );
        assert!(mistakes.ends_with(suggestion), "{mistakes}");
    }
}

#[test]
fn each_wrong_kind_has_its_message() {
    let cases = [
        (
            "name: [a]\nlisten: 1",
            "1:7: `name`: expected a single value, found a sequence",
        ),
        (
            "name: a\nlisten: {}",
            "2:9: `listen`: expected a single value, found a mapping",
        ),
        (
            "name:\nlisten: 1",
            "1:1: `name`: has no value: give it one or remove the key",
        ),
        (
            "name: ~\nlisten: 1",
            "1:1: `name`: has no value: give it one or remove the key",
        ),
        (
            "name: a\nlisten: 1\nenabled: \"true\"",
            "3:10: `enabled`: expected true or false, found the string `true`",
        ),
        (
            "name: a\nlisten: 1\nenabled: True",
            "3:10: `enabled`: expected true or false, found `True`",
        ),
        (
            "name: a\nlisten: 1\npeers: [a, {b: c}]",
            "3:12: `peers`: expected a single value, found a mapping",
        ),
        (
            "name: a\nlisten: 1\npeers: [a, null]",
            "3:12: `peers`: expected a single value, found nothing",
        ),
        (
            "name: a\nlisten: 1\ngrace: 5",
            "3:8: `grace`: `5` is not a duration: write whole numbers with units, as 250ms, 90s, 5m, 1h30m, 14d",
        ),
        ("- a", "1:1: expected a mapping of keys, found a sequence"),
        (
            "just text",
            "1:1: expected a mapping of keys, found a single value",
        ),
    ];
    for (text, expected) in cases {
        let mistakes = resolve(text, service).unwrap_err();
        assert_eq!(mistakes, format!("a.yaml:{expected}"), "{text}");
    }
}

#[test]
fn integers_are_decimal_and_in_range() {
    let read = |text: &str| resolve(text, |fields| fields.integer("n", 1..=100));
    assert_eq!(read("n: 100"), Ok(100));
    for (text, message) in [
        ("n: 0", "0 is out of range: from 1 to 100"),
        (
            "n: 99999999999999999999",
            "99999999999999999999 is out of range: from 1 to 100",
        ),
        ("n: -1", "expected a whole number, found `-1`"),
        ("n: 0x10", "expected a whole number, found `0x10`"),
        ("n: 010", "expected a whole number, found `010`"),
        ("n: 1_0", "expected a whole number, found `1_0`"),
        ("n: 1.0", "expected a whole number, found `1.0`"),
    ] {
        assert_eq!(
            read(text).unwrap_err(),
            format!("a.yaml:1:4: `n`: {message}")
        );
    }
}

#[test]
fn nested_mappings_report_their_own_positions() {
    let text = "\
services:
  - name: a
    listen: 1
  - nam: b
    listen: 2
  - oops
shutdown: {grace: 5x, gracee: 1s}
";
    let mistakes = resolve(text, |fields| {
        let services = fields.mappings("services", service);
        fields.mapping("shutdown", |fields| {
            fields.duration("grace", Duration::ZERO..=Duration::MAX)
        });
        Some(services)
    })
    .unwrap_err();
    assert_eq!(
        mistakes,
        "\
a.yaml:4:5: missing key `name`
a.yaml:4:5: unknown key `nam`: did you mean `name`?
a.yaml:6:5: `services`: expected a mapping, found a single value
a.yaml:7:19: `grace`: `5x` is not a duration: write whole numbers with units, as 250ms, 90s, 5m, 1h30m, 14d
a.yaml:7:23: unknown key `gracee`: known are grace"
    );
}

#[test]
fn maps_with_free_keys_keep_their_order() {
    let text = "labels: {b: 1, a: x}\nselect: {env: [prod, dev], \"*\": \"*\"}\n";
    let (labels, select) = resolve(text, |fields| {
        Some((
            fields.string_map("labels"),
            fields.string_list_map("select"),
        ))
    })
    .unwrap();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(labels, [pair("b", "1"), pair("a", "x")]);
    assert_eq!(
        select,
        [
            ("env".to_owned(), vec!["prod".to_owned(), "dev".to_owned()]),
            ("*".to_owned(), vec!["*".to_owned()])
        ]
    );
    let mistakes = resolve("labels: {b: [1]}\nselect: {c: {}}", |fields| {
        Some((
            fields.string_map("labels"),
            fields.string_list_map("select"),
        ))
    })
    .unwrap_err();
    assert_eq!(
        mistakes,
        "a.yaml:1:13: `b`: expected a single value, found a sequence\n\
         a.yaml:2:13: `c`: expected a single value, found a mapping"
    );
}

#[test]
fn callers_can_record_mistakes_of_their_own() {
    let mistakes = resolve("a: 1\nb: 2\n", |fields| {
        fields.optional("a", string);
        fields.optional("b", string);
        let at = fields.position("a").unwrap();
        fields.mistake("b", "b clashes with a");
        fields.mistake("c", "no c");
        fields.mistake_at(at, "a clashes with b");
        Some(())
    })
    .unwrap_err();
    assert_eq!(
        mistakes,
        "a.yaml:1:1: no c\na.yaml:1:4: a clashes with b\na.yaml:2:4: b clashes with a"
    );
}

#[test]
fn items_are_counted_wrong_ones_too() {
    let counts = resolve("a: [1, {}, ~]\nb: 1\nc: []\n", |fields| {
        let counts = ["a", "b", "c", "d"].map(|key| fields.count(key));
        fields.ignore_rest();
        Some(counts)
    });
    assert_eq!(counts, Ok([3, 0, 0, 0]));
}

#[test]
fn ignore_rest_keeps_unread_keys_quiet_and_none_is_never_silent() {
    let mistakes = resolve("type: x\nother: 1\n", |fields| {
        fields.required("type", |text| Err::<(), _>(format!("`{text}` is no type")));
        fields.ignore_rest();
        None::<()>
    })
    .unwrap_err();
    assert_eq!(mistakes, "a.yaml:1:7: `type`: `x` is no type");
    let mistakes = resolve("{}", |_| None::<()>).unwrap_err();
    assert_eq!(mistakes, "a.yaml:1:1: this mapping is not complete");
}
