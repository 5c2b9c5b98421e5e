use super::*;

#[test]
fn serial_numbers_in_decimal() {
    let cases: [(&[u8], &str); 7] = [
        (&[], "0"),
        (&[0], "0"),
        (&[9], "9"),
        (&[10], "10"),
        (&[1, 0], "256"),
        (&[255; 8], "18446744073709551615"),
        (
            &[
                0x7f, 0x01, 0xff, 0x80, 0x33, 0xab, 0xcd, 0xef, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc,
                0xde, 0xf0,
            ],
            "168822329933188017999460636129790582512",
        ),
    ];
    for (bytes, text) in cases {
        assert_eq!(decimal(bytes), text);
    }
}
