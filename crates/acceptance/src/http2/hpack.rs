//! HPACK (RFC 7541): field blocks written field by field in whatever form a case asks for, right or
//! wrong, and the server's blocks read back. The writer has no dynamic table of its own: a case that
//! uses one names the index itself. Left out: choosing the shortest form.

use std::collections::VecDeque;

use super::huffman;

/// The first index of the dynamic table.
pub(super) const DYNAMIC: usize = 62;
const TABLE_BYTES: usize = 4096;
/// What an entry costs beside its bytes (RFC 7541, 4.1).
const ENTRY_BYTES: usize = 32;

/// Names and values (RFC 7541, appendix A), from index 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// A field: name and value.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// A field block as it grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Block(Vec<u8>);

impl Block {
    /// Both as they are, not indexed, new name (RFC 7541, 6.2.2).
    pub(super) fn plain(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.push(0x00);
        self.text(name.as_ref()).text(value.as_ref())
    }

    /// As [`Self::plain`], and the reader shall remember it (6.2.1).
    pub(super) fn remembered(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.push(0x40);
        self.text(name.as_ref()).text(value.as_ref())
    }

    /// As [`Self::plain`], and nobody on the way may ever remember it (6.2.3).
    pub(super) fn never(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.push(0x10);
        self.text(name.as_ref()).text(value.as_ref())
    }

    /// As [`Self::plain`], both in Huffman code.
    pub(super) fn huffman(mut self, name: &str, value: &str) -> Self {
        self.0.push(0x00);
        for text in [name, value] {
            let symbols = text.bytes().map(usize::from);
            self = self.coded(&huffman::pack(huffman::bits(symbols), true));
        }
        self
    }

    /// The name by its index, the value as it is (6.2.2).
    pub(super) fn named(mut self, index: usize, value: impl AsRef<[u8]>) -> Self {
        integer(&mut self.0, 0x00, 4, index);
        self.text(value.as_ref())
    }

    /// A whole field by its index (6.1).
    pub(super) fn indexed(mut self, index: usize) -> Self {
        integer(&mut self.0, 0x80, 7, index);
        self
    }

    /// A dynamic table size update (6.3).
    pub(super) fn table_size(mut self, bytes: usize) -> Self {
        integer(&mut self.0, 0x20, 5, bytes);
        self
    }

    /// Whatever a case wants.
    pub(super) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    /// A string that says it is in Huffman code, whatever it is.
    pub(super) fn coded(mut self, bytes: &[u8]) -> Self {
        integer(&mut self.0, 0x80, 7, bytes.len());
        self.raw(bytes)
    }

    pub(super) fn text(mut self, bytes: &[u8]) -> Self {
        integer(&mut self.0, 0x00, 7, bytes.len());
        self.raw(bytes)
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// An integer with a prefix (RFC 7541, 5.1).
fn integer(out: &mut Vec<u8>, first: u8, prefix_bits: u32, value: usize) {
    let limit = (1_usize << prefix_bits) - 1;
    let low = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    if value < limit {
        out.push(first | low(value));
        return;
    }
    out.push(first | low(limit));
    let mut rest = value - limit;
    while rest >= 128 {
        out.push(low(rest % 128) | 0x80);
        rest /= 128;
    }
    out.push(low(rest));
}

/// Reads the blocks of one connection, in their order.
#[derive(Debug)]
pub(super) struct Decoder {
    table: VecDeque<Field>,
    bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            bytes_max: TABLE_BYTES,
        }
    }
}

impl Decoder {
    /// The fields of a whole block, or what is wrong with it.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, &'static str> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let index = read_integer(&mut rest, 7)?;
                fields.push(self.field(index)?);
            } else if first & 0xe0 == 0x20 {
                self.bytes_max = read_integer(&mut rest, 5)?;
                if self.bytes_max > TABLE_BYTES {
                    return Err("a table larger than was allowed");
                }
                self.evict();
            } else {
                let remember = first & 0x40 != 0;
                let index = read_integer(&mut rest, if remember { 6 } else { 4 })?;
                let name = match index {
                    0 => read_text(&mut rest)?,
                    _ => self.field(index)?.0,
                };
                let field = (name, read_text(&mut rest)?);
                if remember {
                    self.table.push_front(field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        Ok(fields)
    }

    fn field(&self, index: usize) -> Result<Field, &'static str> {
        let at = index.checked_sub(1).ok_or("index 0")?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let found = self.table.get(at - STATIC.len());
        found.cloned().ok_or("an index beyond the tables")
    }

    fn evict(&mut self) {
        let size = |(name, value): &Field| name.len() + value.len() + ENTRY_BYTES;
        while self.table.iter().map(size).sum::<usize>() > self.bytes_max {
            self.table.pop_back();
        }
    }
}

fn read_integer(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, &'static str> {
    const SHORT: &str = "an integer that breaks off";
    let limit = (1_usize << prefix_bits) - 1;
    let (&first, tail) = rest.split_first().ok_or(SHORT)?;
    *rest = tail;
    let mut value = usize::from(first) & limit;
    if value < limit {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let (&byte, tail) = rest.split_first().ok_or(SHORT)?;
        *rest = tail;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("an integer too large")
}

fn read_text(rest: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = read_integer(rest, 7)?;
    let (text, tail) = rest
        .split_at_checked(length)
        .ok_or("a string that breaks off")?;
    *rest = tail;
    if coded {
        return huffman::decode(text);
    }
    Ok(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.into(), value.into())
    }

    #[test]
    fn the_requests_of_the_rfc_are_read_with_their_table() {
        // RFC 7541, C.4.1 and C.4.2.
        let mut decoder = Decoder::default();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let fields = decoder.decode(first).expect("fields");
        assert_eq!(fields[3], field(":authority", "www.example.com"));
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let fields = decoder.decode(second).expect("fields");
        assert_eq!(fields[3], field(":authority", "www.example.com"));
        assert_eq!(fields[4], field("cache-control", "no-cache"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let block = Block::default()
            .table_size(0)
            .table_size(4096)
            .indexed(2)
            .plain("a", "b")
            .remembered("x-long", "v".repeat(300))
            .indexed(DYNAMIC)
            .never("c", "d")
            .huffman("e", "f g")
            .named(4, "/long");
        let long = field("x-long", &"v".repeat(300));
        let wanted = [
            field(":method", "GET"),
            field("a", "b"),
            long.clone(),
            long,
            field("c", "d"),
            field("e", "f g"),
            field(":path", "/long"),
        ];
        let fields = Decoder::default().decode(&block.bytes()).expect("fields");
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_table_that_shrinks_forgets_the_oldest() {
        let mut decoder = Decoder::default();
        let block = Block::default().remembered("a", "1").remembered("b", "2");
        decoder.decode(&block.bytes()).expect("fields");
        let block = Block::default().table_size(40).indexed(DYNAMIC);
        assert_eq!(decoder.decode(&block.bytes()), Ok(vec![field("b", "2")]));
        let block = Block::default().indexed(DYNAMIC + 1);
        assert!(decoder.decode(&block.bytes()).is_err());
    }
}
