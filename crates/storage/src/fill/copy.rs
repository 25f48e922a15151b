//! Sends rows in the binary COPY format (PostgreSQL, "COPY", section "Binary Format"), written by hand
//! into large buffers: the driver's own writer boxes every value and sends small pieces.

use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::Client;

use super::rows::Maker;
use crate::Error;
use crate::connect::within;

/// One piece on the wire. Smaller: more system calls. Larger: the server waits for us longer.
const PIECE_BYTES: usize = 128 * 1024;
/// No row of ours is longer, so a piece never grows.
const ROW_BYTES_MAX: usize = 1024;

/// A server that takes no piece for so long is given up.
const PIECE_LIMIT: Duration = Duration::from_secs(120);

/// The COPY stream being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    buffer: BytesMut,
}

impl Writer {
    fn header(&mut self) {
        self.buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
        self.buffer.put_i32(0); // flags
        self.buffer.put_i32(0); // length of the header's extension
    }

    /// Begins a row of so many values.
    pub(super) fn row(&mut self, values: i16) {
        self.buffer.put_i16(values);
    }

    pub(super) fn int4(&mut self, value: i32) {
        self.buffer.put_i32(4);
        self.buffer.put_i32(value);
    }

    pub(super) fn int8(&mut self, value: i64) {
        self.buffer.put_i32(8);
        self.buffer.put_i64(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.buffer.put_i32(value.len() as i32);
        self.buffer.put_slice(value.as_bytes());
    }

    fn trailer(&mut self) {
        self.buffer.put_i16(-1);
    }

    fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE_BYTES - ROW_BYTES_MAX
    }

    fn take(&mut self) -> Bytes {
        let piece = self.buffer.split().freeze();
        self.buffer.reserve(PIECE_BYTES);
        piece
    }
}

/// Sends the rows 1 to `rows` by `statement` (`COPY … FROM STDIN (FORMAT binary …)`) and returns how
/// many the server took. `sent` is told how many rows each piece had. Dropped half-way, the driver
/// tells the server to forget the whole copy.
pub(super) async fn send(
    client: &Client,
    statement: &str,
    maker: Maker,
    seed: u64,
    rows: u32,
    sent: &(dyn Fn(u64) + Send + Sync),
) -> Result<u64, Error> {
    let attempted = format!("run `{statement}`");
    let sink = within(
        PIECE_LIMIT,
        &attempted,
        client.copy_in::<_, Bytes>(statement),
    )
    .await?;
    let mut sink = pin!(sink);
    let mut writer = Writer::default();
    writer.header();
    let mut reported = 0;
    for id in 1..=rows {
        maker.write(seed, id, &mut writer);
        if writer.is_full() {
            within(PIECE_LIMIT, &attempted, sink.send(writer.take())).await?;
            sent(u64::from(id - reported));
            reported = id;
        }
    }
    writer.trailer();
    within(PIECE_LIMIT, &attempted, sink.send(writer.take())).await?;
    let taken = within(PIECE_LIMIT, &attempted, sink.as_mut().finish()).await?;
    sent(u64::from(rows - reported));
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_header_rows_and_trailer_byte_for_byte() {
        let mut writer = Writer::default();
        writer.header();
        writer.row(3);
        writer.int4(-2);
        writer.int8(7);
        writer.text("ab");
        writer.trailer();
        let expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
            \0\x03\0\0\0\x04\xff\xff\xff\xfe\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x02ab\xff\xff";
        assert_eq!(writer.take().as_ref(), expected);
    }

    #[test]
    fn no_row_is_longer_than_the_reserve() {
        let makers = [Maker::Customers, Maker::Movies];
        for maker in makers {
            for id in (1..4_000_000_000).step_by(40_000_003) {
                let mut writer = Writer::default();
                maker.write(1, id, &mut writer);
                assert!(writer.buffer.len() < ROW_BYTES_MAX / 2);
            }
        }
    }
}
