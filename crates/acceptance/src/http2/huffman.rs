//! The Huffman code of RFC 7541, appendix B. It is canonical: codes of one length follow each other
//! in the order of their symbols, so the lengths alone say all. A bit at a time is slow and plain;
//! a judge reads a few hundred bytes. The end-of-string symbol can be written on purpose.

/// The symbol that must never be sent (RFC 7541, 5.2).
pub(super) const END_OF_STRING: usize = 256;
const LENGTH_MAX: u8 = 30;

/// Bits per symbol, the last one for the end of string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The bits of these symbols, one `bool` each; the caller pads.
pub(super) fn bits(symbols: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let codes = codes();
    let mut bits = Vec::new();
    for symbol in symbols {
        let found = codes.iter().find(|(known, ..)| *known == symbol);
        if let Some(&(_, length, code)) = found {
            bits.extend((0..length).rev().map(|at| code >> at & 1 == 1));
        }
    }
    bits
}

/// Bits as bytes, filled up with `padding`.
pub(super) fn pack(mut bits: Vec<bool>, padding: bool) -> Vec<u8> {
    bits.resize(bits.len().next_multiple_of(8), padding);
    let (bytes, _) = bits.as_chunks::<8>();
    bytes
        .iter()
        .map(|byte| {
            byte.iter()
                .fold(0, |value, bit| value << 1 | u8::from(*bit))
        })
        .collect()
}

/// The text of these bytes, or what is wrong with them.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let codes = codes();
    let (mut text, mut code, mut length, mut ones) = (Vec::new(), 0_u32, 0_u8, true);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        (code, length, ones) = (code << 1 | u32::from(bit), length + 1, ones && bit == 1);
        let found = codes
            .iter()
            .find(|(_, bits, value)| *bits == length && *value == code);
        if let Some((symbol, ..)) = found {
            text.push(u8::try_from(*symbol).map_err(|_| "an end of string in a string")?);
            (code, length, ones) = (0, 0, true);
        } else if length > LENGTH_MAX {
            return Err("bits of no symbol");
        }
    }
    if length > 7 || !ones {
        return Err("wrong padding");
    }
    Ok(text)
}

/// Each symbol with its length and its code.
fn codes() -> Vec<(usize, u8, u32)> {
    let mut symbols: Vec<(usize, u8)> = LENGTHS.iter().copied().enumerate().collect();
    symbols.sort_by_key(|(symbol, length)| (*length, *symbol));
    let (mut next, mut last) = (0_u32, 0_u8);
    symbols
        .into_iter()
        .map(|(symbol, length)| {
            next <<= length - last;
            last = length;
            next += 1;
            (symbol, length, next - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        // RFC 7541, C.4.1 and C.6.1.
        let example = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(decode(example).expect("text"), b"www.example.com");
        let symbols = b"www.example.com".iter().map(|byte| usize::from(*byte));
        assert_eq!(pack(bits(symbols), true), example);
        let date = b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff";
        assert_eq!(
            decode(date).expect("text"),
            b"Mon, 21 Oct 2013 20:13:21 GMT"
        );
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let written = pack(bits(0..256), true);
        assert_eq!(decode(&written).expect("text"), all);
    }

    #[test]
    fn wrong_endings_are_told() {
        assert!(decode(&pack(bits([END_OF_STRING]), true)).is_err());
        assert!(decode(&pack(bits([usize::from(b'0')]), false)).is_err());
        assert!(
            decode(b"\x07\xff").is_err(),
            "more than seven bits of padding"
        );
    }
}
