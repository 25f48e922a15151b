//! A line of the log as one JSON object: `time` (UTC, RFC 3339), `level`, `message`, then the fields of
//! the spans around it, outermost first, then its own. Nothing else: no target, no file, no thread.
//!
//! Our own and not tracing-subscriber's, whose `timestamp` and nested spans are other names and another
//! shape than ours. The fields of a span are written once, when it begins, by its `JsonFields`.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats each event as such a line.
pub(super) struct Line;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Line {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(writer, "{{\"time\":\"{}\"", Utc(SystemTime::now()))?;
        write!(writer, ",\"level\":\"{}\"", event.metadata().level())?;
        write!(writer, ",\"message\":{}", Text(&fields.message))?;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                let written = extensions.get::<FormattedFields<JsonFields>>();
                let members = written.map_or("", |written| written.fields.as_str());
                let members = members
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_suffix('}'));
                if let Some(members) = members.filter(|members| !members.is_empty()) {
                    write!(writer, ",{members}")?;
                }
            }
        }
        writeln!(writer, "{}}}", fields.others)
    }
}

/// The message, and the other fields as members that each begin with a comma.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Fields {
    fn member(&mut self, field: &Field, value: impl fmt::Display) {
        let name = field.name();
        // Writing to a String cannot fail.
        let _ = write!(self.others, ",{}:{value}", Text(name));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.member(field, Text(value));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, value);
    }

    /// To the microsecond, where it is a duration in seconds; JSON has no infinities.
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.member(field, (value * 1e6).round() / 1e6);
        } else {
            self.member(field, "null");
        }
    }
}

/// A JSON string (RFC 8259 section 7).
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                other if other < ' ' => write!(f, "\\u{:04x}", u32::from(other))?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

/// RFC 3339 section 5.6, UTC, microseconds; the calendar as in Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms".
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, micros) = (since.as_secs(), since.subsec_micros());
        // Days since 0000-03-01, so that a leap day is the last of its year.
        let days = seconds / 86_400 + 719_468;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12 + 1;
        let year = days / 146_097 * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Lines that were logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(Line)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_time_level_message_the_fields_around_it_and_its_own_and_nothing_else() {
        let line = logged(|| {
            let span = tracing::info_span!("request", request_id = "a\"b", route = "/", trace = 5);
            let _inside = span.enter();
            let cause = None::<&str>;
            tracing::warn!(
                status = 200_u16,
                duration = 0.000_123_456,
                cause,
                "one\ntwo"
            );
        });
        let (time, rest) = line.split_at(36);
        assert!(
            time.starts_with("{\"time\":\"20") && time.ends_with('Z'),
            "{time}"
        );
        assert_eq!(
            rest,
            "\",\"level\":\"WARN\",\"message\":\"one\\ntwo\",\"request_id\":\"a\\\"b\",\"route\":\"/\",\
             \"trace\":5,\"status\":200,\"duration\":0.000123}\n"
        );
    }

    #[test]
    fn a_line_outside_of_any_span_is_whole() {
        let line = logged(|| tracing::info!(error = %"x\u{1}", flag = true, "plain"));
        assert!(
            line.ends_with("\"message\":\"plain\",\"error\":\"x\\u0001\",\"flag\":true}\n"),
            "{line}"
        );
    }

    #[test]
    fn times_are_utc_to_the_microsecond_also_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(7);
            assert_eq!(Utc(time).to_string(), text);
        }
    }
}
