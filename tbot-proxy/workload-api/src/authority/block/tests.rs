use proptest::prelude::*;

use super::{SYMBOLS, code_of, mend, symbols};

/// As an encoder with Huffman coding writes it.
pub(in crate::authority) fn huffman(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for byte in text {
        let (length, _) = SYMBOLS.iter().find(|(_, of)| of.contains(byte)).unwrap();
        let code = code_of(*byte, *length).unwrap();
        bits.extend((0..*length).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().div_ceil(8) * 8, true);
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

/// A literal of a static name, with indexing.
fn literal(index: u8, value: &[u8], is_huffman: bool) -> Vec<u8> {
    let coded = match is_huffman {
        true => huffman(value),
        false => value.to_vec(),
    };
    assert!(coded.len() < 127);
    let flag = if is_huffman { 0x80 } else { 0 };
    [&[0x40 | index, flag | coded.len() as u8], coded.as_slice()].concat()
}

fn value_of(block: &[u8], is_huffman: bool) -> String {
    let value = &block[2..];
    let bytes = match is_huffman {
        true => symbols(value)
            .unwrap()
            .iter()
            .map(|symbol| symbol.byte)
            .collect(),
        false => value.to_vec(),
    };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_huffman_code_is_that_of_rfc_7541() {
    // Appendix C.4.1 and C.4.3.
    let published = [
        ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        ("no-cache", "a8eb10649cbf"),
        ("custom-key", "25a849e95ba97d7f"),
        ("custom-value", "25a849e95bb8e8b4bf"),
    ];
    for (text, code) in published {
        let coded = huffman(text.as_bytes());
        assert_eq!(hex::encode(&coded), code);
        let read: Vec<u8> = symbols(&coded).unwrap().iter().map(|it| it.byte).collect();
        assert_eq!(read, text.as_bytes());
    }
    assert!(symbols(&[0xff]).is_none(), "a whole byte of padding");
    assert!(symbols(&[0b0000_0000]).is_none(), "padding of zeros");
}

#[test]
fn what_is_no_authority_becomes_one_of_the_same_length() {
    let cases = [
        ("tmp%2Fwl.sock", "tmp-2Fwl.sock"),
        (
            "%2Frun%2Ftbot-proxy%2Fworkload.sock",
            "-2Frun-2Ftbot-proxy-2Fworkload.sock",
        ),
        ("/tmp/wl.sock", "-tmp-wl.sock"),
    ];
    for (before, after) in cases {
        for is_huffman in [false, true] {
            let mut block = literal(1, before.as_bytes(), is_huffman);
            let length = block.len();
            mend(&mut block).unwrap();
            assert_eq!(value_of(&block, is_huffman), after);
            assert_eq!(block.len(), length);
        }
    }
    let mut block = literal(1, b"unix:///a b", true);
    mend(&mut block).unwrap();
    assert_eq!(value_of(&block, true), "unixx---a-b");
}

#[test]
fn authorities_that_are_ones_are_left_alone() {
    for good in [
        "localhost",
        "127.0.0.1:8000",
        "[::]:50051",
        "a.b:1",
        "user@host",
    ] {
        for is_huffman in [false, true] {
            let mut block = literal(1, good.as_bytes(), is_huffman);
            let before = block.clone();
            mend(&mut block).unwrap();
            assert_eq!(block, before, "{good}");
        }
    }
}

#[test]
fn other_headers_are_left_alone() {
    // `:path`, whose value has what an authority may not have.
    for is_huffman in [false, true] {
        let mut block = literal(4, b"/a%2Fb", is_huffman);
        let before = block.clone();
        mend(&mut block).unwrap();
        assert_eq!(block, before);
    }
}

#[test]
fn a_name_that_is_spelt_out_is_known_in_both_codings() {
    for is_huffman in [false, true] {
        let (name, flag) = match is_huffman {
            true => (huffman(b":authority"), 0x80),
            false => (b":authority".to_vec(), 0),
        };
        // With indexing, without, never.
        for kind in [0x40, 0x00, 0x10] {
            let mut block = vec![kind, flag | name.len() as u8];
            block.extend_from_slice(&name);
            block.extend_from_slice(b"\x03a%b");
            mend(&mut block).unwrap();
            assert!(block.ends_with(b"a-b"));
        }
    }
}

#[test]
fn a_field_after_others_is_found() {
    // A table size update, `:method: POST`, an entry of the dynamic table.
    let mut block = vec![0x20, 0x83, 0xbe];
    block.extend(literal(4, b"/x", true));
    block.extend(literal(1, b"a%2F", false));
    mend(&mut block).unwrap();
    assert!(block.ends_with(b"a-2F"));
}

proptest! {
    #[test]
    fn nothing_in_a_block_is_a_panic(mut block in prop::collection::vec(any::<u8>(), 0..200)) {
        let length = block.len();
        let _ = mend(&mut block);
        prop_assert_eq!(block.len(), length);
    }

    #[test]
    fn a_mended_block_needs_no_mending(
        value in prop::collection::vec(prop::sample::select(b"ab%/:.-_~= &,;XZ0".to_vec()), 1..60),
        is_huffman: bool,
    ) {
        let mut block = literal(1, &value, is_huffman);
        mend(&mut block).unwrap();
        let mended = value_of(&block, is_huffman);
        prop_assert!(super::is_authority(mended.as_bytes()), "{}", mended);
        prop_assert_eq!(mended.len(), value.len());
    }
}
