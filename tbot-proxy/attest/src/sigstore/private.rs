//! Addresses inside of a network, which a name that a stranger chose must not lead to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network: `10.1.0.0/16`, `fd00::/8`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    bits: u128,
    length: u8,
    is_v4: bool,
}

impl Prefix {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, width) = bits(address);
        let is_v4 = width == 32;
        is_v4 == self.is_v4 && cut(bits, width, self.length) == self.bits
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let (bits, width) = bits(address);
        let length = match length {
            Some(length) => length.parse().map_err(|_| error())?,
            None => width,
        };
        if length > width || cut(bits, width, length) != bits {
            return Err(error());
        }
        Ok(Self {
            bits,
            length,
            is_v4: width == 32,
        })
    }
}

/// It is no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixError(String);

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no network: write its first address and the length, as 10.1.0.0/16",
            self.0
        )
    }
}

impl std::error::Error for PrefixError {}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The first bits; the others 0.
fn cut(bits: u128, width: u8, length: u8) -> u128 {
    let dropped = u32::from(width - length);
    bits.checked_shr(dropped)
        .unwrap_or(0)
        .checked_shl(dropped)
        .unwrap_or(0)
}

/// Networks that are not of the public internet (IANA's registries of special-purpose
/// addresses, RFC 6890), multicast with them.
const NOT_PUBLIC_V4: [(u32, u8); 14] = [
    (0x0000_0000, 8),
    (0x0a00_0000, 8),
    (0x6440_0000, 10),
    (0x7f00_0000, 8),
    (0xa9fe_0000, 16),
    (0xac10_0000, 12),
    (0xc000_0000, 24),
    (0xc000_0200, 24),
    (0xc058_6300, 24),
    (0xc0a8_0000, 16),
    (0xc612_0000, 15),
    (0xc633_6400, 24),
    (0xcb00_7100, 24),
    (0xe000_0000, 3),
];

/// Whether an address is of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4
        .iter()
        .any(|(network, length)| address.to_bits() >> (32 - length) == network >> (32 - length))
}

/// Of IPv6 what is global unicast, 2000::/3, and leads to no IPv4 address that is not public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    if let Some(address) = address.to_ipv4_mapped() {
        return is_public_v4(address);
    }
    match segments {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Teredo, benchmarks, ORCHID; documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first >> 13 == 1,
    }
}
