//! HTTP/2 frames as bytes (RFC 9113, section 4), written by hand: a decent library would refuse to
//! write what the cases need to send. Nothing is checked on the way out; on the way in a frame is
//! whatever its length says. Left out: any meaning of a payload, which the cases read themselves.

use std::fmt;

/// What every client sends first (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;

/// Frame types (RFC 9113, 6).
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
    /// Of no document.
    pub(crate) const UNKNOWN: u8 = 0xfa;
}

/// Frame flags; their meaning depends on the type.
pub(super) mod flag {
    pub(crate) const NONE: u8 = 0x0;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113, 6.5.2).
pub(super) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const UNKNOWN: u16 = 0xf0f0;
}

/// An error code (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        let name = usize::try_from(self.0).ok().and_then(|at| names.get(at));
        match name {
            Some(name) => out.write_str(name),
            None => write!(out, "error {:#x}", self.0),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// All 32 bits: the reserved one is for the sender to set.
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// As bytes; of a payload's length the low 24 bits are told, and no more.
    pub(super) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let [_, a, b, c] = length.to_be_bytes();
        let mut bytes = vec![a, b, c, self.kind, self.flags];
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Takes the first whole frame out of what was read.
    pub(super) fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = buffer.first_chunk::<HEAD_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        let payload = buffer.get(HEAD_BYTES..HEAD_BYTES + length)?.to_vec();
        buffer.drain(..HEAD_BYTES + length);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        Some(Self::new(kind, flags, stream, payload))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> Option<Code> {
        let from = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(from..)?.first_chunk::<4>()?;
        Some(Code(u32::from_be_bytes(*bytes)))
    }

    /// The identifier and value pairs of a SETTINGS.
    pub(super) fn settings(&self) -> Vec<(u16, u32)> {
        let (pairs, _) = self.payload.as_chunks::<6>();
        pairs
            .iter()
            .map(|&[i, j, a, b, c, d]| {
                (u16::from_be_bytes([i, j]), u32::from_be_bytes([a, b, c, d]))
            })
            .collect()
    }

    /// The payload of a DATA or HEADERS without padding and priority.
    pub(super) fn content(&self) -> &[u8] {
        let mut content = self.payload.as_slice();
        let mut padding = 0;
        if self.has(flag::PADDED)
            && let Some((&length, rest)) = content.split_first()
        {
            (padding, content) = (usize::from(length), rest);
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..).unwrap_or_default();
        }
        let end = content.len().saturating_sub(padding);
        content.get(..end).unwrap_or_default()
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream;
        match (self.kind, self.code()) {
            (kind::DATA, _) => write!(out, "DATA({stream}, {} bytes", self.payload.len())?,
            (kind::HEADERS, _) => write!(out, "HEADERS({stream}")?,
            (kind::RST_STREAM, Some(code)) => write!(out, "RST_STREAM({stream}, {code}")?,
            (kind::GOAWAY, Some(code)) => write!(out, "GOAWAY({code}")?,
            (kind::SETTINGS, _) if self.has(flag::ACK) => write!(out, "SETTINGS(ACK")?,
            (kind::SETTINGS, _) => write!(out, "SETTINGS(")?,
            (kind::PING, _) if self.has(flag::ACK) => write!(out, "PING(ACK")?,
            (kind::PING, _) => write!(out, "PING(")?,
            (kind::WINDOW_UPDATE, _) => write!(out, "WINDOW_UPDATE({stream}")?,
            (other, _) => write!(out, "type {other:#x}({stream}")?,
        }
        let carries_end = matches!(self.kind, kind::DATA | kind::HEADERS);
        if carries_end && self.has(flag::END_STREAM) {
            out.write_str(", END_STREAM")?;
        }
        out.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_once_it_is_whole() {
        let frame = Frame::new(kind::HEADERS, flag::END_HEADERS, 5, [1, 2, 3]);
        let bytes = frame.encode();
        assert_eq!(bytes, [0, 0, 3, 1, 4, 0, 0, 0, 5, 1, 2, 3]);
        let mut buffer = bytes[..11].to_vec();
        assert_eq!(Frame::take(&mut buffer), None);
        buffer.extend([3, 9]);
        assert_eq!(Frame::take(&mut buffer), Some(frame));
        assert_eq!(buffer, [9], "what follows stays");
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        let padded = [2, 0, 0, 0, 0, 9, 0x82, 0x84, 0, 0];
        let flags = flag::PADDED | flag::PRIORITY;
        let frame = Frame::new(kind::HEADERS, flags, 1, padded);
        assert_eq!(frame.content(), [0x82, 0x84]);
        let lying = Frame::new(kind::DATA, flag::PADDED, 1, [200, 1]);
        assert_eq!(lying.content(), [0_u8; 0]);
    }
}
