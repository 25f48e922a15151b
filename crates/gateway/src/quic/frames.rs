//! Frames of HTTP/3 as they pass from QUIC to the HTTP/3 library, which keeps what it has read until a
//! frame is whole and bounds neither a frame's declared length nor what it keeps. So it gets a frame
//! of DATA as it comes, any other only once it is whole and not over the limit, and one that it does
//! not know never. What is held is one piece, however small the pieces were that it came in; where it is
//! a request's head or trailers, `section` looks at it first. Pure: the caller brings bytes.

use bytes::BytesMut;

use super::section::Section;

/// Two integers of eight bytes at most (RFC 9000 section 16).
const FRAME_HEAD_BYTES: usize = 16;

// RFC 9114 section 7.2.
const DATA: u64 = 0;
const HEADERS: u64 = 1;
/// The rest of what the library knows: control frames, those of HTTP/2 that are forbidden here, and
/// WebTransport's stream head. It says what is wrong with them.
const KNOWN: [u64; 10] = [2, 3, 4, 5, 6, 7, 8, 9, 0x0d, 0x41];

/// Why a stream is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A frame is longer than may be held.
    TooLong,
    Malformed(&'static str),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => f.write_str("a frame is longer than the limit of a head"),
            Self::Malformed(why) => write!(f, "malformed: {why}"),
        }
    }
}

impl std::error::Error for Refused {}

/// One stream's frames.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; FRAME_HEAD_BYTES],
    /// So much of `head` is known.
    known: usize,
    at: At,
    /// A frame that is not whole yet.
    held: BytesMut,
    held_max: usize,
    /// What the next HEADERS frame is; nothing where there is none to be.
    next: Option<Section>,
    /// What the frame that is held is.
    section: Option<Section>,
}

/// Where the next byte belongs, and how many follow.
#[derive(Clone, Copy, Debug)]
enum At {
    Head,
    Passed(u64),
    Held(u64),
    Skipped(u64),
}

impl Frames {
    /// Of a control stream.
    pub(super) fn new(held_max: usize) -> Self {
        Self {
            head: [0; FRAME_HEAD_BYTES],
            known: 0,
            at: At::Head,
            held: BytesMut::new(),
            held_max,
            next: None,
            section: None,
        }
    }

    /// Of a request's stream.
    pub(super) fn of_request(held_max: usize) -> Self {
        Self {
            next: Some(Section::Head),
            ..Self::new(held_max)
        }
    }

    /// Bytes that are kept until their frame is whole.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// These bytes came; what the library may read goes to `out`. Says how many frames carried no
    /// request.
    pub(super) fn came(&mut self, mut bytes: &[u8], out: &mut BytesMut) -> Result<u64, Refused> {
        let mut idle = 0;
        while let Some((byte, rest)) = bytes.split_first() {
            let left = match self.at {
                At::Head => {
                    bytes = rest;
                    if let Some((kind, length)) = self.head_byte(*byte) {
                        idle += u64::from(self.begin(kind, length, out)?);
                    }
                    continue;
                }
                At::Passed(left) | At::Held(left) | At::Skipped(left) => left,
            };
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            bytes = rest;
            let left = left - length as u64;
            match &mut self.at {
                At::Passed(_) => out.extend_from_slice(now),
                At::Held(_) => self.held.extend_from_slice(now),
                At::Skipped(_) | At::Head => {}
            }
            self.left(left, out)?;
        }
        Ok(idle)
    }

    /// The stream has ended: the library gets the broken frame, if there is one, and says so.
    pub(super) fn ended(&mut self, out: &mut BytesMut) {
        match self.at {
            At::Head | At::Skipped(_) => out.extend_from_slice(self.known_head()),
            At::Held(_) => out.unsplit(self.held.split()),
            At::Passed(_) => {}
        }
        self.known = 0;
    }

    /// Kind and length, once they are known.
    fn head_byte(&mut self, byte: u8) -> Option<(u64, u64)> {
        if let Some(room) = self.head.get_mut(self.known) {
            *room = byte;
            self.known += 1;
        }
        let (kind, rest) = integer(self.known_head())?;
        let (length, _) = integer(rest)?;
        Some((kind, length))
    }

    fn known_head(&self) -> &[u8] {
        self.head.get(..self.known).unwrap_or_default()
    }

    /// Says whether it is a frame that carries no request.
    fn begin(&mut self, kind: u64, length: u64, out: &mut BytesMut) -> Result<bool, Refused> {
        let known = kind == HEADERS || KNOWN.contains(&kind);
        if known && length > self.held_max as u64 {
            return Err(Refused::TooLong);
        }
        if kind == DATA {
            out.extend_from_slice(self.head.get(..self.known).unwrap_or_default());
            self.at = At::Passed(length);
        } else if known {
            let head = self.head.get(..self.known).unwrap_or_default();
            self.held.extend_from_slice(head);
            self.at = At::Held(length);
            if kind == HEADERS {
                self.section = self.next;
                self.next = self.next.map(|_| Section::Trailers);
            }
        } else {
            self.at = At::Skipped(length);
        }
        self.left(length, out)?;
        Ok(kind != HEADERS && (kind != DATA || length == 0))
    }

    /// So much of the frame is still to come.
    fn left(&mut self, left: u64, out: &mut BytesMut) -> Result<(), Refused> {
        self.at = match self.at {
            At::Passed(_) => At::Passed(left),
            At::Held(_) => At::Held(left),
            At::Skipped(_) => At::Skipped(left),
            At::Head => At::Head,
        };
        if left > 0 {
            return Ok(());
        }
        if matches!(self.at, At::Held(_)) {
            let payload = self.held.get(self.known..).unwrap_or_default();
            let section = self.section.take();
            let checked = section.map_or(Ok(()), |section| section.check(payload));
            checked.map_err(Refused::Malformed)?;
            out.unsplit(self.held.split());
        }
        self.at = At::Head;
        self.known = 0;
        Ok(())
    }
}

/// An integer of QUIC (RFC 9000 section 16) and what follows it; nothing where bytes are missing.
pub(super) fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1_usize << (bytes.first()? >> 6);
    let (own, rest) = bytes.split_at_checked(length)?;
    let number = own
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Some((number & ((1 << (8 * length - 2)) - 1), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame whose length takes two bytes.
    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![kind, high | 0x40, low];
        bytes.extend(vec![kind; payload]);
        bytes
    }

    #[test]
    fn an_integer_has_four_lengths() {
        // RFC 9000 appendix A.1.
        for (bytes, number) in [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(integer(bytes), Some((number, &[][..])));
            assert_eq!(integer(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn the_library_gets_whole_frames_and_no_unknown_ones_however_they_are_cut() {
        let all = [frame(33, 50), frame(1, 100), frame(0, 300), frame(34, 0)].concat();
        let known = [frame(1, 100), frame(0, 300)].concat();
        for cut in 1..60 {
            let mut frames = Frames::new(100);
            let (mut got, mut idle) = (Vec::new(), 0);
            for piece in all.chunks(cut) {
                let mut out = BytesMut::new();
                idle += frames.came(piece, &mut out).unwrap();
                assert!(got.is_empty() != (got.len() >= 103), "HEADERS in one piece");
                got.extend_from_slice(&out);
                assert!(frames.held() <= 103);
            }
            assert_eq!((got, idle), (known.clone(), 2), "{cut}");
            assert_eq!(frames.held(), 0);
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_head_alone() {
        for (kind, refused) in [(0, false), (1, true), (4, true), (33, false)] {
            let mut frames = Frames::new(100);
            let came = frames.came(&frame(kind, 101)[..3], &mut BytesMut::new());
            assert_eq!(came == Err(Refused::TooLong), refused, "{kind}");
        }
    }

    #[test]
    fn the_sections_of_a_request_are_looked_at_once_they_are_whole() {
        // `:path` as the whole of a section, with the prefix before it.
        let section = [1, 3, 0, 0, 0xc1];
        let why = "a pseudo-header field in trailers";
        for (mut frames, expected) in [
            (Frames::of_request(100), Err(Refused::Malformed(why))),
            (Frames::new(100), Ok(0)),
        ] {
            for byte in section.iter().chain(&section[..4]) {
                assert_eq!(frames.came(&[*byte], &mut BytesMut::new()), Ok(0));
            }
            let last = frames.came(&section[4..], &mut BytesMut::new());
            assert_eq!(last, expected);
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_shows_it() {
        for kind in [0, 1, 33] {
            for length in 1..=12 {
                let mut frames = Frames::new(100);
                let mut out = BytesMut::new();
                frames.came(&frame(kind, 10)[..length], &mut out).unwrap();
                frames.ended(&mut out);
                assert!(!out.is_empty() && out.len() < 13, "{kind} {length}");
            }
        }
    }
}
