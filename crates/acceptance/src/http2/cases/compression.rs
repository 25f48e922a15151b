//! HPACK (RFC 7541, and RFC 9113, section 4.3): what a decoder must take and what it must refuse. A
//! block that cannot be read ends the connection, because the tables of both sides have parted.

use super::super::frame::{Code, flag, kind};
use super::super::hpack::{Block, DYNAMIC};
use super::super::huffman;
use super::super::must::Must;
use super::super::script::{Event, Script};
use super::{Case, case};

const COMPRESSION: Must = Must::EndConnection(&[Code::COMPRESSION_ERROR]);
const OK: Must = Must::Answer(1, &[200]);
const OK_3: Must = Must::Answer(3, &[200]);

pub(super) const CASES: &[Case] = &[
    case(
        "rfc7541-2.3.3-index-0",
        "index 0 is none",
        |script| with_tail(script, &[0x80]),
        COMPRESSION,
    ),
    case(
        "rfc7541-2.3.3-index-beyond-the-tables",
        "an index beyond both tables is none",
        |script| {
            let block = script.get_fields().block().indexed(DYNAMIC + 200);
            script.whole(1, block);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-2.3.3-name-index-beyond-the-tables",
        "a name's index beyond both tables is none",
        |script| {
            let block = script.get_fields().block().named(DYNAMIC + 200, "x");
            script.whole(1, block);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-2.3.1-static-table",
        "fields of the static table are taken by their index",
        |script| {
            let scheme = if script.scheme == "https" { 7 } else { 6 };
            let block = Block::default().indexed(2).indexed(scheme);
            let block = block.named(1, &script.authority).named(4, &script.get_path);
            script.whole(1, block);
        },
        OK,
    ),
    case(
        "rfc7541-2.3.2-field-of-an-earlier-request",
        "a field that one request has added serves the next by its index",
        |script| {
            let block = start(script).remembered(":path", &script.get_path);
            let again = start(script).indexed(DYNAMIC);
            script.whole(1, block).wait(Event::End(1)).whole(3, again);
        },
        OK_3,
    ),
    case(
        "rfc7541-2.3.2-field-of-a-refused-request",
        "a request that is refused as malformed has added its fields all the same",
        |script| {
            let wrong = start(script)
                .plain(":unknown", "x")
                .remembered(":path", &script.get_path);
            let again = start(script).indexed(DYNAMIC);
            script.whole(1, wrong).whole(3, again);
        },
        Must::OneOf(&[OK_3, Must::EndConnection(&[Code::PROTOCOL_ERROR])]),
    ),
    case(
        "rfc9113-4.3-block-of-a-reset-stream",
        "a field block on a stream that was just reset is read all the same, or ends the connection",
        |script| {
            let path = script.get_path.clone();
            let late = Block::default().remembered(":path", path);
            let again = start(script).indexed(DYNAMIC);
            script.post(1).reset(1, Code::CANCEL.0);
            script.frame(
                kind::HEADERS,
                flag::END_HEADERS | flag::END_STREAM,
                1,
                late.bytes(),
            );
            script.whole(3, again);
        },
        Must::OneOf(&[
            OK_3,
            Must::EndConnection(&[Code::STREAM_CLOSED, Code::PROTOCOL_ERROR]),
        ]),
    ),
    case(
        "rfc7541-3.2-fields-of-one-block",
        "a field serves later in the same block",
        |script| {
            let block = script
                .get_fields()
                .block()
                .remembered("x-a", "1")
                .indexed(DYNAMIC);
            script.whole(1, block);
        },
        OK,
    ),
    case(
        "rfc7541-4.2-table-over-the-limit",
        "a table larger than SETTINGS_HEADER_TABLE_SIZE is refused",
        |script| {
            let block = Block::default().table_size(1 << 20);
            let rest = script.get_fields().block().bytes();
            script.whole(1, block.raw(rest));
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-4.2-size-update-after-a-field",
        "a size update stands at the beginning of a block",
        |script| {
            let block = script.get_fields().block().table_size(0);
            script.whole(1, block);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-4.2-size-updates-at-the-beginning",
        "a block may begin with size updates",
        |script| {
            let rest = script.get_fields().block().bytes();
            script.whole(1, Block::default().table_size(0).table_size(4096).raw(rest));
        },
        OK,
    ),
    case(
        "rfc7541-4.3-size-update-evicts",
        "an entry that a size update has evicted is gone",
        |script| {
            let first = start(script).remembered(":path", &script.get_path);
            let again = Block::default()
                .table_size(0)
                .raw(start(script).indexed(DYNAMIC).bytes());
            script.whole(1, first).wait(Event::End(1)).whole(3, again);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-4.4-entry-larger-than-the-table",
        "an entry larger than the table empties it and is no error",
        |script| {
            let block = script
                .get_fields()
                .block()
                .remembered("x", vec![b'x'; 4096]);
            script.whole(1, block).get(3);
        },
        OK_3,
    ),
    case(
        "rfc7541-4.4-oldest-entry-goes-first",
        "a full table forgets its oldest entry",
        |script| {
            let mut block = start(script).remembered(":path", &script.get_path);
            for round in 0..5 {
                block = block.remembered(format!("x-{round}"), vec![b'v'; 900]);
            }
            // The path is the sixth from the new end, and was evicted.
            let again = start(script).indexed(DYNAMIC + 5);
            script.whole(1, block).wait(Event::End(1)).whole(3, again);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-5.1-integer-without-end",
        "an integer of many bytes is refused",
        |script| with_tail(script, &[0xff; 20]),
        COMPRESSION,
    ),
    case(
        "rfc7541-5.1-integer-overflows",
        "an integer over 2^32 is refused",
        |script| with_tail(script, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        COMPRESSION,
    ),
    case(
        "rfc7541-5.1-integer-breaks-off",
        "a block that ends within an integer is refused",
        |script| with_tail(script, &[0xff]),
        COMPRESSION,
    ),
    case(
        "rfc7541-5.2-string-beyond-the-block",
        "a string longer than its block is refused",
        |script| with_tail(script, &[0x00, 0x05, b'x']),
        COMPRESSION,
    ),
    case(
        "rfc7541-5.2-huffman",
        "Huffman strings are taken",
        |script| {
            let path = script.get_path.clone();
            let block = script
                .get_fields()
                .without(":path")
                .block()
                .huffman(":path", &path);
            script.whole(
                1,
                block.huffman("x-any", "~\u{7f}".trim_end_matches('\u{7f}')),
            );
        },
        OK,
    ),
    case(
        "rfc7541-5.2-huffman-padding-of-a-byte",
        "a padding of more than seven bits is refused",
        |script| {
            let value = [
                huffman::pack(huffman::bits([usize::from(b'x')]), true),
                vec![0xff],
            ]
            .concat();
            with_coded(script, &value);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-5.2-huffman-padding-of-zeroes",
        "a padding that is no beginning of the end of string is refused",
        |script| {
            let value = huffman::pack(huffman::bits([usize::from(b'a')]), false);
            with_coded(script, &value);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-5.2-huffman-end-of-string",
        "the end of string within a string is refused",
        |script| {
            let symbols = [usize::from(b'a'), huffman::END_OF_STRING, usize::from(b'a')];
            let value = huffman::pack(huffman::bits(symbols), true);
            with_coded(script, &value);
        },
        COMPRESSION,
    ),
    case(
        "rfc7541-6.1-index-in-trailers",
        "trailers are read with the same table",
        |script| {
            let fields = script.post_fields().block().remembered("x-t", "1");
            script.frame(kind::HEADERS, flag::END_HEADERS, 1, fields.bytes());
            script
                .post_body(1, flag::NONE)
                .whole(1, Block::default().indexed(DYNAMIC));
        },
        OK,
    ),
    case(
        "rfc7541-6.2.1-name-by-index",
        "a name by its index with a new value, remembered",
        |script| {
            // 0x7a: remembered, name of index 58 (user-agent).
            let block = script.get_fields().block().raw([0x7a]).text(b"judge");
            let again = script.get_fields().block().indexed(DYNAMIC);
            script.whole(1, block).wait(Event::End(1)).whole(3, again);
        },
        OK_3,
    ),
    case(
        "rfc7541-6.2.3-never-indexed",
        "a field that must never be indexed is taken",
        |script| {
            let block = script
                .get_fields()
                .block()
                .never("authorization", "Basic eDp4");
            script.whole(1, block);
        },
        Must::AnyAnswer(1),
    ),
    case(
        "rfc9113-4.3-block-that-cannot-be-read",
        "a block in trailers that cannot be read ends the connection too",
        |script| {
            script
                .post(1)
                .post_body(1, flag::NONE)
                .whole(1, Block::default().indexed(DYNAMIC + 9));
        },
        COMPRESSION,
    ),
];

/// A GET without its path.
fn start(script: &Script) -> Block {
    script.get_fields().without(":path").block()
}

/// A GET whose block ends so.
fn with_tail(script: &mut Script, tail: &[u8]) {
    let block = script.get_fields().block().raw(tail);
    script.whole(1, block);
}

/// A GET with a field of this Huffman string.
fn with_coded(script: &mut Script, value: &[u8]) {
    let block = script
        .get_fields()
        .block()
        .raw([0x00])
        .text(b"x-h")
        .coded(value);
    script.whole(1, block);
}
