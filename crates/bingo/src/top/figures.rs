//! Numbers and times for people, said as the live page says them. What is not known is said to be
//! unknown, never zero. Pure: the time and its zone come along.

use jiff::{Timestamp, Zoned};

pub(super) const UNKNOWN: &str = "unknown";
/// For what there was nothing to measure of.
pub(super) const NOTHING: &str = "–";

const BYTE_UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// A count in so many seconds, by the second.
pub(super) fn per_second(count: f64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { count / seconds } else { 0.0 };
    if rate == 0.0 {
        "0".to_owned()
    } else if rate >= 100.0 {
        format!("{rate:.0}")
    } else if rate >= 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.2}")
    }
}

pub(super) fn percent(part: f64, whole: f64) -> String {
    if whole <= 0.0 {
        return NOTHING.to_owned();
    }
    let share = part / whole * 100.0;
    if share == 0.0 {
        "0 %".to_owned()
    } else if share < 0.1 {
        "<0.1 %".to_owned()
    } else if share < 10.0 {
        format!("{share:.1} %")
    } else {
        format!("{share:.0} %")
    }
}

/// Seconds; none where nothing was measured.
pub(super) fn latency(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return NOTHING.to_owned();
    };
    let milliseconds = seconds * 1000.0;
    if milliseconds >= 10_000.0 {
        format!("{seconds:.1} s")
    } else if milliseconds >= 1000.0 {
        format!("{seconds:.2} s")
    } else if milliseconds >= 10.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{milliseconds:.1} ms")
    }
}

pub(super) fn bytes(count: Option<u64>) -> String {
    let Some(count) = count else {
        return UNKNOWN.to_owned();
    };
    let mut value = count as f64;
    let mut units = BYTE_UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let digits = usize::from(unit != "B" && value < 100.0);
    format!("{value:.digits$} {unit}")
}

/// A time of day in the zone of `now`; of another day that day and the minute. RFC 3339.
pub(super) fn time(at: &str, now: &Zoned) -> String {
    let Ok(at) = at.parse::<Timestamp>() else {
        return UNKNOWN.to_owned();
    };
    let at = at.to_zoned(now.time_zone().clone());
    let format = match at.date() == now.date() {
        true => "%H:%M:%S",
        false => "%b %d %H:%M",
    };
    at.strftime(format).to_string()
}

pub(super) fn plural(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_say_their_unit() {
        assert_eq!(per_second(0.0, 10.0), "0");
        assert_eq!(per_second(1234.0, 10.0), "123");
        assert_eq!(per_second(5.0, 0.0), "0");
        assert_eq!(percent(0.0, 0.0), "–");
        assert_eq!(percent(1.0, 10_000.0), "<0.1 %");
        assert_eq!(percent(1.0, 20.0), "5.0 %");
        assert_eq!(latency(None), "–");
        assert_eq!(latency(Some(0.0012)), "1.2 ms");
        assert_eq!(latency(Some(1.234)), "1.23 s");
        assert_eq!(bytes(None), "unknown");
        assert_eq!(bytes(Some(12)), "12 B");
        assert_eq!(bytes(Some(9 << 20)), "9.0 MiB");
        assert_eq!(bytes(Some(u64::MAX)), "16777216 TiB");
    }

    #[test]
    fn a_time_of_another_day_says_which() {
        let now: Zoned = "2026-11-21T12:00:00+01:00[Europe/Paris]".parse().unwrap();
        assert_eq!(time("2026-11-21T10:30:00.123Z", &now), "11:30:00");
        assert_eq!(time("2026-11-20T10:30:00Z", &now), "Nov 20 11:30");
        assert_eq!(time("", &now), "unknown");
    }
}
