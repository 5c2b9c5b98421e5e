use super::{Event, EventName};

#[test]
fn what_a_caller_sent_brings_no_control_characters_into_the_log() {
    let event =
        Event::success(EventName::SvidIssued).with("workload_identity", "a\r\u{1b}[2Kb\u{9b}\nc");
    assert_eq!(event.text_field("workload_identity"), "a[2Kbc");
    assert_eq!(event.fields_json(), r#"{"workload_identity":"a[2Kbc"}"#);
}
