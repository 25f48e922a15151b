//! The names in a field section of HTTP/3, and their order. The HTTP/3 library hands on what a request
//! means and not how it was written: of two `:path` it takes the last, and it sees none of those that
//! follow a field or stand among trailers. Two programs could read such a request in two ways, so it
//! is malformed (RFC 9114 sections 4.1.2, 4.3), and is found here, before the library has it.
//!
//! Values are not decoded, only passed over; of names, only those that begin with a colon matter. What
//! is no section of QPACK without its dynamic table is left to the library, which refuses it. Pure.

/// What a request has, each at most once (RFC 9114 section 4.3.1). `:protocol` is not among them: it
/// is for servers that have offered it (RFC 9220).
const PSEUDO: [Pseudo; 4] = [
    Pseudo {
        name: b":authority",
        huffman: &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f],
        indices: 0..=0,
    },
    Pseudo {
        name: b":path",
        huffman: &[0xb9, 0x58, 0xd3, 0x3f],
        indices: 1..=1,
    },
    Pseudo {
        name: b":method",
        huffman: &[0xb9, 0x49, 0x53, 0x39, 0xe4],
        indices: 15..=21,
    },
    Pseudo {
        name: b":scheme",
        huffman: &[0xb8, 0x82, 0x4e, 0x5a, 0x4b],
        indices: 22..=23,
    },
];
/// `:status` in the static table, which no request has.
const STATUS: [std::ops::RangeInclusive<u64>; 2] = [24..=28, 63..=71];
/// A colon in the code of RFC 7541 appendix B, which takes the upper seven bits of a byte.
const HUFFMAN_COLON: u8 = 0xb8;
/// Bytes that may continue an integer: more would not fit.
const CONTINUATIONS_MAX: u32 = 9;

/// One name and its two forms: the number in the static table (RFC 9204 appendix A) and text.
struct Pseudo {
    name: &'static [u8],
    huffman: &'static [u8],
    indices: std::ops::RangeInclusive<u64>,
}

/// Where a section stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Head,
    Trailers,
}

/// What a field line is named.
#[derive(Clone, Copy)]
enum Name {
    /// By its place in `PSEUDO`.
    Pseudo(usize),
    /// It begins with a colon, and no request has it.
    Foreign,
    Field,
}

impl Section {
    /// Why the section, the payload of a HEADERS frame, is malformed.
    pub(super) fn check(self, payload: &[u8]) -> Result<(), &'static str> {
        let Some(mut lines) = after_prefix(payload) else {
            return Ok(());
        };
        let mut seen = [false; PSEUDO.len()];
        let mut fields = false;
        while !lines.is_empty() {
            let Some((name, empty, rest)) = line(lines) else {
                return Ok(());
            };
            lines = rest;
            match name {
                Name::Field => fields = true,
                Name::Foreign => return Err("a pseudo-header field that no request has"),
                Name::Pseudo(_) if self == Self::Trailers => {
                    return Err("a pseudo-header field in trailers");
                }
                Name::Pseudo(_) if fields => return Err("a pseudo-header field after a field"),
                Name::Pseudo(_) if empty => return Err("an empty pseudo-header field"),
                Name::Pseudo(which) => {
                    let before = seen
                        .get_mut(which)
                        .map(|seen| std::mem::replace(seen, true));
                    if before == Some(true) {
                        return Err("a pseudo-header field twice");
                    }
                }
            }
        }
        Ok(())
    }
}

/// What follows the prefix (RFC 9204 section 4.5.1).
fn after_prefix(payload: &[u8]) -> Option<&[u8]> {
    let (_, rest) = integer(payload, 8)?;
    let (_, rest) = integer(rest, 7)?;
    Some(rest)
}

/// A line's name, whether its value is empty, and what follows it (RFC 9204 sections 4.5.2 to 4.5.6).
fn line(bytes: &[u8]) -> Option<(Name, bool, &[u8])> {
    let first = *bytes.first()?;
    match first {
        0xc0.. => {
            let (index, rest) = integer(bytes, 6)?;
            // Of those in the table only `:authority` is empty.
            Some((by_index(index), index == 0, rest))
        }
        0x40..0x80 if first & 0x10 != 0 => {
            let (index, rest) = integer(bytes, 4)?;
            let (value, rest) = string(rest, 7)?;
            Some((by_index(index), value.is_empty(), rest))
        }
        0x20..0x40 => {
            let (name, rest) = string(bytes, 3)?;
            let (value, rest) = string(rest, 7)?;
            Some((by_text(name, first & 0x08 != 0), value.is_empty(), rest))
        }
        // They refer to the dynamic table, which has no entries here.
        _ => None,
    }
}

fn by_index(index: u64) -> Name {
    let found = PSEUDO.iter().position(|one| one.indices.contains(&index));
    match found {
        Some(which) => Name::Pseudo(which),
        None if STATUS.iter().any(|status| status.contains(&index)) => Name::Foreign,
        None => Name::Field,
    }
}

fn by_text(text: &[u8], huffman: bool) -> Name {
    let colon = match huffman {
        true => text
            .first()
            .is_some_and(|byte| byte & 0xfe == HUFFMAN_COLON),
        false => text.first() == Some(&b':'),
    };
    if !colon {
        return Name::Field;
    }
    let form = |one: &Pseudo| if huffman { one.huffman } else { one.name };
    let found = PSEUDO.iter().position(|one| form(one) == text);
    found.map_or(Name::Foreign, Name::Pseudo)
}

/// A text as it is written, plain or not, whose length has a prefix of so many bits (RFC 9204
/// section 4.1.2).
fn string(bytes: &[u8], prefix: u32) -> Option<(&[u8], &[u8])> {
    let (length, rest) = integer(bytes, prefix)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1), and what follows it.
fn integer(bytes: &[u8], prefix: u32) -> Option<(u64, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1_u64 << prefix) - 1;
    let mut number = u64::from(*first) & most;
    if number < most {
        return Some((number, rest));
    }
    for place in 0..CONTINUATIONS_MAX {
        let (byte, after) = rest.split_first()?;
        rest = after;
        number = number.checked_add(u64::from(byte & 0x7f) << (7 * place))?;
        if byte & 0x80 == 0 {
            return Some((number, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GET, https, `/` and `:authority: a`.
    const REQUEST: [u8; 6] = [0xd1, 0xd7, 0xc1, 0x50, 1, b'a'];

    fn head(lines: &[&[u8]]) -> Result<(), &'static str> {
        Section::Head.check(&[&[0, 0][..], &lines.concat()].concat())
    }

    /// A line whose name is a literal.
    fn literal(name: &[u8], value: &[u8], huffman: bool) -> Vec<u8> {
        let flags = 0x20 | if huffman { 0x08 } else { 0 };
        let mut line = match u8::try_from(name.len()).unwrap() {
            length @ 0..7 => vec![flags | length],
            length => vec![flags | 7, length - 7],
        };
        line.extend_from_slice(name);
        line.push(u8::try_from(value.len()).unwrap());
        line.extend_from_slice(value);
        line
    }

    #[test]
    fn a_request_as_clients_write_it_is_good() {
        assert_eq!(head(&[&REQUEST]), Ok(()));
        // `accept: */*`, a long literal, and one whose name has a colon within.
        let long = literal(b"a-long-name-of-a-field", &[b'x'; 100], false);
        let odd = literal(b"a:b", b"", false);
        assert_eq!(head(&[&REQUEST, &[0xdd], &long, &odd]), Ok(()));
        let trailers = [&[0, 0][..], &literal(b"x-sum", b"1", false)].concat();
        assert_eq!(Section::Trailers.check(&trailers), Ok(()));
    }

    #[test]
    fn a_pseudo_header_field_stands_once_and_first_however_it_is_written() {
        for one in &PSEUDO {
            let index = u8::try_from(*one.indices.start()).unwrap();
            let indexed = match index {
                0..15 => vec![0x50 | index, 1, b'x'],
                _ => vec![0x5f, index - 15, 1, b'x'],
            };
            let forms = [
                indexed,
                literal(one.name, b"x", false),
                literal(one.huffman, b"x", true),
            ];
            for form in &forms {
                assert_eq!(head(&[form]), Ok(()));
                let late = head(&[&literal(b"a", b"", false), form]);
                assert_eq!(late, Err("a pseudo-header field after a field"));
                let trailers = [&[0, 0][..], form].concat();
                let trailers = Section::Trailers.check(&trailers);
                assert_eq!(trailers, Err("a pseudo-header field in trailers"));
                for other in &forms {
                    let twice = head(&[form, other]);
                    assert_eq!(twice, Err("a pseudo-header field twice"));
                }
            }
        }
    }

    #[test]
    fn what_no_request_has_and_what_is_empty_is_malformed() {
        let foreign = Err("a pseudo-header field that no request has");
        for line in [
            &[0xd9][..],
            &[0xff, 0][..],
            &literal(b":status", b"200", false),
            &literal(b":protocol", b"websocket", false),
            &literal(b":", b"", false),
            &literal(&[0xb9, 0xff], b"", true),
        ] {
            assert_eq!(head(&[&REQUEST, line]), foreign, "{line:?}");
        }
        let empty = Err("an empty pseudo-header field");
        for line in [&[0xc0][..], &[0x51, 0], &literal(b":path", b"", false)] {
            assert_eq!(head(&[line]), empty, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_section_is_left_to_the_library() {
        let endless = [0xff_u8; 20];
        for bytes in [
            &[][..],
            &[0],
            &[0, 0, 0x80],
            &[0, 0, 0x10],
            &[0, 0, 0x00],
            &[0, 0, 0x40, 0],
            &[0, 0, 0x27],
            &[0, 0, 0x51, 9, b'x'],
            &endless,
        ] {
            assert_eq!(Section::Head.check(bytes), Ok(()), "{bytes:?}");
        }
    }
}
