//! JSON written by hand into one growing buffer. Through serde the same bytes cost twice the CPU on
//! a list of 100 000 sessions (performance.md), and a list shares its machine with the database.
//! Reading requests is left to serde_json: they are small.

use storage::{Customer, Date, Movie, Session, Timestamp};

/// A record that has a JSON shape (contract.md section 3, "Shapes").
pub(crate) trait WriteJson {
    /// Appends one JSON object, without blanks.
    fn write_json(&self, out: &mut Vec<u8>);
}

impl WriteJson for Movie<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_integer(i64::from(self.id), out);
        out.extend_from_slice(b",\"name\":");
        write_string(self.name, out);
        out.extend_from_slice(b",\"year\":");
        write_integer(i64::from(self.year), out);
        out.extend_from_slice(b",\"duration\":");
        write_integer(self.duration_seconds, out);
        out.push(b'}');
    }
}

impl WriteJson for Customer<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_integer(i64::from(self.id), out);
        out.extend_from_slice(b",\"name\":");
        write_string(self.name, out);
        out.extend_from_slice(b",\"surname\":");
        write_string(self.surname, out);
        out.extend_from_slice(b",\"birthday\":\"");
        write_date(self.birthday, out);
        out.extend_from_slice(b"\",\"email\":");
        write_string(self.email, out);
        out.push(b'}');
    }
}

impl WriteJson for Session<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_integer(self.id, out);
        out.extend_from_slice(b",\"start_time\":\"");
        write_timestamp(self.start_time, out);
        out.extend_from_slice(b"\",\"customer\":");
        self.customer.write_json(out);
        out.extend_from_slice(b",\"movie\":");
        self.movie.write_json(out);
        out.push(b'}');
    }
}

/// A quoted string, escaped as PostgreSQL's `to_json` escapes it (the stored answer of a keyed
/// write is made there), which is the shortest way of RFC 8259 section 7.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest
        .iter()
        .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
    {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        if let Some((byte, after)) = special.split_first() {
            write_escape(*byte, out);
            rest = after;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
    }
}

fn write_integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    write_digits(value.unsigned_abs(), 1, out);
}

/// Decimal digits, padded with zeros to `width` (at most 20).
fn write_digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 && used >= width {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// `1987-05-14`; a date at infinity is written in PostgreSQL's word for it.
fn write_date(date: Date, out: &mut Vec<u8>) {
    match date.civil() {
        Some(day) => write_day(day, out),
        None => out.extend_from_slice(infinity(date.days() > 0)),
    }
}

/// `2015-10-06T11:16:31.395859Z`: always six digits of a second, always UTC.
fn write_timestamp(time: Timestamp, out: &mut Vec<u8>) {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    let Some(day) = time.date().and_then(Date::civil) else {
        out.extend_from_slice(infinity(time.micros() > 0));
        return;
    };
    write_day(day, out);
    let micros = time.micros().rem_euclid(MICROS_PER_DAY) as u64;
    let seconds = micros / 1_000_000;
    for (mark, value, width) in [
        (b'T', seconds / 3600, 2),
        (b':', seconds / 60 % 60, 2),
        (b':', seconds % 60, 2),
        (b'.', micros % 1_000_000, 6),
    ] {
        out.push(mark);
        write_digits(value, width, out);
    }
    out.push(b'Z');
}

fn write_day((year, month, day): (i32, u8, u8), out: &mut Vec<u8>) {
    if year < 0 {
        out.push(b'-');
    }
    write_digits(u64::from(year.unsigned_abs()), 4, out);
    out.push(b'-');
    write_digits(u64::from(month), 2, out);
    out.push(b'-');
    write_digits(u64::from(day), 2, out);
}

fn infinity(positive: bool) -> &'static [u8] {
    if positive { b"infinity" } else { b"-infinity" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_are_written_to_both_ends_of_their_range() {
        for value in [0, 7, -1, 10, 5820, i64::MAX, i64::MIN] {
            assert_eq!(written(|out| write_integer(value, out)), value.to_string());
        }
    }

    #[test]
    fn any_text_reads_back_as_it_was() {
        let mut text: String = (0..0x80_u8).map(char::from).collect();
        text.push_str("Мир \u{1F600} \u{2028}");
        let json = written(|out| write_string(&text, out));
        let back: String = serde_json::from_str(&json).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn a_session_is_written_in_the_shape_of_the_contract() {
        let session = Session {
            id: 7,
            start_time: Timestamp::from_unix_micros(1_444_130_191_395_859).unwrap(),
            customer: Customer {
                id: 1,
                name: "A\"b",
                surname: "C",
                birthday: Date::from_days(-4615),
                email: "a@example.com",
            },
            movie: Movie {
                id: 2,
                name: "M",
                year: 1994,
                duration_seconds: 5820,
            },
        };
        assert_eq!(
            written(|out| session.write_json(out)),
            concat!(
                r#"{"id":7,"start_time":"2015-10-06T11:16:31.395859Z","#,
                r#""customer":{"id":1,"name":"A\"b","surname":"C","birthday":"1987-05-14","email":"a@example.com"},"#,
                r#""movie":{"id":2,"name":"M","year":1994,"duration":5820}}"#
            )
        );
    }

    #[test]
    fn days_are_written_as_iso_8601_has_them() {
        for (days, text) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (-1, "1999-12-31"),
            (-36_524, "1900-01-01"),
            (8_766, "2024-01-01"),
        ] {
            assert_eq!(written(|out| write_date(Date::from_days(days), out)), text);
        }
        assert_eq!(
            written(|out| write_date(Date::from_days(i32::MAX), out)),
            "infinity"
        );
    }
}
