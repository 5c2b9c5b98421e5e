use super::serial;

#[test]
fn a_serial_number_may_have_colons_and_capitals() {
    assert_eq!(serial("0A:1b:FF"), "0a1bff");
    assert_eq!(serial("0a1bff"), "0a1bff");
    assert_eq!(serial("urn:uuid:AB"), "urn:uuid:AB");
}
