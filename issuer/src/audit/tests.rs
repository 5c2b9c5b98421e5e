use super::{Event, EventName};

#[test]
fn what_a_caller_sent_brings_no_control_characters_into_the_log() {
    let event =
        Event::success(EventName::SvidIssued).with("workload_identity", "a\r\u{1b}[2Kb\u{9b}\nc");
    assert_eq!(event.text_field("workload_identity"), "a[2Kbc");
    assert_eq!(event.fields_json(), r#"{"workload_identity":"a[2Kbc"}"#);
}

#[test]
fn what_an_attribute_holds_is_recorded_exactly_and_shows_nothing_but_itself() {
    let tree =
        serde_json::json!({ "workload": { "a\u{9b}": ["x\u{7f}\u{85}\u{202e}y\u{2028}", 1] } });
    let json = Event::success(EventName::SvidIssued)
        .with("attributes", tree.clone())
        .fields_json();
    assert!(json.is_ascii(), "{json}");
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["attributes"], tree);
}
