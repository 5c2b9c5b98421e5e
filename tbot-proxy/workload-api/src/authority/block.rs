//! The part of HPACK (RFC 7541) that finds `:authority` in a header block, and the
//! stand-ins of its characters.
//!
//! A field's name is `:authority` when it is entry 1 of the static table or spelt out.
//! One that is named by an entry of the dynamic table is left as it is: encoders look
//! into the static table first.

use std::ops::Range;

use http::uri::Authority;

/// `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY: &[u8] = b":authority";
/// Longest authority that is looked at: a percent-encoded path of a Unix socket (108
/// bytes) takes at most three times as much.
const MAX_AUTHORITY: usize = 4096;

/// Symbols of the Huffman code (RFC 7541 appendix B) by the length of their codes, in
/// bits. The code is canonical: within a length, codes count up in this order. Longer
/// codes are of characters that no client has in an authority.
const SYMBOLS: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

/// Mends the header block whose fragments lie in `bytes`.
pub(super) fn mend_fragments(bytes: &mut [u8], fragments: &[Range<usize>]) {
    if let [whole] = fragments {
        // What is malformed is left to `h2`.
        let _ = mend(&mut bytes[whole.clone()]);
        return;
    }
    let mut block = Vec::new();
    for fragment in fragments {
        block.extend_from_slice(&bytes[fragment.clone()]);
    }
    let _ = mend(&mut block);
    let mut rest = block.as_slice();
    for fragment in fragments {
        let (part, left) = rest.split_at(fragment.len());
        bytes[fragment.clone()].copy_from_slice(part);
        rest = left;
    }
}

/// Mends a header block; `None` if it is malformed, up to where it is.
fn mend(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        // RFC 7541 6.1 to 6.3.
        let (prefix, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(block, &mut at, prefix)?;
        if !is_literal {
            continue;
        }
        let is_authority = match index {
            0 => Text::at(block, &mut at)?.is_authority(block),
            index => index == AUTHORITY_INDEX,
        };
        let value = Text::at(block, &mut at)?;
        if is_authority {
            value.mend(block);
        }
    }
    Some(())
}

/// An integer (RFC 7541 5.1) at `at`, which is moved behind it.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let most = (1 << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    // No length in a block of 32 KiB needs more bytes.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string literal (RFC 7541 5.2).
struct Text {
    range: Range<usize>,
    is_huffman: bool,
}

impl Text {
    fn at(block: &[u8], at: &mut usize) -> Option<Self> {
        let is_huffman = block.get(*at)? & 0x80 != 0;
        let length = integer(block, at, 7)?;
        let range = *at..*at + length;
        *at = range.end;
        (range.end <= block.len()).then_some(Self { range, is_huffman })
    }

    fn is_authority(&self, block: &[u8]) -> bool {
        let bytes = &block[self.range.clone()];
        match self.is_huffman {
            false => bytes == AUTHORITY,
            true => symbols(bytes).is_some_and(|symbols| {
                symbols
                    .iter()
                    .map(|symbol| symbol.byte)
                    .eq(AUTHORITY.iter().copied())
            }),
        }
    }

    fn mend(&self, block: &mut [u8]) {
        let bytes = &mut block[self.range.clone()];
        if bytes.len() > MAX_AUTHORITY {
            return;
        }
        match self.is_huffman {
            false if is_authority(bytes) => {}
            false => {
                for byte in bytes.iter_mut().filter(|byte| !belongs(**byte)) {
                    *byte = b'-';
                }
            }
            true => mend_huffman(bytes),
        }
    }
}

fn is_authority(bytes: &[u8]) -> bool {
    Authority::try_from(bytes).is_ok()
}

/// Whether it may stand anywhere in a host name.
fn belongs(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn mend_huffman(bytes: &mut [u8]) {
    let Some(symbols) = symbols(bytes) else {
        return;
    };
    let text: Vec<u8> = symbols.iter().map(|symbol| symbol.byte).collect();
    if is_authority(&text) {
        return;
    }
    for symbol in symbols.iter().filter(|symbol| !belongs(symbol.byte)) {
        let stand_in = match symbol.length {
            6 => b'-',
            7 => b'x',
            8 => b'X',
            13 => b'~',
            // None of its length belongs: `h2` will refuse it.
            _ => continue,
        };
        let Some(code) = code_of(stand_in, symbol.length) else {
            continue;
        };
        for offset in 0..symbol.length {
            let bit = symbol.start + offset as usize;
            let mask = 0x80 >> (bit % 8);
            match code >> (symbol.length - 1 - offset) & 1 {
                0 => bytes[bit / 8] &= !mask,
                _ => bytes[bit / 8] |= mask,
            }
        }
    }
}

/// A symbol of a Huffman-coded string.
struct Symbol {
    byte: u8,
    /// Its first bit in the string.
    start: usize,
    /// How many bits its code has.
    length: u32,
}

/// The symbols of a Huffman-coded string; `None` if one is not in [`SYMBOLS`], or the
/// padding is wrong.
fn symbols(bytes: &[u8]) -> Option<Vec<Symbol>> {
    let mut symbols = Vec::new();
    let (mut code, mut length) = (0_u32, 0_u32);
    for bit in 0..bytes.len() * 8 {
        code = code << 1 | u32::from(bytes[bit / 8] >> (7 - bit % 8) & 1);
        length += 1;
        if length > 15 {
            return None;
        }
        if let Some(byte) = symbol_of(code, length) {
            symbols.push(Symbol {
                byte,
                start: bit + 1 - length as usize,
                length,
            });
            (code, length) = (0, 0);
        }
    }
    // Padding: fewer than eight ones.
    (length < 8 && code == (1 << length) - 1).then_some(symbols)
}

/// The first code of each length.
fn firsts() -> impl Iterator<Item = (u32, u32, &'static [u8])> {
    let mut next = 0_u32;
    let mut before = SYMBOLS[0].0;
    SYMBOLS.iter().map(move |(length, symbols)| {
        next <<= length - before;
        before = *length;
        let first = next;
        next += symbols.len() as u32;
        (*length, first, *symbols)
    })
}

fn symbol_of(code: u32, length: u32) -> Option<u8> {
    let (_, first, symbols) = firsts().find(|(of, ..)| *of == length)?;
    let index = usize::try_from(code.checked_sub(first)?).ok()?;
    symbols.get(index).copied()
}

fn code_of(byte: u8, length: u32) -> Option<u32> {
    let (_, first, symbols) = firsts().find(|(of, ..)| *of == length)?;
    let index = symbols.iter().position(|symbol| *symbol == byte)?;
    Some(first + index as u32)
}

#[cfg(test)]
mod tests;
